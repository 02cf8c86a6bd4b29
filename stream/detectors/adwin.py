"""ADWIN: is there a point in the recent past that splits it into two different means?

Statistic   the difference of the means on both sides of the border where it is largest for its bound
Fires when  the difference exceeds the bound. `calibrated`: an empirical Bernstein bound over all borders that spends
            1/(2 A) per window, so at most T/A false alarms in T windows for independent events (`statistics.md` 3);
            `textbook`: the published heuristic, equal to river's with one event per window
Cost        O(log windows) per window and series; 6 (log2 K + 1) entries of state for K windows
Blind to    changes of spread around the same mean (feed it the spread as a signal of its own)
Source      A. Bifet, R. Gavalda (2007), SDM; A. Maurer, M. Pontil, arXiv 0907.3740, theorem 10
"""

from math import log
from typing import Literal

import numpy as np
from msgspec import Struct, structs
from pydantic import BaseModel, ConfigDict, Field

from stream.detectors import Bools, Changes, Floats, Ints, Reason, Sums, Verdicts, judge_test

_SIDE_MIN = 5
"""Events that either side of a border needs in the calibrated form; its bound holds for any number."""
_ROWS_AT_START = 4


class Settings(BaseModel):
    """What a person may choose. All but `form` concerns the textbook form; the other one follows from the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["calibrated", "textbook"] = "calibrated"
    """Textbook delta is no false-alarm rate; it is here for comparison with what others published."""
    delta: float = Field(default=0.002, gt=0, lt=1)
    """The published default."""
    clock: int = Field(default=32, ge=1)
    """Windows between two checks."""
    max_buckets: int = Field(default=5, ge=1, le=64)
    """Entries per row of the histogram, in both forms: more locate better and cost more."""
    min_window_length: int = Field(default=5, ge=1)
    """Events that either side needs."""
    grace_period: int = Field(default=10, ge=0)
    """Events before the first check."""


class State(Struct, frozen=True, eq=False):
    """All a restart needs, for R series: an exponential histogram of L rows with C places each, and its totals.

    Row r holds entries made of 2^r windows, oldest first; places beyond `length` are 0.
    """

    n: Floats
    """[R, L, C] events (over phi in the calibrated form)."""
    s: Floats
    """[R, L, C] their sum."""
    q: Floats
    """[R, L, C] their squared deviations from their own mean."""
    start_ms: Ints
    """[R, L, C] start of the first window of the entry."""
    length: Ints
    """[R, L] entries in the row."""
    width: Floats
    """[R] events of all entries."""
    total: Floats
    """[R] sum of all entries."""
    deviation: Floats
    """[R] squared deviations of all entries from the common mean."""
    ticks: Ints
    """[R] windows since the series last began; the textbook form checks by them."""
    spent: Bools
    """[R] the textbook form fired: the next window begins from nothing."""


class Window(Struct, frozen=True, eq=False):
    """One closed window of R series."""

    sums: Sums
    centre: Floats | None = None
    """[R] mean the season makes us expect, subtracted by the calibrated form; None without slots."""


class Borders(Struct, frozen=True, eq=False):
    """All K = L C places of R histograms, oldest first: what lies before and after the border behind each place."""

    n_old: Floats
    n_new: Floats
    gap: Floats
    """Absolute difference of the two means; 0 where the border is not admissible."""
    admissible: Bools


def start(series: int, settings: Settings) -> State:
    """At rest."""
    shape = (series, _ROWS_AT_START, settings.max_buckets + 1)
    return State(
        n=np.zeros(shape),
        s=np.zeros(shape),
        q=np.zeros(shape),
        start_ms=np.zeros(shape, np.int64),
        length=np.zeros(shape[:2], np.int64),
        width=np.zeros(series),
        total=np.zeros(series),
        deviation=np.zeros(series),
        ticks=np.zeros(series, np.int64),
        spent=np.zeros(series, np.bool_),
    )


def update(state: State, settings: Settings, window: Window) -> tuple[State, Verdicts]:
    """One window further. Empty windows and series with a reason change nothing.

    While an episode is open (`testing` False) the calibrated form collects and does not check; the textbook form knows
    no episodes.
    """
    sums = window.sums
    reason = np.where((sums.reason == Reason.NONE) & (sums.n <= 0), Reason.EMPTY, sums.reason).astype(np.int8)
    taken = reason == Reason.NONE
    if settings.form == "textbook":
        state = insert(reset(state, state.spent & taken), taken, (sums.n, sums.s, sums.m2), sums.start_ms)
        return _textbook(state, settings, taken, structs.replace(sums, reason=reason))
    shifted = sums.s if window.centre is None else sums.s - sums.n * window.centre
    state = insert(state, taken, (sums.n / sums.phi, shifted / sums.phi, sums.m2 / sums.phi), sums.start_ms)
    centre = np.zeros(len(sums.n)) if window.centre is None else window.centre
    return _calibrated(state, taken & sums.testing, structs.replace(sums, reason=reason), centre)


def reset(state: State, series: Bools) -> State:
    """The chosen series ([R] mask) begin from nothing."""
    if not series.any():
        return state
    keep = ~series
    return State(*(value * keep.reshape(-1, *(1,) * (value.ndim - 1)) for value in structs.astuple(state)))


def insert(state: State, taken: Bools, entry: tuple[Floats, Floats, Floats], start_ms: int) -> State:
    """Append one entry (n, sum, squared deviations; [R] each) to the chosen series.

    Wherever a row has become too long its two oldest entries are merged into the next.
    """
    chosen = np.flatnonzero(taken)
    n, s, q = (column[chosen] for column in entry)
    new = State(*(value.copy() for value in structs.astuple(state)))
    width, total = new.width[chosen], new.total[chosen]
    gap = s / n - np.divide(total, width, out=np.zeros_like(total), where=width > 0)
    new.deviation[chosen] += q + gap * gap * n * width / (n + width)
    new.width[chosen] += n
    new.total[chosen] += s
    new.ticks[chosen] += 1
    _append(new, chosen, 0, (n, s, q, np.full(len(chosen), start_ms, np.int64)))
    return _compress(new, chosen)


def borders(state: State, side_min: float) -> Borders:
    """Every border of every series; admissible ones have at least `side_min` events on both sides."""
    flat = _flat(state)
    n_old = state.n[:, ::-1].reshape(flat).cumsum(-1)
    s_old = state.s[:, ::-1].reshape(flat).cumsum(-1)
    n_new, s_new = state.width[:, None] - n_old, state.total[:, None] - s_old
    filled = np.arange(state.n.shape[2]) < state.length[:, ::-1, None]
    admissible = filled.reshape(flat) & (n_old >= side_min) & (n_new >= side_min)
    old = np.divide(s_old, n_old, out=np.zeros_like(s_old), where=admissible)
    new = np.divide(s_new, n_new, out=np.zeros_like(s_new), where=admissible)
    return Borders(n_old=n_old, n_new=n_new, gap=np.abs(old - new), admissible=admissible)


def textbook_bound(state: State, cuts: Borders, settings: Settings) -> Floats:
    """What a gap must exceed at each border by the published rule; inf where the border is not admissible."""
    w = settings.min_window_length
    # Below two events the logarithm of a logarithm has no value; no border is admissible there.
    spend = np.log(2 * np.log(np.maximum(state.width, 2.0)) / settings.delta)[:, None]
    ok = cuts.admissible
    n_old, n_new = np.where(ok, cuts.n_old, w), np.where(ok, cuts.n_new, w)
    h = 1 / (n_old - w + 1) + 1 / (n_new - w + 1)
    variance = (state.deviation / np.maximum(state.width, 1.0))[:, None]
    return np.where(ok, np.sqrt(2 * h * variance * spend) + 2 / 3 * h * spend, np.inf)


def calibrated_bound(state: State, cuts: Borders, ln_threshold: Floats) -> Floats:
    """The bound of the calibrated form at each border, for delta = 1/(2 A); inf where it is not admissible."""
    k = np.maximum(cuts.admissible.sum(-1), 1)
    ln_spend = (np.log(8.0 * k) + ln_threshold)[:, None]
    others = np.maximum(state.width - 1, 1.0)
    sd = np.minimum(0.5, np.sqrt(state.deviation / others) + np.sqrt(2 * (log(4) + ln_threshold) / others))[:, None]
    n_old, n_new = np.where(cuts.admissible, cuts.n_old, 1.0), np.where(cuts.admissible, cuts.n_new, 1.0)
    bound = sd * np.sqrt(2 * (1 / n_old + 1 / n_new) * ln_spend) + np.maximum(1 / n_old, 1 / n_new) / 3 * ln_spend
    return np.where(cuts.admissible, bound, np.inf)


def drop_oldest(state: State, series: Bools) -> State:
    """The chosen series forget their oldest entry."""
    chosen = np.flatnonzero(series)
    new = State(*(value.copy() for value in structs.astuple(state)))
    row = new.length.shape[1] - 1 - np.argmax(new.length[chosen, ::-1] > 0, axis=1)
    n, s, q = new.n[chosen, row, 0], new.s[chosen, row, 0], new.q[chosen, row, 0]
    new.width[chosen] -= n
    new.total[chosen] -= s
    width, total = new.width[chosen], new.total[chosen]
    gap = s / n - np.divide(total, width, out=np.zeros_like(total), where=width > 0)
    # Rounding may carry what is left of a sum of squares below 0, and the root of that would be NaN for ever.
    new.deviation[chosen] = np.maximum(new.deviation[chosen] - (q + gap * gap * n * width / (n + width)), 0.0)
    for column in _columns(new):
        column[chosen, row, :-1] = column[chosen, row, 1:]
        column[chosen, row, -1] = 0
    new.length[chosen, row] -= 1
    return new


def shrink(state: State, series: Bools, settings: Settings, side_min: float) -> tuple[State, Bools]:
    """Drop oldest entries of the chosen series until no border exceeds the textbook bound; tell who lost any."""
    dropped = np.zeros(len(series), np.bool_)
    cuts = borders(state, side_min)
    exceeds = series & (cuts.gap > textbook_bound(state, cuts, settings)).any(-1)
    while exceeds.any():
        dropped |= exceeds
        state = drop_oldest(state, exceeds)
        cuts = borders(state, side_min)
        exceeds &= (cuts.gap > textbook_bound(state, cuts, settings)).any(-1)
    return state, dropped


def _textbook(state: State, settings: Settings, taken: Bools, sums: Sums) -> tuple[State, Verdicts]:
    due = taken & (state.ticks % settings.clock == 0) & (state.width > settings.grace_period)
    blank = np.full(len(due), np.nan)
    if not due.any():
        return state, judge_test(np.zeros(len(due), np.bool_), blank, blank, sums.reason)
    cuts = borders(state, settings.min_window_length)
    bound = textbook_bound(state, cuts, settings)
    best = np.argmax(cuts.gap / bound, axis=1)
    after, fires = shrink(state, due, settings, settings.min_window_length)
    lost = np.where(fires, state.width - after.width, 1.0)
    changes = Changes(
        at_ms=np.where(fires, _oldest_start(after), sums.start_ms),
        before=np.where(fires, (state.total - after.total) / lost, np.nan),
        after=np.where(fires, after.total / np.maximum(after.width, 1.0), np.nan),
    )
    statistic, threshold = _at(cuts.gap, best), _at(bound, best)
    seen = due & np.isfinite(threshold)
    statistic, threshold = np.where(seen, statistic, np.nan), np.where(seen, threshold, np.nan)
    after = structs.replace(after, spent=np.where(taken, fires, after.spent))
    return after, judge_test(fires, statistic, threshold, sums.reason, changes)


def _calibrated(state: State, checked: Bools, sums: Sums, centre: Floats) -> tuple[State, Verdicts]:
    cuts = borders(state, _SIDE_MIN)
    bound = calibrated_bound(state, cuts, sums.ln_threshold)
    best = np.argmax(cuts.gap / bound, axis=1)
    statistic, threshold = _at(cuts.gap, best), _at(bound, best)
    ready = np.isfinite(threshold) & checked
    fires = ready & (statistic > threshold)
    reason = np.where((sums.reason == Reason.NONE) & checked & ~ready, Reason.WARMING_UP, sums.reason).astype(np.int8)
    at_ms, old, new = _split(state, cuts, best)
    changes = Changes(
        at_ms=np.where(fires, at_ms, sums.start_ms),
        before=np.where(fires, old + centre, np.nan),
        after=np.where(fires, new + centre, np.nan),
    )
    statistic, threshold = np.where(ready, statistic, np.nan), np.where(ready, threshold, np.nan)
    return reset(state, fires), judge_test(fires, statistic, threshold, reason, changes)


def _split(state: State, cuts: Borders, best: Ints) -> tuple[Ints, Floats, Floats]:
    """Start of the newer side of the chosen borders, and both means; arbitrary where none is admissible."""
    flat = _flat(state)
    n_old, n_new = _at(cuts.n_old, best), _at(cuts.n_new, best)
    s_old = _at(state.s[:, ::-1].reshape(flat).cumsum(-1), best)
    # The newer side begins with the first entry behind the border; empty places in between are skipped.
    filled = (np.arange(state.n.shape[2]) < state.length[:, ::-1, None]).reshape(flat)
    behind = filled & (np.arange(filled.shape[1]) > best[:, None])
    at_ms = _at(state.start_ms[:, ::-1].reshape(flat), np.argmax(behind, axis=1)).astype(np.int64)
    return at_ms, s_old / np.where(n_old > 0, n_old, 1.0), (state.total - s_old) / np.where(n_new > 0, n_new, 1.0)


def _flat(state: State) -> tuple[int, int]:
    series, rows, places = state.n.shape
    return series, rows * places


def _at(table: Floats | Ints, index: Ints) -> Floats:
    return np.asarray(table[np.arange(len(index)), index])


def _oldest_start(state: State) -> Ints:
    row = state.length.shape[1] - 1 - np.argmax(state.length[:, ::-1] > 0, axis=1)
    return np.asarray(state.start_ms[np.arange(len(row)), row, 0])


def _columns(state: State) -> tuple[Floats, Floats, Floats, Ints]:
    return state.n, state.s, state.q, state.start_ms


def _append(new: State, chosen: Ints, row: int, entry: tuple[Floats, Floats, Floats, Ints]) -> None:
    place = new.length[chosen, row]
    for column, value in zip(_columns(new), entry, strict=True):
        column[chosen, row, place] = value
    new.length[chosen, row] += 1


def _compress(new: State, chosen: Ints) -> State:
    capacity, row = new.n.shape[2], 0
    chosen = chosen[new.length[chosen, 0] == capacity]
    while len(chosen):
        if row + 1 == new.length.shape[1]:
            new = _deeper(new)
        _append(new, chosen, row + 1, _merged_oldest(new, chosen, row))
        for column in _columns(new):
            column[chosen, row, :-2] = column[chosen, row, 2:]
            column[chosen, row, -2:] = 0
        new.length[chosen, row] -= 2
        row += 1
        chosen = chosen[new.length[chosen, row] == capacity]
    return new


def _merged_oldest(new: State, chosen: Ints, row: int) -> tuple[Floats, Floats, Floats, Ints]:
    n0, n1 = new.n[chosen, row, 0], new.n[chosen, row, 1]
    s0, s1 = new.s[chosen, row, 0], new.s[chosen, row, 1]
    gap = s0 / n0 - s1 / n1
    q = new.q[chosen, row, 0] + new.q[chosen, row, 1] + n0 * n1 / (n0 + n1) * gap * gap
    return n0 + n1, s0 + s1, q, new.start_ms[chosen, row, 0]


def _deeper(state: State) -> State:
    wide = [np.pad(column, ((0, 0), (0, 1), (0, 0))) for column in _columns(state)]
    n, s, q, start_ms = wide
    return structs.replace(state, n=n, s=s, q=q, start_ms=start_ms, length=np.pad(state.length, ((0, 0), (0, 1))))
