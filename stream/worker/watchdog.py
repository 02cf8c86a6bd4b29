"""Calls into the client that may hang for ever, and the thread that ends the process when one does."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stream.worker.ends import EXIT_RESTART

LIMIT_SECONDS: Final = 45.0
"""transaction.timeout.ms and 30 s: after the first the broker has given up on us anyway."""


class Watchdog:
    """Dumps all stacks and exits 75 when a guarded call takes longer than the limit."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._limit_seconds = limit_seconds
        self._call: tuple[str, float] | None = None
        self._last: tuple[str, float] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch from now on; without it `guard` costs two assignments and does nothing."""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def limit(self, what: str, seconds: float) -> None:
        """The process itself must end within this time."""
        self._last = (what, time.monotonic() + seconds)

    @contextmanager
    def guard(self, what: str, limit_seconds: float | None = None) -> Iterator[None]:
        """The calls inside must end within the limit."""
        outer, self._call = self._call, (what, time.monotonic() + (limit_seconds or self._limit_seconds))
        try:
            yield
        finally:
            self._call = outer

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            for call in (self._call, self._last):
                if call is not None and time.monotonic() > call[1]:
                    sys.stderr.write(f"watchdog: {call[0]} hangs, exiting with {EXIT_RESTART}\n")
                    faulthandler.dump_traceback(all_threads=True)
                    os._exit(EXIT_RESTART)
