"""One transaction in five named steps: outputs, snapshots, offsets, commit, adopt.

What the stages produced since the last commit waits in a `Transaction`. Nothing of it has reached the broker before
`begin`: so giving up before that costs nothing, and the broker sees transactions of milliseconds. In every partition
profiles and halves of pairs stand before the watermark record of their transaction; detect and join rely on it
(`reliability.md` 5).
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from stream.wire import codec
from stream.wire.internal import WATERMARKS, SourceMark, Watermarks
from stream.wire.record import EVERY_PARTITION, Outgoing, Role
from stream.worker import telling
from stream.worker.ends import Addressed, Ends, OffsetMark, Partition, Receipt
from stream.worker.failpoints import Failpoints
from stream.worker.metadata import DetectMark, IngestMark, JoinMark, encode_detect, encode_ingest, encode_join
from stream.worker.settings import Settings
from stream.worker.snapshots import CHUNK_BYTES, Letter, other, written
from stream.worker.stages import Stages, sources_of
from stream.worker.status import Status
from stream.worker.task import Point, Task

RECORD_BYTES_MAX: Final = 900_000
"""No record may be larger: brokers refuse above 1 MiB by default, and a refused record would abort for ever."""
REFERENCE_BYTES_MAX: Final = 8_388_608
SNAPSHOT_COMMIT_BYTES: Final = 32 * 1024 * 1024
"""Of one snapshot, per transaction; a larger state leaves over several."""
SNAPSHOT_BYTES_PER_SECOND: Final = 1024 * 1024
"""On average: a large state is written less often."""
SNAPSHOT_RECORDS: Final = 100_000


class Oversize(Exception):
    """A stage made a record that no broker would take: a bug."""


class Leaving(Struct):
    """A snapshot on its way out."""

    records: list[Outgoing]
    next_offset: int
    letter: Letter
    state_bytes: int
    offset: int | None = None
    """Where its first chunk stands, once that is known."""
    sending: int = 0
    """How many of the records are in the open transaction."""


class Transaction(Struct):
    """What ran ahead of the last commit."""

    opened_seconds: float | None = None
    tasks: dict[Partition, Task] = field(default_factory=dict)
    outputs: list[Outgoing] = field(default_factory=list)
    output_bytes: int = 0
    records: int = 0
    ticked: set[Partition] = field(default_factory=set)
    idle: set[Partition] = field(default_factory=set)

    @property
    def open(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.tasks)

    def touch(self, task: Task, now_seconds: float) -> None:
        """The task has something to commit."""
        if self.opened_seconds is None:
            self.opened_seconds = now_seconds
        self.tasks[task.partition] = task

    def add(self, records: int, outputs: Iterable[Outgoing]) -> None:
        """Count what was read, keep what is to be written."""
        self.records += records
        for output in outputs:
            self.outputs.append(output)
            self.output_bytes += len(output.value or b"")

    def age_seconds(self, now_seconds: float) -> float:
        """Since the first record or tick."""
        return 0.0 if self.opened_seconds is None else now_seconds - self.opened_seconds


class Committed(Struct, frozen=True):
    """What a commit did, for the log."""

    tasks: int
    records: int
    outputs: int
    snapshots: int
    duration_seconds: float
    broker_ms: int | None
    alerts: list[dict[str, str]]
    """What the log says of each alert."""


class Now(Struct, frozen=True):
    """One moment, by both clocks."""

    seconds: float
    wall_ms: int


class Committer:
    """Makes a transaction durable."""

    def __init__(  # noqa: PLR0913 - made once, by the loop, of all that it is made of
        self,
        ends: Ends,
        stages: Stages,
        settings: Settings,
        failpoints: Failpoints,
        status: Status,
        *,
        with_snapshots: bool = True,
    ) -> None:
        self._with_snapshots = with_snapshots
        self._ends = ends
        self._stages = stages
        self._settings = settings
        self._failpoints = failpoints
        self._status = status
        self._leaving: dict[Partition, Leaving] = {}

    def commit(self, tx: Transaction, references: Any, now: Now, last_of: Collection[Task] = ()) -> Committed:
        """The five steps. For tasks in `last_of` a snapshot is due now: somebody else goes on from here."""
        started = time.monotonic()
        hit = self._failpoints.hit
        hit("begin")
        self._ends.begin()
        hit("outputs")
        flushed = self._outputs(tx, references)
        hit("snapshots")
        snapshots = self._snapshots(tx, now.seconds, last_of)
        hit("offsets")
        self._ends.send_offsets([self._mark(task) for task in _sorted(tx.tasks)])
        hit("commit")
        receipt = self._ends.commit()
        hit("adopt")
        self._adopt(tx, flushed, receipt, now.seconds)
        telling.count(self._status, tx.outputs, self._settings.metrics.models, now.wall_ms)
        seconds = time.monotonic() - started
        alerts = telling.alerts(tx.outputs)
        return Committed(len(tx.tasks), tx.records, len(tx.outputs), snapshots, seconds, receipt.broker_ms, alerts)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Snapshots on their way out of these tasks will not arrive: the next one starts anew under the same letter."""
        for task in tasks:
            self._leaving.pop(task.partition, None)

    def _outputs(self, tx: Transaction, references: Any) -> dict[Partition, Any]:
        """Step 1. Partial profiles and pair blocks by key, then one watermark record to every partition they go to."""
        topics = self._settings.topics
        ingest, join = ([task for task in _sorted(tx.tasks) if task.stage == stage] for stage in ("ingest", "join"))
        pairs_partitions = self._ends.partitions(topics.of("pairs")) if topics.feedback else 0
        states, partials = self._stages.ingest_flush(
            references, {task.partition: task.running.state for task in ingest}, pairs_partitions
        )
        tx.outputs += sorted(partials, key=lambda output: output.key or b"")
        addressed = self._addressed(tx.outputs)
        control = topics.of("control")
        if deciding := [task for task in ingest if task.partition[0] == control]:
            # A record of its own, which join is not told: nobody waits for control events.
            decided = self._of_inputs(tx, deciding, states)
            addressed += self._addressed([self._watermarks("profiles", decided, references.offset)], tracked=True)
        if telling := [task for task in ingest if task.partition[0] != control]:
            inputs = self._of_inputs(tx, telling, states)
            if topics.feedback:
                addressed += self._addressed([self._watermarks("pairs", inputs, references.offset)])
            addressed += self._addressed([self._watermarks("profiles", inputs, references.offset)], tracked=True)
        if join:
            # A record of its own: join reads no references, and what it has told is not a fact about the inputs.
            addressed += self._addressed([self._watermarks("profiles", self._of_pairs(join), 0)], tracked=True)
        self._ends.produce(addressed)
        return dict(states)

    def _of_inputs(self, tx: Transaction, tasks: Sequence[Task], states: Mapping[Partition, Any]) -> list[SourceMark]:
        return [
            SourceMark(
                *task.partition,
                next_offset=task.running.next_offset,
                watermark_ms=states[task.partition].watermark_ms,
                tick=task.partition in tx.ticked,
                idle=task.partition in tx.idle,
            )
            for task in tasks
        ]

    def _of_pairs(self, tasks: Sequence[Task]) -> list[SourceMark]:
        watermark = self._stages.join_watermark
        return [SourceMark(*task.partition, task.running.next_offset, watermark(task.running.state)) for task in tasks]

    def _watermarks(self, role: Role, sources: list[SourceMark], references_offset: int) -> Outgoing:
        counts = {topic: self._ends.partitions(topic) for topic in sources_of(self._settings)}
        value = codec.encode(Watermarks(sources, counts, references_offset), WATERMARKS)
        return Outgoing(role, None, value, (("drift-format", WATERMARKS.encode()),), EVERY_PARTITION)

    def _snapshots(self, tx: Transaction, now_seconds: float, last_of: Collection[Task]) -> int:
        """Step 2. Snapshots of detect that are due, or still on their way."""
        tasks = [task for task in _sorted(tx.tasks) if task.stage == "detect"]
        for task in tasks:
            if task.partition not in self._leaving and self._is_due(task, now_seconds, is_last=task in last_of):
                self._leaving[task.partition] = self._snapshot(task)
        sending = [self._leaving[task.partition] for task in tasks if task.partition in self._leaving]
        for leaving in sending:
            leaving.sending = min(len(leaving.records), max(1, SNAPSHOT_COMMIT_BYTES // CHUNK_BYTES))
            self._ends.produce(self._addressed(leaving.records[: leaving.sending], tracked=True))
        return len(sending)

    def _is_due(self, task: Task, now_seconds: float, *, is_last: bool) -> bool:
        if task.records_since_snapshot == 0 or not self._with_snapshots:
            return False
        if is_last:
            return task.snapshot_bytes <= SNAPSHOT_COMMIT_BYTES
        interval = max(
            self._settings.service.snapshot_interval / 1_000, task.snapshot_bytes / SNAPSHOT_BYTES_PER_SECOND
        )
        age = now_seconds - task.snapshot_seconds
        many = task.records_since_snapshot >= SNAPSHOT_RECORDS
        return age >= interval or (many and age >= task.snapshot_bytes / SNAPSHOT_BYTES_PER_SECOND)

    def _snapshot(self, task: Task) -> Leaving:
        state = self._stages.detect_encode(task.running.state)
        letter = other(task.snapshot_letter)
        records = written(
            task.partition[1],
            self._stages.config_id,
            letter,
            state,
            next_offset=task.running.next_offset,
            topic_id=task.topic_id,
            digest=self._stages.detect_digest(task.running.state),
        )
        return Leaving(records, task.running.next_offset, letter, len(state))

    def _mark(self, task: Task) -> OffsetMark:
        """Step 3, for one task."""
        state, next_offset = task.running.state, task.running.next_offset
        if next_offset < 0:
            raise AssertionError(f"{task.partition} has no offset to commit")
        if task.stage == "ingest":
            metadata = encode_ingest(IngestMark(state.watermark_ms, task.live, task.topic_id))
        elif task.stage == "join":
            metadata = encode_join(self._join_mark(task))
        else:
            metadata = encode_detect(
                DetectMark(
                    self._stages.config_id,
                    task.snapshot_next_offset,
                    task.snapshot_offset,
                    self._stages.detect_digest(state),
                    task.topic_id,
                )
            )
        return OffsetMark(*task.partition, next_offset, metadata)

    def _join_mark(self, task: Task) -> JoinMark:
        stages, state = self._stages, task.running.state
        oldest = stages.join_oldest(state)
        return JoinMark(
            stages.config_id,
            task.running.next_offset if oldest is None else oldest,
            stages.join_halvings(state),
            stages.join_digest(state),
            task.topic_id,
        )

    def _adopt(self, tx: Transaction, flushed: Mapping[Partition, Any], receipt: Receipt, now_seconds: float) -> None:
        """Step 5. What ran ahead is now what is committed."""
        for partition, task in tx.tasks.items():
            state = flushed.get(partition, task.running.state)
            task.committed = task.running = Point(state, task.running.next_offset)
            task.in_group = True
        for partition, leaving in list(self._leaving.items()):
            if leaving.sending:
                self._adopt_snapshot(tx.tasks[partition], leaving, receipt, now_seconds)

    def _adopt_snapshot(self, task: Task, leaving: Leaving, receipt: Receipt, now_seconds: float) -> None:
        if leaving.offset is None:
            where = (self._settings.topics.of("snapshots"), task.partition[1])
            leaving.offset = receipt.first_offsets.get(where)
        leaving.records = leaving.records[leaving.sending :]
        leaving.sending = 0
        if leaving.records:
            return
        del self._leaving[task.partition]
        task.snapshot_letter = leaving.letter
        task.snapshot_next_offset = leaving.next_offset
        task.snapshot_offset = leaving.offset
        task.snapshot_seconds = now_seconds
        task.snapshot_bytes = leaving.state_bytes
        task.records_since_snapshot = 0

    def _addressed(self, outputs: Iterable[Outgoing], *, tracked: bool = False) -> list[Addressed]:
        return [
            Addressed(topic, partition, output.key, output.value, output.headers, output.timestamp_ms, tracked)
            for output in outputs
            for topic, partition in self._places(output)
        ]

    def _places(self, output: Outgoing) -> list[Partition]:
        limit = REFERENCE_BYTES_MAX if output.role == "references" else RECORD_BYTES_MAX
        if len(output.value or b"") + len(output.key or b"") > limit:
            raise Oversize(f"a record for {output.role} has {len(output.value or b'')} bytes, above {limit}")
        topic = self._settings.topics.of(output.role)
        count = self._ends.partitions(topic)
        if output.role == "references":
            return [(topic, 0)]  # one partition, so that an offset names a view
        if output.partition == EVERY_PARTITION:
            return [(topic, partition) for partition in range(count)]
        if output.partition is not None:
            return [(topic, output.partition % count)]
        return [(topic, codec.partition_of(output.key or b"", count))]


def _sorted(tasks: Mapping[Partition, Task]) -> list[Task]:
    return [tasks[partition] for partition in sorted(tasks)]
