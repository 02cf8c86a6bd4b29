"""`drift control VERB`: a person's decision, written where every worker, and every replay, meets it."""

import time
import uuid
from typing import Annotated, Final, TypeAlias, TypeVar, get_args

import typer

from stream.cli.clients import write
from stream.cli.options import ConfigFile, Properties, new_app, settings
from stream.config import worker_settings
from stream.wire import control, durations
from stream.wire.codec import Malformed
from stream.wire.inbound import Limits
from stream.wire.outbound import Kind
from stream.wire.record import Outgoing
from stream.wire.times import parse_time

Word = TypeVar("Word")

SOURCE: Final = "/drift/control"

app = new_app("Write a decision: mute, relearn, resolve, retrained or marker.")

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
OUTCOMES: Final[tuple[control.Outcome, ...]] = get_args(control.Outcome)

EffectiveAt: TypeAlias = Annotated[
    str | None,
    typer.Option("--effective-at", metavar="TIME", help="For windows from then on: 2h ahead, or a time. Default: now."),
]
EventId: TypeAlias = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Writing the same one twice counts once. Default: a new one.")
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Check and print, write nothing.")]
AnyModel: TypeAlias = Annotated[str | None, typer.Option("--model", metavar="ID", help="Default: all models.")]
Model: TypeAlias = Annotated[str, typer.Option("--model", metavar="ID", help="The model.")]
Reason: TypeAlias = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for people.")]


@app.command()
def mute(
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="A duration after it begins, such as 3d, or a time.")
    ],
    model: AnyModel = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Such as data_drift. Repeatable. Default: all kinds."),
    ] = None,
    reason: Reason = None,
    effective_at: EffectiveAt = None,
    event_id: EventId = None,
    dry_run: DryRun = False,
    file: ConfigFile = None,
    properties: Properties = None,
) -> None:
    """Expect the unusual: no bets and no new alerts for a while; readings go on."""
    from_ms = _time(effective_at, "--effective-at", _now_ms())
    kinds = [_one_of(KINDS, one, "--kind") for one in kind or ()]
    decision = control.Mute(
        effective_at_ms=from_ms, until_ms=_time(until, "--until", from_ms), model_id=model, kinds=kinds, reason=reason
    )
    _write(decision, event_id, file, properties, dry_run=dry_run)


@app.command()
def relearn(
    model: Model,
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="The model version.")],
    reason: Reason = None,
    effective_at: EffectiveAt = None,
    event_id: EventId = None,
    dry_run: DryRun = False,
    file: ConfigFile = None,
    properties: Properties = None,
) -> None:
    """Call what comes now normal: a new reference is learned; open alerts resolve as new_reference."""
    from_ms = _time(effective_at, "--effective-at", _now_ms())
    decision = control.Relearn(effective_at_ms=from_ms, model_id=model, model_version=version, reason=reason)
    _write(decision, event_id, file, properties, dry_run=dry_run)


@app.command()
def resolve(
    fingerprint: Annotated[str, typer.Option("--fingerprint", metavar="HEX", help="Of the alert, 16 hex digits.")],
    reason: Reason = None,
    effective_at: EffectiveAt = None,
    event_id: EventId = None,
    dry_run: DryRun = False,
    file: ConfigFile = None,
    properties: Properties = None,
) -> None:
    """End an alert by hand; it resolves as operator."""
    from_ms = _time(effective_at, "--effective-at", _now_ms())
    decision = control.Resolve(effective_at_ms=from_ms, fingerprint=fingerprint, reason=reason)
    _write(decision, event_id, file, properties, dry_run=dry_run)


@app.command()
def retrained(
    alert_id: Annotated[str, typer.Option("--alert-id", metavar="HEX", help="Of the request, 32 hex digits.")],
    outcome: Annotated[str, typer.Option("--outcome", metavar="|".join(OUTCOMES), help="What came of it.")],
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="The model version that was made.")
    ] = None,
    effective_at: EffectiveAt = None,
    event_id: EventId = None,
    dry_run: DryRun = False,
    file: ConfigFile = None,
    properties: Properties = None,
) -> None:
    """Answer a request to retrain."""
    from_ms = _time(effective_at, "--effective-at", _now_ms())
    told = _one_of(OUTCOMES, outcome, "--outcome")
    decision = control.Retrained(effective_at_ms=from_ms, alert_id=alert_id, outcome=told, model_version=version)
    _write(decision, event_id, file, properties, dry_run=dry_run)


@app.command()
def marker(
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="What happened, such as a deploy.")],
    model: AnyModel = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where to read more.")] = None,
    effective_at: EffectiveAt = None,
    event_id: EventId = None,
    dry_run: DryRun = False,
    file: ConfigFile = None,
    properties: Properties = None,
) -> None:
    """Draw a line in the dashboard; verdicts do not change."""
    from_ms = _time(effective_at, "--effective-at", _now_ms())
    decision = control.Marker(effective_at_ms=from_ms, text=text, model_id=model, url=url)
    _write(decision, event_id, file, properties, dry_run=dry_run)


def _write(
    decision: control.Decision, event_id: str | None, file: ConfigFile, properties: Properties, *, dry_run: bool
) -> None:
    """Check the event as a worker would, write it, and print it."""
    event = control.ControlEvent(SOURCE, event_id or str(uuid.uuid4()), decision)
    value = control.cloud_event(event, _now_ms())
    if isinstance(fault := control.decode(value, Limits()), Malformed):
        raise typer.BadParameter(f"{fault.code}: {fault.detail}")
    if not dry_run:
        write(worker_settings(settings(file, properties, connects=True).config), _record(value))
    typer.echo(value)


def _one_of(known: tuple[Word, ...], text: str, option: str) -> Word:
    found = next((word for word in known if word == text), None)
    if found is None:
        raise typer.BadParameter(f"{text!r}: expected one of {', '.join(map(str, known))}", param_hint=option)
    return found


def _record(value: bytes) -> Outgoing:
    return Outgoing("control", None, value, (("content-type", b"application/cloudevents+json; charset=UTF-8"),))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time(text: str | None, option: str, after_ms: int) -> int:
    """A time, or one a duration after another; without a text that other one. A usage error on anything else."""
    if text is None:
        return after_ms
    try:
        return after_ms + durations.parse(text)
    except ValueError:
        time_ms = parse_time(text)
    if time_ms is None:
        sentence = f"{text!r}: expected a duration such as 3d, or a time such as 2026-12-24T00:00:00Z"
        raise typer.BadParameter(sentence, param_hint=option)
    return time_ms
