"""The life of a task: every pair of the table."""

import pytest

from stream.worker.task import READING, RESTORING, TRANSITIONS, Breaker, Input, Phase, Task


def task_in(phase: Phase) -> Task:
    task = Task("detect", ("drift.profiles", 0), 0.0)
    task.phase = phase
    return task


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("happened", Input)
def test_every_pair_moves_as_the_table_says_or_is_a_bug(phase: Phase, happened: Input) -> None:
    task = task_in(phase)
    if (expected := TRANSITIONS[phase].get(happened)) is None:
        with pytest.raises(KeyError):
            task.moves(happened, 5.0)
        assert task.phase is phase
    else:
        task.moves(happened, 5.0)
        assert task.phase is expected
        assert task.since_seconds == 5.0


def test_every_phase_is_reached_and_can_be_left_by_a_rebalance() -> None:
    reached = {target for row in TRANSITIONS.values() for target in row.values()} | {Phase.FETCHING}
    assert reached == set(Phase)
    assert all(Input.TAKEN in row for phase, row in TRANSITIONS.items() if phase is not Phase.GONE)
    assert not TRANSITIONS[Phase.GONE]


def test_only_reading_phases_read() -> None:
    assert Phase.RUNNING in READING - RESTORING
    assert Phase.REPLAYING in READING & RESTORING


def test_rewinding_forgets_what_ran_ahead() -> None:
    task = task_in(Phase.RUNNING)
    task.settle("committed", 10)
    task.running = type(task.running)("ahead", 20)
    task.read_offset = 25
    task.rewind()
    assert (task.running.state, task.running.next_offset, task.read_offset) == ("committed", 10, 10)


def test_the_breaker_trips_on_a_full_window_only_and_never_at_one() -> None:
    breaker = Breaker()
    breaker.add(999, 999)
    assert not breaker.trips(0.5)
    breaker.add(1, 1)
    assert breaker.trips(0.5)
    assert not breaker.trips(1.0)
    breaker.add(1_000, 0)
    assert not breaker.trips(0.5)
