"""What one closed window is alerted as: alerts by the life cycle, notices of outliers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.alerts import evidence, lifecycle, policy
from stream.detectors import Ints, Level, Reason, locate
from stream.profiles import coarse, describe, trail
from stream.profiles.reference import Tables
from stream.signals import outliers
from stream.stages.detect import impact, inputs
from stream.stages.detect import watch as watching
from stream.stages.detect.decisions import Orders
from stream.stages.detect.detections import Asked
from stream.stages.detect.plan import DETECTORS, KINDS, ORDERED, OUTCOME_KINDS, RATE, Group, GroupKind, Plan
from stream.stages.detect.settings import Settings
from stream.stages.detect.shown import LEVELS, QUANTILES, Closed, effects_of
from stream.stages.detect.state import Episode, Version, Watch
from stream.stages.detect.watch import Judged
from stream.wire import outbound
from stream.wire.internal import OutlyingRow, SignalReference, Span
from stream.wire.outbound import Description, SignalEntry
from stream.wire.record import Outgoing

ALL_KINDS: Final = (*KINDS, *(kind for kind in OUTCOME_KINDS if kind not in KINDS))


class Telling(Protocol):
    """A closed window, as the life cycle of its alerts sees it."""

    @property
    def settings(self) -> Settings:
        """Bound once."""

    @property
    def segments(self) -> Sequence[str]:
        """`all` first."""

    @property
    def judged(self) -> Judged | None:
        """None where nothing was."""

    @property
    def end_ms(self) -> int:
        """When it ended."""

    @property
    def orders(self) -> Orders:
        """What people have decided of it."""

    def subject(self, group: Group) -> evidence.Subject:
        """What an alert of a group is about."""


class Past(Protocol):
    """What is known of a model version from before."""

    @property
    def alerts(self) -> dict[tuple[str, str], lifecycle.Row]:
        """By segment name and kind."""

    @property
    def seen_ms(self) -> int:
        """End of the newest window with events."""

    @property
    def trail(self) -> trail.Trail:
        """Where the recent windows stand in the input."""


class Teller(Struct, frozen=True, eq=False):
    """What the alerts of a window say, by group."""

    plan: Plan
    watch: Watch
    kinds: Sequence[GroupKind]
    detections: Mapping[Group, tuple[SignalEntry, ...]]
    severity: Callable[[Group, policy.Impact | None], outbound.Severity]
    impact: Callable[[Group], policy.Impact | None]
    situation: Callable[[Group], evidence.Situation]
    immature: frozenset[Group] = frozenset()
    """Groups for whose sake the reference may not mature, to be told once."""


def alerts(
    window: Closed,
    version: Version,
    watch: Watch,
    *,
    new_reference: bool = False,
    immature: frozenset[Group] = frozenset(),
) -> tuple[dict[tuple[str, str], lifecycle.Row], list[Outgoing]]:
    """The rows of all groups after this window, and the alert records it publishes.

    `immature`: groups for whose sake the reference may not mature, to be told once.
    """
    importance = window.settings.importance.get(window.model_id, {})
    teller = Teller(
        plan=window.plan,
        watch=watch,
        kinds=KINDS,
        detections=_detections(window),
        severity=lambda group, meant: _severity(window, group[1], meant),
        impact=lambda group: impact.of(window.plan, watch, group, importance),
        situation=lambda group: _situation(window, version, watch, group),
        immature=immature,
    )
    return told(window, version, teller, new_reference=new_reference)


def told(
    window: Telling, past: Past, teller: Teller, *, new_reference: bool = False
) -> tuple[dict[tuple[str, str], lifecycle.Row], list[Outgoing]]:
    """The rows of all groups after a window of inputs or of outcomes, and the alert records it publishes."""
    rows, records = dict(past.alerts), []
    for segment, name in enumerate(window.segments):
        for kind in teller.kinds:
            group = (segment, kind)
            row = rows.get((name, kind), lifecycle.Row())
            meant = teller.impact(group)
            severity = teller.severity(group, meant)
            condition = _condition(window, past, teller, group, row, severity, new_reference=new_reference)
            if _nothing(row, condition):
                continue
            row, emissions = lifecycle.advance(row, condition, window.end_ms, window.settings.alerts)
            rows[name, kind] = row
            records += [_record(window, teller, group, emission, meant) for emission in emissions]
    return rows, records


def alert_ids(window: Telling, rows: Mapping[tuple[str, str], lifecycle.Row]) -> dict[Group, str]:
    """The alert of each group that is firing."""
    found: dict[Group, str] = {}
    for segment, name in enumerate(window.segments):
        for kind in ALL_KINDS:
            row = rows.get((name, kind))
            if row and row.state is lifecycle.State.FIRING and row.starts_at_ms is not None:
                subject = window.subject((segment, kind))
                found[segment, kind] = outbound.alert_id(subject.fingerprint, row.starts_at_ms)
    return found


def settled(
    window: Telling, plan: Plan, past: Past, watch: Watch, rows: Mapping[tuple[str, str], lifecycle.Row]
) -> Watch:
    """The detectors' state after the telling: ended episodes are kept while their alert fires, evidence began anew."""
    if window.judged is None:
        return watch
    firing = alert_ids(window, rows)
    ended = {group: one for group, one in watch.ended.items() if group in firing}
    changed = sorted(window.judged.alarms | window.judged.returns)
    calibrated = watch.serving is not None and not plan.serving_known
    if not (changed or calibrated):
        return replace(watch, ended=ended)
    here = next_offsets(span for entry in past.trail.entries for span in entry.spans)
    return replace(
        watch,
        ended=ended,
        began=here if calibrated else watch.began,
        resets={**watch.resets, **dict.fromkeys(changed, here)},
    )


