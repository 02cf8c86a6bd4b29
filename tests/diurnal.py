"""A stream with a season, as profiles of windows: n values of N(a sin(day) + w [weekend] + shift, 1) each.

Windows are counted against one provisional reference of one numeric feature; no event is made.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import pi, sin

import numpy as np
from scipy.stats import norm

from stream.alerts.evidence import Sender
from stream.profiles import learning, reference
from stream.profiles.reference import Tables
from stream.profiles.summaries import Dense
from stream.stages.detect import Settings, inputs
from stream.stages.detect.plan import plan
from stream.stages.detect.state import Watch
from stream.stages.detect.watch import Judged
from stream.wire.internal import Reference, SignalReference

SIZE_MS = 300_000
PER_DAY = 288
MONDAY_MS = int(datetime(2026, 11, 16, tzinfo=UTC).timestamp() * 1000)
EDGES = norm.ppf(np.arange(1, 64) / 64)
SETTINGS = Settings(sender=Sender("test", "0.1.0", "0" * 16))


def cut() -> Reference:
    """A provisional reference of a score with 64 bins that are equal under N(0, 1)."""
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
        window_size_ms=SIZE_MS,
        window_rows=None,
        signals={"prediction:score": signal},
        row=None,
        slots=None,
    )


@dataclass(frozen=True)
class Diurnal:
    """Window i begins at Monday midnight plus i times five minutes; the same in every call."""

    seed: int = 1
    n: int = 200
    season: float = 1.0
    weekend: float = 0.0
    shift_at: int | None = None
    shift: float = 0.0

    def profile(self, tables: Tables, index: int) -> Dense:
        """Counts of one window."""
        day, place = divmod(index, PER_DAY)
        mean = self.season * sin(2 * pi * (place + 0.5) / PER_DAY) + self.weekend * (day % 7 >= 5)
        if self.shift_at is not None and index >= self.shift_at:
            mean += self.shift
        values = np.random.default_rng([self.seed, index]).normal(mean, 1.0, self.n)
        counts = np.zeros((1, tables.layout.columns), dtype=np.int64)
        counts[0, :64] = np.bincount(np.searchsorted(EDGES, values), minlength=64)
        none = np.zeros(1, dtype=np.int64)
        return Dense(none + self.n, none, none, none, counts, np.zeros((1, 1, 4), dtype=np.int64))


def start_of(index: int) -> int:
    """When window i begins."""
    return MONDAY_MS + index * SIZE_MS


def counted(stream: Diurnal, first: int, last: int, timezone: str = "UTC") -> tuple[Tables, learning.Counts]:
    """All windows from `first` to before `last` added up, and what they were counted against."""
    tables = reference.compile_tables(cut())
    counts = learning.no_counts(tables, timezone)
    for index in range(first, last):
        counts = learning.add(counts, tables, start_of(index), stream.profile(tables, index))
    return tables, counts


def learned(stream: Diurnal, first: int = 0, last: int = PER_DAY, timezone: str = "UTC") -> Reference:
    """The reference that these windows teach."""
    tables, counts = counted(stream, first, last, timezone)
    found = learning.overdispersion_of(counts, tables)
    return learning.completed(tables, counts, found, effective_from_ms=start_of(last), origin="learned", data=("", ""))


def judged(found: Reference, stream: Diurnal, first: int, last: int) -> list[tuple[Watch, Judged]]:
    """The windows from `first` to before `last` through the detectors."""
    tables = reference.compile_tables(found)
    own = plan(SETTINGS, tables, None)
    state, told = inputs.start(own, start_of(first), {}), []
    for index in range(first, last):
        state, one = inputs.update(own, state, start_of(index), stream.profile(tables, index))
        told.append((state, one))
    return told
