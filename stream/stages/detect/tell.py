"""What one closed window is told as: a reading per signal, alerts by the life cycle, notices of outliers."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.alerts import evidence, lifecycle, policy
from stream.detectors import Floats, Ints, Level, Reason, Verdicts, effects, locate
from stream.profiles import coarse, describe, reference, trail
from stream.profiles.reference import Tables
from stream.profiles.summaries import Dense
from stream.signals import outliers
from stream.stages.detect import watch as watching
from stream.stages.detect.plan import KINDS, ORDERED, Group, Plan
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import Episode, Version, Watch
from stream.stages.detect.watch import Judged
from stream.wire import outbound
from stream.wire.codec import rfc3339
from stream.wire.internal import OutlyingRow, SignalReference, Span
from stream.wire.outbound import Description, Reading, SignalEntry, Verdict, significant
from stream.wire.record import Outgoing

LEVELS: Final[Mapping[int, outbound.Level]] = {
    Level.NOT_READY: "not_ready",
    Level.OK: "ok",
    Level.WARNING: "warning",
    Level.DRIFT: "drift",
}
REASONS: Final[Mapping[int, outbound.Reason | None]] = {
    Reason.NONE: None,
    Reason.NO_REFERENCE: "no_reference",
    Reason.LEARNING: "learning",
    Reason.REFERENCE_CHANGED: "reference_changed",
    Reason.REFERENCE_SMALL: "reference_small",
    Reason.WARMING_UP: "warming_up",
    Reason.EMPTY: "empty",
    Reason.MUTED: "muted",
}
QUANTILES: Final = (0.05, 0.5, 0.95)
_RAW_DIGITS: Final = 9
"""Digits of a value in the signal's own unit."""


class Shown(Struct, frozen=True, eq=False):
    """What readings and alerts show of all signals of a window."""

    counts: tuple[Ints, Ints]
    """Coarse counts [G, N, B] of the ordered and the unordered family."""
    effects: tuple[effects.Effects, effects.Effects]
    """[G * N] each."""
    hits: Ints
    """[G, S, 3] missing, invalid, unseen."""
    numbers: Floats
    """[G, numeric signals, 5] mean, deviation, three quantiles; NaN without events."""


class Closed(Struct, frozen=True, eq=False):
    """A closed window of one model version, by what it was judged, and what it shows. Made by `closed`."""

    model_id: str
    model_version: str
    plan: Plan
    start_ms: int
    profile: Dense
    judged: Judged | None
    """None where a window mixes references."""
    shown: Shown

    @property
    def settings(self) -> Settings:
        """Those of its plan."""
        return self.plan.settings

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.settings.windows.size

    @property
    def tables(self) -> Tables:
        """Of the reference."""
        return self.plan.tables


def closed(name: tuple[str, str], plan: Plan, start_ms: int, profile: Dense, judged: Judged | None) -> Closed:
    """A window ready to be told: what all readings and alerts of it share is computed once."""
    tables = plan.tables
    coarse_counts = reference.coarse(tables, profile.counts)
    sizes = [
        _effects(
            counts.reshape(-1, counts.shape[2]),
            family.p.reshape(-1, counts.shape[2]),
            np.tile(family.bins, len(counts)),
            ordered=family is tables.ordered,
        )
        for family, counts in zip((tables.ordered, tables.unordered), coarse_counts, strict=True)
    ]
    mean, std = describe.mean_and_std(tables.scale, profile.counts, profile.moments)
    quantiles = describe.quantiles(tables.scale, profile.counts, QUANTILES)
    shown = Shown(
        counts=coarse_counts,
        effects=(sizes[0], sizes[1]),
        hits=reference.hits(tables.layout, profile.counts),
        numbers=np.concatenate([mean[:, :, None], std[:, :, None], quantiles], axis=2),
    )
    return Closed(*name, plan, start_ms, profile, judged, shown)


def readings(window: Closed, alert_ids: Mapping[Group, str]) -> list[Outgoing]:
    """One reading per segment and signal, in their order."""
    times = (rfc3339(window.start_ms), rfc3339(window.end_ms))
    return [
        outbound.reading_record(_reading(window, segment, signal, times, alert_ids))
        for segment in range(len(window.tables.segments))
        for signal in range(len(window.tables.layout.names))
    ]


