"""What alerts on outcomes say: how much was lost, since when, where, and what else has moved."""

from collections.abc import Sequence
from math import sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from stream.alerts import evidence, policy
from stream.detectors import Ints, Level, interval, locate
from stream.profiles import coarse, trail
from stream.profiles.outcome_tables import COVERAGE, DELAY, ERROR, RESIDUAL
from stream.profiles.reference import epsilon_ref
from stream.profiles.trail import Trail
from stream.signals.outcomes import DELAY_EDGES_MS
from stream.stages.detect import watch as watching
from stream.stages.detect.detections import Asked
from stream.stages.detect.labels import damage
from stream.stages.detect.labels.plan import ENDED, ERROR_SQUARES, ERROR_SUM, FIRST_RANGE, LABELLED, OutcomesPlan
from stream.stages.detect.labels.shown import Closed
from stream.stages.detect.plan import DETECTORS, ORDERED, Group
from stream.stages.detect.series import Means
from stream.stages.detect.shown import QUANTILES, effects_of
from stream.stages.detect.state import Episode, Watch
from stream.stages.detect.tell import judgement, times
from stream.wire import outbound
from stream.wire.outbound import ConceptDetails, Description, PerformanceDetails, QualityCheck, SignalEntry, significant

CONFIDENCE: Final = 0.95
_SIGMAS: Final = 1.96
LATE: Final = "late"
"""The check of label delays: how many are later than the median of the reference."""
_MEDIAN: Final = (0.5,)
_NOTHING: Final = (np.zeros(1), np.zeros(1), np.zeros(1))


class Beside(Struct, frozen=True, eq=False):
    """What is known of the same model version from its inputs, as of the same window end."""

    inputs_moved: frozenset[str] = frozenset()
    """Segments whose inputs had an open alert of `data_drift`."""


class Scene(Struct, frozen=True, eq=False):
    """A judged window of outcomes with all that its alerts tell."""

    window: Closed
    plan: OutcomesPlan
    watch: Watch
    past: Trail
    beside: Beside


def severity(scene: Scene, group: Group, meant: policy.Impact | None) -> outbound.Severity:
    """By policy; where errors became fewer it is information."""
    settings, better = scene.window.settings, improved(scene.plan, scene.watch, group)
    return policy.severity(
        group[1], settings.alerts, settings.models.get(scene.window.model_id), meant, improved=better
    )


def improved(plan: OutcomesPlan, watch: Watch, group: Group) -> bool:
    """Whether the open alert of a group says that errors became fewer."""
    one = watch.episodes.get(group) or watch.ended.get(group)
    if group[1] != "performance" or one is None or not one.moved:
        return False
    column = one.moved[0]
    series = plan.families[plan.columns[column].family]
    counts = watching.since(plan, watch, group[0], column, one.begun[column])
    if not isinstance(series, Means):
        return False
    n, s, _ = (float(value) for value in series.sums(counts))
    return s < n * float(series.law.mean[group[0] * len(series.columns) + plan.columns[column].place])


def situation(scene: Scene, group: Group) -> evidence.Situation:
    """What the window shows of one group."""
    window, plan, watch, (segment, kind) = scene.window, scene.plan, scene.watch, group
    settings, reference = window.settings, plan.known.reference
    one = watch.episodes.get(group) or watch.ended.get(group)
    point = one.points[one.moved[0]] if one is not None and one.moved else None
    since_ms = window.start_ms if point is None else point.at_ms
    return evidence.Situation(
        details=_details(scene, group, one, since_ms),
        window=evidence.judged_window(
            window.start_ms,
            window.end_ms,
            n=int(window.outcomes.pairs[segment]),
            n_reference=int(plan.tables.rows[segment].max(initial=0)),
            late=0,
        ),
        reference_id=reference.reference_id,
        reference_origin=reference.origin,
        signals=[] if one is None else [_moved(scene, segment, one, column) for column in one.moved],
        change_type=None if one is None else one.shape,
        change_point=None if point is None else evidence.change_point(*times(point)),
        offsets=evidence.offsets(trail.since(scene.past, since_ms), watch.resets.get(group, watch.began)),
        budget=evidence.budget(settings.budget.false_alarms, settings.budget.period, float(plan.shares[kind][segment])),
    )


def detections(window: Closed) -> dict[Group, tuple[SignalEntry, ...]]:
    """What detectors without an e-value found in this window, by group."""
    plan, judged = window.plan, window.judged
    if plan is None or judged is None:
        return {}
    columns = plan.families[plan.tested].columns
    found: dict[Group, list[SignalEntry]] = {}
    for asked in judged.asked:
        for row in np.flatnonzero(asked.verdicts.level == Level.DRIFT).tolist():
            segment, place = divmod(row, len(columns))
            column = int(columns[place])
            entry = _detection(window, plan, segment, column, asked, row)
            found.setdefault((segment, plan.columns[column].kind), []).append(entry)
    return {group: tuple(entries) for group, entries in found.items()}


