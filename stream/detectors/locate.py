"""Locate: since when has it changed, and in which shape?

Statistic   the likelihood ratio of a change at every remembered border, the reference counted as events that fit
Fires when  never: it is asked after an alarm
Cost        O(1) amortised per window to remember; O(entries x bins) per question
Memory      at most 8 entries of 2^r windows per row, r <= 6: the last 1,016 windows in 56 entries, 7 KB per series
            of 16 bins (3.6 KB and less once encoded)
Blind to    the exact window of a change that lies inside an entry: the interval then covers the entry
Source      D. Siegmund (1988), Confidence sets in change-point problems, Int. Stat. Rev. 56; G. Schwarz (1978), BIC
"""

from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from stream.detectors import Bools, Floats, Ints

ENTRIES_PER_ROW: Final = 8
ROWS: Final = 7
_QUANTILE: Final = 7.35
"""95 % of twice the log likelihood ratio at the true change: (1 - exp(-x/2))^2 = .95."""
_BEFORE: Final = 40
"""Windows before the change that the shape is fitted on: enough to see the old level."""
_BIC_MARGIN: Final = 6.0
"""By how much a richer shape must win: "strong" on the scale of Kass and Raftery."""
_RAMP_MIN: Final = 3
"""Windows; a shorter ramp is a step that did not fall on a border."""
RECURRING_MAX: Final = 20
"""Earlier laws remembered per signal."""

ChangeType: TypeAlias = Literal["sudden", "gradual", "temporary", "recurring"]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class History(Struct, frozen=True, eq=False):
    """The last windows of R series in exponential entries, oldest first. Made by `start`.

    For distributions `values` holds [R, B] counts per entry and `expected` what the season expected there; for means
    [R, 2] of n and sum, and [R, 1] of the expected sum. `expected` is empty without seasonal slots. Entries are shared
    between the histories that follow one another, so a window costs one array, not a copy of all.
    """

    row: list[int]
    """Entry i holds 2^row windows."""
    start_ms: list[int]
    values: list[Numbers]
    expected: list[Floats]


class ChangePoint(Struct, frozen=True):
    """The window in which the new state began, and the borders between which it did with 95 % confidence."""

    at_ms: int
    earliest_ms: int
    latest_ms: int


class Path(Struct, frozen=True, eq=False):
    """How far one score lay from the reference, per entry: what the shape of a change is fitted on."""

    windows: Ints
    """[K] windows in the entry."""
    residual: Floats
    """[K] mean of the score minus its expectation."""
    weight: Floats
    """[K] events over its variance."""


def start() -> History:
    """Nothing remembered."""
    return History([], [], [], [])


def remember(history: History, start_ms: int, values: Numbers, expected: Floats | None = None) -> History:
    """One window more, for all series at once; empty windows too, so that entries mean the same time for all.

    `expected` is given always or never. Two oldest entries of a row that has become too long are merged into the next;
    what overflows the last row is forgotten.
    """
    row, starts = [*history.row, 0], [*history.start_ms, start_ms]
    tables: list[list[Numbers]] = [[*history.values, values]]
    if expected is not None:
        tables.append([*history.expected, expected])
    for r in range(ROWS):
        if row.count(r) <= ENTRIES_PER_ROW:
            break
        oldest = row.index(r)
        if r + 1 == ROWS:
            del row[oldest], starts[oldest]
            for table in tables:
                del table[oldest]
            break
        row[oldest : oldest + 2] = [r + 1]
        del starts[oldest + 1]
        for table in tables:
            table[oldest : oldest + 2] = [table[oldest] + table[oldest + 1]]
    return History(row, starts, tables[0], tables[1] if expected is not None else [])


def since(history: History, series: int | Ints, from_ms: int) -> Numbers:
    """Sum of one series over all entries that begin at or after `from_ms`: [B] counts, or [2] n and sum.

    Of several series ([S] indices) a row for each.
    """
    chosen = _behind(history, from_ms)
    return np.asarray(_stacked(history.values, series, chosen).sum(0))


