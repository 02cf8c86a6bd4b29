"""What we tell is what the contract says: the published examples, their ids, and their schemas in both drafts."""

import copy
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.wire import outbound
from stream.wire.outbound import Alert, CloudEvent, Reading

HERE = Path(__file__).parent
SCHEMAS = HERE.parents[1] / "deploy" / "schemas"
EVENT: dict[str, Any] = json.loads((HERE / "contract_alert.json").read_text())
READING: dict[str, Any] = json.loads((HERE / "contract_reading.json").read_text())
DIFFERENCES = [json.loads(line) for line in (HERE / "contract_differences.jsonl").read_text().splitlines()]
ALERTS = [EVENT["data"], *({**EVENT["data"], **difference} for difference in DIFFERENCES)]
DRAFTS: tuple[outbound.Draft, ...] = ("2020-12", "7")
EXAMPLES = [("alert", alert) for alert in ALERTS] + [("window", READING)]


def validator(name: str, draft: outbound.Draft) -> jsonschema.protocols.Validator:
    schema = outbound.json_schema(name, draft)
    kind = jsonschema.Draft202012Validator if draft == "2020-12" else jsonschema.Draft7Validator
    kind.check_schema(schema)
    return kind(schema)


VALIDATORS = {(name, draft): validator(name, draft) for name in outbound.SCHEMAS for draft in DRAFTS}


