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
    detect_settings,
    moved,
    published,
    stages,
    without_offsets,
)
from simulator import PUBLIC
from simulator import World as Simulator

from stream.profiles.learning import Settings as LearnSettings
from stream.stages import ingest
from stream.stages.detect import CLOSED_PER_RECORD
from stream.wire import codec, control
from stream.wire.codec import decode, rfc3339
from stream.wire.control import ControlEvent, Decision, Mute, Resolve
from stream.wire.internal import CONTROL, Watermarks
from stream.wire.outbound import fingerprint
from stream.wire.record import Outgoing, Record
from stream.worker.loop import Loop, Options
from stream.worker.replay import replay_records
from stream.worker.rerun import Differs, Run, rerun
from stream.worker.settings import Settings, Topics
from stream.worker.stages import Stages

Told: TypeAlias = dict[bytes, list[bytes]]
"""What a reader finds under each key of a topic, in order."""

WINDOWS = 24
READINGS = 4 * 10 + 1
"""Per window: ten signals in four segments, and the number of predictions."""
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
        self,
        references: Sequence[Outgoing],
        *,
        inputs: int = 4,
        internal: int = 3,
        turn_ms: int = 100,
        idle_after_ms: int = 0,
    ) -> None:
        super().__init__(inputs=inputs, internal=internal, idle_after_ms=idle_after_ms)
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
    """Records by topic and key, of windows that every way of reading the log has closed."""
    found: Told = {}
    for record in records:
        value = record.value or b""
        if record.timestamp_ms <= LAST_MS - 30_000:
            key = record.topic.encode() + b" " + (record.key or b"")
            found.setdefault(key, []).append(value)
    return found


def free(told: Told) -> Told:
    """The same without the offsets of the evidence: the one field in which the partitions of the input show."""
    return {
        key: [without_offsets(value) for value in own] if key.startswith(b"alerts ") else own
        for key, own in told.items()
    }


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
    assert readings == 2 * (WINDOWS + 9) * READINGS


@pytest.mark.parametrize("partitions", [1, 12])
def test_the_number_of_partitions_changes_nothing(
    partitions: int, references: list[Outgoing], log: list[bytes], expected: Told
) -> None:
    assert free(worked(references, log, inputs=partitions)) == free(expected)


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


@pytest.mark.parametrize("point", [*(f"{step}:4" for step in STEPS), "step@ingest:3", "step@detect:9", "revoke:1"])
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


def replayed(references: Sequence[Outgoing], log: Sequence[bytes], partitions: int = 1) -> Told:
    """The same log as files."""
    inputs = [[*log[place::partitions], last(partitions)[place]] for place in range(partitions)]
    files = [
        iter([Record("predictions", place, row, LAST_MS, None, value) for row, value in enumerate(values)])
        for place, values in enumerate(inputs)
    ]
    return played(files, references)


def played(files: Sequence[Iterator[Record]], references: Sequence[Outgoing], **how: Any) -> Told:
    """What a replay of some files tells."""
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
    assert free(replayed(references, log, partitions)) == free(expected)
    if partitions == 4:
        assert replayed(references, log, partitions) == expected


@pytest.mark.parametrize("internal", [1, 3])
def test_files_that_end_at_different_times_tell_the_same_in_turns_of_any_size(
    internal: int, references: list[Outgoing]
) -> None:
    short = Stream().records(4 * PER_WINDOW)
    long = Stream(seed=4, model_id="other", prefix="o").records(8 * PER_WINDOW)
    # Whole columns of ingest: the last record and the end of the file may meet in one transaction.
    longest = Stream(seed=5, model_id="other", prefix="l", step_ms=60).records(8_192)

    def turned(turn_records: int) -> Told:
        files = [
            iter([Record("predictions", place, row, LAST_MS, None, value) for row, value in enumerate(values)])
            for place, values in enumerate((short, long, longest))
        ]
        return played(files, references, turn_records=turn_records, internal_partitions=internal)

    told_at_once = turned(100_000)
    assert told_at_once == turned(1_000) == turned(8_192)
    readings = [len(own) for key, own in told_at_once.items() if key.startswith(b"drift.windows")]
    # The model that ends first has empty windows up to the newest event of all.
    assert set(readings) == {9}


