"""What a broker keeps, in memory: logs, transactions, committed offsets, a group, fencing.

Transactions hold readers back until they are decided (last stable offset), and nobody sees what was aborted. Committed
offsets stay open as long as their transaction. A group fences members of an old generation, and gives a partition away
only after its owner has let go of it or has expired. Nothing here has a thread or a clock: time is what
`Cluster.now_ms` says, and a rebalance happens while its members poll.

A partition may also be a `LazyPartition`, read once from front to back: a file.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

from msgspec import Struct, field

from stream.wire.record import Headers, Record
from stream.worker.ends import (
    EXIT_DECISION,
    EXIT_RESTART,
    Aborted,
    Addressed,
    Committed,
    Listener,
    OffsetMark,
    Partition,
    Stopped,
)

SESSION_MS: Final = 10_000
TRANSACTION_MS: Final = 15_000


class Transacting(Struct, eq=False):
    """One transaction of one producer."""

    transactional_id: str
    epoch: int
    began_ms: int
    decided: bool | None = None
    """None while open, then whether it was committed."""
    offsets: dict[tuple[str, Partition], Committed] = field(default_factory=dict)
    touched: dict[Partition, int] = field(default_factory=dict)
    """Where its first record stands, per partition whose marker is not written."""


class Entry(Struct, eq=False):
    """One place in a log; a control record has no `record`."""

    record: Record | None
    transaction: Transacting | None


class LogView(Protocol):
    """What a reader needs of a partition."""

    def read(self, next_offset: int, records_max: int) -> tuple[list[Record], int]:
        """Readable records from an offset on, and the offset to go on from."""

    def start_offset(self) -> int:
        """The first offset still held."""

    def stable_offset(self) -> int:
        """Where reading stops for now."""

    def end_offset(self) -> int:
        """Where the next record will stand."""

    def head_ms(self, next_offset: int) -> int:
        """The time of the next record: partitions are served in its order."""

    def is_final(self) -> bool:
        """Whether nothing will ever be added."""


class Log:
    """A partition in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.first = 0
        """Offset of entries[0]."""
        self.open: dict[int, Transacting] = {}
        """By the offset of its first record: transactions without a marker here."""

    def append(self, record: Record | None, transaction: Transacting | None = None) -> int:
        """Write a record, or (None) a control record; its offset."""
        self.entries.append(Entry(record, transaction))
        return self.end_offset() - 1

    def read(self, next_offset: int, records_max: int) -> tuple[list[Record], int]:
        """Records of decided, committed transactions, and those without one."""
        if next_offset < self.first:
            raise Stopped(EXIT_DECISION, "input_gone", f"offset {next_offset} is below the start {self.first}")
        found: list[Record] = []
        stop = self.stable_offset()
        while next_offset < stop and len(found) < records_max:
            entry = self.entries[next_offset - self.first]
            next_offset += 1
            if entry.record is not None and (entry.transaction is None or entry.transaction.decided):
                found.append(entry.record)
        return found, next_offset

    def start_offset(self) -> int:
        """The first offset still held."""
        return self.first

    def stable_offset(self) -> int:
        """The last stable offset: the first record of the oldest undecided transaction, or the end."""
        return min(self.open, default=self.end_offset())

    def end_offset(self) -> int:
        """Where the next record will stand."""
        return self.first + len(self.entries)

    def head_ms(self, next_offset: int) -> int:
        """The timestamp at an offset; 0 for a control record."""
        record = self.entries[next_offset - self.first].record if next_offset < self.end_offset() else None
        return 0 if record is None else record.timestamp_ms

    def is_final(self) -> bool:
        """A topic never ends."""
        return False

    def trim(self, next_offset: int) -> None:
        """Delete what lies below an offset."""
        if next_offset > self.first:
            del self.entries[: next_offset - self.first]
            self.first = next_offset


