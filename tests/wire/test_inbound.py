"""Decoding a batch: the fast path and the guess change the cost, never the meaning."""

from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.wire import inbound, lenient
from stream.wire.adapters import native
from stream.wire.adapters.native import Guess
from stream.wire.features import FeatureDecoder, feature_decoder, values_of
from stream.wire.inbound import Events, Limits
from stream.wire.lenient import INVALID
from stream.wire.record import Batch

from .records import BOOLEAN, CATEGORICAL, NOW_MS, NUMERIC, RECORDS, batch_of, record

LIMITS = Limits()
MINUTE_MS = 60_000


def decode(batch: Batch, guess: Guess | None = None) -> Events:
    return inbound.decode(batch, LIMITS, MINUTE_MS, "auto", guess)


def decoder() -> FeatureDecoder:
    return feature_decoder(NUMERIC, CATEGORICAL, BOOLEAN)


def refusing(*_: Any, **__: Any) -> Any:
    def decode(_: Any) -> Any:
        raise msgspec.DecodeError

    return decode


def carefully(batch: Batch) -> Events:
    with patch.object(native, "fast_decoder", refusing):
        return decode(batch)


def plain(value: Any) -> Any:
    """Arrays as lists, NaN as a text, so that equal means the same."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, float):
        return "NaN" if value != value else value  # noqa: PLR0124 - that is NaN
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def meaning(events: Events) -> dict[str, Any]:
    columns = {name: plain(getattr(events, name)) for name in events.__struct_fields__ if name != "features"}
    columns["tags"] = [{key: lenient.category(value) for key, value in tags.items()} for tags in events.tags]
    features = decoder().decode(events.features, events.values)
    return columns | {name: plain(getattr(features, name)) for name in features.__struct_fields__}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RECORDS, max_size=12))
def test_the_fast_path_means_what_the_careful_one_means(values: list[bytes | None]) -> None:
    batch = batch_of(values)
    assert meaning(decode(batch)) == meaning(carefully(batch))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RECORDS, max_size=12), st.booleans(), st.sampled_from(["3", "default"]))
def test_a_guess_changes_nothing(values: list[bytes | None], learned: bool, version: str) -> None:
    own = decoder()
    if learned:
        own.decode([msgspec.Raw(b'{"extra":1,"":2}')])
    batch = batch_of(values)
    guessed = decode(batch, Guess("credit", version, own.shape))
    assert meaning(guessed) == meaning(decode(batch))
    columns, expected = own.decode(guessed.features, guessed.values), decoder().decode(decode(batch).features)
    assert plain(msgspec.structs.astuple(columns)) == plain(msgspec.structs.astuple(expected))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RECORDS, max_size=12))
def test_a_record_means_the_same_alone_and_in_company(values: list[bytes | None]) -> None:
    together = decode(batch_of(values))
    alone = [decode(batch_of([value])) for value in values]
    assert together.prediction_ids == [own for events in alone for own in events.prediction_ids]
    assert [fault for _, fault in together.malformed] == [fault for events in alone for _, fault in events.malformed]
    assert together.unknown_fields == sum(events.unknown_fields for events in alone)
    assert together.tombstones == sum(events.tombstones for events in alone)
    rows = [place for place, events in enumerate(alone) if len(events)]
    assert together.index.tolist() == rows
    assert plain(together.score) == [plain(float(events.score[0])) for events in alone if len(events)]


@settings(max_examples=150, deadline=None)
@given(st.binary())
def test_arbitrary_bytes_give_a_value(data: bytes) -> None:
    events = decode(batch_of([data]))
    assert len(events) + len(events.malformed) == 1


def test_a_good_record_becomes_a_row_of_columns() -> None:
    events = decode(batch_of([record()] * 3))
    assert events.index.tolist() == [0, 1, 2]
    assert events.time_ms.tolist() == [NOW_MS] * 3
    assert (events.prediction_ids[0], events.model_ids[0], events.model_versions[0]) == ("p-7f3a", "credit", "3")
    assert (events.label[0], events.score[0], events.latency[0]) == ("approve", 0.91, 12.3)
    assert np.isnan(events.value[0])
    assert not events.value_invalid[0]
    assert events.scores[0] == {"approve": 0.91, "deny": 0.09}
    assert events.tags[0] == {"country": "DE"}
    assert (events.malformed, events.tombstones, events.unknown_fields) == ([], 0, 0)
    columns = decoder().decode(events.features)
    assert columns.numeric[0, 0] == 51200.5
    assert np.isnan(columns.numeric[0, 1])
    assert not columns.numeric_invalid.any()
    assert columns.categorical == [["eu"] * 3, ["web"] * 3]
    assert columns.boolean.tolist() == [[1], [1], [1]]


def test_absent_and_null_fields_are_missing() -> None:
    bare = b'{"prediction_id":"p","model_id":"m","features":{}}'
    nulls = record(model_version=None, timestamp=None, prediction=None, tags=None, latency_ms=None)
    events = decode(batch_of([bare, nulls]))
    assert events.model_versions == ["default", "default"]
    assert events.time_ms.tolist() == [NOW_MS, NOW_MS]
    assert events.label == [None, None]
    assert np.isnan(events.score).all()
    assert np.isnan(events.latency).all()
    assert not events.latency_invalid.any()
    assert events.tags == [{}, {}]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("approve", "approve"),
        (True, "true"),
        (0, "0"),
        (1.0, "1"),
        (1.5, INVALID),
        (1e30, INVALID),
        ([], INVALID),
        (None, None),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_a_label_is_a_text_a_boolean_or_a_whole_number(written: object, expected: object) -> None:
    assert decode(batch_of([record(prediction={"label": written})])).label == [expected]


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", 1.5), ("score", -0.1), ("score", "0.5"), ("score", True), ("value", "1"), ("value", [1])],
)
def test_a_wrong_answer_is_invalid_and_the_record_stays_good(field: str, value: object) -> None:
    events = decode(batch_of([record(prediction={field: value, "label": "a"}), record()]))
    assert getattr(events, f"{field}_invalid").tolist() == [True, False]
    assert np.isnan(getattr(events, field)[0])
    assert events.label == ["a", "approve"]


@pytest.mark.parametrize("latency", [-1, "12", True, {}])
def test_a_wrong_latency_is_invalid(latency: object) -> None:
    events = decode(batch_of([record(latency_ms=latency)]))
    assert events.latency_invalid.tolist() == [True]
    assert events.malformed == []


def test_unknown_fields_are_counted_and_ignored() -> None:
    values: list[bytes | None] = [record(trace=[1], span=2), record(), record(trace=None), record(other={"a": 1})]
    events = decode(batch_of(values * 30))
    assert events.unknown_fields == 4 * 30
    assert len(events) == 120


def test_more_unknown_fields_than_can_be_learned_are_counted_too() -> None:
    values: list[bytes | None] = [record(**{f"field{number}": 1, "trace": 2}) for number in range(100)]
    assert decode(batch_of(values)).unknown_fields == 200


def test_tombstones_are_skipped_and_counted() -> None:
    events = decode(batch_of([None, record(), None, b"{", record()]))
    assert events.tombstones == 2
    assert events.index.tolist() == [1, 4]
    assert [row for row, _ in events.malformed] == [3]


def test_an_empty_batch_is_no_events() -> None:
    events = decode(batch_of([]))
    assert len(events) == 0
    assert inbound.by_model(events) == {}
    assert decoder().decode(events.features).numeric.shape == (0, 2)


def test_events_are_picked_by_model_and_version() -> None:
    values: list[bytes | None] = [record(model_version=version) for version in "3432"]
    events = decode(batch_of(values))
    groups = inbound.by_model(events)
    assert {name: picks.tolist() for name, picks in groups.items()} == {
        ("credit", "3"): [0, 2],
        ("credit", "4"): [1],
        ("credit", "2"): [3],
    }
    some = inbound.pick(events, groups["credit", "3"])
    assert (some.index.tolist(), some.model_versions) == ([0, 2], ["3", "3"])
    assert inbound.pick(events, np.arange(4)) is events
    assert inbound.join([some, some]).index.tolist() == [0, 2, 0, 2]


def test_a_guess_is_made_of_the_first_readable_record() -> None:
    first = inbound.guess_of(batch_of([None, b"{", record()]))
    assert first is not None
    assert (first.model_id, first.model_version, first.features) == ("credit", "3", native.raw_features(record()))
    unnamed = inbound.guess_of(batch_of([record(model_version=None)]))
    assert unnamed is not None
    assert unnamed.model_version == "default"
    assert inbound.guess_of(batch_of([b"{"] * 10)) is None


def test_a_right_guess_decodes_features_at_once_and_a_wrong_one_is_given_up() -> None:
    own = decoder()
    values: list[bytes | None] = [record()] * 100
    right = decode(batch_of(values), Guess("credit", "3", own.shape))
    assert all(type(features) is own.shape for features in right.features)
    wrong = decode(batch_of(values), Guess("credit", "4", own.shape))
    assert all(type(features) is msgspec.Raw for features in wrong.features)
    other = feature_decoder(["age"], [], [])
    columns = other.decode(right.features, right.values)
    assert columns.unknown == dict.fromkeys(columns.unknown, 100)
    assert set(columns.unknown) == {"income", "region", "channel", "returning"}


def test_the_features_of_a_row_can_be_learned_from() -> None:
    value = record(features={"a": 1, "b": [1], "c": None, "d": "x", "e": True, "": 2, "f\n": 3})
    events = decode(batch_of([value]))
    assert values_of(events.features[0], value) == {"a": 1, "b": INVALID, "c": None, "d": "x", "e": True}
    own = decoder()
    guessed = decode(batch_of([record()]), Guess("credit", "3", own.shape))
    assert values_of(guessed.features[0], guessed.values[0])["income"] == 51200.5
