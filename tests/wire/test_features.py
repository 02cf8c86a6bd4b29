"""Features of one reference: what is missing, what is invalid, what is unknown."""

import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import fields

from stream.wire import lenient
from stream.wire.codec import hash64
from stream.wire.features import Columns, feature_decoder
from stream.wire.lenient import INVALID

MISSING = "missing"


def of(text: str, copies: int = 1) -> Columns:
    return feature_decoder(["n"], ["c"], ["b"]).decode([Raw(text.encode())] * copies)


def numeric(text: str) -> object:
    columns = of(f'{{"n":{text}}}')
    if columns.numeric_invalid[0, 0]:
        assert math.isnan(columns.numeric[0, 0])
        return INVALID
    return MISSING if math.isnan(columns.numeric[0, 0]) else float(columns.numeric[0, 0])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1", 1.0),
        ("-0.0", 0.0),
        ("1e308", 1e308),
        ("1e-400", 0.0),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("null", MISSING),
        *((odd, INVALID) for odd in ("NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "9" * 5_000)),
        *((odd, INVALID) for odd in ('"1"', "true", "[1]", '{"a":1}', '""')),
    ],
)
def test_a_number_is_a_number_or_missing_or_invalid(written: str, expected: object) -> None:
    assert numeric(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *(('"eu"', "eu"), ('""', ""), ("7", "7"), ("7.0", "7"), ("7.5", "7.5"), ("-0.0", "0"), ("1e21", "1e+21")),
        *(("true", "true"), ("false", "false"), ("null", None), ("18446744073709551615", "18446744073709551615")),
        *(("18446744073709551616", "18446744073709552000"), ("1e16", "10000000000000000")),
        *((odd, INVALID) for odd in ("NaN", "1e999", "[]", "{}", "1" + "0" * 400)),
    ],
)
def test_a_category_is_compared_as_text(written: str, expected: object) -> None:
    assert of(f'{{"c":{written}}}').categorical == [[expected]]


@pytest.mark.parametrize(
    ("written", "code"),
    [("false", 0), ("true", 1), ("null", 2), ("1", 3), ("0", 3), ('"true"', 3), ("NaN", 3), ("[]", 3)],
)
def test_a_boolean_is_never_coerced(written: str, code: int) -> None:
    assert of(f'{{"b":{written}}}').boolean.tolist() == [[code]]


def test_an_absent_feature_is_missing_and_one_invalid_value_spoils_nothing_else() -> None:
    columns = feature_decoder(["n", "m"], ["c"], ["b"]).decode([Raw(b"{}"), Raw(b'{"n":NaN,"m":2,"c":"x","b":true}')])
    assert np.isnan(columns.numeric).tolist() == [[True, True], [True, False]]
    assert columns.numeric_invalid.tolist() == [[False, False], [True, False]]
    assert columns.categorical == [[None, "x"]]
    assert columns.boolean.tolist() == [[2], [1]]


def test_of_a_duplicate_name_the_last_wins() -> None:
    columns = of('{"n":1,"n":"x","n":3,"c":1,"c":"y"}')
    assert (columns.numeric[0, 0], columns.categorical) == (3.0, [["y"]])


def test_unknown_names_are_counted_by_row_fast_or_not() -> None:
    rows = [Raw(orjson.dumps({"n": 1, "always": [1], **({"often": 1} if place % 2 else {})})) for place in range(100)]
    decoder = feature_decoder(["n"], [], [])
    for _ in range(2):  # the second time both are known from the start
        assert decoder.decode(rows).unknown == {"always": 100, "often": 50}


def test_ever_new_names_are_bounded_to_the_32_of_smallest_hash() -> None:
    rows = [Raw(orjson.dumps({"n": 1, f"new{place}": 1})) for place in range(300)]
    unknown = feature_decoder(["n"], [], []).decode(rows).unknown
    assert list(unknown) == sorted((f"new{place}" for place in range(300)), key=hash64)[:32]
    assert set(unknown.values()) == {1}


