"""Mean e-detector: has the mean of a bounded signal, or a rate, moved by more than the tolerance?

Statistic   log10 M, the wealth of 12 experts who bet likelihood ratios on a mean above or below, and of 12 more who
            bet on it by empirical Bernstein where the signal is not 0/1
Fires when  M >= A; at most T/A false alarms in T windows are to be expected, under any dependence (`statistics.md` 5.4)
Cost        O(24) per window; 26 numbers of state
Blind to    changes of shape around the same mean, and of the mean within its margin
Source      J. Shin, A. Ramdas, A. Rinaldo, arXiv 2203.03532; X. Fan, I. Grama, Q. Liu, arXiv 1311.6273

Values lie in [0, 1]; a residual e in [-1, 1] enters as (e + 1)/2. While a member stands in an episode the same page is
its open form: a `Law` around the new mean.
"""

from typing import Final

import numpy as np
from msgspec import Struct, structs
from pydantic import BaseModel, ConfigDict, Field

from stream.detectors import (
    Bools,
    Floats,
    Reason,
    Sums,
    Verdicts,
    capped,
    judge_evidence,
    ln_sum,
    multiply,
    pay_in,
)

LOGIT_STEPS: Final = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
"""Alternatives of the likelihood grid, as steps of the log odds: a small rate changes by 5 % up to five times."""
BERNSTEIN_STAKES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Stakes lambda of the empirical-Bernstein grid."""
EXPERTS: Final = 2 * len(LOGIT_STEPS) + 2 * len(BERNSTEIN_STAKES)
REFERENCE_SIGMAS: Final = 2.6
"""Standard errors of the reference mean within which a deviation may be its own: 99 % of both sides."""
_PENALTY: Final = -np.log1p(-BERNSTEIN_STAKES) - BERNSTEIN_STAKES
_GRID = len(LOGIT_STEPS)
_BERNSTEIN_MEANS = (0.05, 0.95)


class Settings(BaseModel):
    """What a person may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(default=0.01, ge=0, lt=0.5)
    """Deviation of the mean, on the scale of [0, 1], that is no drift."""
    confirm: int = Field(default=2, ge=1, le=16)
    """Windows one expert needs from rest to the threshold. 2: a blip of one window is not a drift."""


class Law(Struct, frozen=True, eq=False):
    """What is normal for R series, with the grids solved once. Made by `law`."""

    mean: Floats
    """[R] what the margins lie around."""
    low: Floats
    """[R] lowest mean that is no drift."""
    high: Floats
    """[R] highest mean that is no drift."""
    ln_one: Floats
    """[R, 12] evidence of a value 1 per likelihood expert, six up, then six down."""
    ln_zero: Floats
    """[R, 12] evidence of a value 0."""
    bets: Bools
    """[R, 24] experts in use: sides that can be tested, and the second grid where it is valid."""
    weights: Floats
    """[R, 24] share of every expert."""


class State(Struct, frozen=True, eq=False):
    """All a restart needs, for R series."""

    ln_m: Floats
    """[R, 24] logarithm of each expert's wealth, -inf at rest."""
    n_prev: Floats
    """[R] events of the window before."""
    phi_prev: Floats
    """[R] overdispersion of the window before."""


class Window(Struct, frozen=True, eq=False):
    """One closed window of R series. `testing` is not looked at: an open episode is watched by another state."""

    sums: Sums
    law: Law


def margin(settings: Settings, sd: Floats, rows: Floats) -> Floats:
    """How far the mean may lie from that of the reference: tolerance, and 2.6 of its standard errors.

    `sd` [R] of the reference, `rows` [R] events behind it over phi; both of the new law in the open form.
    """
    return settings.tolerance + REFERENCE_SIGMAS * sd / np.sqrt(np.maximum(rows, 1.0))


