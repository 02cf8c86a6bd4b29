"""Workers as real processes over the counting stages, and the answer they must give whatever happens to them.

The answer is that of the simulator: one undisturbed worker over the same records in memory.

Run as a script it is one worker: `workers.py SETTINGS SLOT STAGES`, the stages being `counting`, `flows` or `labels`.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # not listed in its __all__
from simulator import World

from stream.wire.record import Outgoing
from stream.worker import topics
from stream.worker.run import run
from stream.worker.settings import Http, Kafka, Service, Settings, Topics

DEADLINE_S: Final = 90
INPUTS: Final = 4
INTERNAL: Final = 3


Item: TypeAlias = tuple[str, int, int, bytes]
"""predictions or feedback, partition, event time, value"""


class Scene:
    """Topics and a group of their own on a shared broker, records to read, and workers."""

    def __init__(
        self, bootstrap: str, name: str, folder: Path, *, records: int = 4_000, feedback: int = 0, **kafka: Any
    ) -> None:
        self.name = name
        self.folder = folder
        self.settings = Settings(
            service=Service.model_validate({"id": name, "snapshot_interval": "1s"}),
            kafka=Kafka.model_validate(
                {
                    "bootstrap_servers": bootstrap,
                    "commit_interval": "200ms",
                    "commit_records": 200,
                    # Small fetches, so that there are many transactions to be killed in.
                    "properties": {"fetch.message.max.bytes": 4096},
                }
                | kafka
            ),
            topics=Topics(
                predictions=[f"{name}-in"],
                feedback=[f"{name}-feedback"] if feedback else [],
                alerts=f"{name}-alerts",
                prefix=f"{name}.",
            ),
            http=Http(port=0),
            idle_after_ms=0,
        )
        self.world = World(inputs=INPUTS, internal=INTERNAL, feedback=feedback)
        if feedback:
            self.world.fill_pairs(records, partitions=INPUTS, feedback=feedback)
        else:
            self.world.fill(records, partitions=INPUTS)
        self.stages = "counting"
        """The module of the tests whose `stages_of(settings)` the workers run."""
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        made = topics.create(self.settings, partitions=INTERNAL, replication=1)
        assert set(made.values()) == {"created"}, made
        counts = dict.fromkeys(self.settings.topics.predictions, INPUTS)
        counts |= dict.fromkeys(self.settings.topics.feedback, feedback)
        client = topics.admin(self.settings)
        asked = client.create_topics([NewTopic(topic, count, 1) for topic, count in counts.items()])
        for answer in asked.values():
            answer.result(DEADLINE_S)
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True, "log_level": 0}
        )

    def inputs(self) -> list[Item]:
        """Predictions and feedback by event time."""
        found = [
            (topic, record.partition, record.timestamp_ms, record.value or b"")
            for topic in ("predictions", "feedback")
            for log in self.world.cluster.logs.get(topic, [])
            for record in log.read(0, 10**9)[0]
        ]
        return sorted(found, key=lambda item: item[2])

    def publish(self, record: Outgoing) -> None:
        """Write a reference."""
        topic = self.settings.topics.of("references")
        self._producer.produce(topic, record.value, key=record.key, partition=0)
        assert self._producer.flush(60) == 0

    def produce(self, items: list[Item]) -> None:
        """Write inputs in this order."""
        topics = self.settings.topics
        names = {"predictions": topics.predictions, "feedback": topics.feedback}
        for topic, partition, time_ms, value in items:
            self._producer.produce(names[topic][0], value, partition=partition, timestamp=time_ms)
        assert self._producer.flush(60) == 0

    def expected(self) -> Counter[Any]:
        """What an undisturbed run says."""
        if not self.world.workers:
            self.world.worker()
            self.world.settle(20_000)
        return Counter(
            {
                (self._named(topic), key, value): count
                for (topic, key, value, _), count in self.world.public(("alerts", "drift.windows")).items()
            }
        )

    def _named(self, topic: str) -> str:
        return self.settings.topics.alerts if topic == "alerts" else self.settings.topics.of("windows")

    def start(self, slot: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        """A worker; what it says goes to a file of its own."""
        environment = os.environ | {"DRIFT_FAILPOINT": failpoint, "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{self.name}-{slot}.log").open("ab") as log:
            self.workers[slot] = subprocess.Popen(
                [sys.executable, __file__, self.settings.model_dump_json(), slot, self.stages],
                env=environment,
                stdout=log,
                stderr=log,
            )
        return self.workers[slot]

    def said(self, slot: str) -> str:
        """The log of a worker, all its incarnations."""
        return (self.folder / f"{self.name}-{slot}.log").read_text(encoding="utf-8", errors="replace")

    def report(self) -> str:
        """What all workers said, when something took too long."""
        return "\n".join(f"--- {self.name} {slot}\n{self.said(slot)[-6_000:]}" for slot in self.workers)

    def wait(self, slot: str) -> int:
        """Until a worker has ended by itself."""
        return self.workers[slot].wait(DEADLINE_S)

    def signal(self, slot: str, number: signal.Signals) -> None:
        """To a worker; none if it is gone."""
        with suppress(ProcessLookupError):
            self.workers[slot].send_signal(number)

    def stop(self) -> dict[str, int]:
        """SIGTERM to all; exit codes by slot."""
        for slot in self.workers:
            self.signal(slot, signal.SIGTERM)
        return {slot: self.wait(slot) for slot in self.workers}

    def kill(self) -> None:
        """Leave nothing running."""
        for worker in self.workers.values():
            worker.kill()
            worker.wait()


@contextmanager
def scene(bootstrap: str, name: str, folder: Path, **more: Any) -> Iterator[Scene]:
    """A scene whose workers are gone at its end."""
    made = Scene(bootstrap, name, folder, **more)
    try:
        yield made
    finally:
        made.kill()


def wait_until(condition: Callable[[], bool], what: str | Callable[[], str], deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition with a deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what if isinstance(what, str) else what())
        time.sleep(0.2)


if __name__ == "__main__":
    settings = Settings.model_validate_json(sys.argv[1])
    sys.exit(run(settings, importlib.import_module(sys.argv[3]).stages_of(settings), slot=sys.argv[2]))
