"""Page-Hinkley: has the mean of a signal moved for good?

Statistic   largest rise (or fall) of the summed deviation from the mean since its turning point
Fires when  statistic > threshold. `calibrated`: deviation from the reference in its standard deviations, threshold from
            the signal's share of the budget by Siegmund's approximation (measured, not proven); `textbook`: deviation
            from the running mean and a fixed lambda, equal to river's with one event per window
Cost        O(1) per window; ten numbers of state
Blind to    changes of spread around the same mean
Source      E. S. Page (1954), Continuous Inspection Schemes, Biometrika 41; D. Siegmund (1985), Sequential Analysis
"""

from typing import Final, Literal

import numpy as np
from msgspec import Struct, structs
from pydantic import BaseModel, ConfigDict, Field

from stream.detectors import Bools, Changes, Floats, Ints, Reason, Sums, Verdicts, judge_test

_OVERSHOOT: Final = 1.166
"""Mean overshoot of both ends of a normal walk, 2 x 0.583, of Siegmund's approximation."""
_NEWTON_STEPS: Final = 40
"""From above the root of a convex function Newton never overshoots; from there 40 steps reach it to the last bit."""


class Settings(BaseModel):
    """What a person may choose. `shift` is of the calibrated form, the rest of the textbook form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["calibrated", "textbook"] = "calibrated"
    """Textbook lambda is in units of the signal and no false-alarm rate; it is here for comparison."""
    shift: float = Field(default=0.25, gt=0, le=4)
    """Smallest shift that matters, in standard deviations of the reference."""
    delta: float = Field(default=0.005, ge=0)
    """Deviation that is ignored; published default."""
    threshold: float = Field(default=50.0, gt=0)
    """lambda; published default."""
    alpha: float = Field(default=1 - 0.0001, gt=0, le=1)
    """Forgetting per event; published default."""
    min_instances: int = Field(default=30, ge=1)
    """Events before the first verdict; published default."""


class State(Struct, frozen=True, eq=False):
    """All a restart needs, for R series; axis 2 is up, down."""

    n: Floats
    """[R] events behind the running mean (textbook)."""
    mean: Floats
    """[R] running mean (textbook)."""
    cumulated: Floats
    """[R, 2] summed deviation: of the textbook form free, of the calibrated one never below 0."""
    turning: Floats
    """[R, 2] lowest and highest sum so far (textbook)."""
    spent: Bools
    """[R] the textbook form fired: the next window begins from nothing."""
    shift: Floats
    """[R] how far the calibrated form has moved the mean of the reference: what it found becomes the new normal."""
    since_ms: Ints
    """[R, 2] start of the window in which the sum last left 0 (calibrated), or the textbook form last began."""
    since_n: Floats
    """[R, 2] events since."""
    since_s: Floats
    """[R, 2] their sum."""


class Law(Struct, frozen=True, eq=False):
    """What is normal for R series."""

    mean: Floats
    """[R] of the reference, in season."""
    sd: Floats
    """[R] of the reference; a series that never varied (0) is not tested."""
    nu: Floats
    """[R] mean events per window over phi in the reference."""


class Window(Struct, frozen=True, eq=False):
    """One closed window of R series."""

    sums: Sums
    law: Law | None = None
    """None in the textbook form, which needs no reference."""


def start(series: int) -> State:
    """At rest."""
    pair = (series, 2)
    return State(
        n=np.zeros(series),
        mean=np.zeros(series),
        cumulated=np.zeros(pair),
        turning=np.tile([np.inf, -1.0], (series, 1)),
        spent=np.zeros(series, np.bool_),
        shift=np.zeros(series),
        since_ms=np.zeros(pair, np.int64),
        since_n=np.zeros(pair),
        since_s=np.zeros(pair),
    )


def update(state: State, settings: Settings, window: Window) -> tuple[State, Verdicts]:
    """One window further. Empty windows and series with a reason change nothing.

    While an episode is open (`testing` False) the calibrated form rests at 0. Raises `ValueError` when it gets no law.
    """
    sums = window.sums
    reason = np.where((sums.reason == Reason.NONE) & (sums.n <= 0), Reason.EMPTY, sums.reason).astype(np.int8)
    taken = reason == Reason.NONE
    sums = structs.replace(sums, reason=reason)
    if settings.form == "textbook":
        after, verdicts = _textbook(_choose(state.spent & taken, start(len(taken)), state), settings, sums)
    elif window.law is None:
        raise ValueError("the calibrated form needs the law of the reference")
    else:
        after, verdicts = _calibrated(state, settings, sums, window.law, taken & sums.testing)
    return _choose(taken, after, state), verdicts


def reset(state: State, series: Bools) -> State:
    """The chosen series ([R] mask) begin from nothing, measured against the reference again."""
    return _choose(series, start(len(series)), state)


def limit(settings: Settings, ln_threshold: Floats, nu: Floats) -> Floats:
    """H of the calibrated form, in standard deviations times events: one false alarm in A windows of nu events.

    Worked example: A = 10^6, nu = 50, shift .25: C solves e^C - C - 1 = 3,125,000, C = 14.96, H = 58.7.
    """
    kappa = settings.shift / 2
    y = 4 * kappa * kappa * np.exp(ln_threshold) * nu
    c = np.log1p(y) + 1
    for _ in range(_NEWTON_STEPS):
        c = c - (np.expm1(c) - c - y) / np.expm1(c)
    return np.asarray(np.maximum(c / (2 * kappa) - _OVERSHOOT, 0.0))


def _textbook(state: State, settings: Settings, sums: Sums) -> tuple[State, Verdicts]:
    weight = np.where(sums.n > 0, sums.n, 1.0)
    x = sums.s / weight
    n = state.n + weight
    mean = state.mean + weight / n * (x - state.mean)
    ignored = weight[:, None] * np.array([settings.delta, -settings.delta])
    fade = settings.alpha**weight
    cumulated = fade[:, None] * state.cumulated + (weight * (x - mean))[:, None] - ignored
    low = np.minimum(state.turning[:, 0], cumulated[:, 0])
    high = np.maximum(state.turning[:, 1], cumulated[:, 1])
    statistic = np.maximum(cumulated[:, 0] - low, high - cumulated[:, 1])
    warm = n >= settings.min_instances
    fires = warm & (statistic > settings.threshold) & (sums.reason == Reason.NONE)
    reason = np.where((sums.reason == Reason.NONE) & ~warm, Reason.WARMING_UP, sums.reason).astype(np.int8)
    after = structs.replace(
        state, n=n, mean=mean, cumulated=cumulated, turning=np.stack([low, high], axis=1), spent=fires
    )
    return after, judge_test(fires, statistic, np.full(len(n), settings.threshold), reason)


def _calibrated(state: State, settings: Settings, sums: Sums, law: Law, checked: Bools) -> tuple[State, Verdicts]:
    expected = law.mean + state.shift
    varies = law.sd > 0
    y = (sums.s - sums.n * expected) / (np.where(varies, law.sd, 1.0) * sums.phi)
    slack = settings.shift / 2 * sums.n / sums.phi
    gained = np.where(varies[:, None], np.stack([y, -y], axis=1) - slack[:, None], 0.0)
    cumulated = np.where(checked[:, None], np.maximum(state.cumulated + gained, 0.0), 0.0)
    begun = state.cumulated <= 0
    since_ms = np.where(begun, sums.start_ms, state.since_ms)
    since_n = np.where(begun, 0.0, state.since_n) + sums.n[:, None]
    since_s = np.where(begun, 0.0, state.since_s) + sums.s[:, None]
    threshold = limit(settings, sums.ln_threshold, law.nu)
    side = np.argmax(cumulated, axis=1)
    statistic = _side(cumulated, side)
    fires = checked & (statistic > threshold)
    mean = _side(since_s, side) / np.where(fires, _side(since_n, side), 1.0)
    changes = Changes(
        at_ms=np.where(fires, _side(since_ms, side), sums.start_ms).astype(np.int64),
        before=np.where(fires, expected, np.nan),
        after=np.where(fires, mean, np.nan),
    )
    after = structs.replace(
        state,
        cumulated=np.where(fires[:, None], 0.0, cumulated),
        shift=np.where(fires, mean - law.mean, state.shift),
        since_ms=since_ms,
        since_n=since_n,
        since_s=since_s,
    )
    return after, judge_test(fires, statistic, threshold, sums.reason, changes)


def _side(pairs: Floats | Ints, side: Ints) -> Floats:
    return np.asarray(pairs[np.arange(len(side)), side])


def _choose(chosen: Bools, new: State, old: State) -> State:
    if chosen.all():
        return new
    pairs = zip(structs.astuple(new), structs.astuple(old), strict=True)
    return State(*(np.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in pairs))
