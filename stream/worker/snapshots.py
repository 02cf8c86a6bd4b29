"""How the state of a detect task stands in the compacted topic drift.snapshots, and how it is found again.

Chunks of at most 512 KiB under `["detect",task,config_id,"A"|"B",i]`, then a manifest under the same key without `i`,
all in partition `task`. A and B take turns, so a damaged newest snapshot leaves the one before. A manifest is
believed only when every chunk is there and the SHA-256 over them is the one it names; what is read back goes through
the stage's decoder, which allocates nothing it was not told the size of.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from stream.wire.record import Outgoing, Record

Letter: TypeAlias = Literal["A", "B"]

FORMAT: Final = (("drift-format", b"snapshot/1"),)
CHUNK_BYTES: Final = 512 * 1024
STATE_BYTES_MAX: Final = 256 * 1024 * 1024
"""A manifest that promises more is refused before anything is joined."""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a snapshot is made of, and which input offset it belongs to."""

    format: int
    next_offset: int
    """S: the state before the record at this offset."""
    topic_id: str
    chunks: int
    bytes: int
    sha256: str
    digest: str


class Snapshot(Struct, frozen=True):
    """A state that was read back whole."""

    manifest: Manifest
    letter: Letter
    offset: int
    """Where its first chunk stands in drift.snapshots."""
    state: bytes


class Refused(Struct, frozen=True):
    """A snapshot that cannot be used, and why."""

    letter: str
    reason: Literal["unreadable", "version"]
    detail: str


def other(letter: Letter) -> Letter:
    """The letter whose turn it is next."""
    return "B" if letter == "A" else "A"


def written(  # noqa: PLR0913 - a name, a state, and what the manifest says of it
    task: int, config_id: str, letter: Letter, state: bytes, *, next_offset: int, topic_id: str, digest: str
) -> list[Outgoing]:
    """The records of one snapshot, chunks first, manifest last."""
    chunks = [state[start : start + CHUNK_BYTES] for start in range(0, len(state), CHUNK_BYTES)] or [b""]
    manifest = Manifest(1, next_offset, topic_id, len(chunks), len(state), hashlib.sha256(state).hexdigest(), digest)
    records = [_record(task, (*_name(task, config_id, letter), number), chunk) for number, chunk in enumerate(chunks)]
    return [*records, _record(task, _name(task, config_id, letter), msgspec.json.encode(manifest))]


class Shelf:
    """The newest record per key of one partition of drift.snapshots, as it is read."""

    def __init__(self, task: int, config_id: str) -> None:
        self.task = task
        self.config_id = config_id
        self._newest: dict[bytes, Record] = {}

    def put(self, record: Record) -> None:
        """Take one record; a tombstone removes what it names, keys of others are none of ours."""
        if record.key is None or not self._is_ours(record.key):
            return
        if record.value is None:
            self._newest.pop(record.key, None)
        else:
            self._newest[record.key] = record

    def candidates(self) -> Iterator[Snapshot | Refused]:
        """Snapshots by falling S; each is whole, or refused with its reason."""
        found = [(letter, self._newest.get(_key(_name(self.task, self.config_id, letter)))) for letter in ("A", "B")]
        read = [(letter, _manifest(record)) for letter, record in found if record is not None]
        yield from (Refused(letter, "unreadable", "manifest") for letter, manifest in read if manifest is None)
        whole = [(manifest, letter) for letter, manifest in read if manifest is not None]
        for manifest, letter in sorted(whole, key=lambda item: -item[0].next_offset):
            yield self._assembled(manifest, "A" if letter == "A" else "B")

    def _assembled(self, manifest: Manifest, letter: Letter) -> Snapshot | Refused:
        if manifest.format != 1:
            return Refused(letter, "version", f"format {manifest.format}")
        if not 0 <= manifest.bytes <= STATE_BYTES_MAX or manifest.chunks != max(1, -(-manifest.bytes // CHUNK_BYTES)):
            return Refused(letter, "unreadable", "size")
        keys = [_key((*_name(self.task, self.config_id, letter), number)) for number in range(manifest.chunks)]
        chunks = [self._newest.get(key) for key in keys]
        present = [chunk for chunk in chunks if chunk is not None and chunk.value is not None]
        if len(present) != manifest.chunks:
            return Refused(letter, "unreadable", "chunk missing")
        state = b"".join(chunk.value for chunk in present if chunk.value is not None)
        if len(state) != manifest.bytes or hashlib.sha256(state).hexdigest() != manifest.sha256:
            return Refused(letter, "unreadable", "checksum")
        return Snapshot(manifest, letter, present[0].offset, state)

    def _is_ours(self, key: bytes) -> bool:
        try:
            name = msgspec.json.decode(key, type=list[str | int])
        except msgspec.DecodeError:
            return False
        return name[:3] == ["detect", self.task, self.config_id]


def _name(task: int, config_id: str, letter: str) -> tuple[str, int, str, str]:
    return ("detect", task, config_id, letter)


def _key(name: tuple[str | int, ...]) -> bytes:
    return msgspec.json.encode(name)


def _record(task: int, name: tuple[str | int, ...], value: bytes) -> Outgoing:
    return Outgoing("snapshots", _key(name), value, FORMAT, task)


def _manifest(record: Record) -> Manifest | None:
    try:
        return msgspec.json.decode(record.value or b"", type=Manifest)
    except msgspec.DecodeError:
        return None