def outlier_notices(window: Closed, worst: Iterable[OutlyingRow]) -> list[Outgoing]:
    """A notice for each of the worst rows of a window; none before the reference is complete, none of a muted one."""
    found = window.tables.reference
    if not found.complete or "outlier" in window.orders.muted:
        return []
    settings = window.settings
    notices = evidence.outlier_notices(
        settings.sender,
        settings.alerts,
        worst,
        model_id=window.model_id,
        model_version=window.model_version,
        severity=_severity(window, "outlier", None),
        threshold=outliers.threshold(found, settings.outliers, settings.budget.period),
        reference_id=found.reference_id,
        reference_origin=found.origin,
    )
    return [outbound.alert_record(notice) for notice in notices]


def suppressed(window: Closed, version: Version, worst: Sequence[OutlyingRow]) -> int:
    """How many alerts and notices of a window a mute has kept back."""
    muted = "outlier" in window.orders.muted and window.tables.reference.complete
    return held_back(window, version) + (len(worst) if muted else 0)


def held_back(window: Telling, past: Past) -> int:
    """How many alerts would have begun in a window but for a mute; `past` as of before it."""
    size_ms, pending_ms = window.settings.windows.size, window.settings.alerts.pending_for
    due = [
        row.pending_since_ms is not None and 0 <= window.end_ms - row.pending_since_ms - pending_ms < size_ms
        for (_, kind), row in past.alerts.items()
        if kind in window.orders.muted
    ]
    return sum(due)


def _nothing(row: lifecycle.Row, condition: lifecycle.Condition) -> bool:
    """Whether the life cycle has nothing to look at: most groups in most windows."""
    quiet = row.state in (lifecycle.State.INACTIVE, lifecycle.State.RESOLVED)
    return quiet and not (condition.alarm or condition.detections or condition.may_not_mature or row.detections)


