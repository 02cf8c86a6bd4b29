"""One event, made of what a window shows and what the life cycle decided, is the one the contract shows."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.alerts import evidence
from stream.alerts.evidence import Sender, Situation, Subject
from stream.alerts.lifecycle import Emission
from stream.alerts.policy import Settings
from stream.wire import outbound
from stream.wire.internal import OutlyingRow, Span
from stream.wire.outbound import Bin, CloudEvent, Description, DriftDetails, SignalEntry

WIRE = Path(__file__).parents[1] / "wire"
EVENT: dict[str, Any] = json.loads((WIRE / "contract_alert.json").read_text())
DIFFERENCES = [json.loads(line) for line in (WIRE / "contract_differences.jsonl").read_text().splitlines()]

SENDER = Sender("fraud-prod", "1.0.0", "4b1d0c77e2a95f60", "https://drift.example.org")
SETTINGS = Settings(labels={"team": "risk"}, annotations={"runbook_url": "https://example.org/runbooks/{kind}"})
SUBJECT = Subject("credit", "3", "country=DE", "data_drift")
T_0206 = 1_795_226_760_000
MINUTE = 60_000
POINT = evidence.change_point(T_0206 - 3 * MINUTE, T_0206 - 4 * MINUTE, T_0206 - 2 * MINUTE)
INCOME = evidence.entry(
    "feature:income",
    "distribution",
    "histogram",
    "drift",
    statistic=9.840000001,
    threshold=9.16,
    evidence=9.840000001,
    n=5000,
    before=evidence.describe(mean=51200.5, p05=18000.0, p50=48000.0, p95=98000.0),
    after=evidence.describe(mean=61230.4, p05=22100.0, p50=58000.0, p95=115000.0),
    effect=evidence.effect(0.31, 0.19, 0.14),
    bins=[Bin("(98000.0, inf)", 0.05, 0.11)],
    change_point=POINT,
)
FIRING = Emission(event="firing", sequence=0, starts_at_ms=T_0206, updated_at_ms=T_0206)
SITUATION = Situation(
    severity="warning",
    details=DriftDetails(42, 1, skew=False),
    window=evidence.judged_window(T_0206 - MINUTE, T_0206, n=5000, n_reference=50_000, late=3),
    reference_id="9f2c51d0a7b84e3f",
    reference_origin="built",
    signals=[INCOME],
    change_type="sudden",
    change_point=POINT,
    offsets=evidence.offsets([Span("predictions", 3, 913_274, 918_273)], {("predictions", 3): 402_118}),
    budget=evidence.budget(1.0, 604_800_000, 0.3 / 1024),
)
VALIDATOR = jsonschema.Draft202012Validator(outbound.json_schema("alert"))


def published(event: CloudEvent) -> dict[str, Any]:
    """The event as a reader sees it, its data checked against the schema."""
    value = json.loads(outbound.alert_record(event).value or b"")
    VALIDATOR.validate(value["data"])
    return dict(value)


def with_evidence(signal: str, value: float | None, detector: str = "histogram") -> SignalEntry:
    return msgspec.structs.replace(INCOME, signal=signal, evidence=value, detector=detector)


def test_the_event_of_the_contract_is_built_to_the_letter() -> None:
    assert published(evidence.build(SENDER, SETTINGS, SUBJECT, FIRING, SITUATION)) == EVENT


def test_resolved_differs_as_the_contract_says() -> None:
    at_0310 = T_0206 + 64 * MINUTE
    emission = Emission(
        event="resolved",
        sequence=1,
        starts_at_ms=T_0206,
        updated_at_ms=at_0310,
        ends_at_ms=at_0310,
        resolve_reason="returned",
    )
    situation = msgspec.structs.replace(SITUATION, change_type="temporary")
    event = published(evidence.build(SENDER, SETTINGS, SUBJECT, emission, situation))
    assert event["type"] == "io.driftstream.alert.resolved.v1"
    assert event["id"] == "ffc82447919be0d928b324feb9c24053-1"
    texts = event["data"].pop("annotations")
    assert texts["summary"] == "credit/3 country=DE: data drift resolved after 1 h 4 min, income back at the reference"
    expected = {**EVENT["data"], **DIFFERENCES[0]}
    del expected["annotations"]
    assert event["data"] == expected


def test_updated_is_an_event_of_an_alert_that_is_firing() -> None:
    emission = Emission(event="updated", sequence=2, starts_at_ms=T_0206, updated_at_ms=T_0206 + 60 * MINUTE)
    event = published(evidence.build(SENDER, SETTINGS, SUBJECT, emission, SITUATION))
    assert event["type"] == "io.driftstream.alert.updated.v1"
    assert event["data"]["status"] == "firing"
    assert event["data"]["starts_at"] != event["data"]["updated_at"] == event["time"]


OUTLIER = OutlyingRow(
    score=15,
    id_hash=1,
    prediction_id="p-7f3a",
    time_ms=T_0206 - 16_285,
    topic="predictions",
    partition=3,
    offset=917_001,
    traceparent=None,
    contributions=[("feature:income", 19, 1e9)],
)


def outlier_notices(rows: list[OutlyingRow], settings: Settings = SETTINGS) -> list[CloudEvent]:
    return evidence.outlier_notices(
        SENDER,
        settings,
        rows,
        model_id="credit",
        model_version="3",
        severity="info",
        threshold=12,
        reference_id="9f2c51d0a7b84e3f",
        reference_origin="built",
    )


def test_the_outlier_of_the_contract_is_built_to_the_letter() -> None:
    [notice] = outlier_notices([OUTLIER])
    event = published(notice)
    assert event["type"] == "io.driftstream.alert.notice.v1"
    assert event["time"] == "2026-11-21T02:05:43.715Z"
    expected = {**EVENT["data"], **DIFFERENCES[1]}
    expected["labels"] = {**expected["labels"], "segment": "all", "kind": "outlier"}
    del expected["annotations"]
    texts = event["data"].pop("annotations")
    assert event["data"] == expected
    assert texts["summary"] == "credit/3: outlier p-7f3a, score 15 over 12, mostly income"


def test_raw_values_are_told_only_where_the_settings_allow_it() -> None:
    [hidden] = outlier_notices([OUTLIER])
    [shown] = outlier_notices([OUTLIER], SETTINGS.model_copy(update={"include_values": True}))
    assert hidden.data.details["contributions"][0]["value"] is None
    assert shown.data.details["contributions"][0]["value"] == 1e9


def test_rows_below_the_threshold_and_repeats_make_no_notice() -> None:
    again = msgspec.structs.replace(OUTLIER, partition=1, offset=7)
    mild = msgspec.structs.replace(OUTLIER, prediction_id="p-2", score=11)
    other = msgspec.structs.replace(OUTLIER, prediction_id="p-3", score=12, traceparent="00-ab-cd-01")
    notices = outlier_notices([OUTLIER, mild, again, other])
    assert [notice.data.details["prediction_id"] for notice in notices] == ["p-7f3a", "p-3"]
    assert notices[0].data.evidence_offsets[0].partition == 3
    assert published(notices[1])["traceparent"] == "00-ab-cd-01"


def test_signals_stand_by_falling_evidence_and_detections_after_them() -> None:
    entries = [
        with_evidence("b", None, "adwin"),
        with_evidence("c", 9.5),
        with_evidence("b", 12.0),
        with_evidence("a", 9.5),
    ]
    names = [(entry.signal, entry.detector) for entry in evidence.ranked(entries)]
    assert names == [("b", "histogram"), ("a", "histogram"), ("c", "histogram"), ("b", "adwin")]


def test_a_long_list_is_cut_and_counted() -> None:
    signals = [with_evidence(f"feature:f{number:02}", 10.0 + number) for number in range(30)]
    situation = msgspec.structs.replace(SITUATION, signals=signals, details=DriftDetails(42, 30, skew=False))
    alert = evidence.build(SENDER, SETTINGS, SUBJECT, FIRING, situation).data
    assert [entry.signal for entry in alert.signals] == [f"feature:f{number:02}" for number in range(29, 9, -1)]
    assert alert.signals_total == 30


def test_an_alert_lists_its_detections_beside_the_evidence() -> None:
    seen = with_evidence("feature:income", None, "adwin")
    emission = msgspec.structs.replace(FIRING, detections=(seen,))
    alert = published(evidence.build(SENDER, SETTINGS, SUBJECT, emission, SITUATION))["data"]
    assert [entry["detector"] for entry in alert["signals"]] == ["histogram", "adwin"]
    assert alert["annotations"]["description"].endswith("Detected as well by ADWIN.")


def test_a_notice_of_detections_is_about_them_alone() -> None:
    seen = with_evidence("feature:age", None, "page_hinkley")
    emission = Emission(event="notice", sequence=0, starts_at_ms=T_0206, updated_at_ms=T_0206, detections=(seen,))
    event = published(evidence.build(SENDER, SETTINGS, SUBJECT, emission, SITUATION))
    alert = event["data"]
    assert (alert["status"], alert["severity"], event["severitynumber"]) == ("notice", "info", 9)
    assert [entry["signal"] for entry in alert["signals"]] == ["feature:age"]
    assert alert["change_type"] is alert["change_point"] is None


def test_offsets_of_a_partition_join_and_the_list_is_bounded() -> None:
    spans = [Span("p", 1, 50, 60), Span("p", 0, 5, 9), Span("p", 1, 10, 20)]
    joined = evidence.offsets(spans, {("p", 1): 3})
    assert [msgspec.structs.astuple(part) for part in joined] == [("p", 0, 5, 9, None), ("p", 1, 10, 60, 3)]
    wide = evidence.offsets([Span("p", number, 0, 1) for number in range(100)], {})
    assert len(wide) == evidence.PARTITIONS_MAX


def test_bins_are_named_as_the_intervals_they_are() -> None:
    assert evidence.interval_names([18.0, 35.0]) == ["(-inf, 18.0]", "(18.0, 35.0]", "(35.0, inf)"]
    assert evidence.interval_names([]) == ["(-inf, inf)"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_bins_shown_are_those_that_moved_most(shares: list[tuple[float, float]]) -> None:
    names = [str(number) for number in range(len(shares))]
    shown = evidence.moved_bins(names, [old for old, _ in shares], [new for _, new in shares])
    moves = sorted((abs(new - old) for old, new in shares if new != old), reverse=True)
    assert len(shown) == min(len(moves), evidence.BINS_MAX)
    for part, move in zip(shown, moves, strict=False):
        old, new = shares[int(part.bin)]
        assert abs(new - old) == move


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        (Description(mean=1.0), Description(mean=2.0), "up"),
        (Description(rate=0.4), Description(rate=0.1), "down"),
        (Description(mean=1.0), Description(mean=1.0), "changed"),
        (Description(top=[("a", 1.0)]), Description(top=[("b", 1.0)]), "changed"),
    ],
)
def test_the_direction_is_read_off_rate_or_mean(before: Description, after: Description, direction: str) -> None:
    assert evidence.direction_of(before, after) == direction


@pytest.mark.parametrize(
    ("origin", "first", "since", "skew"),
    [
        ("built", 5, (4, 6), True),
        ("built", 3, (4, 6), False),
        ("learned", 5, (4, 6), False),
        ("built", None, (4, 6), False),
        ("built", 5, None, False),
    ],
)
def test_skew_is_a_change_that_was_there_from_the_first_window_on(
    origin: Any, first: int | None, since: tuple[int, int] | None, *, skew: bool
) -> None:
    details = evidence.drift_details(watched=9, moved=1, origin=origin, first_window_ms=first, since=since)
    assert details == DriftDetails(9, 1, skew)


def test_without_a_dashboard_there_is_no_link_to_it() -> None:
    event = evidence.build(Sender("s", "1", "0" * 16), Settings(), SUBJECT, FIRING, SITUATION)
    assert list(event.data.annotations) == ["summary", "description", "action"]


def test_numbers_that_do_not_apply_are_null() -> None:
    nothing = float("nan")
    silent = evidence.entry(
        "a", "mean", "adwin", "drift", statistic=nothing, threshold=None, evidence=nothing, n=1,
        before=evidence.describe(mean=nothing), after=evidence.describe(),
    )  # fmt: skip
    assert (silent.statistic, silent.threshold, silent.evidence, silent.direction) == (None, None, None, "changed")
    assert msgspec.to_builtins(silent.before) == {}
    assert evidence.budget(1.0, 1500, 0.1).period_seconds == 1.5