def law(mean: Floats, margins: Floats, binary: Bools) -> Law:
    """The law of R series: means in `mean` +- `margins` are normal; `binary` [R] marks 0/1 signals.

    A side that reaches 0 or 1 is not tested. Keep the result for as long as the mean stays.
    """
    low, high = mean - margins, mean + margins
    up, down = high < 1, low > 0
    p_up, p_down = np.where(up, np.maximum(high, 1e-12), 0.5), np.where(down, np.minimum(low, 1 - 1e-12), 0.5)
    q_up, q_down = _moved(p_up, LOGIT_STEPS), _moved(p_down, -LOGIT_STEPS)
    p = np.concatenate([np.repeat(p_up[:, None], _GRID, 1), np.repeat(p_down[:, None], _GRID, 1)], axis=1)
    q = np.concatenate([q_up, q_down], axis=1)
    second = ~binary & (mean >= _BERNSTEIN_MEANS[0]) & (mean <= _BERNSTEIN_MEANS[1])
    sides = np.repeat(np.stack([up, down], axis=1), _GRID, axis=1)
    return Law(
        mean=mean,
        low=np.where(down, low, 0.5),
        high=np.where(up, high, 0.5),
        ln_one=np.log(q / p),
        ln_zero=np.log1p(-q) - np.log1p(-p),
        bets=np.concatenate([sides, sides & second[:, None]], axis=1),
        weights=np.repeat(np.where(second, 1.0 / EXPERTS, 2.0 / EXPERTS)[:, None], EXPERTS, axis=1),
    )


def start(series: int) -> State:
    """At rest."""
    return State(ln_m=np.full((series, EXPERTS), -np.inf), n_prev=np.zeros(series), phi_prev=np.ones(series))


def update(state: State, settings: Settings, window: Window) -> tuple[State, Verdicts]:
    """One window further. Series with a reason neither pay, nor gain; empty ones have the reason `EMPTY`."""
    sums, law_ = window.sums, window.law
    ready = sums.reason == Reason.NONE
    pay = stakes(state, law_)
    ln_e = np.where(law_.bets, _evidence(sums, law_) / sums.phi[:, None], 0.0)
    ln_e = capped(ln_e, law_.weights, state.phi_prev, sums.ln_threshold, settings.confirm)
    after = State(
        ln_m=np.where(ready[:, None], multiply(state.ln_m, pay, ln_e), state.ln_m),
        n_prev=np.where(ready, sums.n, state.n_prev),
        phi_prev=np.where(ready, sums.phi, state.phi_prev),
    )
    reason = np.where(ready & (sums.n <= 0), Reason.EMPTY, sums.reason).astype(np.int8)
    return after, judge_evidence(ln_evidence(after), sums.ln_threshold, reason)


def stakes(state: State, law: Law) -> Floats:
    """What the experts pay in [R, 24] before a window is seen."""
    return pay_in(law.weights, law.bets, state.n_prev, state.phi_prev)


def growth(law: Law, means: Floats) -> Floats:
    """[R] what one event adds to ln M where the mean is `means` [R], by the best likelihood expert; at least 0."""
    gains = means[:, None] * law.ln_one + (1 - means[:, None]) * law.ln_zero
    return np.asarray(np.where(law.bets[:, : gains.shape[1]], gains, 0.0).max(1, initial=0.0))


def ln_evidence(state: State) -> Floats:
    """[R] ln M of every series; -inf at rest."""
    return ln_sum(state.ln_m)


def reset(state: State, series: Bools) -> State:
    """After an alarm of their group the chosen series ([R] mask) begin from nothing."""
    return structs.replace(state, ln_m=np.where(series[:, None], -np.inf, state.ln_m))


def _moved(p: Floats, steps: Floats) -> Floats:
    logit = (np.log(p) - np.log1p(-p))[:, None] + steps
    return np.asarray(1 / (1 + np.exp(-logit)))


def _evidence(sums: Sums, law: Law) -> Floats:
    s, rest = sums.s[:, None], (sums.n - sums.s)[:, None]
    up = _bernstein(sums, sums.s - sums.n * law.high, law.high)
    down = _bernstein(sums, sums.n * law.low - sums.s, 1 - law.low)
    return np.concatenate([s * law.ln_one + rest * law.ln_zero, up, down], axis=1)


def _bernstein(sums: Sums, rise: Floats, scale: Floats) -> Floats:
    """`rise` is n (mean - bound), `scale` the largest fall below the bound; both [R]."""
    squares = sums.m2 + np.divide(rise * rise, sums.n, out=np.zeros_like(rise), where=sums.n > 0)
    gain, cost = (rise / scale)[:, None] * BERNSTEIN_STAKES, (squares / (scale * scale))[:, None] * _PENALTY
    return np.asarray(gain - cost)
