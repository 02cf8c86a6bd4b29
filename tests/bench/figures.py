"""The published figures of the detectors, re-measured: false alarms against what is allowed, delays against medians.

`python tests/bench/figures.py` takes about two minutes on one core and prints measured beside published
(`statistics.md` 3, 4, 5.5, 6 and 13).
"""

import sys
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

from stream.detectors import Bools, Floats, Level, Sums, adwin, budget, histogram, ln_sum, mean, page_hinkley

EDGES = [NormalDist().inv_cdf(i / 16) for i in range(1, 16)]
P = np.full(16, 1 / 16)
Z = np.array([NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)])
SERIES = 1_000


def moved(shift: float, spread: float = 1.0) -> Floats:
    """16 bins, equal under N(0, 1), under another normal law."""
    return np.diff(np.array([0.0, *(NormalDist(shift, spread).cdf(e) for e in EDGES), 1.0]))


def histograms(series: int, epsilon: float, ln_a: float) -> Callable[[Any, Any, Bools | None], tuple[Any, Bools]]:
    """One window of every series; those that alarmed begin anew."""
    law = histogram.law(np.tile(P, (series, 1)), np.full(series, epsilon), z=np.tile(Z, (series, 1)))
    phi, ln, code = np.ones(series), np.full(series, ln_a), np.zeros(series, np.int8)

    def step(state: Any, counts: Any, restart: Bools | None) -> tuple[Any, Bools]:
        state = histogram.start(series, 16, 20) if state is None else state
        state = state if restart is None else histogram.reset(state, restart)
        window = histogram.Window(counts, law, phi, ln, code)
        state, verdicts = histogram.update(state, histogram.Settings(), window)
        return state, verdicts.level == Level.DRIFT

    return step


def rates(method: str, n: int, ln_a: float, tolerance: float) -> Callable[[Any, Any, Bools | None], tuple[Any, Bools]]:
    """The same for a rate of .2."""
    law = mean.law(np.full(SERIES, 0.2), np.full(SERIES, tolerance), np.ones(SERIES, np.bool_))
    normal = page_hinkley.Law(np.full(SERIES, 0.2), np.full(SERIES, 0.4), np.full(SERIES, float(n)))
    ones = np.ones(SERIES)

    def step(state: Any, s: Any, restart: Bools | None) -> tuple[Any, Bools]:
        code, testing = np.zeros(SERIES, np.int8), np.ones(SERIES, np.bool_)
        sums = Sums(0, ones * n, s, s - s * s / n, ones, ones * ln_a, code, testing)
        if method == "mean":
            state = mean.start(SERIES) if state is None else state
            state = state if restart is None else mean.reset(state, restart)
            state, verdicts = mean.update(state, mean.Settings(), mean.Window(sums, law))
        elif method == "adwin":
            state = adwin.start(SERIES, adwin.Settings()) if state is None else state
            state, verdicts = adwin.update(state, adwin.Settings(), adwin.Window(sums))
        else:
            state = page_hinkley.start(SERIES) if state is None else state
            state = state if restart is None else page_hinkley.reset(state, restart)
            state, verdicts = page_hinkley.update(state, page_hinkley.Settings(), page_hinkley.Window(sums, normal))
        return state, verdicts.level == Level.DRIFT

    return step


def alarms(step: Callable[[Any, Any, Bools | None], tuple[Any, Bools]], draw: Iterator[Any], windows: int) -> int:
    """False alarms of all series in so many windows each."""
    state, restart, total = None, None, 0
    for _ in range(windows):
        state, restart = step(state, next(draw), restart)
        total += int(restart.sum())
    return total


def delay(
    step: Callable[[Any, Any, Bools | None], tuple[Any, Bools]], quiet: Iterator[Any], after: Iterator[Any], most: int
) -> tuple[float, float]:
    """Median and 90 % quantile of the windows to the first alarm after 20 quiet ones."""
    state = None
    for _ in range(20):
        state, fired = step(state, next(quiet), None)
    found = np.full(len(fired), np.nan)
    for t in range(1, most + 1):
        state, fired = step(state, next(after), None)
        found[np.isnan(found) & fired] = t
    found = np.where(np.isnan(found), most + 1, found)
    return float(np.median(found)), float(np.quantile(found, 0.9))


def counts(p: Floats, n: int, series: int = SERIES, seed: int = 1) -> Iterator[Any]:
    """Windows of bins."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.multinomial(n, p, series)


def ones(p: float, n: int, seed: int = 1) -> Iterator[Any]:
    """Windows of rates."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.binomial(n, p, SERIES).astype(np.float64)


