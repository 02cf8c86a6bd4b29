"""Seasonal slots: hours, rungs, laws and what lies between."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.profiles import seasons
from stream.profiles.seasons import HOUR_MS, LADDER, SLOTS, Moment, Rung

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
MINUTE_MS = 60_000
BERLIN = ZoneInfo("Europe/Berlin")
ONE = np.array([4])


def ms(day: int, hour: int, minute: int = 0) -> int:
    return int(MONDAY.timestamp() * 1000) + ((day * 24 + hour) * 60 + minute) * 60_000


@given(st.integers(0, 2**42))
def test_every_time_lies_between_two_neighbouring_hours(time_ms: int) -> None:
    at = seasons.moment(time_ms, UTC)

    assert (at.next_hour - at.hour) % 168 == 1
    assert at.weight in {0, 0.25, 0.5, 0.75, 1}
    assert 0 <= seasons.hour_of_week(time_ms, UTC) < 168


@pytest.mark.parametrize(
    ("time_ms", "expected"),
    [
        (ms(0, 0, 30), Moment(0, 1, 0)),
        (ms(0, 1, 0), Moment(0, 1, 0.5)),
        (ms(0, 1, 15), Moment(0, 1, 0.75)),
        (ms(0, 0, 29), Moment(167, 0, 1)),
        (ms(5, 0, 0), Moment(119, 120, 0.5)),
    ],
)
def test_the_middle_of_an_hour_is_that_hour_alone(time_ms: int, expected: Moment) -> None:
    assert seasons.moment(time_ms, UTC) == expected


def test_clocks_of_a_zone_move_with_its_summer_time() -> None:
    winter, summer = (int(datetime(2026, month, 5, 7, tzinfo=UTC).timestamp() * 1000) for month in (1, 7))

    assert seasons.hour_of_week(winter, BERLIN) % 24 == 8
    assert seasons.hour_of_week(summer, BERLIN) % 24 == 9


def test_a_rung_needs_enough_rows_in_every_slot() -> None:
    day = np.zeros(168)
    day[:24] = 1_000
    week = np.full(168, 5_000.0)
    gap = week.copy()
    gap[30] = 0

    assert seasons.rung_of(np.zeros(168), 9) == "global"
    assert seasons.rung_of(day, 1 / 7) == "hour_of_day_weekend"  # of work days; weekends are unseen
    assert seasons.rung_of(np.where(np.arange(168) == 5, 10, day), 1 / 7) == "global"
    assert seasons.rung_of(week, 3) == "hour_of_week"
    assert seasons.rung_of(week, 2.9) == "hour_of_day_weekend"
    assert seasons.rung_of(gap, 3) == "hour_of_day_weekend"
    assert seasons.rung_of(np.where(np.arange(168) >= 120, 10, week), 3) == "hour_of_day"


@pytest.mark.parametrize("rung", LADDER)
def test_laws_of_slots_are_probabilities_drawn_to_their_parents(rung: Rung) -> None:
    counts = np.zeros((168, 2, 4), dtype=np.int64)
    counts[:, 0] = np.random.default_rng(1).integers(0, 500, (168, 4))
    counts[:, 1, :3] = np.random.default_rng(2).integers(0, 9, (168, 3))

    p = seasons.laws(counts, np.array([4, 3]), rung)

    assert p.shape == (SLOTS[rung].max() + 1, 2, 4)
    assert p.sum(-1) == pytest.approx(1)
    assert (p[:, 1, 3] == 0).all()
    assert (p[:, 0] > 0).all()
    assert (p[:, 1, :3] > 0).all()


def test_a_slot_without_rows_is_its_parent() -> None:
    counts = np.tile([10, 20, 30, 40], (168, 1, 1))
    counts[25] = 0
    counts[49] = [[400, 0, 0, 0]]

    week = seasons.laws(counts, ONE, "hour_of_week")
    days = seasons.laws(counts, ONE, "hour_of_day_weekend")

    assert week[25] == pytest.approx(days[1])
    assert week[49, 0] == pytest.approx((counts[49, 0] + 80 * days[1, 0]) / 480)


def test_between_two_hours_both_laws_count() -> None:
    slots = np.zeros((168, 1, 4))
    slots[3, 0, 0] = slots[4, 0, 1] = 1

    assert seasons.law_at(slots, "hour_of_week", Moment(3, 4, 0.25))[0].tolist() == [0.75, 0.25, 0, 0]


def test_a_weekend_is_unseen_after_a_work_day() -> None:
    seen = np.zeros(48, dtype=np.int64)
    seen[:24] = HOUR_MS
    seen[7] = HOUR_MS - 1

    def unseen(day: int, hour: int, minute: int = 30) -> bool:
        return seasons.is_unseen(seen, ms(day, hour, minute) - MINUTE_MS // 2, MINUTE_MS, UTC)

    assert not unseen(0, 3)
    assert not unseen(3, 3)
    assert unseen(0, 7)
    assert unseen(0, 6, 45)  # leans on the seventh hour
    assert unseen(5, 3)
    assert not unseen(0, 23)
    assert unseen(4, 23, 45)  # leans on Saturday
