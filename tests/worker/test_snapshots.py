"""Snapshots are believed only when they are whole."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.wire.record import Outgoing, Record
from stream.worker.snapshots import CHUNK_BYTES, Letter, Manifest, Refused, Shelf, Snapshot, other, written

STATE = b"state" * 250_000  # three chunks


def records_of(outgoing: Sequence[Outgoing], first_offset: int = 0) -> list[Record]:
    return [
        Record("drift.snapshots", 3, first_offset + offset, 0, out.key, out.value)
        for offset, out in enumerate(outgoing)
    ]


def snapshot(letter: Letter = "A", next_offset: int = 10, state: bytes = STATE) -> list[Outgoing]:
    return written(3, "c", letter, state, next_offset=next_offset, topic_id="t", digest="d")


def shelf_of(*records: Record) -> Shelf:
    shelf = Shelf(3, "c")
    for record in records:
        shelf.put(record)
    return shelf


@given(st.integers(0, 3 * CHUNK_BYTES))
@settings(max_examples=20, deadline=None)
def test_any_state_comes_back_whole(size: int) -> None:
    state = bytes(size)
    [found] = shelf_of(*records_of(snapshot(state=state), 40)).candidates()
    assert isinstance(found, Snapshot)
    assert found.state == state
    assert found.offset == 40
    assert found.manifest.next_offset == 10


def test_all_records_stand_in_the_partition_of_their_task() -> None:
    made = snapshot()
    assert {out.partition for out in made} == {3}
    assert {out.role for out in made} == {"snapshots"}
    assert max(len(out.value or b"") for out in made) <= CHUNK_BYTES
    assert len({out.key for out in made}) == 4


def test_the_newest_comes_first_whatever_its_letter() -> None:
    older, newer = records_of(snapshot("B", 5)), records_of(snapshot("A", 9), 100)
    found = list(shelf_of(*newer, *older).candidates())
    assert [(type(one), one.letter) for one in found] == [(Snapshot, "A"), (Snapshot, "B")]


Damage = Literal["flipped", "cut", "missing", "tombstone", "longer", "format", "manifest", "bytes"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "tombstone", "longer", "format", "manifest", "bytes"])
def test_a_damaged_one_is_refused_and_the_one_before_is_used(damage: Damage) -> None:
    good = records_of(snapshot("A", 5))
    bad = damaged(records_of(snapshot("B", 9), 100), damage)
    found = list(shelf_of(*good, *bad).candidates())
    assert {type(one) for one in found} == {Refused, Snapshot}
    assert [one.letter for one in found if isinstance(one, Snapshot)] == ["A"]


def damaged(records: list[Record], damage: Damage) -> list[Record]:
    chunk, manifest = records[1], records[-1]
    value = chunk.value or b""
    told = msgspec.json.decode(manifest.value or b"", type=Manifest)
    changed: dict[Damage, tuple[int, bytes | None]] = {
        "flipped": (1, bytes([value[0] ^ 1]) + value[1:]),
        "cut": (1, value[:-1]),
        "longer": (1, value + b"x"),
        "tombstone": (1, None),
        "format": (-1, msgspec.json.encode(msgspec.structs.replace(told, format=2))),
        "bytes": (-1, msgspec.json.encode(msgspec.structs.replace(told, bytes=2**40, chunks=2**21))),
        "manifest": (-1, b'{"format":1}'),
    }
    if damage == "missing":
        return [records[0], *records[2:]]
    index, new = changed[damage]
    records[index] = msgspec.structs.replace(records[index], value=new)
    return records


def test_keys_of_others_are_left_alone() -> None:
    shelf = shelf_of(
        *(
            msgspec.structs.replace(record, key=key)
            for record in records_of(snapshot())
            for key in (b"", b"[1]", b"{", None)
        ),
        *records_of(written(4, "c", "A", STATE, next_offset=1, topic_id="t", digest="d")),
        *records_of(written(3, "another", "A", STATE, next_offset=1, topic_id="t", digest="d")),
    )
    assert not list(shelf.candidates())


def test_letters_take_turns() -> None:
    assert (other("A"), other("B")) == ("B", "A")
