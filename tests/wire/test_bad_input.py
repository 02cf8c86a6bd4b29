"""Every code a native record can be refused with, and everything odd that is no reason to refuse one."""

from collections.abc import Callable

import msgspec
import numpy as np
import orjson
import pytest

from stream.wire import inbound
from stream.wire.adapters.native import Guess
from stream.wire.features import feature_decoder
from stream.wire.inbound import Events, Limits
from stream.wire.record import Headers
from stream.wire.rows import Format

from .records import BOOLEAN, CATEGORICAL, NOW_MS, NUMERIC, batch_of, record

MINUTE_MS = 60_000
GUESSES = ["no guess", "a guess", "a guess that passes over"]
LIMITS = Limits(features=200)


def decode(values: list[bytes | None], *, guessed: str = "no guess", input_format: Format = "auto") -> Events:
    own = feature_decoder(NUMERIC, CATEGORICAL, BOOLEAN)
    if guessed == "a guess that passes over":
        own.decode([msgspec.Raw(b'{"income":1,"learned":2}')])
    guess = None if guessed == "no guess" else Guess("credit", "3", own.shape)
    return inbound.decode(batch_of(values), LIMITS, MINUTE_MS, input_format, guess)


def with_field(name: str, text: str | bytes) -> bytes:
    """A good record with one field written by hand."""
    value = text.encode() if isinstance(text, str) else text
    rest = record(**{name: "absent"})
    return b"{" + orjson.dumps(name) + b":" + value + b"," + rest[1:]


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


