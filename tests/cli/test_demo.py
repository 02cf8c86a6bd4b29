"""`drift demo`: what it plants, what it says, and that the README tells the truth about it."""

import io
import re
from itertools import islice
from pathlib import Path

import orjson
import pytest
from doorway import Drift
from rich.console import Console

from stream.cli.demo import shuttle, stage
from stream.cli.demo.shuttle import World
from stream.wire import inbound
from stream.wire.inbound import Limits
from stream.wire.record import Batch

ROOT = Path(__file__).parent.parent.parent
ROUND = shuttle.WINDOWS * shuttle.ROWS_PER_WINDOW


@pytest.fixture(scope="module")
def world() -> World:
    return shuttle.prepare(7)


@pytest.fixture(scope="module")
def events(world: World) -> list[shuttle.Event]:
    return list(islice(shuttle.stream_events(world, 7, stage.START_MS, stage.WINDOW_MS, 0, 4), ROUND))


def test_the_model_has_learned_something(world: World) -> None:
    assert world.accuracy() > 0.99


def test_the_stream_is_in_order_of_time_and_every_partition_has_rows_in_every_window(
    events: list[shuttle.Event],
) -> None:
    times = [event.time_ms for event in events]
    assert times == sorted(times)
    assert times[-1] < stage.START_MS + shuttle.WINDOWS * stage.WINDOW_MS
    places = {((event.time_ms - stage.START_MS) // stage.WINDOW_MS, event.partition) for event in events}
    assert len(places) == shuttle.WINDOWS * 4


def test_rows_are_real_and_only_the_planted_sensor_is_moved(world: World, events: list[shuttle.Event]) -> None:
    real = {tuple(row) for row in world.rows.tolist()}
    window = [orjson.loads(event.value)["features"] for event in events[21 * shuttle.ROWS_PER_WINDOW :][:100]]
    for features in window:
        moved_back = {name: value - shuttle.DRIFT_BY * (name in shuttle.DRIFTING) for name, value in features.items()}
        assert tuple(moved_back.values()) in real


def test_every_broken_record_is_refused_and_no_other(events: list[shuttle.Event]) -> None:
    values: list[bytes | None] = [event.value for event in events]
    n = len(events)
    times_ms = [event.time_ms for event in events]
    batch = Batch("predictions", 0, list(range(n)), times_ms, [None] * n, values, [None] * n)
    refused = inbound.decode(batch, Limits(), 300_000).malformed
    assert [row // shuttle.ROWS_PER_WINDOW for row, _ in refused] == list(shuttle.BROKEN)
    assert len({fault.code for _, fault in refused}) == 4


def test_the_same_seed_makes_the_same_stream(world: World, events: list[shuttle.Event]) -> None:
    again = shuttle.stream_events(world, 7, stage.START_MS, stage.WINDOW_MS, 0, 4)
    assert list(islice(again, 1_000)) == events[:1_000]
    other = shuttle.stream_events(world, 8, stage.START_MS, stage.WINDOW_MS, 0, 4)
    assert list(islice(other, 1_000)) != events[:1_000]


def test_the_drift_comes_again_in_the_next_round(world: World) -> None:
    # A round later the same windows drift: the second round is judged by its place in the round.
    later = shuttle.stream_events(world, 7, stage.START_MS, stage.WINDOW_MS, shuttle.WINDOWS + shuttle.DRIFT_FROM, 1)
    value = orjson.loads(next(iter(later)).value)["features"]["f3"]
    assert value - shuttle.DRIFT_BY in world.rows[:, 2]


def test_the_readme_shows_what_the_demo_says(drift: Drift) -> None:
    result = drift("demo", "--fast")
    assert result.exit_code == 0, result.output
    shown = re.search(r"```console\n\$ make demo\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == result.stdout


def test_a_drift_that_is_not_reported_is_exit_code_1(drift: Drift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuttle, "_MOVED", shuttle._MOVED * 0)
    result = drift("demo", "--fast")
    assert result.exit_code == 1
    assert "reported       not at all" in result.stdout
    assert "false alarms   0" in result.stdout


def test_what_is_told_does_not_depend_on_the_order_it_was_heard_in() -> None:
    """In real time a window's words come one window after the other, with --fast all at once."""
    lines = [
        stage.Line(stage.START_MS + known_s * 1_000, stage.START_MS + time_ms, text, text)
        for known_s, time_ms, text in [
            (2, 1_000, "outlier"),
            (1, 1_000, "resolved"),
            (1, 400, "early"),
            (3, 3_000, "last"),
        ]
    ]
    told = []
    for heard, steps in [(stage.Heard(lines=lines), [1, 2, 3]), (stage.Heard(lines=lines[::-1]), [3])]:
        with io.StringIO() as page:
            for second in steps:
                stage._print_until(Console(file=page), heard, stage.START_MS + second * 1_000)
            told.append([line.split()[-1] for line in page.getvalue().splitlines()])
    assert told == [["early", "resolved", "outlier", "last"]] * 2
