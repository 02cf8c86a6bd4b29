"""Decoding labels: every code, everything odd, and a fast path that means what the careful one means."""

from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.wire import feedback
from stream.wire.adapters import feedback as adapter
from stream.wire.adapters.native import Guess
from stream.wire.feedback import Labels
from stream.wire.inbound import Limits
from stream.wire.record import Batch

from .records import BROKEN, IDS, NOW_MS, ODD, USUAL, VALUES, batch_of, objects

LIMITS = Limits()
MINUTE_MS = 60_000


def record(**changes: Any) -> bytes:
    """A label as `contracts.md` 2 shows it; a field that is "absent" is left out."""
    fields = {
        "prediction_id": "p-7f3a",
        "model_id": "credit",
        "timestamp": "2026-11-21T02:05:43.715Z",
        "actual": {"label": "deny"},
        "source": "chargeback",
    }
    return orjson.dumps({key: value for key, value in (fields | changes).items() if value != "absent"})


def with_field(name: str, text: str | bytes) -> bytes:
    """A good record with one field written by hand."""
    value = text.encode() if isinstance(text, str) else text
    return b"{" + orjson.dumps(name) + b":" + value + b"," + record(**{name: "absent"})[1:]


def decode(*values: bytes | None, timestamps_ms: list[int] | None = None) -> Labels:
    return feedback.decode(batch_of(list(values), timestamps_ms), LIMITS, MINUTE_MS)


def refusing(*_: Any, **__: Any) -> Any:
    def decode(_: Any) -> Any:
        raise msgspec.DecodeError

    return decode


def carefully(batch: Batch) -> Labels:
    with patch.object(adapter, "fast_decoder", refusing):
        return feedback.decode(batch, LIMITS, MINUTE_MS)


def plain(value: Any) -> Any:
    """Structs and arrays as lists, NaN as a text, so that equal means the same."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, float):
        return "NaN" if value != value else value  # noqa: PLR0124 - that is NaN
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


ANSWERS = objects(st.sampled_from(["label", "score", "value", "scores", "else"]), VALUES, 3)
TRUTHS = st.one_of(
    st.sampled_from([b'{"label":"a"}', b'{"label":1}', b'{"value":0.5}', b"{}", b"null"]),
    objects(st.sampled_from(["label", "value", "else"]), VALUES, 3),
    VALUES,
)
TIMES = st.one_of(*[st.just(b'"2026-11-21T02:05:43.715Z"')] * 3, VALUES)


def written(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Records whose fields hold `values` wherever they may."""
    fields = {
        "prediction_id": st.one_of(*[st.just(b'"p-1"')] * 3, IDS),
        "model_id": st.one_of(*[st.just(b'"credit"')] * 3, IDS),
        "actual": TRUTHS,
    }
    optional = {
        "model_version": st.one_of(*[st.just(b'"3"')] * 3, IDS),
        "timestamp": TIMES,
        "prediction": st.one_of(ANSWERS, ANSWERS, ANSWERS, values),
        "prediction_timestamp": TIMES,
        "tags": objects(st.just("country"), values, 2) | values,
        "source": st.just(b'"app"') | values,
        "schema_version": st.sampled_from([b"1", b"1.0", b"2", b"true", b"null"]),
        "features": values,
        "span\n": values,
        "actual": TRUTHS,
    }
    start = st.tuples(*(value.map(partial(_named, name)) for name, value in fields.items()))
    more = st.lists(st.one_of([value.map(partial(_named, name)) for name, value in optional.items()]), max_size=5)
    return st.builds(lambda one, two: b"{" + b",".join([*one, *two]) + b"}", start, more)


def _named(name: str, text: bytes) -> bytes:
    return orjson.dumps(name) + b":" + text


RECORDS = st.one_of(
    *[written(USUAL)] * 3, *[written(VALUES)] * 3, written(VALUES | BROKEN), st.just(record()), ODD, st.none()
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RECORDS, max_size=12))
def test_the_fast_path_means_what_the_careful_one_means(values: list[bytes | None]) -> None:
    batch = batch_of(values)
    found, careful = feedback.decode(batch, LIMITS, MINUTE_MS), carefully(batch)
    assert _meaning(found) == _meaning(careful)
    assert len(found) + len(found.malformed) + found.tombstones == len(values)


