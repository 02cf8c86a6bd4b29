"""Control events: what people decide is read as the contract says, and a bad one says why."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.wire import codec, control
from stream.wire.codec import Malformed
from stream.wire.control import ControlEvent, Decision
from stream.wire.inbound import Limits
from stream.wire.internal import CONTROL
from stream.wire.outbound import Draft, Kind
from stream.wire.record import EVERY_PARTITION
from stream.wire.times import EARLIEST_MS, LATEST_MS, parse_time

LIMITS = Limits()
SCHEMAS = Path(__file__).parents[2] / "deploy" / "schemas"
DRAFTS: tuple[Draft, ...] = ("2020-12", "7")
HOLIDAYS: dict[str, Any] = {
    "specversion": "1.0",
    "id": "holidays-2026",
    "source": "/teams/risk",
    "type": "io.driftstream.control.mute.v1",
    "time": "2026-12-20T10:00:00Z",
    "datacontenttype": "application/json",
    "data": {
        "effective_at": "2026-12-24T00:00:00Z",
        "until": "2026-12-27T00:00:00Z",
        "model_id": None,
        "kinds": ["data_drift", "prediction_drift"],
        "reason": "holidays",
    },
}
"""The example of the contract."""
AT_MS, UNTIL_MS = 1_798_070_400_000, 1_798_329_600_000
DATA: dict[str, dict[str, Any]] = {
    "mute": HOLIDAYS["data"],
    "relearn": {"effective_at": "2026-12-24T00:00:00Z", "model_id": "credit", "model_version": "3", "reason": None},
    "resolve": {"effective_at": "2026-12-24T00:00:00Z", "fingerprint": "ffc82447919be0d9", "reason": "known"},
    "retrained": {
        "effective_at": "2026-12-24T00:00:00Z",
        "alert_id": "aa6c9e235e5778d0e3e80d3bff8892fd",
        "outcome": "succeeded",
        "model_version": "4",
    },
    "marker": {"effective_at": "2026-12-24T00:00:00Z", "model_id": None, "text": "deploy", "url": None},
}
"""Of each verb, all its fields."""


def event(verb: str = "mute", *, without: tuple[str, ...] = (), **data: Any) -> dict[str, Any]:
    fields = {key: value for key, value in (DATA[verb] | data).items() if key not in without}
    return HOLIDAYS | {"type": f"io.driftstream.control.{verb}.v1", "data": fields}


def read(value: object) -> ControlEvent | Malformed:
    return control.decode(value if isinstance(value, bytes) else orjson.dumps(value), LIMITS)


def code(value: object) -> tuple[str, str]:
    found = read(value)
    assert isinstance(found, Malformed)
    return found.code, found.detail.partition(":")[0]


def decision(value: object) -> Decision:
    found = read(value)
    assert isinstance(found, ControlEvent)
    return found.decision


def test_the_example_of_the_contract_is_a_mute_of_two_kinds_for_three_days() -> None:
    mute = control.Mute(
        effective_at_ms=AT_MS, until_ms=UNTIL_MS, kinds=["data_drift", "prediction_drift"], reason="holidays"
    )
    assert read(HOLIDAYS) == ControlEvent("/teams/risk", "holidays-2026", mute)


@pytest.mark.parametrize("verb", DATA)
def test_every_verb_is_read(verb: str) -> None:
    found = decision(event(verb))
    assert type(found) is control.DECISIONS[verb]
    assert found.effective_at_ms == AT_MS


def test_an_event_without_effective_at_applies_from_its_own_time_on() -> None:
    assert decision(event("relearn", without=("effective_at",))).effective_at_ms == parse_time(HOLIDAYS["time"])
    timeless = {key: value for key, value in event("relearn", without=("effective_at",)).items() if key != "time"}
    assert code(timeless) == ("field_missing", "$.data.effective_at")


def test_fields_of_later_releases_are_ignored() -> None:
    assert decision(event("marker", colour="red") | {"subject": "x"}) == decision(event("marker"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{", ("json_invalid", "$")),
        (b"[" * 65 + b"]" * 65, ("json_invalid", "$")),
        (b"[]", ("not_an_object", "$")),
        (b" " * (LIMITS.record_bytes + 1), ("too_large", "$")),
        ({}, ("field_missing", "$.specversion")),
        (HOLIDAYS | {"specversion": "0.3"}, ("schema_version", "$.specversion")),
        (HOLIDAYS | {"type": None}, ("field_missing", "$.type")),
        (HOLIDAYS | {"type": 7}, ("field_type", "$.type")),
        (HOLIDAYS | {"type": "io.driftstream.alert.firing.v1"}, ("format_unknown", "$.type")),
        (HOLIDAYS | {"type": "io.driftstream.control.silence.v1"}, ("format_unknown", "$.type")),
        (HOLIDAYS | {"type": "io.driftstream.control.mute.v2"}, ("schema_version", "$.type")),
        (HOLIDAYS | {"id": None}, ("field_missing", "$.id")),
        (HOLIDAYS | {"id": "a\nb"}, ("name_invalid", "$.id")),
        (HOLIDAYS | {"source": ["x"]}, ("field_type", "$.source")),
        (HOLIDAYS | {"data": None}, ("field_missing", "$.data")),
        (HOLIDAYS | {"data": []}, ("field_type", "$.data")),
        (event(effective_at="tomorrow"), ("timestamp_invalid", "$.data.effective_at")),
        (event(without=("effective_at",)) | {"time": "now"}, ("timestamp_invalid", "$.time")),
        (event(without=("until",)), ("field_missing", "$.data.until")),
        (event(until="2026-12-24T00:00:00Z"), ("timestamp_invalid", "$.data.until")),
        (event(kinds="data_drift"), ("field_type", "$.data.kinds")),
        (event(kinds=[["data_drift"]]), ("field_type", "$.data.kinds")),
        (event(kinds=["drift"]), ("field_type", "$.data.kinds")),
        (event(model_id=""), ("name_invalid", "$.data.model_id")),
        (event(reason="x" * 1025), ("too_large", "$.data.reason")),
        (event("relearn", model_version=None), ("field_missing", "$.data.model_version")),
        (event("resolve", fingerprint="FFC82447919BE0D9"), ("name_invalid", "$.data.fingerprint")),
        (event("retrained", alert_id="ffc82447919be0d9"), ("name_invalid", "$.data.alert_id")),
        (event("retrained", outcome="done"), ("field_type", "$.data.outcome")),
        (event("marker", without=("text",)), ("field_missing", "$.data.text")),
    ],
)
def test_a_bad_event_says_what_is_wrong_and_where(value: object, expected: tuple[str, str]) -> None:
    assert code(value) == expected


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(repr).map(str.encode))
def test_no_bytes_raise(value: bytes) -> None:
    assert isinstance(read(value), Malformed)


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
TIMES = st.integers(EARLIEST_MS, LATEST_MS - 1)


@st.composite
def mutes(draw: st.DrawFn) -> control.Mute:
    at_ms = draw(TIMES)
    return control.Mute(
        effective_at_ms=at_ms,
        until_ms=draw(st.integers(at_ms + 1, LATEST_MS)),
        model_id=draw(st.none() | NAMES),
        kinds=sorted(draw(st.sets(st.sampled_from(get_args(Kind))))),
        reason=draw(st.none() | TEXTS),
    )


DECISIONS = st.one_of(
    mutes(),
    st.builds(control.Relearn, effective_at_ms=TIMES, model_id=NAMES, model_version=NAMES, reason=st.none() | TEXTS),
    st.builds(control.Marker, effective_at_ms=TIMES, text=TEXTS, model_id=st.none() | NAMES, url=st.none() | TEXTS),
)


@settings(max_examples=50)
@given(st.builds(ControlEvent, NAMES, NAMES, DECISIONS), TIMES)
def test_what_is_written_is_read_again(written: ControlEvent, time_ms: int) -> None:
    value = control.cloud_event(written, time_ms)
    assert control.decode(value, LIMITS) == written
    for draft in DRAFTS:
        validator(draft).validate(json.loads(value))


@settings(max_examples=50)
@given(st.builds(ControlEvent, NAMES, NAMES, DECISIONS))
def test_it_is_forwarded_to_every_partition_as_it_is(written: ControlEvent) -> None:
    record = control.forwarded(written)
    assert (record.role, record.partition, record.key) == ("profiles", EVERY_PARTITION, None)
    assert codec.decode(record.value or b"", ControlEvent, CONTROL) == written


@cache
def validator(draft: Draft) -> jsonschema.protocols.Validator:
    schema = control.json_schema(draft)
    kind = jsonschema.Draft202012Validator if draft == "2020-12" else jsonschema.Draft7Validator
    kind.check_schema(schema)
    return kind(schema)


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("verb", DATA)
def test_the_schema_takes_what_is_read_and_refuses_what_is_not(verb: str, draft: Draft) -> None:
    own = validator(draft)
    own.validate(event(verb))
    own.validate(event(verb, without=("effective_at",)))
    required = [key for key in DATA[verb] if isinstance(read(event(verb, without=(key,))), Malformed)]
    assert required
    for key in required:
        assert not own.is_valid(event(verb, without=(key,)))
    for key in DATA[verb]:
        changed: dict[str, Any] = {key: 7}
        assert not own.is_valid(event(verb, **changed))


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_schema_file_is_that_of_the_code(draft: Draft) -> None:
    """`DRIFT_REWRITE=1 pytest` writes the file anew."""
    file = SCHEMAS / f"control.v1{'' if draft == '2020-12' else '.draft07'}.json"
    text = json.dumps(control.json_schema(draft), indent=2) + "\n"
    if os.environ.get("DRIFT_REWRITE"):
        file.write_text(text)
    assert file.read_text() == text
