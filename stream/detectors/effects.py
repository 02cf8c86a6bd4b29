"""Effect sizes: how far a distribution has moved, whatever the number of events.

Statistic   total variation, population stability index, Jensen-Shannon distance, Wasserstein distance on the u scale
Fires when  never: no fixed threshold suits 100 and 100,000 events (`statistics.md` 14)
Cost        O(bins) per series, no state
Blind to    changes inside a bin
Source      J. Lin (1991), Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37
"""

import numpy as np
from msgspec import Struct

from stream.detectors import Bools, Floats, Ints


class Effects(Struct, frozen=True, eq=False):
    """Effect sizes of R series."""

    total_variation: Floats
    """[R] share of the mass that moved, 0 to 1."""
    psi: Floats
    """[R] population stability index; about 8 times the squared Jensen-Shannon distance for small changes."""
    jensen_shannon: Floats
    """[R] the distance (root of the divergence, nats), 0 to 0.83, as in scipy."""
    wasserstein: Floats
    """[R] on the scale of u = F_ref(x), 0 to 1; NaN where the bins have no order."""


def smoothed(counts: Ints | Floats, bins: Ints) -> Floats:
    """Shares with half an event more in each bin in use: `counts` [R, B], `bins` [R] how many are in use; 0 beyond."""
    used = np.arange(counts.shape[-1]) < bins[:, None]
    total = counts.sum(-1, dtype=np.float64) + 0.5 * bins
    return np.asarray(np.where(used, counts + 0.5, 0.0) / total[:, None])


def effects(q: Floats, p: Floats, ordered: Bools) -> Effects:
    """Of the present law `q` against the reference `p`, [R, B]; both positive on the same bins, 0 elsewhere."""
    middle = (p + q) / 2
    divergence = 0.5 * (_relative(q, middle) + _relative(p, middle)).sum(-1)
    gaps = np.abs(q.cumsum(-1) - p.cumsum(-1))[:, :-1]
    steps = (p[:, :-1] + p[:, 1:]) / 2
    # Behind the last bin in use the cumulative shares differ by rounding alone.
    real = p[:, 1:] > 0
    return Effects(
        total_variation=0.5 * np.abs(q - p).sum(-1),
        psi=(_relative(q, p) + _relative(p, q)).sum(-1),
        jensen_shannon=np.sqrt(np.maximum(divergence, 0.0)),
        wasserstein=np.where(ordered, np.where(real, gaps * steps, 0.0).sum(-1), np.nan),
    )


def chance(bins: Ints, n: Floats, m: Floats) -> Floats:
    """[R] the PSI that chance alone brings on average: (B - 1)(1/n + 1/m), for `n` events against `m` rows."""
    return np.asarray((bins - 1) * (1 / n + 1 / m))


def _relative(q: Floats, p: Floats) -> Floats:
    ratio = np.divide(q, p, out=np.ones_like(q), where=(p > 0) & (q > 0))
    return np.asarray(q * np.log(ratio))
