"""How a reference is learned from the stream: the life of one model version that nobody published a reference for.

    sampling --(enough rows)--> counting --(enough rows, time and windows)--> learned

Sampling merges the bottom-k samples of closed windows, until k rows are there, or `max_wait` has passed and 160 rows
are. The rows decide the cuts, which are published as a provisional reference. Counting adds the closed windows that
ingest bins against them, until the counts are worth 15,000 independent rows (`statistics.md` 2.8). A training set takes
the same way (`profiles.building`).
"""

import math
from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stream.profiles import cuts, cycles, describe, overdispersion, reference, seasons, volume
from stream.profiles.cuts import Plan
from stream.profiles.overdispersion import Overdispersion
from stream.profiles.reference import ROW_RATES, Tables
from stream.profiles.seasons import Rung
from stream.profiles.summaries import MOMENTS, SAMPLE_ROWS, Dense, merge_samples
from stream.wire.codec import named, rfc3339
from stream.wire.durations import Duration
from stream.wire.internal import Origin, RateReference, Reference, Sample, SignalReference

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

Declared: TypeAlias = cuts.Declared
ROWS_WANTED: Final = 15_000
"""Independent rows behind a reference: eps_ref is then 0.02, as large as the default tolerance."""
PHI_MAX: Final = 10.0
"""More than 150,000 rows are not waited for, however overdispersed they are."""
ROWS_ACCEPTED: Final = 1_000
"""m' with which `max_duration` ends the waiting."""
ALL: Final = "all"
WINDOWS_MIN: Final = 100
"""Non-empty windows: overdispersion needs to see that many."""


