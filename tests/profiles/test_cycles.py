"""Slots while learning: which rung they reach, and how little of a season overdispersion sees around them."""

import numpy as np
import pytest
from diurnal import MONDAY_MS, PER_DAY, SIZE_MS, Diurnal, counted, cut, learned, start_of
from msgspec.structs import replace

from stream.profiles import cycles, learning, reference, seasons
from stream.profiles.learning import PHI_MAX
from stream.wire import codec
from stream.wire.internal import Slots

NOON = PER_DAY // 2


def season(stream: Diurnal, first: int, last: int) -> cycles.Season | None:
    tables, counts = counted(stream, first, last)
    return cycles.season(counts.cycle, tables, counts.dense.counts[0], phi_max=PHI_MAX)


@pytest.mark.parametrize(
    ("n", "first", "last", "rung"),
    [
        (200, 0, PER_DAY, "hour_of_day_weekend"),  # 2,400 rows an hour
        (40, 0, PER_DAY, "global"),  # 480 rows an hour
        (20, 0, 5 * PER_DAY, "hour_of_day_weekend"),
        (60, 3 * PER_DAY, 6 * PER_DAY, "hour_of_day"),  # 720 rows an hour on the weekend
        (200, NOON, PER_DAY + NOON, "hour_of_day_weekend"),
        (300, 0, 14 * PER_DAY, "hour_of_day_weekend"),  # two weeks may be odd ones
        (200, 0, 21 * PER_DAY, "hour_of_week"),
    ],
)
def test_the_highest_rung_with_enough_rows_in_every_slot_is_used(n: int, first: int, last: int, rung: str) -> None:
    found = season(Diurnal(n=n, season=0.5), first, last)

    assert found is not None
    assert found.rung == rung


def test_hours_that_are_always_silent_need_no_rows() -> None:
    tables, counts = counted(Diurnal(), 0, 0)
    for day in range(2):
        for index in range(day * PER_DAY + PER_DAY // 4, (day + 1) * PER_DAY - PER_DAY // 4):
            counts = learning.add(counts, tables, start_of(index), Diurnal().profile(tables, index))
    found = cycles.season(counts.cycle, tables, counts.dense.counts[0], phi_max=PHI_MAX)

    assert found is not None
    assert found.rung == "hour_of_day_weekend"
    assert (cycles.seen(counts.cycle) >= seasons.HOUR_MS).tolist() == [6 <= hour < 18 for hour in range(48)]


def test_a_rung_that_does_not_fit_a_record_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles, "SLOT_COUNTS_MAX", 48 * 16 - 1)

    found = season(Diurnal(), 0, PER_DAY)

    assert found is not None
    assert found.rung == "hour_of_day"


def test_a_rung_in_use_is_never_left_for_a_lower_one() -> None:
    tables, counts = counted(Diurnal(n=40), 0, PER_DAY)
    found = cycles.season(counts.cycle, tables, counts.dense.counts[0], phi_max=PHI_MAX, at_least="hour_of_day")

    assert found is not None
    assert found.rung == "hour_of_day"


def test_windows_longer_than_an_hour_know_which_hours_they_covered() -> None:
    six_hours = replace(cut(), window_size_ms=6 * seasons.HOUR_MS)
    tables = reference.compile_tables(six_hours)
    counts = learning.no_counts(tables, "UTC")
    for window in range(4):
        start_ms = MONDAY_MS + window * six_hours.window_size_ms
        counts = learning.add(counts, tables, start_ms, Diurnal().profile(tables, window))
    found = learning.overdispersion_of(counts, tables)

    assert found[1] == "global"
    assert cycles.seen(counts.cycle).tolist() == [seasons.HOUR_MS] * 24 + [0] * 24
    assert not counts.cycle.cells


def test_less_than_a_day_knows_no_seasons() -> None:
    assert season(Diurnal(), 0, PER_DAY - 1) is None
    assert learned(Diurnal(), 0, PER_DAY - 1).slots is None


def test_a_pause_of_less_than_an_hour_counts_as_seen() -> None:
    tables, counts = counted(Diurnal(), 0, 0)
    for index in range(0, PER_DAY, 6):
        counts = learning.add(counts, tables, start_of(index), Diurnal().profile(tables, index))
    for index in range(PER_DAY, PER_DAY + 12):
        counts = learning.add(counts, tables, start_of(index), Diurnal().profile(tables, index))
    first, *rest = cycles.seen(counts.cycle)[:24].tolist()

    assert set(rest) == {seasons.HOUR_MS}
    assert first > seasons.HOUR_MS


