"""The worker as a process: slot, signals, HTTP, log, and the exit code of whatever ends it."""

import ctypes
import gc
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import FrameType
from typing import Final

from confluent_kafka import KafkaException, libversion

from stream.worker import access, topics
from stream.worker.ends import EXIT_BUG, EXIT_CONFIGURATION, EXIT_OK, EXIT_RESTART, Stopped
from stream.worker.failpoints import VARIABLE, Failpoints
from stream.worker.http import Server
from stream.worker.kafka import KafkaEnds
from stream.worker.logs import speaker
from stream.worker.loop import Clock, Loop, Options
from stream.worker.metrics import package_version
from stream.worker.settings import Settings
from stream.worker.stages import Stages
from stream.worker.status import Status
from stream.worker.watchdog import Watchdog

STOP_SECONDS: Final = 30.0
CHECK_SECONDS: Final = 15.0
RESTART_SECONDS: Final = 1.0
SLOT: Final = "DRIFT_SLOT"
YOUNG_OBJECTS: Final = 200_000
"""Containers made before the collector looks for cycles: more than a poll and its rows, which die without its help."""
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Of glibc's malloc.h."""
BLOCK_BYTES_MAX: Final = 32 * 1024 * 1024
"""Larger blocks are the kernel's own; glibc takes no higher limit."""
KEPT_BYTES: Final = 128 * 1024 * 1024
"""Free memory kept at most: some batches of records with their columns."""


def slot_of(given: str | None, environment: Mapping[str, str]) -> str:
    """The stable number of this worker: given, DRIFT_SLOT, the ordinal of the host name (`drift-3`), else random."""
    if slot := given or environment.get(SLOT):
        return slot
    ordinal = re.search(r"-(\d+)$", socket.gethostname())
    return ordinal[1] if ordinal else secrets.token_hex(4)


