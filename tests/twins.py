"""What the loop takes for granted of a source and a sink. Memory and Kafka pass it alike.

Each check gets a `Pair`: two workers' ends over the same fresh topics "in" (2 partitions), "out" and "drift.snapshots".
"""

import time
from collections.abc import Callable, Sequence

import pytest
from msgspec import Struct, field

from stream.wire.record import Batch
from stream.worker.ends import Aborted, Addressed, End, Ends, OffsetMark, Partition, Polled, Stopped, Unanswered

DEADLINE_S = 60


class Ears(Struct):
    """A listener that takes what it is given."""

    owned: set[Partition] = field(default_factory=set)
    lost_ones: set[Partition] = field(default_factory=set)

    def assigned(self, partitions: Sequence[Partition]) -> None:
        self.owned |= set(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.lost_ones |= set(partitions)
        self.owned -= set(partitions)


class Pair(Struct):
    """Two workers to be, and the world between them."""

    make: Callable[[str], Ends]
    """slot -> ends, not opened"""
    write: Callable[[int, bytes], None]
    """partition of "in", value"""
    seen: Callable[[], list[bytes]]
    """Values of "out", as a read_committed reader sees them."""
    pass_time: Callable[[], None]
    topic: str = "in"
    out: str = "out"

    def opened(self, slot: str) -> tuple[Ends, Ears]:
        """Ends that own both partitions, paused."""
        ends, ears = self.make(slot), Ears()
        ends.open([self.topic], ears)
        self.until(lambda: len(ears.owned) == 2, ends)
        return ends, ears

    def until(self, condition: Callable[[], bool], *polling: Ends) -> list[Polled]:
        """Polls until a condition holds; what came meanwhile."""
        came: list[Polled] = []
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "took too long"
            self.pass_time()
            for ends in polling:
                came += ends.poll(100, 0.1)
        return came

    def read(self, ends: Ends, count: int) -> list[tuple[Partition, int, bytes | None]]:
        """At least so many records."""
        came: list[tuple[Partition, int, bytes | None]] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(came) < count:
            assert time.monotonic() < deadline, f"only {came}"
            self.pass_time()
            for item in ends.poll(100, 0.1):
                if isinstance(item, Batch):
                    came += [
                        ((item.topic, item.partition), offset, value)
                        for offset, value in zip(item.offsets, item.values, strict=True)
                    ]
        return came

    def committed(self, ends: Ends, partition: int) -> tuple[int, str] | None:
        """The decided offset, asked until it is answered."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                found = ends.committed((self.topic, partition))
            except Unanswered:
                assert time.monotonic() < deadline
                self.pass_time()
            else:
                return None if found is None else (found.next_offset, found.metadata)

    def transaction(self, ends: Ends, value: bytes, next_offset: int, metadata: str = "m") -> None:
        """Everything but the commit."""
        ends.begin()
        ends.produce([Addressed(self.out, 0, b"k", value, tracked=True)])
        ends.send_offsets([OffsetMark(self.topic, 0, next_offset, metadata)])


def nothing_comes_before_it_is_resumed(pair: Pair) -> None:
    pair.write(0, b"a")
    ends, _ = pair.opened("0")
    for _ in range(5):
        pair.pass_time()
        assert not [item for item in ends.poll(100, 0.05) if isinstance(item, Batch)]
    ends.resume((pair.topic, 0), 0)
    assert pair.read(ends, 1) == [((pair.topic, 0), 0, b"a")]


def a_resume_moves_back_and_forth(pair: Pair) -> None:
    for value in (b"a", b"b", b"c", b"d"):
        pair.write(1, value)
    ends, _ = pair.opened("0")
    ends.resume((pair.topic, 1), 2)
    assert [value for *_, value in pair.read(ends, 2)] == [b"c", b"d"]
    ends.resume((pair.topic, 1), 1)
    assert [value for *_, value in pair.read(ends, 3)] == [b"b", b"c", b"d"]
    ends.pause((pair.topic, 1))
    pair.write(1, b"e")
    assert not [item for item in ends.poll(100, 0.3) if isinstance(item, Batch)]


def an_end_is_told_where_it_is(pair: Pair) -> None:
    pair.write(0, b"a")
    ends, _ = pair.opened("0")
    ends.resume((pair.topic, 0), 0)
    ends.resume((pair.topic, 1), 0)
    met: set[tuple[int, int]] = set()

    def heard() -> bool:
        met.update((item.partition, item.offset) for item in ends.poll(100, 0.1) if isinstance(item, End))
        return {(0, 1), (1, 0)} <= met

    pair.until(heard)


def a_commit_shows_outputs_offsets_and_metadata_together(pair: Pair) -> None:
    ends, _ = pair.opened("0")
    assert pair.committed(ends, 0) is None
    pair.transaction(ends, b"shown", 7, "d1;é?".replace("é", "e"))
    assert pair.seen() == []
    receipt = ends.commit()
    assert receipt.first_offsets == {(pair.out, 0): 0}
    found = pair.committed(ends, 0)
    assert found is not None
    assert (found[0], found[1].rstrip("\0")) == (7, "d1;e?")
    assert pair.seen() == [b"shown"]


def an_abort_shows_nothing_and_the_next_one_goes_through(pair: Pair) -> None:
    ends, _ = pair.opened("0")
    pair.transaction(ends, b"hidden", 7)
    ends.abort()
    assert pair.committed(ends, 0) is None
    pair.transaction(ends, b"shown", 8)
    ends.commit()
    found = pair.committed(ends, 0)
    assert found is not None
    assert found[0] == 8
    assert pair.seen() == [b"shown"]


def an_abort_of_nothing_is_nothing(pair: Pair) -> None:
    ends, _ = pair.opened("0")
    ends.abort()
    pair.transaction(ends, b"shown", 1)
    ends.commit()
    assert pair.seen() == [b"shown"]


def an_offset_is_open_as_long_as_its_transaction(pair: Pair) -> None:
    ends, _ = pair.opened("0")
    pair.transaction(ends, b"shown", 7)
    with pytest.raises(Unanswered):
        ends.committed((pair.topic, 0))
    ends.commit()
    found = pair.committed(ends, 0)
    assert found is not None
    assert found[0] == 7


def the_former_holder_of_a_slot_is_fenced(pair: Pair) -> None:
    first, _ = pair.opened("0")
    pair.transaction(first, b"hidden", 7)
    second = pair.make("0")
    second.open([pair.topic], Ears())
    with pytest.raises((Stopped, Aborted)):
        first.commit()
    assert pair.seen() == []


def a_member_that_gave_a_partition_away_cannot_commit_as_it_was(pair: Pair) -> None:
    first, ears = pair.opened("0")
    second, others = pair.make("1"), Ears()
    second.open([pair.topic], others)
    pair.until(lambda: len(ears.owned) == len(others.owned) == 1, first, second)
    assert ears.owned | others.owned == {(pair.topic, 0), (pair.topic, 1)}
    second.close()
    pair.until(lambda: len(ears.owned) == 2, first)


def following_reads_outside_the_group(pair: Pair) -> None:
    pair.write(0, b"a")
    pair.write(0, b"b")
    ends = pair.make("0")
    ends.follow((pair.topic, 0), None)
    assert _followed(ends) == [b"a", b"b"]
    ends.unfollow((pair.topic, 0))
    ends.follow((pair.topic, 0), 1)
    assert _followed(ends) == [b"b"]
    ends.unfollow((pair.topic, 0))


def _followed(ends: Ends) -> list[bytes | None]:
    """To the end."""
    values: list[bytes | None] = []
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for item in ends.read(0.1):
            if isinstance(item, End):
                return values
            values += item.values
    raise AssertionError("no end")


def questions_about_a_log_are_answered(pair: Pair) -> None:
    pair.write(0, b"a")
    pair.write(0, b"b")
    ends, _ = pair.opened("0")
    assert ends.bounds((pair.topic, 0)) == (0, 2)
    assert ends.latest([(pair.topic, 0), (pair.topic, 1)]) == {(pair.topic, 0): 2, (pair.topic, 1): 0}
    assert ends.partitions(pair.topic) == 2
    assert ends.topic_id(pair.topic) != ends.topic_id(pair.out)


CHECKS = [
    nothing_comes_before_it_is_resumed,
    a_resume_moves_back_and_forth,
    an_end_is_told_where_it_is,
    a_commit_shows_outputs_offsets_and_metadata_together,
    an_abort_shows_nothing_and_the_next_one_goes_through,
    an_abort_of_nothing_is_nothing,
    an_offset_is_open_as_long_as_its_transaction,
    the_former_holder_of_a_slot_is_fenced,
    a_member_that_gave_a_partition_away_cannot_commit_as_it_was,
    following_reads_outside_the_group,
    questions_about_a_log_are_answered,
]
