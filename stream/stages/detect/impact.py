"""What the change of an open episode means for the model: how large it is, and how much of the traffic it concerns."""

from collections.abc import Mapping

import numpy as np
from msgspec.structs import astuple

from stream.alerts import policy
from stream.detectors import locate
from stream.stages.detect.plan import Group, Plan
from stream.stages.detect.series import past_of
from stream.stages.detect.state import Watch


def of(plan: Plan, watch: Watch, group: Group, importance: Mapping[str, float]) -> policy.Impact | None:
    """The impact of the listed member that has most of it, since the group's change point; None without an episode.

    `importance` is by signal, 1 where nothing is said. Cost: O(members listed).
    """
    one = watch.episodes.get(group) or watch.ended.get(group)
    if one is None or not one.moved:
        return None
    from_ms = one.points[one.moved[0]].at_ms
    found: list[policy.Impact] = []
    for family, (series, history) in enumerate(zip(plan.families, astuple(watch.histories), strict=True)):
        columns = [plan.columns[place] for place in one.moved if plan.columns[place].family == family]
        if not columns:
            continue
        places = np.array([column.place for column in columns])
        own = group[0] * len(series.columns) + places
        came, whole = past_of(history, own, from_ms), locate.since(history, places, from_ms)
        shares = series.events(came.counts) / np.maximum(series.events(whole), 1)
        found += [
            policy.Impact(size, importance.get(column.signal, 1.0), share)
            for column, size, share in zip(columns, series.distance(own, came).tolist(), shares.tolist(), strict=True)
        ]
    return max(found, key=lambda impact: impact.value)