class LazyPartition:
    """A partition that is read once, front to back: records come from an iterator and are not kept."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._ahead: deque[Record] = deque()
        self._next_offset = 0
        self._finished = False
        self._fill()

    def read(self, next_offset: int, records_max: int) -> tuple[list[Record], int]:
        """The next records; they can be read only once."""
        if next_offset != self._next_offset:
            raise AssertionError(f"a file cannot be read again from {next_offset}")
        found: list[Record] = []
        while len(found) < records_max and self._ahead:
            found.append(self._ahead.popleft())
            self._fill()
        if found:
            self._next_offset = found[-1].offset + 1
        return found, self._next_offset

    def start_offset(self) -> int:
        """Files begin at 0."""
        return 0

    def stable_offset(self) -> int:
        """Behind the next record, or the end of the file."""
        return self._next_offset + len(self._ahead)

    def end_offset(self) -> int:
        """As far as the file was looked into."""
        return self.stable_offset()

    def head_ms(self, next_offset: int) -> int:  # noqa: ARG002 - a file stands where it was read to
        """The time of the next record."""
        return self._ahead[0].timestamp_ms if self._ahead else 0

    def is_final(self) -> bool:
        """A file ends."""
        return self._finished and not self._ahead

    def _fill(self) -> None:
        if not self._ahead and not self._finished:
            if (record := next(self._records, None)) is None:
                self._finished = True
            else:
                self._ahead.append(record)


class Member(Struct, eq=False):
    """One consumer of the group."""

    listener: Listener
    topics: frozenset[str]
    heard_ms: int
    generation: int = -1
    owned: set[Partition] = field(default_factory=set)


class Group:
    """A cooperative consumer group: nobody gets a partition before its owner has let go of it, or has expired."""

    def __init__(self, session_ms: int) -> None:
        self.session_ms = session_ms
        self.generation = 0
        self.members: list[Member] = []
        self.offsets: dict[Partition, Committed] = {}
        self.pending: dict[Partition, Transacting] = {}
        self._target: dict[int, set[Partition]] = {}
        self._awaited: list[Member] = []

    def join(self, member: Member, partitions: Collection[Partition]) -> None:
        """A new member; it owns nothing before all others have answered."""
        self.members.append(member)
        self.rebalance(partitions)

    def leave(self, member: Member, partitions: Collection[Partition]) -> None:
        """A member goes, or is sent away."""
        if member in self.members:
            self.members.remove(member)
            self.rebalance(partitions)

    def expire(self, now_ms: int, partitions: Collection[Partition]) -> None:
        """Send away members that have not polled for a session."""
        for member in [member for member in self.members if now_ms - member.heard_ms > self.session_ms]:
            self.leave(member, partitions)

    def rebalance(self, partitions: Collection[Partition]) -> None:
        """Give everybody an equal part, and leave as much as possible where it is."""
        self._awaited = list(self.members)
        if not self.members:
            return
        wanted = sorted(partitions)
        fair = -(-len(wanted) // len(self.members))
        kept = [sorted(member.owned & set(wanted))[:fair] for member in self.members]
        free = deque(sorted(set(wanted) - {partition for part in kept for partition in part}))
        for part in kept:
            while free and len(part) < fair:
                part.append(free.popleft())
        self._target = {id_of(member): set(part) for member, part in zip(self.members, kept, strict=True)}

    def poll(self, member: Member) -> None:
        """A member's part in a rebalance: let go of what it must, then take what is its own."""
        if member in self._awaited:
            if taken := sorted(member.owned - self._target[id_of(member)]):
                member.listener.revoked(taken)
                member.owned -= set(taken)
            self._awaited.remove(member)
            if not self._awaited:
                self.generation += 1
        if not self._awaited and member.generation != self.generation:
            member.generation = self.generation
            given = sorted(self._target[id_of(member)] - member.owned)
            member.owned |= set(given)
            member.listener.assigned(given)

    def check(self, member: Member | None) -> None:
        """Only a member of the present generation may commit."""
        if member is None or member not in self.members:
            raise Aborted("UNKNOWN_MEMBER_ID")
        if member.generation != self.generation:
            raise Aborted("ILLEGAL_GENERATION")


def id_of(member: Member) -> int:
    """What tells members apart, within one process."""
    return id(member)


