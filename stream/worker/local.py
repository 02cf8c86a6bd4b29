"""The twin of `kafka.py` over a cluster in memory: for `drift replay`, and for accidents in tests."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from stream.wire.record import Batch, Record
from stream.worker.cluster import Cluster, Log, LogView, Member, Transacting
from stream.worker.ends import (
    Addressed,
    Committed,
    End,
    Listener,
    OffsetMark,
    Partition,
    Polled,
    Receipt,
    Unanswered,
)

CHUNK_RECORDS: Final = 256
"""Of one partition at a time: how finely files merge by time."""


class Position(Struct):
    """Where one partition is read."""

    next_offset: int
    paused: bool = False
    end_told: int = -1


class LocalEnds:
    """One worker's ends over a cluster in memory."""

    def __init__(self, cluster: Cluster, service_id: str, slot: str, *, trims: bool = False) -> None:
        self._cluster = cluster
        self._group = cluster.group(service_id)
        self._group_name = service_id
        self._transactional_id = f"{service_id}.{slot}"
        self._trims = trims
        """Delete what was committed: nobody else reads it."""
        self._epoch = -1
        self._member: Member | None = None
        self._positions: dict[Partition, Position] = {}
        self._followed: dict[Partition, Position] = {}
        self._transaction: Transacting | None = None
        self._tracked: dict[Partition, int] = {}

    def open(self, topics: Collection[str], listener: Listener) -> None:
        """Fence the former holder of the slot, then join the group."""
        self._epoch = self._cluster.init_producer(self._transactional_id)
        self._member = Member(_Watching(self, listener), frozenset(topics), self._cluster.now_ms())
        self._group.join(self._member, self._cluster.subscribed(sorted(topics)))

    def poll(self, records_max: int, timeout_seconds: float) -> list[Polled]:  # noqa: ARG002 - memory never waits
        """Internal topics first, then inputs by the time of their next record."""
        self._heartbeat()
        running = {partition: at for partition, at in self._positions.items() if not at.paused}
        return self._serve(running, records_max)

    def pause(self, partition: Partition) -> None:
        """Deliver nothing of a partition until `resume`."""
        self._positions[partition].paused = True

    def resume(self, partition: Partition, next_offset: int) -> None:
        """Deliver a partition from `next_offset` on."""
        self._positions[partition] = Position(next_offset)

    def committed(self, partition: Partition) -> Committed | None:
        """The decided offset of the group."""
        if partition in self._group.pending:
            raise Unanswered("a transaction holds the offset open")
        return self._group.offsets.get(partition)

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """Start of the log and its last stable offset."""
        log = self._log(partition)
        return log.start_offset(), log.stable_offset()

    def latest(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The ends of the logs, undecided records included."""
        return {partition: self._log(partition).end_offset() for partition in partitions}

    def lag(self, partition: Partition, next_offset: int) -> int:
        """Readable records after an offset."""
        log = self._log(partition)
        return len(log.read(next_offset, 10**9)[0]) if isinstance(log, Log) else log.end_offset() - next_offset

    def unstable(self, partition: Partition) -> int:
        """Records behind an open transaction."""
        return self._cluster.unstable(partition)

    def follow(self, partition: Partition, next_offset: int | None) -> None:
        """Read a partition outside the group."""
        start = self._log(partition).start_offset()
        self._followed[partition] = Position(start if next_offset is None else max(start, next_offset))

    def unfollow(self, partition: Partition) -> None:
        """Read it no more."""
        self._followed.pop(partition, None)

    def read(self, timeout_seconds: float) -> list[Polled]:  # noqa: ARG002 - memory never waits
        """What the followed partitions have."""
        return self._serve(self._followed, 10_000)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(self._cluster.logs[topic])

    def topic_id(self, topic: str) -> str:
        """Its name, unless it was made again."""
        return self._cluster.topic_ids.get(topic, f"local-{topic}")

    def begin(self) -> None:
        """Begin a transaction."""
        self._tracked = {}
        self._transaction = self._cluster.begin(self._transactional_id, self._epoch)

    def produce(self, records: Sequence[Addressed]) -> None:
        """Add records to the transaction."""
        for record in records:
            offset = self._cluster.add(self._begun(), record)
            if record.tracked:
                self._tracked.setdefault((record.topic, record.partition), offset)

    def send_offsets(self, marks: Sequence[OffsetMark]) -> None:
        """Add next offsets to the transaction."""
        self._cluster.add_offsets(self._begun(), self._group_name, self._member, marks)

    def commit(self) -> Receipt:
        """Make it all visible at once."""
        transaction = self._begun()
        self._cluster.end(transaction, committed=True)
        self._transaction = None
        if self._trims:
            self._trim()
        return Receipt(self._tracked, self._cluster.now_ms())

    def abort(self) -> None:
        """Undo what was begun."""
        if self._transaction is not None:
            self._cluster.end(self._transaction, committed=False)
            self._transaction = None

    def close(self) -> None:
        """Leave the group."""
        if self._member is not None:
            self._member.listener.revoked(sorted(self._member.owned))
            self._group.leave(self._member, self._cluster.subscribed(sorted(self._member.topics)))
            self._member = None

    def _heartbeat(self) -> None:
        """Take part in the group; whoever was sent away has lost everything and comes back as somebody new."""
        member = self._member
        if member is None:
            raise AssertionError("poll before open")
        if member not in self._group.members:
            member.listener.lost(sorted(member.owned))
            member = Member(member.listener, member.topics, self._cluster.now_ms())
            self._member = member
            self._group.join(member, self._cluster.subscribed(sorted(member.topics)))
        member.heard_ms = self._cluster.now_ms()
        self._group.poll(member)

    def _serve(self, positions: Mapping[Partition, Position], records_max: int) -> list[Polled]:
        polled: list[Polled] = []
        left = records_max
        while left > 0 and (partition := self._next_with_records(positions)) is not None:
            at = positions[partition]
            found, at.next_offset = self._log(partition).read(at.next_offset, min(left, CHUNK_RECORDS))
            left -= len(found)
            if found:
                polled.append(_batch(partition, found))
                at.end_told = -1
        return polled + self._ends_met(positions)

    def _next_with_records(self, positions: Mapping[Partition, Position]) -> Partition | None:
        """Topics in memory before files, then by the time of the next record."""

        def place(partition: Partition) -> tuple[bool, int, Partition]:
            log = self._log(partition)
            return not isinstance(log, Log), log.head_ms(positions[partition].next_offset), partition

        waiting = [name for name, at in positions.items() if at.next_offset < self._log(name).stable_offset()]
        return min(waiting, key=place, default=None)

    def _ends_met(self, positions: Mapping[Partition, Position]) -> list[Polled]:
        met: list[Polled] = []
        for partition, at in positions.items():
            log = self._log(partition)
            if at.next_offset >= log.stable_offset() and at.end_told != at.next_offset:
                at.end_told = at.next_offset
                met.append(End(*partition, at.next_offset, log.is_final()))
        return met

    def _trim(self) -> None:
        """Delete what nobody reads again: all but what the group or a follower has still before it."""
        subscribed = set() if self._member is None else self._member.topics
        for topic, logs in self._cluster.logs.items():
            for number, log in enumerate(logs):
                if not isinstance(log, Log):
                    continue
                if topic in subscribed:
                    mark = self._group.offsets.get((topic, number))
                    log.trim(0 if mark is None else mark.next_offset)
                else:
                    at = self._followed.get((topic, number))
                    log.trim(log.stable_offset() if at is None else at.next_offset)

    def _log(self, partition: Partition) -> LogView:
        return self._cluster.logs[partition[0]][partition[1]]

    def _begun(self) -> Transacting:
        if self._transaction is None:
            raise AssertionError("no transaction was begun")
        return self._transaction

    def hold(self, partitions: Iterable[Partition]) -> None:
        """New partitions: paused."""
        self._positions |= {partition: Position(0, paused=True) for partition in partitions}

    def let_go(self, partitions: Iterable[Partition]) -> None:
        """These are read no more."""
        for partition in partitions:
            self._positions.pop(partition, None)


class _Watching(Struct, frozen=True):
    """Keeps the positions in step with what the listener hears."""

    ends: LocalEnds
    listener: Listener

    def assigned(self, partitions: Sequence[Partition]) -> None:
        self.ends.hold(partitions)
        self.listener.assigned(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.listener.revoked(partitions)
        self.ends.let_go(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.listener.lost(partitions)
        self.ends.let_go(partitions)


def _batch(partition: Partition, records: Sequence[Record]) -> Batch:
    return Batch(
        *partition,
        [record.offset for record in records],
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.headers or None for record in records],
    )
