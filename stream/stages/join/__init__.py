"""Join: predictions meet their labels.

Halves of pairs wait until every input partition has passed the end of their window (`inbox`); then, in order of event
time, they meet the others of their id (`advance`, `meet`), and what that measures is told (`told`). Each row is held,
matched or not, until no decision can depend on it any more: one horizon (`store`). Nothing is saved: whoever reads the
log of pairs from `oldest` to the committed offset, with as many `halvings`, is in the same state, as `digest` proves.

Every decision is a property of rows within one horizon. So results depend neither on how the two topics were
interleaved, partitioned or cut, nor on what happened to be in memory.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import windows
from stream.profiles.windows import Marks
from stream.stages.join import inbox, places, rows, told
from stream.stages.join.advance import advance, halved, threshold
from stream.stages.join.inbox import Inbox
from stream.stages.join.settings import Feedback, Settings
from stream.stages.join.state import STATE_VERSION, Held, State
from stream.stages.join.told import Told
from stream.wire import codec
from stream.wire.codec import Malformed
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

T = TypeVar("T", bound=Struct)


class Outputs(Struct, frozen=True):
    """What is said of some records."""

    records: list[Outgoing]
    """Outcomes, one per model, version and window."""
    counts: dict[tuple[str, str], int]
    """By model id and outcome. Predictions: matched, expired (no label within the horizon), duplicate; labels: unknown
    (no prediction), duplicate; of either kind: over_limit (dropped with the sample), late (its window was over)."""


def start(settings: Settings, halvings: int = 0) -> State:
    """Nothing read yet; the sample halved as often as it was when the offset was committed."""
    return State(
        marks=Marks(),
        places=places.start(settings.feedback.horizon),
        inbox=Inbox(),
        held=Held(),
        halvings=halvings,
    )


def step(settings: Settings, state: State, records: Sequence[Record]) -> tuple[State, Outputs]:
    """Some records further. Raises `ValueError` on bytes that no ingest has written: the log is not ours."""
    parts: list[Told] = []
    ends_ms = state.reached_ms
    for record in records:
        kind = None if record.value is None else codec.kind_of(record.value)
        if kind == HALVES:
            state, part = _came(settings, state, ends_ms, record)
            parts.append(part)
            if len(state.inbox) > settings.feedback.max_pending:
                state, part = _relieved(settings, state, ends_ms)
                parts.append(part)
        elif kind == WATERMARKS:
            state = _marked(settings, state, record)
            ends_ms = _later(ends_ms, _end(settings, state))
        else:
            raise ValueError(f"{_place(record)}: not a record of this system")
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
    return f"{(state.total + state.held.total) % 2**64:016x}"


def _came(settings: Settings, state: State, ends_ms: int | None, record: Record) -> tuple[State, Told]:
    """A pair block: its rows wait, but for those outside the sample and those whose window is over."""
    block = rows.of_halves(_opened(record, Halves, HALVES))
    inside = rows.below(block, threshold(settings, state.halvings))
    late = inside & (block.times_ms < ends_ms) if ends_ms is not None else np.zeros_like(inside)
    counts = [told.counted(rows.picked(block, late), "late"), told.counted(rows.picked(block, ~inside), "over_limit")]
    fresh = rows.picked(block, inside & ~late)
    spots = places.came(state.places, fresh.times_ms, record.offset)
    if late.any():
        spots = places.refused(spots, block.times_ms[late], record.offset)
    state = replace(
        state, inbox=inbox.put(state.inbox, fresh), places=spots, total=(state.total + rows.total(fresh)) % 2**64
    )
    return state, told.joined(counts)


def _marked(settings: Settings, state: State, record: Record) -> State:
    marks = _opened(record, Watermarks, WATERMARKS)
    after = windows.apply(state.marks, marks)
    ended = windows.have_ended(after, settings.topics)
    return replace(
        state,
        marks=after,
        watermark_ms=END_OF_TIME_MS if ended else windows.watermark(after, settings.topics),
        places=places.marked(state.places, state.marks, after, marks, record.offset),
    )


def _relieved(settings: Settings, state: State, ends_ms: int | None) -> tuple[State, Told]:
    """Too many rows wait for their window, as without any feedback: the sample is halved until they do not."""
    state, part = _advanced(settings, state, ends_ms)
    parts = [part]
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


def _opened(record: Record, shape: type[T], kind: str) -> T:
    found = codec.decode(record.value or b"", shape, kind)
    if isinstance(found, Malformed):
        raise ValueError(f"{_place(record)}: {found.code}: {found.detail}")  # noqa: TRY004 - bytes, not types, are wrong
    return found


def _place(record: Record) -> str:
    return f"{record.topic}[{record.partition}] offset {record.offset}"
