"""A broker in memory, a clock that moves when told, and workers that can be killed between any two steps."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import counting
from counting import HORIZON_MS

from stream.worker.cluster import Cluster
from stream.worker.ends import EXIT_RESTART, Stopped
from stream.worker.failpoints import Failpoint, Failpoints, parse
from stream.worker.local import LocalEnds
from stream.worker.loop import Clock, Loop, Options
from stream.worker.settings import Kafka, Service, Settings, Topics
from stream.worker.stages import Stages, stage_table
from stream.worker.task import RESTORING
from stream.worker.topics import specs

START_MS = 1_795_219_200_000
PUBLIC = ("alerts", "drift.windows", "drift.dead-letters", "drift.references")


class Killed(BaseException):
    """kill -9, as a worker in a simulation feels it."""


def _killed(_: str) -> None:
    raise Killed


class World:
    """A cluster with topics, and time."""

    def __init__(
        self,
        *,
        inputs: int = 4,
        internal: int = 3,
        feedback: int = 0,
        topics: Topics | None = None,
        idle_after_ms: int = 0,
        **kafka: Any,
    ) -> None:
        self.now_ms = START_MS
        self.cluster = Cluster(lambda: self.now_ms)
        self.settings = Settings(
            service=Service.model_validate({"id": "sim", "snapshot_interval": "2s"}),
            kafka=Kafka.model_validate({"bootstrap_servers": "memory", "commit_interval": "500ms", **kafka}),
            topics=topics or Topics(feedback=["feedback"] if feedback else []),
            idle_after_ms=idle_after_ms,
        )
        topics = self.settings.topics
        counts = dict.fromkeys(topics.predictions, inputs) | dict.fromkeys(topics.feedback, feedback)
        for spec in specs(self.settings, partitions=internal):
            counts[spec.name] = spec.partitions
        for topic, count in counts.items():
            self.cluster.create(topic, count)
        self.workers: list[Loop] = []

    def write(self, partition: int, time_ms: int, key: str, reference: str | None = None) -> None:
        """One input record; its Kafka timestamp is its event time."""
        value = counting.record(time_ms, key, reference)
        self.cluster.write(("predictions", partition), value, timestamp_ms=time_ms)

    def fill(self, records: int, *, partitions: int, seed: int = 1, keys: int = 5) -> None:
        """A seeded stream without late records, in which event i has the same content whatever its partition."""
        rng = random.Random(seed)
        for row in range(records):
            self.write(row % partitions, START_MS + row * 7 + rng.randrange(100), f"k{rng.randrange(keys)}")
        for partition in range(partitions):
            self.write(partition, START_MS + records * 7 + 3_600_000, "end")

    def fill_pairs(self, records: int, *, partitions: int, feedback: int, seed: int = 1) -> None:
        """As `fill`, with a label for most: before or after its prediction, twice, or beyond the horizon."""
        rng = random.Random(seed)
        inputs = []
        for row in range(records):
            time_ms, key, pair = START_MS + row * 7 + rng.randrange(100), f"k{rng.randrange(5)}", f"p{row}"
            inputs.append((time_ms, ("predictions", row % partitions), key, pair))
            delays_ms = rng.choice([[], [rng.randrange(-900, HORIZON_MS)], [300, 900], [HORIZON_MS, HORIZON_MS + 1]])
            places = [("feedback", int(rng.random() * feedback)) for _ in delays_ms]
            inputs += [(time_ms + delay, place, key, pair) for delay, place in zip(delays_ms, places, strict=True)]
        ends = [("predictions", number) for number in range(partitions)]
        ends += [("feedback", number) for number in range(feedback)]
        inputs += [(START_MS + records * 7 + 3_600_000, end, "end", "end") for end in ends]
        for time_ms, place, key, pair in sorted(inputs):
            value = counting.record(time_ms, key, None, None if key == "end" else pair)
            self.cluster.write(place, value, timestamp_ms=time_ms)

    def worker(
        self,
        slot: str = "0",
        failpoints: str = "",
        *,
        stages: Stages | None = None,
        options: Options | None = None,
        say: Callable[..., None] | None = None,
    ) -> Loop:
        """A worker that has joined."""
        planned: list[Failpoint] = parse(failpoints)
        actions = {"kill": _killed}
        loop = Loop(
            LocalEnds(self.cluster, "sim", slot),
            stages or counting.stages(),
            self.settings,
            clock=Clock(lambda: self.now_ms, lambda: self.now_ms / 1_000),
            options=options or Options(strict=True),
            failpoints=Failpoints(planned, {**Failpoints([]).actions, **actions}),
            say=say or (lambda *_args, **_fields: None),
        )
        loop.open()
        self.workers.append(loop)
        return loop

    def try_worker(self, slot: str, failpoints: str = "", *, options: Options | None = None) -> None:
        """A worker that may die while it starts."""
        with suppress(Killed):
            self.worker(slot, failpoints, options=options)

    def closing(self, loop: Loop) -> None:
        """A worker stops cleanly, unless something stops it before."""
        try:
            loop.close()
        except Killed:
            return
        except Stopped as stopped:
            if stopped.exit_code != EXIT_RESTART:
                raise

    def turn(self, ms: int = 100) -> None:
        """Time passes; every living worker turns once."""
        self.now_ms += ms
        self.cluster.turn()
        for loop in list(self.workers):
            try:
                loop.turn()
            except Killed:
                self.workers.remove(loop)
            except Stopped as stopped:
                self.workers.remove(loop)
                if stopped.exit_code != EXIT_RESTART:
                    raise

    def turns(self, count: int, ms: int = 100) -> None:
        """Some rounds."""
        for _ in range(count):
            self.turn(ms)

    def settle(self, turns_max: int = 2_000) -> None:
        """Until everything readable is read and committed."""
        for _ in range(turns_max):
            self.turn()
            if self.is_settled():
                return
        raise AssertionError("the workers did not come to rest")

    def is_settled(self) -> bool:
        """Whether nothing is left to do."""
        group = self.cluster.group("sim")
        wanted = self.cluster.subscribed(stage_table(self.settings))
        if any(loop.tx.open for loop in self.workers) or group.pending:
            return False
        if any(self.cluster.unstable(partition) for partition in self.cluster.subscribed(self.cluster.logs)):
            return False
        tasks = [task for loop in self.workers for task in loop.tasks.values()]
        if sorted(task.partition for task in tasks) != sorted(wanted) or any(task.phase in RESTORING for task in tasks):
            return False
        return not any(
            self.cluster.log(partition).read(mark.next_offset if (mark := group.offsets.get(partition)) else 0, 1)[0]
            for partition in wanted
        )

    def public(self, topics: Iterable[str] = PUBLIC) -> Counter[Any]:
        """The public topics as a multiset of (topic, key, value, headers)."""
        return Counter(
            (topic, record.key, record.value, tuple(record.headers))
            for topic in topics
            for record in self.cluster.records(topic)
        )

    def alerts_in_order(self) -> dict[bytes, list[bytes]]:
        """Alerts and readings per key, in the order a reader meets them."""
        found: dict[bytes, list[bytes]] = {}
        for topic in ("alerts", "drift.windows"):
            for record in self.cluster.records(topic):
                found.setdefault(topic.encode() + (record.key or b""), []).append(record.value or b"")
        return found
