"""Challenger: does another version answer the same requests better than the one in charge, or worse?

Statistic   log10 K, the wealth of six experts who bet on a positive mean of d = loss(champion) - loss(challenger) by
            empirical Bernstein, or of six who bet on a negative one: K = mean of exp(lambda sum d - psi sum d^2)
Fires when  K >= 1/alpha; wrong with probability alpha at most, however often and for however long one looks
Cost        O(12) per window; 3 numbers of state, and what was decided
Blind to    gains that turned into losses later: the mean is that of all requests since the start
Source      X. Fan, I. Grama, Q. Liu, arXiv 1311.6273; S. R. Howard et al., arXiv 1810.08240

A request counts when champion and challenger both answered it and its label is known. Where the true gain is 2 points
and the two disagree on 10 % of requests, half of the decisions fall within 2,400 requests; a sample of fixed size needs
1,550 for a power of .8, and may be looked at once.
"""

from enum import IntEnum
from typing import Final

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from stream.detectors import Codes, Floats, Reason, Verdicts, judge_evidence, ln_sum

STAKES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Shares of their wealth the experts stake: the best one is gain over mean square of d, 1 point in 50 % to all."""
_PENALTY: Final = -np.log1p(-STAKES) - STAKES


class Decision(IntEnum):
    """What has been found out."""

    NONE = 0
    CHALLENGER_BETTER = 1
    CHAMPION_BETTER = 2


class Settings(BaseModel):
    """What a person may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """Least probability that no challenger of a champion is called better unless it is; likewise for worse."""


class State(Struct, frozen=True, eq=False):
    """All a restart needs, for R challengers (of one segment each)."""

    n: Floats
    """[R] requests."""
    s: Floats
    """[R] sum of d."""
    squares: Floats
    """[R] sum of d^2."""
    decision: Codes
    """[R] of `Decision`: the first one stands, K may fall again."""


class Window(Struct, frozen=True, eq=False):
    """One closed window of R challengers: requests, sum of d and sum of d^2, where d lies in [-1, 1]."""

    n: Floats
    s: Floats
    squares: Floats
    rivals: Floats
    """[R] challengers compared with the same champion, who share alpha."""
    reason: Codes
    """[R] of `Reason`: one with a reason keeps its state as it is."""


def start(series: int) -> State:
    """Nothing known."""
    return State(np.zeros(series), np.zeros(series), np.zeros(series), np.zeros(series, np.int8))


def update(state: State, settings: Settings, window: Window) -> tuple[State, Verdicts]:
    """One window further. Evidence is that of the likelier side; `State.decision` says which it is."""
    ready = window.reason == Reason.NONE
    n, s, squares = (
        np.where(ready, before + more, before)
        for before, more in ((state.n, window.n), (state.s, window.s), (state.squares, window.squares))
    )
    better, worse = _ln_wealth(s, squares), _ln_wealth(-s, squares)
    ln_threshold = np.log(window.rivals) - np.log1p(-settings.confidence)
    found = np.where(better >= worse, Decision.CHALLENGER_BETTER, Decision.CHAMPION_BETTER)
    found = np.where(ready & (np.maximum(better, worse) >= ln_threshold), found, Decision.NONE)
    decision = np.where(state.decision == Decision.NONE, found, state.decision).astype(np.int8)
    reason = np.where(ready & (window.n <= 0), Reason.EMPTY, window.reason).astype(np.int8)
    return State(n, s, squares, decision), judge_evidence(np.maximum(better, worse), ln_threshold, reason)


def on_unit_scale(state: State) -> tuple[Floats, Floats, Floats]:
    """n, sum and sum of squared deviations of (d + 1)/2: a mean on the scale of [0, 1], for `interval.bounds`."""
    deviations = state.squares - np.divide(state.s**2, state.n, out=np.zeros_like(state.s), where=state.n > 0)
    return state.n, (state.n + state.s) / 2, np.maximum(deviations, 0) / 4


def _ln_wealth(s: Floats, squares: Floats) -> Floats:
    """[R] ln K of those who bet on a positive mean."""
    return np.asarray(ln_sum(s[:, None] * STAKES - squares[:, None] * _PENALTY) - np.log(len(STAKES)))
