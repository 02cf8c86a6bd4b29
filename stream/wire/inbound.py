"""What others send: a batch of prediction records becomes columns of events, and a value for every record that is bad.

A record is accepted whole or refused whole (`contracts.md` 2, codes in `reliability.md` 6).
"""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Raw, Struct
from pydantic import BaseModel, Field

from stream.wire import lenient
from stream.wire.adapters import native
from stream.wire.adapters.native import Guess, Prediction
from stream.wire.codec import Malformed
from stream.wire.features import Features, write_numbers
from stream.wire.internal import Ints
from stream.wire.lenient import INVALID, Invalid, Text
from stream.wire.record import Batch
from stream.wire.rows import Format, Rows, Task, read

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_GUESSES: Final = 3
"""Records looked at to guess the model of a batch."""


class Limits(BaseModel, frozen=True, extra="forbid"):
    """`[limits]` of the configuration: what one record, and the cardinality of all, may not exceed."""

    record_bytes: int = Field(default=1_048_576, ge=1_024)
    """Bytes of a value; Kafka's own default of `max.message.bytes`."""
    features: int = Field(default=5_000, ge=1)
    """Features of one record."""
    models: int = Field(default=1_000, ge=1)
    """Model versions a view holds; a record of one more is refused."""
    segment_values: int = Field(default=50, ge=1)
    """Values per segment key that a learned reference keeps; the rest is `other`."""
    dead_letter_ratio: float = Field(default=0.5, ge=0, le=1)
    """Share of a partition's last 1,000 records that may be refused before it pauses; 1 never pauses."""


class Events(Struct, frozen=True):
    """The n good records of a batch as columns in offset order, and what became of the others.

    Numbers are NaN where they are missing or invalid; the mask beside them tells invalid. Texts are None for missing,
    INVALID for invalid.
    """

    index: Ints
    """[n] row of the batch."""
    time_ms: Ints
    """[n] event time; the Kafka timestamp where the record has none."""
    prediction_ids: list[str]
    model_ids: list[str]
    model_versions: list[str]
    features: list[Features]
    """For `features.FeatureDecoder.decode`, or `features.values_of`."""
    values: list[bytes]
    """The records themselves."""
    label: list[Text]
    score: Floats
    score_invalid: Mask
    scores: list[dict[str, float | Invalid | None] | Invalid | None]
    value: Floats
    value_invalid: Mask
    latency: Floats
    """[n] milliseconds."""
    latency_invalid: Mask
    tags: list[dict[str, Any]]
    """Texts, numbers, booleans or None, as they stood in the record; compare by `lenient.category`."""
    malformed: list[tuple[int, Malformed]]
    """(row of the batch, what is wrong), in offset order."""
    tombstones: int
    unknown_fields: int
    """Top-level fields without a meaning, over all good records."""

    def __len__(self) -> int:
        return len(self.index)


def decode(
    batch: Batch, limits: Limits, max_future_ms: int, input_format: Format = "auto", guess: Guess | None = None
) -> Events:
    """Every record of a batch of predictions as an event, a tombstone or a `Malformed`. Never raises.

    `max_future_ms`: how far beyond its record's Kafka timestamp an event may claim to be. `guess` changes the form of
    `Events.features` and the cost, nothing else: see `guess_of`. For a record of 860 bytes, in batches of hundreds,
    about 2.8 us, where the guess is right with the features parsed; 15 us where the careful path is needed.
    """
    return columns(read(Task(batch, native, limits.record_bytes, limits.features, input_format, guess), max_future_ms))


class Glimpse(Struct, frozen=True):
    """What the first record of a batch shows quickly: all it takes to make a `Guess`."""

    model_id: str
    model_version: str
    features: Raw


def guess_of(batch: Batch) -> Glimpse | None:
    """A glimpse of one of the first records; None if all of them need the careful path."""
    for value in batch.values[:_GUESSES]:
        try:
            row = native.fast_decoder()(value or b"")
        except native.REFUSALS:
            continue
        return Glimpse(row.model_id, row.model_version or native.DEFAULT_VERSION, row.features)
    return None