def test_names_that_cannot_be_shown_are_made_so() -> None:
    unknown = of(orjson.dumps({"a\nb": 1, "": 1, "é" * 100: 1}).decode()).unknown
    assert unknown == {"a\N{REPLACEMENT CHARACTER}b": 1, "": 1, "é" * 64: 1}


def test_features_may_bear_any_name_and_there_may_be_none() -> None:
    names = ["class", "a b", 'quo"te', "f0", "extra0", "__init__"]
    columns = feature_decoder(names, [], []).decode([Raw(orjson.dumps(dict.fromkeys(names, 1)))])
    assert columns.numeric.tolist() == [[1.0] * 6]
    empty = feature_decoder([], [], []).decode([Raw(b'{"a":1}')] * 3)
    assert (empty.numeric.shape, empty.boolean.shape, empty.unknown) == ((3, 0), (3, 0), {"a": 3})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.just("x"), max_size=30))
def test_a_column_holds_each_row_of_its_own(values: list[float | str | None]) -> None:
    columns = feature_decoder(["n"], [], []).decode([Raw(orjson.dumps({"n": value})) for value in values])
    assert columns.numeric_invalid[:, 0].tolist() == [value == "x" for value in values]
    for found, value in zip(columns.numeric[:, 0].tolist(), values, strict=True):
        assert found == value if isinstance(value, float) else math.isnan(found)


def test_names_have_1_to_128_bytes_and_no_control_characters() -> None:
    assert lenient.is_name("a")
    assert lenient.is_name("é" * 64)
    for bad in ("", "é" * 65, "a\x00", "\x7f", "\x85"):
        assert not lenient.is_name(bad)


@given(st.permutations(["m", "n", "c", "d", "b", "other"]), st.booleans())
@settings(max_examples=50)
def test_the_order_in_which_names_come_changes_the_shape_and_no_value(names: list[str], learns: bool) -> None:
    values = {"m": "1.5", "n": "null", "c": '"x"', "d": '"y"', "b": "true", "other": "7"}
    row = Raw(("{" + ",".join(f'"{name}":{values[name]}' for name in names) + "}").encode())
    usual, arranged = (feature_decoder(["m", "n"], ["c", "d"], ["b"]) for _ in range(2))
    if learns:
        arranged.decode([row])
    shape = arranged.shape_like(row)
    assert [one.encode_name for one in fields(shape)] == [name for name in names if name != "other"]
    assert arranged.shape_like(Raw(b'{"b":false,"n":1}')) is shape, "the first one decides"
    for rows in ([row], [row, Raw(b'{"n":"wrong"}'), Raw(b"{}"), row]):
        expected, found = usual.decode(rows), arranged.decode(rows)
        assert found.numeric.tobytes() == expected.numeric.tobytes()
        assert found.numeric_invalid.tolist() == expected.numeric_invalid.tolist()
        assert found.boolean.tolist() == expected.boolean.tolist()
        assert (found.categorical, found.unknown) == (expected.categorical, expected.unknown)


def test_a_row_whose_names_cannot_be_read_leaves_the_order_alone() -> None:
    decoder = feature_decoder(["n", "m"], [], [])
    assert [one.encode_name for one in fields(decoder.shape_like(Raw(b'{"m":1,"\xff":2}')))] == ["n", "m"]


def test_a_long_batch_is_decoded_as_its_rows_are_one_by_one() -> None:
    usual, gap, odd = b'{"n":1.5,"c":"x","b":true}', b'{"n":null}', b'{"n":"x","c":7,"b":0,"more":1}'
    rows = [odd if row % 400 == 399 else gap if row in {3, 1_100} else usual for row in range(1_500)]
    decoder = feature_decoder(["n"], ["c"], ["b"])
    whole, parts = decoder.decode(list(map(Raw, rows))), [decoder.decode([Raw(row)]) for row in rows]
    assert np.array_equal(whole.numeric, np.concatenate([part.numeric for part in parts]), equal_nan=True)
    assert np.array_equal(whole.numeric_invalid, np.concatenate([part.numeric_invalid for part in parts]))
    assert np.array_equal(whole.boolean, np.concatenate([part.boolean for part in parts]))
    assert whole.categorical == [[part.categorical[0][0] for part in parts]]
    assert whole.unknown == {"more": 3}