def _condition(  # noqa: PLR0913 - private, all an alert is made of
    window: Telling,
    past: Past,
    teller: Teller,
    group: Group,
    row: lifecycle.Row,
    severity: outbound.Severity,
    *,
    new_reference: bool,
) -> lifecycle.Condition:
    one = teller.watch.episodes.get(group)
    judged = window.judged
    decided = window.orders.resolved
    columns = [] if one is None else [teller.plan.columns[place] for place in one.moved]
    names = [f"{column.signal} {column.measure}" for column in columns]
    content = row.content
    if one is not None:
        content = lifecycle.content_of(row.lifted(severity), one.shape, names, one.shifts)
    return lifecycle.Condition(
        severity=severity,
        alarm=judged is not None and group in judged.alarms,
        returned=judged is not None and group in judged.returns,
        new_reference=new_reference,
        operator=bool(decided) and window.subject(group).fingerprint in decided,
        muted=group[1] in window.orders.muted,
        silent_ms=window.end_ms - past.seen_ms,
        content=content,
        since_ms=one.points[one.moved[0]].earliest_ms if one is not None and one.moved else None,
        detections=teller.detections.get(group, ()),
        may_not_mature=group in teller.immature,
    )


def _record(
    window: Telling, teller: Teller, group: Group, emission: lifecycle.Emission, meant: policy.Impact | None
) -> Outgoing:
    situation = replace(teller.situation(group), severity=emission.severity, impact=meant)
    return outbound.alert_record(
        evidence.build(window.settings.sender, window.settings.alerts, window.subject(group), emission, situation)
    )


def _situation(window: Closed, version: Version, watch: Watch, group: Group) -> evidence.Situation:
    segment, kind = group
    tables, settings = window.tables, window.settings
    one = watch.episodes.get(group) or watch.ended.get(group)
    point = one.points[one.moved[0]] if one is not None and one.moved else None
    since_ms = window.start_ms if point is None else point.at_ms
    entries = [] if one is None else [_moved(window, watch, group, one, column) for column in one.moved]
    return evidence.Situation(
        details=_details(window, watch, group, one, entries),
        window=evidence.judged_window(
            window.start_ms,
            window.end_ms,
            n=int(window.profile.rows[segment]),
            n_reference=int(tables.rows[segment]),
            late=int(window.profile.late[segment]),
        ),
        reference_id=tables.reference.reference_id,
        reference_origin=tables.reference.origin,
        signals=entries,
        change_type=None if one is None else one.shape,
        change_point=None if point is None else evidence.change_point(*times(point)),
        offsets=evidence.offsets(trail.since(version.trail, since_ms), watch.resets.get(group, watch.began)),
        budget=evidence.budget(
            settings.budget.false_alarms, settings.budget.period, float(window.plan.shares[kind][segment])
        ),
    )


def _details(
    window: Closed, watch: Watch, group: Group, one: Episode | None, entries: Sequence[SignalEntry]
) -> outbound.Details:
    segment, kind = group
    if kind == "data_quality":
        return evidence.quality_details(entries, window.settings.alerts.max_signals)
    if kind == "outlier":
        (place,) = window.plan.by_signal["row:outlier"]
        return evidence.burst_details(entries[0] if entries else _moved_rate(window, watch, segment, place, None))
    point = one.points[one.moved[0]] if one is not None and one.moved else None
    return evidence.drift_details(
        watched=len(window.plan.members[kind]),
        moved=len(one.moved) if one is not None and one.proven else 0,
        origin=window.tables.reference.origin,
        first_window_ms=watch.first_ms,
        since=None if point is None else (point.earliest_ms, point.latest_ms),
    )


def _moved(window: Closed, watch: Watch, group: Group, one: Episode, column: int) -> SignalEntry:
    """A member of an episode: what it was, and what it is since its change point."""
    if window.plan.columns[column].family == RATE:
        return _moved_rate(window, watch, group[0], column, one)
    return _moved_distribution(window, watch, group[0], column, one)


