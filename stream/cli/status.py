"""`drift status`: what is open, how far the workers have come, and what the budget buys."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
import typer
from msgspec import Struct
from rich.text import Text

from stream.alerts.wording import number, percent, span
from stream.cli import rendering, standing
from stream.cli.binding import detect_settings
from stream.cli.columns import aligned
from stream.cli.options import Color, Colors, ConfigFile, Properties, Severity, console, new_app, settings
from stream.cli.standing import Name, Place, Told
from stream.config import Loaded, worker_settings
from stream.profiles.reference import References, Tables
from stream.stages.detect import power, silence
from stream.stages.detect.labels import plan as labels
from stream.stages.detect.labels.plan import OutcomesPlan
from stream.stages.detect.plan import Plan, plan
from stream.stages.detect.power import Power, Share, Traffic
from stream.stages.detect.settings import Settings
from stream.wire.durations import text_of
from stream.wire.outbound import SEVERITIES
from stream.wire.times import rfc3339
from stream.worker.ends import Stopped

EXIT_CHECK_FAILED: Final = 1
WITHIN_MS: Final = 3_600_000
"""What "in time" means: an hour, or three windows where they are longer."""
WHOLE: Final = "all"
_WINDOWS_LEAST: Final = 3
_SECONDS: Final = len("2026-11-21T02:06:00")

app = new_app()


class Spent(Struct, frozen=True):
    """What one model version has of the budget, and what that buys."""

    model_id: str
    model_version: str
    reference_id: str
    reference_origin: str
    serving_known: bool
    """Whether the reference tells how windows of serving differ; else that is learned from the first hundred."""
    groups: list[Share]
    signals: list[Power]


class Form(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


@app.command()
def status(
    file: ConfigFile = None,
    properties: Properties = None,
    color: Colors = Color.AUTO,
    *,
    of_budget: Annotated[
        bool, typer.Option("--budget", help="Where the budget goes, the thresholds, and what is found within an hour.")
    ] = False,
    model: Annotated[list[str] | None, typer.Option("--model", help="Of this model. Repeatable.")] = None,
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Exit code 1 if such an alert, or a worse one, is open.")
    ] = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="How to print; json has all segments.")] = Form.TEXT,
) -> None:
    """Show what is open, how far the workers have come, and what the budget buys. Reads only."""
    loaded = settings(file, properties, connects=True)
    config, now_ms = worker_settings(loaded.config), time.time_ns() // 1_000_000
    found, wanted = standing.references(config), frozenset(model or ())
    told = standing.alerts(config) if fail_on or not of_budget else Told([], 0)
    told = Told(
        [event for event in told.opened if not wanted or event["data"].get("model_id") in wanted], told.above_info
    )
    lines: Iterable[str | Text]
    if of_budget:
        versions = spent(loaded, found, standing.traffic(config, now_ms), now_ms, wanted)
        lines, whole = _budget_lines(loaded, versions), _budget_json(loaded, versions)
    else:
        places, in_force = standing.places(config), len(_in_force(found, now_ms))
        lines = _status_lines(loaded, told, places, in_force, now_ms)
        whole = _status_json(loaded, told, places, in_force)
    if output is Form.JSON:
        typer.echo(msgspec.json.encode(whole))
    else:
        screen = console(color)
        for line in lines:
            screen.print(line)
    if fail_on and any(standing.rank(event["data"].get("severity")) >= standing.rank(fail_on) for event in told.opened):
        raise Stopped(EXIT_CHECK_FAILED, "open", f"an alert of at least {fail_on.value} is open")


def spent(
    loaded: Loaded, found: References, seen: Mapping[Name, Traffic], now_ms: int, models: Collection[str] = ()
) -> list[Spent]:
    """What each model version has, by the reference in force now; all models, if none is named."""
    of_detect = detect_settings(loaded)
    versions = []
    for name, tables in _in_force(found, now_ms).items():
        if not models or name[0] in models:
            own, reference = plan(of_detect, tables, None), tables.reference
            traffic = seen.get(name, {})
            outcomes = list(_outcomes(found, of_detect, name, now_ms))
            volumes = [power.of_volume(own, traffic)]
            volumes += [power.of_volume(one, traffic, silence.FEEDBACK) for one in outcomes]
            plans: list[Plan] = [own, *outcomes]
            versions.append(
                Spent(
                    *name,
                    reference.reference_id,
                    reference.origin if reference.complete else f"{reference.origin}, incomplete",
                    own.serving_known,
                    [*(group for part in plans for group in power.shares(part)), *(share for share, _ in volumes)],
                    [
                        *(one for part in plans for one in power.powers(part, traffic, WITHIN_MS)),
                        *(one for _, one in volumes),
                    ],
                )
            )
    return versions


def _outcomes(found: References, of_detect: Settings, name: Name, now_ms: int) -> Iterator[OutcomesPlan]:
    """What the outcomes of a version are judged by, if they are."""
    known = found.outcomes_at(*name, now_ms, found.offset, labels.read)
    if known is not None and of_detect.outcome_topics:
        yield labels.plan(of_detect, known, None)


def _in_force(found: References, now_ms: int) -> dict[Name, Tables]:
    tables = {name: found.at(*name, now_ms) for name in found.versions()}
    return {name: one for name, one in tables.items() if one is not None}


def _status_lines(
    loaded: Loaded, told: Told, places: Sequence[Place], in_force: int, now_ms: int
) -> Iterator[str | Text]:
    count = Counter(str(event["data"].get("severity")) for event in told.opened)
    by_severity = ", ".join(f"{count[name]} {name}" for name in reversed(SEVERITIES) if count[name])
    yield f"open alerts  {len(told.opened)}{f' ({by_severity})' if by_severity else ''}"
    for event in told.opened:
        yield rendering.line(event)
    yield ""
    rows = [["topic", "partition", "lag", "watermark", "behind"]]
    for place in places:
        mark_ms = place.watermark_ms
        behind = "" if mark_ms is None else span(max(0, now_ms - mark_ms))
        rows.append([place.topic, str(place.partition), str(place.lag), _moment(mark_ms), behind])
    yield from aligned(rows)
    yield ""
    yield f"budget  {_promise(loaded)}; {in_force} in force"
    yield f"told    {told.above_info} above info in the newest two days of {loaded.config.topics.alerts}"


def _status_json(loaded: Loaded, told: Told, places: Sequence[Place], in_force: int) -> dict[str, Any]:
    return {
        "alerts": [event["data"] for event in told.opened],
        "places": [
            {
                "topic": place.topic,
                "partition": place.partition,
                "lag_records": place.lag,
                "watermark": None if place.watermark_ms is None else rfc3339(place.watermark_ms),
            }
            for place in places
        ],
        "budget": _budget_of(loaded) | {"model_versions_in_force": in_force},
        "told_above_info": told.above_info,
    }


def _budget_lines(loaded: Loaded, versions: Sequence[Spent]) -> Iterator[str]:
    yield f"{_promise(loaded)}; {len(versions)} in force"
    for one in versions:
        yield ""
        yield from _version_lines(loaded, one)


def _version_lines(loaded: Loaded, one: Spent) -> Iterator[str]:
    size_ms = loaded.config.windows.size
    yield f"{one.model_id}/{one.model_version}  reference {one.reference_id} ({one.reference_origin})"
    if not one.serving_known:
        yield "The reference does not tell how windows differ: until a hundred were seen nothing goes beyond a warning."
    yield ""
    rows = [["segment", "kind", "share", "one in", "members"]]
    rows += [
        [group.segment, group.kind, percent(group.share), span(int(group.windows * size_ms)), str(group.members)]
        for group in one.groups
    ]
    yield from aligned(rows)
    yield ""
    within = span(max(WITHIN_MS, _WINDOWS_LEAST * size_ms))
    rows = [["signal", "measure", "detector", "n", "phi", "threshold", f"smallest found in {within}"]]
    rows += [_power_row(signal) for signal in one.signals if signal.segment == WHOLE]
    yield from aligned(rows)
    if hidden := len({signal.segment for signal in one.signals} - {WHOLE}):
        yield f"and {hidden} more segments (-o json)"


def _power_row(signal: Power) -> list[str]:
    limit = {"adwin": "delta ", "page_hinkley": "lambda "}.get(signal.detector)
    return [
        signal.signal,
        signal.measure,
        signal.detector,
        "" if signal.events is None else number(signal.events),
        "" if signal.overdispersion is None else number(signal.overdispersion),
        f"{limit}{number(signal.threshold)}" if limit else f"E 10^{number(signal.threshold)}",
        _smallest(signal),
    ]


def _smallest(signal: Power) -> str:
    if signal.unit is None:
        return ""
    if signal.events is None:
        return "traffic unknown"
    if signal.smallest is None:
        return "nothing"
    return f"{number(signal.smallest, 2)} sd" if signal.unit == "sd" else f"{percent(signal.smallest)} of the events"


def _budget_json(loaded: Loaded, versions: Sequence[Spent]) -> dict[str, Any]:
    return {"budget": _budget_of(loaded), "within_seconds": WITHIN_MS // 1_000, "versions": versions}


def _budget_of(loaded: Loaded) -> dict[str, Any]:
    own = loaded.config.budget
    return {
        "false_alarms": own.false_alarms,
        "period_seconds": own.period / 1_000,
        "model_versions": own.model_versions,
        "tolerance": own.tolerance,
    }


def _promise(loaded: Loaded) -> str:
    own = loaded.config.budget
    alarms = f"{number(own.false_alarms)} false alarm{'' if own.false_alarms == 1 else 's'}"
    return f"{alarms} in {text_of(own.period)} over up to {own.model_versions} model versions"


def _moment(time_ms: int | None) -> str:
    return "" if time_ms is None else rfc3339(time_ms)[:_SECONDS].replace("T", " ")
