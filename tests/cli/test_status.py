"""`drift status`: what is open, how far the workers have come, and what the budget buys; nobody's offsets move."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from doorway import Drift
from flows import START_MS, Flow, Stream, built, published, view
from labelled import Labelled
from outcomeflow import reference

from stream import config
from stream.cli import standing
from stream.cli.status import spent
from stream.wire import codec
from stream.wire.record import Outgoing, Record
from stream.worker.metadata import IngestMark, encode_ingest

ALERT = Path(__file__).parent.parent / "wire" / "contract_alert.json"
MARK_MS = 1_795_219_200_000


def event(number: int, sequence: int = 0, status: str = "firing", **data: Any) -> dict[str, Any]:
    """The alert of the contract with a name of its own."""
    found: dict[str, Any] = json.loads(ALERT.read_text())
    own = {"alert_id": f"{number:032x}", "sequence": sequence, "status": status}
    found["data"] |= own | data
    return found


def numbers(told: standing.Told) -> list[int]:
    return [int(one["data"]["alert_id"], 16) for one in told.opened]


# -- what is open ------------------------------------------------------------------------------------------------------


def test_what_fires_and_was_not_resolved_is_open_whatever_the_order() -> None:
    events = [event(1), event(2), event(2, 1), event(2, 2, "resolved"), event(3, 1)]
    assert numbers(standing.told(events)) == [1, 3]
    assert numbers(standing.told(reversed(events))) == [1, 3]


def test_an_open_alert_is_shown_as_it_was_told_last() -> None:
    told = standing.told([event(1), event(1, 1, severity="critical")])
    assert [one["data"]["severity"] for one in told.opened] == ["critical"]


def test_notices_are_never_open_and_foreign_records_are_passed_over() -> None:
    told = standing.told([event(1, status="notice"), {}, {"data": None}, {"data": {"status": "firing"}}, event(2)])
    assert numbers(standing.Told([one for one in told.opened if "alert_id" in one["data"]], 0)) == [2]


def test_episodes_above_info_are_counted_once() -> None:
    events = [event(1), event(1, 1), event(2, severity="info"), event(3), event(3, 1, "resolved")]
    assert standing.told(events).above_info == 2


def test_only_the_models_asked_for_count() -> None:
    events = [event(1), event(2, model_id="fraud")]
    assert numbers(standing.told(events, {"fraud"})) == [2]
    assert standing.told(events, {"fraud"}).above_info == 1


@pytest.fixture(scope="module")
def logged() -> tuple[Outgoing, list[Outgoing]]:
    """A reference, and the readings of two windows under it."""
    reference = built()
    return published(reference), Flow(view(reference)).run(Stream().records(700)).of("windows")


# -- the present traffic -----------------------------------------------------------------------------------------------


def test_the_traffic_of_a_signal_is_the_mean_over_its_windows_empty_ones_included(
    logged: tuple[Outgoing, list[Outgoing]],
) -> None:
    base = {"window_start": "2026-11-21T02:05:00.000Z", "window_end": "2026-11-21T02:06:00.000Z"}
    first = orjson.loads(logged[1][0].value or b"") | base
    values = [first | {"n": n, "n_missing": 2, "n_invalid": 1} for n in (0, 10, 50)]
    records = [
        Record("w", 0, at, 0, None, value)
        for at, value in enumerate([*map(orjson.dumps, values), b"\xff", b"{}", None])
    ]
    assert standing.traffic_of(records) == {("credit", "3"): {("all", "feature:amount"): (20.0, 23.0)}}


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def status(
    drift: Drift, broker: Producer, bootstrap: str, logged: tuple[Outgoing, list[Outgoing]]
) -> Callable[..., Any]:
    """A cluster with two open alerts, a reference, readings, and a group that has read a part of the inputs."""
    prefix = f"s{uuid4().hex[:8]}."
    alerts, predictions = f"{prefix}alerts", f"{prefix}predictions"
    for topic in (alerts, predictions, f"{prefix}references", f"{prefix}windows", f"{prefix}profiles"):
        broker.list_topics(topic, timeout=5)
    for number, one in enumerate(
        [event(1), event(2, kind="performance", severity="critical"), event(3, 1, "resolved")]
    ):
        broker.produce(alerts, orjson.dumps(one), partition=number, timestamp=MARK_MS + number)
    reference, readings = logged
    broker.produce(f"{prefix}references", reference.value, reference.key, partition=0)
    for reading in readings:
        broker.produce(f"{prefix}windows", reading.value, reading.key, timestamp=MARK_MS)
    for number in range(10):
        broker.produce(predictions, b"{}", partition=number % 2)
    assert broker.flush(5) == 0
    _commit(bootstrap, prefix, predictions)
    Path("drift.toml").write_text(
        f'service = {{ id = "{prefix}" }}\n[kafka]\nbootstrap_servers = "{bootstrap}"\n'
        f'[topics]\nalerts = "{alerts}"\npredictions = ["{predictions}"]\nfeedback = []\nprefix = "{prefix}"\n'
        '[[models]]\nid = "credit"\nsegments = ["country"]\n'
    )
    return lambda *more: drift("status", *more)


def _commit(bootstrap: str, group: str, topic: str) -> None:
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    mark = encode_ingest(IngestMark(MARK_MS, live=True, topic_id="t"))
    member.commit(offsets=[TopicPartition(topic, 0, 3, metadata=mark)], asynchronous=False)
    member.close()


def test_it_shows_open_alerts_lag_and_watermarks_and_the_budget(status: Callable[..., Any]) -> None:
    shown = status()
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "open alerts  2 (1 critical, 1 warning)"
    assert "budget  1 false alarm in 7d over up to 64 model versions; 1 in force" in lines
    assert "told    2 above info in the newest two days" in shown.stdout
    places = [line.split() for line in lines if "predictions" in line]
    assert [(place[1], place[2]) for place in places[:2]] == [("0", "2"), ("1", "5")]
    assert places[0][3:5] == ["2026-11-21", "00:00:00"]


def test_json_holds_the_same_for_programs(status: Callable[..., Any]) -> None:
    found = json.loads(status("-o", "json").stdout)
    assert [one["severity"] for one in found["alerts"]] == ["warning", "critical"]
    assert found["places"][0]["lag_records"] == 2
    assert found["places"][0]["watermark"] == "2026-11-21T00:00:00.000Z"
    assert found["places"][1]["watermark"] is None
    assert found["budget"]["model_versions_in_force"] == 1


@pytest.mark.parametrize(("given", "code"), [("info", 1), ("critical", 1)])
def test_fail_on_tells_scripts_that_something_is_open(status: Callable[..., Any], given: str, code: int) -> None:
    assert status("--fail-on", given).exit_code == code


def test_fail_on_looks_at_the_models_asked_for(status: Callable[..., Any]) -> None:
    assert status("--fail-on", "info", "--model", "fraud").exit_code == 0


def test_the_budget_is_shown_with_shares_thresholds_and_what_is_found(status: Callable[..., Any]) -> None:
    shown = status("--budget")
    assert shown.exit_code == 0, shown.stderr
    assert "credit/3  reference" in shown.stdout
    rows = {tuple(line.split()[:3]): line for line in shown.stdout.splitlines() if line.startswith("feature:amount")}
    assert " sd" in rows["feature:amount", "distribution", "histogram"]
    assert "delta" in rows["feature:amount", "mean", "adwin"]
    assert "lambda" in rows["feature:amount", "mean", "page_hinkley"]
    assert "of the events" in rows["feature:amount", "missing", "mean"]
    assert "and 3 more segments (-o json)" in shown.stdout


def test_the_budget_as_json_has_all_segments(status: Callable[..., Any]) -> None:
    (version,) = json.loads(status("--budget", "-o", "json").stdout)["versions"]
    assert {one["segment"] for one in version["signals"]} == {"all", "country=AT", "country=DE", "country=other"}
    one = next(one for one in version["signals"] if (one["segment"], one["signal"]) == ("all", "latency"))
    assert one["events"] > 250
    assert 0 < one["smallest"] < 1
    assert json.loads(status("--budget", "-o", "json", "--model", "fraud").stdout)["versions"] == []


def test_outcomes_have_their_shares_and_thresholds_too() -> None:
    labelled = reference(Labelled(seed=99))
    both = view(built()).apply(Record("drift.references", 0, 1, 0, None, codec.encode_reference(labelled)))
    (one,) = spent(config.load(None, {}), both, {}, START_MS + 60_000)
    assert {"performance", "concept_drift", "data_drift", "silence"} <= {group.kind for group in one.groups}
    assert sum(group.share for group in one.groups) <= 1 / 64 + 1e-12
    (error,) = [
        power
        for power in one.signals
        if (power.segment, power.signal, power.detector) == ("all", "outcome:error", "mean")
    ]
    assert error.unit == "share"
    assert error.smallest is not None
    assert 0.01 < error.smallest < 0.3
    assert {"volume:predictions", "volume:feedback"} <= {power.signal for power in one.signals}
    names = {power.detector for power in one.signals if power.signal == "outcome:error"}
    assert names == {"mean", "adwin", "page_hinkley"}
    (alone,) = spent(config.load(None, {"DRIFT_TOPICS__FEEDBACK": "[]"}), both, {}, START_MS + 60_000)
    assert not [power for power in alone.signals if power.signal.startswith("outcome:")]