def test_slots_hold_every_event_of_the_whole_model() -> None:
    found = learned(Diurnal(), 0, PER_DAY)
    tables = reference.compile_tables(found)

    assert found.slots is not None
    by_slot = np.array(found.slots.counts["prediction:score"])
    assert by_slot.shape == (48, 16)
    assert by_slot.sum(1).tolist() == [2_400] * 24 + [0] * 24
    assert (
        by_slot.sum(0).tolist() == reference.coarse(tables, reference.reference_counts(tables.layout))[0][0, 0].tolist()
    )
    assert found.slots.seen_ms == [seasons.HOUR_MS] * 24 + [0] * 24


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0])
def test_a_season_that_is_modelled_is_no_shared_cause(size: float) -> None:
    tables, counts = counted(Diurnal(season=size), 0, 3 * PER_DAY)
    phi, rung = learning.overdispersion_of(counts, tables)

    assert rung == "hour_of_day_weekend"
    assert 1 <= phi.signals[0, 0] < 2


def test_a_cause_shared_by_windows_is_seen_around_the_slots() -> None:
    tables, counts = counted(Diurnal(), 0, 0)
    rng = np.random.default_rng(3)
    for index in range(5 * PER_DAY):
        shaken = Diurnal(season=1.0, shift_at=0, shift=float(rng.normal(0, 0.2)))
        counts = learning.add(counts, tables, start_of(index), shaken.profile(tables, index))
    phi, rung = learning.overdispersion_of(counts, tables)

    assert rung == "hour_of_day_weekend"
    # 1 + n times the variance of the cause: 1 + 200 x 0.04.
    assert 6 < phi.signals[0, 0] < 12


def test_hours_are_those_of_the_time_zone() -> None:
    found = learned(Diurnal(), 0, PER_DAY, "Asia/Kolkata")

    assert found.slots is not None
    assert found.slots.timezone == "Asia/Kolkata"
    assert found.slots.seen_ms[5] == seasons.HOUR_MS


def test_a_restored_count_goes_on_like_the_original() -> None:
    tables, counts = counted(Diurnal(), 0, 40)
    back = codec.decode(codec.encode(counts, "test"), learning.Counts, "test")
    assert isinstance(back, learning.Counts)
    for index in range(40, 60):
        window = Diurnal().profile(tables, index)
        counts, back = (learning.add(one, tables, start_of(index), window) for one in (counts, back))

    assert codec.encode(back, "test") == codec.encode(counts, "test")


def test_a_season_never_changes_what_it_was_given() -> None:
    tables, counts = counted(Diurnal(), 0, 20)
    before = codec.encode(counts, "test")
    learning.add(counts, tables, start_of(20), Diurnal().profile(tables, 20))
    learning.overdispersion_of(counts, tables)

    assert codec.encode(counts, "test") == before


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"timezone": "Mars/Olympus"}, "time zone"),
        ({"rung": "hour_of_day"}, "24 slots"),
        ({"counts": {}}, "48 slots"),
        ({"seen_ms": [0]}, "48 hours"),
        ({"counts": {"prediction:score": [[1] * 15] * 48}}, "15 bins"),
    ],
)
def test_slots_that_contradict_their_reference_are_refused(changes: dict[str, object], problem: str) -> None:
    found = learned(Diurnal())
    assert found.slots is not None
    slots: Slots = replace(found.slots, **changes)

    with pytest.raises(ValueError, match=problem):
        reference.compile_tables(replace(found, slots=slots))


def test_laws_of_slots_follow_the_day() -> None:
    tables = reference.compile_tables(learned(Diurnal(n=1_000)))
    season = tables.season

    assert season is not None
    assert season.rows[0].tolist() == [12_000]
    assert season.u_mean[6, 0] > 0.7  # six in the morning is the top of the sine
    assert season.u_mean[18, 0] < 0.3
    assert season.u_mean[:24, 0].mean() == pytest.approx(0.5, abs=0.01)


def test_a_reference_without_slots_has_no_season() -> None:
    assert reference.compile_tables(cut()).season is None
    assert SIZE_MS * PER_DAY == 24 * seasons.HOUR_MS