def change_point(  # noqa: PLR0913 - a question with all it depends on, nothing to bundle
    history: History, series: int, p: Floats, *, rows: float, phi: float, from_ms: int, end_ms: int
) -> ChangePoint | None:
    """Since when the distribution of one series differs from `p` [B]; None when nothing is remembered.

    `rows` is m' = m/phi, the events behind the reference (0 for a law that was itself found by an alarm), `phi` the
    overdispersion of the reference. Looks at entries from `from_ms` on; `end_ms` is the end of the last window.
    """
    chosen = _behind(history, from_ms)
    if not chosen.any():
        return None
    counts = _stacked(history.values, series, chosen).astype(np.float64)
    expected = _stacked(history.expected, series, chosen) if history.expected else counts.sum(1, keepdims=True) * p
    known = rows * p
    old, old_expected = _earlier(counts), _earlier(expected)
    new, new_expected = counts.sum(0) - old, expected.sum(0) - old_expected
    likelihood = _divergence(new, new_expected) + _divergence(old + known, old_expected + known)
    return _located(history, chosen, likelihood, phi, end_ms)


def mean_change_point(  # noqa: PLR0913 - as `change_point`
    history: History, series: int, mean: float, sd: float, *, rows: float, phi: float, from_ms: int, end_ms: int
) -> ChangePoint | None:
    """Since when the mean of one series differs from `mean`; `sd` > 0 of the reference, the rest as `change_point`."""
    chosen = _behind(history, from_ms)
    if not chosen.any():
        return None
    n, deviation = _deviations(history, series, chosen, np.array([1.0]), np.array([mean]))
    old_n, old = _earlier(n), _earlier(deviation)
    new_n, new = n.sum() - old_n, deviation.sum() - old
    likelihood = (_square_over(new, new_n) + _square_over(old, old_n + rows)) / (2 * sd * sd)
    return _located(history, chosen, likelihood, phi, end_ms)


def path(  # noqa: PLR0913 - as `change_point`
    history: History, series: int, scores: Floats, law: Floats, *, sd: float, phi: float, at_ms: int
) -> Path:
    """The way of one score of one series from 40 windows before `at_ms` until now.

    Distributions: `scores` [B] per bin (u or v) and `law` [B]; means: `scores` [1.0] and `law` [mean]. `sd` > 0 of the
    score under the reference.
    """
    starts, sizes = np.array(history.start_ms), 2 ** np.array(history.row)
    ends = sizes.cumsum()
    change = (ends - sizes)[np.searchsorted(starts, at_ms)] if at_ms <= starts[-1] else ends[-1]
    chosen = ends > change - _BEFORE
    n, deviation = _deviations(history, series, chosen, scores, law)
    residual = np.divide(deviation, n, out=np.zeros_like(n), where=n > 0)
    return Path(windows=sizes[chosen], residual=residual, weight=n / (sd * sd * phi))


def change_type(way: Path, *, before: ChangeType | None, recurs: bool) -> ChangeType:
    """The shape of a change by BIC among step, pulse and ramp; a first guess is revised as windows come in.

    `before` is the last answer: `gradual` is not taken back to `sudden`, since old entries become coarse. `recurs` says
    whether the new law has been seen before (`recurs_among`).
    """
    ends = way.windows.cumsum().astype(np.float64)
    begins = ends - way.windows
    penalty = np.log(len(ends))
    steps = _steps(begins, ends)
    step = -_step_gain(way, steps) + 2 * penalty
    pulse = -_pulse_gain(way, steps) + 3 * penalty
    gain, length = _ramp_gain(way, begins, ends)
    ramp = -gain + 3 * penalty
    if pulse + _BIC_MARGIN <= min(step, ramp):
        return "temporary"
    if ramp + _BIC_MARGIN <= min(step, pulse) and length > _RAMP_MIN:
        return "gradual"
    if recurs:
        return "recurring"
    return "gradual" if before == "gradual" else "sudden"


def recurs_among(law: Floats, earlier: Floats, radius: float) -> bool:
    """Whether a law [B] lies within total variation `radius` of one of the `earlier` [J, B] (J may be 0)."""
    return bool((0.5 * np.abs(earlier - law).sum(-1) <= radius).any())


def _behind(history: History, from_ms: int) -> Bools:
    return np.array(history.start_ms, np.int64) >= from_ms


def _stacked(entries: list[Numbers], series: int | Ints, chosen: Bools) -> Numbers:
    return np.stack([entry[series] for entry, take in zip(entries, chosen, strict=True) if take])