def alerts(
    window: Closed, version: Version, watch: Watch, *, new_reference: bool = False
) -> tuple[dict[tuple[str, str], lifecycle.Row], list[Outgoing]]:
    """The rows of all groups after this window, and the alert records it publishes."""
    rows, records = dict(version.alerts), []
    detections = _detections(window)
    for segment, name in enumerate(window.tables.segments):
        for kind in KINDS:
            own = detections.get((segment, kind), ())
            row = rows.get((name, kind), lifecycle.Row())
            condition = _condition(window, version, watch, (segment, kind), row, own, new_reference=new_reference)
            if _nothing(row, condition):
                continue
            row, emissions = lifecycle.advance(row, condition, window.end_ms, window.settings.alerts)
            rows[name, kind] = row
            records += [_record(window, version, watch, (segment, kind), emission) for emission in emissions]
    return rows, records


def alert_ids(window: Closed, rows: Mapping[tuple[str, str], lifecycle.Row]) -> dict[Group, str]:
    """The alert of each group that is firing."""
    found: dict[Group, str] = {}
    for segment, name in enumerate(window.tables.segments):
        for kind in KINDS:
            row = rows.get((name, kind))
            if row and row.state is lifecycle.State.FIRING and row.starts_at_ms is not None:
                subject = evidence.Subject(window.model_id, window.model_version, name, kind)
                found[segment, kind] = outbound.alert_id(subject.fingerprint, row.starts_at_ms)
    return found


def settled(window: Closed, version: Version, watch: Watch, rows: Mapping[tuple[str, str], lifecycle.Row]) -> Watch:
    """The detectors' state after the telling: ended episodes are kept while their alert fires, evidence began anew."""
    if window.judged is None:
        return watch
    firing = alert_ids(window, rows)
    ended = {group: one for group, one in watch.ended.items() if group in firing}
    changed = sorted(window.judged.alarms | window.judged.returns)
    calibrated = watch.serving is not None and not window.plan.serving_known
    if not (changed or calibrated):
        return replace(watch, ended=ended)
    here = next_offsets(span for entry in version.trail.entries for span in entry.spans)
    return replace(
        watch,
        ended=ended,
        began=here if calibrated else watch.began,
        resets={**watch.resets, **dict.fromkeys(changed, here)},
    )


def outlier_notices(window: Closed, worst: Iterable[OutlyingRow]) -> list[Outgoing]:
    """A notice for each of the worst rows of a window; none before the reference is complete."""
    found = window.tables.reference
    if not found.complete:
        return []
    settings = window.settings
    notices = evidence.outlier_notices(
        settings.sender,
        settings.alerts,
        worst,
        model_id=window.model_id,
        model_version=window.model_version,
        severity=_severity(window, "outlier"),
        threshold=outliers.threshold(found, settings.outliers, settings.budget.period),
        reference_id=found.reference_id,
        reference_origin=found.origin,
    )
    return [outbound.alert_record(notice) for notice in notices]


def _nothing(row: lifecycle.Row, condition: lifecycle.Condition) -> bool:
    """Whether the life cycle has nothing to look at: most groups in most windows."""
    quiet = row.state in (lifecycle.State.INACTIVE, lifecycle.State.RESOLVED)
    return quiet and not (condition.alarm or condition.detections or row.detections)


def _condition(  # noqa: PLR0913 - private, all an alert is made of
    window: Closed,
    version: Version,
    watch: Watch,
    group: Group,
    row: lifecycle.Row,
    detections: tuple[SignalEntry, ...],
    *,
    new_reference: bool,
) -> lifecycle.Condition:
    one = watch.episodes.get(group)
    judged = window.judged
    names = [] if one is None else [window.tables.layout.names[signal] for signal in one.moved]
    content = row.content
    if one is not None:
        content = lifecycle.content_of(_severity(window, group[1]), one.shape, names, one.shifts)
    return lifecycle.Condition(
        alarm=judged is not None and group in judged.alarms,
        returned=judged is not None and group in judged.returns,
        new_reference=new_reference,
        silent_ms=window.end_ms - version.seen_ms,
        content=content,
        since_ms=one.points[one.moved[0]].earliest_ms if one is not None and one.moved else None,
        detections=detections,
    )


def _record(window: Closed, version: Version, watch: Watch, group: Group, emission: lifecycle.Emission) -> Outgoing:
    subject = evidence.Subject(window.model_id, window.model_version, window.tables.segments[group[0]], group[1])
    situation = _situation(window, version, watch, group)
    return outbound.alert_record(
        evidence.build(window.settings.sender, window.settings.alerts, subject, emission, situation)
    )


