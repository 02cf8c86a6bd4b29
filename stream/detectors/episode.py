"""Episode: what counts as normal while an alert fires, and when the old normal is back (`statistics.md` 10.3).

Statistic   distance of the law since the last change from the law of the reference
Fires when  the *open detector* (histogram or mean around the new law) alarms: the episode is over if the law since then
            lies as near to the reference as its error allows, else it goes on from a new law
Cost        O(bins) per alarm, no state
Blind to    a return by less than half of the way
Source      P. J. Huber (1965), A robust version of the probability ratio test, for the balls around both laws
"""

import numpy as np

from stream.detectors import Bools, Floats, Ints
from stream.profiles.reference import epsilon_ref

_SIGMAS = 2.6


def new_law(counts: Ints | Floats, p: Floats, expected: Floats | None = None) -> Floats:
    """The law since a change: `counts` [R, B] since then, leaning on the reference `p` with one event per bin.

    With the `expected` [R, B] counts of a season it is `p` grown in each bin by as much as they were outgrown: free of
    season.
    """
    bins = np.count_nonzero(p, axis=-1)[:, None]
    if expected is None:
        return np.asarray((counts + bins * p) / (counts.sum(-1, keepdims=True) + bins))
    return tilted(p, growth(counts + bins * p, expected + bins * p))


def growth(above: Floats, below: Floats) -> Floats:
    """By how much each bin is more than before; 1 where there was nothing."""
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)


def tilted(p: Floats, factor: Floats) -> Floats:
    """The law `p` [..., B], or counts, with each bin grown by a factor (broadcasts to it), in proportion.

    Nothing at all stays nothing.
    """
    grown = p * factor
    total = grown.sum(-1, keepdims=True)
    return np.asarray(np.divide(grown, total, out=np.zeros_like(grown), where=total > 0))


def distance(q: Floats, p: Floats) -> Floats:
    """[R] total variation of two laws [R, B]."""
    return np.asarray(0.5 * np.abs(q - p).sum(-1))


def radius(q: Floats, p: Floats, rows: Floats, tolerance: float) -> Floats:
    """[R] how far the law may wander from the new one `q`, known from `rows` [R] events (over phi).

    At most half of the way back to the reference `p`, so that a return cannot hide.
    """
    return np.minimum(tolerance + epsilon_ref(q, rows), distance(q, p) / 2)


def returned(counts: Ints | Floats, p: Floats, epsilon: Floats, phi: Floats) -> Bools:
    """[R] whether the law of `counts` [R, B] since the open detector's change point is that of the reference again.

    `epsilon` [R] is that of the reference: tolerance and its own error.
    """
    n = counts.sum(-1).astype(np.float64)
    empirical = np.divide(counts, n[:, None], out=p.copy(), where=n[:, None] > 0)
    return np.asarray((n > 0) & (distance(empirical, p) <= epsilon + epsilon_ref(p, n / phi)))


def mean_radius(mean: Floats, home: Floats, sd: Floats, rows: Floats, tolerance: float) -> Floats:
    """[R] margin around the new mean, known from `rows` [R] events (over phi); at most half of the way back `home`."""
    return np.minimum(tolerance + _SIGMAS * sd / np.sqrt(np.maximum(rows, 1.0)), np.abs(mean - home) / 2)


def mean_returned(  # noqa: PLR0913 - two means, each with its error
    mean: Floats, home: Floats, sd: Floats, *, rows: Floats, reference_rows: Floats, tolerance: float
) -> Bools:
    """[R] whether a mean is that of the reference again; `rows`, `reference_rows` [R]: events over phi behind both."""
    error = sd * np.sqrt(1 / np.maximum(rows, 1.0) + 1 / np.maximum(reference_rows, 1.0))
    return np.asarray((rows > 0) & (np.abs(mean - home) <= tolerance + _SIGMAS * error))
