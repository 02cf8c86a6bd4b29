"""How many events a window brings: by hour where days are known, and how widely that spreads."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.profiles import volume
from stream.profiles.seasons import DAY_MS, HOUR_MS

MINUTE_MS = 60_000
MONDAY_MS = 1_795_392_000_000
"""2026-11-23T00:00:00Z"""


def summed(minutes: int, number: Callable[[int], int], start_ms: int = MONDAY_MS, timezone: str = "UTC") -> volume.Sums:
    """Windows of a minute; those with -1 are left out."""
    sums = volume.Sums()
    for minute in range(minutes):
        if (n := number(minute)) >= 0:
            sums = volume.add(sums, start_ms + minute * MINUTE_MS, MINUTE_MS, n, timezone)
    return sums


def by_day(minute: int) -> int:
    """300 by day, 30 by night."""
    return 300 if 8 <= minute // 60 % 24 < 20 else 30


def test_windows_that_were_left_out_were_empty() -> None:
    whole = summed(120, lambda minute: 0 if 30 <= minute < 90 else 7)
    sparse = summed(120, lambda minute: -1 if 30 <= minute < 90 else 7)
    assert whole.hours == sparse.hours
    assert volume.windows(sparse) == 120


def test_a_pause_of_weeks_is_no_silence() -> None:
    sums = volume.add(summed(10, lambda _: 5), MONDAY_MS + 30 * DAY_MS, MINUTE_MS, 5, "UTC")
    assert volume.windows(sums) == 11


def test_windows_that_are_not_looked_at_were_not_empty_either() -> None:
    sums = volume.left_out(summed(10, lambda _: 5), MONDAY_MS + 60 * MINUTE_MS)
    sums = volume.add(sums, MONDAY_MS + 61 * MINUTE_MS, MINUTE_MS, 5, "UTC")
    assert (volume.windows(sums), sum(rows for _, rows, _ in sums.hours.values())) == (12, 55)


def test_even_traffic_has_its_mean_and_the_dispersion_of_its_law() -> None:
    rng = np.random.default_rng(1)
    poisson = rng.poisson(40.0, 2 * 1_440)
    found = volume.volume(summed(len(poisson), lambda minute: int(poisson[minute])), MINUTE_MS, "UTC")
    assert 1 <= found.dispersion < 1.6
    assert found.whole_day
    here = volume.expected(found, MONDAY_MS + 3 * DAY_MS, MINUTE_MS)
    assert 36 < here.mean < 41
    wide = rng.negative_binomial(10, 10 / 50, 2 * 1_440)
    assert 3.5 < volume.volume(summed(len(wide), lambda minute: int(wide[minute])), MINUTE_MS, "UTC").dispersion < 7


def test_after_one_day_its_cycle_is_in_the_dispersion_and_after_two_in_the_slots() -> None:
    one = volume.volume(summed(1_440, by_day), MINUTE_MS, "UTC")
    two = volume.volume(summed(2 * 1_440, by_day), MINUTE_MS, "UTC")
    assert (one.rung, two.rung) == ("global", "hour_of_day_weekend")
    assert one.dispersion > 1_000
    assert two.dispersion < 3
    noon, night = MONDAY_MS + 9 * DAY_MS + 12 * HOUR_MS, MONDAY_MS + 9 * DAY_MS + 2 * HOUR_MS
    assert volume.expected(two, noon, MINUTE_MS).mean > 250
    assert volume.expected(two, night, MINUTE_MS).mean < 31


def test_between_two_slots_both_count() -> None:
    found = volume.volume(summed(2 * 1_440, by_day), MINUTE_MS, "UTC")
    at = MONDAY_MS + 9 * DAY_MS + 8 * HOUR_MS
    means = [volume.expected(found, at + minutes * MINUTE_MS, MINUTE_MS).mean for minutes in (-40, -16, 0, 14, 40)]
    assert means == sorted(means)
    assert len(set(means)) == len(means)


def test_a_weekend_that_was_never_seen_is_expected_to_be_anything() -> None:
    found = volume.volume(summed(5 * 1_440, by_day), MINUTE_MS, "UTC")
    assert found.rung == "hour_of_day_weekend"
    assert volume.expected(found, MONDAY_MS + 5 * DAY_MS + 12 * HOUR_MS, MINUTE_MS).mean == 0
    assert volume.expected(found, MONDAY_MS + 7 * DAY_MS + 12 * HOUR_MS, MINUTE_MS).mean > 250


def test_the_clocks_of_the_time_zone_count() -> None:
    found = volume.volume(summed(2 * 1_440, by_day, timezone="Asia/Tokyo"), MINUTE_MS, "Asia/Tokyo")
    assert volume.expected(found, MONDAY_MS + 9 * DAY_MS + 10 * HOUR_MS, MINUTE_MS).mean > 250
    assert found.rows[20] == 10 * found.rows[10]


def test_less_than_a_day_knows_no_night() -> None:
    found = volume.volume(summed(100, lambda _: 300), MINUTE_MS, "UTC")
    assert not found.whole_day
    assert volume.expected(found, MONDAY_MS, MINUTE_MS).mean > 290


def test_windows_of_a_day_have_no_season() -> None:
    sums = volume.Sums()
    for day in range(40):
        sums = volume.add(sums, MONDAY_MS + day * DAY_MS, DAY_MS, 1_000 + day, "UTC")
    found = volume.volume(sums, DAY_MS, "UTC")
    assert (found.rung, found.windows) == ("global", [40])


def test_what_is_kept_is_bounded() -> None:
    sums = volume.Sums()
    for hour in range(2 * volume.HOURS_MAX):
        sums = volume.add(sums, MONDAY_MS + hour * HOUR_MS, HOUR_MS, 5, "UTC")
    assert len(sums.hours) == volume.HOURS_MAX
    assert volume.volume(sums, HOUR_MS, "UTC").rung == "hour_of_week"


@given(st.lists(st.integers(0, 2_000), min_size=1, max_size=200))
@settings(max_examples=50)
def test_every_number_is_in_the_sums_and_nothing_is_below_one(numbers: list[int]) -> None:
    found = volume.volume(summed(len(numbers), lambda minute: numbers[minute]), MINUTE_MS, "UTC")
    assert (sum(found.windows), sum(found.rows)) == (len(numbers), sum(numbers))
    assert found.dispersion >= 1
    assert volume.expected(found, MONDAY_MS, MINUTE_MS).mean >= 0


def test_adding_leaves_what_was_there_alone() -> None:
    before = summed(10, lambda _: 3)
    volume.add(before, MONDAY_MS + 10 * MINUTE_MS, MINUTE_MS, 3, "UTC")
    assert before.hours == summed(10, lambda _: 3).hours


def test_a_time_zone_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        volume.add(volume.Sums(), MONDAY_MS, MINUTE_MS, 1, "Middle/Earth")