def with_one_thing_wrong(example: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every example without one of its fields, or with one of another type; two levels deep."""
    for field, value in example.items():
        yield {name: other for name, other in example.items() if name != field}
        yield {**example, field: {"not": ["of", "this", "type"]} if not isinstance(value, dict) else "text"}
        if isinstance(value, dict):
            for broken in with_one_thing_wrong(value):
                yield {**example, field: broken}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['kind']}-{alert['status']}")
def test_fingerprint_and_alert_id_of_the_published_examples_are_reproduced(alert: dict[str, Any]) -> None:
    identity = (alert["model_id"], alert["model_version"], alert["segment"], alert["kind"])
    starts_at_ms = outbound._milliseconds(alert["starts_at"])
    discriminator = alert["details"].get("prediction_id") or alert["details"].get("challenger") or ""
    fingerprint = outbound.fingerprint(*identity)
    assert fingerprint == alert["fingerprint"]
    assert outbound.alert_id(fingerprint, starts_at_ms, discriminator) == alert["alert_id"]


def test_a_fingerprint_hashes_utf8_as_it_is_and_not_its_escapes() -> None:
    # printf '["modèle","3","all","silence"]' | sha256sum
    assert outbound.fingerprint("modèle", "3", "all", "silence") == "044ed5dad9ae6ed7"


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_the_published_examples_validate(name: str, example: dict[str, Any], draft: outbound.Draft) -> None:
    VALIDATORS[name, draft].validate(example)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['kind']}-{alert['status']}")
def test_the_published_alerts_go_through_their_structs_unchanged(alert: dict[str, Any]) -> None:
    assert msgspec.to_builtins(msgspec.convert(alert, Alert)) == alert


def test_the_published_reading_goes_through_its_struct_unchanged() -> None:
    assert msgspec.to_builtins(msgspec.convert(READING, Reading)) == READING


def test_the_published_envelope_is_made_of_its_alert() -> None:
    event = outbound.envelope(msgspec.convert(EVENT["data"], Alert), "firing", "fraud-prod")
    assert msgspec.to_builtins(event) == EVENT


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_both_drafts_find_the_same_faults(name: str, example: dict[str, Any]) -> None:
    for broken in with_one_thing_wrong(example):
        newer, older = (VALIDATORS[name, draft].is_valid(broken) for draft in DRAFTS)
        assert newer == older


def test_a_missing_field_is_a_fault_unless_only_what_applies_is_written() -> None:
    for field in EVENT["data"]:
        lacking = {name: value for name, value in EVENT["data"].items() if name != field}
        assert not VALIDATORS["alert", "2020-12"].is_valid(lacking), field


def test_details_are_checked_against_the_kind() -> None:
    alert = {**EVENT["data"], "details": {"checks": []}}
    assert not VALIDATORS["alert", "2020-12"].is_valid(alert)
    assert VALIDATORS["alert", "2020-12"].is_valid({**alert, "kind": "data_quality"})


def test_fields_of_a_later_release_are_tolerated() -> None:
    alert = copy.deepcopy(EVENT["data"])
    alert["new_field"] = alert["details"]["new_field"] = 1
    assert all(VALIDATORS["alert", draft].is_valid(alert) for draft in DRAFTS)
    msgspec.convert(alert, Alert)


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("name", outbound.SCHEMAS)
def test_the_schema_files_are_those_of_the_code(name: str, draft: outbound.Draft) -> None:
    """`DRIFT_REWRITE=1 pytest` writes the files anew."""
    file = SCHEMAS / f"{name}.v1{'' if draft == '2020-12' else '.draft07'}.json"
    text = json.dumps(outbound.json_schema(name, draft), indent=2) + "\n"
    if os.environ.get("DRIFT_REWRITE"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


def test_an_alert_record_repeats_the_attributes_as_headers() -> None:
    record = outbound.alert_record(msgspec.convert(EVENT, CloudEvent))
    assert record.role == "alerts"
    assert record.key == b"bac95bb66547eff9"
    assert record.timestamp_ms == 1_795_226_760_000
    assert record.partition is None
    assert json.loads(record.value or b"") == EVENT
    headers = dict(record.headers)
    assert headers.pop("content-type") == b"application/cloudevents+json; charset=UTF-8"
    assert headers == {
        f"ce_{name}": str(value).encode() for name, value in EVENT.items() if name not in ("data", "datacontenttype")
    }


def test_the_trace_of_an_outlier_travels_as_an_attribute() -> None:
    alert = msgspec.convert(EVENT["data"], Alert)
    traced = outbound.alert_record(outbound.envelope(alert, "notice", "s", "00-ab-cd-01"))
    assert json.loads(traced.value or b"")["traceparent"] == "00-ab-cd-01"
    assert ("ce_traceparent", b"00-ab-cd-01") in traced.headers


def test_ids_with_slashes_and_foreign_letters_stay_one_part_of_the_subject() -> None:
    alert = msgspec.structs.replace(msgspec.convert(EVENT["data"], Alert), model_id="a/b", segment="stadt=Köln")
    event = outbound.envelope(alert, "firing", "eu/1")
    assert event.subject == "a%2Fb/3/stadt=K%C3%B6ln/data_drift"
    assert event.source == "/drift/eu%2F1"


def test_a_reading_record_is_keyed_by_its_series_and_dated_by_its_window() -> None:
    record = outbound.reading_record(msgspec.convert(READING, Reading))
    assert record.role == "windows"
    assert record.key == b'["credit","3","country=DE","feature:income"]'
    assert record.timestamp_ms == 1_795_226_760_000
    assert json.loads(record.value or b"") == READING


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_refused(number: float) -> None:
    reading = msgspec.structs.replace(msgspec.convert(READING, Reading), mean=number)
    with pytest.raises(ValueError, match=r"."):
        outbound.reading_record(reading)


@given(st.lists(st.floats(), min_size=2, max_size=20))
def test_rounding_for_print_keeps_order_and_changes_nothing_twice(values: list[float]) -> None:
    printed = [outbound.significant(value) for value in sorted(value for value in values if value - value == 0)]
    numbers = [number for number in printed if number is not None]
    assert all(low <= high for low, high in pairwise(numbers))
    assert [outbound.significant(number) for number in numbers] == numbers


def test_what_is_no_number_is_published_as_null() -> None:
    assert [outbound.significant(value) for value in (None, float("nan"), float("-inf"), -0.0)] == [
        None,
        None,
        None,
        0.0,
    ]
