"""The mean e-detector: every expert is fair, changes are found, the margin is ignored."""

import numpy as np
import pytest
import streams
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream.detectors import Bools, Level, mean

EXACT = mean.Settings(tolerance=0.0)


def law_of(series: int, tolerance: float, p: float = 0.2, *, binary: bool = True) -> mean.Law:
    return mean.law(np.full(series, p), np.full(series, tolerance), np.full(series, binary))


def step(
    state: mean.State, p: float, law: mean.Law, ln_a: float, rng: np.random.Generator, n: int = 50
) -> tuple[mean.State, Bools]:
    s = rng.binomial(n, p, len(state.n_prev)).astype(np.float64)
    sums = streams.whole(np.full(len(s), n), s, s - s * s / n, 0, ln_a)
    state, verdicts = mean.update(state, EXACT, mean.Window(sums, law))
    return state, verdicts.level == Level.DRIFT


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    center=st.floats(0.02, 0.98),
    margin=st.floats(0, 0.2),
    place=st.floats(0, 1),
    low=st.floats(0, 1),
    high=st.floats(0, 1),
    binary=st.booleans(),
)
def test_no_expert_gains_on_one_event_while_the_mean_is_normal(
    *, center: float, margin: float, place: float, low: float, high: float, binary: bool
) -> None:
    law = mean.law(np.array([center]), np.array([margin]), np.array([binary]))
    wanted = max(0.0, center - margin) + place * (min(1.0, center + margin) - max(0.0, center - margin))
    # A law on two values with exactly this mean.
    a, b = wanted * low, wanted + (1 - wanted) * high
    share = (wanted - a) / (b - a) if b > a else 0.0
    gained = np.zeros(mean.EXPERTS)
    for x, weight in ((a, 1 - share), (b, share)):
        sums = streams.whole(np.array([1.0]), np.array([x]), np.zeros(1), ln_threshold=1e6)
        state = mean.State(np.zeros((1, mean.EXPERTS)), np.zeros(1), np.ones(1))
        after, _ = mean.update(state, EXACT, mean.Window(sums, law))
        gained += weight * np.exp(after.ln_m[0])
    assert (gained <= 1 + 1e-9).all()


@pytest.mark.parametrize(("after", "tolerance", "published"), [(0.25, 0.0, 1850), (0.3, 0.01, 700), (0.4, 0.01, 200)])
def test_a_change_is_found_as_fast_as_published(after: float, tolerance: float, published: int) -> None:
    rng, series = np.random.default_rng(1), 100
    law, state = law_of(series, tolerance), mean.start(series)
    for _ in range(20):
        state, _ = step(state, 0.2, law, np.log(1e6), rng)
    found = np.full(series, np.nan)
    for t in range(150):
        state, fired = step(state, after, law, np.log(1e6), rng)
        found[np.isnan(found) & fired] = (t + 1) * 50
        if not np.isnan(found).any():
            break
    assert np.median(found) <= 1.5 * published + 50


def test_false_alarms_stay_within_the_budget() -> None:
    rng, series, windows, alarms = np.random.default_rng(2), 1000, 200, 0
    law, state = law_of(series, 0.0), mean.start(series)
    for _ in range(windows):
        state, fired = step(state, 0.2, law, np.log(1000.0), rng)
        alarms += int(fired.sum())
        state = mean.reset(state, fired)
    assert alarms <= series * windows / 1000


def test_a_falling_mean_of_a_continuous_signal_is_found_too() -> None:
    rng = np.random.default_rng(3)
    law, state = law_of(1, 0.01, 0.5, binary=False), mean.start(1)
    levels = []
    for t in range(60):
        x = np.clip(rng.normal(0.5 if t < 30 else 0.42, 0.1, 100), 0, 1)
        sums = streams.whole(np.array([100.0]), x.sum(keepdims=True), np.array([x.var() * 100]), t)
        state, verdicts = mean.update(state, mean.Settings(), mean.Window(sums, law))
        levels.append(int(verdicts.level[0]))
    assert Level.DRIFT not in levels[:30]
    assert Level.DRIFT in levels[30:40]


def test_a_side_that_cannot_be_left_is_not_tested() -> None:
    law = mean.law(np.array([0.005]), np.array([0.01]), np.array([True]))
    assert law.bets[0].tolist() == [True] * 6 + [False] * 18


def test_the_second_grid_bets_where_it_is_valid() -> None:
    law = mean.law(np.array([0.5, 0.5, 0.02]), np.full(3, 0.01), np.array([False, True, False]))
    assert law.bets.sum(-1).tolist() == [24, 12, 12]
    assert ((law.bets * law.weights).sum(-1) <= 1 + 1e-12).all()


def test_the_margin_shrinks_with_the_reference() -> None:
    wide = mean.margin(mean.Settings(), np.array([0.4, 0.4]), np.array([100.0, 10_000.0]))
    np.testing.assert_allclose(wide, [0.01 + 2.6 * 0.04, 0.01 + 2.6 * 0.004])
