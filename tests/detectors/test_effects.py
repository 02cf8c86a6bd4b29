"""Effect sizes equal scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

from stream.detectors import effects as fx


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.integers(2, 16), st.integers(0, 2**32 - 1))
def test_effects_equal_scipy(bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, p = rng.dirichlet(np.ones(bins)) + 1e-9, rng.dirichlet(np.ones(bins)) + 1e-9
    q, p = q / q.sum(), p / p.sum()
    wide = np.zeros((2, 1, 16))
    wide[0, 0, :bins], wide[1, 0, :bins] = q, p
    found = fx.effects(wide[0], wide[1], np.array([True]))
    u = p.cumsum() - p / 2
    assert found.jensen_shannon[0] == pytest.approx(jensenshannon(q, p), abs=1e-9)
    assert found.psi[0] == pytest.approx(entropy(q, p) + entropy(p, q), rel=1e-9)
    assert found.wasserstein[0] == pytest.approx(wasserstein_distance(u, u, q, p), abs=1e-9)
    assert found.total_variation[0] == pytest.approx(0.5 * np.abs(q - p).sum())


def test_categories_have_no_distance_between_them() -> None:
    p = np.array([[0.5, 0.5]])
    assert np.isnan(fx.effects(p, p, np.array([False])).wasserstein[0])


def test_equal_laws_have_no_effect() -> None:
    p = np.array([[0.1, 0.2, 0.7, 0.0]])
    found = fx.effects(p, p, np.array([True]))
    assert found.total_variation[0] == found.psi[0] == found.jensen_shannon[0] == found.wasserstein[0] == 0


def test_smoothed_shares_sum_to_one_over_the_bins_in_use() -> None:
    shares = fx.smoothed(np.array([[3, 0, 7, 0], [0, 0, 0, 0]]), np.array([3, 4]))
    np.testing.assert_allclose(shares, [[3.5 / 11.5, 0.5 / 11.5, 7.5 / 11.5, 0], [0.25] * 4])


def test_chance_alone_brings_the_psi_it_is_said_to_bring() -> None:
    rng, bins = np.random.default_rng(1), np.full(2000, 10)
    n = np.full(2000, 500.0)
    q = fx.smoothed(rng.multinomial(500, np.full(10, 0.1), 2000), bins)
    p = fx.smoothed(rng.multinomial(10_000, np.full(10, 0.1), 2000), bins)
    found = fx.effects(q, p, np.ones(2000, np.bool_)).psi.mean()
    assert found == pytest.approx(fx.chance(bins, n, n * 20)[0], rel=0.05)
