"""Frames, strict and canonical JSON, references: what is written is read back, and nothing that is read ever raises."""

import json
import math
import struct
from binascii import crc32
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import Partial, Reference, Sample, SignalReference, SourceMark, Span, Watermarks

Array = np.ndarray[Any, np.dtype[Any]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]


class Leaf(msgspec.Struct, frozen=True):
    name: str
    number: int


class Tree(msgspec.Struct):
    whole: Int64s
    anything: Any
    by_pair: dict[tuple[str, int], list[Leaf]]
    by_leaf: dict[Leaf, float]
    arrays: dict[int, Array]
    maybe: Leaf | None = None


TREE = Tree(
    whole=np.array([[1, 2, 3], [4, 5, -600]]),
    anything=np.array([[True], [False]]),
    by_pair={("a", 1): [Leaf("x", 2**64 - 1), Leaf("y", -(2**63))]},
    by_leaf={Leaf("z", 0): 0.1},
    arrays={7: np.zeros((0, 3), dtype=np.uint16)},
)
DTYPES = [np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.float64]


class Box(msgspec.Struct):
    array: Array


def framed(body: bytes, kind: bytes = b"x/1", version: int = 1) -> bytes:
    rest = kind + body
    return b"\xd5\x1f" + bytes([version]) + crc32(rest).to_bytes(4, "little") + bytes([len(kind)]) + rest


def test_a_tree_of_structs_and_arrays_comes_back_as_it_was() -> None:
    read = codec.decode(codec.encode(TREE, "tree/1"), Tree, "tree/1")
    assert isinstance(read, Tree)
    for name in ("whole", "anything"):
        np.testing.assert_array_equal(getattr(read, name), getattr(TREE, name), strict=True)
    assert (read.by_pair, read.by_leaf, read.maybe) == (TREE.by_pair, TREE.by_leaf, None)
    np.testing.assert_array_equal(read.arrays[7], TREE.arrays[7], strict=True)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))))
def test_any_array_comes_back_with_its_type_shape_and_bits(array: Array) -> None:
    read = codec.decode(codec.encode(Box(array), "box/1"), Box)
    assert isinstance(read, Box)
    assert (read.array.dtype, read.array.shape) == (array.dtype, array.shape)
    assert read.array.tobytes() == array.tobytes()
    assert read.array.flags.writeable


def test_counts_travel_in_the_smallest_type_that_holds_them() -> None:
    small = codec.encode(Box(np.full(1_000, 100)), "box/1")
    large = codec.encode(Box(np.full(1_000, 2**40)), "box/1")
    assert len(small) < 1_100
    assert len(large) > 8_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_decoding_arbitrary_bytes_gives_a_value(data: bytes) -> None:
    assert isinstance(codec.decode(data, Tree), Malformed)
    assert isinstance(codec.decode(framed(data), Tree), Malformed)
    assert isinstance(codec.decode_reference(data), Malformed)
    codec.kind_of(data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_flipped_byte_is_found(data: st.DataObject) -> None:
    whole = bytearray(codec.encode(TREE, "tree/1"))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    assert isinstance(codec.decode(bytes(whole), Tree, "tree/1"), Malformed)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_frame_that_lies_about_its_arrays_gives_a_value(data: st.DataObject) -> None:
    body = bytearray(codec.encode(TREE, "")[8:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read = codec.decode(framed(bytes(body)), Tree)
    assert isinstance(read, Tree | Malformed)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_a_frame"),
        (b"{}" * 20, "not_a_frame"),
        (framed(b"\xc0", version=2), "frame_version"),
        (framed(b"\xc0")[:-1], "frame_checksum"),
        (framed(b"\xc0", kind=b"y/1"), "frame_kind"),
        (framed(b"\xc0"), "frame_shape"),
        (framed(b"\x91" * 5_000 + b"\xc0"), "frame_shape"),
        (
            framed(msgspec.msgpack.encode({"array": msgspec.msgpack.Ext(1, b"\x04\x01\x01" + b"\xff" * 9)})),
            "frame_shape",
        ),
        (framed(msgspec.msgpack.encode({"array": msgspec.msgpack.Ext(1, b"\x63\x01\x00")})), "frame_shape"),
        (framed(msgspec.msgpack.encode({"array": msgspec.msgpack.Ext(1, b"\x01\x04\x00" + bytes(8))})), "frame_shape"),
        (framed(msgspec.msgpack.encode({"array": msgspec.msgpack.Ext(2, b"")})), "frame_shape"),
        (framed(msgspec.msgpack.encode({"array": [1]})), "frame_shape"),
    ],
)
def test_every_way_to_be_no_frame_has_its_code(data: bytes, code: str) -> None:
    read = codec.decode(data, Box, "x/1")
    assert isinstance(read, Malformed)
    assert read.code == code


def test_a_frame_above_256_mib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "FRAME_BYTES_MAX", 100)
    zeros = Box(np.zeros(50, dtype=np.int64))  # 50 bytes on the wire, 400 in memory
    read = codec.decode(codec.encode(zeros, "x/1"), Box)
    assert isinstance(read, Malformed)
    assert read.code == "frame_shape"
    read = codec.decode(bytes(101), Box)
    assert isinstance(read, Malformed)
    assert read.code == "frame_too_large"


