"""`drift health`: what a container asks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from doorway import Drift

from stream.worker.http import Server
from stream.worker.settings import Http
from stream.worker.status import Status


@pytest.fixture
def status() -> Status:
    return Status()


@pytest.fixture
def port(status: Status) -> Iterator[int]:
    server = Server(Http(port=0), status)
    server.start()
    Path("drift.toml").write_text(f'[http]\nport = {server.port}\nhost = "0.0.0.0"\n')
    yield server.port
    server.stop()


def test_a_worker_that_has_not_joined_is_not_ready(drift: Drift, port: int) -> None:
    result = drift("health")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"drift: http://127.0.0.1:{port}/readyz: 503 ")
    assert "not joined" in result.stderr


def test_a_worker_that_has_joined_is_ready(drift: Drift, status: Status, port: int) -> None:
    status.joined = status.started = True
    assert drift("health").exit_code == 0
    assert drift("health", "--url", f"http://127.0.0.1:{port}/readyz").exit_code == 0


def test_nobody_there_is_not_ready_either(drift: Drift) -> None:
    result = drift("health", "--url", "http://127.0.0.1:1/readyz")
    assert result.exit_code == 1
    assert "no answer (" in result.stderr
    assert "is the worker running?" in result.stderr


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8080", ""])
def test_only_http_is_asked(drift: Drift, url: str) -> None:
    result = drift("health", "--url", url)
    assert result.exit_code == (2 if url else 1)
