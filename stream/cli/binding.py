"""The stages with the settings of a Config bound: what the worker is given, whatever its ends are."""

from functools import partial
from typing import Any

from stream.alerts.evidence import Sender
from stream.config import Config, Loaded
from stream.detectors import river
from stream.profiles.cuts import Declared
from stream.signals.extract import FEATURE
from stream.stages import References, detect, ingest
from stream.worker.metrics import package_version
from stream.worker.stages import Stages


def bound(loaded: Loaded) -> Stages:
    """All verbs of all stages."""
    config = loaded.config
    of_ingest, of_detect = ingest_settings(config), detect_settings(loaded)
    return Stages(
        config_id=loaded.config_id,
        references=References.empty,
        ingest_start=ingest.start,
        ingest_step=partial(ingest.step, of_ingest),
        ingest_tick=partial(ingest.tick, of_ingest),
        ingest_flush=partial(ingest.flush, of_ingest),
        ingest_pending=ingest.pending,
        join_start=_unread,
        join_step=_unread,
        join_watermark=_unread,
        join_oldest=_unread,
        join_halvings=_unread,
        join_waiting=_unread,
        join_digest=_unread,
        detect_start=partial(detect.start, of_detect),
        detect_waits_for=detect.waits_for,
        detect_step=partial(detect.step, of_detect),
        detect_encode=detect.encode,
        detect_decode=detect.decode,
        detect_digest=detect.digest,
        detect_overview=partial(detect.overview, of_detect),
    )


def _unread(*_arguments: Any) -> Any:
    raise AssertionError("no topic of feedback is read")


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
        models={model.id: model for model in config.models},
        control=config.topics.of("control"),
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
        outcomes={model.id: model for model in config.models},
        challenger=config.challenger,
        retrain=config.retrain,
    )


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
