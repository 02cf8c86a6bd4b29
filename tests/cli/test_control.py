"""`drift control`: what is written is what a worker reads, and what it would refuse is refused here."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer
from doorway import Drift
from worlds import START_MS, World

from stream.wire import control
from stream.wire.control import ControlEvent
from stream.wire.inbound import Limits
from stream.wire.times import rfc3339

VERBS = {
    "mute": ["--until", "2026-12-27T00:00:00Z", "--kind", "data_drift", "--kind", "outlier", "--reason", "holidays"],
    "relearn": ["--model", "credit", "--version", "3"],
    "resolve": ["--fingerprint", "ffc82447919be0d9"],
    "retrained": ["--alert-id", "aa6c9e235e5778d0e3e80d3bff8892fd", "--outcome", "succeeded", "--version", "4"],
    "marker": ["--text", "deploy", "--model", "credit", "--url", "https://example.org/deploys/7"],
}
AT = ["--effective-at", "2026-12-24T00:00:00Z"]


def written(text: str) -> ControlEvent:
    found = control.decode(text.strip().encode(), Limits())
    assert isinstance(found, ControlEvent)
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_printed_is_an_event_that_a_worker_takes(drift: Drift, verb: str) -> None:
    result = drift("control", verb, *VERBS[verb], *AT, "--id", "mine", "--dry-run")
    assert result.exit_code == 0, result.output
    event = written(result.stdout)
    assert (event.source, event.id) == ("/drift/control", "mine")
    assert type(event.decision) is control.DECISIONS[verb]
    assert event.decision.effective_at_ms == 1_798_070_400_000


def test_times_may_be_durations_and_ids_are_made(drift: Drift) -> None:
    results = [drift("control", "mute", "--until", "3d", "--effective-at", "2h", "--dry-run") for _ in range(2)]
    first, second = (written(result.stdout) for result in results)
    assert first.id != second.id
    assert isinstance(first.decision, control.Mute)
    assert first.decision.until_ms - first.decision.effective_at_ms == 3 * 86_400_000
    assert rfc3339(first.decision.effective_at_ms) > json.loads(results[0].stdout)["time"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mute", "--until", "soon"], "--until"),
        (["mute", "--until", "2026-12-01T00:00:00Z", *AT], "later than effective_at"),
        (["mute", "--until", "3d", "--kind", "drift"], "expected one of data_drift"),
        (["resolve", "--fingerprint", "x"], "16 hex digits"),
        (["retrained", "--alert-id", "0" * 32, "--outcome", "done"], "expected one of succeeded"),
        (["relearn", "--model", "credit"], "--version"),
    ],
)
def test_what_a_worker_would_refuse_is_wrong_usage(drift: Drift, arguments: list[str], words: str) -> None:
    result = drift("control", *arguments, "--dry-run")
    assert result.exit_code == 2
    assert words in result.output


def test_the_event_is_written_into_its_topic(drift: Drift, broker: Producer, bootstrap: str) -> None:
    broker.list_topics("drift.control", timeout=5)
    result = drift("control", "marker", "--text", "deploy", "-X", "socket.timeout.ms=5000", env=_connected(bootstrap))
    assert result.exit_code == 0, result.output
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    reader.subscribe(["drift.control"])
    message = next(found for _ in range(50) if (found := reader.poll(0.5)) is not None)
    reader.close()
    assert message.value() == result.stdout.strip().encode()
    assert message.headers() == [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def test_a_broker_that_is_away_is_said(drift: Drift) -> None:
    assert drift("control", "marker", "--text", "deploy").exit_code == 3


def test_a_replay_obeys_the_control_events_of_a_file(drift: Drift) -> None:
    Path("drift.toml").write_text('[windows]\nsize = "10s"\n')
    Path("training.jsonl").write_bytes(b"\n".join(World(seed=1, missing=0).records(3_000)) + b"\n")
    Path("rows.jsonl").write_bytes(b"\n".join(World(seed=2, missing=0).records(600)) + b"\n")
    mute = control.Mute(effective_at_ms=START_MS + 10_000, until_ms=START_MS + 30_000)
    event = control.cloud_event(ControlEvent("test", "1", mute), START_MS)
    Path("events.jsonl").write_bytes(event + b"\n")
    built = drift("reference", "build", "training.jsonl", "--out", "reference.json")
    assert built.exit_code == 0, built.output
    given = ["rows.jsonl", "--reference", "reference.json", "--windows", "windows.jsonl", "--control", "events.jsonl"]
    assert drift("replay", *given).exit_code == 0
    readings = [json.loads(line) for line in Path("windows.jsonl").read_text().splitlines()]
    muted = {one["window_start"] for one in readings if one["verdicts"] and one["verdicts"][0]["reason"] == "muted"}
    assert muted == {rfc3339(START_MS + 10_000), rfc3339(START_MS + 20_000)}
    assert len({one["window_start"] for one in readings}) == 6


def test_a_file_of_control_events_with_a_bad_one_is_wrong_usage(drift: Drift) -> None:
    Path("rows.jsonl").write_bytes(World().records(1)[0])
    event = control.cloud_event(ControlEvent("test", "1", control.Marker(effective_at_ms=0, text="x")), START_MS)
    Path("bad.jsonl").write_bytes(event + b"\n\n" + orjson.dumps(_without(orjson.loads(event), "type")) + b"\n")
    result = drift("replay", "rows.jsonl", "--control", "bad.jsonl")
    assert result.exit_code == 2
    assert "row 2: field_missing" in result.output
    assert drift("replay", "rows.jsonl", "--control", "absent.jsonl").exit_code == 2


def _without(event: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != key}


def _connected(bootstrap: str) -> dict[str, str]:
    return {"DRIFT_KAFKA__BOOTSTRAP_SERVERS": bootstrap}
