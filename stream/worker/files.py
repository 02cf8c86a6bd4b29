"""Files of predictions and labels as partitions: JSON lines, CSV and Parquet, read lazily from front to back.

Every row becomes the record its producer would have sent, native JSON (`contracts.md` 2), so that a file and a topic
go the same way from there. The offset is the row's number from 0. Its Kafka timestamp is its event time where that
can be read, else that of the row before.
"""

import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from stream.wire.record import Record
from stream.wire.times import parse_time

FileFormat: TypeAlias = Literal["auto", "jsonl", "csv", "parquet"]
SUFFIXES: Final[dict[str, FileFormat]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PARQUET_ROWS: Final = 5_000
"""Read at a time."""


class UnreadableFileError(Exception):
    """A file that cannot be opened or understood; the message says what to do."""


class Progress(Struct):
    """How far reading has come."""

    bytes_read: int = 0
    bytes_total: int = 0
    rows: int = 0
    feedback: int = 0
    """Rows with a true outcome: they are no predictions."""


_ACTUAL: Final = b'"actual"'
"""Stands in every row with a label: the others need not be decoded to be passed over."""
_NULL: Final = b"null"
_ABSENT: Final = msgspec.Raw(_NULL)


class _Head(Struct):
    """What of a row decides where it goes."""

    timestamp: Any = None
    actual: msgspec.Raw = _ABSENT


_HEAD: Final = msgspec.json.Decoder(_Head)


def format_of(path: str, given: FileFormat = "auto") -> FileFormat:
    """By its name, unless it is given; standard input ("-") is JSON lines."""
    if given != "auto" or path == "-":
        return "jsonl" if given == "auto" else given
    found = SUFFIXES.get(Path(path).suffix.lower())
    if found is None:
        raise UnreadableFileError(f"{path}: unknown kind of file; say --format jsonl, csv or parquet")
    return found


def size_of(path: str) -> int:
    """In bytes; 0 where nobody knows."""
    try:
        return 0 if path == "-" else Path(path).stat().st_size
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}") from error


def rows(path: str, progress: Progress, given: FileFormat = "auto") -> Iterator[bytes]:
    """The rows of a file as native JSON, in their order; CSV and Parquet rows are made into it."""
    return _READERS[format_of(path, given)](path, progress)


def records(  # noqa: PLR0913 - a file, its place, and how to read it
    path: str,
    topic: str,
    partition: int,
    progress: Progress,
    *,
    given: FileFormat = "auto",
    sort: bool = False,
    feedback: bool = False,
) -> Iterator[Record]:
    """The predictions of a file as one partition, or its feedback; an offset is the number of a row, from 0.

    With `sort` rows stand by event time, ties in their order, and offsets count that order; it reads the whole file
    first.
    """
    found = _of_kind(rows(path, progress, given), topic, partition, progress, feedback=feedback)
    if not sort:
        return found
    ordered = sorted(found, key=lambda record: record.timestamp_ms)
    return (msgspec.structs.replace(record, offset=place) for place, record in enumerate(ordered))


@contextmanager
def rereadable(path: str) -> Iterator[str]:
    """A file that can be read twice: the same, but for standard input, which is copied to the disk first."""
    if path != "-":
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield copy.name


def _of_kind(
    lines: Iterator[bytes], topic: str, partition: int, progress: Progress, *, feedback: bool
) -> Iterator[Record]:
    time_ms = 0
    for offset, line in enumerate(lines):
        progress.rows += 1
        if feedback and _ACTUAL not in line:
            continue
        try:
            head = _HEAD.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            head = _Head()
        has_label = bytes(head.actual) != _NULL
        progress.feedback += has_label
        if has_label != feedback:
            continue
        own_ms = None if head.timestamp is None else parse_time(head.timestamp)
        time_ms = time_ms if own_ms is None else own_ms
        yield Record(topic, partition, offset, time_ms, None, line)


def _json_lines(path: str, progress: Progress) -> Iterator[bytes]:
    with _opened(path) as file:
        for line in file:
            progress.bytes_read += len(line)
            if stripped := line.strip():
                yield stripped


def _csv(path: str, progress: Progress) -> Iterator[bytes]:
    """A cell is a JSON scalar if it parses, else text; an empty one is missing."""
    with _opened(path) as file:
        text = io.TextIOWrapper(io.BufferedReader(_Counted(file, progress)), "utf-8-sig", newline="")
        for row in csv.DictReader(text):
            cells = {name: _cell(text) for name, text in row.items() if name is not None and text}
            yield _native(cells)


def _parquet(path: str, progress: Progress) -> Iterator[bytes]:
    try:
        from pyarrow import parquet  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnreadableFileError(f"{path}: reading Parquet needs `pip install driftstream[parquet]`") from error
    try:
        with parquet.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            size = size_of(path)
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield _native({name: value for name, value in row.items() if value is not None})
                progress.bytes_read += size * batch.num_rows // total
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error}") from error


_READERS: Final[dict[FileFormat, Callable[[str, Progress], Iterator[bytes]]]] = {
    "jsonl": _json_lines,
    "csv": _csv,
    "parquet": _parquet,
}


def _native(cells: dict[str, Any]) -> bytes:
    """Dotted names become objects. NaN stays NaN, which the decoder counts as invalid, not as missing."""
    row: dict[str, Any] = {}
    for name, value in cells.items():
        *parents, last = (
            name.split(".", 1) if name.startswith(("features.", "tags.", "prediction.", "actual.")) else [name]
        )
        place = row.setdefault(parents[0], {}) if parents else row
        place[last] = value
    return json.dumps(row, default=_text).encode()


def _text(value: Any) -> Any:
    """What JSON has no word for: times in RFC 3339 (no zone means UTC), numbers of other kinds, the rest as text."""
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return text if getattr(value, "tzinfo", None) is not None or "T" not in text else f"{text}Z"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _cell(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


def _opened(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdin.buffer
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}") from error


class _Counted(io.RawIOBase):
    """A file that says how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._progress.bytes_read += len(data)
        return len(data)
