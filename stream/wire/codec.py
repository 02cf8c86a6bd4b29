"""Bytes and structs: the one binary form of internal records, JSON that leaves the house, times, hashes.

A bad record is a value, `Malformed`, never an exception: nothing that begins with `decode` raises, whatever the bytes.
"""

import math
import re
import struct
from binascii import crc32
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final, TypeVar, cast, get_args

import msgspec
import numpy as np
import orjson
from msgspec import Struct

from stream.wire.canonical import canonical_json
from stream.wire.internal import Reference
from stream.wire.record import Record
from stream.wire.times import parse_time, rfc3339

__all__ = [
    "Malformed",
    "canonical_json",
    "decode",
    "decode_reference",
    "encode",
    "encode_reference",
    "hash64",
    "hashes",
    "kind_of",
    "named",
    "opened",
    "parse_time",
    "partition_of",
    "place",
    "reference_id",
    "rfc3339",
    "to_json",
]

T = TypeVar("T")

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""Larger than any snapshot a broker accepts; above it a length field is an attack or a bug."""
REFERENCE_BYTES_MAX: Final = 8 * 1024 * 1024

_MAGIC: Final = b"\xd5\x1f"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<2sBIB")  # magic, version of the frame, crc32 of what follows, bytes of the kind
_ARRAY: Final = 1  # msgpack extension code
_ARRAY_HEAD: Final = struct.Struct("<BBB")  # type of the array, type on the wire, rank; then 8 bytes per dimension
_NAMES: Final = ("bool", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f4", "<f8")
_DTYPES: Final[dict[int, np.dtype[Any]]] = {code: np.dtype(name) for code, name in enumerate(_NAMES)}
_CODES: Final = {dtype: code for code, dtype in _DTYPES.items()}
_PAIRS: Final = {
    (own, wire): (_DTYPES[own], _DTYPES[wire])
    for own in _DTYPES
    for wire in _DTYPES
    if np.can_cast(_DTYPES[wire], _DTYPES[own], "safe")
}
"""Types of an array, own and on the wire, by their codes: the second never wider than the first."""
_NARROW: Final[tuple[np.dtype[Any], ...]] = tuple(np.dtype(name) for name in ("<i1", "<i2", "<i4"))
_RANK_MAX: Final = 8
_HASH_BYTES: Final = 8


class Malformed(Struct, frozen=True):
    """What is wrong with some bytes: a stable code, and where and why in words."""

    code: str
    detail: str


def hash64(value: bytes | str) -> int:
    """The first eight bytes of BLAKE2b as an unsigned integer: the same on every machine, for ever."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return int.from_bytes(blake2b(data, digest_size=_HASH_BYTES).digest(), "big")


