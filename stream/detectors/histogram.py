"""Histogram e-detector: has the distribution of a signal moved by more than the tolerance?

Statistic   log10 M, the wealth of 20 experts (12 for unordered bins) who bet that it has; each bet is a likelihood
            ratio clipped so that no law within total variation epsilon of the reference gains
Fires when  M >= A; at most T/A false alarms in T windows are to be expected, under any dependence (`statistics.md` 5.4)
Cost        O(experts x bins) per window; 2.3 KB of state per series of 16 bins
Blind to    changes inside a bin, and of less than epsilon in total variation
Source      J. Shin, A. Ramdas, A. Rinaldo, E-detectors, arXiv 2203.03532; P. J. Huber's clipping after A. Saha,
            A. Ramdas, arXiv 2408.14015

A member that stands in an episode is watched by the *open* form (`statistics.md` 10.3): the same bets around the new
law, and one expert more, who bets that the law of the reference is back. It is this detector with another `Law`.
"""

from typing import Final

import numpy as np
from msgspec import Struct, structs
from pydantic import BaseModel, ConfigDict, Field

from stream.detectors import (
    Bools,
    Codes,
    Floats,
    Ints,
    Reason,
    Verdicts,
    capped,
    judge_evidence,
    ln_sum,
    multiply,
    pay_in,
)

HORIZONS: Final = (1, 4, 16, 64)
"""Windows over which the four moving averages look back: from a jump to a slow slope, in factors of four."""
TILTS: Final = (0.1, 0.3, 0.8)
"""Fixed directions, per side and power of z: small to large shifts of place (z) and of spread (z squared)."""
HUMPS: Final = (0.3, 0.8)
"""Fixed directions, per side, of a wave of period 2 over z: two humps for one, at the same mean and spread."""
HUMP_STAKE: Final = 0.25
"""What an expert of humps stakes where another stakes 1: they are rare, and dear to the others."""
LEADERS: Final = 4
"""Unordered bins with two fixed directions each: one of the largest categories has gained or lost."""
LEADER_TILT: Final = 0.5
LEADER_STAKE: Final = 0.5
_TILT_EXPONENT_MAX: Final = 8.0

_AVERAGES = len(HORIZONS)
_FADE = np.array([1 - 1 / h for h in HORIZONS])[:, None]


class Settings(BaseModel):
    """What a person may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confirm: int = Field(default=2, ge=1, le=16)
    """Windows one expert needs from rest to the threshold. 2: a blip of one window is not a drift."""


class Law(Struct, frozen=True, eq=False):
    """What is normal for R series, with the clips of the fixed experts solved once. Made by `law`."""

    p: Floats
    """[R, B] probabilities of the bins; 0 fills series with fewer than B bins."""
    p_mean: Floats
    """[R, B] the same without season: what the moving averages lean on."""
    epsilon: Floats
    """[R] radius in total variation within which the law may wander."""
    ln_r: Floats
    """[R, J, B] logarithms of the ratios of the J fixed experts."""
    bets: Bools
    """[R, J] False where a fixed expert is idle: its law lies inside the ball."""
    weights: Floats
    """[K] share of every expert, K = 4 + J; they sum to 1."""


class State(Struct, frozen=True, eq=False):
    """All a restart needs, for R series."""

    ln_m: Floats
    """[R, K] logarithm of each expert's wealth, -inf at rest."""
    counts: Floats
    """[R, 4, B] faded counts per horizon."""
    expected: Floats
    """[R, 4, B] faded counts the law expected."""
    n_prev: Floats
    """[R] events of the window before."""
    phi_prev: Floats
    """[R] overdispersion of the window before."""


class Window(Struct, frozen=True, eq=False):
    """One closed window of R series."""

    counts: Ints
    """[R, B] events per coarse bin, valid and known values only; 0 beyond the bins of a series."""
    law: Law
    phi: Floats
    """[R] overdispersion at this n, at least 1."""
    ln_threshold: Floats
    """[R] ln of the threshold A_s of a member (`budget.ln_threshold`)."""
    reason: Codes
    """[R] of `Reason`: a series with one keeps its state as it is."""


