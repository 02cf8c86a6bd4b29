"""The stages with the settings of a Config bound: what the worker is given, whatever its ends are."""

from functools import partial

from stream.alerts.evidence import Sender
from stream.config import Config, Loaded
from stream.detectors import river
from stream.profiles.cuts import Declared
from stream.signals.extract import FEATURE
from stream.stages import References, detect, ingest, join
from stream.worker.metrics import package_version
from stream.worker.settings import Topics
from stream.worker.stages import Stages


def bound(loaded: Loaded) -> Stages:
    """All verbs of all stages."""
    config = loaded.config
    of_ingest, of_join, of_detect = ingest_settings(config), join_settings(config), detect_settings(loaded)
    return Stages(
        config_id=loaded.config_id,
        references=References.empty,
        ingest_start=ingest.start,
        ingest_step=partial(ingest.step, of_ingest),
        ingest_tick=partial(ingest.tick, of_ingest),
        ingest_flush=partial(ingest.flush, of_ingest),
        ingest_pending=ingest.pending,
        join_start=partial(join.start, of_join),
        join_step=partial(join.step, of_join),
        join_watermark=join.watermark,
        join_oldest=join.oldest,
        join_halvings=join.halvings,
        join_waiting=join.waiting,
        join_digest=join.digest,
        detect_start=partial(detect.start, of_detect),
        detect_waits_for=detect.waits_for,
        detect_step=partial(detect.step, of_detect),
        detect_encode=detect.encode,
        detect_decode=detect.decode,
        detect_digest=detect.digest,
        detect_overview=partial(detect.overview, of_detect),
    )


def ingest_settings(config: Config) -> ingest.Settings:
    """The part ingest takes."""
    return ingest.Settings(
        limits=config.limits,
        windows=config.windows,
        outliers=config.outliers,
        period_ms=config.budget.period,
        sample_rows=config.learn.rows,
        include_values=config.alerts.include_values,
        feedback=tuple(config.topics.feedback),
        sample=config.feedback.sample,
        models={model.id: model for model in config.models},
        control=config.topics.of("control"),
    )


def join_settings(config: Config) -> join.Settings:
    """The part join takes."""
    return join.Settings(
        feedback=config.feedback,
        windows=config.windows,
        models={model.id: model for model in config.models},
        topics=(*config.topics.predictions, *config.topics.feedback),
    )


def detect_settings(loaded: Loaded) -> detect.Settings:
    """The part detect takes."""
    config = loaded.config
    return detect.Settings(
        sender=Sender(config.service.id, package_version(), loaded.config_id),
        windows=config.windows,
        budget=config.budget,
        enabled=tuple(config.detectors.enabled),
        histogram=config.detectors.histogram,
        mean=config.detectors.mean,
        adwin=config.detectors.adwin,
        page_hinkley=config.detectors.page_hinkley,
        river={f"{river.PREFIX}{name}": table.of(name) for name, table in config.detectors.river.items()},
        outliers=config.outliers,
        learn=config.learn,
        seasonality=config.seasonality,
        alerts=config.alerts,
        limits=config.limits,
        models={model.id: model.alerts for model in config.models},
        importance={
            model.id: {f"{FEATURE}{name}": feature.importance for name, feature in model.features.items()}
            for model in config.models
        },
        declared={model.id: declared(config, model.id) for model in config.models},
        topics=tuple(config.topics.predictions),
        outcome_topics=outcome_topics(config.topics),
        outcomes={model.id: model for model in config.models},
        horizon=config.feedback.horizon,
        challenger=config.challenger,
        retrain=config.retrain,
    )


def outcome_topics(topics: Topics) -> tuple[str, ...]:
    """Whom a window of outcomes waits for: all feedback, and what join has made of it."""
    return (*topics.feedback, topics.of("pairs")) if topics.feedback else ()


def declared(config: Config, model_id: str) -> Declared:
    """What the owner of a model says of it; of a model that is not listed, the limits alone."""
    model = next((model for model in config.models if model.id == model_id), None)
    features = {} if model is None else model.features
    return Declared(
        segments=[] if model is None else model.segments,
        types={name: feature.type for name, feature in features.items() if feature.type is not None},
        unwatched=frozenset(name for name, feature in features.items() if not feature.watch),
        features_max=config.limits.features,
        segment_values_max=config.limits.segment_values,
    )