def _meaning(labels: Labels) -> Any:
    """Without the texts of tags that nobody reads as they stand."""
    said = plain(labels)
    said["predictions"]["tags"] = [{key: str(own) for key, own in tags.items()} for tags in said["predictions"]["tags"]]
    return said


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RECORDS, max_size=8))
def test_a_record_means_the_same_alone_and_in_company(values: list[bytes | None]) -> None:
    together, alone = decode(*values), [decode(value) for value in values]
    for name in ("prediction_ids", "model_ids", "model_versions", "label"):
        assert getattr(together, name) == [own for one in alone for own in getattr(one, name)]
    assert plain(together.value) == [plain(own) for one in alone for own in one.value.tolist()]
    assert [fault for _, fault in together.malformed] == [fault for one in alone for _, fault in one.malformed]
    assert together.predictions.time_ms.tolist() == [own for one in alone for own in one.predictions.time_ms.tolist()]
    assert together.unknown_fields == sum(one.unknown_fields for one in alone)


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_arbitrary_bytes_give_a_value(data: bytes) -> None:
    labels = decode(data)
    assert len(labels) + len(labels.malformed) == 1


def test_a_good_record_becomes_a_row_of_columns() -> None:
    labels = decode(record(), record(actual={"value": 3}, model_version="4", timestamp=None))
    assert labels.index.tolist() == [0, 1]
    assert labels.time_ms.tolist() == [NOW_MS, NOW_MS]
    assert (labels.prediction_ids, labels.model_ids) == (["p-7f3a"] * 2, ["credit"] * 2)
    assert labels.model_versions == [None, "4"]
    assert labels.label == ["deny", None]
    assert plain(labels.value) == ["NaN", 3.0]
    assert (len(labels.predictions), labels.malformed, labels.tombstones, labels.unknown_fields) == (0, [], 0, 0)


@pytest.mark.parametrize(
    ("text", "label", "value"),
    [
        ('{"label":true}', "true", None),
        ('{"label":1}', "1", None),
        ('{"label":1.0}', "1", None),
        ('{"label":"1.5"}', "1.5", None),
        ('{"label":18446744073709551615}', "18446744073709551615", None),
        ('{"label":"a","value":NaN}', "a", None),
        ('{"label":[1],"value":2}', None, 2.0),
        ('{"label":1.5,"value":1.5}', None, 1.5),
        ('{"label":"a","value":2,"why":{}}', "a", 2.0),
    ],
)
def test_a_truth_is_a_label_or_a_value(text: str, label: str | None, value: float | None) -> None:
    labels = decode(record(), with_field("actual", text), record())
    assert labels.malformed == []
    assert labels.label == ["deny", label, "deny"]
    assert plain(labels.value[1]) == ("NaN" if value is None else value)


CASES: list[tuple[str, bytes, str, str]] = [
    ("truncated", record()[:-1], "json_invalid", "$"),
    ("an array", b"[" + record() + b"]", "not_an_object", "$"),
    ("no prediction id", record(prediction_id="absent"), "field_missing", "$.prediction_id"),
    ("no model id", record(model_id=None), "field_missing", "$.model_id"),
    ("a number as version", record(model_version=3), "field_type", "$.model_version"),
    ("a model id with delete", record(model_id="a\x7fb"), "name_invalid", "$.model_id"),
    ("an id of 257 bytes", record(prediction_id="x" * 257), "name_invalid", "$.prediction_id"),
    ("another schema", record(schema_version=2), "schema_version", "$.schema_version"),
    ("a prediction", record(actual="absent", features={"a": 1}), "field_missing", "$.actual"),
    ("a null truth", record(actual=None), "field_missing", "$.actual"),
    ("a truth that says nothing", record(actual={}), "field_missing", "$.actual"),
    ("a truth of nulls", record(actual={"label": None, "value": None}), "field_missing", "$.actual"),
    ("a truth as a text", record(actual="deny"), "field_type", "$.actual"),
    ("a label in an array", record(actual={"label": ["deny"]}), "field_type", "$.actual"),
    ("a label that is a fraction", record(actual={"label": 0.5}), "field_type", "$.actual"),
    ("a value as a text", record(actual={"value": "1"}), "field_type", "$.actual"),
    ("NaN as a value", with_field("actual", '{"value":NaN}'), "field_type", "$.actual"),
    ("a value beyond float64", with_field("actual", '{"value":1e999}'), "field_type", "$.actual"),
    ("a prediction as a number", record(prediction=0.5), "field_type", "$.prediction"),
    ("no time", record(timestamp="yesterday"), "timestamp_invalid", "$.timestamp"),
    ("tomorrow", record(timestamp="2026-11-22T02:05:43.715Z"), "timestamp_in_future", "$.timestamp"),
    (
        "no time of the prediction",
        record(prediction={"label": "a"}, prediction_timestamp="yesterday"),
        "timestamp_invalid",
        "$.prediction_timestamp",
    ),
    (
        "a prediction of tomorrow",
        record(prediction={"label": "a"}, prediction_timestamp=NOW_MS + 2 * MINUTE_MS),
        "timestamp_in_future",
        "$.prediction_timestamp",
    ),
    ("an OIP request", orjson.dumps({"inputs": [], "id": "1"}), "format_unknown", "$"),
]


