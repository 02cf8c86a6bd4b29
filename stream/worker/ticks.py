"""What an idle partition says of time: that it has passed (tick), or only that nobody need wait for it (follow).

A partition is idle when it was read to its end, nothing came for `idle_after`, and the log's own end, undecided
transactions included, is where reading stopped. If its last record was live, the clock may speak for it: W rises to
the time of the question minus the lateness. If history lies behind it, or nothing at all, the clock would run past
history still to come: it only declares itself idle, and detect lets it follow its topic (`reliability.md` 5).
"""

from collections.abc import Collection, Iterable
from typing import Final

from stream.wire.internal import END_OF_TIME_MS
from stream.worker.commit import Transaction
from stream.worker.ends import Ends, Partition
from stream.worker.failpoints import Failpoints
from stream.worker.settings import Settings
from stream.worker.stages import Stages
from stream.worker.task import Phase, Point, Task

LIVE_MS: Final = 3_600_000
"""A record is live when it is processed within this time of its event time."""
ASK_SECONDS: Final = 2.0
SKEW_MS: Final = 60_000
"""A worker whose clock is further off the broker's does not tick."""


def is_live(newest_ms: int | None, now_ms: int) -> bool:
    """Whether a partition's newest record is of our own time."""
    return newest_ms is not None and abs(now_ms - newest_ms) <= LIVE_MS


class Ticker:
    """Watches idle inputs."""

    def __init__(self, ends: Ends, stages: Stages, settings: Settings, failpoints: Failpoints) -> None:
        self._ends = ends
        self._stages = stages
        self._settings = settings
        self._failpoints = failpoints
        self._asked_seconds = float("-inf")
        self._declared_seconds: dict[Partition, float] = {}
        self.skew_ms = 0
        """Our clock minus the broker's, as last seen."""

    def turn(self, tasks: Iterable[Task], tx: Transaction, now_seconds: float, now_ms: int) -> None:
        """Let idle partitions speak; they become part of the transaction."""
        running = [task for task in tasks if self._tells_time(task)]
        for task in running:
            is_told = (task.running.state.watermark_ms or 0) >= END_OF_TIME_MS // 2
            # Not in the transaction of its last records: what time they had come to must stand in the log.
            if task.ended_for_good and not is_told and task.partition not in tx.tasks:
                self._tick(task, tx, now_seconds, END_OF_TIME_MS)
        if self._settings.idle_after_ms == 0 or now_seconds - self._asked_seconds < ASK_SECONDS:
            return
        silent = [task for task in running if self._is_silent(task, now_seconds)]
        if not silent:
            return
        self._asked_seconds = now_seconds
        latest = self._ends.latest([task.partition for task in silent])
        for task in silent:
            if latest.get(task.partition) == task.end_offset:
                self._speak(task, tx, now_seconds, now_ms)

    def forget(self, partitions: Collection[Partition]) -> None:
        """These are no longer ours."""
        for partition in partitions:
            self._declared_seconds.pop(partition, None)

    def _tells_time(self, task: Task) -> bool:
        """Whether others wait for the time of this input: for control events nobody does."""
        waited_for = task.stage == "ingest" and task.partition[0] != self._settings.topics.of("control")
        return waited_for and task.phase is Phase.RUNNING

    def _is_silent(self, task: Task, now_seconds: float) -> bool:
        quiet_ms = (now_seconds - task.heard_seconds) * 1_000
        return (
            task.end_offset is not None
            and not task.ended_for_good
            and not task.inbox
            and not task.pauses
            and quiet_ms >= self._settings.idle_after_ms
        )

    def _speak(self, task: Task, tx: Transaction, now_seconds: float, now_ms: int) -> None:
        if task.live:
            if abs(self.skew_ms) <= SKEW_MS:
                self._tick(task, tx, now_seconds, now_ms)
            return
        since = now_seconds - self._declared_seconds.get(task.partition, float("-inf"))
        if since * 1_000 >= self._settings.idle_after_ms:
            self._failpoints.hit("tick", "ingest")
            self._declared_seconds[task.partition] = now_seconds
            tx.touch(task, now_seconds)
            tx.idle.add(task.partition)

    def _tick(self, task: Task, tx: Transaction, now_seconds: float, time_ms: int) -> None:
        self._failpoints.hit("tick", "ingest")
        state = self._stages.ingest_tick(task.running.state, time_ms)
        task.running = Point(state, task.running.next_offset)
        tx.touch(task, now_seconds)
        tx.ticked.add(task.partition)
