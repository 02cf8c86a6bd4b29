"""How many series and windows a second the detectors judge on one core."""

import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from stream.detectors import histogram

SERIES = 1_000


def histograms() -> Callable[[], None]:
    """16 ordered bins, the default tolerance, 500 events a window."""
    rng = np.random.default_rng(1)
    p = np.full((SERIES, 16), 1 / 16)
    z = np.tile([NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)], (SERIES, 1))
    law = histogram.law(p, np.full(SERIES, 0.02), z=z)
    windows = [
        histogram.Window(
            rng.multinomial(500, p[0], SERIES), law, np.ones(SERIES), np.full(SERIES, 14.0), np.zeros(SERIES, np.int8)
        )
        for _ in range(8)
    ]
    settings = histogram.Settings()

    def run() -> None:
        state = histogram.start(SERIES, 16, 16)
        for window in windows:
            state, _ = histogram.update(state, settings, window)

    return run


def rate(run: Callable[[], None], windows: int = 8, seconds: float = 1.0) -> float:
    """Series and windows a second, after one round to warm up."""
    run()
    rounds, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run()
        rounds += 1
    return SERIES * windows * rounds / (time.perf_counter() - begin)


def main() -> None:
    """Print one line per detector."""
    for name, make in (("histogram", histograms),):
        print(f"{name:<24}{rate(make()):>12,.0f} series-windows per second")


if __name__ == "__main__":
    main()
