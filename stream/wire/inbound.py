"""What others send: a batch of prediction records becomes columns of events, and a value for every record that is bad.

A record is accepted whole or refused whole (`contracts.md` 2, codes in `reliability.md` 6). What it costs to be sure
that the fast path means the same as the careful one is paid for many records at once: many plain ones in a row
(ASCII, no escapes) are looked at as one text.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Raw, Struct
from pydantic import BaseModel, Field

from stream.wire import lenient, times
from stream.wire.adapters import native
from stream.wire.adapters.native import ABSENT, Envelope, Guess, Prediction
from stream.wire.codec import Malformed
from stream.wire.features import Features, write_numbers
from stream.wire.internal import Ints
from stream.wire.lenient import INVALID, Invalid, Text
from stream.wire.record import Batch, Headers

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Format: TypeAlias = Literal["auto", "native"]

_CHUNK: Final = 128
"""Records looked at as one text, short enough for the second-level cache."""
_FEATURE_BYTES_MIN: Final = 5  # `"":0,`
_OPEN: Final = ord("{")
_GUESSES: Final = 3
"""Records looked at to guess the model of a batch."""
_MISSES_MIN: Final = 16
_MISSES_RATIO: Final = 8
"""A guess wrong for more than 16 records and an eighth of them is given up: a miss costs more than a hit saves."""
_EXTRAS_MAX: Final = 16
_LESSONS_MAX: Final = 8
"""Unknown top-level fields a batch learns to pass over quickly, and how often it may learn."""


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
    """Every record of a batch as an event, a tombstone or a `Malformed`. Never raises, whatever the bytes.

    `max_future_ms`: how far beyond its record's Kafka timestamp an event may claim to be. `guess` changes the form of
    `Events.features` and the cost, nothing else: see `guess_of`. For a record of 860 bytes, in batches of hundreds,
    about 2.8 us, where the guess is right with the features parsed; 15 us where the careful path is needed.
    """
    found = _envelopes(_Task(batch, limits, input_format, guess))
    refused = {place: row for place, row in found.exceptions.items() if not isinstance(row, Envelope)}
    good: list[Any] = found.rows
    index = np.arange(len(batch), dtype=np.int64)
    if refused:
        index = np.delete(index, list(refused))
        good = [found.rows[place] for place in index.tolist()]
    malformed = [(place, row) for place, row in sorted(refused.items()) if row is not None]
    tombstones = len(refused) - len(malformed)
    latest_ms = np.array(batch.timestamps_ms, dtype=np.int64)[index]
    time_ms, bad = times.parse_times([row.timestamp for row in good], latest_ms)
    latest_ms += max_future_ms
    if bad or (time_ms > latest_ms).any():
        faults = dict.fromkeys(np.flatnonzero(time_ms > latest_ms).tolist(), _FUTURE) | dict.fromkeys(bad, _NO_TIME)
        malformed += [(int(index[place]), fault) for place, fault in faults.items()]
        malformed.sort(key=itemgetter(0))
        kept = np.setdiff1d(np.arange(len(good)), list(faults))
        good, index, time_ms = [good[place] for place in kept.tolist()], index[kept], time_ms[kept]
    unknown = sum(found.unknown_fields.get(place, 0) for place in index.tolist()) if found.unknown_fields else 0
    values: list[Any] = batch.values
    if len(good) < len(batch):
        values = [batch.values[place] for place in index.tolist()]
    return _columns(good, index, time_ms, values, _Rest(malformed, tombstones, unknown))


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


_NO_TIME: Final = Malformed(
    "timestamp_invalid", "$.timestamp: neither RFC 3339 with an offset nor a number of this age"
)
_FUTURE: Final = Malformed("timestamp_in_future", "$.timestamp: further ahead of the Kafka timestamp than allowed")
_NO_PREDICTION: Final = Prediction()
_COLUMNS: Final = Events.__struct_fields__[: Events.__struct_fields__.index("malformed")]

_Row: TypeAlias = Envelope | Malformed | None
"""A good record, a bad one, a tombstone."""


class _Task(Struct, frozen=True):
    batch: Batch
    limits: Limits
    input_format: Format
    guess: Guess | None


class _Rest(Struct, frozen=True):
    malformed: list[tuple[int, Malformed]]
    tombstones: int
    unknown_fields: int


class _Found(Struct):
    """What the records of a batch turned out to be."""

    rows: list[_Row] = msgspec.field(default_factory=list)
    """One per record."""
    exceptions: dict[int, _Row] = msgspec.field(default_factory=dict)
    """Rows that went the careful way: none but they are bad or tombstones."""
    unguessed: list[int] = msgspec.field(default_factory=list)
    """Rows of the fast way whose features are still text."""
    unknown_fields: dict[int, int] = msgspec.field(default_factory=dict)
    """How many unknown fields a row has that has any."""

    def put(self, place: int, row: _Row) -> None:
        self.rows[place] = self.exceptions[place] = row


def _envelopes(task: _Task) -> _Found:
    suspects, loose = _suspects(task)
    values: list[Any] = task.batch.values
    if suspects:
        values = list(values)
        for place in suspects:
            values[place] = b""  # which the fast path refuses
    found = _fast(task, values)
    for place in found.unguessed:
        row = found.rows[place]
        if isinstance(row, Envelope) and isinstance(row.features, Raw) and not _says_something(row):
            found.put(place, _careful(task, place)[0])
    if task.guess is not None:
        # The guess vouches for the depth of what it decoded; the rest has not been looked at.
        for place in {*found.unguessed, *found.unknown_fields}:
            if _brackets(values[place]) > lenient.DEPTH_MAX:
                found.put(place, _careful(task, place)[0])
    for place in loose:
        row = found.rows[place]
        if isinstance(row, Envelope) and (fault := native.names_fault(row)) is not None:
            found.put(place, fault)
    return found


def _says_something(row: Envelope) -> bool:
    """Whether a row of the fast path has features that are an object, or a prediction and no features."""
    if row.features is ABSENT:
        return row.prediction is not None
    return memoryview(row.features)[0] == _OPEN


def _fast(task: _Task, values: Sequence[Any]) -> _Found:
    found = _Found()
    guess, guessed_until = task.guess, 0 if task.guess is None else len(values)
    extras: tuple[str, ...] = ()
    misses, lessons = 0, 0
    append, source = found.rows.append, iter(values)
    decoded = map(native.fast_decoder(extras, guess), source)
    while len(found.rows) < len(values):
        try:
            for row in decoded:  # one that raises is taken from `source`, and the next one follows
                append(row)
        except native.REFUSALS:
            place = len(found.rows)
        else:
            break
        names = set(filter(native.is_plain_name, _second_try(task, values[place], extras, found)))
        misses += place < guessed_until
        learns = not names <= set(extras) and lessons < _LESSONS_MAX and len(names | set(extras)) <= _EXTRAS_MAX
        gives_up = guess is not None and misses > _MISSES_MIN and misses * _MISSES_RATIO > place
        if learns:
            lessons += 1
            extras = (*extras, *sorted(names.difference(extras)))
        if gives_up:
            guess, guessed_until = None, place + 1
        if learns or gives_up:
            decoded = map(native.fast_decoder(extras, guess), source)
    if extras:
        _count_extras(found, len(extras))
    found.unguessed += range(guessed_until, len(values))
    return found


def _second_try(task: _Task, value: bytes, extras: tuple[str, ...], found: _Found) -> set[str]:
    """Adds the row of a record that was refused: by the fast path without a guess, else by the careful one.

    Returns its unknown fields if the latter had to find them.
    """
    place = len(found.rows)
    if task.guess is not None and value:
        try:
            found.rows.append(native.fast_decoder(extras)(value))
        except native.REFUSALS:
            pass
        else:
            found.unguessed.append(place)
            return set()
    row, names = _careful(task, place)
    found.rows.append(row)
    found.put(place, row)
    if names:
        found.unknown_fields[place] = len(names)
    return names


def _count_extras(found: _Found, extras: int) -> None:
    names = [f"extra{place}" for place in range(extras)]
    for place, row in enumerate(found.rows):
        if isinstance(row, Envelope) and (count := sum(getattr(row, name, None) is not None for name in names)):
            found.unknown_fields[place] = count


def _suspects(task: _Task) -> tuple[list[int], list[int]]:
    """Rows that need the careful path, and rows whose names need a look behind the fast one."""
    batch, limits = task.batch, task.limits
    bytes_max = min(limits.record_bytes, _FEATURE_BYTES_MIN * limits.features)
    look_deep = task.guess is None or native.lets_pass(task.guess.features)
    suspects: list[int] = []
    loose: list[int] = []
    for start in range(0, len(batch), _CHUNK):
        chunk = batch.values[start : start + _CHUNK]
        text = b"" if None in chunk else b"".join(chunk)  # type: ignore[arg-type] # no None among them
        longest = max(map(len, chunk)) if text else 0  # type: ignore[arg-type] # as above
        if not text or longest > bytes_max or (look_deep and _may_be_deep(text, longest)) or not _is_utf8(text):
            suspects += [place for place, value in enumerate(chunk, start) if value is None or not _safe(value, limits)]
        if not text or not text.isascii() or b"\\" in text or b"\x7f" in text:
            loose += range(start, start + len(chunk))
    if task.input_format == "auto":
        suspects += [place for place, headers in enumerate(batch.headers) if headers and _foreign_headers(headers)]
    return suspects, loose


def _may_be_deep(text: bytes, longest: int) -> bool:
    """Whether more than 64 brackets open somewhere within the length of one record. A count per record costs thrice."""
    letters = np.frombuffer(text, dtype=np.uint8)
    if b"[" in text:
        letters = letters | np.uint8(0x20)  # makes `{` of `[`
    opened = np.flatnonzero(letters == _OPEN)
    return bool((opened[lenient.DEPTH_MAX :] - opened[: -lenient.DEPTH_MAX] < longest).any())


def _brackets(value: bytes) -> int:
    return value.count(b"{") + value.count(b"[")


def _safe(value: bytes, limits: Limits) -> bool:
    """Whether the fast path may be trusted with a record: size, depth and UTF-8 are in order."""
    if len(value) > limits.record_bytes or _brackets(value) > lenient.DEPTH_MAX:
        return False
    if len(value) > _FEATURE_BYTES_MIN * limits.features and value.count(b":") > limits.features:
        return False
    return _is_utf8(value)


def _is_utf8(text: bytes) -> bool:
    """Whether bytes are UTF-8; of records behind each other: whether all are, those apart that are no JSON anyway."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _careful(task: _Task, place: int) -> tuple[_Row, set[str]]:
    """The row of one record by the careful path, and its unknown fields if it is good."""
    if task.batch.values[place] is None:
        return None, set()
    fields = _object(task, place)
    if isinstance(fields, Malformed):
        return fields, set()
    row = native.envelope(fields, task.limits.features)
    return row, set() if isinstance(row, Malformed) else fields.keys() - native.FIELDS


