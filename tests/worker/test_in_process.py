"""A worker on a thread over librdkafka's own broker: what the demo runs. No guarantee is claimed here."""

import time
from collections.abc import Callable, Iterator

import counting
import pytest
from confluent_kafka import Consumer, Producer
from simulator import START_MS

from stream.worker.run import InProcess
from stream.worker.settings import Kafka, Service, Settings, Topics


@pytest.fixture
def broker() -> Iterator[str]:
    """Address of a mock cluster, which lives as long as its producer."""
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    del producer


def wait_until(condition: Callable[[], bool], deadline_s: float = 40) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_alerts_come_out_of_the_mock_broker(broker: str) -> None:
    settings = Settings(
        service=Service(id="demo"),
        kafka=Kafka.model_validate({"bootstrap_servers": broker, "commit_interval": "100ms"}),
        topics=Topics(feedback=[]),
        idle_after_ms=500,
    )
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for row in range(400):
        producer.produce("predictions", counting.record(START_MS + row * 10, "a"), partition=row % 4)
    for partition in range(4):
        producer.produce("predictions", counting.record(START_MS + 3_600_000, "end"), partition=partition)
    assert producer.flush(10) == 0
    worker = InProcess(settings, counting.stages(), mock=True)
    worker.start()
    reader = Consumer(
        {"log_level": 0, "bootstrap.servers": broker, "group.id": "reader", "auto.offset.reset": "earliest"}
    )
    reader.subscribe(["alerts", "drift.windows"])
    seen: list[str] = []

    def heard() -> bool:
        assert worker.failure is None, worker.failure
        message = reader.poll(0.2)
        if message is not None and message.error() is None:
            seen.append(message.topic() or "")
        return sorted(seen) == ["alerts"] * 4 + ["drift.windows"] * 4

    wait_until(heard)
    worker.stop()
    reader.close()
    assert worker.status.records["predictions", "ok"] == 404
    assert worker.status.transactions["committed"] >= 2