CASES: list[tuple[str, bytes, str, str]] = [
    ("truncated", record()[:-1], "json_invalid", "$"),
    ("empty", b"", "json_invalid", "$"),
    ("two values", record() + record(), "json_invalid", "$"),
    ("a byte order mark", b"\xef\xbb\xbf" + record(), "json_invalid", "$"),
    ("UTF-16", record().decode().encode("utf-16"), "json_invalid", "$"),
    ("a null byte behind", record() + b"\x00", "json_invalid", "$"),
    ("single quotes", b"{'prediction_id':'p'}", "json_invalid", "$"),
    ("a bare word", with_field("latency_ms", "undefined"), "json_invalid", "$"),
    ("NaN in lower case", with_field("latency_ms", "nan"), "json_invalid", "$"),
    ("a trailing comma", record()[:-1] + b",}", "json_invalid", "$"),
    ("a raw line feed in a text", with_field("source", '"a\nb"'), "json_invalid", "$"),
    ("100,000 levels", deep(100_000), "json_invalid", "$"),
    ("an array", b"[" + record() + b"]", "not_an_object", "$"),
    ("a number", b"1", "not_an_object", "$"),
    ("null", b"null", "not_an_object", "$"),
    ("NaN", b"NaN", "not_an_object", "$"),
    ("nothing", b"{}", "field_missing", "$.prediction_id"),
    ("no prediction id", record(prediction_id="absent"), "field_missing", "$.prediction_id"),
    ("a null prediction id", record(prediction_id=None), "field_missing", "$.prediction_id"),
    ("no model id", record(model_id="absent"), "field_missing", "$.model_id"),
    ("neither features nor prediction", record(features="absent", prediction="absent"), "field_missing", "$.features"),
    ("both null", record(features=None, prediction=None), "field_missing", "$.features"),
    ("a number as id", record(prediction_id=7), "field_type", "$.prediction_id"),
    ("NaN as id", with_field("prediction_id", "NaN"), "field_type", "$.prediction_id"),
    ("a number as version", record(model_version=3), "field_type", "$.model_version"),
    ("features in an array", record(features=[1]), "field_type", "$.features"),
    ("features as a text", record(features="{}"), "field_type", "$.features"),
    ("features as NaN", with_field("features", "NaN"), "field_type", "$.features"),
    ("a prediction as a number", record(prediction=0.5), "field_type", "$.prediction"),
    ("an empty id", record(prediction_id=""), "name_invalid", "$.prediction_id"),
    ("an id of 257 bytes", record(prediction_id="x" * 257), "name_invalid", "$.prediction_id"),
    ("an id of 129 letters and 258 bytes", record(prediction_id="é" * 129), "name_invalid", "$.prediction_id"),
    ("a model id of 129 bytes", record(model_id="x" * 129), "name_invalid", "$.model_id"),
    ("a model id with a line feed", record(model_id="a\nb"), "name_invalid", "$.model_id"),
    ("a model id with delete", record(model_id="a\x7fb"), "name_invalid", "$.model_id"),
    ("a version with a C1 control", record(model_version="a\x85b"), "name_invalid", "$.model_version"),
    ("a null character in an id", record(prediction_id="a\x00"), "name_invalid", "$.prediction_id"),
    ("no time", record(timestamp="yesterday"), "timestamp_invalid", "$.timestamp"),
    ("a time without offset", record(timestamp="2026-11-21T02:05:43"), "timestamp_invalid", "$.timestamp"),
    ("a boolean time", record(timestamp=True), "timestamp_invalid", "$.timestamp"),
    ("a time in an array", record(timestamp=[1]), "timestamp_invalid", "$.timestamp"),
    ("NaN as time", with_field("timestamp", "NaN"), "timestamp_invalid", "$.timestamp"),
    ("a time beyond float64", with_field("timestamp", "1e999"), "timestamp_invalid", "$.timestamp"),
    ("a time of 400 digits", with_field("timestamp", "1" + "0" * 400), "timestamp_invalid", "$.timestamp"),
    ("tomorrow", record(timestamp="2026-11-22T02:05:43.715Z"), "timestamp_in_future", "$.timestamp"),
    (
        "a minute and a millisecond ahead",
        record(timestamp=NOW_MS + MINUTE_MS + 1),
        "timestamp_in_future",
        "$.timestamp",
    ),
    ("another schema", record(schema_version=2), "schema_version", "$.schema_version"),
    ("a schema as text", record(schema_version="1"), "schema_version", "$.schema_version"),
    ("201 features", record(features={f"f{number}": 1 for number in range(201)}), "too_many_features", "$.features"),
    ("an OIP request", orjson.dumps({"inputs": [], "id": "1"}), "format_unknown", "$"),
    ("a KServe response", orjson.dumps({"predictions": []}), "format_unknown", "$"),
    ("a registry's prefix", b"\x00\x00\x00\x00\x07" + record(), "format_unknown", "$"),
    ("an Arrow stream", b"\xff\xff\xff\xff\x10\x00\x00\x00", "format_unknown", "$"),
]