def test_an_array_of_another_type_than_its_field_is_refused() -> None:
    class Other(msgspec.Struct):
        whole: np.ndarray[Any, np.dtype[np.float64]]

    read = codec.decode(codec.encode(TREE, "x/1"), Other)
    assert isinstance(read, Malformed)


def test_objects_and_numbers_beyond_64_bits_have_no_binary_form() -> None:
    with pytest.raises(TypeError):
        codec.encode(Box(np.array(["a"])), "x/1")
    with pytest.raises(OverflowError):
        codec.encode(Leaf("x", 2**64), "x/1")


def test_internal_records_come_back() -> None:
    marks = Watermarks([SourceMark("t", 0, 5, None), SourceMark("t", 1, 6, 7, tick=True)], {"t": 2}, 9)
    assert codec.decode(codec.encode(marks, "watermarks/1"), Watermarks) == marks
    sample = Sample("m", "1", 0, 3, 0, [Span("t", 0, 1, 3)], [])
    assert codec.decode(codec.encode(sample, "sample/1"), Sample) == sample
    ones = np.ones(2, dtype=np.int64)
    partial = Partial("m", "1", "r", 0, ones, ones, ones, ones, ones, np.ones((2, 9), int), np.ones((2, 1, 4), int), [])
    read = codec.decode(codec.encode(partial, "partial/1"), Partial)
    assert isinstance(read, Partial)
    assert (read.counts.shape, read.moments.shape) == ((2, 9), (2, 1, 4))
    assert codec.kind_of(codec.encode(partial, "partial/1")) == "partial/1"