def judgement(judged: Judged | None, segment: int, column: int, one: Episode | None) -> dict[str, Any]:
    """Level and evidence of a member in an entry."""
    known = judged is not None and judged.reason[segment, column] == Reason.NONE
    level = LEVELS[int(judged.level[segment, column])] if judged is not None else "warning"
    statistic = float(judged.statistic[segment, column]) if judged is not None and known else None
    return {
        "level": "drift" if one is not None and one.proven else level,
        "statistic": statistic,
        "threshold": float(judged.threshold[segment, column]) if judged is not None and known else None,
        "evidence": statistic,
    }


def _moved_rate(window: Closed, watch: Watch, segment: int, column: int, one: Episode | None) -> SignalEntry:
    """A rate since its change point; without an episode in this window alone."""
    own, rates = window.plan.columns[column], window.plan.rates
    point = None if one is None else one.points[column]
    counts = window.shown.rates[segment, own.place]
    if point is not None:
        counts = watching.since(window.plan, watch, segment, column, point.at_ms)
    n, hits = counts.tolist()
    return evidence.entry(
        own.signal,
        own.measure,
        DETECTORS[RATE],
        **judgement(window.judged, segment, column, one),
        n=n,
        before=evidence.describe(rate=float(rates.law.mean[segment * len(rates.columns) + own.place])),
        after=evidence.describe(rate=hits / max(n, 1)),
        change_point=None if point is None else evidence.change_point(*times(point)),
    )


def _moved_distribution(window: Closed, watch: Watch, segment: int, signal: int, one: Episode) -> SignalEntry:
    tables, where, point = window.tables, window.plan.columns[signal], one.points[signal]
    counts = watching.since(window.plan, watch, segment, signal, point.at_ms)
    family, place = (tables.ordered, tables.unordered)[where.family], where.place
    bins = int(family.bins[place])
    p = watching.law_since(window.plan, watch, segment, signal, point.at_ms)
    sizes = effects_of(counts[None], p[None], family.bins[place : place + 1], ordered=where.family == ORDERED)
    return evidence.entry(
        where.signal,
        where.measure,
        DETECTORS[where.family],
        **judgement(window.judged, segment, signal, one),
        n=int(counts.sum()),
        before=_before(tables, segment, signal),
        after=_after(window, watch, segment, signal, counts[:bins], point.at_ms),
        effect=evidence.effect(*(float(size[0]) for size in (sizes.psi, sizes.jensen_shannon, sizes.wasserstein))),
        bins=evidence.moved_bins(
            _bin_names(tables, signal), p[:bins].tolist(), (counts[:bins] / max(int(counts.sum()), 1)).tolist()
        ),
        change_point=evidence.change_point(*times(point)),
    )


def _detections(window: Closed) -> dict[Group, tuple[SignalEntry, ...]]:
    """What detectors without an e-value found in this window, by group."""
    if window.judged is None:
        return {}
    signals = window.plan.ordered.columns
    found: dict[Group, list[SignalEntry]] = {}
    for asked in window.judged.asked:
        for row in np.flatnonzero(asked.verdicts.level == Level.DRIFT).tolist():
            measure, series = divmod(row, len(window.tables.segments) * len(signals))
            segment, place = divmod(series, len(signals))
            signal = int(signals[place])
            entry = _detection(window, segment, signal, asked, asked.measures[measure], row)
            found.setdefault((segment, window.plan.columns[signal].kind), []).append(entry)
    return {group: tuple(entries) for group, entries in found.items()}


def _detection(  # noqa: PLR0913 - private, all an alert is made of
    window: Closed, segment: int, signal: int, asked: Asked, measure: str, row: int
) -> SignalEntry:
    verdicts, where = asked.verdicts, window.plan.columns[signal]
    changes = verdicts.changes
    rise = 0.0 if changes is None else float(changes.after[row] - changes.before[row])
    return evidence.entry(
        window.tables.layout.names[signal],
        measure,
        asked.detector,
        "drift",
        statistic=float(verdicts.statistic[row]),
        threshold=float(verdicts.threshold[row]),
        evidence=None,
        n=int(window.shown.counts[where.family][segment, where.place].sum()),
        before=_before(window.tables, segment, signal),
        after=_now(window, segment, signal),
        change_point=None
        if changes is None
        else evidence.change_point(int(changes.at_ms[row]), int(changes.at_ms[row]), window.end_ms),
        direction="up" if rise > 0 else "down" if rise < 0 else None,
    )