def _details(scene: Scene, group: Group, one: Episode | None, since_ms: int) -> outbound.Details:
    window, plan, (segment, kind) = scene.window, scene.plan, group
    if kind == "data_quality":
        listed = [] if one is None else one.moved[: window.settings.alerts.max_signals]
        return outbound.QualityDetails([_check(scene, segment, column, since_ms) for column in listed])
    moved = bool(scene.beside.inputs_moved & {window.segments[segment], window.segments[0]})
    listed_max = window.settings.alerts.max_signals
    lost = [] if one is None else damage.of(plan, scene.watch, group, since_ms, listed_max)
    if kind == "concept_drift":
        n, mean, (low, high) = _mean(scene, segment, RESIDUAL, since_ms)
        return ConceptDetails(
            residual=significant(2 * mean - 1) or 0.0,
            interval=_interval(2 * low - 1, 2 * high - 1),
            confidence=CONFIDENCE,
            n_pairs=n,
            inputs_moved=moved,
            labels_moved=_labels_moved(scene, segment, since_ms),
            damage=lost,
        )
    n, before, after, between = _error(scene, segment, since_ms)
    moments = locate.since(scene.watch.moments, segment, since_ms)
    ended, labelled = moments[[ENDED, LABELLED]].tolist()
    return PerformanceDetails(
        metric="mae" if plan.tables.loss.any() else "error_rate",
        before=significant(before) or 0.0,
        after=significant(after) or 0.0,
        interval=_interval(*between),
        confidence=CONFIDENCE,
        n_pairs=n,
        coverage=significant(labelled / ended) if ended else None,
        label_delay_p50_seconds=_delay(scene, segment, since_ms),
        inputs_moved=moved,
        labels_moved=_labels_moved(scene, segment, since_ms),
        relation_moved=(segment, "concept_drift") in scene.watch.episodes,
        damage=lost,
    )


def _error(scene: Scene, segment: int, since_ms: int) -> tuple[int, float, float, tuple[float, float]]:
    """Pairs since a window, the error of the reference, that since then, and its interval.

    The mean error of a regression has no bounds: its interval is that of a normal law, and holds for one look.
    """
    plan = scene.plan
    n, mean, between = _mean(scene, segment, ERROR, since_ms)
    if not plan.tables.loss.any():
        return n, _before_mean(plan, segment, ERROR), mean, between
    known = plan.known.reference.outcomes
    before = 0.0 if known is None else known.mean_error.get(plan.segments[segment], 0.0)
    moments = locate.since(scene.watch.moments, segment, since_ms)
    mean = float(moments[ERROR_SUM]) * plan.error_unit / max(n, 1)
    square = float(moments[ERROR_SQUARES]) * plan.error_unit**2 * 2.0**20 / max(n, 1)
    half = _SIGMAS * sqrt(max(square - mean**2, 0.0) * _phi(plan, segment, ERROR) / max(n, 1))
    return n, before, mean, (mean - half, mean + half)


def _mean(scene: Scene, segment: int, signal: str, since_ms: int) -> tuple[int, float, tuple[float, float]]:
    """Events of the first member of a signal since a window, their mean value, and its interval."""
    plan = scene.plan
    column = next(place for place, own in enumerate(plan.columns) if own.signal == signal)
    series = plan.families[plan.columns[column].family]
    counts = watching.since(plan, scene.watch, segment, column, since_ms)
    n, s, squares = (np.array([float(one)]) for one in series.sums(counts)) if isinstance(series, Means) else _NOTHING
    mean = s / np.maximum(n, 1)
    low, high = interval.bounds(n, s, np.maximum(squares - s * mean, 0.0), CONFIDENCE)
    return int(n[0]), float(mean[0]), (float(low[0]), float(high[0]))


def _phi(plan: OutcomesPlan, segment: int, signal: str) -> float:
    own = next(one for one in plan.columns if one.signal == signal)
    series = plan.families[own.family]
    return float(series.phi[segment * len(series.columns) + own.place])


def _interval(low: float, high: float) -> tuple[float, float]:
    return significant(low) or 0.0, significant(high) or 0.0


def _labels_moved(scene: Scene, segment: int, since_ms: int) -> bool:
    """Whether the actual classes since a window are others than in the reference, by more than both may err."""
    plan = scene.plan
    known = plan.tables.actual[segment]
    first = FIRST_RANGE + 2 * len(plan.tables.ranges)
    counts = locate.since(scene.watch.moments, segment, since_ms)[first:]
    n, m = int(counts.sum()), int(known.sum())
    if not (n and m):
        return False
    phi = _phi(plan, segment, ERROR)
    p = known / m
    error = epsilon_ref(np.stack([p, p]), np.array([n, m]) / phi).sum()
    return bool(0.5 * np.abs(counts / n - p).sum() > scene.window.settings.budget.tolerance + error)


