"""Which window an event belongs to, when an event is late, and how far all sources have come.

Time is event time, int64 milliseconds since 1970-01-01T00:00Z. Windows are half open, `[start, start + size)`, and
aligned to zero. A source is one partition of an input topic; its watermark W is the largest event time it has shown,
in offset order, minus the allowed lateness: nothing earlier counts any more. `Marks` is what a reader of
`drift.profiles` knows of the watermarks of all sources (`reliability.md` 5); a window is complete when `watermark`
has reached its end.
"""

from collections.abc import Collection
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct, field
from pydantic import BaseModel, Field

from stream.wire.durations import Duration
from stream.wire.internal import END_OF_TIME_MS, SourceMark, Watermarks

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_BEFORE_ALL_TIME: Final = np.iinfo(np.int64).min
_END: Final = END_OF_TIME_MS // 2
"""Watermarks from here on belong to inputs that have ended, whatever the lateness."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Section `[windows]` of the configuration. Values are milliseconds, written as text ("1m")."""

    size: Duration = Field(default=60_000, gt=0)
    """Length of a window. A minute: short enough to be told soon, long enough to hold tens of events."""
    lateness: Duration = 30_000
    """How far an event may lie behind the newest of its partition."""
    idle_after: Duration = 30_000
    """How long a partition read to its end stays silent before others stop waiting for it; 0: they wait for ever."""
    max_future: Duration = 300_000
    """How far an event time may lie after the Kafka timestamp of its record: room for clocks that differ."""


class Lateness(Struct, frozen=True):
    """What the watermark of one partition says of a batch of its events."""

    mask: Mask
    """[n] true where the event is late."""
    watermarks: Ints
    """[n] the watermark in force at each event; a late one is counted in the window that holds it."""
    watermark_ms: int | None
    """After the last event; None as long as the partition has shown none."""


def start_of(times_ms: Ints, size_ms: int) -> Ints:
    """Start of the window that holds each time: [n], for times before 1970 too (`start_of([-1], 10) == [-10]`)."""
    return times_ms - times_ms % size_ms


def late(times_ms: Ints, watermark_ms: int | None, lateness_ms: int) -> Lateness:
    """Judge a batch of one partition, in offset order, by the watermark each event meets.

    An event is late iff it lies below its partition's watermark: event time `t` counts as long as no earlier offset
    has shown a time above `t + lateness_ms`. Any cut of the same events into batches gives the same answer. |times| and
    lateness stay below 2^62 ms.
    """
    before = _BEFORE_ALL_TIME if watermark_ms is None else watermark_ms
    watermarks = np.maximum(np.maximum.accumulate(times_ms - lateness_ms), before)
    last = int(watermarks[-1]) if len(watermarks) else watermark_ms
    return Lateness(times_ms < watermarks, watermarks, last)


class Source(Struct, frozen=True):
    """One input partition, as its watermark records tell it."""

    next_offset: int
    watermark_ms: int | None
    declared_idle: bool = False
    """Whether it has ever declared that nobody need wait for it."""
    followable_ms: int | None = None
    """The largest watermark of its topic that stood in this log before its newest declaration."""


class Marks(Struct, frozen=True):
    """How far every source has come, as one log of watermark records tells it. Immutable: `apply` makes a new one."""

    sources: dict[tuple[str, int], Source] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    """Partition count of every input topic, the largest announced: a topic may grow, never shrink."""
    references_offset: int = 0
    """The newest view of the references that ingest has worked with."""
    highest_ms: dict[str, int] = field(default_factory=dict)
    """By topic, the largest watermark of a source that went on: the end of an input is no time."""


def apply(marks: Marks, record: Watermarks) -> Marks:
    """What is known after one more watermark record; `marks` stays as it is.

    No watermark ever falls, whatever the record says. A source that declares itself idle for the second time or later
    *follows*: it rises to the largest watermark of its own topic that stood in this log before its previous
    declaration. It was seen empty after that watermark was read, so nothing below it is still to come.
    """
    heights = {topic: height(marks, topic) for topic in {mark.topic for mark in record.sources}}
    sources = dict(marks.sources)
    for mark in record.sources:
        place = (mark.topic, mark.partition)
        sources[place] = _moved(sources.get(place), mark, heights[mark.topic])
    partitions = dict(marks.partitions)
    for topic, count in record.partitions.items():
        partitions[topic] = max(count, partitions.get(topic, 0))
    highest_ms = dict(marks.highest_ms)
    for mark in record.sources:
        if mark.watermark_ms is not None and mark.watermark_ms < _END:
            highest_ms[mark.topic] = max(mark.watermark_ms, highest_ms.get(mark.topic, mark.watermark_ms))
    return Marks(
        sources=sources,
        partitions=partitions,
        references_offset=max(marks.references_offset, record.references_offset),
        highest_ms=highest_ms,
    )


def height(marks: Marks, topic: str) -> int | None:
    """The largest watermark of a topic; None if no partition of it has one."""
    return _later(*(source.watermark_ms for (own, _), source in marks.sources.items() if own == topic))


def watermark(marks: Marks, topics: Collection[str]) -> int | None:
    """The time that every partition of these topics has passed: a window is complete when its end is at or below it.

    None as long as a topic is unannounced or a partition of it, by the announced count, has shown no time.
    """
    times = [_time(marks, place) for place in _places(marks, topics)]
    shown = [time for time in times if time is not None]
    return min(shown) if shown and len(shown) == len(times) else None


def have_ended(marks: Marks, topics: Collection[str]) -> bool:
    """Whether no partition of these topics will ever bring another record."""
    time_ms = watermark(marks, topics)
    return time_ms is not None and time_ms >= _END


def reached(marks: Marks, topics: Collection[str], settings: Settings) -> int | None:
    """As `watermark`, but when all these inputs have ended the end of the window that holds their newest event.

    So the end of files closes what they opened, for every model up to the same time, and nothing beyond.
    """
    highest_ms = _later(*(marks.highest_ms.get(topic) for topic in topics))
    if highest_ms is None or not have_ended(marks, topics):
        return watermark(marks, topics)
    newest_ms = highest_ms + settings.lateness
    return newest_ms - newest_ms % settings.size + settings.size


def waiting_for(marks: Marks, topics: Collection[str]) -> list[tuple[str, int]]:
    """The sources that hold `watermark` where it is: those without a time if there are any, else the rearmost."""
    lowest = watermark(marks, topics)
    return [place for place in _places(marks, topics) if _time(marks, place) == lowest]


def _moved(before: Source | None, mark: SourceMark, topic_height_ms: int | None) -> Source:
    known = before or Source(0, None)
    followed = known.followable_ms if mark.idle and known.declared_idle else None
    return Source(
        next_offset=max(known.next_offset, mark.next_offset),
        watermark_ms=_later(known.watermark_ms, mark.watermark_ms, followed),
        declared_idle=known.declared_idle or mark.idle,
        # Watermarks of the same record do not count: they may have been read after this source was seen empty.
        followable_ms=topic_height_ms if mark.idle else known.followable_ms,
    )


def _places(marks: Marks, topics: Collection[str]) -> list[tuple[str, int]]:
    """All sources to wait for; an unannounced topic stands as its partition -1, which shows no time."""
    announced = marks.partitions
    return [
        (topic, partition)
        for topic in sorted(topics)
        for partition in (range(announced[topic]) if topic in announced else (-1,))
    ]


def _time(marks: Marks, place: tuple[str, int]) -> int | None:
    source = marks.sources.get(place)
    return None if source is None else source.watermark_ms


def _later(*times: int | None) -> int | None:
    return max((time for time in times if time is not None), default=None)