class Settings(BaseModel):
    """Section `[learn]` of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(default=SAMPLE_ROWS, ge=cuts.ROWS_MIN, le=65_536)
    """k: rows of the sample that decide the cuts. 4,096: 64 in each of 64 bins."""
    max_wait: Duration = 3_600_000
    """How long to wait for them; afterwards 160 are enough."""
    min_duration: Duration = 86_400_000
    """Event time that counting takes at least: a day, since most streams have days."""
    max_duration: Duration = 2_592_000_000
    """Event time after which 1,000 independent rows are enough."""
    mature: tuple[Duration, ...] = (604_800_000, 1_814_400_000)
    """Event time since counting began at which a learned reference takes up what came since: a week, for weekends, and
    three, for hours of the week."""

    @field_validator("mature")
    @classmethod
    def _rises(cls, mature: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(mature)):
            raise ValueError('the ages must rise, such as ["7d", "21d"]')
        return mature


class Phase(Enum):
    """Where a model version stands."""

    SAMPLING = "sampling"
    COUNTING = "counting"
    LEARNED = "learned"


class Counts(Struct, frozen=True, eq=False):
    """What the windows of the second phase have added up to. Made by `no_counts`."""

    windows: Ints
    """[G] non-empty ones"""
    window_rows: Ints
    """[G] rows in them"""
    dense: Dense
    sums: overdispersion.Sums
    cycle: cycles.Sums
    first_ms: int | None
    """Start of the first window."""
    end_ms: int
    """End of the newest."""
    numbers: volume.Sums = volume.Sums()
    """Of rows per window, of segment `all`."""


class State(Struct, frozen=True):
    """All a restart needs of one model version. `State()` has seen nothing."""

    sample: Sample | None = None
    """While sampling."""
    provisional: Reference | None = None
    """While counting: what the counts are counted against."""
    counts: Counts | None = None
    learned: bool = False


def phase(state: State) -> Phase:
    """Where it stands."""
    if state.learned:
        return Phase.LEARNED
    return Phase.SAMPLING if state.provisional is None else Phase.COUNTING


def sampled(  # noqa: PLR0913 - two states, two settings, two times
    state: State,
    settings: Settings,
    plan: Plan,
    sample: Sample,
    *,
    end_ms: int,
    effective_from_ms: int,
    timezone: str = seasons.UTC,
) -> tuple[State, Reference | None]:
    """One closed window without a reference more, ending at `end_ms`.

    When the sample is large enough the second value is the provisional reference, to be published, in force from
    `effective_from_ms` on; the state is then counting, by hours of `timezone`. Nothing happens in another phase.
    """
    if phase(state) is not Phase.SAMPLING:
        return state, None
    merged = merge_samples([sample] if state.sample is None else [state.sample, sample], settings.rows)
    waited_ms = end_ms - merged.window_start_ms
    wanted = settings.rows if waited_ms < settings.max_wait else cuts.ROWS_MIN
    if len(merged.sample) < wanted:
        return replace(state, sample=merged), None
    rows = [cuts.decode_row(row.row) for row in merged.sample]
    schema = cuts.infer_schema(rows, plan.declared)
    try:
        found = cuts.provisional(cuts.columns_of(rows, schema), schema, plan, effective_from_ms=effective_from_ms)
    except ValueError:  # rows without any value: there is nothing to learn yet
        return replace(state, sample=merged), None
    return State(provisional=found, counts=no_counts(reference.compile_tables(found), timezone)), found


def counted(  # noqa: PLR0913 - as `sampled`
    state: State, settings: Settings, tables: Tables, start_ms: int, window: Dense, *, effective_from_ms: int
) -> tuple[State, Reference | None]:
    """One closed window of the provisional reference more; `tables` are those of `state.provisional`.

    When the counts are enough the second value is the learned reference, to be published, in force from
    `effective_from_ms` on; the counts stay, for whoever lets it mature. Windows must come in order; empty ones may be
    left out. Nothing happens in another phase.
    """
    if state.counts is None or phase(state) is not Phase.COUNTING:
        return state, None
    counts = add(state.counts, tables, start_ms, window)
    found = _enough(counts, settings, tables)
    if found is None:
        return replace(state, counts=counts), None
    learned = completed(
        tables, counts, found, effective_from_ms=effective_from_ms, origin="learned", data=period(counts)
    )
    return replace(state, counts=counts, learned=True), learned


def period(counts: Counts) -> tuple[str, str]:
    """From when to when events were counted."""
    return rfc3339(counts.first_ms or 0), rfc3339(counts.end_ms - 1)


def no_counts(tables: Tables, timezone: str = seasons.UTC) -> Counts:
    """Nothing counted yet against these tables."""
    segments, columns = len(tables.segments), tables.layout.columns
    none = np.zeros(segments, dtype=np.int64)
    dense = Dense(
        rows=none,
        late=none,
        invalid_rows=none,
        outlying_rows=none,
        counts=np.zeros((segments, columns), dtype=np.int64),
        moments=np.zeros((segments, len(tables.layout.numeric), MOMENTS), dtype=np.int64),
    )
    return Counts(none, none, dense, overdispersion.start(tables), cycles.start(tables, timezone), None, 0)


def add(counts: Counts, tables: Tables, start_ms: int, window: Dense) -> Counts:
    """One closed window more, in order of time. About 1 ms at 25 signals and 9 segments."""
    size_ms = tables.reference.window_size_ms
    return Counts(
        windows=counts.windows + (window.rows > 0),
        window_rows=counts.window_rows + window.rows,
        dense=plus(counts.dense, window),
        sums=overdispersion.add(counts.sums, tables, start_ms // size_ms, window),
        cycle=cycles.add(counts.cycle, tables, start_ms, window.counts[0]) if window.rows[0] else counts.cycle,
        first_ms=start_ms if counts.first_ms is None else counts.first_ms,
        end_ms=start_ms + size_ms,
        numbers=volume.add(counts.numbers, start_ms, size_ms, int(window.rows[0]), counts.cycle.timezone),
    )


def left_out(counts: Counts, end_ms: int) -> Counts:
    """A window that ended at `end_ms` is not learned from, whatever it held."""
    return replace(counts, numbers=volume.left_out(counts.numbers, end_ms))


def plus(one: Dense, other: Dense, sign: int = 1) -> Dense:
    """The sum of two profiles of one reference; `sign` -1 takes the other away."""
    return Dense(**{name: getattr(one, name) + sign * getattr(other, name) for name in one.__struct_fields__})


def with_dense(counts: Counts, more: Dense) -> Counts:
    """The counts with rows more that belong to no window."""
    return replace(counts, dense=plus(counts.dense, more))


def without(counts: Counts, sample: Dense) -> Counts:
    """The counts without the rows of the sample, which stay in the windows and in the overdispersion."""
    return replace(counts, dense=plus(counts.dense, sample, -1))


def overdispersion_of(counts: Counts, tables: Tables, at_least: Rung = "global") -> tuple[Overdispersion, Rung | None]:
    """The overdispersion of what was counted, of segment `all` against the best rung; None: no day has passed.

    The rung is never below `at_least`.
    """
    phi = overdispersion.phi(counts.sums, tables, counts.dense.counts)
    season = cycles.season(counts.cycle, tables, counts.dense.counts[0], phi_max=PHI_MAX, at_least=at_least)
    if season is None or season.rung == "global":
        return phi, None if season is None else season.rung
    signals = phi.signals.copy()
    signals[0] = season.phi
    return replace(phi, signals=signals), season.rung


def completed(  # noqa: PLR0913 - all that a reference is made of
    tables: Tables,
    counts: Counts,
    found: tuple[Overdispersion, Rung | None] | None,
    *,
    effective_from_ms: int,
    origin: Origin,
    data: tuple[str, str],
    coarse: Mapping[str, list[int]] | None = None,
) -> Reference:
    """The reference of the second phase, named by its content: the cuts of `tables` with all that was counted.

    `found` is what `overdispersion_of` the counts says; None: overdispersion, rows per window and slots stay unknown.
    `data` is the period the rows come from, `coarse` the coarse bins of signals where they do not follow from counts.
    """
    phi, rung = (None, None) if found is None else found
    dense, names = counts.dense, tables.segments
    window_rows = _known(
        names, None if phi is None else counts.window_rows / np.where(counts.windows, counts.windows, np.nan)
    )
    having = dict(zip(ROW_RATES, (dense.invalid_rows, dense.outlying_rows), strict=True))
    described = describe.mean_and_std(tables.scale, dense.counts, dense.moments)
    whole = replace(
        tables.reference,
        reference_id="",
        origin=origin,
        complete=True,
        n_rows=int(dense.rows[0]),
        data_from=data[0],
        data_to=data[1],
        effective_from=rfc3339(effective_from_ms),
        window_rows=window_rows.pop(ALL, None),
        segments_window_rows=window_rows,
        signals={
            name: replace(_signal(tables, index, dense, phi, described), coarse=(coarse or {}).get(name))
            for index, name in enumerate(tables.layout.names)
        },
        rates={
            name: RateReference(
                rows=dict(zip(names, np.stack([dense.rows, having[name]], axis=1).tolist(), strict=True)),
                overdispersion=_known(names, None if phi is None else phi.rows[:, place]),
            )
            for place, name in enumerate(ROW_RATES)
        },
        volume=None
        if phi is None
        else volume.volume(counts.numbers, tables.reference.window_size_ms, counts.cycle.timezone),
    )
    if rung is not None:
        # Coarse bins follow from the counts themselves.
        whole = replace(whole, slots=cycles.slots(counts.cycle, reference.compile_tables(whole), rung))
    return named(whole)


def _enough(counts: Counts, settings: Settings, tables: Tables) -> tuple[Overdispersion, Rung | None] | None:
    """The overdispersion and the rung if counting may end."""
    rows = int(counts.dense.rows[0])
    lasted_ms = counts.end_ms - (counts.first_ms or 0)
    timely = lasted_ms >= settings.min_duration and counts.windows[0] >= WINDOWS_MIN and rows >= ROWS_WANTED
    overdue = lasted_ms >= settings.max_duration and rows >= ROWS_ACCEPTED
    if not (timely or overdue):
        return None
    found = overdispersion_of(counts, tables)
    worst = float(np.fmax.reduce(found[0].signals[0], initial=1.0))
    if timely and rows >= ROWS_WANTED * min(worst, PHI_MAX):
        return found
    return found if overdue and rows >= ROWS_ACCEPTED * worst else None


def _signal(
    tables: Tables, index: int, dense: Dense, phi: Overdispersion | None, described: tuple[Floats, Floats]
) -> SignalReference:
    """One signal with its counts of the second phase."""
    layout, names = tables.layout, tables.segments
    cut = layout.reference.signals[layout.names[index]]
    rates = 2 + (cut.type == "categorical")
    counts = dict(zip(names, dense.counts[:, reference.valid(layout, index)].tolist(), strict=True))
    special = dict(zip(names, reference.hits(layout, dense.counts)[:, index, :rates].tolist(), strict=True))
    spread = _spread(names, index, rates, phi)
    missing, invalid, *unseen = special.pop(ALL)
    own_spread, *rates_spread = spread.pop(ALL, [None])
    mean, std = (None, None)
    if index in layout.numeric:
        mean, std = (_finite(values[0, layout.numeric.index(index)]) for values in described)
    return replace(
        cut,
        counts=counts.pop(ALL),
        missing=missing,
        invalid=invalid,
        singletons=unseen[0] if unseen else None,
        mean=mean,
        std=std,
        overdispersion=own_spread,
        rates_overdispersion=rates_spread or None,
        segments=counts,
        segments_special=special,
        segments_overdispersion=spread,
    )


def _spread(names: list[str], index: int, rates: int, phi: Overdispersion | None) -> dict[str, list[Any]]:
    """Overdispersion of a signal and of its rates by segment, where it is known."""
    if phi is None:
        return {}
    table = np.concatenate([phi.signals[:, index, None], phi.rates[:, index, :rates]], axis=1)
    return {name: row for name, row in zip(names, table.tolist(), strict=True) if all(map(math.isfinite, row))}


def _known(names: list[str], values: Floats | None) -> dict[str, float]:
    """The values by segment, without those that are unknown."""
    if values is None:
        return {}
    return {name: value for name, value in zip(names, values.tolist(), strict=True) if math.isfinite(value)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
