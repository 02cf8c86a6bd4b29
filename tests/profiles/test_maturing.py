"""A learned reference grows older: what its successors hold, and how far laws have moved since they were first seen."""

from functools import cache

import numpy as np
import pytest
from diurnal import Diurnal
from pydantic import ValidationError

from stream.profiles import learning, maturing, reference, seasons
from stream.profiles.learning import Settings
from stream.profiles.maturing import State
from stream.profiles.reference import Tables
from stream.wire import codec
from stream.wire.internal import Reference

DAY_MS = 86_400_000
AGES = Settings()
STREAM = Diurnal(n=300, season=0.5, weekend=0.3, size_ms=900_000)
DAY = STREAM.per_day


@cache
def learned(days: float = 1) -> tuple[State, Tables, Reference]:
    """What Monday, or more, has taught: the state, what it counts against, and the reference."""
    tables = reference.compile_tables(STREAM.cut())
    counts = learning.no_counts(tables)
    for index in range(round(days * DAY)):
        counts = learning.add(counts, tables, STREAM.start_of(index), STREAM.profile(tables, index))
    found = learning.overdispersion_of(counts, tables)
    made = learning.completed(tables, counts, found, effective_from_ms=0, origin="learned", data=("", ""))
    state = maturing.start(learning.State(provisional=tables.reference, counts=counts, learned=True), AGES, made)
    assert state is not None
    return state, tables, made


def grown(stream: Diurnal, last: int, first: int = DAY) -> State:
    """The state of one day with the windows from `first` to before `last` of a stream more."""
    state, tables, _ = learned()
    for index in range(first, last):
        state = maturing.add(state, tables, stream.start_of(index), stream.profile(tables, index))
    return state


def test_the_ages_come_one_after_the_other_and_then_no_more() -> None:
    state, tables, made = learned()
    begun = STREAM.start_of(0)

    assert state.references == [made.reference_id]
    assert not maturing.is_due(state, AGES, begun + 7 * DAY_MS - 1)
    assert maturing.is_due(state, AGES, begun + 7 * DAY_MS)
    state, first = maturing.successor(grown(STREAM, 7 * DAY), AGES, tables, effective_from_ms=1)
    assert not maturing.is_due(state, AGES, begun + 21 * DAY_MS - 1)
    state, second = maturing.successor(state, AGES, tables, effective_from_ms=2)
    assert maturing.is_over(state, AGES, begun + 21 * DAY_MS)
    assert state.references == [made.reference_id, first.reference_id, second.reference_id]


def test_a_reference_that_waits_for_too_long_stays_as_it_is() -> None:
    state, _, _ = learned()

    assert not maturing.is_over(state, AGES, STREAM.start_of(0) + 28 * DAY_MS - 1)
    assert maturing.is_over(state, AGES, STREAM.start_of(0) + 28 * DAY_MS)


def test_ages_that_learning_took_itself_are_left_out() -> None:
    state, _, _ = learned(7)

    assert state.age == 1


def test_ages_must_rise() -> None:
    assert Settings.model_validate({"mature": []}).mature == ()
    with pytest.raises(ValidationError, match="must rise"):
        Settings.model_validate({"mature": ["7d", "7d"]})


def test_a_successor_holds_all_that_was_counted_in_the_bins_of_the_first() -> None:
    _, tables, made = learned()
    state, successor = maturing.successor(grown(STREAM, 7 * DAY), AGES, tables, effective_from_ms=0)
    old, new = (reference.compile_tables(one) for one in (made, successor))

    assert reference.has_matured(old, new)
    assert successor.n_rows == 7 * DAY * STREAM.n
    assert successor.complete
    assert successor.origin == "learned"
    assert (old.to_coarse.order == new.to_coarse.order).all()
    assert new.season is not None
    assert old.season is not None
    assert (old.season.seen_ms < seasons.HOUR_MS).sum() == 24
    assert (new.season.seen_ms >= seasons.HOUR_MS).all()
    weekend, work_day = new.season.u_mean[24:].mean(), new.season.u_mean[:24].mean()
    assert weekend - work_day > 0.04
    assert state.rung == "hour_of_day_weekend"