def pick(events: Events, picks: Ints) -> Events:
    """Some of the events, by position in rising order. What was refused comes along only if all are picked."""
    if len(picks) == len(events):
        return events
    places = picks.tolist()
    columns: dict[str, Any] = {
        name: column[picks] if isinstance(column, np.ndarray) else [column[place] for place in places]
        for name, column in zip(_COLUMNS, attrgetter(*_COLUMNS)(events), strict=True)
    }
    return Events(**columns, malformed=[], tombstones=0, unknown_fields=0)


def join(parts: Sequence[Events]) -> Events:
    """The good events of several batches behind each other; what was refused stays behind."""
    columns: dict[str, Any] = {
        name: np.concatenate(own) if isinstance(own[0], np.ndarray) else list(chain.from_iterable(own))
        for name, own in ((name, [getattr(part, name) for part in parts]) for name in _COLUMNS)
    }
    return Events(**columns, malformed=[], tombstones=0, unknown_fields=0)


def by_model(events: Events) -> dict[tuple[str, str], Ints]:
    """Positions of the events of each (model, version), in order of first appearance."""
    if len(set(events.model_ids)) == 1 == len(set(events.model_versions)):
        return {(events.model_ids[0], events.model_versions[0]): np.arange(len(events), dtype=np.int64)}
    places: dict[tuple[str, str], list[int]] = {}
    for place, name in enumerate(zip(events.model_ids, events.model_versions, strict=True)):
        places.setdefault(name, []).append(place)
    return {name: np.array(own, dtype=np.int64) for name, own in places.items()}


_NO_PREDICTION: Final = Prediction()
_COLUMNS: Final = Events.__struct_fields__[: Events.__struct_fields__.index("malformed")]


def columns(read: Rows) -> Events:
    """Rows of `native.Envelope` as events."""
    rows = read.rows
    versions = [row.model_version for row in rows]
    tags = [row.tags for row in rows]
    answers = [row.prediction for row in rows]
    if type(None) in set(map(type, answers)):
        answers = [answer or _NO_PREDICTION for answer in answers]
    labels = [answer.label for answer in answers]
    score, score_invalid = numbers_of([answer.score for answer in answers], 0.0, 1.0)
    value, value_invalid = numbers_of([answer.value for answer in answers])
    latency, latency_invalid = numbers_of([row.latency_ms for row in rows], 0.0)
    return Events(
        index=read.index,
        time_ms=read.time_ms,
        prediction_ids=[row.prediction_id for row in rows],
        model_ids=[row.model_id for row in rows],
        model_versions=versions if None not in versions else [own or native.DEFAULT_VERSION for own in versions],
        features=[row.features for row in rows],
        values=read.values,
        label=labels if set(map(type, labels)) <= _TEXTS else [lenient.label(own) for own in labels],
        score=score,
        score_invalid=score_invalid,
        scores=[answer.scores for answer in answers],
        value=value,
        value_invalid=value_invalid,
        latency=latency,
        latency_invalid=latency_invalid,
        tags=tags if None not in tags else [own or {} for own in tags],
        malformed=read.malformed,
        tombstones=read.tombstones,
        unknown_fields=sum(read.unknown_fields),
    )


_TEXTS: Final = {str, type(None), Invalid}


def numbers_of(column: Sequence[Any], low: float = -np.inf, high: float = np.inf) -> tuple[Floats, Mask]:
    """A column of numbers, NaN for None, INVALID and what lies outside `[low, high]`; and the mask of the last two."""
    numbers = np.empty(len(column))
    invalid = np.zeros(len(column), dtype=np.bool_)
    kinds = set(map(type, column))
    if kinds <= {type(None)}:
        numbers[:] = np.nan
        return numbers, invalid
    if Invalid in kinds:
        invalid[:] = [value is INVALID for value in column]
        column = [None if value is INVALID else value for value in column]
    write_numbers(column, numbers)
    outside = (numbers < low) | (numbers > high)
    if outside.any():
        invalid |= outside
        numbers[outside] = np.nan
    return numbers, invalid
