"""Metrics and health, as a scraper and an orchestrator see them."""

import http.client
import json
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream.worker.http import Server
from stream.worker.metrics import FAMILIES
from stream.worker.settings import Http
from stream.worker.status import Status


class Worker:
    """A server over a status whose clock stands where the test puts it."""

    def __init__(self) -> None:
        self.status = Status()
        self.now_seconds = 1_000.0
        self.server = Server(Http(port=0), self.status, lambda: self.now_seconds)
        self.server.start()

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.server.stop()


def test_it_lives_as_long_as_the_loop_turns(worker: Worker) -> None:
    assert worker.get("/livez")[0] == 200
    worker.status.turned_seconds = 950.0
    assert worker.get("/livez")[0] == 200
    worker.status.turned_seconds = 900.0
    code, body = worker.get("/livez")
    assert code == 503
    assert json.loads(body)["reasons"] == ["the loop has not turned for 100 s"]


def test_it_is_started_once_every_task_was_restored(worker: Worker) -> None:
    assert worker.get("/startupz")[0] == 503
    worker.status.joined = True
    worker.status.restoring = {"detect": 2}
    assert json.loads(worker.get("/startupz")[1])["reasons"] == ["restoring 2 detect tasks"]
    worker.status.started = True
    assert worker.get("/startupz")[0] == 200


def test_it_is_ready_when_it_has_joined_and_nothing_is_in_the_way(worker: Worker) -> None:
    assert worker.get("/readyz")[0] == 503
    worker.status.joined = True
    assert worker.get("/readyz")[0] == 200
    worker.status.restoring = {"detect": 1}
    worker.status.holding = {("predictions", 0): "dead_letters", ("predictions", 1): "internal_lag"}
    worker.status.uncommitted_since_seconds = 900.0
    assert json.loads(worker.get("/readyz")[1])["reasons"] == [
        "restoring 1 detect tasks",
        "predictions 0: dead_letters",
        "nothing committed for 100 s",
    ]


def test_metrics_parse_and_carry_their_labels(worker: Worker) -> None:
    status = worker.status
    status.records["predictions", "ok"] = 7
    status.dead_letters["predictions", "json_invalid"] = 2
    status.lag_records = {("predictions", 3): 5}
    status.watermark_ms = {("predictions", 3): 1_000}
    status.alerts["m", "data_drift", "warning", "firing"] = 1
    status.stage_seconds["ingest"].add(0.02)
    code, body = worker.get("/metrics")
    assert code == 200
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert families.keys() == {family.name for family in FAMILIES}
    assert [(s.labels, s.value) for s in families["drift_records"].samples] == [
        ({"topic": "predictions", "outcome": "ok"}, 7.0)
    ]
    assert families["drift_consumer_lag_records"].samples[0].labels == {"topic": "predictions", "partition": "3"}
    counted = [s for s in families["drift_stage_duration_seconds"].samples if s.name.endswith("_count")]
    assert {s.labels["stage"]: s.value for s in counted}["ingest"] == 1.0


def test_a_value_with_a_newline_stays_one_line(worker: Worker) -> None:
    worker.status.alerts['a"\n\\b', "data_drift", "warning", "firing"] = 1
    body = worker.get("/metrics")[1]
    [family] = [f for f in text_string_to_metric_families(body) if f.name == "drift_alerts"]
    assert family.samples[0].labels["model_id"] == 'a"\n\\b'


def test_other_paths_and_methods_are_refused_without_a_word(worker: Worker) -> None:
    assert worker.get("/secret?x=1") == (404, '{"error":"not found"}')
    for method in ("POST", "PUT", "DELETE", "<script>"):
        assert worker.get("/livez", method)[1] == '{"error":"refused"}'
    assert json.loads(worker.get("/version")[1]).keys() == {"version", "python", "librdkafka"}


def test_garbage_and_silence_do_not_stop_it(worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", worker.server.port)) as silent:
        with socket.create_connection(("127.0.0.1", worker.server.port)) as noisy:
            noisy.sendall(b"\x16\x03\x01" + b"A" * 100_000)
        assert worker.get("/livez")[0] == 200
        assert silent
