"""The law of the product: the public topics are a function of the input, whatever happens between them.

The real stages on the worker's own loop, over the twin of Kafka in memory. The same events go through any number of
partitions and workers, in polls of any size, live or caught up with, through crashes and aborts: alerts and readings
stay the same, byte for byte, but for the one field that names input offsets.
"""

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pytest
from flows import (
    MINUTE_MS,
    PER_WINDOW,
    START_MS,
    STEP_MS,
    Stream,
    built,
    moved,
    published,
    stages,
    without_offsets,
)
from simulator import World as Simulator

from stream.wire.record import Outgoing, Record
from stream.worker.loop import Loop, Options
from stream.worker.replay import replay_records
from stream.worker.settings import Settings, Topics

Told: TypeAlias = dict[bytes, list[bytes]]
"""What a reader finds under each key of a topic, in order."""

WINDOWS = 24
DRIFT, BACK = 6, 12
LAST_MS = START_MS + (WINDOWS + 10) * MINUTE_MS
"""Of the records that close all windows."""


def events() -> list[bytes]:
    """Two model versions, one of which drifts and returns; disorder within the lateness, odd values, an outlier."""
    first = Stream(drift_at=DRIFT * PER_WINDOW, back_at=BACK * PER_WINDOW).rows(WINDOWS * PER_WINDOW)
    second = Stream(seed=4, model_id="other", prefix="o", step_ms=5 * STEP_MS).rows(WINDOWS * PER_WINDOW // 5)
    for row in first[::97]:
        row["features"] |= {"new": 1, "amount": None}
    first[500]["features"]["amount"] = 1e9
    rng = random.Random(5)
    rows = sorted(first + second, key=lambda row: row["timestamp"] + rng.randrange(20_000))
    return [orjson.dumps(row) for row in rows]


@pytest.fixture(scope="module")
def log() -> list[bytes]:
    return events()


@pytest.fixture(scope="module")
def references() -> list[Outgoing]:
    return [published(built()), published(built(Stream(seed=96, model_id="other"), 6_000))]


def last(partitions: int) -> list[bytes]:
    """A record for each partition that closes all windows, of a model that is never told of."""
    return [moved(row, LAST_MS - row["timestamp"]) for row in Stream(model_id="end", prefix="end").rows(partitions)]


class World(Simulator):
    """The simulator with the stages of the product, and what happens in it."""

    def __init__(
        self, references: Sequence[Outgoing], *, inputs: int = 4, internal: int = 3, turn_ms: int = 100
    ) -> None:
        super().__init__(inputs=inputs, internal=internal)
        self.inputs = inputs
        self.turn_ms = turn_ms
        for one in references:
            self.cluster.write(("drift.references", 0), one.value, one.key, timestamp_ms=0)

    def turn(self, ms: int | None = None) -> None:
        """Time passes; every living worker turns once."""
        super().turn(ms or self.turn_ms)

    def start(self, slot: str = "0", failpoints: str = "", **options: Any) -> Loop:
        """A worker with the real stages."""
        return self.worker(slot, failpoints, stages=stages(), options=Options(strict=True, **options))

    def send(self, values: Sequence[bytes], turns_every: int = 0) -> None:
        """Deal events to the partitions in turn; with `turns_every` the workers work meanwhile."""
        for place, value in enumerate([*values, *last(self.inputs)]):
            partition = place % self.inputs if place < len(values) else place - len(values)
            self.cluster.write(("predictions", partition), value, timestamp_ms=LAST_MS)
            if turns_every and place % turns_every == 0:
                self.turn()

    def told(self) -> Told:
        """Alerts and readings by key, in order."""
        return told(record for topic in ("alerts", "drift.windows") for record in self.cluster.records(topic))


def told(records: Iterator[Record]) -> Told:
    """Records by topic and key, alerts without the offsets of their evidence; readings of windows closed by all."""
    found: Told = {}
    for record in records:
        value = record.value or b""
        if record.timestamp_ms <= LAST_MS - 30_000:
            key = record.topic.encode() + b" " + (record.key or b"")
            found.setdefault(key, []).append(without_offsets(value) if record.topic == "alerts" else value)
    return found


def worked(references: Sequence[Outgoing], log: Sequence[bytes], workers: int = 1, **world: Any) -> Told:
    """What is told of the log when it is there before the workers are."""
    options = {name: world.pop(name) for name in ("poll_records", "step_records") if name in world}
    simulated = World(references, **world)
    simulated.send(log)
    for slot in range(workers):
        simulated.start(str(slot), **options)
    simulated.settle(turns_max=20_000)
    return simulated.told()


@pytest.fixture(scope="module")
def expected(references: list[Outgoing], log: list[bytes]) -> Told:
    return worked(references, log)


def test_the_log_tells_of_a_drift_an_outlier_and_all_windows(expected: Told) -> None:
    alerts = [
        orjson.loads(value)["data"] for key, own in expected.items() if key.startswith(b"alerts") for value in own
    ]
    statuses = {(one["model_id"], one["kind"], one["status"]) for one in alerts if one["segment"] == "all"}
    assert {("credit", "data_drift", "firing"), ("credit", "data_drift", "resolved")} <= statuses
    assert ("credit", "outlier", "notice") in statuses
    readings = sum(len(own) for key, own in expected.items() if key.startswith(b"drift.windows"))
    assert readings == 2 * (WINDOWS + 9) * 4 * 8


@pytest.mark.parametrize("partitions", [1, 12])
def test_the_number_of_partitions_changes_nothing(
    partitions: int, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    assert worked(references, log, inputs=partitions) == expected


@pytest.mark.parametrize("internal", [1, 7])
def test_the_number_of_internal_partitions_changes_nothing(
    internal: int, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    assert worked(references, log, internal=internal) == expected


def test_the_number_of_workers_changes_nothing(references: list[Outgoing], log: list[bytes], expected: Told) -> None:
    assert worked(references, log, workers=3, poll_records=500) == expected


@pytest.mark.parametrize(("poll_records", "step_records", "turn_ms"), [(1, 1, 5), (100, 37, 100), (10_000, 8_192, 100)])
def test_the_size_of_a_poll_changes_nothing(
    poll_records: int, step_records: int, turn_ms: int, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    polled = worked(references, log, poll_records=poll_records, step_records=step_records, turn_ms=turn_ms)
    assert polled == expected


def test_live_and_catching_up_tell_the_same(references: list[Outgoing], log: list[bytes], expected: Told) -> None:
    world = World(references)
    world.start("0")
    world.start("1")
    world.send(log, turns_every=60)
    world.settle()
    assert world.told() == expected


# -- accidents ---------------------------------------------------------------------------------------------------------

STEPS = ["begin", "outputs", "snapshots", "offsets", "commit", "adopt"]


@pytest.mark.parametrize("point", [*(f"{step}:4" for step in STEPS), "step@ingest:9", "step@detect:9", "revoke:1"])
def test_a_worker_that_dies_at_any_step_changes_nothing(
    point: str, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    world = World(references)
    world.send(log)
    doomed = world.start("0", f"{point}=kill", poll_records=300)
    world.turns(10)
    world.start("1", poll_records=300)
    world.turns(100)
    assert doomed not in world.workers
    world.start("0", poll_records=300)
    world.settle()
    assert world.told() == expected


@pytest.mark.parametrize("point", [*STEPS[:-1], "step@ingest", "step@detect"])
def test_a_transaction_that_is_aborted_is_undone_and_done_again(
    point: str, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    world = World(references)
    world.send(log)
    loop = world.start("0", f"{point}:3=abort,{point}:4=abort", poll_records=1_000)
    world.settle()
    assert loop.status.transactions["aborted"] == 2
    assert world.told() == expected


def test_workers_that_come_and_go_change_nothing(references: list[Outgoing], log: list[bytes], expected: Told) -> None:
    world = World(references)
    world.send(log)
    for slot in range(4):
        world.start(str(slot), poll_records=300)
        world.turns(4)
    for loop in world.workers[:3]:
        world.workers.remove(loop)
        loop.close()
        world.turns(4)
    world.settle()
    assert world.told() == expected


# -- replay ------------------------------------------------------------------------------------------------------------


def replayed(references: Sequence[Outgoing], log: Sequence[bytes], partitions: int = 1, **how: Any) -> Told:
    """The same log as files."""
    inputs = [[*log[place::partitions], last(partitions)[place]] for place in range(partitions)]
    files = [
        iter([Record("predictions", place, row, LAST_MS, None, value) for row, value in enumerate(values)])
        for place, values in enumerate(inputs)
    ]
    heard: list[Record] = []
    replay_records(
        files,
        stages(),
        Settings(topics=Topics(feedback=[])),
        references=references,
        on_record=lambda _, record: heard.append(record),
        **how,
    )
    return told(record for record in heard if record.topic in {"alerts", "drift.windows"})


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_replay_tells_what_the_service_told(
    partitions: int, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    assert replayed(references, log, partitions) == expected


def test_the_seed_of_pythons_hashes_changes_nothing(expected: Told) -> None:
    digests = {
        subprocess.run(
            [sys.executable, __file__],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {digest(expected)}


PATHS = f"{Path(__file__).parent.parent.parent}:{Path(__file__).parent.parent}"


def digest(told: Told) -> str:
    """All that was told, as one number."""
    summed = sha256()
    for key in sorted(told):
        for value in told[key]:
            summed.update(key + value)
    return summed.hexdigest()


if __name__ == "__main__":
    known = [published(built()), published(built(Stream(seed=96, model_id="other"), 6_000))]
    sys.stdout.write(digest(replayed(known, events())))
