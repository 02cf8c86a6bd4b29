"""Where the windows of the recent past stand in the input: offsets that let anyone read the evidence of an alert again.

A trail remembers which input offsets fell into which windows, finely for the newest and coarsely for older ones:
entries of 2^r windows, at most eight of a size, as the change-point history keeps its counts (`statistics.md` 10.1). It
holds the last 1,016 windows in about 50 entries.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from stream.profiles.summaries import joined
from stream.wire.internal import Span

ENTRIES_PER_SIZE: Final = 8
SIZES: Final = 7
"""Entries of 1 to 64 windows."""


class Entry(Struct, frozen=True):
    """Spans of 2^r consecutive windows."""

    start_ms: int
    windows: int
    spans: tuple[Span, ...]


class Trail(Struct, frozen=True):
    """Entries, oldest first. Immutable: `append` makes a new one."""

    entries: tuple[Entry, ...] = ()


def append(trail: Trail, start_ms: int, spans: Iterable[Span]) -> Trail:
    """One closed window more, also an empty one. O(entries)."""
    entries = [*trail.entries, Entry(start_ms, 1, tuple(spans))]
    for size in (2**r for r in range(SIZES)):
        of_size = [index for index, entry in enumerate(entries) if entry.windows == size]
        if len(of_size) <= ENTRIES_PER_SIZE:
            break
        first = of_size[0]
        if size == 2 ** (SIZES - 1):
            del entries[first]
        else:
            old, new = entries[first : first + 2]
            entries[first : first + 2] = [Entry(old.start_ms, 2 * size, tuple(joined([*old.spans, *new.spans])))]
    return Trail(tuple(entries))


def since(trail: Trail, start_ms: int) -> list[Span]:
    """The offsets of all windows from `start_ms` on, a span per partition; an entry that straddles it counts whole."""
    entries = trail.entries
    later = [index for index, entry in enumerate(entries) if entry.start_ms > start_ms]
    first = max(0, (later[0] if later else len(entries)) - 1)
    return joined(span for entry in entries[first:] for span in entry.spans)
