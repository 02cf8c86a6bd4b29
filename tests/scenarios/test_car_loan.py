"""The car-loan stream of NannyML: one real drift at a known row, found, told once, with the right signals listed.

`statistics.md` 13, figure 6: the reference is the first 50,000 rows, a complete log of serving; the stream is the next
50,000, through the same loop and stages as everything else.
"""

from typing import Any, TypeAlias

import orjson
import pytest
from datasets import CONTROLS, DRIFT_ROW, MODEL, MOVED, car_loan, record, time_of, training_rows
from flows import detect_settings, published, stages, windows

from stream.profiles.building import build
from stream.profiles.cuts import Plan, Row
from stream.stages import ingest
from stream.wire.codec import parse_time
from stream.wire.record import Record, Role
from stream.worker.replay import Summary, replay
from stream.worker.settings import Settings, Topics

Json: TypeAlias = dict[str, Any]

ROW_MS = 523_152
"""Between two rows."""


@pytest.fixture(scope="module")
def training() -> list[Row]:
    return training_rows()


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("car-loan") / "analysis.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(record(place, row)) for place, row in enumerate(car_loan("analysis"))))
    return str(path)


class Found:
    """What the stream tells with windows of one size."""

    def __init__(self, training: list[Row], stream: str, size: str, *, serving: bool = True) -> None:
        of_windows = windows(size=size, lateness="1h")
        plan = Plan(MODEL, "1", of_windows.size)
        start_ms = time_of(car_loan("analysis")[0])
        reference = build(training, plan, serving=serving, effective_from_ms=start_ms - start_ms % of_windows.size)
        self.records: list[tuple[Role, Record]] = []
        self.summary: Summary = replay(
            [stream],
            stages(ingest.Settings(windows=of_windows), detect_settings(windows=of_windows, declared={})),
            Settings(topics=Topics(feedback=[])),
            references=[published(reference)],
            on_record=lambda role, one: self.records.append((role, one)),
        )
        self.size_ms = of_windows.size
        changed_ms = time_of(car_loan("analysis")[DRIFT_ROW])
        self.drift_ms = changed_ms - changed_ms % self.size_ms
        """Start of window 0, which holds the change."""
        events = [orjson.loads(one.value or b"") for role, one in self.records if role == "alerts"]
        self.alerts: list[Json] = [{**event["data"], "type": event["type"]} for event in events]

    def window_of(self, time: str) -> int:
        """The window that ends at a time, counted from the one that holds the change."""
        return ((parse_time(time) or 0) - self.drift_ms) // self.size_ms - 1

    def firing(self, kind: str) -> list[Json]:
        """Events that begin an episode."""
        return [one for one in self.alerts if one["kind"] == kind and one["type"] == "io.driftstream.alert.firing.v1"]

    def listed(self, upto: int) -> set[str]:
        """Features listed by the evidence of data drift up to a window."""
        return {
            entry["signal"].removeprefix("feature:")
            for one in self.alerts
            if one["kind"] == "data_drift" and one["status"] != "notice" and self.window_of(one["updated_at"]) <= upto
            for entry in one["signals"]
            if entry["detector"] == "histogram"
        }


SIZES = ("24h", "6d")
"""165 and 991 rows in a window."""


@pytest.fixture(scope="module", params=SIZES)
def found(request: pytest.FixtureRequest, training: list[Row], stream: str) -> Found:
    return Found(training, stream, request.param)


def test_every_row_is_read_in_time(found: Found) -> None:
    assert (found.summary.rows, found.summary.ok, found.summary.late) == (50_000, 50_000, 0)
    readings = [orjson.loads(one.value or b"") for role, one in found.records if role == "windows"]
    labels = [one for one in readings if one["signal"] == "prediction:label"]
    assert sum(one["n"] for one in labels) == 50_000


def test_the_drift_is_told_once_within_three_windows_and_nothing_before(found: Found) -> None:
    (data,) = found.firing("data_drift")
    assert 0 <= found.window_of(data["updated_at"]) <= 3
    assert min(found.window_of(one["updated_at"]) for one in found.alerts if one["severity"] != "info") >= 0
    assert {one["alert_id"] for one in found.alerts if one["kind"] == "data_drift" and one["status"] != "notice"} == {
        data["alert_id"]
    }
    assert not [one for one in found.alerts if one["status"] == "resolved"]


def test_the_first_alarms_come_when_the_figures_say(found: Found) -> None:
    (data,), (prediction,) = found.firing("data_drift"), found.firing("prediction_drift")
    assert found.window_of(data["updated_at"]) == 1
    assert found.window_of(prediction["updated_at"]) == 2


def test_the_change_point_is_the_known_row_give_or_take_a_window(found: Found) -> None:
    for kind in ("data_drift", "prediction_drift"):
        (firing,) = found.firing(kind)
        at, earliest, latest = (
            ((parse_time(firing["change_point"][name]) or 0) - found.drift_ms) // found.size_ms
            for name in ("at", "earliest", "latest")
        )
        assert -1 <= at <= 1
        assert earliest <= at <= latest
        assert firing["change_type"] == "sudden"


def test_what_moved_is_listed_and_no_control_ever_is(found: Found) -> None:
    (data,) = found.firing("data_drift")
    first = {entry["signal"].removeprefix("feature:") for entry in data["signals"]}
    assert "car_value" in first
    assert len(first & MOVED) >= 2
    assert {"car_value", "repaid_loan_on_prev_car"} <= found.listed(10)
    assert found.listed(10) >= MOVED
    told = {entry["signal"].removeprefix("feature:") for one in found.alerts for entry in one["signals"]}
    assert not told & {*CONTROLS, "prediction:label"}


def test_the_evidence_names_the_rows_from_the_change_on(found: Found) -> None:
    (data,) = found.firing("data_drift")
    (span,) = data["evidence_offsets"]
    assert abs(span["first_offset"] - DRIFT_ROW) <= 1.1 * found.size_ms / ROW_MS
    assert span["last_offset"] > DRIFT_ROW


def test_a_reference_that_does_not_know_serving_raises_nothing_in_fewer_than_a_hundred_windows(
    training: list[Row], stream: str
) -> None:
    blind = Found(training, stream, "6d", serving=False)
    assert {one["severity"] for one in blind.alerts} <= {"info"}
    readings = [orjson.loads(one.value or b"") for role, one in blind.records if role == "windows"]
    histograms = {
        verdict["level"] for one in readings for verdict in one["verdicts"] if verdict["detector"] == "histogram"
    }
    assert histograms <= {"not_ready", "ok", "warning"}
    assert "warning" in histograms
