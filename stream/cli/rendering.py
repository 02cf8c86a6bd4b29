"""Alerts on a terminal: one line for a list, several for reading. Pure: an event in, styled text out.

Events come from a topic that others may write to as well: fields of other releases may be absent, and foreign text is
shown without its control characters, so no record can move the cursor or forge a line.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from rich.cells import cell_len
from rich.text import Text

from stream.alerts.wording import number, percent
from stream.wire.outbound import CloudEvent

Event: TypeAlias = Mapping[str, Any] | CloudEvent
Row: TypeAlias = Sequence[str]

_SEVERITY_STYLES: Final = {"critical": "white on red", "warning": "yellow", "info": "cyan"}
_MARKS: Final = {"firing": "▲", "updated": "△", "resolved": "✓", "notice": "•"}
_HEADINGS: Final = ("signal", "measure", "detector", "statistic", "before → after", "PSI")
_SIGNALS_MAX: Final = 10
"""Signals shown of one alert: the first ones are the most evident, and a screen has a height."""
_PARTITIONS_MAX: Final = 2
_TEXT_MAX: Final = 1000
_NUMBER_MAX: Final = 1e300
_ID_SHOWN: Final = 8
_SECONDS: Final = len("2026-11-21 02:06:00")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def line(event: Event) -> Text:
    """One line: when (UTC), how urgent, what kind, what, and the first digits of the alert's id."""
    fields = _fields(event)
    data = _map(fields.get("data"))
    name = _event_name(fields)
    text = Text(no_wrap=True)
    text.append(f"{_moment(_time(fields))[:_SECONDS]}  ", "dim")
    text.append(f"{_severity(data):<8}", _style(name, data))
    text.append(f"  {_mark(name)} {name:<8}  ", "green" if name == "resolved" else "")
    text.append(f"{_clean(data.get('kind')):<16}  ")
    text.append(_summary(data))
    text.append(f"  {_clean(data.get('alert_id'))[:_ID_SHOWN]}", "dim")
    return text


def pretty(event: Event) -> Text:
    """Several lines, without one at the end: what, since when, what to do, the signals, and where the evidence lies."""
    fields = _fields(event)
    data = _map(fields.get("data"))
    name = _event_name(fields)
    head = Text()
    head.append(f"{_mark(name)} {_severity(data)} {name}", f"bold {_style(name, data)}")
    head.append(f"  {_clean(data.get('kind'))}  ")
    head.append(f"{_moment(_time(fields))} UTC", "dim")
    notes = _map(data.get("annotations"))
    lines = [head, Text(f"  {_summary(data)}", "bold")]
    if described := _clean(notes.get("description")):
        lines.append(Text(f"  {described}"))
    if advised := _clean(notes.get("action")):
        lines.append(Text(f"  → {advised}", "cyan"))
    lines += _signal_lines(data)
    lines += [Text.assemble((f"  {label:<8}", "dim"), value) for label, value in _facts(data) if value]
    return Text("\n").join(lines)


def _signal_lines(data: Mapping[str, Any]) -> list[Text]:
    """A table of the signals, columns as wide as their longest cell."""
    entries = [_map(entry) for entry in _list(data.get("signals"))]
    if not entries:
        return []
    rows: list[Row] = [_HEADINGS, *(_signal_row(entry) for entry in entries[:_SIGNALS_MAX])]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [Text(_padded(row, widths), "dim" if row is _HEADINGS else "") for row in rows]
    total = data.get("signals_total")
    hidden = (total if isinstance(total, int) else len(entries)) - len(rows) + 1
    return lines if hidden <= 0 else [*lines, Text(f"  and {hidden} more", "dim")]


def _signal_row(entry: Mapping[str, Any]) -> Row:
    return (
        _clean(entry.get("signal")),
        _clean(entry.get("measure")),
        _clean(entry.get("detector")),
        _against(entry.get("statistic"), entry.get("threshold")),
        _before_after(_map(entry.get("before")), _map(entry.get("after"))),
        _shown(_map(entry.get("effect")).get("psi")),
    )


def _against(statistic: object, threshold: object) -> str:
    """The statistic beside its threshold: "9.84 ≥ 9.16"."""
    value, limit = _number(statistic), _number(threshold)
    if value is None or limit is None:
        return ""
    return f"{number(value)} {'≥' if value >= limit else '<'} {number(limit)}"


