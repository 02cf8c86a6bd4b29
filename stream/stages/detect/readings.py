"""A reading per signal of a closed window: what it is, and what every detector says of it."""

from collections.abc import Mapping, Sequence
from typing import Final

from stream.detectors import Reason, Verdicts
from stream.profiles.reference import ROW_RATES
from stream.stages.detect.plan import DETECTORS, ORDERED, RATE, Column, Group
from stream.stages.detect.shown import LEVELS, REASONS, Closed
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
    verdicts = _verdicts(window, segment, columns)
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
        level=_worst(verdicts),
        alert_id=_alert_of(window, segment, columns, alert_ids),
        verdicts=verdicts,
    )


def _row_reading(
    window: Closed, segment: int, columns: Sequence[int], times: tuple[str, str], alert_ids: Mapping[Group, str]
) -> Reading:
    """Of a rate of rows: the rate as mean, rows without and with the property as counts."""
    tables, column = window.tables, window.plan.columns[columns[0]]
    n, hits = window.shown.rates[segment, column.place].tolist()
    known = tables.rates.row_mean[0, ROW_RATES.index(column.signal)]
    verdicts = _verdicts(window, segment, columns)
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
        level=_worst(verdicts),
        alert_id=_alert_of(window, segment, columns, alert_ids),
        verdicts=verdicts,
    )


def _alert_of(window: Closed, segment: int, columns: Sequence[int], alert_ids: Mapping[Group, str]) -> str | None:
    """The alert a signal stands in: that of its distribution before that of its rates."""
    groups = [(segment, window.plan.columns[place].kind) for place in columns]
    return next((alert_ids[group] for group in groups if group in alert_ids), None)


def _worst(verdicts: Sequence[Verdict]) -> outbound.Level:
    return max((verdict.level for verdict in verdicts), key=_LEVEL_ORDER.index, default="not_ready")


def _verdicts(window: Closed, segment: int, columns: Sequence[int]) -> list[Verdict]:
    """Of the distribution of a signal first, of its scores, then of its rates."""
    found = []
    for place in columns:
        column = window.plan.columns[place]
        if window.plan.families[column.family].enabled:
            found.append(_member_verdict(window, segment, place, column))
        if column.family == ORDERED:
            found += _test_verdicts(window, segment, column)
    return found


def _member_verdict(window: Closed, segment: int, place: int, column: Column) -> Verdict:
    judged, n, detector = window.judged, _events(window, segment, column), DETECTORS[column.family]
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


def _test_verdicts(window: Closed, segment: int, column: Column) -> list[Verdict]:
    """What detectors without an e-value say of an ordered signal."""
    n, signals = _events(window, segment, column), len(window.plan.ordered.columns)
    if window.judged is None:
        return [_not_ready(measure, detector, n) for detector, own in window.plan.tests.items() for measure in own]
    row, step = segment * signals + column.place, len(window.tables.segments) * signals
    return [
        _test_verdict(measure, asked.detector, asked.verdicts, place * step + row, n)
        for asked in window.judged.asked
        for place, measure in enumerate(asked.measures)
    ]


def _not_ready(measure: str, detector: str, n: int) -> Verdict:
    return Verdict(measure, detector, "not_ready", None, None, None, n, REASONS[Reason.REFERENCE_CHANGED])


def _events(window: Closed, segment: int, column: Column) -> int:
    """What a verdict was made of: valid values, or rows."""
    if column.family == RATE:
        return int(window.shown.rates[segment, column.place, 0])
    return int(window.shown.counts[column.family][segment, column.place].sum())


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
