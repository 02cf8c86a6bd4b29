"""The process around the loop, as far as it needs no broker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stream.wire.record import Outgoing
from stream.worker import access, clients, telling
from stream.worker.ends import Stopped
from stream.worker.logs import speaker
from stream.worker.run import slot_of, supervise
from stream.worker.settings import Kafka, Log, Settings
from stream.worker.status import Status
from stream.worker.task import Task


def test_a_slot_is_given_or_set_or_the_ordinal_of_the_host_or_random(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slot_of("7", {"DRIFT_SLOT": "3"}) == "7"
    assert slot_of(None, {"DRIFT_SLOT": "3"}) == "3"
    monkeypatch.setattr("socket.gethostname", lambda: "drift-12")
    assert slot_of(None, {}) == "12"
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    assert slot_of(None, {}) != slot_of(None, {})


def test_a_broker_that_does_not_answer_is_named_when_patience_ends() -> None:
    settings = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(Stopped) as stopped:
        access.wait_for_broker(settings, lambda *_args, **_fields: None, lambda: False, patience_seconds=0.5)
    assert (stopped.value.exit_code, stopped.value.reason) == (4, "unreachable")
    assert stopped.value.detail.startswith("127.0.0.1:1: ")


def test_waiting_for_a_broker_ends_when_the_process_is_asked_to() -> None:
    settings = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))
    access.wait_for_broker(settings, lambda *_args, **_fields: None, lambda: True)


def test_a_log_line_is_one_line_of_json_and_foreign_text_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    say = speaker(Log(format="json"), slot="0")
    say("aborted", task=Task("detect", ("drift.profiles", 3), 0.0), detail="a\nb\x1b[31m" + "x" * 10_000)
    [line] = capfd.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["stage"], found["topic"], found["partition"]) == ("detect", "drift.profiles", 3)
    assert found["level"] == "warning"
    assert found["detail"].startswith("a\\nb\\x1b[31m")
    assert len(found["detail"]) == 256


def test_levels_filter(capfd: pytest.CaptureFixture[str]) -> None:
    say = speaker(Log(level="warning", format="json"))
    say("transaction")
    say("stopped")
    assert [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()] == ["stopped"]


def test_the_coordinators_trouble_is_noticed_in_the_clients_own_log() -> None:
    watch = clients.CoordinatorWatch(lambda *_args, **_fields: None)
    watch.log(20, "%s [%s] %s", "FAIL", "p", "[thrd:x]: 127.0.0.1:1/1: Disconnected")
    watch.log(20, "%s [%s] %s", "TXNSTATE", "p", "[thrd:TxnCoordinator]: TxnCoordinator: state")
    assert not watch.tainted
    watch.log(20, "%s [%s] %s", "REQTMOUT", "p", "[thrd:TxnCoordinator]: TxnCoordinator: Timed out EndTxnRequest")
    assert watch.tainted


def test_alerts_readings_and_dead_letters_are_counted_by_key_and_header() -> None:
    status = Status()
    headers = (
        ("ce_type", b"io.driftstream.alert.firing.v1"),
        ("ce_subject", b"cr%2Fedit/3/country%3DDE/data_drift"),
        ("ce_severitytext", b"WARNING"),
        ("ce_correlationid", b"id"),
    )
    alert = Outgoing("alerts", b"fp", b"{}", headers)
    readings = [
        Outgoing("windows", b'["m","1","all","x%d"]' % n, b"{}", (), None, 60_000 * w) for n in (1, 2) for w in (1, 2)
    ]
    letter = Outgoing("dead_letters", None, b"", (("drift.error.topic", b"p"), ("drift.error.code", b"json_invalid")))
    telling.count(status, [alert, *readings, letter], 1, 125_000)
    assert status.alerts == {("cr/edit", "data_drift", "warning", "firing"): 1}
    assert status.windows_closed == {"other": 2}
    assert status.close_delay_seconds.sum_seconds == 70.0
    assert status.dead_letters == {("p", "json_invalid"): 1}
    assert status.published == {"alerts": 1, "windows": 4, "dead_letters": 1}
    assert telling.alerts([alert])[0] | {"severity": "warning"} == {
        "fingerprint": "fp",
        "alert_id": "id",
        "severity": "warning",
        "status": "firing",
        "model_id": "cr/edit",
        "model_version": "3",
        "segment": "country=DE",
        "kind": "data_drift",
    }


CHILD = """
import os, sys, time
folder, code = sys.argv[1], int(sys.argv[2])
path = os.path.join(folder, os.environ["DRIFT_SLOT"])
with open(path, "a") as file:
    file.write(os.environ["DRIFT_HTTP__PORT"] + " ")
with open(path) as file:
    first = len(file.read().split()) == 1
if first:
    sys.exit(code)
time.sleep(60)
"""


def test_several_workers_have_slots_and_ports_of_their_own_and_75_means_again(tmp_path: Path) -> None:
    def stop_when_all_are_back() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            said = [(tmp_path / slot).read_text() for slot in ("4", "5") if (tmp_path / slot).exists()]
            if len(said) == 2 and all(len(text.split()) == 2 for text in said):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    watcher = threading.Thread(target=stop_when_all_are_back)
    watcher.start()
    try:
        code = supervise([sys.executable, "-c", CHILD, str(tmp_path), "75"], 2, first_slot=4, http_port=9000)
    finally:
        watcher.join()
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert code == 128 + signal.SIGTERM
    assert (tmp_path / "4").read_text().split() == ["9000", "9000"]
    assert (tmp_path / "5").read_text().split() == ["9001", "9001"]


def test_a_worker_that_needs_a_decision_stops_all(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert supervise([sys.executable, "-c", CHILD, str(tmp_path), "5"], 2) == 5
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


HANG = """
import time
from stream.worker.watchdog import Watchdog
dog = Watchdog(0.2)
dog.start()
with dog.guard("a call that ends"):
    pass
with dog.guard("commit"):
    time.sleep(30)
"""


def test_a_call_that_hangs_ends_the_process_with_75_and_all_stacks(tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text(HANG)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 75
    assert "watchdog: commit hangs" in done.stderr
    assert "hang.py" in done.stderr
