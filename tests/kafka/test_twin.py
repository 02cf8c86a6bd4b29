"""Kafka itself keeps the promises its twin in memory keeps."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from confluent_kafka import Producer
from kafka.cluster import Cluster
from twins import CHECKS, Pair

from stream.worker.kafka import KafkaEnds
from stream.worker.settings import Kafka, Service, Settings
from stream.worker.status import Status

NUMBERS = count()


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[Pair]:
    """Fresh topics and a fresh group."""
    name = f"twin-{next(NUMBERS)}"
    cluster.create_topics({f"{name}-in": 2, f"{name}-out": 1})
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    settings = Settings(service=Service(id=name), kafka=Kafka(bootstrap_servers=cluster.bootstrap))
    made: list[KafkaEnds] = []

    def make(slot: str) -> KafkaEnds:
        # Of two workers of one slot the second would wait for the first to leave: here it must not.
        ends = KafkaEnds(settings, slot, Status())
        ends._wait_for_slot = lambda: None  # type: ignore[method-assign]
        made.append(ends)
        return ends

    def write(partition: int, value: bytes) -> None:
        producer.produce(f"{name}-in", value, partition=partition)
        assert producer.flush(60) == 0

    yield Pair(
        make=make,
        write=write,
        seen=lambda: [message.value() or b"" for message in cluster.records(f"{name}-out")],
        pass_time=lambda: None,
        topic=f"{name}-in",
        out=f"{name}-out",
    )
    for ends in made:
        ends.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_apache_kafka(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)