class Cluster:
    """Everything that outlives a worker."""

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: 0,
        *,
        session_ms: int = SESSION_MS,
        transaction_ms: int = TRANSACTION_MS,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        self.now_ms = now_ms
        self.session_ms = session_ms
        self.transaction_ms = transaction_ms
        self.logs: dict[str, list[LogView]] = {}
        self.topic_ids: dict[str, str] = {}
        """Of topics that were made again; the others are named after their name."""
        self.groups: dict[str, Group] = {}
        self.markers_are_late = False
        """Whether decided transactions get their markers only by `write_markers` (KAFKA-10167)."""
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transacting] = {}
        self._unmarked: list[Transacting] = []
        self._on_record = on_record

    def create(self, topic: str, partitions: int) -> None:
        """A topic of empty logs."""
        self.logs[topic] = [Log() for _ in range(partitions)]

    def log(self, partition: Partition) -> Log:
        """A partition in memory."""
        log = self.logs[partition[0]][partition[1]]
        if not isinstance(log, Log):
            raise TypeError(f"{partition} is a file")
        return log

    def write(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        *,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> int:
        """Add a record outside any transaction; its offset."""
        log = self.log(partition)
        return log.append(Record(*partition, log.end_offset(), timestamp_ms, key, value, headers))

    def records(self, topic: str) -> list[Record]:
        """All that a read_committed reader sees of a topic, by partition."""
        return [record for log in self.logs[topic] for record in log.read(log.start_offset(), 10**9)[0]]

    def unstable(self, partition: Partition) -> int:
        """Records of a partition behind an undecided transaction."""
        log = self.logs[partition[0]][partition[1]]
        return log.end_offset() - log.stable_offset()

    def group(self, name: str) -> Group:
        """A consumer group, made on first use."""
        return self.groups.setdefault(name, Group(self.session_ms))

    def subscribed(self, topics: Iterable[str]) -> list[Partition]:
        """All partitions of some topics."""
        return [(topic, number) for topic in topics for number in range(len(self.logs.get(topic, ())))]

    def turn(self) -> None:
        """What a broker does by itself: expire members, abort transactions that take too long."""
        now_ms = self.now_ms()
        for group in self.groups.values():
            group.expire(now_ms, self.subscribed(sorted({t for member in group.members for t in member.topics})))
        for transaction in [t for t in self._open.values() if now_ms - t.began_ms > self.transaction_ms]:
            self._epochs[transaction.transactional_id] += 1
            self._decide(transaction, committed=False)

    def init_producer(self, transactional_id: str) -> int:
        """Fence whoever held the id, and end its transaction; the new epoch."""
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        if (left := self._open.get(transactional_id)) is not None:
            self._decide(left, committed=False)
        return self._epochs[transactional_id]

    def begin(self, transactional_id: str, epoch: int) -> Transacting:
        """Open a transaction."""
        self._fence(transactional_id, epoch)
        transaction = Transacting(transactional_id, epoch, self.now_ms())
        self._open[transactional_id] = transaction
        return transaction

    def add(self, transaction: Transacting, record: Addressed) -> int:
        """Write a record of a transaction; its offset."""
        self._fence(transaction.transactional_id, transaction.epoch)
        partition = (record.topic, record.partition)
        log = self.log(partition)
        if partition not in transaction.touched:
            transaction.touched[partition] = log.end_offset()
            log.open[log.end_offset()] = transaction
        timestamp_ms = self.now_ms() if record.timestamp_ms is None else record.timestamp_ms
        written = Record(*partition, log.end_offset(), timestamp_ms, record.key, record.value, record.headers)
        return log.append(written, transaction)

    def add_offsets(
        self, transaction: Transacting, group_name: str, member: Member | None, marks: Sequence[OffsetMark]
    ) -> None:
        """Committed offsets that wait for their transaction."""
        self._fence(transaction.transactional_id, transaction.epoch)
        group = self.group(group_name)
        group.check(member)
        for mark in marks:
            partition = (mark.topic, mark.partition)
            transaction.offsets[group_name, partition] = Committed(mark.next_offset, mark.metadata)
            group.pending[partition] = transaction

    def end(self, transaction: Transacting, *, committed: bool) -> None:
        """Commit or abort."""
        self._fence(transaction.transactional_id, transaction.epoch)
        self._decide(transaction, committed=committed)

    def write_markers(self) -> None:
        """Let decided transactions be seen in the partitions they touched."""
        for transaction in self._unmarked:
            for partition, first in sorted(transaction.touched.items()):
                log = self.log(partition)
                if transaction.decided and self._on_record is not None:
                    self._tell(log, transaction, first)
                del log.open[first]
                log.append(None, transaction)
            transaction.touched = {}
        self._unmarked = []

    def _tell(self, log: Log, transaction: Transacting, first: int) -> None:
        for entry in log.entries[first - log.first :]:
            if entry.transaction is transaction and entry.record is not None and self._on_record is not None:
                self._on_record(entry.record)

    def _decide(self, transaction: Transacting, *, committed: bool) -> None:
        transaction.decided = committed
        del self._open[transaction.transactional_id]
        for (name, partition), mark in transaction.offsets.items():
            group = self.group(name)
            if group.pending.get(partition) is transaction:
                del group.pending[partition]
            if committed:
                group.offsets[partition] = mark
        self._unmarked.append(transaction)
        if not self.markers_are_late:
            self.write_markers()

    def _fence(self, transactional_id: str, epoch: int) -> None:
        if self._epochs[transactional_id] != epoch:
            raise Stopped(EXIT_RESTART, "fenced", f"{transactional_id} is held by another worker")