def law(
    p: Floats, epsilon: Floats, *, z: Floats | None = None, p_mean: Floats | None = None, home: Floats | None = None
) -> Law:
    """The law of R series and what its fixed experts bet on it.

    `p` [R, B] sums to 1 over the bins in use and is positive there. `z` [R, B], the normal scores of ordered bins,
    brings sixteen tilts; without it the first bins, the largest, are tilted one at a time. `home` [R, B] adds the
    expert of the open form, with half of all weight. Costs one sort per expert: keep the result for as long as p and
    epsilon stay (at R = 1,000 and 16 ordered bins about 30 ms).
    """
    factors = _leaders(p.shape[1]) if z is None else _factors(z)
    fixed, stakes = [_tilted(p, factor) for factor, _ in factors], [1.0] * _AVERAGES + [stake for _, stake in factors]
    weights = np.array(stakes) / sum(stakes)
    if home is not None:
        fixed.append(home)
        weights = np.append(weights / 2, 0.5)
    ln_r, bets = clip(np.stack(fixed, axis=1), p[:, None, :], epsilon[:, None])
    return Law(p=p, p_mean=p if p_mean is None else p_mean, epsilon=epsilon, ln_r=ln_r, bets=bets, weights=weights)


def start(series: int, bins: int, experts: int) -> State:
    """At rest.

    `experts` is the length of the weights of the law the state will meet: 20 ordered, 12 unordered, one more in the
    open form.
    """
    return State(
        ln_m=np.full((series, experts), -np.inf),
        counts=np.zeros((series, _AVERAGES, bins)),
        expected=np.zeros((series, _AVERAGES, bins)),
        n_prev=np.zeros(series),
        phi_prev=np.ones(series),
    )


def update(state: State, settings: Settings, window: Window) -> tuple[State, Verdicts]:
    """One window further. Series with a reason neither pay, nor gain, nor learn; empty ones have the reason `EMPTY`."""
    ready = window.reason == Reason.NONE
    n = window.counts.sum(-1)
    ln_r, pay = stakes(state, window.law)
    counts = window.counts.astype(np.float64)
    ln_e = np.concatenate([_gains(counts, ln_r), _gains(counts, window.law.ln_r)], axis=1)
    ln_e /= window.phi[:, None]
    ln_e = capped(ln_e, window.law.weights, state.phi_prev, window.ln_threshold, settings.confirm)
    after = State(
        ln_m=multiply(state.ln_m, pay, ln_e),
        counts=_FADE * state.counts + counts[:, None, :],
        expected=_FADE * state.expected + (n[:, None] * window.law.p)[:, None, :],
        n_prev=n.astype(np.float64),
        phi_prev=window.phi,
    )
    after = _where(ready, after, state)
    reason = np.where(ready & (n == 0), Reason.EMPTY, window.reason).astype(np.int8)
    return after, judge_evidence(ln_evidence(after), window.ln_threshold, reason)


def stakes(state: State, law: Law) -> tuple[Floats, Floats]:
    """What is bet before a window is seen.

    Returns ln r of the moving averages [R, 4, B], and what all K experts pay in [R, K].
    """
    p = law.p[:, None, :]
    lean = (np.count_nonzero(law.p, axis=1)[:, None] * law.p_mean)[:, None, :]
    growth = np.divide(lean + state.counts, lean + state.expected, out=np.ones_like(state.counts), where=p > 0)
    ln_r, bets = clip(_normal(p * growth), p, law.epsilon[:, None])
    return ln_r, pay_in(law.weights, np.concatenate([bets, law.bets], axis=1), state.n_prev, state.phi_prev)


def ln_evidence(state: State) -> Floats:
    """[R] ln M of every series; -inf at rest."""
    return ln_sum(state.ln_m)


def reset(state: State, series: Bools) -> State:
    """After an alarm of their group the chosen series ([R] mask) begin from nothing."""
    return structs.replace(
        state,
        ln_m=np.where(series[:, None], -np.inf, state.ln_m),
        counts=np.where(series[:, None, None], 0.0, state.counts),
        expected=np.where(series[:, None, None], 0.0, state.expected),
    )


