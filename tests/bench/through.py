"""The whole way on a real broker, in one process, beside two loops over the same topic: events per second.

*ceiling*: `consume` and `orjson.loads`, nothing else. *river*: the same loop with ADWIN and Page-Hinkley of River for
every numeric feature and histograms in dicts: what one would write oneself. *labelled*: `drift run` with its settings
at their defaults, from commit to commit: windows are judged and readings written on the way; every tenth prediction
gets its label three seconds later in a topic of feedback. *worker*: the same without any topic of feedback.

Records have about 860 bytes, 16 numeric and 4 categorical features, one segment key with 8 values; a thousand of them
make a second of event time. Each loop runs in a process of its own, in turns. Run as a script it is one loop:
`through.py LOOP BOOTSTRAP NAME EVENTS`, which prints how far it is, and at last what it measured as JSON.
"""

import os
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, TypeAlias

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka.cluster import Cluster
from msgspec import Struct
from river.drift import ADWIN, PageHinkley
from worlds import NUMERIC, START_MS, World

from stream.cli.binding import bound
from stream.cli.reference import send
from stream.config import Loaded, load, worker_settings
from stream.profiles import building, cuts
from stream.wire.internal import Reference
from stream.worker import clients, topics
from stream.worker.kafka import KafkaEnds
from stream.worker.loop import Loop
from stream.worker.run import settle_memory
from stream.worker.settings import Settings
from stream.worker.status import Status
from stream.worker.task import Phase

LoopName: TypeAlias = Literal["ceiling", "river", "worker", "labelled"]

PARTITIONS: Final = 4
TRAINING_ROWS: Final = 20_000
TRAINED_BEFORE_MS: Final = 7 * 86_400_000
POLL_RECORDS: Final = 10_000
STEP_MS: Final = 1
DEADLINE_SECONDS: Final = 300.0
LABEL_EVERY: Final = 10
"""Predictions, of which one gets a label."""
WRONG_EVERY: Final = 5
"""Labels, of which one is not what was predicted."""
LABEL_DELAY_MS: Final = 3_000
OPPOSITE: Final = {"approve": "deny", "deny": "approve"}
BINS: Final = 64
WARM_SHARE: Final = 0.15
"""Of the events, at the start and at the end, that are not timed."""


