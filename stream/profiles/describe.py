"""What people read of a window: mean, standard deviation and quantiles of its numeric signals, from counts and moments.

Reporting only: nothing here alarms (`statistics.md` 2.5).
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct

from stream.profiles.summaries import W_SHIFT
from stream.signals.extract import Layout

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Scale(Struct, frozen=True, eq=False):
    """Where the bins of the N numeric signals stand and what their moments mean, in the order of `Layout.numeric`."""

    columns: Ints
    """[N, F] column of each valid bin, the last one repeated."""
    inside: Ints
    """[N, F] 1 for a bin, 0 for a repetition."""
    edges: Floats
    """[N, F + 1] the lower border of each bin, then the last border; an outer bin has its one border twice."""
    centre: Floats
    """[N]"""
    step: Floats
    """[N] unit of the fixed-point moments."""


def compile_scale(layout: Layout) -> Scale:
    """What `moments` and `quantiles` need of a layout; keep it."""
    signals = [layout.reference.signals[layout.names[index]] for index in layout.numeric]
    widest = max((len(signal.counts) for signal in signals), default=1)
    columns, inside = np.zeros((2, len(signals), widest), dtype=np.int64)
    edges = np.zeros((len(signals), widest + 1))
    for place, (index, signal) in enumerate(zip(layout.numeric, signals, strict=True)):
        bins, borders = len(signal.counts), signal.edges or [math.nan]
        columns[place] = layout.first[index] + np.minimum(np.arange(widest), bins - 1)
        inside[place, :bins] = 1
        edges[place] = borders[-1]
        edges[place, : bins + 1] = [borders[0], *borders, borders[-1]][: bins + 1]
    return Scale(columns, inside, edges, layout.centre, layout.step)


def valid_events(scale: Scale, counts: Ints) -> Ints:
    """[G, N] events with a value in fine counts [G, T]."""
    return np.asarray(_bins(scale, counts).sum(-1))


def mean_and_std(scale: Scale, counts: Ints, moments: Ints) -> tuple[Floats, Floats]:
    """Mean and standard deviation [G, N] of fine counts [G, T] and moments [G, N, 4]; NaN without events.

    Values beyond 64 scales from the centre entered cut off. Exact but for the last division.
    """
    return of_events(scale, valid_events(scale, counts), moments)


def of_events(scale: Scale, n: Ints, moments: Ints) -> tuple[Floats, Floats]:
    """As `mean_and_std`, where the events n [G, N] behind the moments are known without their bins."""
    some = n > 0
    mean, variance = np.full((2, *n.shape), np.nan)
    np.divide(moments[:, :, 0], n, out=mean, where=some)
    # n sum w^2 - (sum w)^2 loses all digits in float64 and overflows int64: integers of Python hold it.
    exact = n.astype(object)
    bracket = (exact * moments[:, :, 2] - moments[:, :, 1].astype(object) ** 2).astype(np.float64)
    np.divide(bracket, n.astype(np.float64) ** 2, out=variance, where=some)
    return scale.centre + scale.step * mean, scale.step * 2.0**W_SHIFT * np.sqrt(variance)


def quantiles(scale: Scale, counts: Ints, shares: Sequence[float]) -> Floats:
    """[G, N, len(shares)] quantiles of fine counts [G, T], linear inside a bin; an outer bin gives its edge.

    Shares lie in (0, 1]; NaN without events.
    """
    bins = _bins(scale, counts).astype(np.float64)
    upto = bins.cumsum(-1)
    total = upto[:, :, -1]
    wanted = total[:, :, None] * np.asarray(shares)
    last = scale.inside.sum(-1) - 1
    place = np.minimum((upto[:, :, None, :] < wanted[:, :, :, None]).sum(-1), last[:, None])
    own = np.take_along_axis(bins, place, axis=2)
    before = np.take_along_axis(upto, place, axis=2) - own
    part = np.divide(wanted - before, own, out=np.zeros_like(wanted), where=own > 0)
    signal = np.arange(len(scale.centre))[:, None]
    low, high = scale.edges[signal, place], scale.edges[signal, place + 1]
    return np.where(total[:, :, None] > 0, low * (1 - part) + high * part, np.nan)


def _bins(scale: Scale, counts: Ints) -> Ints:
    """The valid bins of each numeric signal, [G, N, F]."""
    return np.asarray(counts[:, scale.columns] * scale.inside)
