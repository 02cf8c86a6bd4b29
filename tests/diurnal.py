"""Streams with a season, as profiles of windows: n values of N(a sin(day) + w [weekend] + shift, 1) each.

Windows are counted against one provisional reference of numeric signals; no event is made. A `Life` leads a model
version from its first counted window on through all that closing a window does.

    life = Life(Diurnal(season=0.3, weekend=0.25))
    life.until(28 * PER_DAY)
    life.references, life.alerts
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import pi, sin
from typing import Any

import msgspec
import numpy as np
from msgspec import structs
from scipy.stats import norm

from stream.alerts.evidence import Sender
from stream.profiles import learning, reference
from stream.profiles.reference import References, Tables, reference_key
from stream.profiles.summaries import Dense
from stream.stages.detect import Settings, inputs
from stream.stages.detect.close import Closing, close
from stream.stages.detect.plan import plan
from stream.stages.detect.state import Open, Version, Watch
from stream.stages.detect.watch import Judged
from stream.wire import codec
from stream.wire.codec import named
from stream.wire.internal import Partial, Reference, SignalReference, Span
from stream.wire.record import Outgoing, Record

SIZE_MS = 300_000
PER_DAY = 288
MONDAY_MS = int(datetime(2026, 11, 16, tzinfo=UTC).timestamp() * 1000)
EDGES = norm.ppf(np.arange(1, 64) / 64)
SETTINGS = Settings(sender=Sender("test", "0.1.0", "0" * 16))


def cut(series: int = 1, size_ms: int = SIZE_MS) -> Reference:
    """A provisional reference with 64 bins that are equal under N(0, 1): of a score, or of so many features."""
    signal = SignalReference(
        "numeric", [64] * 64, edges=EDGES.tolist(), mean=0.0, std=1.0, centre=0.0, scale=1.0, low=[], high=[]
    )
    return Reference(
        reference_id="",
        model_id="m",
        model_version="1",
        scope="inputs",
        origin="learned",
        complete=False,
        inherited_from=None,
        n_rows=4096,
        data_from="",
        data_to="",
        effective_from="2026-11-16T00:00:00.000Z",
        segments={},
        window_size_ms=size_ms,
        window_rows=None,
        signals={"prediction:score": signal}
        if series == 1
        else {f"feature:x{place:03}": signal for place in range(series)},
        row=None,
        slots=None,
    )


@dataclass(frozen=True)
class Diurnal:
    """Window i begins at Monday midnight plus i times its size; the same in every call."""

    seed: int = 1
    n: int = 200
    season: float = 1.0
    weekend: float = 0.0
    shift_at: int | None = None
    shift: float = 0.0
    slope: float = 0.0
    """Rise of the mean per day."""
    series: int = 1
    shifted: int | None = None
    """Series that shift; None: all."""
    size_ms: int = SIZE_MS

    @property
    def per_day(self) -> int:
        """Windows of a day."""
        return 86_400_000 // self.size_ms

    def start_of(self, index: int) -> int:
        """When window i begins."""
        return MONDAY_MS + index * self.size_ms

    def mean(self, index: int) -> float:
        """Of window i, without the shift."""
        day, place = divmod(index, self.per_day)
        mean = self.season * sin(2 * pi * (place + 0.5) / self.per_day) + self.weekend * (day % 7 >= 5)
        return mean + self.slope * index / self.per_day

    def cut(self) -> Reference:
        """What its windows are counted against."""
        return cut(self.series, self.size_ms)

    def counts(self, columns: int, index: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[1, T] fine counts of all series in window i."""
        values = np.random.default_rng([self.seed, index]).normal(self.mean(index), 1.0, (self.series, self.n))
        if self.shift_at is not None and index >= self.shift_at:
            values[: self.shifted] += self.shift
        width = columns // self.series
        cells = np.searchsorted(EDGES, values) + width * np.arange(self.series)[:, None]
        return np.bincount(cells.reshape(-1), minlength=columns)[None]

    def profile(self, tables: Tables, index: int) -> Dense:
        """Counts of one window."""
        none = np.zeros(1, dtype=np.int64)
        moments = np.zeros((1, self.series, 4), dtype=np.int64)
        return Dense(none + self.n, none, none, none, self.counts(tables.layout.columns, index), moments)


def start_of(index: int) -> int:
    """When window i of five minutes begins."""
    return MONDAY_MS + index * SIZE_MS


def counted(stream: Diurnal, first: int, last: int, timezone: str = "UTC") -> tuple[Tables, learning.Counts]:
    """All windows from `first` to before `last` added up, and what they were counted against."""
    tables = reference.compile_tables(stream.cut())
    counts = learning.no_counts(tables, timezone)
    for index in range(first, last):
        counts = learning.add(counts, tables, stream.start_of(index), stream.profile(tables, index))
    return tables, counts


