"""Who meets whom: decisions on predictions and labels with the same keys.

Rows stand in the order of (time', content, place in the input). Every decision is a property of rows within a horizon:

- A prediction is *repeated* if an earlier one of its key and version lies within the horizon before it.
- A label is repeated likewise, among labels of its version or among those of all versions.
- The *first label* of a prediction is the first within the horizon, before or after it, that is of its version or of
  all versions.
- A label is *known* if such a prediction lies within the horizon.
- A row is in a *crowd* if very many of its key and kind lie within the horizon before it; then it takes no part in the
  others' decisions.

No other one depends on another, nor on what was decided before: whoever sees the rows comes to the same end.
"""

import numpy as np
from msgspec import Struct

from stream.stages.join import rows
from stream.stages.join.rows import Rows
from stream.wire.internal import Bools, Ints


class Line(Struct, frozen=True, eq=False):
    """Rows in groups, by time within each."""

    order: Ints
    """[n] index of the row"""
    places: Ints
    """[n] group and rank of time in one number, rising"""
    groups: Ints
    """[n]"""
    times_ms: Ints
    """[n]"""


class Scene(Struct, frozen=True, eq=False):
    """Predictions and labels of some keys, brought to the same names."""

    horizon_ms: int
    predictions: Rows
    labels: Rows
    moments: Ints
    """Distinct times, rising."""
    scopes: int
    """Number of versions and one: a group is a key and a version, or a key and all versions."""
    prediction_keys: Ints
    """[n] rank of the key"""
    label_keys: Ints
    prediction_moments: Ints
    """[n] rank of the time"""
    label_moments: Ints


def scene(horizon_ms: int, predictions: Rows, labels: Rows) -> Scene:
    """Set up; about 1 us per row."""
    predictions, labels = rows.aligned(predictions, labels)
    keys = rows.distinct(np.concatenate([predictions.keys, labels.keys]))
    moments = rows.distinct(np.concatenate([predictions.times_ms, labels.times_ms]))
    return Scene(
        horizon_ms=horizon_ms,
        predictions=predictions,
        labels=labels,
        moments=moments,
        scopes=len(predictions.names.versions) + 1,
        prediction_keys=np.searchsorted(keys, predictions.keys),
        label_keys=np.searchsorted(keys, labels.keys),
        prediction_moments=np.searchsorted(moments, predictions.times_ms),
        label_moments=np.searchsorted(moments, labels.times_ms),
    )


def crowded(some: Rows, horizon_ms: int, most: int) -> Bools:
    """[n] whether `most` rows or more of its key lie within the horizon before each."""
    found, keys = np.zeros(len(some), dtype=np.bool_), np.sort(some.keys)
    if not (keys[most:] == keys[:-most]).any():
        return found
    order = np.lexsort((some.offset, some.partition, some.topic, rows.content(some), some.times_ms, some.keys))
    later, earlier = order[most:], order[:-most]
    same = some.keys[later] == some.keys[earlier]
    found[later] = same & (some.times_ms[later] - some.times_ms[earlier] <= horizon_ms)
    return found


def repeated_predictions(of: Scene) -> Ints:
    """[n] index of the last earlier prediction of the same key and version within the horizon; -1 for none."""
    return _predecessors(_predictions(of, of.predictions.version + 1), of.horizon_ms)


def repeated_labels(of: Scene) -> Ints:
    """[n] index of the last earlier label of the same key and version, or of all versions, within the horizon."""
    return _predecessors(_labels(of), of.horizon_ms)


def first_labels(of: Scene, back_ms: Ints | int) -> Ints:
    """[n] index of the first label of each prediction from `back_ms` before it; -1 for none."""
    if not len(of.labels):
        return np.full(len(of.predictions), -1, dtype=np.int64)
    line, times_ms = _labels(of), of.predictions.times_ms
    keys, first = of.prediction_keys * of.scopes, np.searchsorted(of.moments, times_ms - back_ms)
    one, *others = [
        _first(of, line, keys + scopes, first, times_ms + of.horizon_ms)
        for scopes, matters in (
            (of.predictions.version + 1, (of.labels.version >= 0).any()),
            (0, (of.labels.version < 0).any()),
        )
        if matters
    ]
    return _earlier(of, one, others[0]) if others else one


def first_predictions(of: Scene, back_ms: int, ahead_ms: int) -> Ints:
    """[n] index of the first prediction that each label meets in [time' - back, time' + ahead]; -1 for none."""
    found = np.full(len(of.labels), -1, dtype=np.int64)
    if not len(of.predictions):
        return found
    keys, times_ms = of.label_keys * of.scopes, of.labels.times_ms
    first, until_ms = np.searchsorted(of.moments, times_ms - back_ms), times_ms + ahead_ms
    for_all = of.labels.version < 0
    if for_all.any():
        found = _first(of, _predictions(of, 0), keys, first, until_ms)
    if not for_all.all():
        line = _predictions(of, of.predictions.version + 1)
        found = np.where(for_all, found, _first(of, line, keys + of.labels.version + 1, first, until_ms))
    return found


def _predictions(of: Scene, scopes: Ints | int) -> Line:
    return _line(of, of.prediction_keys * of.scopes + scopes, of.prediction_moments, of.predictions)


def _labels(of: Scene) -> Line:
    return _line(of, of.label_keys * of.scopes + of.labels.version + 1, of.label_moments, of.labels)


def _earlier(of: Scene, one: Ints, other: Ints) -> Ints:
    """The earlier of two labels, each of which may be absent (-1)."""
    both = np.flatnonzero((one >= 0) & (other >= 0) & (one != other))
    found = np.where(one >= 0, one, other)
    a, b = one[both], other[both]
    times_ms = of.labels.times_ms
    found[both] = np.where(times_ms[a] > times_ms[b], b, a)
    tied = times_ms[a] == times_ms[b]
    if tied.any():
        hashes = rows.content(of.labels)
        found[both[tied]] = np.where(hashes[a] > hashes[b], b, a)[tied]
    return found


def _line(of: Scene, groups: Ints, moments: Ints, some: Rows) -> Line:
    places = groups * (len(of.moments) + 1) + moments
    order = rows.order(places)
    ordered = places[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((some.offset, some.partition, some.topic, rows.content(some), places))
    return Line(order, ordered, groups[order], some.times_ms[order])


def _first(of: Scene, line: Line, groups: Ints, first: Ints, until_ms: Ints) -> Ints:
    """[n] index of the first row of each group from a moment, by rank, to a time; -1 for none."""
    place = np.searchsorted(line.places, groups * (len(of.moments) + 1) + first)
    last = np.minimum(place, len(line.places) - 1)
    hit = (place == last) & (line.groups[last] == groups) & (line.times_ms[last] <= until_ms)
    return np.where(hit, line.order[last], -1)


def _predecessors(line: Line, horizon_ms: int) -> Ints:
    found = np.full(len(line.order), -1, dtype=np.int64)
    near = (line.groups[1:] == line.groups[:-1]) & (line.times_ms[1:] - line.times_ms[:-1] <= horizon_ms)
    found[line.order[1:][near]] = line.order[:-1][near]
    return found
