"""`drift tail`: shows alerts, and follows them, without joining the workers' group or moving anybody's offsets."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, NoReturn

import orjson
import typer
from msgspec import Struct

from stream.cli import rendering
from stream.cli.clients import Log, tell
from stream.cli.options import Color, Colors, ConfigFile, Properties, Severity, console, new_app, settings
from stream.config import worker_settings
from stream.wire import durations
from stream.wire.outbound import SEVERITIES
from stream.wire.record import Record
from stream.wire.times import parse_time

DEFAULT_NUMBER: Final = 10
"""Alerts shown when nothing says how many."""

app = new_app()


class Form(StrEnum):
    """How to print."""

    PRETTY = "pretty"
    TABLE = "table"
    JSON = "json"
    RAW = "raw"


class Wanted(Struct, frozen=True):
    """Which alerts to show; empty means all."""

    models: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    severity: str = "info"
    """At least this one."""

    def __contains__(self, event: Any) -> bool:
        data = event.get("data")
        if not isinstance(data, dict):
            return not (self.models or self.kinds or self.statuses) and self.severity == "info"
        return (
            (not self.models or data.get("model_id") in self.models)
            and (not self.kinds or data.get("kind") in self.kinds)
            and (not self.statuses or data.get("status") in self.statuses)
            and _rank(data.get("severity")) >= _rank(self.severity)
        )


@app.command()
def tail(
    file: ConfigFile = None,
    properties: Properties = None,
    color: Colors = Color.AUTO,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="15m, or 2026-11-21T02:00:00Z.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Wait for more, until interrupted.")] = False,
    number: Annotated[
        int | None, typer.Option("-n", min=0, help="The newest N. By default 10, all with --since.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Of this model. Repeatable.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Such as data_drift. Repeatable.")] = None,
    severity: Annotated[Severity, typer.Option("--severity", help="At least this one.")] = Severity.INFO,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="firing, resolved or notice. Repeatable.")
    ] = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="How to print; table is one line each.")] = Form.PRETTY,
) -> None:
    """Show alerts, and follow them."""
    wanted = Wanted(frozenset(model or ()), frozenset(kind or ()), frozenset(status or ()), severity.value)
    since_ms = None if since is None else parse_since(since, time.time_ns() // 1_000_000)
    kept = number if number is not None else None if since_ms is not None else DEFAULT_NUMBER
    config = worker_settings(settings(file, properties, connects=True).config)
    show = printer(output, color)
    with Log(config, config.topics.alerts) as log:
        newest = kept if wanted == Wanted() else None
        found = [(record, event) for record in log.history(since_ms, newest) if (event := read(record)) in wanted]
        for record, event in found if kept is None else found[max(0, len(found) - kept) :]:
            show(record, event)
        if follow:
            _stop_on_signals()
            _follow(log.live(), wanted, show)


def parse_since(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of `15m` (before now) or of an RFC 3339 time. Raises a usage error on anything else."""
    try:
        return now_ms - durations.parse(text)
    except ValueError:
        time_ms = parse_time(text)
    if time_ms is None:
        sentence = f"{text!r}: expected a duration such as 15m, or a time such as 2026-11-21T02:00:00Z"
        raise typer.BadParameter(sentence, param_hint="--since")
    return time_ms


def read(record: Record) -> dict[str, Any]:
    """The event in a record; of a foreign one what can be said of it."""
    try:
        event = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        event = None
    return event if isinstance(event, dict) else {}


def printer(form: Form, color: Color) -> Callable[[Record, dict[str, Any]], None]:
    """How one alert is printed. Foreign records, which are no alerts, get a word on stderr unless bytes are wanted."""
    screen = console(color)

    def show(record: Record, event: dict[str, Any]) -> None:
        if form is Form.RAW:
            sys.stdout.buffer.write((record.value or b"") + b"\n")
        elif not event:
            tell(f"{record.topic} {record.partition} at {record.offset} is no alert and is left out")
        elif form is Form.JSON:
            sys.stdout.buffer.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
        elif form is Form.TABLE:
            screen.print(rendering.line(event))
        else:
            screen.print(rendering.pretty(event), end="\n\n")
        sys.stdout.flush()

    return show


def _follow(live: Iterator[Sequence[Record]], wanted: Wanted, show: Callable[[Record, dict[str, Any]], None]) -> None:
    try:
        for records in live:
            for record in records:
                if (event := read(record)) in wanted:
                    show(record, event)
    except KeyboardInterrupt:  # the only way out, and no error
        return


def _stop_on_signals() -> None:
    def stop(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def _rank(severity: object) -> int:
    return SEVERITIES[severity][1] if severity in SEVERITIES else 0