def learned(stream: Diurnal, first: int = 0, last: int = PER_DAY, timezone: str = "UTC") -> Reference:
    """The reference that these windows teach."""
    tables, counts = counted(stream, first, last, timezone)
    found = learning.overdispersion_of(counts, tables)
    in_force_ms = stream.start_of(last)
    return learning.completed(tables, counts, found, effective_from_ms=in_force_ms, origin="learned", data=("", ""))


def settings_of(stream: Diurnal, settings: Settings = SETTINGS) -> Settings:
    """Settings with the windows of a stream."""
    return structs.replace(settings, windows=settings.windows.model_copy(update={"size": stream.size_ms}))


def judged(
    found: Reference, stream: Diurnal, first: int, last: int, settings: Settings = SETTINGS
) -> list[tuple[Watch, Judged]]:
    """The windows from `first` to before `last` through the detectors."""
    tables = reference.compile_tables(found)
    own = plan(settings if stream.size_ms == settings.windows.size else settings_of(stream, settings), tables, None)
    state, told = inputs.start(own, stream.start_of(first), {}), []
    for index in range(first, last):
        state, one = inputs.update(own, state, stream.start_of(index), stream.profile(tables, index))
        told.append((state, one))
    return told


@dataclass(frozen=True)
class Daily(Diurnal):
    """One feature that is true or false: true with probability .25 + season sin(day) + weekend sin(week) + shift."""

    season: float = 0.1
    weekend: float = 0.04

    def cut(self) -> Reference:
        """What its windows are counted against."""
        signal = SignalReference("boolean", [3072, 1024], z=[0, 0])
        return structs.replace(cut(1, self.size_ms), signals={"feature:x": signal})

    def counts(self, columns: int, index: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[1, T] fine counts of window i."""
        days = (index + 0.5) / self.per_day
        p = 0.25 + self.season * sin(2 * pi * days) + self.weekend * sin(2 * pi * days / 7)
        if self.shift_at is not None and index >= self.shift_at:
            p += self.shift
        hits = int(np.random.default_rng([self.seed, index]).binomial(self.n, p))
        counts = np.zeros((1, columns), dtype=np.int64)
        counts[0, :2] = self.n - hits, hits
        return counts

    def profile(self, tables: Tables, index: int) -> Dense:
        """Counts of one window."""
        return structs.replace(super().profile(tables, index), moments=np.zeros((1, 0, 4), dtype=np.int64))


class Life:
    """One model version: from its first counted window on all is learned, judged, matured and told as in the stage."""

    def __init__(self, stream: Diurnal, first: int = 0, settings: Settings | None = None) -> None:
        """Window `first` of the stream is the first one counted."""
        self.stream = stream
        self.settings = settings_of(stream, settings or SETTINGS)
        self.next = first
        self.version = Version(stream.start_of(first), stream.start_of(first))
        self.view = References.empty()
        self.references: list[Reference] = []
        self.alerts: list[dict[str, Any]] = []
        self.readings: list[bytes] = []
        provisional = named(stream.cut())
        self._heard(Outgoing("references", reference_key(provisional), codec.encode_reference(provisional)))

    def until(self, last: int, stream: Diurnal | None = None) -> "Life":
        """Closes all windows before `last`, from now on of another stream if there is one."""
        self.stream = stream or self.stream
        while self.next < last:
            self.window()
        return self

    def window(self, reference_ids: tuple[str, ...] = ()) -> None:
        """Closes the next window: under the reference in force, or in equal parts under some."""
        start_ms = self.stream.start_of(self.next)
        tables = self.view.at("m", "1", start_ms)
        if tables is None:
            raise ValueError("there is always a reference")
        names = reference_ids or (tables.reference.reference_id,)
        whole = self.stream.profile(tables, self.next)
        parts = {name: self._part(name, whole, place, len(names)) for place, name in enumerate(names)}
        version = structs.replace(self.version, open={start_ms: Open(partials=parts)})
        closing = Closing(self.settings, self.view, ("m", "1"), start_ms)
        self.version, published = close(closing, version)
        for one in published:
            self._heard(one)
        self.next += 1

    def _part(self, name: str, whole: Dense, place: int, parts: int) -> Partial:
        split = [array // parts + (place < array % parts) for array in (whole.rows, whole.counts)]
        none = np.zeros(1, dtype=np.int64)
        spans = [Span("predictions", 0, self.next, self.next)]
        start_ms = self.stream.start_of(self.next)
        return Partial("m", "1", name, start_ms, none, split[0], none, none, none, split[1], whole.moments, spans)

    def _heard(self, one: Outgoing) -> None:
        if one.role == "references":
            self.view = self.view.apply(Record("drift.references", 0, self.view.offset, 0, one.key, one.value))
            found = codec.decode_reference(one.value or b"")
            if not isinstance(found, Reference):
                raise ValueError(found.detail)
            self.references.append(found)
        elif one.role == "alerts":
            self.alerts.append(msgspec.json.decode(one.value or b""))
        else:
            self.readings.append(one.value or b"")
