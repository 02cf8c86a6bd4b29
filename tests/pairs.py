"""Halves of pairs, the log they lie in, and what must come of them by the book: loops over lists, no array.

halves = [prediction("a", 0, label="1"), feedback("a", 30_000, label="0")]
records = log([Source("predictions", 0, halves[:1]), Source("feedback", 0, halves[1:])])
expected(settings, halves)
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import isnan, nan

import numpy as np

from stream.profiles import outcomes
from stream.signals.outcomes import Compared, Ended, Met, ModelSettings
from stream.stages.join import Settings, rows, store
from stream.wire import codec
from stream.wire.internal import (
    END_OF_TIME_MS,
    HALVES,
    OUTCOMES,
    WATERMARKS,
    Halves,
    Outcomes,
    ScoreOf,
    SourceMark,
    Watermarks,
)
from stream.wire.record import Outgoing, Record

MODEL = "credit"


@dataclass(frozen=True)
class Half:
    """One half of a pair; `time_ms` is the time it counts at, `behind_ms` how far its own lies before."""

    is_label: bool
    id: str
    time_ms: int
    version: str | None = None
    label: str | None = None
    score: float = nan
    score_of: ScoreOf = ScoreOf.NOTHING
    value: float = nan
    segment: tuple[str, ...] = ()
    behind_ms: int = 0
    topic: str = ""
    partition: int = -1
    offset: int = -1

    @property
    def key(self) -> int:
        """Without sign."""
        return codec.hash64(f"{MODEL}\0{self.id}")

    @property
    def rank(self) -> tuple[int, int, str, int, int]:
        """Its place in event order: by time, by content, by place in the input."""
        content = rows.content(rows.of_blocks([block([self])]))
        return self.time_ms, int(content[0]), self.topic, self.partition, self.offset


def prediction(id: str, time_ms: int, version: str = "1", **fields: object) -> Half:  # noqa: A002 - as records call it
    """A prediction."""
    return replace(Half(False, id, time_ms, version), **fields)  # type: ignore[arg-type] # fields of a half


def feedback(id: str, time_ms: int, version: str | None = None, **fields: object) -> Half:  # noqa: A002 - as above
    """A label."""
    return replace(Half(True, id, time_ms, version), **fields)  # type: ignore[arg-type] # as above


@dataclass
class Source:
    """One input partition: its halves in the order of their offsets."""

    topic: str
    partition: int
    halves: Sequence[Half]
    placed: list[Half] = field(default_factory=list)
    """Those that were read, with their places."""
    watermark_ms: int | None = None

    @property
    def read(self) -> int:
        """The next offset."""
        return len(self.placed)

    def take(self, count: int) -> list[Half]:
        """The next ones, with their places."""
        found = [
            replace(half, topic=self.topic, partition=self.partition, offset=offset)
            for offset, half in enumerate(self.halves[self.read : self.read + count], start=self.read)
        ]
        self.placed += found
        return found


@dataclass
class Log:
    """A partition of drift.pairs while ingest writes it, a transaction at a time."""

    sources: Sequence[Source]
    lateness_ms: int = 0
    records: list[Record] = field(default_factory=list)

    def commit(self, counts: Iterable[int], *, ended: bool = False, idle: Collection[int] = ()) -> None:
        """So many halves of each source, then the watermarks; `idle` are numbers of sources that say they are."""
        marks = []
        for source, count in zip(self.sources, counts, strict=True):
            some = source.take(count)
            if some:
                self.append(codec.encode(block(some), HALVES))
                newest_ms = max(half.time_ms - half.behind_ms for half in some) - self.lateness_ms
                source.watermark_ms = max(newest_ms, newest_ms if source.watermark_ms is None else source.watermark_ms)
            mark_ms = END_OF_TIME_MS if ended else source.watermark_ms
            is_idle = self.sources.index(source) in idle and not some
            if some or is_idle or ended:
                marks.append(SourceMark(source.topic, source.partition, source.read, mark_ms, idle=is_idle))
        self.mark(marks)

    def mark(self, marks: list[SourceMark]) -> None:
        """Watermarks alone."""
        counts: dict[str, int] = {}
        for source in self.sources:
            counts[source.topic] = max(counts.get(source.topic, 0), source.partition + 1)
        self.append(codec.encode(Watermarks(marks, counts, 0), WATERMARKS))

    def append(self, value: bytes) -> None:
        """A record; every third offset is a gap, as markers of transactions leave them."""
        offset = self.records[-1].offset + 1 if self.records else 0
        self.records.append(Record("drift.pairs", 0, offset + (offset % 3 == 2), 0, None, value))


def block(halves: Sequence[Half]) -> Halves:
    """The pair block of some halves of one source."""
    versions = sorted({half.version for half in halves if half.version is not None}, reverse=True)
    classes = sorted({half.label for half in halves if half.label is not None}, reverse=True)
    segments = sorted({half.segment for half in halves if not half.is_label}, reverse=True)
    first = halves[0]
    return Halves(
        model_id=MODEL,
        topic=first.topic,
        partition=first.partition,
        offsets=np.array([half.offset for half in halves], dtype=np.int64),
        keys=np.array([half.key for half in halves], dtype=np.uint64).view(np.int64),
        labels=np.array([half.is_label for half in halves], dtype=np.bool_),
        times_ms=np.array([half.time_ms for half in halves], dtype=np.int64),
        own_times_ms=np.array([half.time_ms - half.behind_ms for half in halves], dtype=np.int64),
        versions=versions,
        version=np.array([-1 if half.version is None else versions.index(half.version) for half in halves]),
        classes=classes,
        label=np.array([-1 if half.label is None else classes.index(half.label) for half in halves]),
        scores=np.array([half.score for half in halves], dtype=np.float64),
        score_of=np.array([int(half.score_of) for half in halves], dtype=np.int64),
        values=np.array([half.value for half in halves], dtype=np.float64),
        segments=[list(names) for names in segments],
        segment=np.array([-1 if half.is_label else segments.index(half.segment) for half in halves]),
    )


def told(records: Iterable[Outgoing]) -> dict[tuple[str, int], Outcomes]:
    """Outcomes by version and window, merged."""
    groups: dict[tuple[str, int], list[Outcomes]] = {}
    for record in records:
        one = codec.decode(record.value or b"", Outcomes, OUTCOMES)
        assert isinstance(one, Outcomes)
        groups.setdefault((one.model_version, one.window_start_ms), []).append(one)
    return {name: outcomes.merge(some) for name, some in groups.items()}


def frames(found: dict[tuple[str, int], Outcomes]) -> dict[tuple[str, int], bytes]:
    """The same as bytes, to be compared."""
    return {name: codec.encode(one, OUTCOMES) for name, one in found.items()}


@dataclass(frozen=True)
class Book:
    """What must come of some halves."""

    outcomes: dict[tuple[str, int], Outcomes]
    counts: dict[str, int]


def expected(settings: Settings, halves: Sequence[Half], until_ms: int) -> Book:
    """By the book, once all time before `until_ms` has passed."""
    book = _Book(settings, [half for half in halves if half.time_ms < until_ms], until_ms)
    met, ended, compared = list(book.met()), list(book.ended()), list(book.compared())
    model = settings.models.get(MODEL, ModelSettings())
    pieces = [outcomes.of_pairs(_met(*pair, settings.windows.size), model) for pair in met]
    pieces += [outcomes.of_ended(_ended(*one, settings)) for one in ended]
    pieces += [outcomes.of_compared(_compared(*one, settings.windows.size)) for one in compared]
    groups: dict[tuple[str, int], list[Outcomes]] = {}
    for piece in (one for some in pieces for one in some):
        groups.setdefault((piece.model_version, piece.window_start_ms), []).append(piece)
    counts = {
        "matched": len(met),
        "expired": sum(not labelled for _, labelled in ended),
        "duplicate": sum(map(book.is_repeated, book.halves)) + len(book.all) - len(book.halves),
        "unknown": sum(map(book.is_unknown, book.halves)),
    }
    return Book(
        {name: outcomes.merge(some) for name, some in groups.items()},
        {outcome: count for outcome, count in counts.items() if count},
    )


class _Book:
    def __init__(self, settings: Settings, halves: Iterable[Half], until_ms: int) -> None:
        self.horizon_ms = settings.feedback.horizon
        self.model = settings.models.get(MODEL, ModelSettings())
        self.until_ms = until_ms
        self.all = sorted(halves, key=lambda half: half.rank)
        self.halves = [half for half in self.all if not self.is_crowded(half)]

    def met(self) -> Iterator[tuple[Half, Half]]:
        for half in self.halves:
            if (label := self.label_of(half)) is not None:
                yield half, label

    def ended(self) -> Iterator[tuple[Half, bool]]:
        for half in self.halves:
            if not half.is_label and not self.is_repeated(half) and self.is_over(half):
                yield half, self.label_of(half) is not None

    def compared(self) -> Iterator[tuple[Half, str, float, int]]:
        for one, other in product(self.met(), self.met()):
            four = [half.time_ms for half in (*one, *other)]
            if (
                one[0].id == other[0].id
                and one[0].version == self.model.champion
                and other[0].version in self.model.challengers
                and max(four) - min(four) <= self.horizon_ms
            ):
                gain = _gain(one, other)
                if not isnan(gain):
                    yield one[0], str(other[0].version), gain, max(four)

    def is_over(self, half: Half) -> bool:
        return half.time_ms + self.horizon_ms < self.until_ms

    def is_near(self, one: Half, other: Half) -> bool:
        return one.id == other.id and abs(one.time_ms - other.time_ms) <= self.horizon_ms

    def is_crowded(self, half: Half) -> bool:
        """Whether very many of its id and kind came before it."""
        same = [other for other in self.all if other.is_label == half.is_label and self.is_near(other, half)]
        return sum(other.rank < half.rank for other in same) >= store.CROWD

    def is_repeated(self, half: Half) -> bool:
        return any(
            other.is_label == half.is_label
            and other.version == half.version
            and self.is_near(other, half)
            and other.rank < half.rank
            for other in self.halves
        )

    def fits(self, one: Half, label: Half) -> bool:
        return (
            label.is_label
            and not one.is_label
            and self.is_near(one, label)
            and (label.version is None or label.version == one.version)
        )

    def label_of(self, half: Half) -> Half | None:
        """The first label a prediction meets, unless it is repeated."""
        if half.is_label or self.is_repeated(half):
            return None
        return next((label for label in self.halves if self.fits(half, label)), None)

    def is_unknown(self, label: Half) -> bool:
        return (
            label.is_label
            and self.is_over(label)
            and not self.is_repeated(label)
            and not any(self.fits(half, label) for half in self.halves)
        )


def _gain(one: tuple[Half, Half], other: tuple[Half, Half]) -> float:
    """Of the second answer over the first."""
    a, b = (abs(said.value - true.value) for said, true in (one, other))
    if not isnan(a + b):
        return 0.0 if a == b else (a - b) / (a + b)
    return _wrong(*one) - _wrong(*other)


def _wrong(said: Half, true: Half) -> float:
    if true.label is not None and said.label is not None:
        return float(said.label != true.label)
    if true.label is not None and said.score_of is ScoreOf.POSITIVE and not isnan(said.score):
        return float((said.score >= 0.5) != (true.label in ("1", "true")))
    return nan


def _met(half: Half, label: Half, size_ms: int) -> Met:
    last = max(half, label, key=lambda one: (one.time_ms, not one.is_label))
    classes = [one for one in (half.label, label.label) if one is not None]
    return Met(
        model_id=MODEL,
        windows_ms=_of(last.time_ms - last.time_ms % size_ms),
        versions=[str(half.version)],
        version=_of(0),
        classes=classes,
        predicted=_of(-1 if half.label is None else classes.index(half.label)),
        actual=_of(-1 if label.label is None else classes.index(label.label)),
        scores=np.array([half.score]),
        score_of=_of(half.score_of),
        outputs=np.array([half.value]),
        truths=np.array([label.value]),
        delays_ms=_of(max(0, (label.time_ms - label.behind_ms) - (half.time_ms - half.behind_ms))),
        segments=[list(half.segment)],
        segment=_of(0),
        topics=[last.topic],
        topic=_of(0),
        partitions=_of(last.partition),
        offsets=_of(last.offset),
    )


def _ended(half: Half, labelled: bool, settings: Settings) -> Ended:
    end_ms = half.time_ms + settings.feedback.horizon
    return Ended(
        model_id=MODEL,
        windows_ms=_of(end_ms - end_ms % settings.windows.size),
        versions=[str(half.version)],
        version=_of(0),
        segments=[list(half.segment)],
        segment=_of(0),
        labelled=np.array([labelled]),
    )


def _compared(champion: Half, challenger: str, gain: float, time_ms: int, size_ms: int) -> Compared:
    return Compared(
        model_id=MODEL,
        windows_ms=_of(time_ms - time_ms % size_ms),
        challengers=[challenger],
        challenger=_of(0),
        gains=np.array([gain]),
        segments=[list(champion.segment)],
        segment=_of(0),
    )


def _of(number: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([number], dtype=np.int64)