@pytest.mark.parametrize("guessed", GUESSES)
@pytest.mark.parametrize(("value", "code", "path"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_bad_record_is_refused_with_its_code_and_path(value: bytes, code: str, path: str, guessed: str) -> None:
    events = decode([record(), value, record()], guessed=guessed)
    [(row, malformed)] = events.malformed
    assert (row, malformed.code) == (1, code)
    assert malformed.detail.startswith(path + ": ")
    assert events.index.tolist() == [0, 2]


def test_a_record_of_more_than_1_mib_is_too_large_before_it_is_parsed() -> None:
    fits = record(source="x" * (1_048_576 - len(record(source=""))))
    events = decode([fits, fits + b" ", b"[" * 1_048_577])
    assert events.index.tolist() == [0]
    assert [malformed.code for _, malformed in events.malformed] == ["too_large", "too_large"]


UNREAD: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "a known feature": (record(), lambda text: with_field("features", b'{"income":' + text + b"}")),
    "an unknown feature": (record(), lambda text: with_field("features", b'{"learned":' + text + b"}")),
    "an unknown field": (record(learned=1), lambda text: with_field("learned", text)),
    "an unknown answer": (record(), lambda text: with_field("prediction", b'{"else":' + text + b"}")),
    "a source": (record(), lambda text: with_field("source", text)),
}


@pytest.mark.parametrize("guessed", GUESSES)
@pytest.mark.parametrize("place", UNREAD)
@pytest.mark.parametrize(
    "text",
    [
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\ud800"',
        deep(64),
        b'{"a":' * 64 + b"1" + b"}" * 64,
    ],
)
def test_what_nobody_reads_must_be_json_too(text: bytes, place: str, guessed: str) -> None:
    usual, bad = UNREAD[place]
    values: list[bytes | None] = [usual, usual, bad(text), usual]
    events = decode(values, guessed=guessed)
    assert [(row, malformed.code) for row, malformed in events.malformed] == [(2, "json_invalid")]


@pytest.mark.parametrize("guessed", GUESSES)
@pytest.mark.parametrize("place", UNREAD)
@pytest.mark.parametrize("text", [b'"\\ud83d\\ude00"', '"é"'.encode(), deep(62), b"NaN", b"-Infinity", b"1e999"])
def test_odd_but_whole_json_is_no_reason_to_refuse(text: bytes, place: str, guessed: str) -> None:
    usual, odd = UNREAD[place]
    assert decode([usual, usual, odd(text), usual], guessed=guessed).malformed == []


@pytest.mark.parametrize("guessed", GUESSES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("null", "missing"), ("1e308", 1e308), ("123456789012345678901234567890", 1.2345678901234568e29)),
        *((odd, "invalid") for odd in ("NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, '"1"', "true", "[]")),
    ],
)
def test_an_odd_number_is_counted_not_refused(text: str, expected: object, guessed: str) -> None:
    own = feature_decoder(NUMERIC, CATEGORICAL, BOOLEAN)
    guess = None if guessed == "no guess" else Guess("credit", "3", own.shape)
    value = with_field("features", f'{{"income":{text},"age":3}}')
    events = inbound.decode(batch_of([value, record()]), LIMITS, MINUTE_MS, guess=guess)
    columns = own.decode(events.features, events.values)
    found, invalid = columns.numeric[0, 0], bool(columns.numeric_invalid[0, 0])
    assert ("invalid" if invalid else "missing" if np.isnan(found) else found) == expected
    assert columns.numeric[0, 1] == 3
    assert columns.numeric[1, 0] == 51200.5


def test_of_duplicate_keys_the_last_wins() -> None:
    value = b'{"model_id":"a","prediction_id":"p","features":{"income":1},'
    value += b'"features":{"income":2,"income":3},"model_id":"b"}'
    events = decode([value])
    columns = feature_decoder(NUMERIC, [], []).decode(events.features)
    assert (events.model_ids, columns.numeric[0, 0]) == (["b"], 3.0)


def test_the_last_allowed_moment_and_the_past_are_accepted() -> None:
    values: list[bytes | None] = [record(timestamp=NOW_MS + MINUTE_MS), record(timestamp="1970-01-01T00:00:00Z")]
    events = decode(values)
    assert events.time_ms.tolist() == [NOW_MS + MINUTE_MS, 0]


CE = {"ce_id": b"1", "ce_source": b"s", "ce_specversion": b"1.0", "ce_type": b"t"}


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", b"application/CloudEvents+json")],
        list(CE.items()),
        [("seldon-infer-type", b"json/inferModelRequest")],
        [("__value_schema_id", b"\x01" + bytes(16))],
        [("content-type", b"application/vnd.apache.arrow.stream")],
    ],
)
def test_headers_tell_formats_of_later_releases(headers: Headers) -> None:
    batch = batch_of(
        [record(), record()], headers=[headers, [("traceparent", b"00"), ("content-type", b"application/json")]]
    )
    events = inbound.decode(batch, LIMITS, MINUTE_MS)
    assert [(row, malformed.code) for row, malformed in events.malformed] == [(0, "format_unknown")]
    assert inbound.decode(batch, LIMITS, MINUTE_MS, "native").malformed == []


def test_the_detail_never_shows_a_value() -> None:
    values: list[bytes | None] = [case[1].replace(b"p-7f3a", b"s3cret") for case in CASES]
    assert "s3cret" not in " ".join(malformed.detail for _, malformed in decode(values).malformed)