def clip(q: Floats, p: Floats, epsilon: Floats) -> tuple[Floats, Bools]:
    """The likelihood ratio q/p, clipped so that no law within total variation epsilon of p gains by it.

    `q` [..., B] and `p` (broadcasts to it) are laws over the last axis, `epsilon` [...] broadcasts to the rest. Returns
    ln r [..., B] and whether there is a bet at all: where q itself lies in the ball r is 1. Exact in closed form:
    `sum p r + epsilon (max r - min r) <= 1` up to 1e-12 (`statistics.md` 5.2).
    """
    p = np.broadcast_to(p, q.shape)
    epsilon = np.broadcast_to(epsilon, q.shape[:-1])
    bets = np.asarray(0.5 * np.abs(q - p).sum(-1) > epsilon)
    ln_r = np.zeros(q.shape)
    # Most experts are idle while nothing happens: the sort is spent on the others alone.
    ln_r[bets] = _solved(q[bets], p[bets], epsilon[bets][:, None])
    return ln_r, bets


def growth(q: Floats, p: Floats, epsilon: Floats) -> Floats:
    """[...] what one event of the law q adds to ln M at best: D_eps of `statistics.md` 5.5; 0 inside the ball."""
    return np.asarray((q * clip(q, p, epsilon)[0]).sum(-1))


def _solved(q: Floats, p: Floats, epsilon: Floats) -> Floats:
    ratio = np.divide(q, p, out=np.ones_like(q), where=p > 0)
    order = np.argsort(-ratio, axis=-1, kind="stable")
    q_sorted, p_sorted = np.take_along_axis(q, order, -1), np.take_along_axis(p, order, -1)
    high = _quotients(q_sorted.cumsum(-1), p_sorted.cumsum(-1) + epsilon, 0.0).max(-1, keepdims=True)
    low = _quotients(q_sorted[:, ::-1].cumsum(-1), p_sorted[:, ::-1].cumsum(-1) - epsilon, np.inf)
    r = np.minimum(np.maximum(ratio, low.min(-1, keepdims=True)), high)
    ends = np.take_along_axis(r, order[:, [0, -1]], -1)
    excess = (p * r).sum(-1, keepdims=True) + epsilon * (ends[:, :1] - ends[:, 1:])
    return np.asarray(np.log(r / np.maximum(excess, 1.0)))


def _gains(counts: Floats, ln_r: Floats) -> Floats:
    return np.asarray(np.einsum("rb,rkb->rk", counts, ln_r))


def _quotients(above: Floats, below: Floats, otherwise: float) -> Floats:
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)


def _factors(z: Floats) -> list[tuple[Floats, float]]:
    """What the probabilities of ordered bins are multiplied by, and the stake of each bet."""
    bets = [(theta * power, 1.0) for power in (z, z * z) for theta in TILTS]
    bets += [(theta * np.cos(np.pi * z), HUMP_STAKE) for theta in HUMPS]
    cut = _TILT_EXPONENT_MAX
    return [(np.exp(np.clip(side * exponent, -cut, cut)), stake) for exponent, stake in bets for side in (1.0, -1.0)]


def _leaders(bins: int) -> list[tuple[Floats, float]]:
    """Likewise of unordered bins, which stand by falling share: the largest categories come first."""
    places = [np.arange(bins) == place for place in range(LEADERS)]
    return [(np.exp(side * LEADER_TILT * place), LEADER_STAKE) for place in places for side in (1.0, -1.0)]


def _tilted(p: Floats, factor: Floats) -> Floats:
    # Bins out of use may carry any score; their probability is 0 and stays it.
    return _normal(np.where(p > 0, p * factor, 0.0))


def _normal(weights: Floats) -> Floats:
    total = weights.sum(-1, keepdims=True)
    return np.asarray(weights / np.where(total > 0, total, 1.0))


def _where(chosen: Bools, new: State, old: State) -> State:
    if chosen.all():
        return new
    one, two = chosen[:, None], chosen[:, None, None]
    return State(
        ln_m=np.where(one, new.ln_m, old.ln_m),
        counts=np.where(two, new.counts, old.counts),
        expected=np.where(two, new.expected, old.expected),
        n_prev=np.where(chosen, new.n_prev, old.n_prev),
        phi_prev=np.where(chosen, new.phi_prev, old.phi_prev),
    )
