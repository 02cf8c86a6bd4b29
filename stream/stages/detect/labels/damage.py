"""Where the loss comes from since a change: segments and ranges of scores, ranked by their share."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from stream.detectors import Floats, Ints, locate
from stream.profiles.outcome_tables import ERROR, RESIDUAL, range_measure
from stream.stages.detect import watch as watching
from stream.stages.detect.labels.plan import FIRST_RANGE, OutcomesPlan
from stream.stages.detect.plan import Group
from stream.stages.detect.series import Means
from stream.stages.detect.state import Watch
from stream.wire.outbound import Damage, significant

SHARE_MIN: Final = 0.05
"""What carries less of the loss is not listed."""


def of(plan: OutcomesPlan, watch: Watch, group: Group, from_ms: int, listed_max: int) -> list[Damage]:
    """What carries the loss of an alert since its change, the largest share first; nothing where nothing was lost.

    Of `performance` the errors beyond those the reference expects, of `concept_drift` the residuals in the direction of
    the whole. An alert of the whole model lists its segments too.
    """
    segment, kind = group
    whole, signal = segment == 0, ERROR if kind == "performance" else RESIDUAL
    member = next((place for place, own in enumerate(plan.columns) if own.signal == signal), None)
    if member is None:
        return []
    n, extra = _beyond(plan, watch, member, from_ms)
    lost = float(extra[segment])
    if not lost or (kind == "performance" and lost < 0):
        return []
    found = [
        _damage(extra[row] / lost, n[row], segment=name)
        for row, name in enumerate(plan.segments)
        if whole and row and n[row]
    ]
    found += _ranges(plan, watch, group, from_ms, lost)
    chosen = [one for one in found if one.share >= SHARE_MIN]
    return sorted(chosen, key=lambda one: (-one.share, one.segment or "", one.scores or (0.0, 0.0)))[:listed_max]


def _beyond(plan: OutcomesPlan, watch: Watch, column: int, from_ms: int) -> tuple[Ints, Floats]:
    """[G] events of a member since a window, and the sum of its values beyond what the reference expects."""
    where = plan.columns[column]
    series = plan.families[where.family]
    counts = np.stack([watching.since(plan, watch, segment, column, from_ms) for segment in range(len(plan.segments))])
    if not isinstance(series, Means):
        return counts.sum(1), np.zeros(len(counts))
    n, s, _ = series.sums(counts)
    own = np.arange(len(counts)) * len(series.columns) + where.place
    return counts[:, 0], np.asarray(s - n * series.law.mean[own])


def _ranges(plan: OutcomesPlan, watch: Watch, group: Group, from_ms: int, lost: float) -> Sequence[Damage]:
    """Shares of the ranges of scores, of which there must be several to say something."""
    segment, kind = group
    ranges = plan.tables.ranges
    if len(ranges) == 1:
        return []
    if kind == "concept_drift":
        columns = [plan.column(RESIDUAL, range_measure(place)) for place in range(len(ranges))]
        parts = [_beyond(plan, watch, column, from_ms) for column in columns if column is not None]
        n, extra = [int(one[segment]) for one, _ in parts], [float(one[segment]) for _, one in parts]
    else:
        first = FIRST_RANGE
        moments = locate.since(watch.moments, segment, from_ms)[first : first + 2 * len(ranges)].reshape(-1, 2)
        n = moments[:, 0].tolist()
        extra = (moments[:, 1] - moments[:, 0] * plan.tables.error_rate[segment]).tolist()
    return [
        _damage(one / lost, count, scores=(scores.low, scores.high))
        for scores, count, one in zip(ranges, n, extra, strict=True)
        if count
    ]


def _damage(share: float, n: int, segment: str | None = None, scores: tuple[float, float] | None = None) -> Damage:
    return Damage(segment, scores, significant(share) or 0.0, int(n))
