"""ADWIN: the textbook form is river's and MOA's, the calibrated one keeps its promise."""

from typing import Any

import numpy as np
import pytest
import streams
from msgspec import structs
from river import drift

from stream.detectors import Floats, Level, Reason, Verdicts, adwin

TEXTBOOK = adwin.Settings(form="textbook")


def walk(rng: np.random.Generator, length: int) -> Floats:
    """A stream in [0, 1] whose mean jumps a few times."""
    levels = np.repeat(rng.uniform(0.1, 0.9, 5), length // 5)
    if rng.random() < 0.5:
        return (rng.random(len(levels)) < levels).astype(np.float64)
    return np.clip(rng.normal(levels, rng.uniform(0.02, 0.3)), 0, 1)


@pytest.mark.parametrize("seed", range(60))
def test_with_one_event_per_window_it_is_river(seed: int) -> None:
    rng = np.random.default_rng(seed)
    delta = float(rng.choice([0.002, 0.02, 0.2, 0.9]))
    clock, max_buckets = int(rng.choice([1, 5, 32])), int(rng.choice([2, 5, 8]))
    window, grace = int(rng.choice([1, 5, 12])), int(rng.choice([2, 10, 40]))
    untyped: Any = drift.ADWIN
    theirs = untyped(delta=delta, clock=clock, max_buckets=max_buckets, min_window_length=window, grace_period=grace)
    ours = adwin.Settings(
        form="textbook",
        delta=delta,
        clock=clock,
        max_buckets=max_buckets,
        min_window_length=window,
        grace_period=grace,
    )
    state = adwin.start(1, ours)
    for t, x in enumerate(walk(rng, 300)):
        theirs.update(float(x))
        state, verdicts = adwin.update(state, ours, adwin.Window(streams.single(np.array([x]), t)))
        assert (verdicts.level[0] == Level.DRIFT) == theirs.drift_detected
        assert state.width[0] == theirs.width
    assert state.total[0] == pytest.approx(theirs.total, rel=1e-9)
    assert state.deviation[0] == pytest.approx(theirs.variance, rel=1e-9, abs=1e-12)


def moa_alarms(probabilities: Floats, seeds: range) -> list[list[int]]:
    """Alarm positions by the rules of MOA's ADWIN: one more event per side, the newer side stays, rises only."""
    values = np.stack([streams.bits(seed, probabilities) for seed in seeds], axis=1)
    state, series = adwin.start(len(seeds), TEXTBOOK), np.ones(len(seeds), np.bool_)
    found: list[list[int]] = [[] for _ in seeds]
    for i, x in enumerate(values, start=1):
        state = adwin.insert(state, series, (np.ones(len(x)), x, np.zeros(len(x))), i)
        if i % TEXTBOOK.clock:
            continue
        before = state.total / state.width
        state, dropped = adwin.shrink(
            state, series & (state.width > TEXTBOOK.grace_period), TEXTBOOK, TEXTBOOK.min_window_length + 2
        )
        for k in np.flatnonzero(dropped & (state.total / state.width > before)):
            found[k].append(i + 1)
    return found


def test_java_random_begins_as_in_java() -> None:
    assert next(streams.java_random(42)) == 0.7275636800328681
    assert [int(streams.bits(s, streams.abrupt()).sum()) for s in (1, 2, 30)] == [4936, 5053, 4974]
    assert [int(streams.bits(s, streams.gradual()).sum()) for s in (1, 2, 30)] == [8076, 8070, 8064]


def test_the_published_runs_of_moa_on_abrupt_changes_are_reproduced() -> None:
    alarms = moa_alarms(streams.abrupt(), range(1, 31))
    assert alarms[0] == [1057, 1089, 1217, 3041, 3073, 3169, 5057, 7073, 7105, 7457, 9057, 9089, 9249]
    found, false, delay = streams.scored(alarms, [1000, 3000, 5000, 7000, 9000])
    assert (found, false, round(delay, 2)) == (150, 265, 45.48)


def test_the_published_runs_of_moa_on_gradual_changes_are_reproduced() -> None:
    alarms = moa_alarms(streams.gradual(), range(1, 31))
    assert alarms[0][:4] == [2337, 2369, 2401, 2433]
    found, false, delay = streams.scored(alarms, [2000])
    assert (found, false, round(delay, 2)) == (30, 382, 280.47)


def test_the_textbook_form_scores_as_river_on_two_sided_changes() -> None:
    values = np.stack([streams.bits(seed, streams.abrupt()) for seed in range(1, 31)], axis=1)
    state = adwin.start(30, TEXTBOOK)
    alarms: list[list[int]] = [[] for _ in range(30)]
    for i, x in enumerate(values, start=1):
        state, verdicts = adwin.update(state, TEXTBOOK, adwin.Window(streams.single(x, i)))
        for k in np.flatnonzero(verdicts.level == Level.DRIFT):
            alarms[k].append(i)
    found, false, delay = streams.scored(alarms, list(range(1000, 10_000, 1000)))
    assert (found, false, round(delay, 2)) == (270, 0, 43.79)


def calibrated(
    p: Floats, n: int, ln_threshold: float, state: adwin.State, t: int, rng: np.random.Generator
) -> tuple[adwin.State, Verdicts]:
    s = rng.binomial(n, p).astype(np.float64)
    sums = streams.whole(np.full(len(p), n), s, s - s * s / n, t, ln_threshold)
    return adwin.update(state, adwin.Settings(), adwin.Window(sums))


def test_the_calibrated_form_raises_few_false_alarms() -> None:
    rng, settings = np.random.default_rng(5), adwin.Settings()
    state, alarms = adwin.start(100, settings), 0
    for t in range(400):
        state, verdicts = calibrated(np.full(100, 0.2), 50, np.log(10.0), state, t, rng)
        alarms += int((verdicts.level == Level.DRIFT).sum())
    assert alarms <= 100 * 400 / 10


@pytest.mark.parametrize(("after", "published"), [(0.25, 2800), (0.3, 850), (0.4, 250)])
def test_the_calibrated_form_is_as_fast_as_measured(after: float, published: int) -> None:
    rng, series = np.random.default_rng(6), 30
    state = adwin.start(series, adwin.Settings())
    for t in range(1000):
        state, verdicts = calibrated(np.full(series, 0.2), 50, np.log(1e6), state, t, rng)
    found = np.full(series, np.nan)
    at = np.zeros(series)
    for t in range(1000, 1150):
        state, verdicts = calibrated(np.full(series, after), 50, np.log(1e6), state, t, rng)
        fired = np.isnan(found) & (verdicts.level == Level.DRIFT)
        found[fired] = (t - 999) * 50
        assert verdicts.changes is not None
        at[fired] = verdicts.changes.at_ms[fired] / 60_000
        if not np.isnan(found).any():
            break
    assert np.median(found) <= 1.5 * published + 50
    assert abs(np.median(at) - 1000) <= 16


def test_before_and_after_are_the_means_of_the_two_sides() -> None:
    state = adwin.start(1, adwin.Settings())
    for t in range(40):
        s = np.array([20.0 if t < 20 else 60.0])
        sums = streams.whole(np.array([100.0]), s, s - s * s / 100, t)
        state, verdicts = adwin.update(state, adwin.Settings(), adwin.Window(sums))
        if verdicts.level[0] == Level.DRIFT:
            break
    assert verdicts.changes is not None
    assert verdicts.changes.at_ms[0] == 20 * 60_000
    assert verdicts.changes.before[0] == pytest.approx(0.2)
    assert verdicts.changes.after[0] == pytest.approx(0.6)
    assert verdicts.statistic[0] > verdicts.threshold[0]
    assert state.width[0] == 0


def test_totals_equal_direct_sums() -> None:
    rng = np.random.default_rng(8)
    values = rng.random((300, 3, 7))
    state = adwin.start(3, adwin.Settings())
    for t, x in enumerate(values):
        m2 = ((x - x.mean(-1, keepdims=True)) ** 2).sum(-1)
        sums = streams.whole(np.full(3, 7.0), x.sum(-1), m2, t, ln_threshold=1e3)
        state, _ = adwin.update(state, adwin.Settings(), adwin.Window(sums))
    everything = values.transpose(1, 0, 2).reshape(3, -1)
    np.testing.assert_allclose(state.width, 2100)
    np.testing.assert_allclose(state.total, everything.sum(-1), rtol=1e-9)
    np.testing.assert_allclose(state.deviation, everything.var(-1) * 2100, rtol=1e-9)


def test_a_constant_stream_never_alarms() -> None:
    for settings in (TEXTBOOK, adwin.Settings()):
        state = adwin.start(1, settings)
        for t in range(500):
            sums = streams.whole(np.array([10.0]), np.array([7.0]), np.array([0.0]), t)
            state, verdicts = adwin.update(state, settings, adwin.Window(sums))
            assert verdicts.level[0] != Level.DRIFT


def test_mirroring_the_signal_changes_no_alarm() -> None:
    rng = np.random.default_rng(9)
    values = walk(rng, 600)
    for settings in (TEXTBOOK, adwin.Settings()):
        state = adwin.start(2, settings)
        for t, x in enumerate(values):
            both = streams.single(np.array([x, 1 - x]), t, ln_threshold=5.0)
            state, verdicts = adwin.update(state, settings, adwin.Window(both))
            assert verdicts.level[0] == verdicts.level[1]


def test_an_open_episode_pauses_the_check_and_not_the_memory() -> None:
    state = adwin.start(1, adwin.Settings())
    for t in range(60):
        s = np.array([10.0 if t < 30 else 90.0])
        sums = streams.whole(np.array([100.0]), s, s - s * s / 100, t)
        paused = structs.replace(sums, testing=np.zeros(1, np.bool_))
        state, verdicts = adwin.update(state, adwin.Settings(), adwin.Window(paused))
        assert verdicts.level[0] == Level.OK
    assert state.width[0] == 6000


def test_without_a_border_it_is_warming_up() -> None:
    settings = adwin.Settings()
    _, verdicts = adwin.update(adwin.start(1, settings), settings, adwin.Window(streams.single(np.array([1.0]))))
    assert verdicts.reason[0] == Reason.WARMING_UP
    assert verdicts.level[0] == Level.NOT_READY
    assert np.isnan(verdicts.statistic[0])
