"""What pairs measure is a function of the inputs: partitions, polls, workers and their deaths change no bit of it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
import pytest
import simulator
from flows import START_MS, built, published, stages_of
from labels import LABELS, LAST_MS, ROWS, labels, normal, opened, told, traffic

from stream.wire import codec
from stream.wire.internal import OUTCOMES
from stream.worker.loop import Options
from stream.worker.metadata import decode_join
from stream.worker.rerun import Run, rerun

Told = Mapping[tuple[str, str, int], bytes]


def filled(predictions: int = 4, feedback: int = 3, internal: int = 3) -> simulator.World:
    """A world with the reference and all inputs."""
    world = simulator.World(inputs=predictions, feedback=feedback, internal=internal)
    for reference in (published(built()), normal()):
        world.cluster.write(("drift.references", 0), reference.value, reference.key, timestamp_ms=0)
    for topic, partition, value in traffic(predictions, feedback):
        world.cluster.write((topic, partition), value, timestamp_ms=LAST_MS)
    return world


def worker(world: simulator.World, slot: str, failpoints: str = "", **options: Any) -> None:
    """One that may be killed."""
    world.worker(slot, failpoints, stages=stages_of(world.settings), options=Options(strict=True, **options))


def answer(world: simulator.World) -> tuple[Counter[Any], Told]:
    """The public topics, and the outcomes in drift.profiles."""
    return world.public(), told(world.cluster.records("drift.profiles"))


@pytest.fixture(scope="module")
def expected() -> tuple[Counter[Any], Told]:
    world = filled()
    worker(world, "0")
    world.settle()
    return answer(world)


def test_every_label_in_reach_is_told_once(expected: tuple[Counter[Any], Told]) -> None:
    labelled = {label["prediction_id"] for label in LABELS}
    pairs = sum(int(one.pairs[one.segments.index("all")]) for one in map(opened, expected[1].values()))
    assert pairs == len(labelled) > 1_500
    assert len(LABELS) > len(labelled)


def test_a_model_that_is_wrong_more_often_is_told(expected: tuple[Counter[Any], Told]) -> None:
    alerts = [orjson.loads(value)["data"] for topic, _, value, _ in expected[0] if topic == "alerts"]
    kinds = {alert["kind"] for alert in alerts if alert["status"] == "firing"}
    assert "performance" in kinds


def without_offsets(found: Told) -> dict[tuple[str, str, int], bytes]:
    return {
        name: codec.encode(msgspec.structs.replace(opened(value), spans=[]), OUTCOMES) for name, value in found.items()
    }


@pytest.mark.parametrize(("predictions", "feedback", "internal"), [(1, 1, 1), (5, 2, 12)])
def test_partitions_do_not_matter(
    predictions: int, feedback: int, internal: int, expected: tuple[Counter[Any], Told]
) -> None:
    world = filled(predictions, feedback, internal)
    worker(world, "0")
    world.settle()
    assert without_offsets(answer(world)[1]) == without_offsets(expected[1])


@pytest.mark.parametrize(("workers", "poll_records"), [(1, 40), (3, 500)])
def test_workers_and_polls_do_not_matter(workers: int, poll_records: int, expected: tuple[Counter[Any], Told]) -> None:
    world = filled()
    for slot in range(workers):
        worker(world, str(slot), poll_records=poll_records)
    world.settle(20_000)
    assert answer(world) == expected


STEPS = ["begin", "outputs", "offsets", "commit", "adopt", "step@join"]


@pytest.mark.parametrize("point", STEPS)
def test_death_while_labels_meet_predictions(point: str, expected: tuple[Counter[Any], Told]) -> None:
    world = filled()
    worker(world, "0", f"{point}:6=kill", poll_records=100)
    world.turns(60)
    assert not world.workers
    worker(world, "1", "replay@join:3=kill", poll_records=100)
    world.turns(160)
    assert not world.workers
    worker(world, "2", "step@join:4=kill", poll_records=100)
    world.turns(160)
    assert not world.workers
    worker(world, "3")
    world.settle()
    assert answer(world) == expected


def test_a_run_can_be_done_again_from_what_it_left_in_the_log(expected: tuple[Counter[Any], Told]) -> None:
    world = filled()
    for slot in range(2):
        worker(world, str(slot), poll_records=150)
    world.settle()
    logs = world.cluster.logs
    read = {
        (topic, number): log.read(0, 10**9)[0]
        for topic in ("predictions", "feedback")
        for number, log in enumerate(logs[topic])
    }
    profiles, pairs = ([log.read(0, 10**9)[0] for log in logs[name]] for name in ("drift.profiles", "drift.pairs"))
    again: Counter[Any] = Counter()
    rerun(
        Run(read, profiles, world.cluster.records("drift.references"), pairs),
        stages_of(world.settings),
        lateness_ms=world.settings.lateness_ms,
        on_output=lambda one: again.update(
            [(world.settings.topics.of(one.role), one.key, one.value, tuple(one.headers))]
        ),
    )
    assert again == expected[0] - Counter({name: 1 for name in expected[0] if name[0] == "drift.references"})


def test_idle_partitions_follow_and_a_restart_finds_the_same_state() -> None:
    world = simulator.World(inputs=3, feedback=2, idle_after_ms=1_000)
    history_ms = LAST_MS - 86_400_000
    rows = [{**row, "timestamp": row["timestamp"] - START_MS + history_ms} for row in ROWS]
    for row in rows:
        world.cluster.write(("predictions", 0), orjson.dumps(row), timestamp_ms=LAST_MS)
    for label in labels(rows):
        world.cluster.write(("feedback", 1), orjson.dumps(label), timestamp_ms=LAST_MS)
    worker(world, "0", poll_records=300)
    for number in range(1, 5):
        world.turns(60)
        world.workers.clear()
        world.turns(160)
        worker(world, str(number), poll_records=300)
    world.settle()
    assert sum(int(one.pairs[one.segments.index("all")]) for one in map(opened, answer(world)[1].values())) > 1_000
    marks = [
        decode_join(mark.metadata)
        for (topic, _), mark in world.cluster.group("sim").offsets.items()
        if topic == "drift.pairs"
    ]
    assert all(mark is not None and int(mark.digest, 16) for mark in marks)