def _object(task: _Task, place: int) -> dict[str, Any] | Malformed:
    value, record_bytes, auto = task.batch.values[place] or b"", task.limits.record_bytes, task.input_format == "auto"
    if len(value) > record_bytes:
        return Malformed("too_large", f"$: more than {record_bytes} bytes")
    if auto and (name := _foreign_headers(task.batch.headers[place] or ()) or _foreign_bytes(value)):
        return _not_read(name)
    try:
        fields = lenient.loads(value)
    except lenient.NotJson:
        return Malformed("json_invalid", f"$: not a JSON text in UTF-8 of at most {lenient.DEPTH_MAX} levels")
    if not isinstance(fields, dict):
        return Malformed("not_an_object", "$: must be an object")
    return _not_read(name) if auto and (name := _foreign_object(fields)) else fields


def _not_read(name: str) -> Malformed:
    return Malformed("format_unknown", f"$: {name} is not read by this release")


def _foreign_headers(headers: Headers) -> str | None:
    """The format of `contracts.md` 3 that the headers announce, if another than native."""
    names = {name for name, _ in headers}
    content_type = next((value or b"" for name, value in headers if name.lower() == "content-type"), b"").lower()
    if content_type.startswith(b"application/cloudevents") or names >= _CE_HEADERS:
        return "cloudevents"
    if content_type.startswith(b"application/vnd.apache.arrow"):
        return "arrow"
    return next((form for name, form in _TELLTALE.items() if name in names), None)


