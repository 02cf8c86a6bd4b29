"""`drift replay FILE…`: the same loop and the same stages over files, without Kafka."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer
from msgspec import Struct, field
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from stream.cli.binding import bound
from stream.cli.clients import tell
from stream.cli.options import Color, Colors, ConfigFile, FileFormats, Format, Properties, console, new_app, settings
from stream.cli.references import outgoing, read_references
from stream.config import worker_settings
from stream.wire import control
from stream.wire.codec import Malformed
from stream.wire.inbound import Limits
from stream.wire.record import Record, Role
from stream.worker import files
from stream.worker import replay as engine

app = new_app()

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Alerts; else standard output.")]


class Sinks(Struct):
    """Where public records go, and what was seen of them."""

    files: dict[Role, BinaryIO]
    paths: Sequence[str]
    seen: Counter[str] = field(default_factory=Counter)
    """Records by role."""
    codes: Counter[str] = field(default_factory=Counter)
    """Dead letters by code."""

    def hear(self, role: Role, record: Record) -> None:
        """One public record."""
        self.seen[role] += 1
        if role == "dead_letters":
            self.codes[_header(record, "drift.error.code")] += 1
        if (file := self.files.get(role)) is not None:
            value = self._dead_letter(record) if role == "dead_letters" else record.value or b""
            file.write(value + b"\n")

    def _dead_letter(self, record: Record) -> bytes:
        """As JSON: where the record stood, what is wrong, and its bytes as text."""
        place: dict[str, Any] = {
            "file": self.paths[int(_header(record, "drift.error.partition"))],
            "row": int(_header(record, "drift.error.offset")) + 1,
            "code": _header(record, "drift.error.code"),
            "detail": _header(record, "drift.error.detail"),
            "value": (record.value or b"").decode(errors="replace"),
        }
        return orjson.dumps(place)


@app.command()
def replay(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="JSON lines, CSV or Parquet; - is standard input.")
    ],
    file: ConfigFile = None,
    properties: Properties = None,
    color: Colors = Color.AUTO,
    out: Out = None,
    windows: Annotated[Path | None, typer.Option("--windows", metavar="FILE", help="Readings, one per line.")] = None,
    dead_letters: Annotated[
        Path | None, typer.Option("--dead-letters", metavar="FILE", help="Bad records with their code.")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option("--reference", metavar="FILE", help="Made by `drift reference build`. Repeatable."),
    ] = None,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(
            "--control", metavar="FILE", help="Control events, one per line, read before all rows. Repeatable."
        ),
    ] = None,
    sort: Annotated[bool, typer.Option("--sort", help="By time first; reads each file into memory.")] = False,
    given: FileFormats = Format.AUTO,
) -> None:
    """Run the same stages over files, without Kafka. Alerts come out as JSON lines, a summary on stderr."""
    loaded = settings(file, properties)
    engine_settings = worker_settings(loaded.config)
    known = [outgoing(one) for file in reference or () for one in read_references(file)]
    events = [event for one in decisions or () for event in _control_events(one, loaded.config.limits)]
    started_seconds = time.monotonic()
    with ExitStack() as stack:
        sinks = Sinks(_opened(stack, {"alerts": out, "windows": windows, "dead_letters": dead_letters}), paths)
        try:
            with _progress(color) as on_progress:
                summary = engine.replay(
                    paths,
                    bound(loaded),
                    engine_settings,
                    references=known,
                    controls=events,
                    on_record=sinks.hear,
                    on_progress=on_progress,
                    given=given.value,
                    sort=sort,
                )
        except files.UnreadableFileError as error:
            raise typer.BadParameter(str(error)) from None
    _sum_up(summary, sinks, time.monotonic() - started_seconds, joined=bool(engine_settings.topics.feedback))


def _control_events(path: Path, limits: Limits) -> list[bytes]:
    """The events of a file; a usage error on one that a worker would not take."""
    try:
        lines = list(files.rows(str(path), files.Progress(), "jsonl"))
    except files.UnreadableFileError as error:
        raise typer.BadParameter(str(error), param_hint="--control") from None
    for row, line in enumerate(lines, 1):
        if isinstance(fault := control.decode(line, limits), Malformed):
            sentence = f"{path}: row {row}: {fault.code} {fault.detail}"
            raise typer.BadParameter(sentence, param_hint="--control")
    return lines


def _sum_up(summary: engine.Summary, sinks: Sinks, seconds: float, *, joined: bool) -> None:
    rows = f"{summary.rows} rows, {summary.ok} in time, {summary.late} late, {summary.malformed} bad"
    if sinks.codes:
        rows += f" ({', '.join(f'{code} {count}' for code, count in sorted(sinks.codes.items()))})"
    if summary.feedback:
        rows += f", {summary.feedback} with a label{'' if joined else ' left out'}"
    tell(rows)
    rate = summary.rows / seconds if seconds else 0
    tell(f"{sinks.seen['alerts']} alert events, {sinks.seen['windows']} readings, {rate:,.0f} rows/s")


def _opened(stack: ExitStack, wanted: dict[Role, Path | None]) -> dict[Role, BinaryIO]:
    """Alerts without a file go to stdout; the others nowhere."""
    opened: dict[Role, BinaryIO] = {"alerts": sys.stdout.buffer}
    for role, path in wanted.items():
        if path is not None:
            try:
                opened[role] = stack.enter_context(path.open("wb"))
            except OSError as error:
                raise typer.BadParameter(f"{path}: {error.strerror}") from None
    return opened


@contextmanager
def _progress(color: Color) -> Iterator[Any]:
    """A bar on stderr, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    screen = console(color, words=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("replay", total=None)

        def show(progress: files.Progress) -> None:
            bar.update(task, completed=progress.bytes_read, total=progress.bytes_total or None)

        yield show


def _header(record: Record, name: str) -> str:
    return dict(record.headers).get(name, b"").decode(errors="replace")
