"""Snapshot and silent replay: whatever is found, the state at the committed offset is the same, or a person decides."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import counting
import msgspec
import pytest
from simulator import START_MS, World

from stream.wire.record import Record
from stream.worker.ends import Committed, Stopped
from stream.worker.loop import Options
from stream.worker.snapshots import Manifest

RECORDS = 2_000
SNAPSHOTS = "drift.snapshots"
Told = list[tuple[str, dict[str, Any]]]


def half_way(partitions: int = 4) -> World:
    """A world in which a worker was killed after some snapshots, with half of the input still to come."""
    world = World(inputs=partitions)
    world.fill(RECORDS, partitions=partitions)
    worker = world.worker(options=Options(strict=True, poll_records=15))
    world.turns(100)
    world.workers.remove(worker)
    assert len(world.cluster.records(SNAPSHOTS)) >= 4
    assert sum(world.public().values()) > 10
    assert not world.is_settled()
    world.turns(150)
    return world


def resumed(world: World, **options: Any) -> Told:
    """Another worker goes on; what it said."""
    told: Told = []
    world.worker("1", options=Options(strict=True, **options), say=lambda event, **fields: told.append((event, fields)))
    world.settle()
    return told


@pytest.fixture(scope="module")
def expected() -> Counter[Any]:
    world = World()
    world.fill(RECORDS, partitions=4)
    world.worker()
    world.settle()
    return world.public()


def change(world: World, choose: Callable[[Record], bool], to: Callable[[Record], bytes | None]) -> int:
    """Damage records of drift.snapshots in place; how many."""
    changed = 0
    for number in range(3):
        for entry in world.cluster.log((SNAPSHOTS, number)).entries:
            if entry.record is not None and choose(entry.record):
                entry.record = msgspec.structs.replace(entry.record, value=to(entry.record))
                changed += 1
    return changed


def is_manifest(record: Record) -> bool:
    return (record.key or b"").endswith((b'"A"]', b'"B"]'))


def newest(world: World) -> dict[bytes, bytes]:
    """Key of the newest manifest per task."""
    found: dict[int, tuple[int, bytes]] = {}
    for record in world.cluster.records(SNAPSHOTS):
        if is_manifest(record):
            manifest = msgspec.json.decode(record.value or b"", type=Manifest)
            found[record.partition] = max(
                found.get(record.partition, (-1, b"")), (manifest.next_offset, record.key or b"")
            )
    return {key: key for _, key in found.values()}


def test_the_newest_snapshot_is_used(expected: Counter[Any]) -> None:
    world = half_way()
    offsets = {p[1]: m.next_offset for p, m in world.cluster.group("sim").offsets.items() if p[0] == "drift.profiles"}
    told = resumed(world)
    replays = {fields["task"].partition[1]: fields["offset"] for event, fields in told if event == "replaying"}
    assert all(0 < replays[number] <= offsets[number] for number in offsets)
    assert world.public() == expected


def test_a_damaged_newest_leaves_the_one_before(expected: Counter[Any]) -> None:
    world = half_way()
    keys = newest(world)
    damaged = change(world, lambda r: (r.key or b"") in keys, lambda r: (r.value or b"")[:-2] + b"0}")
    assert damaged
    told = resumed(world)
    assert any(event == "snapshot_refused" for event, _ in told)
    assert world.public() == expected


def test_without_any_readable_snapshot_the_whole_log_is_replayed(expected: Counter[Any]) -> None:
    world = half_way()
    change(world, lambda _: True, lambda r: (r.value or b"")[::-1])
    told = resumed(world)
    assert {fields["offset"] for event, fields in told if event == "replaying"} == {0}
    assert world.public() == expected


def test_without_snapshot_and_without_the_start_of_the_log_a_person_decides() -> None:
    world = half_way()
    change(world, lambda _: True, lambda _: None)
    for number in range(3):
        world.cluster.log(("drift.profiles", number)).trim(2)
    assert reason_of(world) == "state_lost"


def reason_of(world: World) -> str:
    """Why another worker ends at once."""
    with pytest.raises(Stopped) as stopped:
        resumed(world)
    assert stopped.value.exit_code == 5
    assert f"--accept-reset {stopped.value.reason}" in stopped.value.detail
    world.workers.clear()
    return stopped.value.reason


def offsets_of(world: World) -> dict[tuple[str, int], Committed]:
    return world.cluster.group("sim").offsets


def test_offsets_moved_by_hand_need_a_decision() -> None:
    world = half_way()
    offsets_of(world)["predictions", 0] = Committed(3, "")
    assert reason_of(world) == "offsets_moved"
    world.turns(120)
    told = resumed(world, accepted=frozenset({"offsets_moved"}))
    assert [fields["code"] for event, fields in told if event == "reset_accepted"] == ["offsets_moved"]


def test_snapshots_without_committed_offsets_need_a_decision() -> None:
    world = half_way()
    for number in range(3):
        del offsets_of(world)["drift.profiles", number]
    assert reason_of(world) == "offsets_lost"


def test_a_snapshot_ahead_of_its_offset_needs_a_decision() -> None:
    world = half_way()
    for number in range(3):
        mark = offsets_of(world)["drift.profiles", number]
        offsets_of(world)["drift.profiles", number] = Committed(1, mark.metadata)
    assert reason_of(world) == "state_ahead"


def test_input_deleted_above_the_offset_needs_a_decision_and_then_goes_on_behind_the_gap() -> None:
    world = half_way()
    next_offset = offsets_of(world)["predictions", 1].next_offset
    world.cluster.log(("predictions", 1)).trim(next_offset + 5)
    assert reason_of(world) == "input_gone"
    world.turns(120)
    told = resumed(world, accepted=frozenset({"input_gone"}))
    assert [fields["detail"] for event, fields in told if event == "reset_accepted"] == [
        f"the log starts at {next_offset + 5}, {next_offset} was to be read next"
    ]


def test_a_recreated_topic_needs_a_decision() -> None:
    world = half_way()
    mark = offsets_of(world)["predictions", 2]
    assert "t=local-predictions;" in mark.metadata
    world.cluster.topic_ids["predictions"] = "another"
    assert reason_of(world) == "topic_recreated"


def test_another_configuration_replays_all_and_leaves_the_old_state_for_a_rollback(expected: Counter[Any]) -> None:
    world = half_way()
    told: Told = []
    world.worker("1", stages=counting.stages("changed"), say=lambda event, **fields: told.append((event, fields)))
    world.settle()
    assert {fields["offset"] for event, fields in told if event == "replaying"} == {0}
    assert world.public() == expected
    world.workers.pop().close()
    keys = {record.key for record in world.cluster.records(SNAPSHOTS)}
    assert any(b'"counting"' in (key or b"") for key in keys)
    assert any(b'"changed"' in (key or b"") for key in keys)


def test_late_markers_only_make_the_replay_longer(expected: Counter[Any]) -> None:
    world = World()
    world.fill(RECORDS, partitions=4)
    world.cluster.markers_are_late = True
    worker = world.worker(options=Options(strict=True, poll_records=100))
    for turn in range(60):
        world.turn()
        if turn % 3 == 0:
            world.cluster.write_markers()
    world.workers.remove(worker)
    world.turns(150)
    world.worker("1")
    for turn in range(400):
        world.turn()
        if turn % 3 == 0:
            world.cluster.write_markers()
    world.cluster.markers_are_late = False
    world.cluster.write_markers()
    world.settle()
    assert world.public() == expected


def test_a_state_of_several_chunks_leaves_over_several_transactions(
    expected: Counter[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.worker.commit.SNAPSHOT_COMMIT_BYTES", 1024 * 1024)
    monkeypatch.setattr("stream.worker.commit.SNAPSHOT_BYTES_PER_SECOND", 1024 * 1024 * 1024)
    world = World()
    world.fill(RECORDS, partitions=4)
    stages = counting.stages(padding=bytes(3 * 1024 * 1024))
    worker = world.worker(stages=stages, options=Options(strict=True, poll_records=15))
    world.turns(100)
    world.workers.remove(worker)
    world.turns(150)
    told: Told = []
    world.worker("1", stages=stages, say=lambda event, **fields: told.append((event, fields)))
    world.settle()
    assert any(fields["offset"] > 0 for event, fields in told if event == "replaying")
    assert world.public() == expected


def test_a_step_that_is_no_function_is_found_at_the_next_restore() -> None:
    world = half_way()
    stages = counting.stages()
    calls = iter(range(10**6))
    odd = msgspec.structs.replace(
        stages, detect_digest=lambda state: f"{state.hash + next(calls):016x}" if state.hash else f"{0:016x}"
    )
    world.worker("1", stages=odd)
    with pytest.raises(Stopped) as stopped:
        world.settle()
    assert (stopped.value.exit_code, stopped.value.reason) == (70, "digest")


def test_a_rebalance_during_the_restore_is_survived(expected: Counter[Any]) -> None:
    world = half_way()
    world.worker("1", options=Options(strict=True, poll_records=1))
    world.turns(2)
    world.worker("2", options=Options(strict=True, poll_records=1))
    world.turns(3)
    gone = world.workers.pop()
    gone.close()
    world.settle(20_000)
    assert world.public() == expected


def test_a_first_start_at_the_end_commits_at_once_and_reads_only_what_comes() -> None:
    world = World(inputs=1, start="latest")
    world.fill(500, partitions=1)
    world.worker()
    world.turns(10)
    assert offsets_of(world)["predictions", 0].next_offset == 501
    world.write(0, START_MS + 7_200_000, "later")
    world.write(0, START_MS + 10_800_000, "end")
    world.settle()
    assert {record.key for record in world.cluster.records("drift.windows")} == {b"later"}
