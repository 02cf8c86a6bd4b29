"""Join: predictions meet their labels.

Halves of pairs wait until every input partition has passed the end of their window (`inbox`); then, in order of event
time, they meet the others of their id (`progress`, `meet`), and what that measures is told (`told`). Each row is held,
matched or not, until no decision can depend on it any more: one horizon (`store`). Nothing is saved: whoever reads the
log of pairs from `oldest` to the committed offset, with as many `halvings`, is in the same state, as `digest` proves.

Every decision is a property of rows within one horizon. So results depend neither on how the two topics were
interleaved, partitioned or cut, nor on what happened to be in memory.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import windows
from stream.profiles.windows import Marks
from stream.stages.join import inbox, places, rows, told
from stream.stages.join.inbox import Inbox
from stream.stages.join.places import Places
from stream.stages.join.progress import advance, halved, threshold
from stream.stages.join.settings import Feedback, Settings
from stream.stages.join.state import STATE_VERSION, Held, State
from stream.stages.join.told import Told
from stream.wire import codec
from stream.wire.internal import END_OF_TIME_MS, HALVES, WATERMARKS, Halves, Watermarks
from stream.wire.record import Outgoing, Record

__all__ = [
    "STATE_VERSION",
    "Feedback",
    "Outputs",
    "Settings",
    "State",
    "digest",
    "halvings",
    "oldest",
    "start",
    "step",
    "waiting",
    "watermark",
]

_NEVER: Final = -(2**62)


class Outputs(Struct, frozen=True):
    """What is said of some records."""

    records: list[Outgoing]
    """Outcomes, one per model, version and window."""
    counts: dict[tuple[str, str], int]
    """By model id and outcome. Predictions: matched, expired (no label within the horizon), duplicate; labels: unknown
    (no prediction), duplicate; of either kind: over_limit (dropped with the sample), late (its window was over)."""


def start(settings: Settings, halvings: int = 0, committed: int = 0) -> State:
    """Nothing read yet; the sample halved as often as it was when the offset was committed.

    Records below that offset are replayed and halve it no further: fewer of their rows waited when they were new.
    """
    return State(
        marks=Marks(),
        places=places.start(settings.feedback.horizon),
        inbox=Inbox(),
        held=Held(),
        halvings=halvings,
        committed=committed,
    )


def step(settings: Settings, state: State, records: Sequence[Record]) -> tuple[State, Outputs]:
    """Some records further, all of them replayed or none.

    Raises `ValueError` on bytes that no ingest has written: the log is not ours.
    """
    parts: list[Told] = []
    came: list[_Block] = []
    if records:
        state = replace(state, is_replay=records[-1].offset < state.committed)
    ends_ms, room = state.reached_ms, settings.feedback.max_pending - len(state.inbox)
    for record in records:
        kind = None if record.value is None else codec.kind_of(record.value)
        if kind == HALVES:
            came.append(_Block(codec.opened(record, Halves, HALVES), record.offset, ends_ms, state.places))
            room -= len(came[-1].halves.keys)
            if room < 0 and not state.is_replay:
                state, part = _relieved(settings, state, came, ends_ms)
                parts.append(part)
                came, room = [], settings.feedback.max_pending - len(state.inbox)
        elif kind == WATERMARKS:
            state = _marked(settings, state, record)
            ends_ms = _later(ends_ms, _end(settings, state))
        else:
            raise ValueError(f"{codec.place(record)}: not a record of this system")
    state, part = _entered(settings, state, came)
    parts.append(part)
    state, part = _advanced(settings, state, ends_ms)
    found = told.joined([*parts, part])
    return state, Outputs(told.records(found, settings.models), found.counts)


def watermark(state: State) -> int | None:
    """J: every window that ends at or before it is told. END_OF_TIME_MS when all inputs have ended."""
    return state.watermark_ms


def oldest(state: State) -> int | None:
    """S: the offset of drift.pairs from which a replay must read; None if nothing was read."""
    return places.oldest(state.places)


def halvings(state: State) -> int:
    """How often the sample was halved."""
    return state.halvings


def waiting(state: State) -> int:
    """Rows that are undecided."""
    return len(state.inbox) + state.held.undecided


def digest(state: State) -> str:
    """16 hex digits over the undecided rows, equal for equal rows, however they are stored."""
    return f"{state.total:016x}"


class _Block(Struct, frozen=True, eq=False):
    """A pair block that came."""

    halves: Halves
    offset: int
    ends_ms: int | None
    """What of it lies before this is late."""
    places: Places
    """What was known of the sources then."""


def _entered(settings: Settings, state: State, blocks: Sequence[_Block]) -> tuple[State, Told]:
    """The rows of blocks wait, but for those outside the sample and those whose window is over."""
    some = [block for block in blocks if len(block.halves.keys)]
    if not some:
        return state, Told()
    own, counts = rows.of_blocks([block.halves for block in some]), [len(block.halves.keys) for block in some]
    inside = rows.below(own, threshold(settings, state.halvings))
    ends_ms = np.repeat([_NEVER if block.ends_ms is None else block.ends_ms for block in some], counts)
    late = inside & (own.times_ms < ends_ms)
    places_ = state.places
    if late.any():
        for block, which in zip(some, np.split(late, np.cumsum(counts)[:-1]), strict=True):
            places_ = places.refused(places_, block.places, block.halves.times_ms[which], block.offset)
    fresh = inside & ~late
    offsets = np.repeat([block.offset for block in some], counts)
    left = rows.picked(own, fresh)
    state = replace(
        state,
        inbox=inbox.put(state.inbox, left),
        places=places.came(places_, left.times_ms, offsets[fresh]),
        total=(state.total + rows.total(left)) % 2**64,
    )
    counted = [told.counted(own, "late", late), told.counted(own, "over_limit", ~inside)]
    return state, told.joined(counted)


def _marked(settings: Settings, state: State, record: Record) -> State:
    marks = codec.opened(record, Watermarks, WATERMARKS)
    after = windows.apply(state.marks, marks)
    ended = windows.have_ended(after, settings.topics)
    return replace(
        state,
        marks=after,
        watermark_ms=END_OF_TIME_MS if ended else windows.watermark(after, settings.topics),
        places=places.marked(state.places, state.marks, after, marks, record.offset),
    )


def _relieved(settings: Settings, state: State, came: Sequence[_Block], ends_ms: int | None) -> tuple[State, Told]:
    """Perhaps too many rows wait for their window, as without any feedback: the sample is halved until they do not."""
    state, entered = _entered(settings, state, came)
    parts = [entered]
    if len(state.inbox) > settings.feedback.max_pending:
        state, part = _advanced(settings, state, ends_ms)
        parts.append(part)
    while len(state.inbox) > settings.feedback.max_pending:
        state, part = halved(settings, state)
        parts.append(part)
    return state, told.joined(parts)


def _advanced(settings: Settings, state: State, ends_ms: int | None) -> tuple[State, Told]:
    return (state, Told()) if ends_ms is None else advance(settings, state, ends_ms)


def _end(settings: Settings, state: State) -> int | None:
    """The end of the last window that every input partition has passed."""
    time_ms = windows.reached(state.marks, settings.topics, settings.windows)
    return None if time_ms is None else time_ms - time_ms % settings.windows.size


def _later(one: int | None, other: int | None) -> int | None:
    return max((time_ms for time_ms in (one, other) if time_ms is not None), default=None)
