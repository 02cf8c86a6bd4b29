"""Who meets whom: decisions on predictions and labels with the same keys.

Rows stand in the order of (time', content, place in the input). Every decision is a property of rows within a horizon:

- A prediction is *repeated* if an earlier one of its key and version lies within the horizon before it.
- A label is repeated likewise, among labels of its version or among those of all versions.
- The *first label* of a prediction is the first within the horizon, before or after it, that is of its version or of
  all versions.
- A label is *known* if such a prediction lies within the horizon.

None depends on another, nor on what was decided before: whoever sees the rows comes to the same end.
"""

from typing import TypeAlias

import numpy as np
from msgspec import Struct

from stream.stages.join import rows
from stream.stages.join.rows import Rows, Words
from stream.wire.internal import Ints

Times: TypeAlias = Ints


class Line(Struct, frozen=True, eq=False):
    """Rows in groups, by time within each."""

    order: Ints
    """[n] index of the row"""
    places: Ints
    """[n] group and rank of time in one number, rising"""
    groups: Ints
    """[n]"""
    times_ms: Times
    """[n]"""


class Scene(Struct, frozen=True, eq=False):
    """Predictions and labels of some keys, brought to the same names."""

    horizon_ms: int
    predictions: Rows
    labels: Rows
    moments: Times
    """Distinct times, rising."""
    scopes: int
    """Number of versions and one: a group is a key and a version, or a key and all versions."""
    prediction_hashes: Words
    label_hashes: Words
    prediction_keys: Ints
    """[n] rank of the key"""
    label_keys: Ints


def scene(horizon_ms: int, predictions: Rows, labels: Rows) -> Scene:
    """Set up; about 1 us per row."""
    predictions, labels = rows.aligned(predictions, labels)
    keys = np.unique(np.concatenate([predictions.keys, labels.keys]))
    return Scene(
        horizon_ms=horizon_ms,
        predictions=predictions,
        labels=labels,
        moments=np.unique(np.concatenate([predictions.times_ms, labels.times_ms])),
        scopes=len(predictions.names.versions) + 1,
        prediction_hashes=rows.content(predictions),
        label_hashes=rows.content(labels),
        prediction_keys=np.searchsorted(keys, predictions.keys),
        label_keys=np.searchsorted(keys, labels.keys),
    )


def repeated_predictions(of: Scene) -> Ints:
    """[n] index of the last earlier prediction of the same key and version within the horizon; -1 for none."""
    groups = of.prediction_keys * of.scopes + of.predictions.version + 1
    return _predecessors(_line(of, groups, of.predictions, of.prediction_hashes), of.horizon_ms)


def repeated_labels(of: Scene) -> Ints:
    """[n] index of the last earlier label of the same key and version, or of all versions, within the horizon."""
    groups = of.label_keys * of.scopes + of.labels.version + 1
    return _predecessors(_line(of, groups, of.labels, of.label_hashes), of.horizon_ms)


def first_labels(of: Scene, back_ms: Times | int) -> Ints:
    """[n] index of the first label of each prediction from `back_ms` before it; -1 for none."""
    line = _line(of, of.label_keys * of.scopes + of.labels.version + 1, of.labels, of.label_hashes)
    keys, times_ms = of.prediction_keys * of.scopes, of.predictions.times_ms
    span = (times_ms - back_ms, times_ms + of.horizon_ms)
    every = _first(of, line, keys, *span)
    own = _first(of, line, keys + of.predictions.version + 1, *span)
    return _earlier(of, own, every)


def first_predictions(of: Scene, back_ms: int, ahead_ms: int) -> Ints:
    """[n] index of the first prediction that each label meets in [time' - back, time' + ahead]; -1 for none."""
    keys, times_ms = of.label_keys, of.labels.times_ms
    span = (times_ms - back_ms, times_ms + ahead_ms)
    groups = of.prediction_keys * of.scopes + of.predictions.version + 1
    own = _first(of, _line(of, groups, of.predictions), keys * of.scopes + of.labels.version + 1, *span)
    for_all = of.labels.version < 0
    if not for_all.any():
        return own
    return np.where(for_all, _first(of, _line(of, of.prediction_keys, of.predictions), keys, *span), own)


def _earlier(of: Scene, one: Ints, other: Ints) -> Ints:
    """The earlier of two labels, each of which may be absent (-1)."""
    both = np.flatnonzero((one >= 0) & (other >= 0) & (one != other))
    found = np.where(one >= 0, one, other)
    a, b = one[both], other[both]
    times_ms, hashes = of.labels.times_ms, of.label_hashes
    later = (times_ms[a] > times_ms[b]) | ((times_ms[a] == times_ms[b]) & (hashes[a] > hashes[b]))
    found[both] = np.where(later, b, a)
    return found


def _line(of: Scene, groups: Ints, some: Rows, hashes: Words | None = None) -> Line:
    """Rows in order. Without hashes those of one group and time stand anyhow."""
    places = groups * (len(of.moments) + 1) + np.searchsorted(of.moments, some.times_ms)
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    if hashes is not None and (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((some.offset, some.partition, some.topic, hashes, places))
    return Line(order, ordered, groups[order], some.times_ms[order])


def _first(of: Scene, line: Line, groups: Ints, from_ms: Times, until_ms: Times) -> Ints:
    """[n] index of the first row of each group in the closed interval of time; -1 for none."""
    if not len(line.order):
        return np.full(len(groups), -1, dtype=np.int64)
    sought = groups * (len(of.moments) + 1) + np.searchsorted(of.moments, from_ms)
    place = np.searchsorted(line.places, sought)
    last = np.minimum(place, len(line.places) - 1)
    hit = (place == last) & (line.groups[last] == groups) & (line.times_ms[last] <= until_ms)
    return np.where(hit, line.order[last], -1)


def _predecessors(line: Line, horizon_ms: int) -> Ints:
    found = np.full(len(line.order), -1, dtype=np.int64)
    near = (line.groups[1:] == line.groups[:-1]) & (line.times_ms[1:] - line.times_ms[:-1] <= horizon_ms)
    found[line.order[1:][near]] = line.order[:-1][near]
    return found
