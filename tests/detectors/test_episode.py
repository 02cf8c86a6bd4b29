"""Episodes: the error of a law, the new law, and whether the old one is back."""

import numpy as np
import pytest

from stream.detectors import episode
from stream.profiles.reference import epsilon_ref

UNIFORM = np.full((1, 16), 1 / 16)


@pytest.mark.parametrize(
    ("rows", "published"),
    [(1e3, 0.077), (5e3, 0.035), (15e3, 0.020), (5e4, 0.011), (1e5, 0.0077), (1e6, 0.0024)],
)
def test_the_error_of_a_law_is_the_published_one(rows: float, published: float) -> None:
    assert epsilon_ref(UNIFORM, np.array([rows]))[0] == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("bins", [2, 4, 16, 64])
def test_99_of_100_estimated_laws_lie_within_their_error(bins: int) -> None:
    rng, p = np.random.default_rng(1), np.full(bins, 1 / bins)
    counts = rng.multinomial(5000, p, 4000)
    far = episode.distance(counts / 5000, p) > epsilon_ref(p[None], np.array([5000.0]))
    assert far.mean() <= 0.0125


def test_the_new_law_leans_on_the_old_one() -> None:
    law = episode.new_law(np.array([[30, 0, 10, 0], [0, 0, 0, 0]]), np.array([[0.5, 0.25, 0.25, 0.0]] * 2))
    np.testing.assert_allclose(law, [[31.5 / 43, 0.75 / 43, 10.75 / 43, 0], [0.5, 0.25, 0.25, 0]])
    np.testing.assert_allclose(law.sum(-1), 1)


def test_the_ball_around_the_new_law_never_holds_the_old_one() -> None:
    q = UNIFORM.copy()
    q[0, 0], q[0, 1] = 1 / 16 + 0.03, 1 / 16 - 0.03
    assert episode.radius(q, UNIFORM, np.array([1e3]), 0.02)[0] == pytest.approx(0.015)
    assert episode.radius(q, UNIFORM, np.array([1e9]), 0.001)[0] == pytest.approx(0.001, abs=1e-4)


def test_a_return_is_seen_and_a_third_law_is_not_taken_for_one() -> None:
    rng = np.random.default_rng(2)
    back = rng.multinomial(3000, UNIFORM[0])[None]
    moved = np.roll(np.linspace(1, 3, 16), 3)[None]
    away = rng.multinomial(3000, moved[0] / moved.sum())[None]
    epsilon, phi = np.array([0.03]), np.ones(1)
    assert episode.returned(back, UNIFORM, epsilon, phi)[0]
    assert not episode.returned(away, UNIFORM, epsilon, phi)[0]
    assert not episode.returned(np.zeros((1, 16)), UNIFORM, epsilon, phi)[0]


def test_means_return_within_both_their_errors() -> None:
    home, sd = np.array([0.2, 0.2]), np.full(2, 0.4)
    found = episode.mean_returned(
        np.array([0.21, 0.3]), home, sd, rows=np.full(2, 5e3), reference_rows=np.full(2, 5e4), tolerance=0.01
    )
    assert found.tolist() == [True, False]
    margin = episode.mean_radius(np.array([0.21, 0.4]), home, sd, np.full(2, 1e4), 0.01)
    np.testing.assert_allclose(margin, [0.005, 0.01 + 2.6 * 0.004])