def _delay(scene: Scene, segment: int, since_ms: int) -> float | None:
    """Median delay in seconds of the labels since a window, by the coarse bins of the reference."""
    column = scene.plan.column(DELAY, "distribution")
    if column is None:
        return None
    counts = watching.since(scene.plan, scene.watch, segment, column, since_ms)
    return significant(_delays(scene.plan, counts, _MEDIAN)[0])


def _delays(plan: OutcomesPlan, counts: Ints, shares: Sequence[float]) -> list[float | None]:
    """Quantiles in seconds of coarse counts of delays."""
    edges = DELAY_EDGES_MS[np.flatnonzero(np.diff(plan.tables.delays))] / 1000
    return coarse.quantiles(edges, counts[: len(edges) + 1], shares)


def _check(scene: Scene, segment: int, column: int, since_ms: int) -> QualityCheck:
    """What has changed of the labels."""
    plan, own = scene.plan, scene.plan.columns[column]
    counts = watching.since(plan, scene.watch, segment, column, since_ms)
    if own.signal == COVERAGE:
        n, hits = counts.tolist()
        before = float(plan.tables.mean[segment, column])
        return QualityCheck("labelled", own.signal, hits / max(n, 1), before, n)
    late = np.arange(len(counts)) > int(np.searchsorted(np.cumsum(plan.tables.delay_p[segment]), 0.5))
    n, before = int(counts.sum()), float(plan.tables.delay_p[segment][late].sum())
    return QualityCheck(LATE, own.signal, float(counts[late].sum() / max(n, 1)), before, n)


def _moved(scene: Scene, segment: int, one: Episode, column: int) -> SignalEntry:
    """A member of an episode: what it was, and what it is since its change point."""
    plan, own, point = scene.plan, scene.plan.columns[column], one.points[column]
    counts = watching.since(plan, scene.watch, segment, column, point.at_ms)
    effect = None
    if own.family == ORDERED:
        p = plan.tables.delay_p[segment]
        sizes = effects_of(counts[None], p[None], np.array([np.count_nonzero(p)]), ordered=True)
        effect = evidence.effect(*(float(size[0]) for size in (sizes.psi, sizes.jensen_shannon, sizes.wasserstein)))
    return evidence.entry(
        own.signal,
        own.measure,
        DETECTORS[own.family],
        **judgement(scene.window.judged, segment, column, one),
        n=int(counts.sum() if own.family == ORDERED else counts[0]),
        before=_before(plan, segment, column),
        after=_after(plan, column, counts),
        effect=effect,
        change_point=evidence.change_point(*times(point)),
    )


def _before_mean(plan: OutcomesPlan, segment: int, signal: str) -> float:
    return float(plan.tables.mean[segment, next(i for i, own in enumerate(plan.columns) if own.signal == signal)])


def _before(plan: OutcomesPlan, segment: int, column: int) -> Description:
    """What the reference says: of residuals e itself, of the errors of a regression their rank."""
    own, tables = plan.columns[column], plan.tables
    if own.family == ORDERED:
        p05, p50, p95 = _delays(plan, np.rint(tables.delay_p[segment] * 1e6).astype(np.int64), QUANTILES)
        return evidence.describe(p05=p05, p50=p50, p95=p95)
    mean = float(tables.mean[segment, column])
    if own.measure == "rate":
        return evidence.describe(rate=mean)
    return evidence.describe(mean=2 * mean - 1 if own.signal == RESIDUAL else mean)


def _after(plan: OutcomesPlan, column: int, counts: Ints) -> Description:
    own = plan.columns[column]
    series = plan.families[own.family]
    if not isinstance(series, Means):
        p05, p50, p95 = _delays(plan, counts, QUANTILES)
        return evidence.describe(p05=p05, p50=p50, p95=p95)
    n, s, _ = (float(one) for one in series.sums(counts))
    mean = s / max(n, 1)
    if own.measure == "rate":
        return evidence.describe(rate=mean)
    return evidence.describe(mean=2 * mean - 1 if own.signal == RESIDUAL else mean)


def _detection(  # noqa: PLR0913 - private, all an alert is made of
    window: Closed, plan: OutcomesPlan, segment: int, column: int, asked: Asked, row: int
) -> SignalEntry:
    own, verdicts = plan.columns[column], asked.verdicts
    changes = verdicts.changes
    rise = 0.0 if changes is None else float(changes.after[row] - changes.before[row])
    return evidence.entry(
        own.signal,
        own.measure,
        asked.detector,
        "drift",
        statistic=float(verdicts.statistic[row]),
        threshold=float(verdicts.threshold[row]),
        evidence=None,
        n=int(window.outcomes.ended[segment] if own.signal == COVERAGE else window.outcomes.pairs[segment]),
        before=_before(plan, segment, column),
        after=Description(),
        change_point=None
        if changes is None
        else evidence.change_point(int(changes.at_ms[row]), int(changes.at_ms[row]), window.end_ms),
        direction="up" if rise > 0 else "down" if rise < 0 else None,
    )
