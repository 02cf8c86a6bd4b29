"""The interval of a mean: it holds at every look, and is not much wider than one that holds at a single look."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.detectors import Floats, interval


def of_errors(n: float, rate: float, confidence: float = 0.95) -> tuple[float, float]:
    s = np.array([n * rate])
    low, high = interval.bounds(np.array([n]), s, s * (1 - rate), confidence)
    return float(low[0]), float(high[0])


def sums_of(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Of each row."""
    n = np.full(len(values), float(values.shape[1]))
    return n, values.sum(axis=1), values.var(axis=1) * n


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5])
def test_it_misses_one_in_twenty_at_most_over_all_windows(rate: float) -> None:
    rng, series = np.random.default_rng(1), 300
    n = s = np.zeros(series)
    missed = np.zeros(series, np.bool_)
    for _ in range(60):
        n, s = n + 50, s + rng.binomial(50, rate, series)
        low, high = interval.bounds(n, s, s - s * s / n)
        missed |= (rate < low) | (rate > high)
    assert missed.mean() <= 0.05


def test_rates_that_cluster_are_enclosed_as_well() -> None:
    rng, series = np.random.default_rng(2), 300
    n, s, missed = np.zeros(series), np.zeros(series), np.zeros(series, np.bool_)
    squares, sign = np.zeros(series), np.ones(series)
    for _ in range(60):
        # The spread follows what happened before; the expectation stays .3.
        width = np.where(sign > 0, 0.3, 0.05)
        values = 0.3 + width[:, None] * rng.uniform(-1, 1, (series, 30))
        sign = np.sign(values[:, -1] - 0.3)
        n, s, squares = n + 30, s + values.sum(axis=1), squares + (values**2).sum(axis=1)
        low, high = interval.bounds(n, s, squares - s * s / n)
        missed |= (low > 0.3) | (high < 0.3)
    assert missed.mean() <= 0.05


@pytest.mark.parametrize(("n", "rate"), [(1_000, 0.05), (4_200, 0.19), (20_000, 0.5), (1_000_000, 0.01)])
def test_it_is_about_twice_as_wide_as_one_for_a_single_look(n: int, rate: float) -> None:
    low, high = of_errors(n, rate)
    assert (high - low) / 2 <= 2.05 * 1.96 * np.sqrt(rate * (1 - rate) / n)


def test_values_that_spread_little_have_a_narrow_interval() -> None:
    rng = np.random.default_rng(3)
    low, high = interval.bounds(*sums_of(0.5 + 0.05 * rng.uniform(-1, 1, (1, 2000))))
    assert high - low < 0.015


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 10**7), share=st.floats(0, 1), spread=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_it_holds_the_observed_mean_and_mirrors_the_mirrored_signal(
    n: int, share: float, spread: float, confidence: float
) -> None:
    s = np.array([n * share])
    m2 = s * (1 - share) * spread
    low, high = interval.bounds(np.array([float(n)]), s, m2, confidence)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
    mirrored = interval.bounds(np.array([float(n)]), n - s, m2, confidence)
    assert 1 - mirrored[1] == pytest.approx(low, abs=1e-9)
    assert 1 - mirrored[0] == pytest.approx(high, abs=1e-9)


def test_more_confidence_is_wider_and_nothing_is_everything() -> None:
    widths = [np.diff(of_errors(500, 0.1, confidence))[0] for confidence in (0.5, 0.9, 0.99)]
    assert widths == sorted(widths)
    low, high = interval.bounds(np.zeros(1), np.zeros(1), np.zeros(1))
    assert (low.tolist(), high.tolist()) == ([0.0], [1.0])
