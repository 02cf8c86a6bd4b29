"""How many series and windows a second the detectors judge on one core.

`python tests/bench/detectors.py` prints one line per detector, for 1,000 series at once and 500 events a window.
"""

import sys
import time
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from stream.detectors import Sums, adwin, histogram, mean, page_hinkley

SERIES = 1_000
EVENTS = 500
WARM = 200
"""Windows before the clock runs: histories are then as deep as they are in use."""


def histograms(bins: int, epsilon: float, *, ordered: bool) -> Callable[[Any], Any]:
    """Equal bins, nothing but chance."""
    rng = np.random.default_rng(1)
    p = np.full((SERIES, bins), 1 / bins)
    z = np.tile([NormalDist().inv_cdf((i + 0.5) / bins) for i in range(bins)], (SERIES, 1)) if ordered else None
    law = histogram.law(p, np.full(SERIES, epsilon), z=z)
    windows = [
        histogram.Window(counts, law, np.ones(SERIES), np.full(SERIES, 14.0), np.zeros(SERIES, np.int8))
        for counts in rng.multinomial(EVENTS, p[0], (16, SERIES))
    ]
    start = histogram.start(SERIES, bins, len(law.weights))
    return _turning(windows, start, lambda state, window: histogram.update(state, histogram.Settings(), window)[0])


def sums() -> list[Sums]:
    """Rates of .2."""
    rng = np.random.default_rng(2)
    totals = rng.binomial(EVENTS, 0.2, (16, SERIES)).astype(np.float64)
    n, ones = np.full(SERIES, float(EVENTS)), np.ones(SERIES)
    code, testing = np.zeros(SERIES, np.int8), np.ones(SERIES, np.bool_)
    return [Sums(0, n, s, s - s * s / EVENTS, ones, ones * 14, code, testing) for s in totals]


def means() -> Callable[[Any], Any]:
    """Both grids."""
    law = mean.law(np.full(SERIES, 0.2), np.full(SERIES, 0.02), np.zeros(SERIES, np.bool_))
    windows = [mean.Window(s, law) for s in sums()]
    return _turning(windows, mean.start(SERIES), lambda state, window: mean.update(state, mean.Settings(), window)[0])


def adwins() -> Callable[[Any], Any]:
    """The calibrated form: every border, every window."""
    settings = adwin.Settings()
    windows = [adwin.Window(s) for s in sums()]
    start = adwin.start(SERIES, settings)
    return _turning(windows, start, lambda state, window: adwin.update(state, settings, window)[0])


def page_hinkleys() -> Callable[[Any], Any]:
    """The calibrated form."""
    law = page_hinkley.Law(np.full(SERIES, 0.2), np.full(SERIES, 0.4), np.full(SERIES, float(EVENTS)))
    windows = [page_hinkley.Window(s, law) for s in sums()]
    settings = page_hinkley.Settings()
    start = page_hinkley.start(SERIES)
    return _turning(windows, start, lambda state, window: page_hinkley.update(state, settings, window)[0])


def defaults() -> Callable[[Any], Any]:
    """What every numeric signal goes through: its bins, the scores u and v, and u once more."""
    parts = [histograms(16, 0.02, ordered=True), adwins(), adwins(), page_hinkleys()]

    def turn(states: Any) -> Any:
        return [part(state) for part, state in zip(parts, states or [None] * len(parts), strict=True)]

    return turn


def _turning(windows: list[Any], start: Any, update: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def turn(state: Any) -> Any:
        for window in windows:
            state = update(start if state is None else state, window)
        return state

    return turn


def rate(turn: Callable[[Any], Any], seconds: float = 1.0) -> float:
    """Series and windows a second."""
    state, turns = None, 0
    for _ in range(WARM // 16):
        state = turn(state)
    begin = time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        state, turns = turn(state), turns + 1
    return SERIES * 16 * turns / spent


def subjects() -> dict[str, Callable[[Any], Any]]:
    """What turns, by name."""
    return {
        "histogram, 16 ordered bins": histograms(16, 0.02, ordered=True),
        "histogram, tolerance 0": histograms(16, 0.0, ordered=True),
        "histogram, 32 categories": histograms(32, 0.02, ordered=False),
        "mean": means(),
        "adwin": adwins(),
        "page_hinkley": page_hinkleys(),
        "all of a numeric signal": defaults(),
    }


def main() -> None:
    """Print one line per detector."""
    for name, turn in subjects().items():
        sys.stdout.write(f"{name:<30}{rate(turn):>12,.0f} series-windows per second\n")


if __name__ == "__main__":
    main()