def hashes(start: bytes, ends: Iterable[bytes]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """[n] `hash64` of the same start with each of n ends. About 0.35 us each."""
    begun, digests = blake2b(start, digest_size=_HASH_BYTES), []
    for end in ends:
        own = begun.copy()
        own.update(end)
        digests.append(own.digest())
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def partition_of(key: bytes | None, partitions: int) -> int:
    """The partition of a key of ours, 0 to partitions - 1; a record without a key goes to 0."""
    return 0 if key is None else hash64(key) % partitions


def encode(value: Struct, kind: str) -> bytes:
    """A struct as one frame: head with checksum, then msgpack; `decode` with its type is the inverse.

    Fields may hold texts, bytes, numbers up to 64 bits, None, lists, tuples, dicts (keys of any hashable kind),
    structs, and numpy arrays of booleans, integers and floats of any rank up to 8. Integer arrays travel in the
    smallest type that holds them and come back in their own. `kind`, such as `partial/1`, names what it is and which
    shape it has. Raises `TypeError` or `OverflowError` on anything else: a bug.
    """
    body = _ENCODER.encode(value)
    name = kind.encode("ascii")
    rest = name + body
    return _HEAD.pack(_MAGIC, _VERSION, crc32(rest), len(name)) + rest


def decode(data: bytes, shape: type[T], kind: str | None = None) -> T | Malformed:
    """The struct in a frame. Never raises.

    Codes: `not_a_frame`, `frame_version`, `frame_checksum`, `frame_kind` (another than the one asked for),
    `frame_too_large` (above 256 MiB) and `frame_shape` (the body does not fit `shape`, or one array exceeds 256 MiB).
    """
    opened = _opened(data, kind)
    return opened if isinstance(opened, Malformed) else _body(opened, shape)


def opened(record: Record, shape: type[T], kind: str) -> T:
    """The struct in a record that only this system writes. Raises `ValueError`, naming the place, on other bytes."""
    found = decode(record.value or b"", shape, kind)
    if isinstance(found, Malformed):
        raise ValueError(f"{place(record)}: {found.code}: {found.detail}")  # noqa: TRY004 - bytes, not types, are wrong
    return found


def place(record: Record) -> str:
    """Where a record stands, for people."""
    return f"{record.topic}[{record.partition}] offset {record.offset}"


def _opened(data: bytes, kind: str | None) -> memoryview | Malformed:
    if len(data) > FRAME_BYTES_MAX:
        return Malformed("frame_too_large", f"{len(data)} bytes")
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        return Malformed("not_a_frame", "unknown first bytes")
    _, version, checksum, name_bytes = _HEAD.unpack_from(data)
    if version != _VERSION:
        return Malformed("frame_version", f"version {version}, this release reads {_VERSION}")
    rest = memoryview(data)[_HEAD.size :]
    if crc32(rest) != checksum:
        return Malformed("frame_checksum", "the bytes are not those that were written")
    if kind is not None and bytes(rest[:name_bytes]) != kind.encode():
        return Malformed("frame_kind", f"not a {kind}")
    return rest[name_bytes:]


def kind_of(data: bytes) -> str | None:
    """The kind a frame says it is, or None if the bytes are no frame. Its checksum is not looked at."""
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        return None
    end = _HEAD.size + data[_HEAD.size - 1]
    return data[_HEAD.size : end].decode("ascii", "replace")


def _body(body: memoryview, shape: type[T]) -> T | Malformed:
    try:
        decoded: T = _decoder(cast("Hashable", shape)).decode(body)
    except msgspec.ValidationError as error:
        return Malformed("frame_shape", str(error))
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        return Malformed("frame_shape", "not a whole msgpack value")
    return decoded


@lru_cache(maxsize=256)
def _decoder(shape: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(shape, dec_hook=_to_array, ext_hook=_unpack)


def _pack(value: Any) -> msgspec.msgpack.Ext:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype not in _CODES or value.ndim > _RANK_MAX:
        raise TypeError(f"no binary form for {type(value).__name__}")
    wire = value.astype(_wire_dtype(value), copy=False)
    head = _ARRAY_HEAD.pack(_CODES[value.dtype], _CODES[wire.dtype], value.ndim)
    return msgspec.msgpack.Ext(_ARRAY, head + struct.pack(f"<{value.ndim}Q", *value.shape) + wire.tobytes())


def _wire_dtype(array: np.ndarray[Any, Any]) -> np.dtype[Any]:
    own: np.dtype[Any] = array.dtype
    if own.kind != "i" or not array.size:
        return own
    low, high = int(array.min()), int(array.max())
    for narrow in _NARROW:
        limits = np.iinfo(narrow)
        if narrow.itemsize < own.itemsize and limits.min <= low and high <= limits.max:
            return narrow
    return own


def _unpack(code: int, data: memoryview) -> np.ndarray[Any, Any]:
    if code != _ARRAY or len(data) < _ARRAY_HEAD.size:
        raise ValueError("not an array")
    own_code, wire_code, rank = _ARRAY_HEAD.unpack_from(data)
    start = _ARRAY_HEAD.size + 8 * rank
    if (types := _PAIRS.get((own_code, wire_code))) is None or rank > _RANK_MAX or len(data) < start:
        raise ValueError("not an array of ours")
    own, wire = types
    dims = struct.unpack_from(f"<{rank}Q", data, _ARRAY_HEAD.size)
    size = math.prod(dims)
    if size * wire.itemsize != len(data) - start or max(dims, default=0) > FRAME_BYTES_MAX:
        raise ValueError("an array whose shape is not that of its bytes")
    if size * own.itemsize > FRAME_BYTES_MAX:
        raise ValueError("an array too large")
    # The copy gives an array of its own, writable and aligned, independent of the record's bytes.
    flat = np.frombuffer(data, wire, size, start).astype(own)
    return flat if rank == 1 else flat.reshape(dims)


def _to_array(shape: Any, value: Any) -> Any:
    """Checks an unpacked array against the type of its field, such as `np.ndarray[Any, np.dtype[np.int64]]`."""
    if not isinstance(value, np.ndarray):
        raise TypeError("expected an array")
    if any(value.dtype != dtype for dtype in _dtypes_of(shape)):
        raise ValueError("an array of another type")
    return value


@lru_cache(maxsize=64)
def _dtypes_of(shape: Any) -> tuple[np.dtype[Any], ...]:
    scalars = (scalar for part in get_args(shape)[1:] for scalar in get_args(part))
    return tuple(np.dtype(one) for one in scalars if isinstance(one, type) and issubclass(one, np.generic))


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_pack)


def to_json(value: Any) -> bytes:
    """Strict JSON (RFC 8259) of plain values and structs; keys keep their order, None is null.

    Raises `ValueError` on NaN and infinity, which orjson alone would write as null, and on what JSON cannot hold:
    integers beyond 64 bits, lone surrogates, keys that are no texts.
    """
    plain = msgspec.to_builtins(value)
    if _may_be_non_finite(plain):
        _refuse_non_finite(plain)
    try:
        return orjson.dumps(plain)
    except orjson.JSONEncodeError as error:
        raise ValueError("not a JSON value") from error


def _may_be_non_finite(value: Any) -> bool:
    """False only if there is surely no NaN or infinity in a tree: 40 times faster than to walk it.

    MessagePack writes a float as 0xcb and its 64 bits; no text holds the bytes sought, though integers may.
    """
    try:
        packed = msgspec.msgpack.encode(value)
    except (OverflowError, TypeError, ValueError):
        return True
    return _NON_FINITE.search(packed) is not None


_NON_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""0xcb, and a float whose eleven bits of exponent are ones."""


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("NaN and infinity have no JSON form")
    elif isinstance(value, Mapping):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            _refuse_non_finite(item)


_OWN_FIELDS: Final[dict[str, frozenset[str]]] = {
    "numeric": frozenset({"edges", "mean", "std", "centre", "scale", "z", "low", "high"}),
    "categorical": frozenset({"categories", "others", "singletons"}),
    "boolean": frozenset({"z"}),
}
"""Fields that only some types of signals have; the others are left out."""
_SOME_HAVE: Final = frozenset().union(*_OWN_FIELDS.values())


def reference_id(reference: Reference) -> str:
    """The name a reference must bear: 16 hex digits of SHA-256 over the canonical JSON of the rest."""
    return _content_hash(_reference_json(reference))


def named(reference: Reference) -> Reference:
    """The same reference, named by the hash of its content."""
    return msgspec.structs.replace(reference, reference_id=reference_id(reference))


def encode_reference(reference: Reference) -> bytes:
    """The JSON of `contracts.md` 7. Raises `ValueError` if the reference is not named by its content, see `named`."""
    content = _reference_json(reference)
    if _content_hash(content) != reference.reference_id:
        raise ValueError(f"reference_id must be {_content_hash(content)}")
    return to_json(content)


def decode_reference(data: bytes) -> Reference | Malformed:
    """A reference from its JSON, fields of later releases ignored. Never raises.

    Codes: `too_large` (8 MiB), `json_invalid`, `schema_version`, `schema_mismatch` and `reference_id` (not the hash of
    the content).
    """
    if len(data) > REFERENCE_BYTES_MAX:
        return Malformed("too_large", f"{len(data)} bytes, a reference has at most {REFERENCE_BYTES_MAX}")
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        return Malformed("json_invalid", "$: not a JSON text")
    if not isinstance(content, dict):
        return Malformed("schema_mismatch", "$: not an object")
    if content.get("schema_version") != 1:
        return Malformed("schema_version", "$.schema_version: this release reads 1")
    return _reference(content)


def _reference(content: dict[str, Any]) -> Reference | Malformed:
    try:
        expected = _content_hash(content)
        signals = content.get("signals")
        for signal in signals.values() if isinstance(signals, dict) else ():
            if isinstance(signal, dict) and isinstance(signal.get("others"), list):
                signal["others"] = [int(word, 16) for word in signal["others"]]
        reference = msgspec.convert(content, Reference)
    except msgspec.ValidationError as error:
        return Malformed("schema_mismatch", str(error))
    except (ValueError, TypeError):
        return Malformed("schema_mismatch", "$: a value outside the domain of references")
    if reference.reference_id != expected:
        return Malformed("reference_id", f"$.reference_id: the content says {expected}")
    return reference


def _content_hash(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "reference_id"}
    return sha256(canonical_json(rest)).hexdigest()[:16]


def _reference_json(reference: Reference) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(reference)
    for name, signal in content["signals"].items():
        foreign = _SOME_HAVE - _OWN_FIELDS[signal["type"]]
        content["signals"][name] = {key: signal[key] for key in signal if key not in foreign}
        if signal["coarse"] is None:
            del content["signals"][name]["coarse"]
        if signal["others"]:  # as texts: 64 bits are more than a JSON number holds everywhere
            content["signals"][name]["others"] = [f"{other:016x}" for other in signal["others"]]
    return content
