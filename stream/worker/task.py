"""A task: one stage on one partition. Its life cycle, the state that is committed and the one that runs ahead of it.

A task is born paused when the group assigns its partition. It learns its committed offset (FETCHING); a detect task
then looks for a snapshot (SEARCHING) and reads its input from there to the committed offset with outputs dropped
(REPLAYING); a join task, whose state is the log itself, does so from the offset its metadata names. RUNNING is ordinary
life. A detect task that meets a partial profile made with a reference it has not heard of stands still (LACKING,
REPLAY_LACKING) until the reference arrives. GONE is the end: revoked or lost.

State is functional: `step` returns a new one and leaves its argument valid. So the task keeps two points, `committed`
and `running`; aborting a transaction is forgetting `running`.
"""

from collections import deque
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from stream.wire.record import Batch
from stream.worker.ends import Partition
from stream.worker.snapshots import Letter, Shelf

StageName: TypeAlias = Literal["ingest", "join", "detect"]
Reason: TypeAlias = Literal["restore", "reference", "internal_lag", "leads", "dead_letters"]


class Phase(Enum):
    """Where a task stands in its life."""

    FETCHING = "fetching"
    SEARCHING = "searching"
    REPLAYING = "replaying"
    REPLAY_LACKING = "replay_lacking"
    RUNNING = "running"
    LACKING = "lacking"
    GONE = "gone"


class Input(Enum):
    """What can happen to a task."""

    OFFSET_IS_ALL = "offset_is_all"
    """The committed offset is known, and the metadata (or nothing) holds the whole state."""
    OFFSET_NEEDS_STATE = "offset_needs_state"
    STATE_BEHIND = "state_behind"
    """There is a state that belongs to an offset below the committed one."""
    STATE_THERE = "state_there"
    REFERENCE_MISSING = "reference_missing"
    REFERENCE_HERE = "reference_here"
    TAKEN = "taken"
    """Revoked or lost."""


TRANSITIONS: Final[dict[Phase, dict[Input, Phase]]] = {
    Phase.FETCHING: {
        Input.OFFSET_IS_ALL: Phase.RUNNING,
        Input.OFFSET_NEEDS_STATE: Phase.SEARCHING,
        Input.STATE_BEHIND: Phase.REPLAYING,
        Input.TAKEN: Phase.GONE,
    },
    Phase.SEARCHING: {
        Input.STATE_BEHIND: Phase.REPLAYING,
        Input.STATE_THERE: Phase.RUNNING,
        Input.TAKEN: Phase.GONE,
    },
    Phase.REPLAYING: {
        Input.STATE_THERE: Phase.RUNNING,
        Input.REFERENCE_MISSING: Phase.REPLAY_LACKING,
        Input.TAKEN: Phase.GONE,
    },
    Phase.REPLAY_LACKING: {Input.REFERENCE_HERE: Phase.REPLAYING, Input.TAKEN: Phase.GONE},
    Phase.RUNNING: {Input.REFERENCE_MISSING: Phase.LACKING, Input.TAKEN: Phase.GONE},
    Phase.LACKING: {Input.REFERENCE_HERE: Phase.RUNNING, Input.TAKEN: Phase.GONE},
    Phase.GONE: {},
}

RESTORING: Final = frozenset({Phase.FETCHING, Phase.SEARCHING, Phase.REPLAYING, Phase.REPLAY_LACKING})
READING: Final = frozenset({Phase.REPLAYING, Phase.RUNNING})


class Point(Struct, frozen=True):
    """A state and the offset it belongs to: all records below are in it."""

    state: Any
    next_offset: int


class Breaker:
    """Dead letters among the last records of a partition: a flood means that something else than a record is broken."""

    WINDOW_RECORDS: Final = 1_000

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()
        self._records = 0
        self._dead = 0

    def add(self, records: int, dead: int) -> None:
        """Count one batch; batches leave when the rest still covers the window."""
        self._batches.append((records, dead))
        self._records += records
        self._dead += dead
        while self._records - self._batches[0][0] >= self.WINDOW_RECORDS:
            records, dead = self._batches.popleft()
            self._records -= records
            self._dead -= dead

    def trips(self, ratio: float) -> bool:
        """Whether more than `ratio` of a full window is dead. A ratio of 1 never trips."""
        return self._records >= self.WINDOW_RECORDS and self._dead > ratio * self._records


class Task:
    """One stage on one partition. Only the loop and what it calls change it."""

    def __init__(self, stage: StageName, partition: Partition, now_seconds: float) -> None:
        self.stage: StageName = stage
        self.partition = partition
        self.phase = Phase.FETCHING
        self.topic_id = ""
        self.committed = Point(None, -1)
        self.running = Point(None, -1)
        self.in_group = False
        """Whether the group has a committed offset of ours for it."""
        self.pauses: set[Reason] = {"restore"}
        self.inbox: list[Batch] = []
        """Read, not yet stepped: ingest works on long columns."""
        self.read_offset = -1
        """The next offset to be read: behind the inbox."""
        self.end_offset: int | None = None
        """Where the partition ended when it was last read to its end; None while more is known to come."""
        self.ended_for_good = False
        self.heard_seconds = now_seconds
        """When its last record came."""
        self.live = False
        self.breaker = Breaker()
        self.lacks: str | None = None
        self.since_seconds = now_seconds
        """When the present phase began."""
        self.goal_offset = -1
        """While replaying: the committed offset."""
        self.goal_digest: str | None = None
        self.shelf: Shelf | None = None
        self.searched_from: int | None = None
        self.snapshot_letter: Letter = "B"
        self.snapshot_next_offset = -1
        self.snapshot_offset: int | None = None
        self.snapshot_seconds = now_seconds
        self.snapshot_bytes = 0
        self.records_since_snapshot = 0

    def moves(self, happened: Input, now_seconds: float) -> None:
        """Go on in life; a step the table does not know is a bug, and raises KeyError."""
        self.phase = TRANSITIONS[self.phase][happened]
        self.since_seconds = now_seconds

    def settle(self, state: Any, next_offset: int) -> None:
        """Both points stand here: nothing runs ahead."""
        self.committed = self.running = Point(state, next_offset)
        self.read_offset = next_offset
        self.inbox = []

    def rewind(self) -> None:
        """Forget what ran ahead of the last commit."""
        self.settle(self.committed.state, self.committed.next_offset)
        self.end_offset = None

    @property
    def inbox_records(self) -> int:
        """Records that wait to be stepped."""
        return sum(len(batch) for batch in self.inbox)
