"""Halves of pairs: what a prediction and a label each bring to the place where they meet.

Both are sent to the partition of drift.pairs that the hash of model and prediction id names, whatever key, topic or
partition they came from. A block holds the halves of one model from one source partition; blocks may be merged and cut
at will, nothing depends on it.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import numpy as np
import orjson
from msgspec import Struct
from msgspec.structs import replace

from stream.signals import extract
from stream.signals.extract import Layout
from stream.signals.outcomes import ModelSettings, positive_labels, score_cells
from stream.wire import lenient
from stream.wire.codec import hash64, hashes
from stream.wire.feedback import Labels
from stream.wire.inbound import Events
from stream.wire.internal import Halves, ScoreOf
from stream.wire.lenient import Invalid, Text

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

RECORD_BYTES_MAX: Final = 512 * 1024
"""A block is split so that a record of it stays below this."""

_BINARY: Final = 2
_ROW_BYTES: Final = 88
"""Of all columns at their widest."""
_NAME_BYTES: Final = 5
"""What a text costs beside its letters."""
_COLUMNS: Final = (
    "offsets",
    "keys",
    "labels",
    "times_ms",
    "own_times_ms",
    "version",
    "label",
    "scores",
    "score_of",
    "values",
    "segment",
)
_HASH_LETTERS: Final = 17
_CODES_MAX: Final = 1 << 14

Name = TypeVar("Name")


class Source(Struct, frozen=True):
    """Whose halves they are, and where they were read."""

    model_id: str
    topic: str
    partition: int


class Answers(Struct, frozen=True):
    """What n predictions of one model say."""

    classes: list[str]
    label: Ints
    """[n] class, or -1"""
    scores: Floats
    """[n] probability, or NaN"""
    score_of: Ints
    """[n] `ScoreOf`"""


class Times(Struct, frozen=True):
    """Where n events stand in their partition, and when."""

    offsets: Ints
    times_ms: Ints
    """Event time, or that of the partition's watermark where the event came late."""
    own_times_ms: Ints
    """Event time in any case."""


def keys(model_id: str, prediction_ids: Iterable[str]) -> Ints:
    """[n] `codec.hash64` of the compact JSON array of model and prediction id, its bits read as a signed integer.

    About 0.5 us each.
    """
    dumps = orjson.dumps
    return hashes(b"[" + dumps(model_id) + b",", [dumps(own) + b"]" for own in prediction_ids]).view(np.int64)


def answers_of(events: Events, settings: ModelSettings) -> Answers:
    """What n events of one model answer."""
    return Answers(*_classes(events.label), *_scores(events, settings))


def cells_of(answers: Answers, settings: ModelSettings) -> Ints:
    """[n] `outcomes.score_cells` of the answers."""
    known, positive = answers.label >= 0, positive_labels(settings)
    is_positive = np.array([*(name in positive for name in answers.classes), False])[answers.label]
    return score_cells(answers.scores, answers.score_of, known, is_positive)


def of_predictions(  # noqa: PLR0913 - a half is made of everything known about it
    source: Source, version: str, events: Events, answers: Answers, times: Times, layout: Layout | None
) -> Halves:
    """n predictions of one model version; `layout` is that of the reference in force, which knows their segments."""
    n = len(events)
    segments, segment = _segments(layout, events)
    return Halves(
        model_id=source.model_id,
        topic=source.topic,
        partition=source.partition,
        offsets=times.offsets,
        keys=keys(source.model_id, events.prediction_ids),
        labels=np.zeros(n, dtype=np.bool_),
        times_ms=times.times_ms,
        own_times_ms=times.own_times_ms,
        versions=[version],
        version=np.zeros(n, dtype=np.int64),
        classes=answers.classes,
        label=answers.label,
        scores=answers.scores,
        score_of=answers.score_of,
        values=events.value,
        segments=segments,
        segment=segment,
    )


