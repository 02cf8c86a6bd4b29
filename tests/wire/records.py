"""Prediction records for the tests of this room: usual ones, and texts that try to look like some."""

from typing import Any

import orjson
from hypothesis import strategies as st

from stream.wire.record import Batch, Headers

NOW_MS = 1_795_226_743_715
NUMERIC = ["income", "age"]
CATEGORICAL = ["region", "channel"]
BOOLEAN = ["returning"]


def record(**changes: Any) -> bytes:
    fields = {
        "prediction_id": "p-7f3a",
        "model_id": "credit",
        "model_version": "3",
        "timestamp": "2026-11-21T02:05:43.715Z",
        "features": {"income": 51200.5, "age": None, "region": "eu", "channel": "web", "returning": True},
        "prediction": {"label": "approve", "score": 0.91, "scores": {"approve": 0.91, "deny": 0.09}},
        "tags": {"country": "DE"},
        "latency_ms": 12.3,
    }
    return orjson.dumps({key: value for key, value in (fields | changes).items() if value != "absent"})


def batch_of(
    values: list[bytes | None], timestamps_ms: list[int] | None = None, headers: list[Headers | None] | None = None
) -> Batch:
    n = len(values)
    return Batch(
        topic="predictions",
        partition=3,
        offsets=list(range(100, 100 + n)),
        timestamps_ms=timestamps_ms or [NOW_MS] * n,
        keys=[b"key"] * n,
        values=values,
        headers=headers or [None] * n,
    )


USUAL = st.sampled_from(["0", "1", "0.5", "-1.25e3", '"eu"', '"7"', "true", "false", "null"]).map(str.encode)
ODD = st.sampled_from(
    [
        *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "1e-400", "-0", "-0.0", "7.0"),
        *("1" + "0" * 30, "1" + "0" * 400, "9" * 5_000, "18446744073709551615", "18446744073709551616"),
        *("-9223372036854775808", "-9223372036854775809", "9007199254740993", "1e22", "123456789012345678"),
        *("[]", "{}", "[1,[2]]", '{"a":{"b":1}}', "[" * 61 + "]" * 61),
        *('""', '"é"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\n"', '"\x7f"', '"\x85"', '"2026-11-21T02:05:43.715Z"'),
        *('"' + "x" * 129 + '"', '"' + "é" * 65 + '"', '"' + "x" * 257 + '"'),
        *('"2036-11-21T02:05:43.715Z"', "1795226743715", "1795226743.715", "99999999999999999999"),
    ]
).map(str.encode)
"""What JSON allows, or Python producers write."""
BROKEN = st.sampled_from(
    [
        *(
            b"01",
            b"1.",
            b"+1",
            b"tru",
            b"'a'",
            b'"\\ud800"',
            b'"\\udc00"',
            b'"\\x"',
            b'"a\nb"',
            b'"\xff"',
            b'"\xed\xa0\x80"',
        ),
        *(
            b"[" * 64 + b"]" * 64,
            b'{"a":' * 70 + b"1" + b"}" * 70,
            b'"',
            b"[1",
            b"",
            b"1 2",
            b"[" * 2_000 + b"]" * 2_000,
        ),
    ]
)
VALUES = st.one_of(USUAL, USUAL, ODD)
SPACE = st.sampled_from([b"", b"", b"", b" ", b"\n\t "])


def objects(names: st.SearchStrategy[str], values: st.SearchStrategy[bytes], max_size: int) -> st.SearchStrategy[bytes]:
    """JSON texts of objects, duplicate keys and odd values included."""
    pair = st.builds(lambda name, value, space: orjson.dumps(name) + space + b":" + value, names, values, SPACE)
    return st.lists(pair, max_size=max_size).map(lambda pairs: b"{" + b",".join(pairs) + b"}")


PREDICTIONS = ["label", "score", "value", "scores", "else"]
NAMES = [*NUMERIC, *NUMERIC, *CATEGORICAL, *BOOLEAN, "extra", "more", "line\n", 'quo"te', "é" * 70, ""]
IDS = st.sampled_from(
    [b'"p-1"', b'"credit"', '"é"'.encode(), b'"\\u0041"', b'"a\\nb"', b'"a\x7f"', b'"' + b"x" * 129 + b'"']
)


def fields(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Records whose fields hold `values` wherever they may."""
    features = objects(st.sampled_from(NAMES), values, 7)
    scores = objects(st.sampled_from(["a", "b"]), values, 2)
    prediction = objects(st.sampled_from(PREDICTIONS), st.one_of(values, values, scores), 4)
    required = {
        "prediction_id": st.one_of(st.just(b'"p-1"'), st.just(b'"p-2"'), IDS),
        "model_id": st.one_of(*[st.just(b'"credit"')] * 3, IDS),
        "features": features,
    }
    optional = {
        "prediction_id": IDS,
        "model_version": st.one_of(*[st.just(b'"3"')] * 3, IDS),
        "timestamp": st.one_of(*[st.just(b'"2026-11-21T02:05:43.715Z"')] * 3, values),
        "features": st.one_of(features, features, features, values),
        "prediction": st.one_of(prediction, prediction, prediction, values),
        "tags": objects(st.sampled_from(["country", "store"]), values, 2) | values,
        "latency_ms": values,
        "source": st.just(b'"app"') | values,
        "schema_version": st.sampled_from([b"1", b"1", b"1.0", b"2", b"true", b"null"]),
        "trace": values,
        "span\n": values,
        "inputs": values,
    }
    start = [_named(name, value) for name, value in required.items()]
    more = st.lists(st.one_of([_named(name, value) for name, value in optional.items()]), max_size=5)
    return st.builds(_joined, st.tuples(*start), more, st.permutations(range(8)))


def _named(name: str, value: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return value.map(lambda text: orjson.dumps(name) + b":" + text)


def _joined(start: tuple[bytes, ...], more: list[bytes], order: list[int]) -> bytes:
    pairs = [*start, *more]
    return b"{" + b",".join(pairs[place] for place in order if place < len(pairs)) + b"}"


MOSTLY_GOOD = fields(VALUES)
RECORDS = st.one_of(
    *[fields(USUAL)] * 3,
    *[MOSTLY_GOOD] * 4,
    fields(VALUES | BROKEN),
    st.just(record()),
    ODD,
    st.binary(max_size=30),
    st.none(),
)