def _situation(window: Closed, version: Version, watch: Watch, group: Group) -> evidence.Situation:
    segment, kind = group
    tables, settings = window.tables, window.settings
    one = watch.episodes.get(group) or watch.ended.get(group)
    point = one.points[one.moved[0]] if one is not None and one.moved else None
    since_ms = window.start_ms if point is None else point.at_ms
    return evidence.Situation(
        severity=_severity(window, kind),
        details=evidence.drift_details(
            watched=len(window.plan.members[kind]),
            moved=len(one.moved) if one is not None and one.proven else 0,
            origin=tables.reference.origin,
            first_window_ms=watch.first_ms,
            since=None if point is None else (point.earliest_ms, point.latest_ms),
        ),
        window=evidence.judged_window(
            window.start_ms,
            window.end_ms,
            n=int(window.profile.rows[segment]),
            n_reference=int(tables.rows[segment]),
            late=int(window.profile.late[segment]),
        ),
        reference_id=tables.reference.reference_id,
        reference_origin=tables.reference.origin,
        signals=[] if one is None else [_moved(window, watch, group, one, signal) for signal in one.moved],
        change_type=None if one is None else one.shape,
        change_point=None if point is None else evidence.change_point(*_times(point)),
        offsets=evidence.offsets(trail.since(version.trail, since_ms), watch.resets.get(group, watch.began)),
        budget=evidence.budget(
            settings.budget.false_alarms, settings.budget.period, float(window.plan.shares[kind][segment])
        ),
    )


def _moved(window: Closed, watch: Watch, group: Group, one: Episode, signal: int) -> SignalEntry:
    """A signal of an episode: what it was, and what it is since its change point."""
    segment, tables, judged = group[0], window.tables, window.judged
    point = one.points[signal]
    counts = watching.since(window.plan, watch, segment, signal, point.at_ms)
    where = window.plan.where[signal]
    family, place = (tables.ordered, tables.unordered)[where.family], where.place
    bins = int(family.bins[place])
    p = family.p[segment, place]
    sizes = _effects(counts[None], p[None], family.bins[place : place + 1], ordered=where.family == ORDERED)
    known = judged is not None and judged.reason[segment, signal] == Reason.NONE
    statistic = float(judged.statistic[segment, signal]) if judged is not None and known else None
    threshold = float(judged.threshold[segment, signal]) if judged is not None and known else None
    return evidence.entry(
        tables.layout.names[signal],
        "distribution",
        "histogram",
        "drift" if one.proven else LEVELS[int(judged.level[segment, signal])] if judged is not None else "warning",
        statistic=statistic,
        threshold=threshold,
        evidence=statistic,
        n=int(counts.sum()),
        before=_before(tables, segment, signal),
        after=_after(window, watch, segment, signal, counts[:bins], point.at_ms),
        effect=evidence.effect(*(float(size[0]) for size in (sizes.psi, sizes.jensen_shannon, sizes.wasserstein))),
        bins=evidence.moved_bins(
            _bin_names(tables, signal), p[:bins].tolist(), (counts[:bins] / max(int(counts.sum()), 1)).tolist()
        ),
        change_point=evidence.change_point(*_times(point)),
    )


def _detections(window: Closed) -> dict[Group, tuple[SignalEntry, ...]]:
    """What ADWIN and Page-Hinkley found in this window, by group."""
    if window.judged is None:
        return {}
    judged, tables = window.judged, window.tables
    signals = len(tables.ordered.signals)
    found: dict[Group, list[SignalEntry]] = {}
    for detector, verdicts, measures in (
        ("adwin", judged.adwin, ("mean", "spread")),
        ("page_hinkley", judged.page_hinkley, ("mean",)),
    ):
        for row in np.flatnonzero(verdicts.level == Level.DRIFT).tolist():
            measure, series = divmod(row, len(tables.segments) * signals)
            segment, place = divmod(series, signals)
            signal = int(tables.ordered.signals[place])
            entry = _detection(window, segment, signal, detector, measures[measure], verdicts, row)
            found.setdefault((segment, window.plan.where[signal].kind), []).append(entry)
    return {group: tuple(entries) for group, entries in found.items()}