def test_a_file_that_ends_behind_a_long_gap_still_has_a_reading_for_every_window(references: list[Outgoing]) -> None:
    gap = 2 * CLOSED_PER_RECORD // 4 + 20  # too many for two records
    values = [*Stream().records(PER_WINDOW), moved(Stream(prefix="z").rows(1)[0], gap * MINUTE_MS)]
    records = [Record("predictions", 0, row, LAST_MS * 2, None, value) for row, value in enumerate(values)]
    heard: list[Record] = []
    replay_records(
        [iter(records)],
        stages(),
        Settings(topics=Topics(feedback=[])),
        references=references,
        on_record=lambda role, record: heard.append(record) if role == "windows" else None,
    )
    assert len(heard) == (gap + 1) * READINGS


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
    assert digests == {digest(free(expected))}


# -- a run against its own log -----------------------------------------------------------------------------------------

LEARN = LearnSettings.model_validate({"rows": 1000, "min_duration": "1h"})
LEARNING = stages(ingest.Settings(sample_rows=1000), detect_settings(learn=LEARN, declared={}))


def public(records: Iterator[Record | Outgoing], settings: Settings) -> dict[Any, list[Any]]:
    """What a reader of the public topics meets under each key, in order; dead letters as they come to each place."""
    found: dict[Any, list[Any]] = {}
    for record in records:
        topic = record.topic if isinstance(record, Record) else settings.topics.of(record.role)
        headers = sorted(record.headers)
        place = headers if topic == "drift.dead-letters" else None
        found.setdefault((topic, record.key, str(place)), []).append((record.value, headers))
    return found


def of_run(world: World) -> dict[Any, list[Any]]:
    return public((record for topic in PUBLIC for record in world.cluster.records(topic)), world.settings)


def of_rerun(world: World, given: Sequence[Outgoing], own: Stages) -> dict[Any, list[Any]]:
    """The log of a world through the stages once more, and the references that were there before."""

    def read(topic: str) -> list[list[Record]]:
        count = len(world.cluster.logs[topic])
        return [world.cluster.log((topic, number)).read(0, 10**9)[0] for number in range(count)]

    again = list(given)
    inputs = {
        (topic, number): records
        for topic in ("predictions", "drift.control")
        for number, records in enumerate(read(topic))
    }
    run = Run(inputs, read("drift.profiles"), read("drift.references")[0])
    rerun(run, own, lateness_ms=world.settings.lateness_ms, on_output=again.append)
    return public(iter(again), world.settings)


def test_a_reference_learned_on_the_way_gives_what_the_runs_own_log_gives_again() -> None:
    world = World([], inputs=4, internal=2)
    for slot in range(3):
        world.worker(str(slot), stages=LEARNING, options=Options(strict=True))
    values = Stream(drift_at=122 * PER_WINDOW).records(128 * PER_WINDOW)
    for place, value in enumerate(values):
        world.cluster.write(("predictions", place % 4), value if place % 500 else b"{", timestamp_ms=LAST_MS * 2)
        if place % 150 == 0:
            world.turn()
        if place == 20_000:
            world.workers.pop()  # never heard of again
    world.settle()
    found = of_run(world)
    assert found == of_rerun(world, [], LEARNING)
    references = [value for (topic, *_), own in found.items() if topic == "drift.references" for value, _ in own]
    assert [orjson.loads(value)["complete"] for value in references] == [False, True]
    alerts = [
        orjson.loads(value)["data"] for (topic, *_), own in found.items() if topic == "alerts" for value, _ in own
    ]
    assert "firing" in {one["status"] for one in alerts}
    letters = [key for key in found if key[0] == "drift.dead-letters"]
    assert len(letters) == len(values) // 500 + 1


