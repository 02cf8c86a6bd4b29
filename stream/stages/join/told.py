"""What was found out, per model, on its way to records of outcomes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from msgspec import Struct, field

from stream.profiles import outcomes
from stream.signals.outcomes import Compared, Ended, Met, ModelSettings
from stream.stages.join.rows import Rows
from stream.wire import codec
from stream.wire.internal import OUTCOMES, Bools, Ints, Outcomes
from stream.wire.record import Outgoing


class Told(Struct, frozen=True, eq=False):
    """Since the last records."""

    met: list[Met] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """By model id and outcome."""


def joined(parts: Sequence[Told]) -> Told:
    """All that was told."""
    counts: dict[tuple[str, str], int] = {}
    for part in parts:
        for name, count in part.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Told(
        met=[one for part in parts for one in part.met],
        ended=[one for part in parts for one in part.ended],
        compared=[one for part in parts for one in part.compared],
        counts=counts,
    )


def counted(some: Rows, outcome: str, which: Bools | None = None) -> Told:
    """So many rows of each model had this outcome: those of a mask, or all."""
    models = some.model if which is None else some.model[which]
    counts = np.bincount(models, minlength=len(some.names.models)).tolist()
    return Told(counts={(name, outcome): count for name, count in zip(some.names.models, counts, strict=True) if count})


def met(predictions: Rows, labels: Rows, size_ms: int) -> Told:
    """Pairs: rows side by side, with the same names. Where both have one time, the prediction completes the pair."""
    names = predictions.names
    last = predictions.times_ms >= labels.times_ms
    times_ms = np.where(last, predictions.times_ms, labels.times_ms)
    delays_ms = (labels.times_ms - labels.behind_ms) - (predictions.times_ms - predictions.behind_ms)
    found = [
        Met(
            model_id=names.models[model],
            windows_ms=(times_ms - times_ms % size_ms)[own],
            versions=list(names.versions),
            version=predictions.version[own],
            classes=list(names.classes),
            predicted=predictions.label[own],
            actual=labels.label[own],
            scores=predictions.scores[own],
            score_of=predictions.score_of[own],
            outputs=predictions.values[own],
            truths=labels.values[own],
            delays_ms=np.maximum(delays_ms, 0)[own],
            segments=[list(segment) for segment in names.segments],
            segment=predictions.segment[own],
            topics=list(names.topics),
            topic=np.where(last, predictions.topic, labels.topic)[own],
            partitions=np.where(last, predictions.partition, labels.partition)[own],
            offsets=np.where(last, predictions.offset, labels.offset)[own],
        )
        for model, own in _by_model(predictions)
    ]
    return joined([Told(met=found), counted(predictions, "matched")])


def ended(predictions: Rows, labelled: Bools, horizon_ms: int, size_ms: int) -> Told:
    """Predictions whose horizon has ended."""
    names = predictions.names
    ends_ms = predictions.times_ms + horizon_ms
    found = [
        Ended(
            model_id=names.models[model],
            windows_ms=(ends_ms - ends_ms % size_ms)[own],
            versions=list(names.versions),
            version=predictions.version[own],
            segments=[list(segment) for segment in names.segments],
            segment=predictions.segment[own],
            labelled=labelled[own],
        )
        for model, own in _by_model(predictions)
    ]
    return joined([Told(ended=found), counted(predictions, "expired", ~labelled)])


def records(told: Told, models: Mapping[str, ModelSettings]) -> list[Outgoing]:
    """Records of outcomes, merged, by model, version and window."""
    groups: dict[tuple[str, str, int], list[Outcomes]] = {}
    for piece in _pieces(told, models):
        groups.setdefault((piece.model_id, piece.model_version, piece.window_start_ms), []).append(piece)
    return [
        Outgoing(
            "profiles", piece.model_id.encode(), codec.encode(piece, OUTCOMES), (("drift-format", OUTCOMES.encode()),)
        )
        for name in sorted(groups)
        for piece in outcomes.split(outcomes.merge(groups[name]))
    ]


def _pieces(told: Told, models: Mapping[str, ModelSettings]) -> Iterator[Outcomes]:
    of_pairs: Callable[[Met], list[Outcomes]] = lambda met: outcomes.of_pairs(  # noqa: E731 - bound once for all
        met, models.get(met.model_id, ModelSettings())
    )
    return chain.from_iterable(
        [*map(of_pairs, told.met), *map(outcomes.of_ended, told.ended), *map(outcomes.of_compared, told.compared)]
    )


def _by_model(some: Rows) -> list[tuple[int, Ints]]:
    return [(model, np.flatnonzero(some.model == model)) for model in np.unique(some.model).tolist()]
