"""The stages of the product on Apache Kafka: two workers, one of which dies in a commit, agree with one in memory."""

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import simulator
from flows import MINUTE_MS, PER_WINDOW, START_MS, Stream, built, moved, published, stages
from kafka.cluster import Cluster
from kafka.workers import INPUTS, Item, scene, wait_until

from stream.worker.loop import Options

WINDOWS = 16
LAST_MS = START_MS + (WINDOWS + 10) * MINUTE_MS


def events() -> list[Item]:
    """A drift at the sixth window, a broken record, and what closes all windows."""
    rows = [orjson.dumps(row) for row in Stream(drift_at=6 * PER_WINDOW).rows(WINDOWS * PER_WINDOW)]
    rows.insert(100, b'{"prediction_id":')
    dealt = [("predictions", place % INPUTS, LAST_MS, row) for place, row in enumerate(rows)]
    last = [moved(row, LAST_MS - row["timestamp"]) for row in Stream(model_id="end", prefix="end").rows(INPUTS)]
    return dealt + [("predictions", place, LAST_MS, row) for place, row in enumerate(last)]


def in_memory(inputs: list[Item]) -> Counter[Any]:
    """One undisturbed worker."""
    world = simulator.World(inputs=INPUTS, internal=3)
    reference = published(built())
    world.cluster.write(("drift.references", 0), reference.value, reference.key, timestamp_ms=0)
    for topic, partition, time_ms, value in inputs:
        world.cluster.write((topic, partition), value, timestamp_ms=time_ms)
    world.worker(stages=stages(), options=Options(strict=True))
    world.settle()
    topics = ("alerts", "drift.windows", "drift.dead-letters")
    return Counter((topic, key, value) for (topic, key, value, _) in world.public(topics).elements())


def test_alerts_and_readings_are_those_of_one_worker_in_memory(cluster: Cluster, tmp_path: Path) -> None:
    inputs = events()
    expected = in_memory(inputs)
    assert any(topic == "alerts" and b'"data_drift"' in value for topic, _, value in expected)
    with scene(cluster.bootstrap, "product", tmp_path, records=1) as play:
        play.stages = "flows"
        topics = play.settings.topics
        play.settings = play.settings.model_copy(
            update={"topics": topics.model_copy(update={"predictions": ["predictions"]})}
        )
        cluster.create_topics({"predictions": INPUTS})
        names = {topics.alerts: "alerts", topics.of("windows"): "drift.windows"}
        names[topics.of("dead_letters")] = "drift.dead-letters"

        def said() -> Counter[Any]:
            return Counter((names[name], m.key(), m.value()) for name in names for m in cluster.records(name))

        play.publish(published(built()))
        half = len(inputs) // 2
        play.produce(inputs[:half])
        play.start("0", "commit:3=kill")
        assert play.wait("0") == -signal.SIGKILL, play.report()
        play.start("1")
        play.start("0")
        play.produce(inputs[half:])
        wait_until(lambda: said().total() >= expected.total(), play.report)
        assert play.stop() == {"0": 0, "1": 0}
        assert said() == expected
