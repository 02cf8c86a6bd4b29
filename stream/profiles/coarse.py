"""What people read of a distribution of which only coarse bins are kept: borders, names, quantiles, shares.

Reporting only, as `profiles.describe`.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from stream.profiles.reference import UNORDERED_BINS, Tables, bins_of
from stream.wire.internal import SignalReference

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

TOP_CATEGORIES: Final = 5
"""Categories shown of a signal: enough to see which ones changed places."""


def edges(tables: Tables, index: int) -> Floats:
    """The borders between the coarse bins of a numeric signal: one less than it has bins."""
    signal = tables.reference.signals[tables.layout.names[index]]
    return np.array(signal.edges or (), dtype=np.float64)[np.flatnonzero(np.diff(bins_of(signal)))]


def quantiles(edges: Floats, counts: Ints, shares: Sequence[float]) -> list[float | None]:
    """Quantiles, linear inside a bin, an outer one giving its edge; None without events or edges."""
    n = int(counts.sum())
    if not n or not len(edges):
        return [None] * len(shares)
    upto = np.cumsum(counts)
    wanted = np.asarray(shares) * n
    place = np.minimum(np.searchsorted(upto, wanted, side="left"), len(counts) - 1)
    part = (wanted - (upto - counts)[place]) / np.maximum(counts[place], 1)
    low, high = edges[np.maximum(place - 1, 0)], edges[np.minimum(place, len(edges) - 1)]
    return [float(value) for value in low * (1 - part) + high * part]


def category_names(signal: SignalReference) -> list[str]:
    """Names of the valid bins of a categorical or boolean signal."""
    if signal.type == "boolean":
        return ["false", "true"]
    return [*(signal.categories or ()), *(["other"] if signal.others else [])]


def names(signal: SignalReference) -> list[str]:
    """Names of the coarse bins of a categorical or boolean signal: beyond 32 categories the rest shares one."""
    found = category_names(signal)
    if len(found) <= UNORDERED_BINS:
        return found
    bins = bins_of(signal)
    return [*(name for name, place in zip(found, bins, strict=True) if place < UNORDERED_BINS - 1), "rest"]


def top(names: Sequence[str], counts: Ints) -> list[tuple[str, float]]:
    """The largest categories with their shares, at most five; ties in the order of the names."""
    n = int(counts.sum())
    order = np.argsort(-counts, kind="stable")[:TOP_CATEGORIES]
    return [(names[place], float(counts[place] / n)) for place in order.tolist() if counts[place]]
