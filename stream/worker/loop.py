"""The loop: poll, step, commit. The only place of the product that reads a clock.

One thread turns it. Everything it knows of the world comes through `Ends`, everything it knows of drift through
`Stages`. Results do not depend on what happens here: how long a batch is, when a transaction ends, who owns a
partition and how often it is taken away decide when something is said, never what.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from msgspec import Struct

from stream.wire.record import Batch, Outgoing
from stream.worker import telling
from stream.worker.balance import balance
from stream.worker.commit import SNAPSHOT_COMMIT_BYTES, Committed, Committer, Now, Transaction
from stream.worker.ends import (
    EXIT_BUG,
    EXIT_DECISION,
    EXIT_OK,
    EXIT_RESTART,
    UNDONE,
    End,
    Ends,
    Partition,
    Polled,
    Stopped,
    Unanswered,
    after,
    before,
    joined,
    next_offset_of,
    rows,
)
from stream.worker.failpoints import Failpoints
from stream.worker.look import look
from stream.worker.overview import Overviews
from stream.worker.restore import Restorer
from stream.worker.settings import Settings
from stream.worker.stages import Stages, stage_table
from stream.worker.status import Status
from stream.worker.task import READING, Input, Phase, Point, Reason, Task
from stream.worker.ticks import Ticker, is_live

POLL_SECONDS: Final = 0.1
RESTORE_SLICE_SECONDS: Final = 0.05
TURN_SECONDS: Final = 20.0
"""A turn that takes longer leaves what was polled to the next: the group waits for a worker only so long, and one step
of join may have a whole horizon to tell, when labels come after a week without any."""
STEP_RECORDS: Final = 8_192
"""Ingest works on columns of about this length: long enough for numpy, short enough for the cache."""
OUTPUT_BYTES: Final = 32 * 1024 * 1024
PENDING_PARTIALS: Final = 20_000
ABORTS_MAX: Final = 10
REFERENCE_SECONDS: Final = 60.0
FETCH_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
TOPIC_ID_SECONDS: Final = 60.0


class Clock(Struct, frozen=True):
    """The time of day in ms, and seconds that never go back. Simulations bring their own."""

    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    seconds: Callable[[], float] = time.monotonic


class Options(Struct, frozen=True):
    """How this run differs from an ordinary one."""

    accepted: frozenset[str] = frozenset()
    """Reasons of exit 5 a person has accepted."""
    strict: bool = False
    """A replay that ends in another state ends the process, as in tests, instead of being an error in the log."""
    poll_records: int = 10_000
    step_records: int = STEP_RECORDS
    timed: bool = True
    """Whether age ends a transaction. Without it every turn does, and the same input makes the same transactions."""
    snapshots: bool = True
    """Whether states are written. A replay of files starts from nothing every time."""


def _silence(_event: str, **_fields: Any) -> None:
    """Say nothing."""


class Loop:
    """One worker: its tasks, its open transaction, and the turn that moves both."""

    def __init__(  # noqa: PLR0913 - made once; tests replace what they want to see
        self,
        ends: Ends,
        stages: Stages,
        settings: Settings,
        *,
        clock: Clock | None = None,
        options: Options | None = None,
        failpoints: Failpoints | None = None,
        status: Status | None = None,
        say: Callable[..., None] = _silence,
    ) -> None:
        self.ends = ends
        self.stages = stages
        self.settings = settings
        self.clock = clock or Clock()
        self.options = options or Options()
        self.failpoints = failpoints or Failpoints([])
        self.status = status or Status()
        self.say = say
        self.tasks: dict[Partition, Task] = {}
        self.tx = Transaction()
        self.references: Any = stages.references()
        self.stopping = False
        self._stage_of = stage_table(settings)
        self._committer = Committer(
            ends, stages, settings, self.failpoints, self.status, with_snapshots=self.options.snapshots
        )
        self._restorer = Restorer(
            ends,
            stages,
            settings,
            self.failpoints,
            self.status,
            accepted=self.options.accepted,
            strict=self.options.strict,
            say=say,
        )
        self._overviews = Overviews(stages, settings.metrics.models, settings.metrics.signal_series, say)
        self._ticker = Ticker(ends, stages, settings, self.failpoints)
        self._fetching: deque[Task] = deque()
        self._heard: list[Batch] = []
        """References read while the view was frozen."""
        self._failure: BaseException | None = None
        """What a callback could not raise through the client."""
        self._must_rewind = False
        self._aborts = 0
        self._looked_seconds = float("-inf")
        self._compared_seconds = float("-inf")

    # -- the life of the process ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Open, turn until asked to stop, close. Raises Stopped with the exit code of anything else."""
        self.open()
        while not self.stopping:
            self.turn()
        self.close()
        return EXIT_OK

    def open(self) -> None:
        """Read all references, then join the group."""
        self.failpoints.hit("init")
        self.ends.follow(self._references_partition(), None)
        while not self._hear(self.ends.read(POLL_SECONDS)):
            self._turned()
        self._apply_references()
        self.ends.open(sorted(self._stage_of), self)
        self.say("opened", references=self.references.offset)

    def close(self) -> None:
        """Commit what is there, write last snapshots, leave the group."""
        self.failpoints.hit("close")
        self.status.stopping = True
        try:
            self._commit(self._detect_tasks(self.tasks))
        except UNDONE as undone:
            self._roll_back(str(undone))
        self.ends.close()
        self._raise_failure()
        self.say("closed")

    def turn(self) -> None:
        """One round: at most one poll, and one commit unless transactions fill up."""
        turned_seconds = self._turned()
        try:
            polled = self._poll()
            self._listen(busy=bool(polled))
            self._restore()
            for item in polled:
                self._take(item)
                if self._is_full():
                    self._step_inboxes()
                    self._commit()
                if self.clock.seconds() - turned_seconds > TURN_SECONDS:
                    self._must_rewind = True
                    break
            for task, reason, held in balance(self.tasks.values(), self.ends, self.settings.topics.feedback):
                self._hold(task, reason, held=held)
            now_seconds = self.clock.seconds()
            self._ticker.turn(self.tasks.values(), self.tx, now_seconds, self.clock.wall_ms())
            if self._is_due(now_seconds):
                self._commit()
        except UNDONE as undone:
            self._roll_back(str(undone))
        self._look()

    @property
    def is_drained(self) -> bool:
        """Whether every input has ended for good and everything that follows from it is committed."""
        return (
            not self.tx.open
            and bool(self.tasks)
            and all(task.phase is Phase.RUNNING for task in self.tasks.values())
            and all(task.ended_for_good for task in self.tasks.values() if task.stage == "ingest")
            and not any(self.ends.lag(task.partition, task.read_offset) for task in self.tasks.values())
        )

    # -- what the source tells, inside poll and close ------------------------------------------------------------------

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """New tasks; no call to the network here, because the group waits."""
        self._guarded(lambda: self._assign(partitions))

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """The last chance to commit these."""
        self._guarded(lambda: self._revoke(partitions))

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Somebody else may have these: forget, commit nothing."""
        self._guarded(lambda: self._lose(partitions))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - nothing may pass through the client's C frames; poll raises it
            self._failure = self._failure or error

    def _assign(self, partitions: Sequence[Partition]) -> None:
        now_seconds = self.clock.seconds()
        self.status.rebalances += 1
        self.status.joined = True
        for partition in partitions:
            stage = self._stage_of[partition[0]]
            self.failpoints.hit("assigned", stage)
            task = Task(stage, partition, now_seconds)
            self.tasks[partition] = task
            # Inputs last: what waits between the stages goes before new input.
            (self._fetching.append if stage == "ingest" else self._fetching.appendleft)(task)
            self.say("assigned", task=task)

    def _revoke(self, partitions: Sequence[Partition]) -> None:
        ours = {partition: self.tasks[partition] for partition in partitions if partition in self.tasks}
        if not ours:
            return
        self.failpoints.hit("revoke")
        self.status.rebalances += 1
        try:
            self._commit(self._detect_tasks(ours))
        except UNDONE as undone:
            self._roll_back(str(undone))
        finally:
            self._drop(ours, "revoked")

    def _lose(self, partitions: Sequence[Partition]) -> None:
        ours = {partition: self.tasks[partition] for partition in partitions if partition in self.tasks}
        self.status.rebalances += 1
        self._roll_back("partitions lost", counts=False)
        self._drop(ours, "lost")

    def _drop(self, tasks: Mapping[Partition, Task], how: str) -> None:
        now_seconds = self.clock.seconds()
        for partition, task in tasks.items():
            self._restorer.drop(task)
            task.moves(Input.TAKEN, now_seconds)
            del self.tasks[partition]
            self.say(how, task=task)
        self._committer.forget(tasks.values())
        self._ticker.forget(tasks)
        self._fetching = deque(task for task in self._fetching if task.phase is Phase.FETCHING)

    # -- a turn --------------------------------------------------------------------------------------------------------

    def _poll(self) -> list[Polled]:
        """What came; nothing, if a callback has undone what it would stand on."""
        started = self.clock.seconds()
        patience = POLL_SECONDS
        if self.tx.open:
            patience = min(patience, max(0.0, self._interval_seconds - self.tx.age_seconds(started)))
        if self._fetching or self._searching():
            patience = min(patience, 0.005)
        polled = self.ends.poll(self.options.poll_records, patience)
        self.status.stage_seconds["poll"].add(self.clock.seconds() - started)
        self._raise_failure()
        if not self._must_rewind:
            return polled
        self._rewind()
        return []

    def _raise_failure(self) -> None:
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    def _listen(self, *, busy: bool) -> None:
        """References and snapshots, read outside the group; waited for only where nothing else is to be done."""
        self._hear(self.ends.read(0.02 if self._searching() and not busy else 0.0))
        if not self.tx.open:
            self._apply_references()
        now_seconds = self.clock.seconds()
        for task in self.tasks.values():
            if task.lacks is not None and now_seconds - task.since_seconds > REFERENCE_SECONDS:
                self._reference_gone(task)

    def _hear(self, polled: Iterable[Polled]) -> bool:
        """Whether the end of the references was met."""
        references, others, met = self._references_partition()[0], [], False
        for item in polled:
            if item.topic != references:
                others.append(item)
            elif isinstance(item, End):
                met = True
            else:
                self._heard.append(item)
        if others:
            self._restorer.shelve(others, self.tasks.values(), self.clock.seconds())
        return met

    def _apply_references(self) -> None:
        """Let the view move on; it stands still while a transaction is open."""
        for batch in self._heard:
            for record in rows(batch):
                self.references = self.references.apply(record)
        if not self._heard:
            return
        self._heard = []
        now_seconds = self.clock.seconds()
        for task in self.tasks.values():
            if task.lacks is not None:
                # It may lack another one by now, or the same still: reading the record again will tell.
                since = task.since_seconds
                task.moves(Input.REFERENCE_HERE, now_seconds)
                task.since_seconds = since
                task.lacks = None
                self._hold(task, "reference", held=False)

    def _reference_gone(self, task: Task) -> None:
        detail = f"{task.partition} needs reference {task.lacks}, which drift.references does not bring"
        if "reference_gone" not in self.options.accepted:
            raise Stopped(EXIT_DECISION, "reference_gone", f"{detail}; see drift run --accept-reset reference_gone")

    def _restore(self) -> None:
        """Lead new tasks to their state, for a slice of time."""
        until = self.clock.seconds() + RESTORE_SLICE_SECONDS
        for _ in range(len(self._fetching)):
            task = self._fetching.popleft()
            try:
                self._restorer.begin(task, self.clock.seconds())
            except Unanswered as unanswered:
                self._fetching.append(task)
                if self.clock.seconds() - task.since_seconds > FETCH_SECONDS:
                    self.status.holding[task.partition] = f"no committed offset: {unanswered}"
            else:
                self.status.holding.pop(task.partition, None)
                if task.stage == "ingest" and not task.in_group and self.settings.kafka.start == "latest":
                    self.tx.touch(task, self.clock.seconds())
            if self.clock.seconds() >= until:
                break

    def _take(self, item: Polled) -> None:
        task = self.tasks.get((item.topic, item.partition))
        if task is None or task.phase not in READING:
            return
        if isinstance(item, End):
            self._end(task, item)
        elif (batch := after(item, task.read_offset)) is not None:
            task.heard_seconds = self.clock.seconds()
            task.end_offset = None
            if task.phase is Phase.REPLAYING:
                self._replay(task, batch)
            elif task.stage == "ingest":
                self._collect(task, batch)
            else:
                self._advance(task, batch)

    def _end(self, task: Task, end: End) -> None:
        if end.offset < task.read_offset:
            return
        task.end_offset = end.offset
        task.ended_for_good = end.final
        if task.phase is Phase.REPLAYING and end.offset >= task.goal_offset:
            self._restorer.caught_up(task, self.clock.seconds())

    def _replay(self, task: Task, batch: Batch) -> None:
        """Silent: the outputs of these records are out already."""
        if (old := before(batch, task.goal_offset)) is not None:
            self._step(task, old)
        if task.phase is Phase.REPLAYING and next_offset_of(batch) >= task.goal_offset:
            self._restorer.caught_up(task, self.clock.seconds())
            if (new := after(batch, task.read_offset)) is not None:
                self._advance(task, new)

    def _collect(self, task: Task, batch: Batch) -> None:
        """Ingest works on long columns: keep records until there are enough, or a commit is due."""
        task.inbox.append(batch)
        task.read_offset = next_offset_of(batch)
        self.tx.touch(task, self.clock.seconds())
        self.tx.records += len(batch)
        if task.inbox_records >= self.options.step_records:
            self._step_ingest(task)

    def _step_inboxes(self) -> None:
        for task in self.tx.tasks.values():
            if task.inbox:
                self._step_ingest(task)

    def _step_ingest(self, task: Task) -> None:
        batch = joined(task.inbox)
        task.inbox = []
        started = time.perf_counter()
        with self._blamed(task, batch):
            self.failpoints.hit("step", "ingest")
            state, outputs = self.stages.ingest_step(self.references, task.running.state, batch)
        task.running = Point(state, next_offset_of(batch))
        if state.newest_ms is not None:
            task.live = is_live(state.newest_ms, self.clock.wall_ms())
        self.tx.add(0, outputs.records)
        self._count(task, batch, outputs.counts)
        self.status.stage_seconds["ingest"].add(time.perf_counter() - started)

    def _count(self, task: Task, batch: Batch, counts: Mapping[str, int]) -> None:
        topic = batch.topic
        for outcome, records in counts.items():
            self.status.records[topic, outcome] += records
        self.status.record_bytes[topic] += sum(map(len, filter(None, batch.values)))
        task.breaker.add(len(batch), counts.get("malformed", 0))
        if task.breaker.trips(self.settings.dead_letter_ratio):
            self._hold(task, "dead_letters", held=True)

    def _advance(self, task: Task, batch: Batch) -> None:
        """What the stages tell each other is stepped as it comes."""
        outputs = self._step(task, batch)
        if task.running.next_offset > task.committed.next_offset:
            self.tx.touch(task, self.clock.seconds())
            self.tx.add(0, outputs)

    def _step(self, task: Task, batch: Batch) -> Sequence[Outgoing]:
        return self._step_join(task, batch) if task.stage == "join" else self._step_detect(task, batch)

    def _step_join(self, task: Task, batch: Batch) -> Sequence[Outgoing]:
        started = time.perf_counter()
        with self._blamed(task, batch):
            self.failpoints.hit("step", "join")
            state, outputs = self.stages.join_step(task.running.state, rows(batch))
        task.running = Point(state, next_offset_of(batch))
        task.read_offset = task.running.next_offset
        if task.phase is Phase.RUNNING:
            telling.count_pairs(self.status, outputs.counts, self.settings.metrics.models)
        self.status.stage_seconds["join"].add(time.perf_counter() - started)
        return outputs.records

    def _step_detect(self, task: Task, batch: Batch) -> Sequence[Outgoing]:
        """Up to the first record whose reference is not here."""
        records = rows(batch)
        ready = len(records)
        for row, record in enumerate(records):
            if (missing := self.stages.detect_waits_for(self.references, record)) is not None:
                task.lacks, ready = missing, row
                break
        outputs: Sequence[Outgoing] = ()
        if ready:
            started = time.perf_counter()
            with self._blamed(task, batch):
                self.failpoints.hit("step", "detect")
                state, outputs = self.stages.detect_step(self.references, task.running.state, records[:ready])
            task.running = Point(state, next_offset_of(batch) if ready == len(records) else records[ready].offset)
            task.records_since_snapshot += ready
            self.status.stage_seconds["detect"].add(time.perf_counter() - started)
        task.read_offset = task.running.next_offset
        if task.lacks is not None:
            task.moves(Input.REFERENCE_MISSING, self.clock.seconds())
            self._hold(task, "reference", held=True)
        return outputs

    # -- who may read --------------------------------------------------------------------------------------------------

    def _hold(self, task: Task, reason: Reason, *, held: bool) -> None:
        was_held = bool(task.pauses)
        (task.pauses.add if held else task.pauses.discard)(reason)
        if bool(task.pauses) == was_held:
            return
        if task.pauses:
            self.status.holding[task.partition] = reason
            self.ends.pause(task.partition)
        else:
            self.status.holding.pop(task.partition, None)
            self.ends.resume(task.partition, task.read_offset)

    # -- transactions --------------------------------------------------------------------------------------------------

    @property
    def _interval_seconds(self) -> float:
        return self.settings.kafka.commit_interval / 1_000

    def _is_due(self, now_seconds: float) -> bool:
        if not self.tx.open:
            return False
        if self.tx.ticked or self.tx.idle:
            return True  # What comes after a tick must not stand in its transaction: nobody could tell the order.
        return not self.options.timed or self.tx.age_seconds(now_seconds) >= self._interval_seconds or self._is_full()

    def _is_full(self) -> bool:
        tx = self.tx
        if tx.records >= self.settings.kafka.commit_records or tx.output_bytes >= OUTPUT_BYTES:
            return True
        states = {task.partition: task.running.state for task in tx.tasks.values() if task.stage == "ingest"}
        partials, pending_bytes = self.stages.ingest_pending(states)
        return partials >= PENDING_PARTIALS or tx.output_bytes + pending_bytes >= OUTPUT_BYTES

    def _commit(self, last_of: Collection[Task] = ()) -> None:
        """What ran since the last commit becomes durable; nothing happens if nothing ran."""
        self._step_inboxes()
        now_seconds = self.clock.seconds()
        for task in last_of:
            if self.options.snapshots and task.records_since_snapshot and task.snapshot_bytes <= SNAPSHOT_COMMIT_BYTES:
                self.tx.touch(task, now_seconds)
        if not self.tx.open:
            return
        age_seconds = self.tx.age_seconds(now_seconds)
        done = self._committer.commit(self.tx, self.references, Now(now_seconds, self.clock.wall_ms()), last_of)
        self.tx = Transaction()
        self._aborts = 0
        self._note(done, age_seconds)

    def _note(self, done: Committed, age_seconds: float) -> None:
        now_ms = self.clock.wall_ms()
        if done.broker_ms is not None:
            self._ticker.skew_ms = now_ms - done.broker_ms
        self.status.transactions["committed"] += 1
        self.status.last_commit_ms = now_ms
        self.status.stage_seconds["commit"].add(done.duration_seconds)
        self.status.transaction_seconds.add(age_seconds + done.duration_seconds)
        self.say(
            "transaction",
            tasks=done.tasks,
            records=done.records,
            outputs=done.outputs,
            snapshots=done.snapshots,
            duration_ms=round(done.duration_seconds * 1_000, 1),
        )
        for alert in done.alerts:
            self.say("alert", **alert)

    def _roll_back(self, reason: str, *, counts: bool = True) -> None:
        """Forget what ran ahead; it will be read again."""
        self.tx = Transaction()
        self._committer.forget(self.tasks.values())
        for task in self.tasks.values():
            if task.phase in {Phase.RUNNING, Phase.LACKING}:
                task.rewind()
        self._must_rewind = True
        self.ends.abort()
        self.status.transactions["aborted"] += 1
        self.say("aborted", detail=reason)
        self._aborts += counts
        if self._aborts >= ABORTS_MAX:
            raise Stopped(EXIT_RESTART, "aborts", f"{self._aborts} transactions in a row were aborted: {reason}")

    def _rewind(self) -> None:
        """Read again from the last commit, whatever was delivered since.

        A replay goes on where it is, but needs a seek as well: what was polled together with the abort is dropped.
        """
        self._must_rewind = False
        for task in self.tasks.values():
            if task.phase in READING and not task.pauses:
                self.ends.pause(task.partition)
                self.ends.resume(task.partition, task.read_offset)

    # -- what others can see -------------------------------------------------------------------------------------------

    def _turned(self) -> float:
        self.status.turned_seconds = now_seconds = self.clock.seconds()
        return now_seconds

    def _look(self) -> None:
        """Once a second, write down where things stand; once a minute, whether the topics are still the same."""
        now_seconds = self.clock.seconds()
        self.status.uncommitted_since_seconds = self.tx.opened_seconds
        if now_seconds - self._looked_seconds < LOOK_SECONDS:
            return
        self._looked_seconds = now_seconds
        look(self.status, self.tasks.values(), self.ends, self.stages)
        self._overviews.look(self.status, self.references, self.tasks.values())
        if now_seconds - self._compared_seconds >= TOPIC_ID_SECONDS:
            self._compared_seconds = now_seconds
            self._compare_topics()

    def _compare_topics(self) -> None:
        for task in list(self.tasks.values()):
            try:
                now = self.ends.topic_id(task.partition[0])
            except Unanswered:
                return
            if task.topic_id and now != task.topic_id:
                raise Stopped(EXIT_DECISION, "topic_recreated", f"{task.partition[0]} is another topic than before")

    @staticmethod
    @contextmanager
    def _blamed(task: Task, batch: Batch) -> Iterator[None]:
        """An exception out of a stage is a bug: it ends the process and names the records it happened on."""
        try:
            yield
        except UNDONE:
            raise
        except Exception as error:
            topic, partition = task.partition
            where = f"{topic} {partition}, offsets {batch.offsets[0]} to {batch.offsets[-1]}"
            raise Stopped(EXIT_BUG, "bug", f"{task.stage} failed on {where}") from error

    def _references_partition(self) -> Partition:
        return (self.settings.topics.of("references"), 0)

    def _searching(self) -> bool:
        return any(task.phase is Phase.SEARCHING for task in self.tasks.values())

    @staticmethod
    def _detect_tasks(tasks: Mapping[Partition, Task]) -> list[Task]:
        return [
            task for task in tasks.values() if task.stage == "detect" and task.phase in {Phase.RUNNING, Phase.LACKING}
        ]
