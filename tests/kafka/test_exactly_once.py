"""Exactly once, on Apache Kafka: kill a worker anywhere, the public topics are those of an undisturbed run."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka.cluster import Cluster
from kafka.workers import INPUTS, Scene, scene, wait_until

# Killed before this step; nth keeps clear of the start, where nothing has been read.
POINTS = [
    "init",
    "assigned@detect",
    "fetch_offset@ingest:3",
    "restore@detect:2",
    "replay@detect:2",
    "begin:3",
    "step@ingest:3",
    "step@detect:2",
    "outputs:3",
    "snapshots:3",
    "offsets:3",
    "commit:3",
    "adopt:3",
    "close",
]


def published(cluster: Cluster, play: Scene) -> Counter[Any]:
    """Alerts and readings a read_committed reader sees."""
    names = (play.settings.topics.alerts, play.settings.topics.of("windows"))
    return Counter((name, m.key(), m.value()) for name in names for m in cluster.records(name))


def await_answer(cluster: Cluster, play: Scene) -> None:
    """Until all is said; then nothing more may come."""
    expected = play.expected()
    wait_until(lambda: published(cluster, play).total() >= expected.total(), play.report)
    assert published(cluster, play) == expected
    play.stop()
    assert published(cluster, play) == expected, "said more when it was stopped"


def test_end_to_end_and_a_clean_stop(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster.bootstrap, "e2e", tmp_path) as play:
        play.produce(play.inputs())
        play.start("0")
        expected = play.expected()
        wait_until(lambda: published(cluster, play).total() >= expected.total(), "not all was said")
        assert play.stop() == {"0": 0}
        assert published(cluster, play) == expected


def test_a_restart_goes_on_where_it_stopped(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster.bootstrap, "restart", tmp_path) as play:
        inputs = play.inputs()
        for part in (inputs[:1_500], inputs[1_500:3_000], inputs[3_000:]):
            play.produce(part)
            play.start("0")
            before = published(cluster, play).total()
            wait_until(partial(_more_than, cluster, play, before), play.report)
            assert play.stop() == {"0": 0}
        play.start("0")
        await_answer(cluster, play)


def test_kill_9_at_every_step(cluster: Cluster, tmp_path: Path) -> None:
    def run(point: str) -> None:
        name = "kill-" + point.replace("@", "-").replace(":", "-").replace("_", "-")
        with scene(cluster.bootstrap, name, tmp_path) as play:
            inputs = play.inputs()
            play.produce(inputs[:2_000])
            play.start("0", f"{point}=kill")
            if point == "close":
                wait_until(lambda: "transaction" in play.said("0"), play.report)
                play.signal("0", signal.SIGTERM)
            assert play.wait("0") == -signal.SIGKILL, play.said("0")
            play.produce(inputs[2_000:])
            play.start("0")
            await_answer(cluster, play)

    all_of(run, POINTS)


def test_an_abort_at_every_step_is_done_again(cluster: Cluster, tmp_path: Path) -> None:
    def run(point: str) -> None:
        with scene(cluster.bootstrap, f"abort-{point}", tmp_path) as play:
            play.produce(play.inputs())
            play.start("0", f"{point}:2=abort,{point}:3=abort")
            await_answer(cluster, play)
            assert play.said("0").count('"event": "aborted"') == 2, play.said("0")

    all_of(run, ["begin", "outputs", "snapshots", "offsets", "commit", "step"])


def test_twenty_random_kills_under_load(cluster: Cluster, tmp_path: Path) -> None:
    rng = random.Random(7)
    with scene(cluster.bootstrap, "storm", tmp_path, records=12_000) as play:
        inputs, slots, said = play.inputs(), ["0", "1", "2"], 0
        for slot in slots:
            play.start(slot)
        for kill in range(20):
            play.produce(inputs[said : said + 500])
            said += 500
            time.sleep(rng.uniform(0.5, 3.5))
            slot = slots[kill % 3]
            play.signal(slot, signal.SIGKILL)
            play.wait(slot)
            play.start(slot)
        play.produce(inputs[said:])
        await_answer(cluster, play)


def test_a_rebalance_storm_under_load(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster.bootstrap, "rebalance", tmp_path, records=12_000) as play:
        inputs, said = play.inputs(), 0
        play.start("0")
        for round_ in range(10):
            play.produce(inputs[said : said + 1_000])
            said += 1_000
            slot = str(1 + round_)
            play.start(slot)
            wait_until(partial(_has_said, play, slot, '"opened"'), play.report)
            time.sleep(1)
            play.signal(slot, signal.SIGTERM)
            assert play.wait(slot) == 0, play.said(slot)
        play.produce(inputs[said:])
        await_answer(cluster, play)


def test_a_zombie_is_fenced(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster.bootstrap, "zombie", tmp_path, records=12_000) as play:
        inputs = play.inputs()
        play.produce(inputs[:4_000])
        play.start("0")
        wait_until(lambda: "transaction" in play.said("0"), "no transaction")
        play.signal("0", signal.SIGSTOP)
        play.produce(inputs[4_000:8_000])
        play.start("1")
        # The session (10 s) and the transaction (15 s and its sweep) of the sleeper run out.
        wait_until(lambda: play.said("1").count('"running"') >= INPUTS, "nobody took over")
        play.signal("0", signal.SIGCONT)
        play.produce(inputs[8_000:])
        expected = play.expected()
        wait_until(lambda: published(cluster, play).total() >= expected.total(), "not all was said")
        assert published(cluster, play) == expected
        play.stop()
        assert play.workers["0"].returncode in {0, 75}, play.said("0")
        assert published(cluster, play) == expected


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_both_protocols_of_the_group(cluster: Cluster, tmp_path: Path, protocol: str) -> None:
    with scene(cluster.bootstrap, f"protocol-{protocol}", tmp_path, group_protocol=protocol) as play:
        play.produce(play.inputs())
        for slot in ("0", "1"):
            play.start(slot)
        await_answer(cluster, play)


def test_the_slot_of_a_living_worker_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster.bootstrap, "slot", tmp_path) as play:
        play.produce(play.inputs())
        first = play.start("0")
        wait_until(lambda: "assigned" in play.said("0"), "not joined")
        play.start("0")
        assert play.wait("0") == 3
        assert "slot_in_use" in play.said("0")
        play.workers = {"first": first}
        (tmp_path / f"{play.name}-first.log").touch()
        await_answer(cluster, play)


def _more_than(cluster: Cluster, play: Scene, count: int) -> bool:
    return published(cluster, play).total() > count


def _has_said(play: Scene, slot: str, words: str) -> bool:
    return words in play.said(slot)


def all_of(run: Callable[[str], None], names: Sequence[str]) -> None:
    """Several scenes side by side: most of their time is waiting for sessions to end."""
    with ThreadPoolExecutor(5) as pool:
        for _ in pool.map(run, names):
            pass