def _earlier(values: Floats) -> Floats:
    """Sums of all entries before each."""
    return np.asarray(values.cumsum(0) - values)


def _divergence(counts: Floats, expected: Floats) -> Floats:
    """D(C, X) of 10.1 per row: what is gained by fitting the row its own law. 0 for empty rows."""
    fits = (counts > 0) & (expected > 0)
    ratio = np.divide(counts, expected, out=np.ones_like(counts), where=fits)
    n, x = counts.sum(-1), expected.sum(-1)
    scale = np.divide(x, n, out=np.ones_like(n), where=(n > 0) & (x > 0))
    return np.asarray((counts * np.log(ratio)).sum(-1) + n * np.log(scale))


def _square_over(total: Floats, n: Floats) -> Floats:
    return np.asarray(np.divide(total * total, n, out=np.zeros_like(total), where=n > 0))


def _deviations(history: History, series: int, chosen: Bools, scores: Floats, law: Floats) -> tuple[Floats, Floats]:
    values = _stacked(history.values, series, chosen).astype(np.float64)
    if values.shape[1] == len(scores):
        n, total = values.sum(-1), (values * scores).sum(-1)
    else:
        n, total = values[:, 0], values[:, 1]
    if history.expected:
        expected = (_stacked(history.expected, series, chosen) * scores).sum(-1)
    else:
        expected = n * (law * scores).sum()
    return n, total - expected


def _located(history: History, chosen: Bools, likelihood: Floats, phi: float, end_ms: int) -> ChangePoint:
    borders = [*np.array(history.start_ms)[chosen].tolist(), end_ms]
    likely = np.flatnonzero(2 * (likelihood.max() - likelihood) <= _QUANTILE * phi)
    return ChangePoint(
        at_ms=borders[int(likelihood.argmax())],
        earliest_ms=borders[max(int(likely[0]) - 1, 0)],
        latest_ms=borders[int(likely[-1]) + 1],
    )


def _steps(begins: Floats, ends: Floats) -> Floats:
    """[4K, K] share of each entry behind each border, borders at the quarters of all entries."""
    size = ends - begins
    borders = (begins[:, None] + size[:, None] * np.array([0.0, 0.25, 0.5, 0.75])).reshape(-1)
    return np.asarray(np.clip((ends - borders[:, None]) / size, 0.0, 1.0))


def _gain(cross: Floats, square: Floats) -> float:
    """Largest fall of the weighted sum of squares by fitting the height of one shape."""
    return float(np.divide(cross * cross, square, out=np.zeros_like(cross), where=square > 0).max(initial=0.0))


def _step_gain(way: Path, steps: Floats) -> float:
    return _gain((steps * (way.weight * way.residual)).sum(-1), (steps * steps * way.weight).sum(-1))


def _pulse_gain(way: Path, steps: Floats) -> float:
    # A pulse is the difference of two steps, so all its sums follow from those of pairs of steps.
    cross = (steps * (way.weight * way.residual)).sum(-1)
    both = (steps * way.weight) @ steps.T
    own = np.diagonal(both)
    square = own[:, None] + own - 2 * both
    # Differences of nearly equal sums leave rounding where two borders share an empty entry: no pulse there.
    safe = np.where(square > 1e-9 * own.max(initial=0.0), square, 0.0)
    return _gain(cross[:, None] - cross, safe)


def _ramp_gain(way: Path, begins: Floats, ends: Floats) -> tuple[float, float]:
    borders = np.append(begins, ends[-1])
    first, last = np.triu_indices(len(borders), 1)
    low, high = borders[first][:, None], borders[last][:, None]
    shape = (_risen(ends, low, high) - _risen(begins, low, high)) / (ends - begins)
    cross, square = (shape * (way.weight * way.residual)).sum(-1), (shape * shape * way.weight).sum(-1)
    gains = np.divide(cross * cross, square, out=np.zeros_like(cross), where=square > 0)
    best = int(gains.argmax())
    return float(gains[best]), float(borders[last][best] - borders[first][best])


def _risen(t: Floats, low: Floats, high: Floats) -> Floats:
    """Integral of clip((t - low)/(high - low), 0, 1) from the beginning of time to t."""
    inside = np.clip(t - low, 0.0, high - low)
    return np.asarray(inside * inside / (2 * (high - low)) + np.maximum(t - high, 0.0))
