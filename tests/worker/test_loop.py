"""What the loop promises whatever the cut: the public topics are a function of the input."""

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from simulator import START_MS, Killed, World

from stream.wire.codec import partition_of
from stream.worker.ends import Stopped
from stream.worker.loop import Loop, Options

RECORDS = 2_000


def undisturbed(records: int = RECORDS, partitions: int = 4) -> World:
    world = World(inputs=partitions)
    world.fill(records, partitions=partitions)
    world.worker()
    world.settle()
    return world


@pytest.fixture(scope="module")
def expected() -> tuple[Counter[Any], dict[bytes, list[bytes]]]:
    world = undisturbed()
    return world.public(), world.alerts_in_order()


def test_every_record_is_counted_once(expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    readings = [value for topic, _, value, _ in expected[0].elements() if topic == "drift.windows"]
    counted = sum(int(value.split(b'"n":')[1].split(b"}")[0]) for value in readings)
    assert counted == RECORDS
    assert any(topic == "alerts" for topic, *_ in expected[0])


@pytest.mark.parametrize("partitions", [1, 12])
def test_partitions_do_not_matter(partitions: int, expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    world = undisturbed(partitions=partitions)
    assert world.public() == expected[0]
    assert world.alerts_in_order() == expected[1]


@pytest.mark.parametrize("workers", [2, 3, 6])
def test_the_number_of_workers_does_not_matter(
    workers: int, expected: tuple[Counter[Any], dict[bytes, list[bytes]]]
) -> None:
    world = World()
    world.fill(RECORDS, partitions=4)
    for slot in range(workers):
        world.worker(str(slot))
    world.settle()
    assert world.public() == expected[0]
    assert world.alerts_in_order() == expected[1]


@pytest.mark.parametrize("poll_records", [1, 100, 10_000])
def test_poll_sizes_do_not_matter(poll_records: int, expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    world = World()
    world.fill(RECORDS, partitions=4)
    world.worker(options=Options(strict=True, poll_records=poll_records, step_records=7))
    world.settle(turns_max=20_000)
    assert world.public() == expected[0]


def test_live_and_catching_up_agree(expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    live, source = World(), World()
    source.fill(RECORDS, partitions=4)
    live.worker()
    for partition in range(4):
        for record in source.cluster.log(("predictions", partition)).read(0, 10**9)[0]:
            live.cluster.write(("predictions", partition), record.value, timestamp_ms=record.timestamp_ms)
            if record.offset % 25 == 0:
                live.turn()
    live.settle()
    assert live.public() == expected[0]


STEPS = ["begin", "outputs", "snapshots", "offsets", "commit", "adopt"]
OTHERS = [
    "init", "assigned@ingest", "assigned@detect", "fetch_offset@ingest", "fetch_offset@detect", "restore@detect",
    "replay@detect", "step@ingest", "step@detect", "revoke",
]  # fmt: skip


@pytest.mark.parametrize("nth", [1, 2, 7])
@pytest.mark.parametrize("point", STEPS + OTHERS)
def test_kill_before(point: str, nth: int, expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    world = World()
    world.fill(RECORDS, partitions=4)
    with suppress(Killed):
        world.worker("0", f"{point}:{nth}=kill", options=Options(strict=True, poll_records=150))
    world.turns(5)
    world.worker("1")
    world.turns(30)
    world.worker("0")
    world.settle()
    assert world.public() == expected[0]
    assert world.alerts_in_order() == expected[1]


@pytest.mark.parametrize("point", [*STEPS[:-1], "step@ingest", "step@detect"])
def test_an_abort_is_undone_and_done_again(point: str, expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    world = World()
    world.fill(RECORDS, partitions=4)
    loop = world.worker("0", f"{point}:2=abort,{point}:3=abort", options=Options(strict=True, poll_records=150))
    world.settle()
    assert loop.status.transactions["aborted"] == 2
    assert world.public() == expected[0]


def test_ten_aborts_in_a_row_end_the_process() -> None:
    world = World()
    world.fill(100, partitions=4)
    loop = world.worker("0", ",".join(f"commit:{nth}=abort" for nth in range(1, 20)))
    world.workers.clear()
    with pytest.raises(Stopped) as stopped:
        _turn(world, loop, 1_000)
    assert stopped.value.exit_code == 75


def test_a_bug_in_a_stage_ends_the_process_and_names_the_records() -> None:
    world = World()
    world.fill(100, partitions=1)
    world.worker("0", "step@ingest:1=raise")
    with pytest.raises(Stopped) as stopped:
        world.settle()
    assert (stopped.value.exit_code, stopped.value.reason) == (70, "bug")
    assert stopped.value.detail == "ingest failed on predictions 0, offsets 0 to 100"


def test_a_zombie_is_fenced_and_changes_nothing(expected: tuple[Counter[Any], dict[bytes, list[bytes]]]) -> None:
    world = World()
    world.fill(RECORDS, partitions=4)
    zombie = world.worker("0", options=Options(strict=True, poll_records=150))
    world.turns(8)
    world.workers.remove(zombie)
    world.turns(150)
    world.worker("1")
    world.turns(40)
    world.workers.append(zombie)
    world.settle()
    assert world.public() == expected[0]
    assert world.alerts_in_order() == expected[1]


def test_an_idle_live_partition_ticks_and_windows_close() -> None:
    world = World(inputs=2, idle_after_ms=2_000)
    loop = world.worker()
    for second in range(5):
        world.write(0, world.now_ms, "a")
        world.turns(10)
        assert second >= 0
    world.turns(200)
    assert not world.public()["drift.windows"]
    world.write(1, START_MS, "b")
    world.turns(100)
    closed = [record.value for record in world.cluster.records("drift.windows")]
    assert len(closed) == 6
    assert loop.tasks["predictions", 0].running.state.watermark_ms > START_MS + 20_000


def test_a_partition_with_only_history_follows_and_does_not_run_past_it() -> None:
    world = World(inputs=2, idle_after_ms=2_000)
    history_ms = START_MS - 86_400_000
    loop = world.worker()
    for row in range(100):
        world.write(0, history_ms + row * 100, "a")
    world.turns(300)
    assert loop.tasks["predictions", 0].running.state.watermark_ms == history_ms + 9_900 - 500
    closed = {record.value for record in world.cluster.records("drift.windows")}
    # partition 1 never had a record: it follows partition 0 up to 9.4 s
    assert len(closed) == 9


def test_detect_waits_for_a_reference_and_goes_on_when_it_comes() -> None:
    world = World(inputs=1)
    loop = world.worker()
    for row in range(50):
        world.write(0, START_MS + row * 100, "a", "r1" if row >= 20 else None)
    world.turns(100)
    assert loop.tasks["drift.profiles", _partition_of("a")].lacks == "r1"
    assert loop.status.holding[("drift.profiles", _partition_of("a"))] == "reference"
    world.cluster.write(("drift.references", 0), b"{}", b"r1", timestamp_ms=START_MS)
    world.settle()
    assert len(world.cluster.records("drift.windows")) == 4


def test_a_reference_that_never_comes_ends_the_process_with_a_decision() -> None:
    world = World(inputs=1)
    world.worker()
    world.write(0, START_MS, "a", "r1")
    with pytest.raises(Stopped) as stopped:
        world.turns(900)
    assert (stopped.value.exit_code, stopped.value.reason) == (5, "reference_gone")


def test_a_flood_of_dead_letters_pauses_its_partition_and_only_that() -> None:
    world = World(inputs=2)
    loop = world.worker(options=Options(strict=True, poll_records=500))
    for _ in range(10_000):
        world.cluster.write(("predictions", 0), b"{", timestamp_ms=START_MS)
    for row in range(100):
        world.write(1, START_MS + row, "a")
    world.turns(100)
    assert loop.status.holding[("predictions", 0)] == "dead_letters"
    assert 1_000 <= len(world.cluster.records("drift.dead-letters")) < 5_000
    assert loop.tasks["predictions", 1].committed.next_offset == 100


def _turn(world: World, loop: Loop, count: int) -> None:
    for _ in range(count):
        world.now_ms += 100
        loop.turn()


def _partition_of(key: str) -> int:
    return partition_of(key.encode(), 3)