def _before(tables: Tables, segment: int, signal: int) -> Description:
    """What the reference says; a segment has counts of its own, and no moments."""
    found = tables.reference.signals[tables.layout.names[signal]]
    own = found.counts if segment == 0 else found.segments.get(tables.segments[segment], found.counts)
    counts = np.array(own, dtype=np.int64)
    if found.type == "numeric":
        edges = np.array(found.edges or (), dtype=np.float64)
        p05, p50, p95 = coarse.quantiles(edges, counts, QUANTILES)
        mean, std = (found.mean, found.std) if segment == 0 else (None, None)
        return evidence.describe(mean=mean, std=std, p05=p05, p50=p50, p95=p95)
    return _shares(found, counts, coarse.category_names(found))


def _after(  # noqa: PLR0913 - private, all an alert is made of
    window: Closed, watch: Watch, segment: int, signal: int, counts: Ints, from_ms: int
) -> Description:
    """What a signal is since a change point: exact moments, quantiles of the coarse bins."""
    tables = window.tables
    found = tables.reference.signals[tables.layout.names[signal]]
    numeric = window.plan.columns[signal].numeric
    if numeric is None:
        return _shares(found, counts, coarse.names(found))
    n, moments = inputs.moments_since(window.plan, watch.moments, segment, signal, from_ms)
    mean, std = describe.of_events(tables.scale, n, moments)
    p05, p50, p95 = coarse.quantiles(coarse.edges(tables, signal), counts, QUANTILES)
    return evidence.describe(mean=float(mean[0, numeric]), std=float(std[0, numeric]), p05=p05, p50=p50, p95=p95)


def _shares(found: SignalReference, counts: Ints, names: list[str]) -> Description:
    """Of a boolean the rate of true, of categories the largest."""
    if found.type == "boolean":
        return evidence.describe(rate=float(counts[1] / max(int(counts.sum()), 1)))
    return evidence.describe(top=coarse.top(names, counts))


def _now(window: Closed, segment: int, signal: int) -> Description:
    """What a numeric signal is in this window alone."""
    numeric = window.plan.columns[signal].numeric
    if numeric is None:
        return Description()
    mean, std, p05, p50, p95 = window.shown.numbers[segment, numeric].tolist()
    return evidence.describe(mean=mean, std=std, p05=p05, p50=p50, p95=p95)


def _bin_names(tables: Tables, signal: int) -> list[str]:
    """Names of the coarse bins of a signal."""
    found = tables.reference.signals[tables.layout.names[signal]]
    if found.type == "numeric":
        return evidence.interval_names(coarse.edges(tables, signal).tolist())
    return coarse.names(found)


def _severity(window: Closed, kind: outbound.Kind, meant: policy.Impact | None) -> outbound.Severity:
    return policy.severity(kind, window.settings.alerts, window.settings.models.get(window.model_id), meant)


def times(point: locate.ChangePoint) -> tuple[int, int, int]:
    """As evidence takes them."""
    return point.at_ms, point.earliest_ms, point.latest_ms


def first_offsets(spans: Iterable[Span]) -> dict[tuple[str, int], int]:
    """Where the input stands at the beginning of some spans."""
    found: dict[tuple[str, int], int] = {}
    for span in spans:
        where = (span.topic, span.partition)
        found[where] = min(found.get(where, span.first_offset), span.first_offset)
    return found


def next_offsets(spans: Iterable[Span]) -> dict[tuple[str, int], int]:
    """Where the input stands behind some spans."""
    found: dict[tuple[str, int], int] = {}
    for span in spans:
        where = (span.topic, span.partition)
        found[where] = max(found.get(where, 0), span.last_offset + 1)
    return found
