"""Planned accidents, for tests: DRIFT_FAILPOINT=point[@stage][:nth]=action, several separated by commas.

A point fires just before its step, at its nth passage (the first, without a number). Inert when nothing is set.

points   init assigned fetch_offset restore replay begin step outputs snapshots offsets commit adopt revoke tick close
actions  kill stop raise abort sleep:SECONDS
besides  clock=SECONDS (with a sign): the worker's clock goes wrong by that much
"""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from stream.worker.ends import Aborted

POINTS: Final = frozenset(
    [
        "init",
        "assigned",
        "fetch_offset",
        "restore",
        "replay",
        "begin",
        "step",
        "outputs",
        "snapshots",
        "offsets",
        "commit",
        "adopt",
        "revoke",
        "tick",
        "close",
    ]
)
CLOCK: Final = "clock"
VARIABLE: Final = "DRIFT_FAILPOINT"


class Planned(Exception):
    """The accident of action `raise`: stands for a bug."""


class Failpoint(Struct, frozen=True):
    """One planned accident."""

    point: str
    stage: str | None
    nth: int
    action: str


def parse(text: str) -> list[Failpoint]:
    """The accidents a setting plans; ValueError names the part that cannot be read."""
    return [_parse_one(part.strip()) for part in text.split(",") if part.strip()]


def _parse_one(part: str) -> Failpoint:
    place, _, action = part.partition("=")
    place, _, nth = place.partition(":")
    point, _, stage = place.partition("@")
    verb = action.partition(":")[0]
    if point == CLOCK and re.fullmatch(r"[+-]\d{1,9}", action):
        return Failpoint(point, None, 1, action)
    if point not in POINTS or verb not in ACTIONS or not (nth or "1").isdigit():
        raise ValueError(f"{VARIABLE}: cannot read {part!r}; write point[@stage][:nth]=action")
    return Failpoint(point, stage or None, int(nth or 1), action)


def _send(number: signal.Signals) -> Callable[[str], None]:
    return lambda _: os.kill(os.getpid(), number)


def _raise(_: str) -> None:
    raise Planned("planned by a failpoint")


def _abort(_: str) -> None:
    raise Aborted("planned by a failpoint")


def _sleep(seconds: str) -> None:
    time.sleep(float(seconds))


ACTIONS: Final[dict[str, Callable[[str], None]]] = {
    "kill": _send(signal.SIGKILL),
    "stop": _send(signal.SIGSTOP),
    "raise": _raise,
    "abort": _abort,
    "sleep": _sleep,
}


class Failpoints:
    """Counts passages and fires what is due. `actions` are replaced in simulations."""

    def __init__(self, planned: list[Failpoint], actions: dict[str, Callable[[str], None]] | None = None) -> None:
        self.planned = planned
        self.actions = ACTIONS if actions is None else actions
        self._passages: Counter[Failpoint] = Counter()

    @classmethod
    def from_environment(cls) -> "Failpoints":
        """What DRIFT_FAILPOINT says, nothing if it is unset."""
        return cls(parse(os.environ.get(VARIABLE, "")))

    @property
    def clock_ms(self) -> int:
        """How wrong the worker's clock goes."""
        return sum(1_000 * int(failpoint.action) for failpoint in self.planned if failpoint.point == CLOCK)

    def hit(self, point: str, stage: str | None = None) -> None:
        """Pass a point; a planned accident happens here."""
        passed = [failpoint for failpoint in self.planned if _matches(failpoint, point, stage)]
        self._passages.update(passed)
        for failpoint in passed:
            if self._passages[failpoint] == failpoint.nth:
                verb, _, argument = failpoint.action.partition(":")
                self.actions[verb](argument)


def _matches(failpoint: Failpoint, point: str, stage: str | None) -> bool:
    return failpoint.point == point and failpoint.stage in {None, stage}
