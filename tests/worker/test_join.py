"""The join between ingest and detect: its log is its state, and pairs are told once whatever happens."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import counting
import msgspec
import pytest
from simulator import START_MS, Killed, World

from stream.worker.ends import Committed, Stopped
from stream.worker.loop import Options
from stream.worker.metadata import JoinMark, decode_join, encode_join
from stream.worker.replay import replay_records
from stream.worker.rerun import Run, rerun

RECORDS = 1_500
PAIRS = "drift.pairs"
Answer = tuple[Counter[Any], dict[bytes, list[bytes]]]


def filled(inputs: int = 4, feedback: int = 3, internal: int = 3) -> World:
    world = World(inputs=inputs, feedback=feedback, internal=internal)
    world.fill_pairs(RECORDS, partitions=inputs, feedback=feedback)
    return world


def answer(world: World) -> Answer:
    return world.public(), world.alerts_in_order()


@pytest.fixture(scope="module")
def expected() -> Answer:
    world = filled()
    world.worker()
    world.settle()
    return answer(world)


def counted(found: Answer) -> Counter[str]:
    """Predictions, and pairs, by key."""
    total: Counter[str] = Counter()
    for topic, key, value, _ in found[0].elements():
        if topic == "drift.windows":
            total[key.decode()] += msgspec.json.decode(value)["n"]
    return total


def test_every_prediction_meets_its_first_label_once(expected: Answer) -> None:
    total = counted(expected)
    pairs = sum(n for key, n in total.items() if key.startswith(counting.PAIR))
    assert sum(n for key, n in total.items() if not key.startswith(counting.PAIR)) == RECORDS
    with_label = {
        pair
        for record in filled().cluster.records("feedback")
        if (pair := msgspec.json.decode(record.value or b"").get("id")) is not None
    }
    assert pairs == len(with_label) > RECORDS // 2


@pytest.mark.parametrize(("inputs", "feedback", "internal"), [(1, 1, 1), (4, 3, 12), (12, 5, 2)])
def test_partitions_do_not_matter(inputs: int, feedback: int, internal: int, expected: Answer) -> None:
    world = filled(inputs, feedback, internal)
    world.worker()
    world.settle()
    assert answer(world)[0] == expected[0]


@pytest.mark.parametrize("workers", [2, 3, 6])
def test_the_number_of_workers_does_not_matter(workers: int, expected: Answer) -> None:
    world = filled()
    for slot in range(workers):
        world.worker(str(slot))
    world.settle()
    assert answer(world) == expected


@pytest.mark.parametrize("poll_records", [7, 100])
def test_poll_sizes_do_not_matter(poll_records: int, expected: Answer) -> None:
    world = filled()
    world.worker(options=Options(strict=True, poll_records=poll_records, step_records=7))
    world.settle(turns_max=20_000)
    assert answer(world) == expected


STEPS = ["begin", "outputs", "snapshots", "offsets", "commit", "adopt"]
OTHERS = ["assigned@join", "fetch_offset@join", "restore@join", "replay@join", "step@join", "revoke"]


@pytest.mark.parametrize("nth", [1, 4, 12])
@pytest.mark.parametrize("point", STEPS + OTHERS)
def test_kill_before(point: str, nth: int, expected: Answer) -> None:
    world = filled()
    with suppress(Killed):
        world.worker("0", f"{point}:{nth}=kill", options=Options(strict=True, poll_records=50))
    world.turns(12)
    world.worker("1", options=Options(strict=True, poll_records=50))
    world.turns(30)
    world.worker("0")
    world.settle()
    assert answer(world) == expected


@pytest.mark.parametrize("point", [*STEPS[:-1], "step@join"])
def test_an_abort_is_undone_and_done_again(point: str, expected: Answer) -> None:
    world = filled()
    options = Options(strict=True, poll_records=150)
    loop = world.worker("0", f"{point}:5=abort,{point}:6=abort", options=options)
    world.settle()
    assert loop.status.transactions["aborted"] == 2
    assert answer(world) == expected


def half_way() -> World:
    """A world in which a worker was killed while pairs met, with half of the input still to come."""
    world = filled()
    worker = world.worker(options=Options(strict=True, poll_records=30))
    world.turns(100)
    world.workers.remove(worker)
    assert any((key or b"").startswith(counting.PAIR.encode()) for _, key, *_ in world.public())
    assert not world.is_settled()
    world.turns(150)
    return world


def marks(world: World) -> dict[int, tuple[int, JoinMark]]:
    """What is committed for each join task."""
    found = {}
    for (topic, number), committed in world.cluster.group("sim").offsets.items():
        if topic == PAIRS:
            mark = decode_join(committed.metadata)
            assert mark is not None
            found[number] = (committed.next_offset, mark)
    return found


def change(world: World, by: Callable[[int, JoinMark], tuple[int, JoinMark]]) -> None:
    """Somebody commits other offsets for the join tasks."""
    for number, known in marks(world).items():
        next_offset, mark = by(*known)
        world.cluster.group("sim").offsets[PAIRS, number] = Committed(next_offset, encode_join(mark))


Told = list[tuple[str, dict[str, Any]]]


def resumed(world: World, **options: Any) -> Told:
    """Another worker goes on; what it said."""
    told: Told = []
    world.worker("1", options=Options(strict=True, **options), say=lambda event, **fields: told.append((event, fields)))
    world.settle()
    return told


def replayed(told: Told) -> dict[int, int]:
    """Where the replay of each join task began."""
    return {
        fields["task"].partition[1]: fields["offset"]
        for event, fields in told
        if event == "replaying" and fields["task"].stage == "join"
    }


def test_a_restart_reads_on_from_the_oldest_row_it_needs(expected: Answer) -> None:
    world = half_way()
    known = marks(world)
    told = resumed(world)
    assert replayed(told) == {number: mark.replay_from for number, (_, mark) in known.items()}
    assert all(0 < mark.replay_from < next_offset for next_offset, mark in known.values())
    assert answer(world) == expected


def test_what_is_below_the_oldest_row_may_be_gone(expected: Answer) -> None:
    world = half_way()
    for number, (_, mark) in marks(world).items():
        world.cluster.log((PAIRS, number)).trim(mark.replay_from)
    resumed(world)
    assert answer(world) == expected


def reason_of(world: World) -> str:
    """Why another worker ends at once."""
    with pytest.raises(Stopped) as stopped:
        resumed(world)
    assert stopped.value.exit_code == 5
    world.workers.clear()
    world.turns(120)
    return stopped.value.reason


def test_without_the_rows_it_needs_a_person_decides() -> None:
    world = half_way()
    for number, (_, mark) in marks(world).items():
        world.cluster.log((PAIRS, number)).trim(mark.replay_from + 1)
    assert reason_of(world) == "state_lost"
    told = resumed(world, accepted=frozenset({"state_lost"}))
    assert {fields["code"] for event, fields in told if event == "reset_accepted"} == {"state_lost"}


def test_a_committed_offset_below_the_rows_it_needs_a_person_decides() -> None:
    world = half_way()
    change(world, lambda _, mark: (mark.replay_from - 1, mark))
    assert reason_of(world) == "state_ahead"


def test_offsets_moved_by_hand_and_topics_made_again_need_a_decision() -> None:
    world = half_way()
    offsets = dict(world.cluster.group("sim").offsets)
    world.cluster.group("sim").offsets[PAIRS, 0] = Committed(3, "")
    assert reason_of(world) == "offsets_moved"
    world.cluster.group("sim").offsets[PAIRS, 0] = offsets[PAIRS, 0]
    world.cluster.topic_ids[PAIRS] = "another"
    assert reason_of(world) == "topic_recreated"


def test_a_replay_that_ends_in_another_state_is_found() -> None:
    world = half_way()
    change(world, lambda next_offset, mark: (next_offset, msgspec.structs.replace(mark, digest="f" * 16)))
    world.worker("1")
    with pytest.raises(Stopped) as stopped:
        world.settle()
    assert (stopped.value.exit_code, stopped.value.reason) == (70, "digest")


def test_another_configuration_replays_all_that_is_there(expected: Answer) -> None:
    world = half_way()
    told: Told = []
    world.worker("1", stages=counting.stages("changed"), say=lambda event, **fields: told.append((event, fields)))
    world.settle()
    assert set(replayed(told).values()) == {0}
    assert answer(world) == expected


def test_the_replay_begins_with_the_halvings_that_were_committed() -> None:
    world = half_way()
    change(world, lambda next_offset, mark: (next_offset, msgspec.structs.replace(mark, halvings=3)))
    loop = world.worker("1")
    world.settle()
    states = [task.running.state for task in loop.tasks.values() if task.stage == "join"]
    assert [state.halvings for state in states] == [3, 3, 3]
    assert {mark.halvings for _, mark in marks(world).values()} == {3}


def test_pairs_are_counted_once_and_what_waits_is_told() -> None:
    world = half_way()
    loop = world.worker("1")
    world.settle()
    world.turns(15)
    matched = loop.status.pairs[counting.PAIR, "matched"]
    assert 0 < matched < sum(n for key, n in counted(answer(world)).items() if key.startswith(counting.PAIR))
    assert loop.status.pairs_pending == 0
    assert loop.status.assigned == {"ingest": 8, "join": 3, "detect": 3}
    assert {topic for topic, _ in loop.status.watermark_ms} == {"predictions", "feedback", PAIRS}


def test_without_feedback_nothing_is_joined() -> None:
    world = World()
    world.fill(200, partitions=4)
    world.worker()
    world.settle()
    assert "drift.pairs" not in world.cluster.logs
    assert {topic for topic, _ in world.cluster.group("sim").offsets} == {"predictions", "drift.profiles"}


def test_idle_feedback_lets_time_pass() -> None:
    world = World(inputs=1, feedback=2, idle_after_ms=2_000)
    world.worker()
    for second in range(8):
        for name, place in (("a", ("predictions", 0)), ("label", ("feedback", 0))):
            world.cluster.write(place, counting.record(world.now_ms, name, None, f"p{second}"), timestamp_ms=0)
        world.turns(10)
    world.cluster.write(("feedback", 1), counting.record(world.now_ms, "label", None, "other"), timestamp_ms=0)
    world.turns(300)
    assert counted(answer(world))[counting.PAIR + "a"] == 8


def test_files_say_the_same(expected: Answer) -> None:
    logs = filled().cluster.logs
    said: Counter[Any] = Counter()
    replay_records(
        [iter(log.read(0, 10**9)[0]) for log in logs["predictions"]],
        counting.stages(),
        World(feedback=3).settings,
        feedback=[iter(log.read(0, 10**9)[0]) for log in logs["feedback"]],
        on_record=lambda _, record: said.update([(record.topic, record.key, record.value, tuple(record.headers))]),
        turn_records=100,
    )
    beyond = Counter({told: count for told, count in said.items() if told[1] == b"end"})
    assert said - beyond == expected[0]
    assert len(beyond) == 1, "the end of files closes the window of the last event"


def test_a_run_can_be_done_again_from_what_it_left_in_the_log() -> None:
    world = filled(feedback=2)
    for slot in range(2):
        world.worker(str(slot), options=Options(strict=True, poll_records=40))
    world.turns(40)
    world.workers.pop()
    world.settle()
    logs = world.cluster.logs
    inputs = {
        (topic, number): log.read(0, 10**9)[0]
        for topic in ("predictions", "feedback")
        for number, log in enumerate(logs[topic])
    }
    profiles, pairs = ([log.read(0, 10**9)[0] for log in logs[topic]] for topic in ("drift.profiles", PAIRS))
    again: Counter[Any] = Counter()
    rerun(
        Run(inputs, profiles, [], pairs),
        counting.stages(),
        lateness_ms=counting.LATENESS_MS,
        on_output=lambda one: again.update([(world.settings.topics.of(one.role), one.key, one.value, one.headers)]),
    )
    assert again == world.public()


def test_feedback_that_cannot_be_read_does_not_stop_predictions() -> None:
    world = World(inputs=1, feedback=1)
    loop = world.worker(options=Options(strict=True, poll_records=500))
    world.cluster.write(("feedback", 0), counting.record(START_MS, "label", None, "p"), timestamp_ms=START_MS)
    for _ in range(10_000):
        world.cluster.write(("feedback", 0), b"{", timestamp_ms=START_MS)
    for row in range(300):
        time_ms = START_MS + row * 60_000
        world.cluster.write(("predictions", 0), counting.record(time_ms, "a"), timestamp_ms=time_ms)
    world.turns(100)
    assert loop.status.holding == {("feedback", 0): "dead_letters"}
    assert loop.tasks["predictions", 0].committed.next_offset == 300


def test_a_long_step_leaves_the_rest_to_the_next_turn(expected: Answer) -> None:
    world = filled()
    world.cluster.group("sim").session_ms = 10**9
    steps = [0]

    def slow(state: Any, records: Any) -> Any:
        world.now_ms += 21_000
        steps[-1] += 1
        return counting.join_step(state, records)

    stages = msgspec.structs.replace(counting.stages(), join_step=slow)
    world.worker(stages=stages, options=Options(strict=True, poll_records=500))
    for _ in range(1_000):
        steps.append(0)
        world.turn()
        if world.is_settled():
            break
    assert max(steps) == 1
    assert answer(world) == expected
