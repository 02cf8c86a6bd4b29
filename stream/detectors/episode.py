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


def new_law(counts: Ints | Floats, p: Floats) -> Floats:
    """The law since a change: `counts` [R, B] since then, leaning on the reference `p` with one event per bin."""
    bins = np.count_nonzero(p, axis=-1)[:, None]
    return np.asarray((counts + bins * p) / (counts.sum(-1, keepdims=True) + bins))


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
