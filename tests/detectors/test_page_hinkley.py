"""Page-Hinkley: the textbook form is river's, the calibrated one follows the budget."""

from typing import Any

import numpy as np
import pytest
import streams
from msgspec import structs
from river import drift

from stream.detectors import Floats, Level, Reason, Verdicts
from stream.detectors import page_hinkley as ph


def law(series: int, n: float, mean: float = 0.2) -> ph.Law:
    return ph.Law(np.full(series, mean), np.full(series, np.sqrt(mean * (1 - mean))), np.full(series, n))


@pytest.mark.parametrize("seed", range(60))
def test_with_one_event_per_window_it_is_river(seed: int) -> None:
    rng = np.random.default_rng(seed)
    settings = ph.Settings(
        form="textbook",
        delta=float(rng.choice([0.0, 0.005, 0.05])),
        threshold=float(rng.choice([2.0, 5.0, 20.0])),
        alpha=float(rng.choice([1.0, 0.9999, 0.99])),
        min_instances=int(rng.choice([1, 30, 60])),
    )
    theirs: Any = drift.PageHinkley(settings.min_instances, settings.delta, settings.threshold, settings.alpha)
    values = rng.normal(np.repeat(rng.uniform(-1, 1, 6), 100), rng.uniform(0.1, 0.6))
    state = ph.start(1)
    for t, x in enumerate(values):
        theirs.update(float(x))
        state, verdicts = ph.update(state, settings, ph.Window(streams.single(np.array([x]), t)))
        assert (verdicts.level[0] == Level.DRIFT) == theirs.drift_detected
        assert state.cumulated[0, 0] == vars(theirs)["_sum_increase"]
        assert state.cumulated[0, 1] == vars(theirs)["_sum_decrease"]


def test_the_textbook_form_scores_as_river_on_two_sided_changes() -> None:
    settings, state = ph.Settings(form="textbook"), ph.start(30)
    values = np.stack([streams.bits(seed, streams.abrupt()) for seed in range(1, 31)], axis=1)
    alarms: list[list[int]] = [[] for _ in range(30)]
    for i, x in enumerate(values, start=1):
        state, verdicts = ph.update(state, settings, ph.Window(streams.single(x, i)))
        for k in np.flatnonzero(verdicts.level == Level.DRIFT):
            alarms[k].append(i)
    found, false, delay = streams.scored(alarms, list(range(1000, 10_000, 1000)))
    assert (found, false, round(delay, 2)) == (270, 0, 74.03)


def test_the_limit_solves_its_equation() -> None:
    settings = ph.Settings()
    high = ph.limit(settings, np.log([10.0, 1e3, 1e6, 1e12]), np.array([1.0, 5.0, 50.0, 5000.0]))
    c = (high + 1.166) * settings.shift
    wanted = settings.shift**2 * np.array([10.0, 5e3, 5e7, 5e15])
    np.testing.assert_allclose(np.expm1(c) - c, wanted, rtol=1e-9)
    assert ph.limit(settings, np.log([1e6]), np.array([50.0]))[0] == pytest.approx(58.7, abs=0.1)
    assert ph.limit(settings, np.log([1e-9]), np.array([1.0]))[0] == 0.0


def run(p: Floats, n: int, ln_a: float, state: ph.State, t: int, rng: np.random.Generator) -> tuple[ph.State, Verdicts]:
    s = rng.binomial(n, p).astype(np.float64)
    sums = streams.whole(np.full(len(p), n), s, s - s * s / n, t, ln_a)
    return ph.update(state, ph.Settings(), ph.Window(sums, law(len(p), n)))


@pytest.mark.parametrize("n", [5, 50, 500])
def test_false_alarms_stay_within_what_was_measured(n: int) -> None:
    rng, series, windows = np.random.default_rng(1), 1000, 200
    state, alarms = ph.start(series), 0
    for t in range(windows):
        state, verdicts = run(np.full(series, 0.2), n, np.log(1000.0), state, t, rng)
        fired = verdicts.level == Level.DRIFT
        alarms += int(fired.sum())
        state = ph.reset(state, fired)
    allowed = series * windows / 1000
    assert alarms <= allowed + 3 * np.sqrt(allowed)


def test_a_rise_is_found_located_and_then_normal() -> None:
    rng, series = np.random.default_rng(2), 100
    state = ph.start(series)
    for t in range(100):
        state, _ = run(np.full(series, 0.2), 50, np.log(1e6), state, t, rng)
    found, at = np.full(series, np.nan), np.zeros(series)
    alarms = 0
    for t in range(100, 160):
        state, verdicts = run(np.full(series, 0.3), 50, np.log(1e6), state, t, rng)
        fired = verdicts.level == Level.DRIFT
        alarms += int(fired.sum())
        assert verdicts.changes is not None
        fresh = fired & np.isnan(found)
        found[fresh] = (t - 99) * 50
        at[fresh] = verdicts.changes.at_ms[fresh] / 60_000
        assert (verdicts.changes.before[fresh] == 0.2).all()
        assert (verdicts.changes.after[fresh] > 0.2).all()
    assert np.median(found) <= 1.5 * 450 + 50
    assert abs(np.median(at) - 100) <= 3
    # What it found is its new normal: one detection per change, seldom two.
    assert alarms <= 1.3 * series


def test_an_open_episode_rests_it() -> None:
    rng = np.random.default_rng(3)
    state = ph.start(1)
    for t in range(50):
        s = rng.binomial(50, 0.6, 1).astype(np.float64)
        sums = structs.replace(streams.whole(np.full(1, 50.0), s, s * 0.4, t), testing=np.zeros(1, np.bool_))
        state, verdicts = ph.update(state, ph.Settings(), ph.Window(sums, law(1, 50)))
        assert verdicts.level[0] == Level.OK
    assert (state.cumulated == 0).all()


def test_a_signal_that_never_varied_is_not_tested() -> None:
    state = ph.start(1)
    still = ph.Law(np.array([0.5]), np.zeros(1), np.array([10.0]))
    for t in range(50):
        sums = streams.whole(np.array([10.0]), np.array([9.0]), np.zeros(1), t)
        state, verdicts = ph.update(state, ph.Settings(), ph.Window(sums, still))
        assert verdicts.level[0] == Level.OK


def test_the_textbook_form_warms_up() -> None:
    _, verdicts = ph.update(ph.start(1), ph.Settings(form="textbook"), ph.Window(streams.single(np.array([0.5]))))
    assert verdicts.reason[0] == Reason.WARMING_UP


def test_the_calibrated_form_asks_for_a_law() -> None:
    with pytest.raises(ValueError, match="law"):
        ph.update(ph.start(1), ph.Settings(), ph.Window(streams.single(np.array([0.5]))))