def of_labels(source: Source, labels: Labels, times: Times) -> Halves:
    """n labels of one model; the predictions they repeat are left to `of_predictions`."""
    n = len(labels)
    classes, label = _classes(labels.label)
    versions, version = _named(labels.model_versions)
    return Halves(
        model_id=source.model_id,
        topic=source.topic,
        partition=source.partition,
        offsets=times.offsets,
        keys=keys(source.model_id, labels.prediction_ids),
        labels=np.ones(n, dtype=np.bool_),
        times_ms=times.times_ms,
        own_times_ms=times.own_times_ms,
        versions=versions,
        version=version,
        classes=classes,
        label=label,
        scores=np.full(n, np.nan),
        score_of=np.full(n, ScoreOf.NOTHING, dtype=np.int64),
        values=labels.value,
        segments=[],
        segment=np.full(n, -1, dtype=np.int64),
    )


def sampled(halves: Halves, share: float) -> Halves:
    """Those whose key, read as unsigned, lies below a share of all keys: of a pair both halves or none."""
    if share >= 1:
        return halves
    return _picked(halves, np.flatnonzero(halves.keys.view(np.uint64) < int(share * 2.0**64)))


def merge(blocks: Sequence[Halves]) -> Halves:
    """The halves of blocks of one model and source partition as one, by offset; of one record in the order given.

    Raises `ValueError` when they do not belong together, or there are none.
    """
    first = blocks[0] if blocks else None
    if first is None or any(_source(block) != _source(first) for block in blocks):
        raise ValueError("only halves of one model and source partition can be merged")
    if len(blocks) == 1:
        return first
    versions, version = _united([(block.versions, block.version) for block in blocks])
    classes, label = _united([(block.classes, block.label) for block in blocks])
    segments, segment = _united([([tuple(own) for own in block.segments], block.segment) for block in blocks])
    columns = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in _COLUMNS}
    columns |= {"version": version, "label": label, "segment": segment}
    order = np.argsort(columns["offsets"], kind="stable")
    return replace(
        first,
        versions=versions,
        classes=classes,
        segments=[list(own) for own in segments],
        **{name: column[order] for name, column in columns.items()},
    )


def routed(halves: Halves, partitions: int, bytes_max: int = RECORD_BYTES_MAX) -> list[tuple[int, Halves]]:
    """(partition of drift.pairs, piece) of about `bytes_max` bytes at most: the key, read as unsigned, modulo.

    By rising partition, offsets rising in each.
    """
    targets = (halves.keys.view(np.uint64) % np.uint64(partitions)).astype(np.int64)
    ordered = _picked(halves, np.argsort(targets, kind="stable"))
    ends = np.cumsum(np.bincount(targets, minlength=partitions)).tolist()
    return [
        (target, piece)
        for target, (start, end) in enumerate(pairwise([0, *ends]))
        if start < end
        for piece in _split(_picked(ordered, slice(start, end)), bytes_max)
    ]


def size_of(halves: Halves) -> int:
    """About how many bytes a block takes at most."""
    texts = [*halves.versions, *halves.classes, *(name for names in halves.segments for name in names)]
    return _ROW_BYTES * len(halves.keys) + sum(len(text) + _NAME_BYTES for text in texts)


