"""Champion against challenger: few wrong decisions however often one looks, and few requests for a right one."""

import numpy as np
import pytest
from makings import plain

from stream.detectors import Floats, Level, Reason, Verdicts, challenger, interval
from stream.detectors.challenger import Decision, Settings, State, Window
from stream.wire import codec

DEFAULT = Settings()
DISAGREEMENT = 0.1


def window(s: Floats, squares: Floats, n: int, rivals: float = 1.0, reason: Reason = Reason.NONE) -> Window:
    r = len(s)
    return Window(np.full(r, float(n)), s, squares, np.full(r, rivals), np.full(r, reason, np.int8))


def drawn(rng: np.random.Generator, series: int, n: int, gain: float) -> Window:
    """n requests of which the two judge a tenth differently."""
    shares = [(DISAGREEMENT + gain) / 2, (DISAGREEMENT - gain) / 2, 1 - DISAGREEMENT]
    won, lost, _ = rng.multinomial(n, shares, series).T.astype(np.float64)
    return window(won - lost, won + lost, n)


def run(rng: np.random.Generator, series: int, n: int, windows: int, gain: float) -> tuple[State, Floats]:
    """The last state, and the requests until a decision for the challenger [R], infinite without one."""
    state, needed = challenger.start(series), np.full(series, np.inf)
    for t in range(windows):
        state, _ = challenger.update(state, DEFAULT, drawn(rng, series, n, gain))
        found = np.isinf(needed) & (state.decision == Decision.CHALLENGER_BETTER)
        needed[found] = (t + 1) * n
    return state, needed


@pytest.mark.parametrize("n", [1, 50])
def test_at_most_one_in_twenty_equal_challengers_is_promoted_while_every_window_is_looked_at(n: int) -> None:
    state, needed = run(np.random.default_rng(n), 2000, n, 400, 0.0)
    assert np.isfinite(needed).mean() <= 0.05
    assert (state.decision == Decision.CHAMPION_BETTER).mean() <= 0.05


def test_gains_of_a_regression_that_come_in_runs_promote_no_more_often() -> None:
    rng, series = np.random.default_rng(3), 2000
    state, scale = challenger.start(series), np.full(series, 0.5)
    for _ in range(200):
        # How far the two differ depends on how they differed before; who is better does not.
        gains = np.clip(scale[:, None] * rng.standard_normal((series, 20)), -1, 1)
        scale = np.clip(0.9 * scale + 0.2 * np.abs(gains).mean(axis=1), 0.05, 1)
        state, _ = challenger.update(state, DEFAULT, window(gains.sum(axis=1), (gains**2).sum(axis=1), 20))
    assert (state.decision == Decision.CHALLENGER_BETTER).mean() <= 0.05


@pytest.mark.parametrize(("gain", "published"), [(0.01, 8400), (0.02, 2400), (0.04, 800)])
def test_a_better_challenger_is_found_as_fast_as_published(gain: float, published: int) -> None:
    _, needed = run(np.random.default_rng(4), 500, 50, 2 * published // 50, gain)
    assert np.median(needed) <= 1.1 * published
    if gain == 0.02:
        assert np.median(needed) <= 1.75 * 1550


def test_a_worse_challenger_is_told_apart_from_a_better_one() -> None:
    state, needed = run(np.random.default_rng(5), 200, 50, 200, -0.03)
    assert (state.decision == Decision.CHAMPION_BETTER).mean() > 0.95
    assert np.isinf(needed).all()


def test_a_decision_stands_though_later_requests_speak_against_it() -> None:
    state, _ = challenger.update(challenger.start(1), DEFAULT, window(np.array([50.0]), np.array([50.0]), 100))
    state, verdicts = challenger.update(state, DEFAULT, window(np.array([-200.0]), np.array([200.0]), 400))
    assert state.decision.tolist() == [Decision.CHALLENGER_BETTER]
    assert verdicts.level.tolist() == [Level.DRIFT]
    assert interval.bounds(*challenger.on_unit_scale(state))[1] < 0.5


def test_rivals_share_the_probability_of_a_wrong_decision() -> None:
    evidence = []
    for rivals in (1.0, 5.0):
        _, verdicts = challenger.update(
            challenger.start(1), DEFAULT, window(np.array([9.0]), np.array([9.0]), 20, rivals)
        )
        evidence.append((float(verdicts.evidence[0]), float(verdicts.threshold[0])))
    assert evidence[0][0] == evidence[1][0]
    assert [threshold for _, threshold in evidence] == pytest.approx([np.log10(20), np.log10(100)])


def test_a_window_cut_in_two_says_the_same_and_nothing_is_touched() -> None:
    rng = np.random.default_rng(6)
    parts = [drawn(rng, 10, 50, 0.02) for _ in range(2)]
    whole = window(parts[0].s + parts[1].s, parts[0].squares + parts[1].squares, 100)
    state, before = challenger.start(10), plain(challenger.start(10))
    for part in parts:
        state, verdicts = challenger.update(state, DEFAULT, part)
    at_once, verdict = challenger.update(challenger.start(10), DEFAULT, whole)
    assert plain([state, verdicts]) == plain([at_once, verdict])
    assert plain(challenger.start(10)) == before
    assert plain(codec.decode(codec.encode(state, "snapshot"), State)) == plain(state)


def test_an_empty_or_excused_window_changes_nothing() -> None:
    state, _ = challenger.update(challenger.start(2), DEFAULT, drawn(np.random.default_rng(7), 2, 50, 0.0))

    def seen(one: Window) -> Verdicts:
        after, verdicts = challenger.update(state, DEFAULT, one)
        assert plain(after) == plain(state)
        assert (verdicts.level == Level.NOT_READY).all()
        return verdicts

    assert (seen(window(np.zeros(2), np.zeros(2), 0)).reason == Reason.EMPTY).all()
    assert (seen(window(np.ones(2), np.ones(2), 9, reason=Reason.MUTED)).reason == Reason.MUTED).all()


def test_the_interval_of_the_mean_gain_misses_one_in_twenty_at_most_over_all_windows() -> None:
    rng, series, gain = np.random.default_rng(8), 400, 0.02
    state, missed = challenger.start(series), np.zeros(series, np.bool_)
    for _ in range(60):
        state, _ = challenger.update(state, DEFAULT, drawn(rng, series, 200, gain))
        low, high = (2 * bound - 1 for bound in interval.bounds(*challenger.on_unit_scale(state)))
        missed |= (gain < low) | (gain > high)
    assert missed.mean() <= 0.05
    assert (high - low).max() < 0.03