def fleet(windows: int = 500, periods: int = 20) -> int:
    """Alarms of 1,000 nulls, one group each, in 20 periods with a budget of one per period of 500 windows."""
    ln_a = float(np.log(1000 * windows))
    return alarms(histograms(1000, 0.0, ln_a), counts(P, 100, seed=9), windows * periods)


def group(members: int = 20) -> tuple[int, int]:
    """Windows until the sum of all members alarms and until the first member does, all moved by .25 sigma."""
    law = histogram.law(np.tile(P, (members, 1)), np.full(members, 0.02), z=np.tile(Z, (members, 1)))
    weights, ln_a = budget.ln_weights(members), float(np.log(1e6))
    state, draw = histogram.start(members, 16, 20), counts(moved(0.25), 50, members, 3)
    first: dict[str, int] = {}
    for t in range(1, 200):
        window = histogram.Window(next(draw), law, np.ones(members), ln_a - weights, np.zeros(members, np.int8))
        state, _ = histogram.update(state, histogram.Settings(), window)
        wealth = histogram.ln_evidence(state)
        if float(ln_sum(wealth + weights)) >= ln_a:
            first.setdefault("group", t)
        if (wealth >= ln_a - weights).any():
            first.setdefault("member", t)
    return first["group"], first["member"]


def main() -> None:
    """Print measured beside published."""
    out = sys.stdout.write
    thousand, million = float(np.log(1e3)), float(np.log(1e6))
    out("false alarms in 600,000 windows at A = 1,000, allowed 600\n")
    for n, epsilon, published in ((5, 0.0, 363), (5, 0.02, 29), (50, 0.0, 198), (50, 0.02, 1), (500, 0.0, 84)):
        found = alarms(histograms(SERIES, epsilon, thousand), counts(P, n), 600)
        out(f"  histogram n={n:<4} epsilon={epsilon:<5} {found:>6}   published {published}\n")
    edge = P + 0.02 * np.where(np.arange(16) < 8, 1, -1) / 8
    found = alarms(histograms(SERIES, 0.02, thousand), counts(edge, 500), 300)
    out(f"  histogram on the edge of the ball, 300,000 windows {found:>6}   published 8, allowed 300\n")
    for n, published in ((5, 411), (50, 129), (500, 0)):
        found = alarms(rates("page_hinkley", n, thousand, 0.0), ones(0.2, n), 600)
        out(f"  page_hinkley n={n:<4}           {found:>6}   published {published}\n")
    found = alarms(rates("mean", 50, thousand, 0.0), ones(0.2, 50), 800)
    out(f"  mean n=50, 800,000 windows       {found:>6}   published 416, allowed 800\n")
    found = alarms(rates("adwin", 50, float(np.log(10.0)), 0.0), ones(0.2, 50), 40)
    out(f"  adwin delta=.05, 40,000 windows  {found:>6}   published 3, allowed 4,000\n")
    out(f"  fleet of 1,000, 20 periods       {fleet():>6}   published 10, allowed 20\n")
    out("delay in windows at A = 10^6, median (90 %)\n")
    for name, law, n, epsilon, middle in (
        ("mu + .1 sigma", moved(0.1), 500, 0.02, "34 (49)"),
        ("mu + .25 sigma", moved(0.25), 50, 0.02, "19 (33)"),
        ("mu + .25 sigma", moved(0.25), 50, 0.0, "11 (16)"),
        ("mu + .5 sigma", moved(0.5), 50, 0.02, "5 (7)"),
        ("mu + 1 sigma", moved(1.0), 50, 0.02, "2 (2)"),
        ("sigma x 1.25", moved(0.0, 1.25), 50, 0.02, "15 (28)"),
    ):
        median, most = delay(histograms(200, epsilon, million), counts(P, n, 200), counts(law, n, 200, 2), 80)
        out(f"  {name:<16} n={n:<4} epsilon={epsilon:<5} {median:.0f} ({most:.0f})   published {middle}\n")
    for rate, tolerance, known in ((0.25, 0.0, 37), (0.3, 0.0, 11), (0.3, 0.01, 14), (0.4, 0.01, 4)):
        median, most = delay(rates("mean", 50, million, tolerance), ones(0.2, 50), ones(rate, 50, 2), 100)
        out(f"  mean .2 to {rate:<5} tolerance={tolerance:<5} {median:.0f} ({most:.0f})   published {known}\n")
    together, alone = group()
    out(f"group of 20 moved by .25 sigma: the sum after {together} windows, its first member after {alone}\n")


if __name__ == "__main__":
    main()
