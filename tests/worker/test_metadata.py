"""What a committed offset remembers."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.worker.metadata import (
    DetectMark,
    IngestMark,
    JoinMark,
    decode_detect,
    decode_ingest,
    decode_join,
    encode_detect,
    encode_ingest,
    encode_join,
)

# As Kafka writes topic ids: base64 of 16 bytes, plus and slash included.
TOPIC_IDS = st.text("abcXYZ0189+/_-", min_size=1, max_size=22)
HEX = st.text("0123456789abcdef", min_size=16, max_size=16)
OFFSETS = st.integers(0, 2**62)


@given(
    st.none() | st.integers(-(2**62), 2**62), st.booleans(), TOPIC_IDS, st.sampled_from(["", "\0", "\0garbage", "x"])
)
def test_ingest_round_trips_with_bytes_behind_it(watermark_ms: int | None, live: bool, topic: str, tail: str) -> None:
    mark = IngestMark(watermark_ms, live, topic)
    text = encode_ingest(mark)
    assert decode_ingest(text + tail) == mark
    assert text.isascii()
    assert len(text) < 300


@given(HEX, OFFSETS, st.none() | OFFSETS, HEX, TOPIC_IDS)
def test_detect_round_trips(config_id: str, s: int, p: int | None, digest: str, topic: str) -> None:
    mark = DetectMark(config_id, s, p, digest, topic)
    assert decode_detect(encode_detect(mark) + "\0") == mark
    assert len(encode_detect(mark)) < 300


@given(HEX, OFFSETS, st.integers(0, 63), HEX, TOPIC_IDS)
def test_join_round_trips(config_id: str, s: int, k: int, digest: str, topic: str) -> None:
    mark = JoinMark(config_id, s, k, digest, topic)
    assert decode_join(encode_join(mark) + "\0") == mark
    assert len(encode_join(mark)) < 300
    assert decode_detect(encode_join(mark)) is None


@given(st.text(max_size=80))
def test_anything_else_is_not_ours(text: str) -> None:
    assert decode_ingest(text) is None
    assert decode_detect(text) is None
    assert decode_join(text) is None


@pytest.mark.parametrize("body", ["d1;w=1;l=1;", "d1;w=x;l=1;t=a;", "d1;", "d1;c=1;s=-;p=1;k=-;h=1;t=1;"])
def test_a_good_checksum_over_bad_fields_is_not_ours(body: str) -> None:
    text = f"{body}#{zlib.crc32(body.encode()):08x}"
    assert decode_ingest(text) is None
    assert decode_detect(text) is None
    assert decode_join(text) is None


def test_a_flipped_digit_is_noticed() -> None:
    text = encode_ingest(IngestMark(1_795_219_200_000, live=True, topic_id="t"))
    assert decode_ingest(text.replace("1795", "1796")) is None