def _before_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    for name, text in (("rate", percent), ("mean", number), ("p50", number)):
        old, new = _number(before.get(name)), _number(after.get(name))
        if old is not None and new is not None:
            return f"{name} {text(old)} → {text(new)}"
    first, then = _most_frequent(before), _most_frequent(after)
    return f"{first} → {then}" if first and then else ""


def _most_frequent(description: Mapping[str, Any]) -> str:
    match _list(description.get("top")):
        case [[category, given], *_] if (share := _number(given)) is not None:
            return f"{_clean(category)} {percent(share)}"
        case _:
            return ""


def _facts(data: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    now = _clean(data.get("updated_at"))
    if point := _map(data.get("change_point")):
        interval = f"{_clock(point.get('earliest'), now)} to {_clock(point.get('latest'), now)}"
        kind = f", {_clean(data['change_type'])}" if data.get("change_type") else ""
        yield "since", f"{_clock(point.get('at'), now)} (95 %: {interval}){kind}"
    if data.get("status") == "resolved":
        yield "open", f"{_moment(data.get('starts_at'))} to {_moment(data.get('ends_at'))}"
    if window := _map(data.get("window")):
        span = f"{_clock(window.get('start'), now)} to {_clock(window.get('end'), now)}"
        rows = f"{_shown(window.get('n'))} rows against {_shown(window.get('n_reference'))} in the reference"
        yield "window", f"{span}, {rows}" + (f", {_shown(window['late'])} late" if window.get("late") else "")
    yield "records", _records(_list(data.get("evidence_offsets")))
    yield "id", _clean(data.get("alert_id"))
    notes = _map(data.get("annotations"))
    yield "runbook", _clean(notes.get("runbook_url"))
    yield "more", _clean(notes.get("dashboard_url"))


def _records(offsets: Sequence[object]) -> str:
    parts = []
    for part in map(_map, offsets[:_PARTITIONS_MAX]):
        first, last = _clean(part.get("first_offset")), _clean(part.get("last_offset"))
        where = f"{_clean(part.get('topic'))}[{_clean(part.get('partition'))}]"
        parts.append(f"{where} at {first}" if first == last else f"{where} {first} to {last}")
    if hidden := len(offsets) - len(parts):
        parts.append(f"{hidden} more partition{'s' if hidden > 1 else ''}")
    return ", ".join(parts)


def _fields(event: Event) -> Mapping[str, Any]:
    return _map(msgspec.to_builtins(event) if isinstance(event, CloudEvent) else event)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else []


def _event_name(fields: Mapping[str, Any]) -> str:
    """`firing` of "io.driftstream.alert.firing.v1": firing and updated differ nowhere else."""
    parts = _clean(fields.get("type")).split(".")
    return parts[-2] if len(parts) > 1 else _clean(_map(fields.get("data")).get("status"))


def _mark(name: str) -> str:
    return _MARKS.get(name, "?")


def _severity(data: Mapping[str, Any]) -> str:
    return _clean(data.get("severity")).upper()


def _style(name: str, data: Mapping[str, Any]) -> str:
    return "green" if name == "resolved" else _SEVERITY_STYLES.get(_clean(data.get("severity")), "")


def _summary(data: Mapping[str, Any]) -> str:
    """The summary; of an alert without one, what it is about."""
    if text := _clean(_map(data.get("annotations")).get("summary")):
        return text
    return "/".join(_clean(data.get(name)) for name in ("model_id", "model_version", "segment"))


def _time(fields: Mapping[str, Any]) -> object:
    return _map(fields.get("data")).get("updated_at") or fields.get("time")


def _moment(time: object) -> str:
    """Date and time, milliseconds only where there are any: "2026-11-21 02:06:00"."""
    return _clean(time).replace("T", " ").removesuffix("Z").removesuffix(".000")


def _clock(time: object, now: str) -> str:
    """Hour and minute, with the day where it is not that of `now`."""
    moment = _moment(time)
    return moment[11:16] if moment[:10] == now[:10] else moment[:16]


def _shown(value: object) -> str:
    known = _number(value)
    return "" if known is None else number(known)


def _number(value: object) -> float | None:
    """A number that has a form for people: not so an integer of 400 digits, which JSON may well hold."""
    if not isinstance(value, int | float) or not abs(value) < _NUMBER_MAX:
        return None
    return float(value)


def _padded(row: Row, widths: Sequence[int]) -> str:
    cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
    return ("  " + "  ".join(cells)).rstrip()


def _clean(value: object) -> str:
    """Foreign text in one line: no control characters, no change of writing direction, no novel."""
    return "" if value is None else _CONTROLS.sub("\ufffd", str(value))[:_TEXT_MAX]
