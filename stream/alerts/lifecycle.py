"""The life of an alert: a condition begins, is told, changes, and ends. One row of state per fingerprint.

An alarm opens an episode, which is `pending` for `pending_for` and then `firing`: the first event people see. While it
fires it is told again when it changed (at most once per `update_interval`) or after `refresh`. It ends when the signals
returned and no alarm came for `keep_firing_for`, with a new reference, with the silence of its version, or by a person.
Detections without evidence never open an episode: outside of one they are told as a `notice`.

All times are event time: the ends of closed windows. `contracts.md` 4 holds the table in words, `statistics.md` 10.3
the conditions. What a window says is turned into causes, worked off in the order of `Cause`; each pair of state and
cause has exactly one step in `TRANSITIONS`.
"""

from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from stream.alerts.policy import Settings, higher
from stream.wire.outbound import EventName, ResolveReason, Severity, SignalEntry


class State(StrEnum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Cause(StrEnum):
    """What may move an alert, in the order in which one window's causes are worked off: ends, alarms, then news."""

    OPERATOR = "operator"
    NEW_REFERENCE = "new_reference"
    RETIRED = "retired"
    RETURN = "return"
    ALARM = "alarm"
    HELD = "held"
    SETTLED = "settled"
    CHANGED = "changed"
    REFRESH = "refresh"
    NOTICE = "notice"


class Step(NamedTuple):
    """The next state, and the event that tells of it, if any."""

    state: State
    publishes: EventName | None = None


def _quiet(state: State) -> dict[Cause, Step]:
    return {cause: Step(state) for cause in Cause} | {
        Cause.ALARM: Step(State.PENDING),
        Cause.NOTICE: Step(state, "notice"),
    }


TRANSITIONS: Final[dict[State, dict[Cause, Step]]] = {
    State.INACTIVE: _quiet(State.INACTIVE),
    State.PENDING: {
        Cause.OPERATOR: Step(State.INACTIVE),
        Cause.NEW_REFERENCE: Step(State.INACTIVE),
        Cause.RETIRED: Step(State.INACTIVE),
        Cause.RETURN: Step(State.INACTIVE),
        Cause.ALARM: Step(State.PENDING),
        Cause.HELD: Step(State.FIRING, "firing"),
        Cause.SETTLED: Step(State.PENDING),
        Cause.CHANGED: Step(State.PENDING),
        Cause.REFRESH: Step(State.PENDING),
        Cause.NOTICE: Step(State.PENDING, "notice"),
    },
    State.FIRING: {
        Cause.OPERATOR: Step(State.RESOLVED, "resolved"),
        Cause.NEW_REFERENCE: Step(State.RESOLVED, "resolved"),
        Cause.RETIRED: Step(State.RESOLVED, "resolved"),
        Cause.RETURN: Step(State.FIRING),
        Cause.ALARM: Step(State.FIRING),
        Cause.HELD: Step(State.FIRING),
        Cause.SETTLED: Step(State.RESOLVED, "resolved"),
        Cause.CHANGED: Step(State.FIRING, "updated"),
        Cause.REFRESH: Step(State.FIRING, "updated"),
        Cause.NOTICE: Step(State.FIRING),
    },
    State.RESOLVED: _quiet(State.RESOLVED),
}

RESOLVES: Final[dict[Cause, ResolveReason]] = {
    Cause.OPERATOR: "operator",
    Cause.NEW_REFERENCE: "new_reference",
    Cause.RETIRED: "retired",
    Cause.SETTLED: "returned",
}

REMEMBERED_MAX: Final = 1024
"""Detections kept per fingerprint, newest first to stay: a bound for rows of state, far above what people read."""


class Detection(Struct, frozen=True):
    """A detection outside the evidence (`adwin`, `page_hinkley`, `river:`), and whether an event has listed it."""

    at_ms: int
    """End of the window in which it was made."""
    entry: SignalEntry
    told: bool = False


class Row(Struct, frozen=True):
    """All that the life of one fingerprint needs to remember."""

    state: State = State.INACTIVE
    pending_since_ms: int | None = None
    starts_at_ms: int | None = None
    """When the present, or the last, episode became firing."""
    sequence: int = 0
    """Events published of that episode."""
    told_at_ms: int | None = None
    """When the last of them was published."""
    returned_at_ms: int | None = None
    """Since when the condition is gone while the alert is still firing."""
    noticed_at_ms: int | None = None
    content: str = ""
    """`content_of` what was told last."""
    detections: tuple[Detection, ...] = field(default_factory=tuple)
    severity: Severity | None = None
    """The highest that was told of the episode: who was paged does not find the page taken back."""

    def lifted(self, severity: Severity) -> Severity:
        """What to tell where the window itself calls for `severity`: in an episode never less than was told."""
        return higher(severity, self.severity) if self.state is State.FIRING else severity


class Condition(Struct, frozen=True, kw_only=True):
    """What one closed window says about one group."""

    severity: Severity = "info"
    """What `policy.severity` says of this window alone."""
    alarm: bool = False
    """G >= A_g in this window."""
    returned: bool = False
    """The open detector says that the signals are back at the reference."""
    new_reference: bool = False
    """A new reference (not a matured one) is in force from this window on."""
    operator: bool = False
    """A control event resolves this fingerprint."""
    muted: bool = False
    """A control event mutes this kind: nothing begins and nothing is noticed, what is open goes on."""
    silent_ms: int = 0
    """Event time since the last event of the model version."""
    content: str = ""
    """`content_of` what an event of this window would tell."""
    since_ms: int | None = None
    """Earliest start of the change (`change_point.earliest`); detections of windows that end later belong to it.
    None: the alert's own start."""
    detections: tuple[SignalEntry, ...] = ()
    """Detections of this window."""
    may_not_mature: bool = False
    """The reference in force may not take up what was learned (`statistics.md` 2.11)."""


class Emission(Struct, frozen=True, kw_only=True):
    """An event to be published: everything about it that the life cycle decides."""

    event: EventName
    sequence: int
    starts_at_ms: int
    updated_at_ms: int
    severity: Severity = "info"
    """Of the window, and in an episode never below what was told."""
    ends_at_ms: int | None = None
    resolve_reason: ResolveReason | None = None
    detections: tuple[SignalEntry, ...] = ()
    """Detections to list: in a notice all since the last one, in an alert those since its change point."""
    may_not_mature: bool = False


def _passed(since_ms: int | None, now_ms: int, duration_ms: int) -> bool:
    return since_ms is not None and now_ms - since_ms >= duration_ms


def _changed(row: Row, condition: Condition, now_ms: int, settings: Settings) -> bool:
    return condition.content != row.content and _passed(row.told_at_ms, now_ms, settings.update_interval)


def _has_news(row: Row, condition: Condition, now_ms: int, settings: Settings) -> bool:
    untold = any(not detection.told for detection in row.detections)
    rested = row.noticed_at_ms is None or _passed(row.noticed_at_ms, now_ms, settings.update_interval)
    return not condition.muted and (condition.may_not_mature or (untold and rested))


HOLDS: Final[dict[Cause, Callable[[Row, Condition, int, Settings], bool]]] = {
    Cause.OPERATOR: lambda _row, condition, _now_ms, _settings: condition.operator,
    Cause.NEW_REFERENCE: lambda _row, condition, _now_ms, _settings: condition.new_reference,
    Cause.RETIRED: lambda _row, condition, _now_ms, settings: condition.silent_ms >= settings.retire_after,
    Cause.RETURN: lambda _row, condition, _now_ms, _settings: condition.returned,
    Cause.ALARM: lambda _row, condition, _now_ms, _settings: condition.alarm,
    Cause.HELD: lambda row, condition, now_ms, settings: (
        not condition.muted and _passed(row.pending_since_ms, now_ms, settings.pending_for)
    ),
    Cause.SETTLED: lambda row, _condition, now_ms, settings: _passed(
        row.returned_at_ms, now_ms, settings.keep_firing_for
    ),
    Cause.CHANGED: _changed,
    Cause.REFRESH: lambda row, _condition, now_ms, settings: _passed(row.told_at_ms, now_ms, settings.refresh),
    Cause.NOTICE: _has_news,
}
"""Whether a window brings a cause, given what its earlier causes made of the row."""


def content_of(severity: str, change_type: str | None, signals: list[str], shifts: int = 0) -> str:
    """A digest that is equal as long as there is nothing new to tell; the order of the signals does not matter.

    `shifts` counts the times the open detector found yet another law within the episode.
    """
    return sha256(msgspec.json.encode([severity, change_type, sorted(set(signals)), shifts])).hexdigest()[:16]


def advance(row: Row, condition: Condition, now_ms: int, settings: Settings) -> tuple[Row, list[Emission]]:
    """The row after one closed window that ends at `now_ms`, and the events to publish, in order.

    Called once per fingerprint and window, windows in rising order. Usually at most one event; two when an episode ends
    and something else begins in the same window. Cost O(detections remembered).
    """
    row = replace(row, detections=_remember(row.detections, condition.detections, now_ms, settings.retire_after))
    emissions = []
    for cause in Cause:
        if HOLDS[cause](row, condition, now_ms, settings):
            row, emission = _apply(cause, row, condition, now_ms)
            if emission:
                emissions.append(emission)
    return row, emissions


def _apply(cause: Cause, row: Row, condition: Condition, now_ms: int) -> tuple[Row, Emission | None]:
    step = TRANSITIONS[row.state][cause]
    row = replace(_times(cause, row, step.state, now_ms), state=step.state)
    match step.publishes:
        case None:
            return row, None
        case "notice":
            return _notice(row, condition, now_ms)
        case event:
            return _event(event, cause, row, condition, now_ms)


def _times(cause: Cause, row: Row, state: State, now_ms: int) -> Row:
    """The clocks of a row after a step: each runs in one state only."""
    pending = None if state is not State.PENDING else row.pending_since_ms if row.state is State.PENDING else now_ms
    returned = None if state is not State.FIRING else row.returned_at_ms
    if cause is Cause.ALARM:
        returned = None
    elif cause is Cause.RETURN and state is State.FIRING and returned is None:
        returned = now_ms
    return replace(row, pending_since_ms=pending, returned_at_ms=returned)


def _event(event: EventName, cause: Cause, row: Row, condition: Condition, now_ms: int) -> tuple[Row, Emission]:
    starts = now_ms if event == "firing" or row.starts_at_ms is None else row.starts_at_ms
    sequence = 0 if event == "firing" else row.sequence
    severity = condition.severity if event == "firing" else higher(condition.severity, row.severity)
    since_ms = starts - 1 if condition.since_ms is None else condition.since_ms
    detections, listed = _listed(row.detections, lambda detection: detection.at_ms > since_ms)
    emission = Emission(
        event=event,
        sequence=sequence,
        starts_at_ms=starts,
        updated_at_ms=now_ms,
        severity=severity,
        ends_at_ms=now_ms if event == "resolved" else None,
        resolve_reason=RESOLVES[cause] if event == "resolved" else None,
        detections=listed,
    )
    told = replace(
        row,
        starts_at_ms=starts,
        sequence=sequence + 1,
        told_at_ms=now_ms,
        content=condition.content,
        detections=detections,
        severity=severity,
    )
    return told, emission


def _notice(row: Row, condition: Condition, now_ms: int) -> tuple[Row, Emission]:
    detections, listed = _listed(row.detections, lambda detection: not detection.told)
    emission = Emission(
        event="notice",
        sequence=0,
        starts_at_ms=now_ms,
        updated_at_ms=now_ms,
        severity=condition.severity,
        detections=listed,
        may_not_mature=condition.may_not_mature,
    )
    return replace(row, noticed_at_ms=now_ms, detections=detections), emission


def _remember(
    known: tuple[Detection, ...], new: tuple[SignalEntry, ...], now_ms: int, keep_ms: int
) -> tuple[Detection, ...]:
    """Known and new detections: all that were not told, and of those told the latest per series, for `keep_ms`."""
    again = {_series(entry) for entry in new}
    kept = [
        detection
        for detection in known
        if not detection.told or (now_ms - detection.at_ms < keep_ms and _series(detection.entry) not in again)
    ]
    return tuple([*kept, *(Detection(now_ms, entry) for entry in new)][-REMEMBERED_MAX:])


def _series(entry: SignalEntry) -> tuple[str, str, str]:
    return entry.signal, entry.measure, entry.detector


def _listed(
    detections: tuple[Detection, ...], chosen: Callable[[Detection], bool]
) -> tuple[tuple[Detection, ...], tuple[SignalEntry, ...]]:
    """The detections with the chosen ones marked as told, and the chosen entries."""
    marked = tuple(replace(detection, told=True) if chosen(detection) else detection for detection in detections)
    return marked, tuple(detection.entry for detection in detections if chosen(detection))
