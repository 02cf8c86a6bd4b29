"""The two ends of the loop: where records come from, and where outputs and offsets go in one transaction.

`kafka.py` and `local.py` are twins: both keep the promises below, and one suite of tests holds them to it. Offsets are
*next offsets*: the first one not yet processed. All calls are made from the thread of the loop.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from stream.wire.record import Batch, Headers, Record

Partition: TypeAlias = tuple[str, int]


class End(Struct, frozen=True):
    """A partition was read to its end: nothing readable stands at `offset` or above it yet."""

    topic: str
    partition: int
    offset: int
    final: bool = False
    """Nothing will ever come: the end of a file."""


Polled: TypeAlias = Batch | End


class Committed(Struct, frozen=True):
    """What the group knows of a partition."""

    next_offset: int
    metadata: str


class OffsetMark(Struct, frozen=True):
    """A next offset to be committed, with its metadata."""

    topic: str
    partition: int
    next_offset: int
    metadata: str


class Addressed(Struct, frozen=True):
    """A record on its way to one partition of one topic."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    tracked: bool = False
    """Whether the receipt of the transaction is to tell where it was written, and when by the broker's clock."""


class Receipt(Struct, frozen=True):
    """What a committed transaction tells about its tracked records."""

    first_offsets: dict[Partition, int]
    """The smallest offset per partition."""
    broker_ms: int | None = None
    """The broker's clock, where a topic with LogAppendTime showed it."""


class Unanswered(Exception):
    """No answer in time, or the answer is not decided yet: ask again on the next turn."""


class Aborted(Exception):
    """The transaction cannot be committed; after `abort` its records can be read and processed again."""


class Stopped(Exception):
    """The process must end with `exit_code`; `reason` is one word for machines, `detail` a sentence for people."""

    def __init__(self, exit_code: int, reason: str, detail: str) -> None:
        super().__init__(exit_code, reason, detail)
        self.exit_code = exit_code
        self.reason = reason
        self.detail = detail


UNDONE = (Aborted, Unanswered)
"""What is undone and tried again."""

EXIT_OK, EXIT_CONFIGURATION, EXIT_ACCESS, EXIT_DECISION, EXIT_BUG, EXIT_RESTART = 0, 3, 4, 5, 70, 75


class Listener(Protocol):
    """Whom a source tells about partitions; called inside `Ends.poll` and `Ends.close` only."""

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours, paused, and stay so until `Ends.resume`."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These are ours until this call returns: the last chance to commit. Repeats are possible."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These may be somebody else's already: nothing of them can be committed any more."""


class Ends(Protocol):
    """Source and sink of one worker."""

    def open(self, topics: Collection[str], listener: Listener) -> None:
        """Fence the former holder of the slot, then join the group."""

    def poll(self, records_max: int, timeout_seconds: float) -> list[Polled]:
        """The next records of the running partitions, in offset order within each, and the ends that were met."""

    def pause(self, partition: Partition) -> None:
        """Deliver nothing of a partition until `resume`."""

    def resume(self, partition: Partition, next_offset: int) -> None:
        """Deliver a partition from `next_offset` on, whatever was delivered before."""

    def committed(self, partition: Partition) -> Committed | None:
        """The decided offset of the group; None if there never was one. Unanswered while it is pending."""

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset the log still holds, and the one after its last readable record. May be Unanswered."""

    def latest(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The next offsets to be written, undecided records included; a silent partition is left out."""

    def lag(self, partition: Partition, next_offset: int) -> int:
        """Records after `next_offset`, as far as the last fetch has told; asks nobody."""

    def unstable(self, partition: Partition) -> int:
        """Records behind an open transaction (high watermark minus last stable offset), as far as known."""

    def follow(self, partition: Partition, next_offset: int | None) -> None:
        """Read a partition outside the group, from an offset or (None) from the start of its log."""

    def unfollow(self, partition: Partition) -> None:
        """Read it no more."""

    def read(self, timeout_seconds: float) -> list[Polled]:
        """The next records and ends of the partitions that are followed."""

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. May be Unanswered."""

    def topic_id(self, topic: str) -> str:
        """What tells a topic from another one of the same name made later. May be Unanswered."""

    def begin(self) -> None:
        """Begin a transaction."""

    def produce(self, records: Sequence[Addressed]) -> None:
        """Add records to the transaction, in this order per partition."""

    def send_offsets(self, marks: Sequence[OffsetMark]) -> None:
        """Add next offsets to the transaction, as the present member of the group."""

    def commit(self) -> Receipt:
        """Make it all visible at once. Aborted and Stopped as for every call of a transaction."""

    def abort(self) -> None:
        """Undo what was begun, and make sure that nothing of it can surface in a later transaction."""

    def close(self) -> None:
        """Leave the group (the listener hears of it) and let go of everything."""


def rows(batch: Batch) -> list[Record]:
    """The records of a batch, one by one."""
    return [
        Record(batch.topic, batch.partition, offset, timestamp, key, value, headers or ())
        for offset, timestamp, key, value, headers in zip(
            batch.offsets, batch.timestamps_ms, batch.keys, batch.values, batch.headers, strict=True
        )
    ]


def next_offset_of(batch: Batch) -> int:
    """The offset after the last record."""
    return batch.offsets[-1] + 1


def after(batch: Batch, next_offset: int) -> Batch | None:
    """What of a batch stands at `next_offset` or above; None if nothing does."""
    offsets = batch.offsets
    if offsets[-1] < next_offset:
        return None
    if offsets[0] >= next_offset:
        return batch
    return _cut(batch, next(row for row, offset in enumerate(offsets) if offset >= next_offset), len(offsets))


def before(batch: Batch, next_offset: int) -> Batch | None:
    """What of a batch stands below `next_offset`; None if nothing does."""
    offsets = batch.offsets
    if offsets[0] >= next_offset:
        return None
    if offsets[-1] < next_offset:
        return batch
    return _cut(batch, 0, next(row for row, offset in enumerate(offsets) if offset >= next_offset))


def joined(batches: Sequence[Batch]) -> Batch:
    """Consecutive batches of one partition as one."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    return Batch(
        first.topic,
        first.partition,
        [item for batch in batches for item in batch.offsets],
        [item for batch in batches for item in batch.timestamps_ms],
        [item for batch in batches for item in batch.keys],
        [item for batch in batches for item in batch.values],
        [item for batch in batches for item in batch.headers],
    )


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(
        batch.topic,
        batch.partition,
        batch.offsets[start:stop],
        batch.timestamps_ms[start:stop],
        batch.keys[start:stop],
        batch.values[start:stop],
        batch.headers[start:stop],
    )
