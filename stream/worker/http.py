"""Metrics and health over HTTP, on a thread of its own that reads `Status` and touches no client.

`/livez` the loop turns, whatever the broker does; `/startupz` every assigned task was restored once; `/readyz` the
group is joined, nothing is restoring, and commits go through; `/metrics`; `/version`. GET only. A 503 says why, as
JSON.
"""

import platform
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import msgspec
from confluent_kafka import libversion

from stream.worker.metrics import package_version, page
from stream.worker.settings import Http
from stream.worker.status import Status

LIVE_SECONDS: Final = 60.0
"""Half of max.poll.interval.ms: later the group sends us away."""
COMMIT_SECONDS: Final = 60.0
REQUEST_SECONDS: Final = 10.0
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON: Final = "application/json"

Answer = tuple[int, str, bytes]


def why_not_live(status: Status, now_seconds: float) -> list[str]:
    """Reasons for which the process should be restarted."""
    turned = status.turned_seconds
    if turned is not None and now_seconds - turned > LIVE_SECONDS:
        return [f"the loop has not turned for {now_seconds - turned:.0f} s"]
    return []


def why_not_started(status: Status) -> list[str]:
    """Reasons for which it is too early to judge."""
    if status.started:
        return []
    return ["not joined"] if not status.joined else [_restoring(status) or "no partition yet"]


def why_not_ready(status: Status, now_seconds: float) -> list[str]:
    """Reasons for which windows may wait for this worker."""
    reasons = [] if status.joined else ["not joined"]
    if status.stopping:
        reasons.append("stopping")
    if restoring := _restoring(status):
        reasons.append(restoring)
    reasons += [
        f"{topic} {partition}: {reason}"
        for (topic, partition), reason in sorted(dict(status.holding).items())
        if reason not in {"internal_lag", "leads"}
    ]
    waiting = status.uncommitted_since_seconds
    if waiting is not None and now_seconds - waiting > COMMIT_SECONDS:
        reasons.append(f"nothing committed for {now_seconds - waiting:.0f} s")
    return reasons


def _restoring(status: Status) -> str:
    held = {stage: count for stage, count in dict(status.restoring).items() if count}
    return "restoring " + ", ".join(f"{count} {stage} tasks" for stage, count in held.items()) if held else ""


class Server:
    """The server and its thread."""

    def __init__(self, settings: Http, status: Status, clock: Callable[[], float] = time.monotonic) -> None:
        metrics = page(status)
        routes: dict[str, Callable[[], Answer]] = {
            "/livez": lambda: _health(why_not_live(status, clock())),
            "/startupz": lambda: _health(why_not_started(status)),
            "/readyz": lambda: _health(why_not_ready(status, clock())),
            "/metrics": lambda: (200, TEXT, metrics()),
            "/version": _version,
        }
        self._server = _Server((settings.host, settings.port), _handler(routes))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event; nothing of it belongs into the log."""


def _handler(routes: dict[str, Callable[[], Answer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS
        server_version = "driftstream"
        sys_version = ""

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            self._answer(*(route() if route is not None else (404, JSON, b'{"error":"not found"}')))

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - what was sent stays unsaid
            """Anything but a good GET: a number, and no word of what was sent."""
            self.close_connection = True
            self._answer(code, JSON, b'{"error":"refused"}')

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            """Scrapes are no news."""

    return Handler


def _health(reasons: list[str]) -> Answer:
    if not reasons:
        return 200, JSON, b'{"status":"ok"}'
    return 503, JSON, msgspec.json.encode({"status": "unavailable", "reasons": reasons})


def _version() -> Answer:
    found = {"version": package_version(), "python": platform.python_version(), "librdkafka": libversion()[0]}
    return 200, JSON, msgspec.json.encode(found)
