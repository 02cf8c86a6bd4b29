"""Silence: the bounds of its bets, what it finds, and when it is over."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.detectors import Level, Reason, silence

LN_A = 17.0


def window(n: float, expected: float = 100.0, phi: float = 1.0, **given: Any) -> silence.Window:
    return silence.Window(
        n=np.array([float(n)]),
        expected=np.array([expected]),
        phi=np.array([phi]),
        falls=np.array([given.get("falls", True)]),
        ln_threshold=np.array([given.get("ln_a", LN_A)]),
        reason=np.array([given.get("reason", Reason.NONE)], np.int8),
    )


def levels(numbers: list[float], **given: Any) -> list[int]:
    state, found = silence.start(1), []
    for n in numbers:
        state, verdicts = silence.update(state, window(n, **given))
        found.append(int(verdicts.level[0]))
    return found


def test_two_empty_windows_are_a_silence_and_one_is_not() -> None:
    assert levels([100, 100, 0, 0])[2:] == [Level.WARNING, Level.DRIFT]
    assert Level.DRIFT not in levels([100, 0, 100, 0, 100, 0, 100])


def test_rare_events_take_as_many_empty_windows_as_their_rarity() -> None:
    found = levels([0] * 60, expected=0.5)
    assert 30 < found.index(Level.DRIFT) < 40


def test_a_fall_to_half_is_found_and_one_by_a_tenth_is_not() -> None:
    assert Level.DRIFT in levels([50] * 4)
    assert set(levels([90] * 2_000)) == {Level.OK}


def test_a_fall_is_not_bet_on_where_the_day_is_not_known() -> None:
    assert set(levels([30] * 100, falls=False)) == {Level.OK}
    assert Level.DRIFT in levels([0] * 2, falls=False)


def test_numbers_that_spread_more_take_longer() -> None:
    alarms = [levels([0] * 400, phi=phi).index(Level.DRIFT) for phi in (1.0, 100.0, 1_000.0)]
    assert alarms == sorted(alarms)
    assert alarms[0] == 1
    assert alarms[2] > 10


def test_nothing_is_bet_on_what_is_not_expected_and_nothing_learned_with_a_reason() -> None:
    state, verdicts = silence.update(silence.start(1), window(0, expected=0.0))
    assert np.isneginf(silence.ln_evidence(state))[0]
    assert verdicts.level[0] == Level.OK
    state, verdicts = silence.update(state, window(0, reason=Reason.LEARNING))
    assert np.isneginf(silence.ln_evidence(state))[0]
    assert verdicts.level[0] == Level.NOT_READY


@given(st.floats(0.05, 40), st.floats(1, 30))
@settings(max_examples=60)
def test_bets_gain_nothing_from_numbers_as_they_are_expected(expected: float, phi: float) -> None:
    """Of a negative binomial law for empty windows, of Poisson's for the half: E of the first window is at most 1."""
    rng = np.random.default_rng(int(expected * 1_000))
    spread = phi - 1
    counts = (
        rng.poisson(expected, 20_000) if spread < 1e-9 else rng.negative_binomial(expected / spread, 1 / phi, 20_000)
    )
    empty = expected if spread < 1e-9 else expected * np.log(phi) / spread
    # Bets so rare that 20,000 windows do not show them are left out.
    if empty < 6:
        assert (counts == 0).mean() * np.exp(empty) <= 1.5
    poisson = rng.poisson(expected, 20_000)
    half = np.exp((expected / 2 - poisson * np.log(2)) / phi)
    assert half.mean() <= 1.2 if expected < 10 else True


def test_false_alarms_stay_within_the_budget() -> None:
    """A = 200, 40,000 windows of Poisson's and of a wider law: 200 are allowed each."""
    rng, ln_a = np.random.default_rng(5), float(np.log(200.0))
    for phi in (1.0, 3.0):
        state, alarms = silence.start(50), 0
        shape = 5.0 / max(phi - 1, 1e-9)
        for _ in range(800):
            n = rng.poisson(5.0, 50) if phi == 1.0 else rng.negative_binomial(shape, 1 / phi, 50)
            ones = np.ones(50)
            reason = np.zeros(50, np.int8)
            state, verdicts = silence.update(
                state, silence.Window(n.astype(np.float64), 5 * ones, phi * ones, ones > 0, ln_a * ones, reason)
            )
            fired = verdicts.level == Level.DRIFT
            alarms += int(fired.sum())
            state = silence.reset(state, fired)
        assert alarms <= 200


def test_what_comes_back_is_noticed_and_half_of_it_is_not() -> None:
    def back(n: float) -> int:
        state = silence.start(1)
        for turn in range(50):
            state, verdicts = silence.returned(state, window(n))
            if verdicts.level[0] == Level.DRIFT:
                return turn
        return 50

    assert back(100) == 1
    assert back(90) <= 2
    assert back(50) == 50
    assert back(0) == 50


def test_series_do_not_know_each_other() -> None:
    two = silence.Window(
        n=np.array([0.0, 100.0]),
        expected=np.array([100.0, 100.0]),
        phi=np.ones(2),
        falls=np.array([True, True]),
        ln_threshold=np.full(2, LN_A),
        reason=np.zeros(2, np.int8),
    )
    state = silence.start(2)
    for _ in range(2):
        state, verdicts = silence.update(state, two)
    assert verdicts.level.tolist() == [Level.DRIFT, Level.OK]
    alone = silence.reset(state, np.array([True, False]))
    assert np.isneginf(silence.ln_evidence(alone))[0]
    assert silence.ln_evidence(alone)[1] == silence.ln_evidence(state)[1]


@pytest.mark.parametrize("n", [0.0, 1.0, 1e9])
def test_evidence_is_finite_or_nothing(n: float) -> None:
    state = silence.start(1)
    for phi in (1.0, 1.0 + 1e-12, 1e6):
        state, verdicts = silence.update(state, window(n, phi=phi))
        assert not np.isnan(silence.ln_evidence(state))[0]
        assert not np.isnan(verdicts.statistic)[0]
