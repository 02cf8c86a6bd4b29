"""Where a replay must begin so that it ends in the same state: S.

A row that is still undecided needs its own record and those that were consulted when it came, all within one horizon
before it. Rows are counted by buckets of time, so S lies a little lower than it must. The watermark of a source needs
the record that gave it; one that follows its topic needs the declaration before, and the height it saw there.
"""

from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from stream.profiles.windows import Marks, height
from stream.wire.internal import Ints, SourceMark, Watermarks

Partition: TypeAlias = tuple[str, int]

_BUCKETS: Final = 128
"""In one horizon at least: a replay reads at most a fiftieth more than it needs,"""
_WIDEST_MS: Final = 3_600_000
"""and at most two hours: the log of pairs is kept for longer than that."""


class Bucket(Struct, frozen=True):
    """Rows of a stretch of event time, by offsets of drift.pairs."""

    first: int
    """Of a row in it."""
    needed: int
    """Of whatever its rows need, themselves included."""


class Since(Struct, frozen=True):
    """From where a replay finds what is known of a source."""

    watermark: int
    followable: int | None = None


class Places(Struct, frozen=True):
    """Immutable: every function makes a new one."""

    width_ms: int
    sources: dict[Partition, Since] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)
    """By topic, from where its largest watermark is found."""
    buckets: dict[int, Bucket] = field(default_factory=dict)
    """By number of the bucket."""
    decided: int = -(2**62)
    """Buckets before this number need nothing themselves."""


def start(horizon_ms: int) -> Places:
    """Nothing read."""
    return Places(width_ms=max(1, min(horizon_ms // _BUCKETS, _WIDEST_MS)))


def oldest(places: Places) -> int | None:
    """S: the offset from which a replay must read; None if it need not read anything."""
    needed = [bucket.needed for number, bucket in places.buckets.items() if number >= places.decided]
    return min([*needed, *_marks(places)], default=None)


def came(places: Places, times_ms: Ints, offsets: Ints) -> Places:
    """Rows came with records of these offsets, which do not fall."""
    numbers, first = np.unique(times_ms // places.width_ms, return_index=True)
    buckets = dict(places.buckets)
    for number, offset in zip(numbers.tolist(), offsets[first].tolist(), strict=True):
        known = buckets.get(number, Bucket(offset, offset))
        buckets[number] = Bucket(min(known.first, offset), min(known.needed, offset))
    return replace(places, buckets=buckets)


def leans(places: Places, times_ms: Ints, witnesses_ms: Ints) -> Places:
    """Rows of these times were decided by others, held ones between those earlier times and their own."""
    numbers, which = np.unique(times_ms // places.width_ms, return_inverse=True)
    earliest = numbers.copy()
    np.minimum.at(earliest, which, witnesses_ms // places.width_ms)
    buckets = dict(places.buckets)
    begin = min(buckets, default=0)
    for number, first in zip(numbers.tolist(), earliest.tolist(), strict=True):
        needed = min(buckets[other].first for other in range(max(first, begin), number + 1) if other in buckets)
        buckets[number] = Bucket(buckets[number].first, min(buckets[number].needed, needed))
    return replace(places, buckets=buckets)


def refused(places: Places, at: Places, times_ms: Ints, offset: int) -> Places:
    """Rows came too late with a record, `at` that moment: a replay must know of the watermarks they met."""
    places = came(places, times_ms, np.full(len(times_ms), offset))
    needed = min(_marks(at), default=offset)
    buckets = dict(places.buckets)
    for number in np.unique(times_ms // places.width_ms).tolist():
        buckets[number] = Bucket(buckets[number].first, min(buckets[number].needed, needed))
    return replace(places, buckets=buckets)


def past(places: Places, before_ms: int, horizon_ms: int) -> Places:
    """All rows before a time are decided, and none refers to what is a horizon older still."""
    decided, gone = before_ms // places.width_ms, (before_ms - horizon_ms) // places.width_ms
    buckets = {number: bucket for number, bucket in places.buckets.items() if number >= gone}
    return replace(places, buckets=buckets, decided=max(decided, places.decided))


def marked(places: Places, before: Marks, after: Marks, record: Watermarks, offset: int) -> Places:
    """A watermark record came that led from one to the other, see `windows.apply`."""
    heights = {topic: _height_since(places, before, topic, offset) for topic in {mark.topic for mark in record.sources}}
    sources = dict(places.sources)
    for mark in record.sources:
        place = (mark.topic, mark.partition)
        since = _watermark_since(places, before, after, mark, offset)
        known = places.sources.get(place)
        followable = heights[mark.topic] if mark.idle else known.followable if known else None
        sources[place] = Since(since, followable)
    tops = {mark.topic for mark in record.sources if mark.watermark_ms == after.highest_ms.get(mark.topic)}
    return replace(places, sources=sources, highest=places.highest | dict.fromkeys(tops, offset))


def _watermark_since(places: Places, before: Marks, after: Marks, mark: SourceMark, offset: int) -> int:
    """The offset from which the watermark in force follows; of several the last."""
    place = (mark.topic, mark.partition)
    now_ms, source, since = after.sources[place].watermark_ms, before.sources.get(place), places.sources.get(place)
    if source is None or since is None or mark.watermark_ms == now_ms:
        return offset
    found = [since.watermark] if source.watermark_ms == now_ms else []
    if mark.idle and since.followable is not None and source.followable_ms == now_ms:
        found.append(since.followable)
    return max(found, default=offset)


def _height_since(places: Places, marks: Marks, topic: str, offset: int) -> int:
    top_ms = height(marks, topic)
    tops = [
        places.sources[place].watermark
        for place, source in marks.sources.items()
        if place[0] == topic and source.watermark_ms == top_ms
    ]
    return offset if top_ms is None else min(offset, max(tops))


def _marks(places: Places) -> list[int]:
    found = [offset for since in places.sources.values() for offset in (since.watermark, since.followable)]
    return [offset for offset in [*found, *places.highest.values()] if offset is not None]
