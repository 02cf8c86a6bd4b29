"""Seeded accidents: workers come, go, die between any two steps, sleep through their session and wake up.

A seed is a bug report: `pytest tests/simulation -k "[17]"` runs that schedule again. DRIFT_SCHEDULES=2000 runs more.
"""

import os
import random
from collections import Counter
from typing import Any

import pytest
from simulator import World

from stream.worker.failpoints import POINTS
from stream.worker.loop import Loop, Options

RECORDS = 1_500
SCHEDULES = int(os.environ.get("DRIFT_SCHEDULES", "60"))
WITH_FEEDBACK = SCHEDULES // 2
STEPS = sorted(POINTS - {"tick", "close"})
Answer = tuple[Counter[Any], dict[bytes, list[bytes]]]


def filled(feedback: int) -> World:
    """A world with all its input; labels for most predictions where there is feedback."""
    world = World(feedback=feedback)
    if feedback:
        world.fill_pairs(RECORDS // 2, partitions=4, feedback=feedback)
    else:
        world.fill(RECORDS, partitions=4)
    return world


def answer(feedback: int) -> Answer:
    """What one undisturbed worker says."""
    world = filled(feedback)
    world.worker()
    world.settle()
    return world.public(), world.alerts_in_order()


@pytest.fixture(scope="module")
def expected() -> Answer:
    return answer(0)


@pytest.fixture(scope="module")
def expected_with_feedback() -> Answer:
    return answer(3)


class Schedule:
    """One seed: the input arrives piece by piece while things happen."""

    def __init__(self, seed: int, feedback: int = 0) -> None:
        self.rng = random.Random(seed)
        self.world = World(feedback=feedback)
        logs = filled(feedback).cluster.logs
        inputs = [*logs["predictions"], *logs.get("feedback", [])]
        self.to_come = [log.read(0, 10**9)[0] for log in inputs]
        self.asleep: list[Loop] = []
        self.slots = 0

    def run(self) -> World:
        """Accidents for a while, then peace until everything is said."""
        for _ in range(120):
            self._arrive()
            self._happen()
            self.world.turns(self.rng.randrange(1, 6), self.rng.choice([20, 100, 400]))
            if self.world.cluster.markers_are_late and self.rng.random() < 0.5:
                self.world.cluster.write_markers()
        for records in self.to_come:
            self._write(records, len(records))
        self.world.cluster.markers_are_late = False
        self.world.cluster.write_markers()
        self.world.workers += self.asleep
        self._join(quiet=True)
        self.world.settle(20_000)
        return self.world

    def _arrive(self) -> None:
        for records in self.to_come:
            self._write(records, self.rng.randrange(0, 8))

    def _write(self, records: list[Any], count: int) -> None:
        for record in records[:count]:
            self.world.cluster.write((record.topic, record.partition), record.value, timestamp_ms=record.timestamp_ms)
        del records[:count]

    def _happen(self) -> None:
        living = self.world.workers
        happening = self.rng.random()
        if len(living) + len(self.asleep) < 4 and happening < 0.25:
            self._join()
        elif living and happening < 0.32:
            self._leave(self.rng.choice(living))
        elif living and happening < 0.40:
            living.remove(self.rng.choice(living))
        elif living and happening < 0.47:
            sleeper = self.rng.choice(living)
            living.remove(sleeper)
            self.asleep.append(sleeper)
        elif self.asleep and happening < 0.57:
            living.append(self.asleep.pop())
        elif happening < 0.62:
            self.world.cluster.markers_are_late = not self.world.cluster.markers_are_late
        elif happening < 0.66:
            self.world.turns(2, 8_000)

    def _join(self, *, quiet: bool = False) -> None:
        plan = "" if quiet else self._plan()
        self.slots += 1
        options = Options(strict=True, poll_records=self.rng.choice([1, 10, 100, 1_000]), step_records=5)
        self.world.try_worker(str(self.slots % 5), plan, options=options)

    def _plan(self) -> str:
        """An accident to come: a death, or an abort where one can happen."""
        point, nth = self.rng.choice(STEPS), self.rng.randrange(1, 12)
        can_abort = point in {"begin", "step", "outputs", "snapshots", "offsets", "commit"}
        action = "abort" if can_abort and self.rng.random() < 0.4 else "kill"
        return f"{point}:{nth}={action}"

    def _leave(self, loop: Loop) -> None:
        self.world.workers.remove(loop)
        self.world.closing(loop)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens_the_public_topics_are_the_same(seed: int, expected: Answer) -> None:
    world = Schedule(seed).run()
    assert (world.public(), world.alerts_in_order()) == expected


@pytest.mark.parametrize("seed", range(WITH_FEEDBACK))
def test_and_so_they_are_while_labels_meet_predictions(seed: int, expected_with_feedback: Answer) -> None:
    world = Schedule(seed, feedback=3).run()
    assert (world.public(), world.alerts_in_order()) == expected_with_feedback
