"""Change points with intervals that cover, shapes that are right, a memory that stays small."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream.detectors import Floats, locate

EDGES = [NormalDist().inv_cdf(i / 16) for i in range(1, 16)]
UNIFORM = np.full(16, 1 / 16)
U = (np.arange(16) + 0.5) / 16
MINUTE = 60_000


def moved(mean: float, spread: float = 1.0) -> Floats:
    return np.diff(np.array([0.0, *(NormalDist(mean, spread).cdf(e) for e in EDGES), 1.0]))


def remembered(shift: Callable[[int], float], windows: int, n: int, series: int, seed: int) -> locate.History:
    rng, history = np.random.default_rng(seed), locate.start()
    for t in range(windows):
        history = locate.remember(history, t * MINUTE, rng.multinomial(n, moved(shift(t)), series))
    return history


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.integers(1, 1500))
def test_the_memory_holds_every_recent_window_once_and_stays_small(windows: int) -> None:
    history = locate.start()
    for t in range(windows):
        history = locate.remember(history, t, np.array([[t]]))
    assert len(history.row) <= 56
    assert history.row == sorted(history.row, reverse=True)
    ends = [*history.start_ms[1:], windows]
    for first, end, row, values in zip(history.start_ms, ends, history.row, history.values, strict=True):
        assert end - first == 2**row
        assert values[0, 0] == sum(range(first, end))
    assert windows - history.start_ms[0] >= min(windows, 900)


def test_remembering_leaves_the_history_before_as_it_was() -> None:
    history = locate.start()
    for t in range(20):
        history = locate.remember(history, t, np.array([[1]]), np.array([[1.0]]))
    before = (list(history.row), list(history.start_ms), [v.copy() for v in history.values])
    for t in range(20, 60):
        locate.remember(history, t, np.array([[1]]), np.array([[1.0]]))
    assert before[:2] == (history.row, history.start_ms)
    assert all((a == b).all() for a, b in zip(before[2], history.values, strict=True))


@pytest.mark.parametrize(
    ("shift", "n", "quiet", "later", "rows"),
    [(0.25, 500, 50, 3, 50_000.0), (0.5, 50, 300, 5, 5_000.0), (0.25, 500, 1000, 3, 5_000.0), (0.1, 500, 50, 34, 1e9)],
)
def test_the_interval_covers_the_true_change(shift: float, n: int, quiet: int, later: int, rows: float) -> None:
    rng, series = np.random.default_rng(3), 100
    # The reference has its own error: every series was estimated from `rows` rows.
    laws = (rng.multinomial(int(min(rows, 10**7)), UNIFORM, series) + 0.5) / (min(rows, 1e7) + 8)
    history = remembered(lambda t: shift * (t >= quiet), quiet + later, n, series, 4)
    covered, errors = 0, []
    for r in range(series):
        point = locate.change_point(history, r, laws[r], rows=rows, phi=1.0, from_ms=0, end_ms=(quiet + later) * MINUTE)
        assert point is not None
        covered += point.earliest_ms <= quiet * MINUTE <= point.latest_ms
        errors.append(abs(point.at_ms / MINUTE - quiet))
    assert covered >= 0.93 * series
    assert np.median(errors) <= 4


def test_a_season_is_not_taken_for_a_change() -> None:
    rng, history = np.random.default_rng(5), locate.start()
    for t in range(100):
        p = moved(0.5 * np.sin(t / 5) + 0.5 * (t >= 80))
        expected = 500 * moved(0.5 * np.sin(t / 5))
        history = locate.remember(history, t * MINUTE, rng.multinomial(500, p)[None], expected[None])
    point = locate.change_point(history, 0, UNIFORM, rows=50_000.0, phi=1.0, from_ms=0, end_ms=100 * MINUTE)
    assert point is not None
    assert point.at_ms == 80 * MINUTE


def test_a_mean_is_located_like_a_distribution() -> None:
    rng, history = np.random.default_rng(6), locate.start()
    for t in range(60):
        s = rng.binomial(500, 0.2 if t < 50 else 0.3)
        history = locate.remember(history, t * MINUTE, np.array([[500.0, s]]))
    point = locate.mean_change_point(history, 0, 0.2, 0.4, rows=50_000.0, phi=1.0, from_ms=0, end_ms=60 * MINUTE)
    assert point is not None
    assert point.earliest_ms <= 50 * MINUTE <= point.latest_ms
    assert abs(point.at_ms - 50 * MINUTE) <= MINUTE
    assert locate.since(history, 0, 50 * MINUTE)[0] == 5000.0


def test_after_an_alarm_sums_start_at_its_change_point() -> None:
    history = remembered(lambda t: 0.5 * (t >= 50) - 0.5 * (t >= 90), 95, 500, 1, 7)
    point = locate.change_point(history, 0, moved(0.5), rows=0.0, phi=1.0, from_ms=50 * MINUTE, end_ms=95 * MINUTE)
    assert point is not None
    assert point.earliest_ms <= 90 * MINUTE <= point.latest_ms


def test_nothing_remembered_has_no_change_point() -> None:
    assert locate.change_point(locate.start(), 0, UNIFORM, rows=1.0, phi=1.0, from_ms=0, end_ms=0) is None
    assert locate.mean_change_point(locate.start(), 0, 0.5, 0.1, rows=1.0, phi=1.0, from_ms=0, end_ms=0) is None


def ramp(length: int) -> Callable[[int], float]:
    return lambda t: 0.5 * min(max((t - 100) / length, 0.0), 1.0)


def pulse(length: int) -> Callable[[int], float]:
    return lambda t: 0.5 * (100 <= t < 100 + length)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (lambda t: 0.5 * (t >= 100), "sudden"),
        (lambda t: 0.25 * (t >= 107), "sudden"),
        (ramp(20), "gradual"),
        (ramp(40), "gradual"),
        (pulse(5), "temporary"),
        (pulse(20), "temporary"),
    ],
)
def test_shapes_are_told_apart(shift: Callable[[int], float], expected: str) -> None:
    series = 20
    history = remembered(shift, 160, 500, series, 8)
    right = 0
    for r in range(series):
        point = locate.change_point(history, r, UNIFORM, rows=1e6, phi=1.0, from_ms=0, end_ms=160 * MINUTE)
        assert point is not None
        way = locate.path(history, r, U, UNIFORM, sd=1 / np.sqrt(12), phi=1.0, at_ms=point.at_ms)
        right += locate.change_type(way, before=None, recurs=False) == expected
    assert right >= 0.9 * series


def test_gradual_is_not_taken_back_and_recurring_is_told() -> None:
    flat = locate.Path(np.ones(50, np.int64), np.where(np.arange(50) < 40, 0.0, 1.0), np.full(50, 100.0))
    assert locate.change_type(flat, before=None, recurs=False) == "sudden"
    assert locate.change_type(flat, before="gradual", recurs=False) == "gradual"
    assert locate.change_type(flat, before=None, recurs=True) == "recurring"


def test_a_law_seen_before_recurs() -> None:
    earlier = np.stack([moved(0.5), moved(-0.5)])
    assert locate.recurs_among(moved(0.51), earlier, 0.02)
    assert not locate.recurs_among(moved(0.0), earlier, 0.02)
    assert not locate.recurs_among(moved(0.0), np.empty((0, 16)), 0.02)
