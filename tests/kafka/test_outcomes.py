"""Outcomes on Apache Kafka, to the byte: 4 and 3 partitions, repeated records, workers that die while labels meet."""

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import simulator
from flows import built, published, stages_of
from kafka.cluster import Cluster
from kafka.workers import INPUTS, INTERNAL, Item, Scene, scene, wait_until
from labels import LAST_MS, normal, told, traffic

from stream.wire.record import Record
from stream.worker.loop import Options

FEEDBACK = 3
REFERENCES = (published(built()), normal())
POINTS = ["step@join:2", "step@join:5", "commit:3"]
"""The first time around while halves meet for the first time, then during or after the replay."""
Answer = tuple[Counter[Any], dict[tuple[str, str, int], bytes]]


def public(play: Scene) -> list[str]:
    """Alerts and readings."""
    return [play.settings.topics.alerts, play.settings.topics.of("windows")]


def in_memory(play: Scene, inputs: list[Item]) -> Answer:
    """What one undisturbed worker says."""
    topics = play.settings.topics
    world = simulator.World(inputs=INPUTS, internal=INTERNAL, feedback=FEEDBACK, topics=topics)
    for reference in REFERENCES:
        world.cluster.write((topics.of("references"), 0), reference.value, reference.key, timestamp_ms=0)
    names = {"predictions": topics.predictions[0], "feedback": topics.feedback[0]}
    for topic, partition, time_ms, value in inputs:
        world.cluster.write((names[topic], partition), value, timestamp_ms=time_ms)
    world.worker(stages=stages_of(world.settings), options=Options(strict=True))
    world.settle()
    said = Counter((topic, key, value) for topic, key, value, _ in world.public(public(play)).elements())
    return said, dict(told(world.cluster.records(topics.of("profiles"))))


def on_kafka(play: Scene, cluster: Cluster) -> Answer:
    """What a read_committed reader has seen so far."""
    said = Counter((name, m.key(), m.value()) for name in public(play) for m in cluster.records(name))
    messages = cluster.records(play.settings.topics.of("profiles"))
    found = [Record(m.topic() or "", m.partition() or 0, m.offset() or 0, 0, m.key(), m.value()) for m in messages]
    return said, dict(told(found))


@pytest.mark.parametrize("workers", [1, 3])
def test_outcomes_are_those_of_one_worker_in_memory(cluster: Cluster, tmp_path: Path, workers: int) -> None:
    inputs: list[Item] = [(topic, place, LAST_MS, value) for topic, place, value in traffic(INPUTS, FEEDBACK)]
    with scene(cluster.bootstrap, f"outcomes-{workers}", tmp_path, records=1, feedback=FEEDBACK) as play:
        play.stages = "flows"
        expected = in_memory(play, inputs)
        for reference in REFERENCES:
            play.publish(reference)
        assert any(b'"performance"' in value for topic, _, value in expected[0] if topic.endswith("alerts"))
        size = len(inputs) // (len(POINTS) + 2) + 1
        parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        for point in POINTS if workers == 1 else ():
            play.produce(parts.pop(0))
            play.start("0", f"{point}=kill")
            assert play.wait("0") == -signal.SIGKILL, play.report()
        for part in parts[:-1]:
            play.produce(part)
        for slot in range(workers):
            play.start(str(slot))
        wait_until(lambda: len(on_kafka(play, cluster)[1]) > 1, play.report)
        for slot in range(workers):
            play.signal(str(slot), signal.SIGKILL)
            play.wait(str(slot))
        play.produce(parts[-1])
        for slot in range(workers):
            play.start(str(slot))
        wait_until(lambda: on_kafka(play, cluster)[0].total() >= expected[0].total(), play.report)
        assert play.stop() == {str(slot): 0 for slot in range(workers)}, play.report()
        assert on_kafka(play, cluster) == expected
        assert '"replay_differs"' not in play.report()
