"""A batch of records as rows, whatever they tell: each accepted whole, refused whole, or a tombstone.

What it costs to be sure that the fast path means the same as the careful one is paid for many records at once: many
plain ones in a row (ASCII, no escapes) are looked at as one text.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from stream.wire import lenient, times
from stream.wire.adapters import native
from stream.wire.adapters.native import Guess
from stream.wire.codec import Malformed
from stream.wire.internal import Ints
from stream.wire.record import Batch, Headers

Format: TypeAlias = Literal["auto", "native"]

_CHUNK: Final = 128
"""Records looked at as one text, short enough for the second-level cache."""
_FEATURE_BYTES_MIN: Final = 5  # `"":0,`
_OPEN: Final = ord("{")
_MISSES_MIN: Final = 16
_MISSES_RATIO: Final = 8
"""A guess wrong for more than 16 records and an eighth of them is given up: a miss costs more than a hit saves."""
_EXTRAS_MAX: Final = 16
_LESSONS_MAX: Final = 8
"""Unknown top-level fields a batch learns to pass over quickly, and how often it may learn."""


class Adapter(Protocol):
    """A module of `adapters`: what the records of a topic are made of. Its careful path is their meaning."""

    @property
    def FIELDS(self) -> frozenset[str]:  # noqa: N802 - a constant of the module
        """Top-level fields with a meaning."""

    def fast_decoder(self, extras: tuple[str, ...] = (), guess: Guess | None = None) -> Callable[[bytes], Any]:
        """A parser that raises one of `native.REFUSALS` on whatever it is not sure of."""

    def envelope(self, fields: Mapping[str, Any], features_max: int, /) -> Any:
        """A row, or `Malformed`."""

    def names_fault(self, row: Any, /) -> Malformed | None:
        """What is wrong with the names of a row of the fast path."""

    def says_something(self, row: Any, /) -> bool:
        """Whether a row of the fast path, made without a guess, needs no second look."""


class Task(Struct, frozen=True):
    """What is to be read, and how."""

    batch: Batch
    adapter: Adapter
    record_bytes: int
    features: int
    """Most that a record may have."""
    input_format: Format = "auto"
    guess: Guess | None = None


class Rows(Struct, frozen=True):
    """The n good records of a batch in offset order, and what became of the others."""

    rows: list[Any]
    """[n] of the adapter's."""
    index: Ints
    """[n] row of the batch."""
    time_ms: Ints
    """[n] event time; the Kafka timestamp where the record has none."""
    values: list[bytes]
    """[n] the records themselves."""
    malformed: list[tuple[int, Malformed]]
    """(row of the batch, what is wrong), in offset order."""
    tombstones: int
    unknown_fields: list[int]
    """[n] top-level fields without a meaning; empty if no record has any."""


def read(task: Task, max_future_ms: int) -> Rows:
    """Every record of a batch as a row, a tombstone or a `Malformed`. Never raises, whatever the bytes.

    `max_future_ms`: how far beyond its record's Kafka timestamp an event may claim to be.
    """
    batch, found = task.batch, _found(task)
    refused = {place: row for place, row in found.exceptions.items() if row is None or isinstance(row, Malformed)}
    good = found.rows
    index = np.arange(len(batch), dtype=np.int64)
    if refused:
        index = np.delete(index, list(refused))
        good = [found.rows[place] for place in index.tolist()]
    malformed = [(place, row) for place, row in sorted(refused.items()) if row is not None]
    tombstones = len(refused) - len(malformed)
    unknown = [found.unknown_fields.get(place, 0) for place in index.tolist()] if found.unknown_fields else []
    values: list[Any] = batch.values if len(good) == len(batch) else [batch.values[place] for place in index.tolist()]
    time_ms, faults = timed(batch, index, [row.timestamp for row in good], max_future_ms)
    return without(Rows(good, index, time_ms, values, malformed, tombstones, unknown), faults)


def timed(
    batch: Batch, index: Ints, written: Sequence[Any], max_future_ms: int, name: str = "timestamp"
) -> tuple[Ints, dict[int, Malformed]]:
    """[n] times as the records of these rows wrote them in the field `name`, and what is wrong with some of them."""
    latest_ms = np.array(batch.timestamps_ms, dtype=np.int64)[index]
    time_ms, bad = times.parse_times(written, latest_ms)
    latest_ms += max_future_ms
    if not bad and not (time_ms > latest_ms).any():
        return time_ms, {}
    future = Malformed("timestamp_in_future", f"$.{name}: further ahead of the Kafka timestamp than allowed")
    wrong = Malformed("timestamp_invalid", f"$.{name}: neither RFC 3339 with an offset nor a number of this age")
    return time_ms, dict.fromkeys(np.flatnonzero(time_ms > latest_ms).tolist(), future) | dict.fromkeys(bad, wrong)