def run(
    settings: Settings,
    stages: Stages,
    *,
    slot: str | None = None,
    accepted: Collection[str] = (),
    check_only: bool = False,
) -> int:
    """The service, until SIGTERM or SIGINT (exit code 0), or until something ends it.

    What goes wrong before the clients exist is returned as exit code. Afterwards the process ends on the spot with that
    code: a client that is torn down in a bad state may hang, and a dead worker is what everything here is built for.
    """
    name = slot_of(slot, os.environ)
    say = speaker(settings.log, slot=name)
    stop = threading.Event()
    watchdog = Watchdog()
    _on_signals(stop, watchdog)
    try:
        failpoints = _failpoints()
        access.wait_for_broker(settings, say, stop.is_set, CHECK_SECONDS if check_only else None)
        if not stop.is_set():
            _check_topics(settings, say)
        if check_only or stop.is_set():
            return EXIT_OK
        server = _serve(settings, status := Status())
    except Stopped as stopped:
        say("stopped", code=stopped.reason, detail=stopped.detail, exit_code=stopped.exit_code)
        return stopped.exit_code
    watchdog.start()
    say(
        "starting",
        version=package_version(),
        librdkafka=libversion()[0],
        config_id=stages.config_id,
        http_port=server.port,
    )
    try:
        options = Options(accepted=frozenset(accepted), strict=VARIABLE in os.environ)
        ends = KafkaEnds(settings, name, status, watchdog, say=say)
        loop = Loop(
            ends,
            stages,
            settings,
            clock=Clock(wall_ms=lambda: time.time_ns() // 1_000_000 + failpoints.clock_ms),
            options=options,
            failpoints=failpoints,
            status=status,
            say=say,
        )
        settle_memory()
        turn(loop, stop)
    except Stopped as stopped:
        status.stopped_for = stopped.reason
        say(
            "stopped",
            code=stopped.reason,
            detail=stopped.detail,
            exit_code=stopped.exit_code,
            exc_info=_is_bug(stopped),
        )
        _leave(stopped.exit_code)
    except KafkaException as error:
        say("stopped", code="client", detail=str(error.args[0]), exit_code=EXIT_RESTART, exc_info=True)
        _leave(EXIT_RESTART)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the process with a word and a code
        say("stopped", code="bug", detail=f"{type(error).__name__}: {error}", exit_code=EXIT_BUG, exc_info=True)
        _leave(EXIT_BUG)
    server.stop()
    return EXIT_OK


def settle_memory() -> None:
    """Set collector and allocator for a life of equal rounds; both would cost a quarter of a record's time.

    Records make no cycles, so they are searched for rarely. What one batch frees the next one needs: without the two
    limits glibc gives it back to the kernel every time, which then hands it out page by page, zeroed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES_MAX)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def turn(loop: Loop, stop: threading.Event) -> None:
    """Open, turn until `stop` is set, close."""
    loop.open()
    while not stop.is_set():
        loop.turn()
    loop.close()


class InProcess:
    """A worker on a thread of this process, for the demo on librdkafka's own broker (`mock`) and for tests.

    No signals, no HTTP, no check of topics. On the mock broker nothing is guaranteed: it forgets offsets of
    transactions, fences nobody, and shows aborted records (`reliability.md` 8).
    """

    def __init__(
        self,
        settings: Settings,
        stages: Stages,
        *,
        slot: str = "0",
        mock: bool = False,
        say: Callable[..., None] = lambda *_args, **_fields: None,
    ) -> None:
        self.status = Status()
        self.loop = Loop(
            KafkaEnds(settings, slot, self.status, mock=mock, say=say),
            stages,
            settings,
            options=Options(strict=True),
            failpoints=Failpoints([]),
            status=self.status,
            say=say,
        )
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Commit, leave the group, end. Raises what ended the worker, if something did."""
        self._stop.set()
        self._thread.join(timeout_seconds)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise Stopped(EXIT_RESTART, "stop", f"not stopped within {timeout_seconds:.0f} s")

    @property
    def failure(self) -> BaseException | None:
        """What ended the worker by itself."""
        return self._failure

    def _work(self) -> None:
        try:
            turn(self.loop, self._stop)
        except BaseException as error:  # noqa: BLE001 - told to whoever stops us
            self._failure = error


def supervise(command: Sequence[str], workers: int, *, first_slot: int = 0, http_port: int = 0) -> int:
    """Run `command` in several processes, with slots and HTTP ports that count up; the first exit code that is not 0.

    Each gets DRIFT_SLOT and DRIFT_HTTP__PORT. Exit 75 means restart, and is; any other end stops all.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    environments = [
        os.environ | {SLOT: str(first_slot + index), "DRIFT_HTTP__PORT": str(http_port + index if http_port else 0)}
        for index in range(workers)
    ]
    children = [subprocess.Popen(command, env=environment) for environment in environments]  # noqa: S603 - ourselves
    code = EXIT_OK
    while not stop.wait(0.2):
        for index, child in enumerate(children):
            ended = child.poll()
            if ended == EXIT_RESTART or (ended is not None and ended < 0):
                time.sleep(RESTART_SECONDS)
                children[index] = subprocess.Popen(command, env=environments[index])  # noqa: S603 - ourselves
            elif ended is not None:
                code = ended
                stop.set()
    return _ended(children, code)


def _ended(children: Sequence[subprocess.Popen[bytes]], code: int) -> int:
    """All are asked to stop, and waited for; the first code that is not 0, as a shell writes it."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + STOP_SECONDS + 5
    for child in children:
        try:
            ended = child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            ended = EXIT_RESTART
        code = code or (128 - ended if ended < 0 else ended)
    return code


def _on_signals(stop: threading.Event, watchdog: Watchdog) -> None:
    def asked(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            _leave(128 + number)
        watchdog.limit("stop", STOP_SECONDS)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)


def _failpoints() -> Failpoints:
    try:
        return Failpoints.from_environment()
    except ValueError as error:
        raise Stopped(EXIT_CONFIGURATION, "failpoint", str(error)) from error


def _check_topics(settings: Settings, say: Callable[..., None]) -> None:
    try:
        findings = topics.check(settings)
    except KafkaException as error:
        raise Stopped(EXIT_RESTART, "topics", error.args[0].str()) from error
    for finding in findings:
        say("topic_" + finding.level, topic=finding.topic, detail=str(finding))
    if faults := [str(finding) for finding in findings if finding.level == "fault"]:
        raise Stopped(EXIT_CONFIGURATION, "topics", "; ".join(faults))


def _serve(settings: Settings, status: Status) -> Server:
    try:
        server = Server(settings.http, status)
    except OSError as error:
        where = f"{settings.http.host}:{settings.http.port}"
        raise Stopped(EXIT_CONFIGURATION, "http", f"http.port: cannot listen on {where}: {error.strerror}") from error
    server.start()
    return server


def _is_bug(stopped: Stopped) -> bool:
    return stopped.exit_code == EXIT_BUG


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
