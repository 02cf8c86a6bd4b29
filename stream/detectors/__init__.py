"""How surprised we are: profiles in, verdicts out. A page per method; none knows another.

Here stands what they share: the columns of a verdict, and the recursion every e-detector runs (`statistics.md` 5.3).
The leading axis of every array is the series: R of them at once. Everything is functional: arguments stay untouched.
"""

from enum import IntEnum
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Codes: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

ENABLED: Final = ("histogram", "mean", "adwin", "page_hinkley")
"""The detectors that are at work unless somebody chooses others."""
EVIDENCE_MIN: Final = -9.0
"""Readings show no less evidence than this, in log10: a billionth says "nothing", and 0 has no logarithm."""


class Level(IntEnum):
    """What the mathematics says, from nothing to certainty; the worst of many is their maximum."""

    NOT_READY = 0
    OK = 1
    WARNING = 2
    DRIFT = 3


class Reason(IntEnum):
    """Why a series has no verdict; `NONE` where it has one. A series with a reason neither bets nor learns."""

    NONE = 0
    NO_REFERENCE = 1
    LEARNING = 2
    REFERENCE_CHANGED = 3
    REFERENCE_SMALL = 4
    WARMING_UP = 5
    EMPTY = 6
    MUTED = 7


class Sums(Struct, frozen=True, eq=False):
    """One closed window of R bounded signals, every one in [0, 1]: what mergeable sums tell of it."""

    start_ms: int
    n: Floats
    """[R] events; 0 in an empty window."""
    s: Floats
    """[R] sum of the values."""
    m2: Floats
    """[R] sum of squared deviations from the window's own mean."""
    phi: Floats
    """[R] overdispersion at this n, at least 1."""
    ln_threshold: Floats
    """[R] ln of the threshold A_s of the member."""
    reason: Codes
    """[R] of `Reason`: a series with one keeps its state as it is."""
    testing: Bools
    """[R] False while an episode of its group is open: detectors without evidence then rest."""


class Changes(Struct, frozen=True, eq=False):
    """What a test that fired found, per series; rows that did not fire hold NaN and the start of the window."""

    at_ms: Ints
    """[R] start of the window in which the new state began."""
    before: Floats
    """[R] mean until then."""
    after: Floats
    """[R] mean since then."""


class Verdicts(Struct, frozen=True, eq=False):
    """Verdicts of one window, a column per field; NaN stands for "not applicable"."""

    level: Codes
    """[R] of `Level`."""
    statistic: Floats
    """[R] in the detector's unit: log10 for e-detectors."""
    threshold: Floats
    """[R] in the unit of the statistic."""
    evidence: Floats
    """[R] log10 of the e-value; NaN for detectors without one."""
    reason: Codes
    """[R] of `Reason`."""
    changes: Changes | None = None
    """Of detectors that locate the change themselves."""


def ln_sum(ln: Floats) -> Floats:
    """ln of the sum over the last axis of what is given as logarithms; -inf stands for 0, also for all of them."""
    top = np.max(ln, axis=-1)
    anchor = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.asarray(anchor + np.log(np.exp(ln - anchor[..., None]).sum(-1)))


def pay_in(weights: Floats, bets: Bools, n_prev: Floats, phi_prev: Floats) -> Floats:
    """What every expert pays in before a window: its weight over phi, nothing when it is idle or nothing was seen.

    `weights` broadcasts to [R, K] and sums to at most 1 over K; `bets` [R, K]; `n_prev` and `phi_prev` [R] belong to
    the window before, so that nothing here depends on the window that is judged.
    """
    share = np.where(n_prev >= 1, 1.0 / phi_prev, 0.0)
    return np.asarray(np.where(bets, weights * share[:, None], 0.0))


def multiply(ln_m: Floats, pay: Floats, ln_e: Floats) -> Floats:
    """The recursion of an e-detector: M := (M + pay) * E, in logarithms, [R, K]."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(ln_m, np.log(pay)) + ln_e)


def capped(ln_e: Floats, weights: Floats, phi_prev: Floats, ln_threshold: Floats, confirm: int) -> Floats:
    """Evidence of one window, limited so that one expert needs `confirm` windows to cross the threshold from rest.

    What it pays in is its weight over `phi_prev` [R]: a limit that forgot this would need a window more.
    """
    with np.errstate(divide="ignore"):
        limit = (ln_threshold[:, None] - np.log(weights / phi_prev[:, None])) / confirm
    return np.minimum(ln_e, limit)


def judge_evidence(ln_m: Floats, ln_threshold: Floats, reason: Codes) -> Verdicts:
    """Verdicts of e-detectors: drift from A on, warning from the root of A on.

    `ln_m` [R] is the natural logarithm of a series' M, `ln_threshold` [R] that of its A.
    """
    silent = reason != Reason.NONE
    level = np.where(ln_m >= ln_threshold, Level.DRIFT, np.where(ln_m >= ln_threshold / 2, Level.WARNING, Level.OK))
    evidence = np.where(silent, np.nan, np.maximum(ln_m / np.log(10), EVIDENCE_MIN))
    return Verdicts(
        level=np.where(silent, Level.NOT_READY, level).astype(np.int8),
        statistic=evidence,
        threshold=np.where(silent, np.nan, ln_threshold / np.log(10)),
        evidence=evidence,
        reason=reason,
    )


def judge_test(
    fires: Bools, statistic: Floats, threshold: Floats, reason: Codes, changes: Changes | None = None
) -> Verdicts:
    """Verdicts of detectors without an e-value: drift where it fires, else ok."""
    silent = reason != Reason.NONE
    level = np.where(silent, Level.NOT_READY, np.where(fires, Level.DRIFT, Level.OK))
    return Verdicts(
        level=level.astype(np.int8),
        statistic=np.where(silent, np.nan, statistic),
        threshold=np.where(silent, np.nan, threshold),
        evidence=np.full(len(fires), np.nan),
        reason=reason,
        changes=changes,
    )