def test_time_that_passed_without_records_stands_in_the_log(references: list[Outgoing]) -> None:
    world = World(references, inputs=3, internal=2, idle_after_ms=2_000)
    for slot in range(2):
        world.start(str(slot))
    rng = random.Random(3)
    rows = Stream(drift_at=3 * PER_WINDOW).rows(9 * PER_WINDOW)
    coming = sorted((row["timestamp"] + rng.choice([0, 0, 31_000]), place) for place, row in enumerate(rows))
    for at_ms, place in coming:
        while world.now_ms < at_ms:
            world.turn()
        # A partition falls silent for seconds and lets time pass, then the late ones come.
        partition = rng.randrange(3)
        if at_ms // 4_000 % 3 != partition:
            world.cluster.write(("predictions", partition), orjson.dumps(rows[place]), timestamp_ms=at_ms)
    world.turns(400)
    world.settle()
    found = of_run(world)
    assert found == of_rerun(world, references, stages())
    marks = [decode(record.value or b"", Watermarks) for record in world.cluster.records("drift.profiles")]
    assert any(source.tick for mark in marks if isinstance(mark, Watermarks) for source in mark.sources)
    assert sum(key[0] == "drift.windows" for key in found) == READINGS


@pytest.mark.parametrize("seed", range(3))
def test_any_schedule_gives_what_its_own_log_gives_again(seed: int, references: list[Outgoing]) -> None:
    """Workers come, go and die, transactions are aborted, events are late, references come early and late."""
    rng = random.Random(seed)
    world = World(references, inputs=3, internal=2, idle_after_ms=2_000, turn_ms=200)
    given = list(references)
    newer = [
        published(built(Stream(seed=90 + place), 6_000, effective_from_ms=START_MS + place * MINUTE_MS))
        for place in (2, 4)
    ]
    rows = Stream(drift_at=3 * PER_WINDOW).rows(7 * PER_WINDOW)
    coming = sorted((row["timestamp"] + rng.choice([0, 0, 5_000, 40_000]), place) for place, row in enumerate(rows))
    slots = iter(range(1_000))
    for at_ms, place in coming:
        while world.now_ms < at_ms:
            if len(world.workers) < 1 + rng.randrange(3) and rng.random() < 0.2:
                points = rng.choice(["", "commit:9=abort", "step@detect:5=abort", "offsets:20=kill", "tick:3=kill"])
                world.start(str(next(slots)), points, poll_records=rng.choice([7, 60, 1_000]))
            elif rng.random() < 0.02 and world.workers:
                world.workers.pop(rng.randrange(len(world.workers)))
            elif rng.random() < 0.02 and len(world.workers) > 1:
                world.closing(world.workers.pop())
            elif rng.random() < 0.01 and newer:
                given.append(newer.pop())
                where = ("drift.references", 0)
                world.cluster.write(where, given[-1].value, given[-1].key, timestamp_ms=world.now_ms)
            world.turn()
        value = b"{" if rng.random() < 0.01 else orjson.dumps(rows[place])
        world.cluster.write(("predictions", rng.randrange(3)), value, timestamp_ms=at_ms)
    world.start("last")
    world.turns(300)
    world.settle()
    found = of_run(world)
    assert found == of_rerun(world, given, stages())
    readings = [
        orjson.loads(value) for (topic, *_), own in found.items() if topic == "drift.windows" for value, _ in own
    ]
    assert len({one["window_start"] for one in readings if one["n"]}) >= 5
    assert {"alerts", "drift.dead-letters"} <= {topic for topic, *_ in found}


