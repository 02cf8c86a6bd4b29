"""Silence: have events stopped coming, or fallen to half of what is expected or less?

Statistic   log10 M, the wealth of two experts: one bets on empty windows, one on half of the expected number
Fires when  M >= A; at most T/A false alarms in T windows are to be expected (`statistics.md` 8.5)
Cost        O(1) per window; two numbers of state
Blind to    a fall by less than a third, a rise, and whatever happens where the season is not known
Source      J. Shin, A. Ramdas, A. Rinaldo, arXiv 2203.03532; the probability of 0 of a negative binomial law

Numbers of events spread more than Poisson's: phi is their variance over their mean. An expert of an empty window gains
1/P(0) = phi^(lambda/(phi - 1)), and has nothing left once something comes; that of the half gains the likelihood ratio
of two Poisson laws, tempered by phi. The open form bets the other way round: that more than half has come back.
"""

from typing import Final

import numpy as np
from msgspec import Struct, structs

from stream.detectors import (
    Bools,
    Codes,
    Floats,
    Reason,
    Verdicts,
    capped,
    judge_evidence,
    ln_sum,
    multiply,
)

EXPERTS: Final = 2
"""Empty windows, and half of the expected number."""
CONFIRM: Final = 2
"""Windows one expert needs from rest to the threshold: one window that is held up somewhere is no silence."""
_LN_2: Final = float(np.log(2.0))
_WEIGHTS: Final = np.full(EXPERTS, 1.0 / EXPERTS)


class State(Struct, frozen=True, eq=False):
    """All a restart needs, for R series."""

    ln_m: Floats
    """[R, 2] logarithm of each expert's wealth, -inf at rest."""


class Window(Struct, frozen=True, eq=False):
    """One closed window of R series."""

    n: Floats
    """[R] events."""
    expected: Floats
    """[R] lambda: events expected in this window; what is 0 is not bet on."""
    phi: Floats
    """[R] variance of such numbers over their mean, at least 1."""
    falls: Bools
    """[R] whether a fall to half is bet on: whoever does not know the day would take every night for one."""
    ln_threshold: Floats
    """[R] ln of the threshold A_s."""
    reason: Codes
    """[R] of `Reason`: a series with one keeps its state as it is."""


def start(series: int) -> State:
    """At rest."""
    return State(np.full((series, EXPERTS), -np.inf))


def update(state: State, window: Window) -> tuple[State, Verdicts]:
    """One window further. An empty window is what this is about: it has a verdict."""
    half = (window.expected / 2 - window.n * _LN_2) / window.phi
    bets = np.stack([window.expected > 0, (window.expected > 0) & window.falls], axis=1)
    return _moved(state, window, np.stack([_ln_empty(window), half], axis=1), bets)


def returned(state: State, window: Window) -> tuple[State, Verdicts]:
    """One window further of the open form: its drift is that events are back. One expert, against half of expected."""
    back = (window.n * _LN_2 - window.expected / 2) / window.phi
    bets = np.stack([np.zeros(len(back), np.bool_), window.expected > 0], axis=1)
    return _moved(state, window, np.stack([back, back], axis=1), bets)


def ln_evidence(state: State) -> Floats:
    """[R] ln M of every series; -inf at rest."""
    return ln_sum(state.ln_m)


def reset(state: State, series: Bools) -> State:
    """The chosen series ([R] mask) begin from nothing."""
    return structs.replace(state, ln_m=np.where(series[:, None], -np.inf, state.ln_m))


def _ln_empty(window: Window) -> Floats:
    """-ln P(0) in an empty window, -inf in any other: the limit at phi = 1 is lambda, that of Poisson's law."""
    spread = np.maximum(window.phi - 1, 0.0)
    some = np.where(spread > 0, spread, 1.0)
    gain = window.expected * np.where(spread > 0, np.log1p(spread) / some, 1.0)
    return np.where(window.n > 0, -np.inf, gain)


def _moved(state: State, window: Window, ln_e: Floats, bets: Bools) -> tuple[State, Verdicts]:
    ready = window.reason == Reason.NONE
    # Whoever is not betting keeps what it has: its window never happened.
    ln_e = np.where(bets, capped(ln_e, _WEIGHTS, np.ones(len(ln_e)), window.ln_threshold, CONFIRM), 0.0)
    ln_m = multiply(state.ln_m, np.where(bets, _WEIGHTS, 0.0), ln_e)
    after = State(np.where(ready[:, None], ln_m, state.ln_m))
    return after, judge_evidence(ln_evidence(after), window.ln_threshold, window.reason)
