"""Means in small units: the same questions as rates, answered from events and two integer sums."""

import numpy as np
import pytest

from stream.detectors import Ints, Level, Reason, locate, mean
from stream.stages.detect.series import Means, Past, past_of

UNIT = 2.0**-20
MEAN, SD = 0.5, 0.1


def means(rows: float = 50_000.0) -> Means:
    settings = mean.Settings()
    sd = np.array([SD])
    margins = mean.margin(settings, sd, np.array([rows]))
    return Means(
        columns=np.array([0]),
        phi=np.ones(1),
        n_bar=np.array([200.0]),
        rows=np.array([rows]),
        ln_threshold=np.array([np.log(1e6)]),
        reason=np.array([Reason.NONE], np.int8),
        enabled=True,
        law=mean.law(np.array([MEAN]), margins, np.array([False])),
        sd=sd,
        margins=margins,
        settings=settings,
        unit=UNIT,
    )


def window(generator: np.random.Generator, centre: float, n: int = 200) -> Ints:
    values = np.clip(generator.normal(centre, SD, n), 0, 1)
    return np.array([[n, np.rint(values / UNIT).sum(), np.rint(values**2 / UNIT).sum()]]).astype(np.int64)


def test_sums_come_back_in_the_values_own_unit() -> None:
    n, s, squares = means().sums(np.array([[4, 2 << 20, 3 << 20]]))
    assert (n[0], s[0], squares[0]) == (4, 2, 3)


@pytest.mark.parametrize(("centre", "level"), [(MEAN, Level.OK), (MEAN + 0.1, Level.DRIFT), (MEAN - 0.1, Level.DRIFT)])
def test_a_mean_alarms_when_it_has_moved_and_only_then(centre: float, level: Level) -> None:
    series, generator = means(), np.random.default_rng(3)
    state = series.at_rest(series.law)
    for index in range(20):
        seen = series.seen(index, window(generator, centre))
        state, verdicts = series.updated(state, series.law, seen, series.reason)
    assert verdicts.level[0] == level


def test_the_change_of_a_mean_is_found_where_it_was_and_its_return_is_seen() -> None:
    series, generator, history = means(), np.random.default_rng(5), locate.start()
    for index in range(40):
        counts = window(generator, MEAN if index < 25 else MEAN + 0.1)
        history = locate.remember(history, index, series.compact(counts))
    point = series.change_point(history, 0, series.law, rows=50_000.0, from_ms=0, end_ms=40)
    assert point is not None
    assert point.earliest_ms <= 25 <= point.latest_ms
    assert abs(point.at_ms - 25) <= 1
    moved = series.open_law(np.array([0]), {0: past_of(history, 0, point.at_ms)})
    assert moved.mean[0] == pytest.approx(MEAN + 0.1, abs=0.01)
    assert not series.is_back(0, past_of(history, 0, point.at_ms), moved)
    assert series.is_back(0, Past(window(generator, MEAN, 3_000)[0]), moved)
    scores, law, sd = series.score(0, past_of(history, 0, point.at_ms))
    assert (scores[0], law[0] * UNIT) == (1.0, MEAN)
    assert sd * UNIT >= SD
