"""A reading per signal of a closed window: what it is, and what every detector says of it."""

from collections.abc import Mapping, Sequence
from typing import Final

from stream.detectors import Reason, Verdicts
from stream.profiles.reference import ROW_RATES
from stream.stages.detect.plan import DETECTORS, RATE, Column, Group, Plan
from stream.stages.detect.shown import LEVELS, REASONS, Closed
from stream.stages.detect.watch import Judged
from stream.wire import outbound
from stream.wire.codec import rfc3339
from stream.wire.outbound import Reading, Verdict, significant
from stream.wire.record import Outgoing

_RAW_DIGITS: Final = 9
"""Digits of a value in the signal's own unit."""
_LEVEL_ORDER: Final = tuple(LEVELS[level] for level in sorted(LEVELS))


def readings(window: Closed, alert_ids: Mapping[Group, str]) -> list[Outgoing]:
    """One reading per segment and signal, in their order; the rates of rows last."""
    times = (rfc3339(window.start_ms), rfc3339(window.end_ms))
    found = []
    for segment in range(len(window.tables.segments)):
        for name, columns in window.plan.by_signal.items():
            tell = _row_reading if name in ROW_RATES else _reading
            found.append(outbound.reading_record(tell(window, segment, columns, times, alert_ids)))
    return found


def _reading(
    window: Closed, segment: int, columns: Sequence[int], times: tuple[str, str], alert_ids: Mapping[Group, str]
) -> Reading:
    tables, shown, signal = window.tables, window.shown, columns[0]
    where = window.plan.columns[signal]
    name = tables.layout.names[signal]
    found = tables.reference.signals[name]
    family = (tables.ordered, tables.unordered)[where.family]
    counts = shown.counts[where.family][segment, where.place, : int(family.bins[where.place])]
    n = int(counts.sum())
    at, sizes = segment * len(family.signals) + where.place, shown.effects[where.family]
    hits = shown.hits[segment, signal]
    numbers = [None] * 5 if where.numeric is None else shown.numbers[segment, where.numeric].tolist()
    mean, std, p05, p50, p95 = (significant(value, _RAW_DIGITS) for value in numbers)
    special = hits[[2, 0, 1]] if found.type == "categorical" else hits[:2]
    own = _verdicts(window, segment, columns)
    return Reading(
        model_id=window.model_id,
        model_version=window.model_version,
        segment=tables.segments[segment],
        signal=name,
        type=found.type,
        window_start=times[0],
        window_end=times[1],
        n=n,
        n_missing=int(hits[0]),
        n_invalid=int(hits[1]),
        n_unseen=int(hits[2]) if found.type == "categorical" else None,
        n_late=int(window.profile.late[segment]),
        mean=mean,
        std=std,
        p05=p05,
        p50=p50,
        p95=p95,
        reference_id=tables.reference.reference_id,
        reference_slot=shown.slot if segment == 0 else "all",
        reference_mean=significant(found.mean, _RAW_DIGITS) if segment == 0 else None,
        psi=significant(float(sizes.psi[at])) if n else None,
        jensen_shannon=significant(float(sizes.jensen_shannon[at])) if n else None,
        wasserstein=significant(float(sizes.wasserstein[at])) if n else None,
        counts=[*counts.tolist(), *special.tolist()],
        metrics=None,
        level=worst(own),
        alert_id=_alert_of(window, segment, columns, alert_ids),
        verdicts=own,
    )


