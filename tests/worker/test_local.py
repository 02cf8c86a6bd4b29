"""The cluster in memory is a twin of Kafka; `tests/kafka/test_twin.py` runs the same checks there."""

from collections.abc import Callable

import pytest
from twins import CHECKS, Pair

from stream.worker.cluster import Cluster
from stream.worker.local import LocalEnds


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_memory(check: Callable[[Pair], None]) -> None:
    now = [0]
    cluster = Cluster(lambda: now[0])
    for topic, count in {"in": 2, "out": 1, "drift.snapshots": 1}.items():
        cluster.create(topic, count)

    def pass_time() -> None:
        now[0] += 100
        cluster.turn()

    def write(partition: int, value: bytes) -> None:
        cluster.write(("in", partition), value, timestamp_ms=0)

    check(
        Pair(
            make=lambda slot: LocalEnds(cluster, "twin", slot),
            write=write,
            seen=lambda: [record.value or b"" for record in cluster.records("out")],
            pass_time=pass_time,
        )
    )