_TELLTALE: Final = {"seldon-infer-type": "seldon-v2", "__value_schema_id": "a schema registry's format"}
_CE_HEADERS: Final = frozenset({"ce_id", "ce_source", "ce_specversion", "ce_type"})


def _foreign_bytes(value: bytes) -> str | None:
    if value[:1] in (b"\x00", b"\x01"):
        return "a schema registry's format"
    return "arrow" if value.startswith((b"\xff\xff\xff\xff", b"ARROW1")) else None


def _foreign_object(fields: Mapping[str, Any]) -> str | None:
    if "prediction_id" in fields and "model_id" in fields:
        return None
    if isinstance(fields.get("inputs"), list) or isinstance(fields.get("outputs"), list):
        return "oip-v2"
    return (
        "kserve-v1"
        if isinstance(fields.get("instances"), list) or isinstance(fields.get("predictions"), list)
        else None
    )


def _columns(rows: list[Any], index: Ints, time_ms: Ints, values: list[bytes], rest: _Rest) -> Events:
    versions = [row.model_version for row in rows]
    tags = [row.tags for row in rows]
    answers = [row.prediction for row in rows]
    if type(None) in set(map(type, answers)):
        answers = [answer or _NO_PREDICTION for answer in answers]
    labels = [answer.label for answer in answers]
    score, score_invalid = _numbers([answer.score for answer in answers], 0.0, 1.0)
    value, value_invalid = _numbers([answer.value for answer in answers])
    latency, latency_invalid = _numbers([row.latency_ms for row in rows], 0.0)
    return Events(
        index=index,
        time_ms=time_ms,
        prediction_ids=[row.prediction_id for row in rows],
        model_ids=[row.model_id for row in rows],
        model_versions=versions if None not in versions else [own or native.DEFAULT_VERSION for own in versions],
        features=[row.features for row in rows],
        values=values,
        label=labels if set(map(type, labels)) <= _TEXTS else [lenient.label(own) for own in labels],
        score=score,
        score_invalid=score_invalid,
        scores=[answer.scores for answer in answers],
        value=value,
        value_invalid=value_invalid,
        latency=latency,
        latency_invalid=latency_invalid,
        tags=tags if None not in tags else [own or {} for own in tags],
        malformed=rest.malformed,
        tombstones=rest.tombstones,
        unknown_fields=rest.unknown_fields,
    )


_TEXTS: Final = {str, type(None), Invalid}


def _numbers(column: Sequence[Any], low: float = -np.inf, high: float = np.inf) -> tuple[Floats, Mask]:
    """A column of numbers, NaN for None, INVALID and what lies outside `[low, high]`; and the mask of the last two."""
    numbers = np.empty(len(column))
    invalid = np.zeros(len(column), dtype=np.bool_)
    if Invalid in set(map(type, column)):
        invalid[:] = [value is INVALID for value in column]
        column = [None if value is INVALID else value for value in column]
    write_numbers(column, numbers)
    outside = (numbers < low) | (numbers > high)
    if outside.any():
        invalid |= outside
        numbers[outside] = np.nan
    return numbers, invalid