class Timed(Struct, frozen=True):
    """What a loop needed for the middle of its events."""

    events: int
    seconds: float
    cpu_seconds: float
    """Of all threads, those of the client included."""
    stages: dict[str, float] = {}
    """Seconds of the worker's stages over the whole run."""
    windows: int = 0
    """Closed, over all model versions."""
    readings: int = 0

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time per event."""
        return self.cpu_seconds / self.events * 1e6


class Compared(Struct, frozen=True):
    """Rounds of the loops."""

    loops: dict[LoopName, list[Timed]]

    def rate(self, loop: LoopName) -> float:
        """Median events per second of a loop."""
        return median(one.rate for one in self.loops[loop])

    def cpu_us(self, loop: LoopName) -> float:
        """Median microseconds of processor time per event, all threads."""
        return median(one.cpu_us for one in self.loops[loop])

    def ratio(self, loop: LoopName, other: LoopName) -> float:
        """Median over the rounds of how many times as fast one loop is as another: both had the same neighbours."""
        rounds = zip(self.loops[loop], self.loops[other], strict=True)
        return median(one.rate / beside.rate for one, beside in rounds)


def world() -> World:
    """The traffic."""
    return World(seed=7, step_ms=STEP_MS)


def reference(window_ms: int = 60_000) -> Reference:
    """What is normal for it, from a log of serving a week earlier."""
    rows = World(seed=3, prefix="t", start_ms=START_MS - TRAINED_BEFORE_MS, step_ms=500).rows(TRAINING_ROWS)
    plan = cuts.Plan("credit", "3", window_ms, cuts.Declared(segments=["country"]))
    return building.build(rows, plan, serving=True, effective_from_ms=START_MS - TRAINED_BEFORE_MS)


def configuration(bootstrap: str, name: str, *, labelled: bool = False) -> Loaded:
    """Defaults, but for names; and without feedback, unless it is asked for."""
    return load(
        None,
        {
            "DRIFT_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "DRIFT_SERVICE__ID": name,
            "DRIFT_TOPICS__PREFIX": f"{name}.",
            "DRIFT_TOPICS__ALERTS": f"{name}.alerts",
            "DRIFT_TOPICS__FEEDBACK": f'["{name}.feedback"]' if labelled else "[]",
        },
    )


def fill(cluster: Cluster, events: int) -> None:
    """Write the topic all loops read: compressed batches, as producers write them."""
    cluster.create_topics({"predictions": PARTITIONS})
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap, "compression.type": "lz4", "linger.ms": 20, "batch.size": 262_144}
    )
    for first in range(0, events, 20_000):
        for row, record in enumerate(world().records(min(20_000, events - first), first), first):
            producer.produce("predictions", record, partition=row % PARTITIONS)
            if row % 1_000 == 0:
                producer.poll(0)
        producer.flush(60)


def labels(events: int) -> Iterator[tuple[int, bytes]]:
    """Labels with the row of the stream that they come behind."""
    for first in range(0, events, 20_000):
        predicted = world().columns(min(20_000, events - first), first)
        for place in range(0, len(predicted.label), LABEL_EVERY):
            row, label = first + place, predicted.label[place]
            wrong = row // LABEL_EVERY % WRONG_EVERY == 0
            record = {
                "prediction_id": predicted.prediction_ids[place],
                "model_id": world().model_id,
                "timestamp": int(predicted.time_ms[place]) + LABEL_DELAY_MS,
                "actual": {"label": OPPOSITE[label] if wrong else label},
            }
            yield row + LABEL_DELAY_MS // STEP_MS, orjson.dumps(record)


def compare(cluster: Cluster, events: int, rounds: int = 3) -> Compared:
    """All loops in turns, `rounds` times. The river loop reads a third of the events."""
    fill(cluster, events)
    normal, late = reference(), list(labels(events))
    loops: dict[LoopName, list[Timed]] = {"ceiling": [], "river": [], "worker": [], "labelled": []}
    for number in range(rounds):
        name, other = f"bench-{number}", f"bench-labelled-{number}"
        cluster.create_topics({f"{other}.feedback": PARTITIONS})
        for loaded in (configuration(cluster.bootstrap, name), configuration(cluster.bootstrap, other, labelled=True)):
            settings = worker_settings(loaded.config)
            topics.create(settings, replication=1)
            send(settings, normal)
        loops["ceiling"].append(_apart("ceiling", cluster.bootstrap, name, events))
        loops["worker"].append(_apart("worker", cluster.bootstrap, name, events))
        loops["labelled"].append(_apart("labelled", cluster.bootstrap, other, events, late))
        loops["river"].append(_apart("river", cluster.bootstrap, name, events // 3))
    return Compared(loops)


def _apart(loop: LoopName, bootstrap: str, name: str, events: int, late: Sequence[tuple[int, bytes]] = ()) -> Timed:
    """One loop in a process of its own; from this one come the labels, as far as it says that it is."""
    command = [sys.executable, __file__, loop, bootstrap, name, str(events)]
    producer, sent, line = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4"}), 0, b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        patience = threading.Timer(DEADLINE_SECONDS, process.kill)
        patience.start()
        for line in process.stdout or ():
            while line.strip().isdigit() and sent < len(late) and late[sent][0] <= int(line):
                producer.produce(f"{name}.feedback", late[sent][1], partition=sent % PARTITIONS)
                sent += 1
            producer.poll(0)
        patience.cancel()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return msgspec.json.decode(line, type=Timed)


class _Clock:
    """Wall and processor time of the middle of a run: joining a group and running dry at the end are no speed."""

    def __init__(self, events: int) -> None:
        self._from, self._to = events * WARM_SHARE, events * (1 - WARM_SHARE)
        self._marks: list[tuple[int, float, float]] = []

    def saw(self, events: int) -> None:
        """So many events are done by now."""
        if self._from <= events <= self._to and (not self._marks or events > self._marks[-1][0]):
            self._marks.append((events, time.perf_counter(), time.process_time()))

    def timed(self, **more: Any) -> Timed:
        """Between the first mark and the last."""
        (first, *began), (last, *ended) = self._marks[0], self._marks[-1]
        return Timed(last - first, ended[0] - began[0], ended[1] - began[1], **more)


def consuming(settings: Settings, events: int, use: Callable[[Any], None]) -> Timed:
    """The bare loop: big polls with the worker's own consumer properties, `use` for every record."""
    consumer = Consumer(clients.reader(settings, "bare", mock=False) | {"fetch.wait.max.ms": 500})
    consumer.assign([TopicPartition("predictions", partition, 0) for partition in range(PARTITIONS)])
    clock, seen = _Clock(events), 0
    while seen < events:
        for message in consumer.consume(POLL_RECORDS, 0.1):
            if message.error() is None:
                use(orjson.loads(message.value() or b""))
                seen += 1
        clock.saw(seen)
    consumer.close()
    return clock.timed()