def test_hashes_are_those_of_blake2b_for_ever() -> None:
    assert codec.hash64("") == 0xE4A6A0577479B2B4
    assert codec.hash64("credit") == codec.hash64(b"credit")
    assert codec.hashes(b"cr", [b"edit", b""]).tolist() == [codec.hash64("credit"), codec.hash64("cr")]
    assert codec.hashes(b"cr", []).tolist() == []
    assert codec.partition_of(None, 12) == 0
    assert {codec.partition_of(str(number).encode(), 4) for number in range(100)} == {0, 1, 2, 3}


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1.0, -math.inf]}, 2**64, "\ud800", Leaf("\ud800", 1)])
def test_outgoing_json_is_strict(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        codec.to_json(value)


def test_outgoing_json_keeps_order_and_nulls() -> None:
    assert (
        codec.to_json({"b": None, "a": (1, 2.5, Leaf("é", 3))})
        == '{"b":null,"a":[1,2.5,{"name":"é","number":3}]}'.encode()
    )


@given(st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", bits.to_bytes(8, "big"))[0]) | st.floats())
def test_outgoing_json_holds_every_float_but_nan_and_the_infinities(value: float) -> None:
    if math.isfinite(value):
        assert json.loads(codec.to_json({"a": [value]})) == {"a": [value]}
    else:
        with pytest.raises(ValueError, match="JSON"):
            codec.to_json({"a": [value]})


def test_integers_that_look_like_a_packed_nan_are_numbers() -> None:
    assert codec.to_json([0xCB7FF8000000, 1]) == b"[223750482034688,1]"


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(JSON_VALUES)
def test_canonical_json_means_the_same_and_is_its_own_canonical_form(value: object) -> None:
    once = codec.canonical_json(value)
    assert json.loads(once, parse_int=float) == value
    assert codec.canonical_json(json.loads(once)) == once


def test_canonical_json_is_that_of_rfc_8785() -> None:
    # The example of section 3.2.3, and the numbers of appendix B that JSON can hold.
    text = '{"\\u20ac":"Euro Sign","\\r":"Carriage Return","\\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",'
    text += (
        '"\\ud83d\\ude00":"Emoji: Grinning Face","\\u0080":"Control","\\u00f6":"Latin Small Letter O With Diaeresis"}'
    )
    order = [pair.split(":")[0] for pair in codec.canonical_json(json.loads(text)).decode()[1:-1].split(",")]
    assert order == ['"\\r"', '"1"', '"\x80"', '"ö"', '"€"', '"😀"', '"\ufb33"']
    numbers = {
        "0000000000000000": "0",
        "8000000000000000": "0",
        "0000000000000001": "5e-324",
        "8000000000000001": "-5e-324",
        "7fefffffffffffff": "1.7976931348623157e+308",
        "4340000000000000": "9007199254740992",
        "c340000000000000": "-9007199254740992",
        "4430000000000000": "295147905179352830000",
        "44b52d02c7e14af5": "9.999999999999997e+22",
        "44b52d02c7e14af6": "1e+23",
        "44b52d02c7e14af7": "1.0000000000000001e+23",
        "444b1ae4d6e2ef4e": "999999999999999700000",
        "444b1ae4d6e2ef4f": "999999999999999900000",
        "444b1ae4d6e2ef50": "1e+21",
        "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
        "3eb0c6f7a0b5ed8d": "0.000001",
        "41b3de4355555553": "333333333.3333332",
        "41b3de4355555554": "333333333.33333325",
        "41b3de4355555557": "333333333.33333343",
        "becbf647612f3696": "-0.0000033333333333333333",
        "43143ff3c1cb0959": "1424953923781206.2",
    }
    for bits, text in numbers.items():
        assert codec.canonical_json(np.frombuffer(bytes.fromhex(bits), dtype=">f8")[0].item()) == text.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**1023, "\ud800", {1: 2}, {"\ud800": 1}, object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON|number|texts"):
        codec.canonical_json(value)


def reference(**changes: Any) -> Reference:
    signals = {
        "feature:region": SignalReference(
            type="categorical", counts=[3, 2, 1], categories=["eu", "us"], others=[2**64 - 1, 5], singletons=0
        ),
        "feature:age": SignalReference(
            type="numeric", counts=[5, 20], edges=[18.0], mean=38.6, std=14.9, centre=41.0, scale=14.0, z=[-3, 3]
        ),
        "feature:returning": SignalReference(type="boolean", counts=[4, 6]),
    }
    fields: dict[str, Any] = {
        "reference_id": "",
        "model_id": "credit",
        "model_version": "3",
        "scope": "inputs",
        "origin": "built",
        "complete": True,
        "inherited_from": None,
        "n_rows": 50_000,
        "data_from": "2026-08-01T00:00:00.000Z",
        "data_to": "2026-10-31T23:59:59.999Z",
        "effective_from": "2026-11-01T00:00:00.000Z",
        "segments": {"country": ["DE", "FR"]},
        "window_size_ms": 3_600_000,
        "window_rows": None,
        "signals": signals,
        "row": None,
        "slots": None,
    }
    return codec.named(Reference(**(fields | changes)))


def test_a_reference_comes_back_and_is_named_by_its_content() -> None:
    given = reference()
    assert codec.decode_reference(codec.encode_reference(given)) == given
    assert len(given.reference_id) == 16
    assert reference(n_rows=50_001).reference_id != given.reference_id
    assert codec.reference_id(given) == given.reference_id


def test_hashes_in_a_reference_are_texts_because_64_bits_are_no_json_number() -> None:
    written = json.loads(codec.encode_reference(reference()))
    assert written["signals"]["feature:region"]["others"] == ["ffffffffffffffff", "0000000000000005"]
    assert "edges" not in written["signals"]["feature:region"]
    assert "categories" not in written["signals"]["feature:age"]


def test_the_id_does_not_depend_on_the_order_or_the_writing_of_the_json() -> None:
    content = json.loads(codec.encode_reference(reference()))
    turned = json.dumps(dict(reversed(content.items())), indent=1).replace("18.0", "1.8e1").encode()
    assert codec.decode_reference(turned) == reference()


def test_fields_of_later_releases_are_ignored_but_named() -> None:
    content = json.loads(codec.encode_reference(reference())) | {"colour": "red"}
    read = codec.decode_reference(json.dumps(content).encode())
    assert isinstance(read, Malformed)
    assert read.code == "reference_id"
    content["reference_id"] = read.detail[-16:]
    assert isinstance(codec.decode_reference(json.dumps(content).encode()), Reference)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[]", "schema_mismatch"),
        (b'{"schema_version": 1', "json_invalid"),
        (b'{"schema_version": 2}', "schema_version"),
        (b"{}", "schema_version"),
        (b'{"schema_version": 1}', "schema_mismatch"),
        (b'{"schema_version": 1, "n": 123456789012345678901234567890123}', "schema_mismatch"),
        (b'{"schema_version": 1, "n": 1%s}' % (b"0" * 308), "schema_mismatch"),
        (b'{"schema_version": 1, "signals": {"a": {"others": ["zz"]}}}', "schema_mismatch"),
        (b" " * (8 * 1024 * 1024 + 1), "too_large"),
    ],
)
def test_what_is_no_reference_has_its_code(data: bytes, code: str) -> None:
    read = codec.decode_reference(data)
    assert isinstance(read, Malformed)
    assert read.code == code


def test_a_reference_with_another_name_is_not_written() -> None:
    wrong = msgspec.structs.replace(reference(), reference_id="0" * 16)
    with pytest.raises(ValueError, match="reference_id must be"):
        codec.encode_reference(wrong)