@pytest.mark.parametrize(("value", "code", "path"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_bad_record_is_refused_with_its_code_and_path(value: bytes, code: str, path: str) -> None:
    labels = decode(record(prediction={"label": "a"}), value, record())
    [(row, malformed)] = labels.malformed
    assert (row, malformed.code) == (1, code)
    assert malformed.detail.startswith(path + ": ")
    assert labels.index.tolist() == [0, 2]
    assert labels.repeated.tolist() == [0]


def test_the_detail_never_shows_a_value() -> None:
    labels = decode(*(case[1].replace(b"p-7f3a", b"s3cret") for case in CASES))
    assert len(labels.malformed) == len(CASES)
    assert "s3cret" not in " ".join(malformed.detail for _, malformed in labels.malformed)


def test_a_label_may_repeat_its_own_prediction() -> None:
    answer = {"label": True, "score": 0.75}
    labels = decode(
        record(),
        record(prediction=answer, prediction_timestamp=NOW_MS - 1_000, tags={"country": "DE"}, model_version="4"),
        record(prediction={}, prediction_timestamp="whenever"),
        b"{",
        record(prediction=answer, timestamp=NOW_MS - 5),
        record(prediction={"value": 2.0}, timestamp=None),
    )
    assert labels.repeated.tolist() == [1, 3, 4]
    own = labels.predictions
    assert own.index.tolist() == [1, 4, 5]
    assert own.time_ms.tolist() == [NOW_MS - 1_000, NOW_MS - 5, NOW_MS]
    assert own.model_versions == ["4", "default", "default"]
    assert (own.label, own.score.tolist()[:2]) == (["true", "true", None], [0.75, 0.75])
    assert own.value.tolist()[2] == 2.0
    assert own.tags == [{"country": "DE"}, {}, {}]


def test_of_what_is_picked_the_predictions_come_along() -> None:
    answer = {"label": "a"}
    labels = decode(record(), record(prediction=answer), record(prediction_id="q"), record(prediction=answer), None)
    some = feedback.pick(labels, np.array([2, 3]))
    assert (some.prediction_ids, some.index.tolist()) == (["q", "p-7f3a"], [2, 3])
    assert (some.repeated.tolist(), some.predictions.index.tolist()) == ([1], [3])
    assert (some.tombstones, labels.tombstones) == (0, 1)
    assert feedback.pick(labels, np.arange(4)) is labels


def test_fields_that_mean_nothing_here_are_counted() -> None:
    values = [record(features={"a": 1}, latency_ms=3), record(), record(trace=None)] * 20
    labels = decode(*values)
    assert (len(labels), labels.unknown_fields) == (60, 60)


def test_tombstones_are_skipped_and_an_empty_batch_is_no_labels() -> None:
    labels = decode(None, record(), None)
    assert (labels.tombstones, labels.index.tolist()) == (2, [1])
    assert len(decode()) == 0


def test_there_is_nothing_to_guess() -> None:
    with pytest.raises(ValueError, match="no features"):
        adapter.fast_decoder((), Guess("credit", "3", msgspec.Struct))
