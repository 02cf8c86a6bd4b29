"""A dead letter is the record it was, and says why."""

from hashlib import sha256

import msgspec

from stream.wire.codec import Malformed
from stream.wire.dead_letter import dead_letter, is_cut
from stream.wire.record import Headers

from .records import NOW_MS, batch_of

WHY = Malformed("json_invalid", "$: not a JSON text")


def headers_of(headers: Headers) -> dict[str, str]:
    return {name.removeprefix("drift.error."): value.decode() for name, value in headers if name.startswith("drift.")}


def test_key_value_and_headers_are_the_original_ones() -> None:
    original: Headers = [("a", b"\xff"), ("a", b"2")]
    batch = batch_of([b"\xff{"], headers=[original])
    letter = dead_letter(batch, 0, WHY, "auto")
    assert (letter.role, letter.partition, letter.timestamp_ms) == ("dead_letters", 3, NOW_MS)
    assert (letter.key, letter.value, list(letter.headers[:2])) == (b"key", b"\xff{", original)
    assert headers_of(letter.headers) == {
        "code": "json_invalid",
        "detail": "$: not a JSON text",
        "topic": "predictions",
        "partition": "3",
        "offset": "100",
        "timestamp_ms": str(NOW_MS),
        "format": "auto",
        "version": "1",
    }
    assert not is_cut(letter.headers)


def test_a_value_above_64_kib_is_cut_and_described() -> None:
    value = b"x" * 65_537
    letter = dead_letter(batch_of([value]), 0, WHY, "auto")
    assert letter.value == value[:65_536]
    added = headers_of(letter.headers)
    assert (added["length"], added["sha256"]) == ("65537", sha256(value).hexdigest())
    assert is_cut(letter.headers)
    whole = dead_letter(batch_of([value[:-1]]), 0, WHY, "auto")
    assert whole.value == value[:-1]
    assert not is_cut(whole.headers)


def test_above_900_kb_the_original_headers_are_dropped_and_counted() -> None:
    many: Headers = [("h", b"x" * 300_000)] * 3
    letter = dead_letter(batch_of([b"{"], headers=[many]), 0, WHY, "auto")
    assert headers_of(letter.headers)["headers"] == "3"
    assert {name.partition(".")[0] for name, _ in letter.headers} == {"drift"}
    assert is_cut(letter.headers)


def test_the_detail_has_at_most_1_kib() -> None:
    letter = dead_letter(batch_of([b"{"]), 0, Malformed("x", "é" * 1_000), "auto")
    assert headers_of(letter.headers)["detail"] == "é" * 512


def test_the_same_record_gives_the_same_letter() -> None:
    batch = msgspec.structs.replace(batch_of([b"{"]), keys=[None])
    assert dead_letter(batch, 0, WHY, "auto") == dead_letter(batch, 0, WHY, "auto")
