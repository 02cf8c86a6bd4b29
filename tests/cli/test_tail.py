"""`drift tail`: history and what follows, chosen and printed; nobody's offsets move."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
import typer
from confluent_kafka import Producer
from doorway import Drift

from stream.cli.tail import parse_since

ALERT = Path(__file__).parent.parent / "wire" / "contract_alert.json"
NOW_MS = 1_795_219_200_000


def alert(number: int, **data: Any) -> dict[str, Any]:
    """The alert of the contract with a name of its own."""
    event: dict[str, Any] = json.loads(ALERT.read_text())
    event["data"] |= {"alert_id": f"{number:032x}"} | data
    return event | {"id": f"{number:032x}-0"}


@pytest.fixture
def arguments(broker: Producer, bootstrap: str) -> list[str]:
    """A topic with six alerts on several partitions and one record that is none."""
    topic = f"alerts-{uuid4().hex[:8]}"
    broker.list_topics(topic, timeout=5)
    events = [
        alert(1),
        alert(2, kind="performance", severity="critical"),
        alert(3, model_id="fraud"),
        alert(4, status="resolved"),
        alert(5, kind="outlier", severity="info", status="notice"),
        alert(6),
    ]
    for number, event in enumerate(events):
        broker.produce(topic, orjson.dumps(event), partition=number % 4, timestamp=NOW_MS + number)
    broker.produce(topic, b"\xff not an alert", partition=0, timestamp=NOW_MS + 3)
    assert broker.flush(5) == 0
    Path("drift.toml").write_text(f'[kafka]\nbootstrap_servers = "{bootstrap}"\n[topics]\nalerts = "{topic}"\n')
    return ["tail"]


def numbers(lines: str) -> list[int]:
    return [int(json.loads(line)["data"]["alert_id"], 16) for line in lines.splitlines()]


@pytest.fixture
def tail(drift: Drift, arguments: list[str]) -> Callable[..., Any]:
    return lambda *more: drift(*arguments, *more)


def test_alerts_come_in_order_of_time_whatever_their_partition(tail: Callable[..., Any]) -> None:
    result = tail("-o", "json")
    assert result.exit_code == 0
    assert numbers(result.stdout) == [1, 2, 3, 4, 5, 6]
    assert "is no alert and is left out" in result.stderr


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        (["-n", "2"], [5, 6]),
        (["-n", "0"], []),
        (["--model", "fraud"], [3]),
        (["--kind", "outlier", "--kind", "performance"], [2, 5]),
        (["--severity", "warning"], [1, 2, 3, 4, 6]),
        (["--severity", "critical"], [2]),
        (["--status", "resolved"], [4]),
        (["--severity", "warning", "--kind", "data_drift", "--model", "credit", "-n", "1"], [6]),
    ],
)
def test_alerts_can_be_chosen(tail: Callable[..., Any], choice: list[str], chosen: list[int]) -> None:
    result = tail("-o", "json", *choice)
    assert result.exit_code == 0
    assert numbers(result.stdout) == chosen


def test_raw_is_the_bytes_of_the_topic(tail: Callable[..., Any]) -> None:
    result = tail("-o", "raw", "-n", "1", "--kind", "outlier")
    assert result.stdout_bytes == orjson.dumps(alert(5, kind="outlier", severity="info", status="notice")) + b"\n"


def test_a_table_has_a_line_for_each(tail: Callable[..., Any]) -> None:
    lines = tail("-o", "table", "--severity", "warning").stdout.splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("2026-11-21 02:06:00  CRITICAL  ▲ firing    performance")


def test_pretty_says_what_to_do(tail: Callable[..., Any]) -> None:
    shown = tail("-n", "1").stdout
    assert "Check the producer of income before retraining." in shown
    assert "\x1b" not in shown
    assert "\x1b" in tail("-n", "1", "--color", "always").stdout


def test_a_missing_topic_is_exit_code_3(drift: Drift, bootstrap: str) -> None:
    Path("drift.toml").write_text(f'[kafka]\nbootstrap_servers = "{bootstrap}"\n[topics]\nalerts = "..."\n')
    result = drift("tail")
    assert result.exit_code in {3, 4}
    assert "..." in result.stderr


def test_no_address_is_exit_code_3_and_names_the_key(drift: Drift) -> None:
    result = drift("tail")
    assert result.exit_code == 3
    assert result.stderr.startswith("drift: kafka.bootstrap_servers is not set; set it in drift.toml or as ")


def test_a_broker_that_does_not_answer_is_exit_code_4(drift: Drift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cli.clients.ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("DRIFT_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = drift("tail")
    assert result.exit_code == 4
    assert "127.0.0.1:1 does not answer; is it the right address (kafka.bootstrap_servers)" in result.stderr


@pytest.mark.parametrize("text", ["yesterday", "15", "", "-5m"])
def test_a_time_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a duration such as 15m, or a time such as"):
        parse_since(text, NOW_MS)


def test_since_is_a_duration_or_a_time() -> None:
    assert parse_since("15m", NOW_MS) == NOW_MS - 900_000
    assert parse_since("2026-11-21T02:00:00+02:00", 0) == NOW_MS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_following_shows_what_comes_and_ends_without_an_error(
    arguments: list[str], broker: Producer, number: signal.Signals
) -> None:
    topic = Path("drift.toml").read_text().rpartition('alerts = "')[2].strip('"\n')
    command = [sys.executable, "-m", "stream", *arguments, "-f", "-n", "1", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert numbers(following.stdout.readline()) == [6]
        broker.produce(topic, orjson.dumps(alert(7)), partition=2)
        broker.flush(5)
        assert numbers(following.stdout.readline()) == [7]
        following.send_signal(number)
        assert following.wait(10) == 0