def test_nothing_has_moved_before_anything_came() -> None:
    state, _, made = learned()

    assert maturing.moved(state, reference.compile_tables(made)).tolist() == [0.0]


def test_a_first_weekend_and_chance_are_no_drift() -> None:
    state, _, made = learned()
    after = grown(Diurnal(n=300, season=0.5, weekend=2.0, size_ms=900_000), 7 * DAY)

    assert maturing.moved(after, reference.compile_tables(made))[0] < 0.02 + state.epsilon[0]
    assert maturing.moved(after, reference.compile_tables(made))[0] < 0.03


@pytest.mark.parametrize("shift", [0.3, 0.6])
def test_what_moved_is_the_law_of_all_that_was_counted(shift: float) -> None:
    _, _, made = learned()
    days = 3
    moving = Diurnal(n=300, season=0.5, size_ms=900_000, shift_at=0, shift=shift)
    after = grown(moving, (1 + days) * DAY)

    # Three days of four have moved, so the mixture has by three quarters of the total variation of the shift.
    expected = 0.75 * float(np.interp(shift, [0.3, 0.6], [0.119, 0.236]))
    assert maturing.moved(after, reference.compile_tables(made))[0] == pytest.approx(expected, abs=0.025)


def test_a_slow_drift_adds_up_over_the_ages() -> None:
    _, tables, _ = learned()
    state = grown(Diurnal(n=300, season=0.5, size_ms=900_000, slope=0.05), 7 * DAY)
    state, successor = maturing.successor(state, AGES, tables, effective_from_ms=0)
    against = reference.compile_tables(successor)
    before = maturing.moved(state, against)[0]
    for index in range(7 * DAY, 12 * DAY):
        window = Diurnal(n=300, season=0.5, size_ms=900_000, slope=0.05).profile(tables, index)
        state = maturing.add(state, tables, STREAM.start_of(index), window)

    assert maturing.moved(state, against)[0] > before > 0.03


def test_a_restored_state_goes_on_exactly_like_the_original() -> None:
    state, tables, _ = learned()
    back = codec.decode(codec.encode(state, "test"), State, "test")
    assert isinstance(back, State)
    for index in range(DAY, DAY + 20):
        window = STREAM.profile(tables, index)
        state, back = (maturing.add(one, tables, STREAM.start_of(index), window) for one in (state, back))
    one, other = (maturing.successor(each, AGES, tables, effective_from_ms=0) for each in (state, back))

    assert codec.encode(one[0], "test") == codec.encode(other[0], "test")
    assert one[1] == other[1]


def test_windows_longer_than_an_hour_mature_as_a_whole() -> None:
    slow = Diurnal(n=3_000, season=0.5, size_ms=6 * seasons.HOUR_MS)
    tables = reference.compile_tables(slow.cut())
    counts = learning.no_counts(tables)
    for index in range(4):
        counts = learning.add(counts, tables, slow.start_of(index), slow.profile(tables, index))
    found = learning.overdispersion_of(counts, tables)
    made = learning.completed(tables, counts, found, effective_from_ms=0, origin="learned", data=("", ""))
    state = maturing.start(learning.State(provisional=tables.reference, counts=counts), AGES, made)
    assert state is not None
    for index in range(4, 28):
        state = maturing.add(state, tables, slow.start_of(index), slow.profile(tables, index))
    moved = maturing.moved(state, reference.compile_tables(made))
    state, successor = maturing.successor(state, AGES, tables, effective_from_ms=0)

    assert 0 < moved[0] < 0.02
    assert successor.slots is not None
    assert successor.slots.rung == "global"
    assert min(successor.slots.seen_ms) >= seasons.HOUR_MS


def test_only_what_was_counted_can_mature() -> None:
    _, _, made = learned()

    with pytest.raises(ValueError, match="only what was counted"):
        maturing.start(learning.State(), AGES, made)