def by_hand(edges: dict[str, list[float]]) -> Callable[[Any], None]:
    """What one would write with River: two detectors per numeric feature, a histogram of every feature."""
    detectors: dict[str, tuple[Any, Any]] = {name: (ADWIN(), PageHinkley()) for name in NUMERIC}
    histograms: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
    found: dict[str, int] = defaultdict(int)

    def use(event: Any) -> None:
        for name, value in event["features"].items():
            cuts_of = edges.get(name)
            if cuts_of is None or value is None:
                histograms[name][value] += 1
                continue
            histograms[name][bisect_left(cuts_of, value)] += 1
            for detector in detectors[name]:
                detector.update(value)
                if detector.drift_detected:
                    found[name] += 1

    return use


def working(loaded: Loaded, events: int) -> Timed:
    """The worker as `drift run` makes it, turned until the last prediction is committed."""
    settings, status = worker_settings(loaded.config), Status()
    loop = Loop(KafkaEnds(settings, "0", status), bound(loaded), settings, status=status)
    settle_memory()
    loop.open()
    clock, told = _Clock(events), 0
    while (done := _committed(loop, settings.topics.predictions)) < events:
        if done > told:
            print(done, flush=True)
            told = done
        if all(task.phase is Phase.RUNNING for task in loop.tasks.values()):
            clock.saw(done)
        loop.turn()
    timed = clock.timed(
        stages={name: spent.sum_seconds for name, spent in status.stage_seconds.items()},
        windows=status.windows_closed.total(),
        readings=status.published["windows"],
    )
    loop.close()
    return timed


def _committed(loop: Loop, predictions: Sequence[str]) -> int:
    return sum(max(0, task.committed.next_offset) for task in loop.tasks.values() if task.partition[0] in predictions)


def _edges() -> dict[str, list[float]]:
    columns = world().columns(4_096).numeric
    return {
        name: sorted(value for value in column if value == value)[:: 4_096 // BINS]  # noqa: PLR0124 - NaN
        for name, column in zip(NUMERIC, columns.T.tolist(), strict=True)
    }


def main(arguments: Sequence[str]) -> None:
    """One loop."""
    loop, bootstrap, name, events = arguments[0], arguments[1], arguments[2], int(arguments[3])
    loaded = configuration(bootstrap, name, labelled=loop == "labelled")
    if loop in {"worker", "labelled"}:
        timed = working(loaded, events)
    else:
        use = by_hand(_edges()) if loop == "river" else lambda _event: None
        timed = consuming(worker_settings(loaded.config), events, use)
    sys.stdout.buffer.write(msgspec.json.encode(timed) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
