"""A record that could not be read, kept as it came, with the reason in headers (`contracts.md` 5)."""

from hashlib import sha256
from typing import Final

from stream.wire.codec import Malformed
from stream.wire.record import Batch, Headers, Outgoing

VALUE_BYTES_MAX: Final = 64 * 1024
"""A larger value is cut; its length and SHA-256 describe the whole."""
RECORD_BYTES_MAX: Final = 900_000
"""Below the default `max.message.bytes` of a topic; above it the original headers are dropped."""
DETAIL_BYTES_MAX: Final = 1024
VERSION: Final = "1"
PREFIX: Final = "drift.error."
_HEADER_OVERHEAD: Final = 8  # two varint lengths of at most four bytes


def dead_letter(batch: Batch, row: int, malformed: Malformed, input_format: str) -> Outgoing:
    """The dead letter of one record of a batch: original key, value and headers, and `drift.error.*`.

    It bears the timestamp of the original record and goes to the partition of the same number. The same record gives
    the same bytes.
    """
    value, key = batch.values[row], batch.keys[row]
    original = tuple(batch.headers[row] or ())
    added = {
        "code": malformed.code,
        "detail": malformed.detail.encode()[:DETAIL_BYTES_MAX].decode(errors="ignore"),
        "topic": batch.topic,
        "partition": str(batch.partition),
        "offset": str(batch.offsets[row]),
        "timestamp_ms": str(batch.timestamps_ms[row]),
        "format": input_format,
        "version": VERSION,
    }
    if value is not None and len(value) > VALUE_BYTES_MAX:
        added |= {"length": str(len(value)), "sha256": sha256(value).hexdigest()}
        value = value[:VALUE_BYTES_MAX]
    headers = _encoded(added)
    if _size(original) + _size(headers) + len(key or b"") + len(value or b"") > RECORD_BYTES_MAX:
        headers = _encoded(added | {"headers": str(len(original))})
        original = ()
    return Outgoing(
        role="dead_letters",
        key=key,
        value=value,
        headers=(*original, *headers),
        partition=batch.partition,
        timestamp_ms=batch.timestamps_ms[row],
    )


def is_cut(headers: Headers) -> bool:
    """Whether a dead letter is less than the record it was, so that it cannot be put back."""
    return bool({name for name, _ in headers} & {PREFIX + "length", PREFIX + "headers"})


def _encoded(fields: dict[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((PREFIX + name, text.encode()) for name, text in fields.items())


def _size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD for name, value in headers)
