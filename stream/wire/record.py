"""The two ends of every topic: what was read, and what is to be written."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Headers: TypeAlias = Sequence[tuple[str, bytes]]
Role: TypeAlias = Literal[
    "dead_letters", "profiles", "pairs", "references", "control", "snapshots", "alerts", "windows"
]

EVERY_PARTITION = -1


class Record(Struct, frozen=True):
    """One record of a log, as read: bytes with topic, partition and offset.

    `timestamp_ms` is the Kafka timestamp; a `value` of None is a tombstone.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Batch(Struct, frozen=True):
    """Consecutive records of one input partition, as columns of equal length in offset order.

    Offsets rise but need not be dense (control records and compaction leave gaps).
    """

    topic: str
    partition: int
    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers | None]

    def __len__(self) -> int:
        return len(self.offsets)


class Outgoing(Struct, frozen=True):
    """A record to be written, addressed by the role of its topic.

    `partition` None means: by the hash of the key (`codec.partition_of`); EVERY_PARTITION: one copy to each;
    a number is taken modulo the partitions of the topic. `timestamp_ms` None leaves the time to the broker.
    """

    role: Role
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None
