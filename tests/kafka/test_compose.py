"""What docker-compose.yml says, done without Docker: its commands with its environment, on a real broker."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kafka.cluster import Cluster

ROOT: Final = Path(__file__).parent.parent.parent
DEADLINE_S: Final = 180
SERVICES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def _environment(service: str, cluster: Cluster) -> Mapping[str, str]:
    """As in the file, but for what a container has to itself: the broker's address, a port, names of topics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    described: dict[str, str] = SERVICES[service]["environment"]
    own = {
        "DRIFT_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap,
        "DRIFT_HTTP__PORT": str(port),
        "DRIFT_TOPICS__PREDICTIONS": '["compose.predictions"]',
        "DRIFT_TOPICS__ALERTS": "compose.alerts",
        "DRIFT_TOPICS__PREFIX": "compose.",
    }
    return os.environ | described | own


def _command(service: str) -> list[str]:
    return [sys.executable, "-m", "stream", *SERVICES[service]["command"]]


@contextmanager
def _running(service: str, cluster: Cluster, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One replica of a service, stopped as `docker compose down` stops it."""
    with log.open("wb") as out:
        process = subprocess.Popen(_command(service), env=_environment(service, cluster), stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _wait_for(condition: Callable[[], bool], *, while_running: Mapping[Path, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        for log, process in while_running.items():
            assert process.poll() is None, log.read_text(encoding="utf-8")[-2_000:]
        assert time.monotonic() < deadline, {
            str(log): log.read_text(encoding="utf-8")[-1_000:] for log in while_running
        }
        time.sleep(0.5)


@pytest.mark.timeout(600)
def test_the_services_of_the_compose_file_tell_the_planted_drift(cluster: Cluster, tmp_path: Path) -> None:
    made = subprocess.run(
        _command("topics"), env=_environment("topics", cluster), capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stderr

    with ExitStack() as services:
        names = [*(["worker"] * SERVICES["worker"]["deploy"]["replicas"]), "demo"]
        logs = [tmp_path / f"{number}-{name}.log" for number, name in enumerate(names)]
        running = {
            log: services.enter_context(_running(name, cluster, log)) for name, log in zip(names, logs, strict=True)
        }

        def told() -> bool:
            events = [json.loads(message.value() or b"{}") for message in cluster.records("compose.alerts")]
            return any((event["data"]["kind"], event["data"]["status"]) == ("data_drift", "firing") for event in events)

        _wait_for(told, while_running=running)

    assert [process.returncode for process in running.values()] == [0] * len(running)