def _row_reading(
    window: Closed, segment: int, columns: Sequence[int], times: tuple[str, str], alert_ids: Mapping[Group, str]
) -> Reading:
    """Of a rate of rows: the rate as mean, rows without and with the property as counts."""
    tables, column = window.tables, window.plan.columns[columns[0]]
    n, hits = window.shown.rates[segment, column.place].tolist()
    known = tables.rates.row_mean[0, ROW_RATES.index(column.signal)]
    own = _verdicts(window, segment, columns)
    return Reading(
        model_id=window.model_id,
        model_version=window.model_version,
        segment=tables.segments[segment],
        signal=column.signal,
        type="boolean",
        window_start=times[0],
        window_end=times[1],
        n=n,
        n_missing=0,
        n_invalid=0,
        n_unseen=None,
        n_late=int(window.profile.late[segment]),
        mean=significant(hits / n, _RAW_DIGITS) if n else None,
        std=None,
        p05=None,
        p50=None,
        p95=None,
        reference_id=tables.reference.reference_id,
        reference_slot="all",
        reference_mean=significant(float(known), _RAW_DIGITS) if segment == 0 else None,
        psi=None,
        jensen_shannon=None,
        wasserstein=None,
        counts=[n - hits, hits, 0, 0],
        metrics=None,
        level=worst(own),
        alert_id=_alert_of(window, segment, columns, alert_ids),
        verdicts=own,
    )


def _alert_of(window: Closed, segment: int, columns: Sequence[int], alert_ids: Mapping[Group, str]) -> str | None:
    """The alert a signal stands in: that of its distribution before that of its rates."""
    groups = [(segment, window.plan.columns[place].kind) for place in columns]
    return next((alert_ids[group] for group in groups if group in alert_ids), None)


def _verdicts(window: Closed, segment: int, columns: Sequence[int]) -> list[Verdict]:
    events = [_events(window, segment, window.plan.columns[place]) for place in columns]
    return verdicts(window.plan, window.judged, segment, dict(zip(columns, events, strict=True)))


def _events(window: Closed, segment: int, column: Column) -> int:
    """What a verdict was made of: valid values, or rows."""
    if column.family == RATE:
        return int(window.shown.rates[segment, column.place, 0])
    return int(window.shown.counts[column.family][segment, column.place].sum())


def verdicts(plan: Plan, judged: Judged | None, segment: int, events: Mapping[int, int]) -> list[Verdict]:
    """Of the members of one signal, in the order of the plan: of each what its own detector says, then what others do.

    `events`: how many a member's verdict was made of, by column.
    """
    found = []
    for place, n in events.items():
        column = plan.columns[place]
        if plan.families[column.family].enabled:
            found.append(_member_verdict(plan, judged, segment, place, n))
        if column.family == plan.tested:
            found += _test_verdicts(plan, judged, segment, column, n)
    return found


def worst(verdicts: Sequence[Verdict]) -> outbound.Level:
    """The level of a reading."""
    return max((verdict.level for verdict in verdicts), key=_LEVEL_ORDER.index, default="not_ready")


def _member_verdict(plan: Plan, judged: Judged | None, segment: int, place: int, n: int) -> Verdict:
    column = plan.columns[place]
    detector = DETECTORS[column.family]
    if judged is None:
        return _not_ready(column.measure, detector, n)
    statistic = significant(float(judged.statistic[segment, place]))
    return Verdict(
        column.measure,
        detector,
        LEVELS[int(judged.level[segment, place])],
        statistic,
        significant(float(judged.threshold[segment, place])),
        statistic,
        n,
        REASONS[int(judged.reason[segment, place])],
    )


def _test_verdicts(plan: Plan, judged: Judged | None, segment: int, column: Column, n: int) -> list[Verdict]:
    """What detectors without an e-value say of a signal."""
    if judged is None:
        return [_not_ready(measure, detector, n) for detector, own in plan.tests.items() for measure in own]
    own = len(plan.families[plan.tested].columns)
    row, step = segment * own + column.place, len(plan.segments) * own
    return [
        _test_verdict(measure, asked.detector, asked.verdicts, place * step + row, n)
        for asked in judged.asked
        for place, measure in enumerate(asked.measures)
    ]


def _not_ready(measure: str, detector: str, n: int) -> Verdict:
    return Verdict(measure, detector, "not_ready", None, None, None, n, REASONS[Reason.REFERENCE_CHANGED])


def _test_verdict(measure: str, detector: str, verdicts: Verdicts, row: int, n: int) -> Verdict:
    return Verdict(
        measure,
        detector,
        LEVELS[int(verdicts.level[row])],
        significant(float(verdicts.statistic[row])),
        significant(float(verdicts.threshold[row])),
        None,
        n,
        REASONS[int(verdicts.reason[row])],
    )