def _split(halves: Halves, bytes_max: int) -> list[Halves]:
    n = len(halves.keys)
    if n <= 1 or size_of(halves) <= bytes_max:
        return [halves]
    parts = (slice(0, n // 2), slice(n // 2, n))
    return [piece for rows in parts for piece in _split(_picked(halves, rows), bytes_max)]


def _source(halves: Halves) -> tuple[str, str, int]:
    return halves.model_id, halves.topic, halves.partition


def _picked(halves: Halves, rows: Ints | slice) -> Halves:
    """Some rows, with the names they need alone where there are more names than rows."""
    columns = {name: getattr(halves, name)[rows] for name in _COLUMNS}
    versions, columns["version"] = _used(halves.versions, columns["version"])
    classes, columns["label"] = _used(halves.classes, columns["label"])
    segments, columns["segment"] = _used(halves.segments, columns["segment"])
    return replace(halves, versions=versions, classes=classes, segments=segments, **columns)


def _used(names: list[Name], indices: Ints) -> tuple[list[Name], Ints]:
    """The names that some index stands for, and the indices among them; -1 stays. All of them if they are few."""
    if len(names) <= len(indices):
        return names, indices
    used = np.flatnonzero(np.bincount(indices + 1, minlength=len(names) + 1)[1:])
    places = np.full(len(names) + 1, -1, dtype=np.int64)
    places[used] = np.arange(len(used))
    return [names[place] for place in used.tolist()], places[indices]  # the last place is that of -1


def _united(parts: Sequence[tuple[list[Name], Ints]]) -> tuple[list[Name], Ints]:
    """Indices into lists of their own as indices into one list; -1 stays."""
    places: dict[Name, int] = {}
    found = []
    for names, indices in parts:
        own = [places.setdefault(name, len(places)) for name in names]
        found.append(np.array([*own, -1], dtype=np.int64)[indices])
    return list(places), np.concatenate(found)


def _classes(labels: Sequence[Text]) -> tuple[list[str], Ints]:
    """The classes among n labels, and the class of each: -1 where it is missing or invalid."""
    names, classes = _named(labels)
    return list(map(_class_name, names)), classes


def _named(texts: Sequence[Text]) -> tuple[list[str], Ints]:
    """The distinct texts, and which of them each one is: -1 for what is none."""
    names = [text for text in dict.fromkeys(texts) if isinstance(text, str)]
    place_of: dict[Text, int] = dict.fromkeys(texts, -1) | {name: place for place, name in enumerate(names)}
    return names, np.fromiter(map(place_of.__getitem__, texts), dtype=np.int64, count=len(texts))


def _class_name(label: str) -> str:
    """A class fit to be sent: of a long one the beginning and a hash, so that equal ones stay equal."""
    if len(label.encode()) <= lenient.NAME_BYTES_MAX:
        return label
    start = label.encode()[: lenient.NAME_BYTES_MAX - _HASH_LETTERS].decode(errors="ignore")
    return f"{start}~{hash64(label):016x}"


def _scores(events: Events, settings: ModelSettings) -> tuple[Floats, Ints]:
    """[n] probabilities and whose they are: the positive label's where it is given, else the predicted label's."""
    scores = events.score
    given = ~np.isnan(scores)
    score_of = np.where(given, np.int64(ScoreOf.POSITIVE), np.int64(ScoreOf.NOTHING))
    rows = [row for row in np.flatnonzero(~given).tolist() if events.scores[row]]
    if rows:
        scores = scores.copy()
    for row in rows:
        scores[row], score_of[row] = _score(events.scores[row], events.label[row], settings)
    return scores, score_of


def _score(
    scores: dict[str, float | Invalid | None] | Invalid | None, label: Text, settings: ModelSettings
) -> tuple[float, ScoreOf]:
    """Of several classes none is positive, whatever it is called, unless the owner of the model says so."""
    if not isinstance(scores, dict):
        return np.nan, ScoreOf.NOTHING
    for name in positive_labels(settings) if settings.positive_label or len(scores) <= _BINARY else ():
        if _is_probability(own := scores.get(name)):
            return own, ScoreOf.POSITIVE
    if isinstance(label, str) and _is_probability(own := scores.get(label)):
        return own, ScoreOf.PREDICTED
    return np.nan, ScoreOf.NOTHING


def _is_probability(value: float | Invalid | None) -> TypeGuard[float]:
    return isinstance(value, float) and 0.0 <= value <= 1.0


def _segments(layout: Layout | None, events: Events) -> tuple[list[list[str]], Ints]:
    """The sets of segments among n events, without `all`, and which of them is each event's."""
    n = len(events)
    if layout is None or not layout.segment_tables:
        return [[]], np.zeros(n, dtype=np.int64)
    by_key = extract.segments(layout, events.tags)
    sets = _ranks(by_key[0])
    for own in by_key[1:]:
        sets = _ranks(sets * len(layout.segments) + own)
    example = np.empty(int(sets.max(initial=-1)) + 1, dtype=np.int64)
    example[sets] = np.arange(n)
    return [[layout.segments[one] for one in column] for column in by_key[:, example].T.tolist()], sets


def _ranks(codes: Ints) -> Ints:
    """[n] the rank of each code among those that occur; they are few and small, as a rule, and need no sorting."""
    if codes.max(initial=0) > _CODES_MAX:
        return np.unique(codes, return_inverse=True)[1]
    ranks: Ints = np.cumsum(np.bincount(codes) > 0) - 1
    return ranks[codes]