def _detection(  # noqa: PLR0913 - private, all an alert is made of
    window: Closed, segment: int, signal: int, detector: str, measure: str, verdicts: Verdicts, row: int
) -> SignalEntry:
    changes, where = verdicts.changes, window.plan.where[signal]
    rise = 0.0 if changes is None else float(changes.after[row] - changes.before[row])
    return evidence.entry(
        window.tables.layout.names[signal],
        measure,
        detector,
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
    numeric = window.plan.where[signal].numeric
    if numeric is None:
        return _shares(found, counts, coarse.names(found))
    n, moments = watching.moments_since(window.plan, watch, segment, signal, from_ms)
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
    numeric = window.plan.where[signal].numeric
    if numeric is None:
        return Description()
    mean, std, p05, p50, p95 = window.shown.numbers[segment, numeric].tolist()
    return evidence.describe(mean=mean, std=std, p05=p05, p50=p50, p95=p95)


def _reading(
    window: Closed, segment: int, signal: int, times: tuple[str, str], alert_ids: Mapping[Group, str]
) -> Reading:
    tables, where, shown = window.tables, window.plan.where[signal], window.shown
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
    verdicts = _verdicts(window, segment, signal, n)
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
        reference_slot="all",
        reference_mean=significant(found.mean, _RAW_DIGITS) if segment == 0 else None,
        psi=significant(float(sizes.psi[at])) if n else None,
        jensen_shannon=significant(float(sizes.jensen_shannon[at])) if n else None,
        wasserstein=significant(float(sizes.wasserstein[at])) if n else None,
        counts=[*counts.tolist(), *special.tolist()],
        metrics=None,
        level=max((verdict.level for verdict in verdicts), key=_LEVEL_ORDER.index),
        alert_id=alert_ids.get((segment, where.kind)),
        verdicts=verdicts,
    )


_LEVEL_ORDER: Final = tuple(LEVELS[level] for level in sorted(LEVELS))


_TESTS: Final = (("mean", "adwin"), ("spread", "adwin"), ("mean", "page_hinkley"))
"""Measures and detectors of ordered signals beside their distribution."""


def _verdicts(window: Closed, segment: int, signal: int, n: int) -> list[Verdict]:
    tables, judged, where = window.tables, window.judged, window.plan.where[signal]
    ordered = where.family == ORDERED
    if judged is None:
        tests, why = [("distribution", "histogram"), *(_TESTS if ordered else ())], REASONS[Reason.REFERENCE_CHANGED]
        return [Verdict(measure, detector, "not_ready", None, None, None, n, why) for measure, detector in tests]
    statistic = significant(float(judged.statistic[segment, signal]))
    level, why = LEVELS[int(judged.level[segment, signal])], REASONS[int(judged.reason[segment, signal])]
    threshold = significant(float(judged.threshold[segment, signal]))
    found = [Verdict("distribution", "histogram", level, statistic, threshold, statistic, n, why)]
    if not ordered:
        return found
    series = len(tables.segments) * len(tables.ordered.signals)
    row = segment * len(tables.ordered.signals) + where.place
    columns = ((judged.adwin, row), (judged.adwin, series + row), (judged.page_hinkley, row))
    return found + [_test_verdict(*test, *column, n) for test, column in zip(_TESTS, columns, strict=True)]


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


def _effects(counts: Ints, p: Floats, bins: Ints, *, ordered: bool) -> effects.Effects:
    """Effect sizes of R series: counts and reference laws [R, B], bins in use [R]."""
    return effects.effects(effects.smoothed(counts, bins), p, np.full(len(p), ordered))


def _bin_names(tables: Tables, signal: int) -> list[str]:
    """Names of the coarse bins of a signal."""
    found = tables.reference.signals[tables.layout.names[signal]]
    if found.type == "numeric":
        return evidence.interval_names(coarse.edges(tables, signal).tolist())
    return coarse.names(found)


def _severity(window: Closed, kind: outbound.Kind) -> outbound.Severity:
    return policy.severity(kind, window.settings.alerts, window.settings.models.get(window.model_id))


def _times(point: locate.ChangePoint) -> tuple[int, int, int]:
    return point.at_ms, point.earliest_ms, point.latest_ms


def next_offsets(spans: Iterable[Span]) -> dict[tuple[str, int], int]:
    """Where the input stands behind some spans."""
    found: dict[tuple[str, int], int] = {}
    for span in spans:
        where = (span.topic, span.partition)
        found[where] = max(found.get(where, 0), span.last_offset + 1)
    return found
