"""How a reference of outcomes is learned from the stream, or made of labelled rows.

Fast labels come first and differ from slow ones, so a version's outcomes are left alone for one full horizon after its
first window with pairs (`statistics.md` 12.7). Then they are added up, until they are worth 15,000 independent pairs.
Grids of outcomes are fixed, so nothing has to be sampled before anything can be counted; only how residuals spread from
window to window asks how often what happens at which score, and for that the first 1,000 pairs must do.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import outcome_reference, outcomes, overdispersion
from stream.profiles.learning import PHI_MAX, ROWS_ACCEPTED, ROWS_WANTED, WINDOWS_MIN, Settings
from stream.profiles.outcome_tables import (
    ALL,
    ERROR,
    RESIDUAL,
    UNIT,
    Measured,
    OutcomeTables,
    Serving,
    compile_outcomes,
    measure,
)
from stream.profiles.reference import ORDERED_BINS
from stream.wire.internal import Outcomes, Reference

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

WAITED_FOR: Final = ((ERROR, "rate"), (ERROR, "mean"), (RESIDUAL, "mean"), (RESIDUAL, "spread"))
"""Members whose overdispersion asks for more pairs. Labels that come in batches do not: their delay may be wide."""


class Spread(Struct, frozen=True, eq=False):
    """What windows have shown of how members spread, under one set of tables. Made by `no_spread`."""

    sums: overdispersion.Sums
    windows: Ints
    """[G, M] those with events of the member."""
    events: Ints
    """[G, M] in them."""


class State(Struct, frozen=True):
    """All a restart needs of one model version. `State()` has seen nothing."""

    since_ms: int | None = None
    """Start of its first window with pairs."""
    total: Outcomes | None = None
    """What was counted; its window is the first of them."""
    end_ms: int = 0
    """End of the newest."""
    windows: int = 0
    """Counted ones with pairs."""
    basis: Outcomes | None = None
    """The first pairs counted, which the spread is measured by."""
    spread: Spread | None = None


def counted(  # noqa: PLR0913 - a window, and all that decides about the reference it may complete
    state: State,
    settings: Settings,
    window: Outcomes,
    *,
    horizon_ms: int,
    size_ms: int,
    effective_from_ms: int,
) -> tuple[State, Reference | None]:
    """One closed window more, in order; empty ones too.

    When there is enough the second value is the learned reference, in force from `effective_from_ms` on.
    """
    start_ms, pairs = window.window_start_ms, _pairs(window)
    state = noticed(state, window)
    if state.since_ms is None or start_ms < state.since_ms + horizon_ms:
        return state, None
    # Where the pairs stand in the input is no part of what is normal.
    window = replace(window, spans=[])
    total = window if state.total is None else outcomes.merge([state.total, window])
    state = replace(state, total=total, end_ms=start_ms + size_ms, windows=state.windows + bool(pairs))
    state = _spread_by(state, window, start_ms // size_ms)
    serving = _enough(state, settings)
    if serving is None:
        return state, None
    found = outcome_reference.written(
        total,
        serving,
        origin="learned",
        data_ms=(total.window_start_ms, state.end_ms - 1),
        effective_from_ms=effective_from_ms,
        window_size_ms=size_ms,
    )
    return State(since_ms=state.since_ms), found


def noticed(state: State, window: Outcomes) -> State:
    """The state that knows since when there are pairs."""
    if state.since_ms is not None or not _pairs(window):
        return state
    return replace(state, since_ms=window.window_start_ms)


def built(
    windows: Sequence[Outcomes], *, serving: bool, size_ms: int, effective_from_ms: int, data_ms: tuple[int, int]
) -> Reference:
    """The reference of windows by rising start; `serving` says that they are a complete log of it.

    Only such a log shows how labels come; and one whose labels all bear the time of their prediction does not either.
    Raises `ValueError` with fewer than 1,000 pairs.
    """
    total = outcomes.merge(windows)
    if not serving or not total.delays[:, 1:].any():
        windows = [_without_coming(window) for window in windows]
        total = outcomes.merge(windows)
    if _pairs(total) < ROWS_ACCEPTED:
        raise ValueError(f"a reference of outcomes needs {ROWS_ACCEPTED} labelled rows, not {_pairs(total)}")
    known: Serving = {}
    if serving:
        tables = compile_outcomes(total, {})
        spread = no_spread(tables)
        for window in windows:
            spread = add(spread, tables, window.window_start_ms // size_ms, measure(tables, window))
        known = as_serving(tables, *serving_of(spread, tables))
    return outcome_reference.written(
        replace(total, spans=[]),
        known,
        origin="built",
        data_ms=data_ms,
        effective_from_ms=effective_from_ms,
        window_size_ms=size_ms,
    )


def _without_coming(window: Outcomes) -> Outcomes:
    """The same pairs, as if nothing were known of when labels come, and how many."""
    none = np.zeros_like(window.pairs)
    return replace(window, delays=window.delays[:, :0], ended=none, labelled=none)


def no_spread(tables: OutcomeTables) -> Spread:
    """Nothing seen yet; the tables must stay the same for all windows."""
    shape = (len(tables.segments), len(tables.members))
    owners = _owners(tables)
    sums = overdispersion.nothing(shape[0], len(owners), shape[1])
    return Spread(sums, np.zeros(shape, np.int64), np.zeros(shape, np.int64))


def add(spread: Spread, tables: OutcomeTables, index: int, window: Measured) -> Spread:
    """One closed window more; `index` is its start over its size. Windows come in order, empty ones may be left out."""
    x, n = _columns(tables, window)
    sums = overdispersion.gathered(spread.sums, _owners(tables), index, x, n.astype(np.float64))
    return Spread(sums, spread.windows + (n > 0), spread.events + n)


def serving_of(spread: Spread, tables: OutcomeTables) -> tuple[Floats, Floats]:
    """[G, M] overdispersion, NaN where too few windows had events, and mean events of a window that had any."""
    owners, bins = _owners(tables), _bins(tables)
    worst = np.fmax.reduce(overdispersion.chi_squares(spread.sums, owners, bins), axis=0, initial=np.nan)
    ratios = overdispersion.ratios_of(spread.sums, owners, _variances(tables))
    single = np.fmax.reduce(ratios, axis=0, initial=np.nan)
    for index in range(len(tables.members)):
        own = single[:, owners == index]
        worst[:, index] = np.fmax(worst[:, index], np.fmax.reduce(own, axis=1, initial=np.nan))
    enough = spread.sums.blocks[0] >= overdispersion.BLOCKS_MIN
    n_bar = np.where(spread.windows > 0, spread.events / np.maximum(spread.windows, 1), np.nan)
    return np.where(enough, np.fmax(worst, 1.0), np.nan), n_bar


def as_serving(tables: OutcomeTables, phi: Floats, n_bar: Floats) -> Serving:
    """The same by names, what is unknown left out."""
    found: Serving = {}
    for segment, *row in zip(tables.segments, phi.tolist(), n_bar.tolist(), strict=True):
        own = {
            member.name: (spread, n)
            for member, spread, n in zip(tables.members, *row, strict=True)
            if np.isfinite(spread) and np.isfinite(n)
        }
        if own:
            found[segment] = own
    return found


def _spread_by(state: State, window: Outcomes, index: int) -> State:
    """The state with the spread of this window, or with the tables that later ones are measured by."""
    if state.basis is None or state.spread is None:
        if state.total is None or _pairs(state.total) < ROWS_ACCEPTED:
            return state
        return replace(state, basis=state.total, spread=no_spread(compile_outcomes(state.total, {})))
    tables = compile_outcomes(state.basis, {})
    return replace(state, spread=add(state.spread, tables, index, measure(tables, window)))


def _enough(state: State, settings: Settings) -> Serving | None:
    """What is known of serving if counting may end."""
    if state.total is None or state.basis is None or state.spread is None or state.windows < WINDOWS_MIN:
        return None
    pairs, lasted_ms = _pairs(state.total), state.end_ms - state.total.window_start_ms
    timely = lasted_ms >= settings.min_duration and pairs >= ROWS_WANTED
    overdue = lasted_ms >= settings.max_duration and pairs >= ROWS_ACCEPTED
    if not (timely or overdue):
        return None
    tables = compile_outcomes(state.basis, {})
    phi, n_bar = serving_of(state.spread, tables)
    own = [
        spread
        for member, spread in zip(tables.members, phi[0], strict=True)
        if (member.signal, member.measure) in WAITED_FOR
    ]
    worst = float(np.fmax.reduce(own, initial=1.0))
    if timely and pairs >= ROWS_WANTED * min(worst, PHI_MAX):
        return as_serving(tables, phi, n_bar)
    return as_serving(tables, phi, n_bar) if overdue and pairs >= ROWS_ACCEPTED * worst else None


def _pairs(window: Outcomes) -> int:
    return int(window.pairs[window.segments.index(ALL)]) if ALL in window.segments else 0


def _bins(tables: OutcomeTables) -> int:
    return ORDERED_BINS * len(tables.of("distribution"))


def _owners(tables: OutcomeTables) -> Ints:
    """[Q] the member each sum belongs to: coarse bins, u, v of distributions, then hits and values."""
    delays = tables.of("distribution")
    single = [*tables.of("rate"), *tables.of("mean")]
    return np.array([*np.repeat(delays, ORDERED_BINS), *delays, *delays, *single], dtype=np.int64)


def _columns(tables: OutcomeTables, window: Measured) -> tuple[Floats, Ints]:
    """The x [G, Q] and n [G, M] of one window."""
    g = len(tables.segments)
    n = np.zeros((g, len(tables.members)), np.int64)
    n[:, tables.of("distribution")] = window.delays.sum(-1)[:, None]
    n[:, tables.of("rate")] = window.rates[:, :, 0]
    n[:, tables.of("mean")] = window.means[:, :, 0]
    scores = np.stack([window.delay_u, window.delay_v], axis=1) if tables.of("distribution") else np.zeros((g, 0))
    bins = window.delays[:, : _bins(tables)]
    parts = [bins, scores, window.rates[:, :, 1], window.means[:, :, 1] * UNIT]
    return np.concatenate(parts, axis=1, dtype=np.float64), n


def _variances(tables: OutcomeTables) -> Floats:
    """[G, Q] variance per event of what each sum adds up; 0 for bins, which count together alone."""
    g = len(tables.segments)
    own = tables.sd[:, [*tables.of("rate"), *tables.of("mean")]] ** 2
    scores = tables.delay_variance[:, : 2 * len(tables.of("distribution"))]
    return np.concatenate([np.zeros((g, _bins(tables))), scores, own], axis=1)