def test_what_people_decide_is_seen_by_every_partition_and_by_every_replay(references: list[Outgoing]) -> None:
    """A mute, a resolve and nonsense come while workers come and go; each reaches every partition once."""
    world = World(references, inputs=3, internal=2, turn_ms=200)
    rows = Stream(drift_at=2 * PER_WINDOW).rows(12 * PER_WINDOW)
    decisions: dict[int, Decision] = {
        2: Mute(effective_at_ms=START_MS + 7 * MINUTE_MS, until_ms=START_MS + 9 * MINUTE_MS),
        6: Resolve(
            effective_at_ms=START_MS + 6 * MINUTE_MS, fingerprint=fingerprint("credit", "3", "all", "data_drift")
        ),
    }
    for slot, points in enumerate(["commit:9=kill", "offsets:30=kill", "step@ingest:20=abort"]):
        world.start(str(slot), points)
    for place, row in enumerate(rows):
        if place % PER_WINDOW == 0 and (decision := decisions.get(place // PER_WINDOW)) is not None:
            event = ControlEvent("test", str(place), decision)
            for value in (control.cloud_event(event, row["timestamp"]), b"{}"):
                world.cluster.write(("drift.control", 0), value, timestamp_ms=row["timestamp"])
        world.cluster.write(("predictions", place % 3), orjson.dumps(row), timestamp_ms=row["timestamp"])
        if place % 8 == 0:
            world.turn()
        if place == PER_WINDOW:
            world.start("last")
    world.send([])
    world.settle()
    found = of_run(world)
    assert found == of_rerun(world, references, stages())
    forwarded = [
        record.partition
        for record in world.cluster.records("drift.profiles")
        if codec.kind_of(record.value or b"") == CONTROL
    ]
    assert sorted(forwarded) == [0, 0, 1, 1]
    told = [orjson.loads(value) for (topic, *_), own in found.items() if topic == "alerts" for value, _ in own]
    reasons = {one["data"]["resolve_reason"] for one in told if one["data"]["segment"] == "all"}
    assert "operator" in reasons
    readings = [
        orjson.loads(value) for (topic, *_), own in found.items() if topic == "drift.windows" for value, _ in own
    ]
    muted = {one["window_start"] for one in readings if one["verdicts"] and one["verdicts"][0]["reason"] == "muted"}
    assert muted == {rfc3339(START_MS + minute * MINUTE_MS) for minute in (7, 8)}
    assert [key for key in found if key[0] == "drift.dead-letters"]


def test_what_was_decided_before_the_first_start_counts_and_nobody_waits_for_more() -> None:
    """Inputs begin at their end, decisions at their beginning; a topic of decisions at rest says nothing of time."""
    world = Simulator(inputs=1, internal=2, idle_after_ms=2_000, start="latest")
    mute = Mute(effective_at_ms=START_MS, until_ms=START_MS + MINUTE_MS)
    value = control.cloud_event(ControlEvent("test", "1", mute), START_MS)
    world.cluster.write(("drift.control", 0), value, timestamp_ms=START_MS)
    world.cluster.write(("predictions", 0), b"{", timestamp_ms=START_MS)
    world.worker(stages=stages())
    world.turns(100)
    for row in Stream(start_ms=world.now_ms).rows(10):
        world.cluster.write(("predictions", 0), orjson.dumps(row), timestamp_ms=row["timestamp"])
        world.turn()
    world.turns(100)
    told = [record.value or b"" for record in world.cluster.records("drift.profiles")]
    assert [codec.kind_of(value) for value in told].count(CONTROL) == 2
    marks = [one for value in told if isinstance(one := decode(value, Watermarks), Watermarks)]
    sources = [source for mark in marks for source in mark.sources]
    deciding = {
        (one.next_offset, one.watermark_ms, one.tick, one.idle) for one in sources if one.topic != "predictions"
    }
    assert deciding == {(1, None, False, False)}
    assert any(one.tick or one.idle for one in sources)
    assert not list(world.cluster.records("drift.dead-letters"))


def test_other_inputs_than_those_of_the_run_are_refused(references: list[Outgoing], log: list[bytes]) -> None:
    world = World(references)
    world.send(log[:500])
    world.start()
    world.settle()
    log_of = world.cluster.log(("predictions", 0))
    del log_of.entries[50:]
    with pytest.raises(Differs, match="watermark"):
        of_rerun(world, references, stages())


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
    sys.stdout.write(digest(free(replayed(known, events()))))
