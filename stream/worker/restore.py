"""How a task comes to its state: the committed offset, the newest readable snapshot, then silent replay.

A snapshot S stands for the state before the record at S, and C is the committed offset. All records below C are in the
state and their outputs are out, so S <= C, and reading S..C with outputs dropped gives the state at C whichever
snapshot was found: an older one only means more to read (`reliability.md` 4). Join has no snapshots: what it holds
stands in its log from an offset S on, which is in its metadata, and the replay begins there with nothing. Nothing here
blocks longer than one short call, because a group waits for members that do.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from stream.wire.codec import Malformed
from stream.wire.record import Batch
from stream.worker.ends import (
    EXIT_BUG,
    EXIT_DECISION,
    Committed,
    Ends,
    Partition,
    Polled,
    Stopped,
    Unanswered,
    rows,
)
from stream.worker.failpoints import Failpoints
from stream.worker.metadata import DetectMark, decode_detect, decode_ingest, decode_join
from stream.worker.settings import Settings
from stream.worker.snapshots import Refused, Shelf, Snapshot
from stream.worker.stages import Stages
from stream.worker.status import Status
from stream.worker.task import Input, Phase, Task

REASONS: Final = frozenset(
    {"input_gone", "offsets_moved", "offsets_lost", "state_lost", "state_ahead", "topic_recreated", "reference_gone"}
)
"""Exit 5: what a person decides, and `--accept-reset` accepts."""


class Restorer:
    """Leads tasks from FETCHING to RUNNING, a little per turn."""

    def __init__(  # noqa: PLR0913 - made once, by the loop, of all that it is made of
        self,
        ends: Ends,
        stages: Stages,
        settings: Settings,
        failpoints: Failpoints,
        status: Status,
        *,
        accepted: Collection[str],
        strict: bool,
        say: Callable[..., None],
    ) -> None:
        self._ends = ends
        self._stages = stages
        self._settings = settings
        self._failpoints = failpoints
        self._status = status
        self._accepted = frozenset(accepted)
        self._strict = strict
        self._say = say
        self._found: dict[Partition, tuple[int, DetectMark | None]] = {}
        """Per task that searches: its committed offset (-1: none) and what stood with it."""

    def begin(self, task: Task, now_seconds: float) -> None:
        """One try to learn the committed offset of a task in FETCHING. Unanswered: try again later."""
        self._failpoints.hit("fetch_offset", task.stage)
        task.topic_id = self._ends.topic_id(task.partition[0])
        committed = self._ends.committed(task.partition)
        start, end = self._ends.bounds(task.partition)
        if task.stage == "ingest":
            self._start_ingest(task, committed, start, end, now_seconds)
        elif task.stage == "join":
            self._start_join(task, committed, start, now_seconds)
        else:
            self._search(task, committed, now_seconds)

    def resume(self, task: Task, now_seconds: float) -> None:
        """Deliver the task from where its reading stands."""
        task.heard_seconds = now_seconds
        task.end_offset = None
        task.pauses.discard("restore")
        if not task.pauses:
            self._ends.resume(task.partition, task.read_offset)

    def shelve(self, polled: Iterable[Polled], tasks: Iterable[Task], now_seconds: float) -> None:
        """Take what was read from drift.snapshots; at its end choose."""
        searching = {task.partition[1]: task for task in tasks if task.phase is Phase.SEARCHING}
        for item in polled:
            if (task := searching.get(item.partition)) is None or task.shelf is None:
                continue
            if isinstance(item, Batch):
                for record in rows(item):
                    task.shelf.put(record)
            elif task.phase is Phase.SEARCHING:
                self._choose(task, now_seconds)

    def drop(self, task: Task) -> None:
        """The task is gone: stop reading for it."""
        if self._found.pop(task.partition, None) is not None and task.shelf is not None:
            self._ends.unfollow(self._shelf_of(task))

    def caught_up(self, task: Task, now_seconds: float) -> None:
        """The replay reached the committed offset: prove that the state is the same again."""
        state = task.running.state
        task.settle(state, task.goal_offset)
        digest = self._stages.join_digest if task.stage == "join" else self._stages.detect_digest
        if task.goal_digest is not None and (found := digest(state)) != task.goal_digest:
            self._status.snapshot_errors[task.stage, "digest"] += 1
            self._say("replay_differs", task=task, detail=f"digest {found}, expected {task.goal_digest}")
            if self._strict:
                raise Stopped(EXIT_BUG, "digest", f"{task.partition}: the replayed state is not the one committed")
        task.moves(Input.STATE_THERE, now_seconds)
        self._say("restored", task=task)

    def _start_ingest(self, task: Task, committed: Committed | None, start: int, end: int, now_seconds: float) -> None:
        watermark_ms: int | None = None
        # What was decided before the first start may be about what comes after it.
        at_end = self._settings.kafka.start == "latest" and task.partition[0] != self._settings.topics.of("control")
        next_offset = end if at_end else start
        if committed is not None:
            next_offset = self._checked(task, committed.next_offset, start)
            mark = decode_ingest(committed.metadata)
            if mark is None:
                self._decide("offsets_moved", task, "the committed offset was not written by a worker")
            else:
                self._same_topic(task, mark.topic_id)
                watermark_ms, task.live = mark.watermark_ms, mark.live
            task.in_group = True
        task.settle(self._stages.ingest_start(watermark_ms), next_offset)
        task.moves(Input.OFFSET_IS_ALL, now_seconds)
        self.resume(task, now_seconds)
        self._say("running", task=task, offset=next_offset)

    def _start_join(self, task: Task, committed: Committed | None, start: int, now_seconds: float) -> None:
        self._failpoints.hit("restore", task.stage)
        mark, next_offset = None, start
        if committed is not None:
            task.in_group = True
            next_offset = self._checked(task, committed.next_offset, start)
            if (mark := decode_join(committed.metadata)) is None:
                self._decide("offsets_moved", task, "the committed offset was not written by a worker")
            else:
                self._same_topic(task, mark.topic_id)
        if mark is not None and mark.config_id == self._stages.config_id:
            replay_from = self._within(task, mark.replay_from, start, next_offset)
            task.settle(self._stages.join_start(mark.halvings, next_offset), replay_from)
            self._replay_to(task, next_offset, mark.digest if replay_from == mark.replay_from else None, now_seconds)
        else:
            task.settle(self._stages.join_start(0, 0), start)
            self._replay_to(task, next_offset, None, now_seconds)

    def _within(self, task: Task, replay_from: int, start: int, next_offset: int) -> int:
        """Where the replay begins: in the log, and not behind its goal."""
        if replay_from > next_offset:
            self._decide("state_ahead", task, f"it holds what stands from {replay_from} on, offset {next_offset}")
        if replay_from < start:
            self._decide("state_lost", task, f"it holds what stands from {replay_from} on, the log starts at {start}")
        return min(max(replay_from, start), next_offset)

    def _checked(self, task: Task, next_offset: int, start: int) -> int:
        if next_offset < start:
            self._decide("input_gone", task, f"the log starts at {start}, {next_offset} was to be read next")
            return start
        return next_offset

    def _same_topic(self, task: Task, topic_id: str) -> None:
        if topic_id != task.topic_id:
            self._decide("topic_recreated", task, f"topic id {task.topic_id}, {topic_id} when last committed")

    def _search(self, task: Task, committed: Committed | None, now_seconds: float) -> None:
        self._failpoints.hit("restore", task.stage)
        mark = None
        if committed is not None:
            task.in_group = True
            if (mark := decode_detect(committed.metadata)) is None:
                self._decide("offsets_moved", task, "the committed offset was not written by a worker")
            else:
                self._same_topic(task, mark.topic_id)
        self._found[task.partition] = (-1 if committed is None else committed.next_offset, mark)
        task.moves(Input.OFFSET_NEEDS_STATE, now_seconds)
        same = mark is not None and mark.config_id == self._stages.config_id
        self._open_shelf(task, mark.snapshot_offset if mark is not None and same else None)

    def _open_shelf(self, task: Task, offset: int | None) -> None:
        task.shelf = Shelf(task.partition[1], self._stages.config_id)
        task.searched_from = offset
        self._ends.follow(self._shelf_of(task), offset)

    def _shelf_of(self, task: Task) -> Partition:
        return (self._settings.topics.of("snapshots"), task.partition[1])

    def _choose(self, task: Task, now_seconds: float) -> None:
        """The shelf was read to its end."""
        self._ends.unfollow(self._shelf_of(task))
        next_offset, mark = self._found[task.partition]
        snapshot = self._newest_usable(task, next_offset)
        if snapshot is None and task.searched_from is not None:
            self._open_shelf(task, None)
            return
        try:
            start, _ = self._ends.bounds(task.partition)
        except Unanswered:
            self._open_shelf(task, task.searched_from)
            return
        del self._found[task.partition]
        task.shelf = None
        self._set_off(task, snapshot, next_offset, mark, start, now_seconds)

    def _newest_usable(self, task: Task, next_offset: int) -> tuple[Snapshot, Any] | None:
        if task.shelf is None:
            raise AssertionError("a task that searches has a shelf")
        for candidate in task.shelf.candidates():
            if isinstance(candidate, Refused):
                self._refuse(task, candidate.reason, candidate.detail)
                continue
            if 0 <= next_offset < candidate.manifest.next_offset:
                self._decide("state_ahead", task, f"snapshot at {candidate.manifest.next_offset}, offset {next_offset}")
                continue
            state = self._stages.detect_decode(candidate.state)
            if isinstance(state, Malformed):
                self._refuse(task, "unreadable", state.code)
            elif self._stages.detect_digest(state) != candidate.manifest.digest:
                self._refuse(task, "digest", candidate.letter)
            elif candidate.manifest.topic_id != task.topic_id:
                self._decide("topic_recreated", task, f"snapshot of topic id {candidate.manifest.topic_id}")
            else:
                return candidate, state
        return None

    def _refuse(self, task: Task, reason: str, detail: str) -> None:
        self._status.snapshot_errors[task.stage, reason] += 1
        self._say("snapshot_refused", task=task, detail=f"{reason}: {detail}")

    def _set_off(  # noqa: PLR0913 - everything that is known of a task at that moment
        self,
        task: Task,
        found: tuple[Snapshot, Any] | None,
        next_offset: int,
        mark: DetectMark | None,
        start: int,
        now_seconds: float,
    ) -> None:
        """From the state that was found, or from nothing, to the committed offset."""
        same = mark is not None and mark.config_id == self._stages.config_id
        if found is not None and next_offset < 0:
            self._decide("offsets_lost", task, "there is a snapshot, and no committed offset")
            found = None
        if found is not None and found[0].manifest.next_offset < start:
            self._decide("state_lost", task, f"snapshot at {found[0].manifest.next_offset}, the log starts at {start}")
            found = None
        if found is None and same and start > 0:
            self._decide("state_lost", task, f"no usable snapshot, and the log starts at {start}")
        if 0 <= next_offset < start:
            self._decide("input_gone", task, f"the log starts at {start}, {next_offset} was to be read next")
        if found is None:
            task.settle(self._stages.detect_start(), start)
            task.snapshot_next_offset = start
        else:
            self._take(task, *found)
        task.snapshot_seconds = now_seconds
        self._replay_to(task, next_offset, mark.digest if mark is not None and same else None, now_seconds)

    def _replay_to(self, task: Task, next_offset: int, digest: str | None, now_seconds: float) -> None:
        """Read on silently from where the task stands to the committed offset."""
        task.goal_offset = max(next_offset, task.running.next_offset)
        task.goal_digest = digest
        task.moves(Input.STATE_BEHIND, now_seconds)
        self._failpoints.hit("replay", task.stage)
        self._say("replaying", task=task, offset=task.running.next_offset)
        if task.goal_offset == task.running.next_offset:
            self.caught_up(task, now_seconds)
        self.resume(task, now_seconds)

    def _take(self, task: Task, snapshot: Snapshot, state: Any) -> None:
        task.settle(state, snapshot.manifest.next_offset)
        task.snapshot_letter = snapshot.letter
        task.snapshot_next_offset = snapshot.manifest.next_offset
        task.snapshot_offset = snapshot.offset
        task.snapshot_bytes = snapshot.manifest.bytes

    def _decide(self, reason: str, task: Task, detail: str) -> None:
        """Go on if a person has accepted this, else end: guessing would lose or repeat."""
        topic, partition = task.partition
        if reason not in self._accepted:
            raise Stopped(
                EXIT_DECISION, reason, f"{topic} {partition}: {detail}; see drift run --accept-reset {reason}"
            )
        self._say("reset_accepted", task=task, code=reason, detail=detail)