def without(read: Rows, faults: Mapping[int, Malformed]) -> Rows:
    """Less the rows, by position, that turned out to be bad."""
    if not faults:
        return read
    kept = np.delete(np.arange(len(read.rows)), list(faults))
    malformed = [*read.malformed, *((int(read.index[place]), fault) for place, fault in faults.items())]
    places = kept.tolist()
    return Rows(
        rows=[read.rows[place] for place in places],
        index=read.index[kept],
        time_ms=read.time_ms[kept],
        values=[read.values[place] for place in places],
        malformed=sorted(malformed, key=itemgetter(0)),
        tombstones=read.tombstones,
        unknown_fields=[read.unknown_fields[place] for place in places] if read.unknown_fields else [],
    )


_Row: TypeAlias = Any
"""What the adapter made of a good record; `Malformed`; None for a tombstone."""


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


def _found(task: Task) -> _Found:
    suspects, loose = _suspects(task)
    values: list[Any] = task.batch.values
    if suspects:
        values = list(values)
        for place in suspects:
            values[place] = b""  # which the fast path refuses
    found = _fast(task, values)
    for place in found.unguessed:
        if place not in found.exceptions and not task.adapter.says_something(found.rows[place]):
            found.put(place, _careful(task, place)[0])
    if task.guess is not None:
        # The guess vouches for the depth of what it decoded; the rest has not been looked at.
        for place in {*found.unguessed, *found.unknown_fields}:
            if _brackets(values[place]) > lenient.DEPTH_MAX:
                found.put(place, _careful(task, place)[0])
    for place in loose:
        if place not in found.exceptions and (fault := task.adapter.names_fault(found.rows[place])) is not None:
            found.put(place, fault)
    return found


def _fast(task: Task, values: Sequence[Any]) -> _Found:
    found = _Found()
    guess, guessed_until = task.guess, 0 if task.guess is None else len(values)
    extras: tuple[str, ...] = ()
    misses, lessons = 0, 0
    append, source = found.rows.append, iter(values)
    decoded = map(task.adapter.fast_decoder(extras, guess), source)
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
            decoded = map(task.adapter.fast_decoder(extras, guess), source)
    if extras:
        _count_extras(found, len(extras))
    found.unguessed += range(guessed_until, len(values))
    return found


def _second_try(task: Task, value: bytes, extras: tuple[str, ...], found: _Found) -> set[str]:
    """Adds the row of a record that was refused: by the fast path without a guess, else by the careful one.

    Returns its unknown fields if the latter had to find them.
    """
    place = len(found.rows)
    if task.guess is not None and value:
        try:
            found.rows.append(task.adapter.fast_decoder(extras)(value))
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
        if count := sum(getattr(row, name, None) is not None for name in names):
            found.unknown_fields[place] = count


def _suspects(task: Task) -> tuple[list[int], list[int]]:
    """Rows that need the careful path, and rows whose names need a look behind the fast one."""
    batch = task.batch
    bytes_max = min(task.record_bytes, _FEATURE_BYTES_MIN * task.features)
    look_deep = task.guess is None or native.lets_pass(task.guess.features)
    suspects: list[int] = []
    loose: list[int] = []
    for start in range(0, len(batch), _CHUNK):
        chunk = batch.values[start : start + _CHUNK]
        text = b"" if None in chunk else b"".join(chunk)  # type: ignore[arg-type] # no None among them
        longest = max(map(len, chunk)) if text else 0  # type: ignore[arg-type] # as above
        if not text or longest > bytes_max or (look_deep and _may_be_deep(text, longest)) or not _is_utf8(text):
            suspects += [place for place, value in enumerate(chunk, start) if value is None or not _safe(value, task)]
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


def _safe(value: bytes, task: Task) -> bool:
    """Whether the fast path may be trusted with a record: size, depth and UTF-8 are in order."""
    if len(value) > task.record_bytes or _brackets(value) > lenient.DEPTH_MAX:
        return False
    if len(value) > _FEATURE_BYTES_MIN * task.features and value.count(b":") > task.features:
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


def _careful(task: Task, place: int) -> tuple[_Row, set[str]]:
    """The row of one record by the careful path, and its unknown fields if it is good."""
    if task.batch.values[place] is None:
        return None, set()
    fields = _object(task, place)
    if isinstance(fields, Malformed):
        return fields, set()
    row = task.adapter.envelope(fields, task.features)
    return row, set() if isinstance(row, Malformed) else fields.keys() - task.adapter.FIELDS


def _object(task: Task, place: int) -> dict[str, Any] | Malformed:
    value, record_bytes, auto = task.batch.values[place] or b"", task.record_bytes, task.input_format == "auto"
    if len(value) > record_bytes:
        return Malformed("too_large", f"$: more than {record_bytes} bytes")
    if auto and (name := _foreign_headers(task.batch.headers[place] or ()) or _foreign_bytes(value)):
        return _not_read(name)
    fields = json_object(value)
    if isinstance(fields, Malformed):
        return fields
    return _not_read(name) if auto and (name := _foreign_object(fields)) else fields


def json_object(value: bytes) -> dict[str, Any] | Malformed:
    """The fields of a JSON text that must be an object, read as leniently as `lenient.loads`. Never raises."""
    try:
        fields = lenient.loads(value)
    except lenient.NotJson:
        return Malformed("json_invalid", f"$: not a JSON text in UTF-8 of at most {lenient.DEPTH_MAX} levels")
    return fields if isinstance(fields, dict) else Malformed("not_an_object", "$: must be an object")


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
