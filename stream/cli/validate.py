"""`drift validate`: a configuration, or files of records, checked without Kafka."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from msgspec import Struct

from stream.cli.clients import tell
from stream.cli.options import ConfigFile, FileFormats, Format, Properties, new_app, settings
from stream.cli.references import ROWS_AT_ONCE
from stream.config import Config, Invalid
from stream.wire import feedback, inbound
from stream.wire.record import Batch
from stream.worker import files
from stream.worker.ends import Stopped

EXIT_CHECK_FAILED: Final = 1
_NULL: Final = b"null"

app = new_app("Check a configuration, or files of records, without Kafka.")


class Form(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


class Bad(Struct, frozen=True):
    """A record that would become a dead letter."""

    file: str
    line: int
    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.code} {self.detail}"


class Tally(Struct):
    """What was read."""

    rows: int = 0
    feedback: int = 0
    """Of these, with a label."""
    codes: Counter[str] = msgspec.field(default_factory=Counter)


@app.command()
def config(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Else DRIFT_CONFIG, else ./drift.toml.")] = None,
) -> None:
    """Check a configuration, with what the environment adds; exit code 1 if it cannot be used."""
    try:
        loaded = settings(file)
    except Invalid as invalid:
        raise Stopped(EXIT_CHECK_FAILED, "invalid", invalid.detail) from None
    typer.echo(f"valid, config_id {loaded.config_id}")


@app.command()
def records(
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="Predictions and feedback; - is stdin.")],
    file: ConfigFile = None,
    properties: Properties = None,
    given: FileFormats = Format.AUTO,
    max_errors: Annotated[int, typer.Option("--max-errors", min=0, help="Print at most so many.")] = 100,
    output: Annotated[Form, typer.Option("-o", "--output", help="How to print.")] = Form.TEXT,
) -> None:
    """Check records as ingest would: a line `FILE:LINE code detail` for each bad one, exit code 1 if there is any.

    A record with `actual` is feedback, any other a prediction.
    """
    loaded = settings(file, properties)
    tally = Tally()
    try:
        for path in paths:
            for bad in check(path, given.value, loaded.config, tally):
                if sum(tally.codes.values()) <= max_errors:
                    typer.echo(msgspec.json.encode(bad) if output is Form.JSON else str(bad))
    except files.UnreadableFileError as error:
        raise typer.BadParameter(str(error)) from None
    labelled = f" ({tally.feedback} with a label)" if tally.feedback else ""
    summary = f"{tally.rows} records{labelled}, {sum(tally.codes.values())} bad"
    if tally.codes:
        summary += f" ({', '.join(f'{code} {count}' for code, count in sorted(tally.codes.items()))})"
    tell(summary)
    if tally.codes:
        raise typer.Exit(EXIT_CHECK_FAILED)


def check(path: str, given: files.FileFormat, settings_: Config, tally: Tally) -> Iterator[Bad]:
    """The bad records of one file, in their order; counts as it goes."""
    numbered = _numbered(path, given)
    now_ms = time.time_ns() // 1_000_000
    while chunk := list(islice(numbered, ROWS_AT_ONCE)):
        labelled = [_is_feedback(line) for _, line in chunk]
        tally.rows += len(chunk)
        tally.feedback += sum(labelled)
        bad = []
        for kind, wanted in ((inbound, False), (feedback, True)):
            own = [row for row, is_label in zip(chunk, labelled, strict=True) if is_label is wanted]
            values: list[bytes | None] = [line for _, line in own]
            n = len(own)
            batch = Batch(path, 0, list(range(n)), [now_ms] * n, [None] * n, values, [None] * n)
            malformed = kind.decode(batch, settings_.limits, settings_.windows.max_future).malformed
            bad += [Bad(path, own[place][0], fault.code, fault.detail) for place, fault in malformed]
        for one in sorted(bad, key=lambda one: one.line):
            tally.codes[one.code] += 1
            yield one


def _numbered(path: str, given: files.FileFormat) -> Iterator[tuple[int, bytes]]:
    """Rows with their line; of a Parquet file with their number."""
    kind = files.format_of(path, given)
    if kind != "jsonl":
        first = 2 if kind == "csv" else 1  # a CSV begins with its header
        yield from enumerate(files.rows(path, files.Progress(), given), first)
        return
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as lines:
            yield from ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise files.UnreadableFileError(f"{path}: {error.strerror}") from None


def _is_feedback(line: bytes) -> bool:
    try:
        return b'"actual"' in line and bytes(msgspec.json.decode(line, type=_Head).actual) != _NULL
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


class _Head(Struct):
    actual: msgspec.Raw = msgspec.Raw(_NULL)
