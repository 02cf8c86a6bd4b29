"""How a learned reference matures: it goes on counting, and at some ages a successor says what came since.

    learned --(7 days)--> successor --(21 days)--> successor, for good

A reference learned on one day knows no weekend, and nothing of slow causes. Closed windows are therefore added to its
counts for as long as no alert is open, and at each age a successor of the same cuts is published (`statistics.md`
2.11): more rows, overdispersion anew, a higher rung of seasons if one qualifies. It keeps the coarse bins of the first,
so that what detectors remember goes on. A slow drift must not be learned: whoever publishes asks first how far the laws
have `moved` since they were first seen.
"""

from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import cycles, learning, reference
from stream.profiles.learning import Counts, Settings
from stream.profiles.reference import Tables
from stream.profiles.seasons import HOUR_MS, Rung
from stream.profiles.summaries import Dense
from stream.wire.internal import Reference

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

PATIENCE_MS: Final = 604_800_000
"""How long after the last age a reference may still wait for a quiet moment: a week, then it stays as it is."""


class State(Struct, frozen=True, eq=False):
    """All a restart needs of one reference that matures. Made by `start`."""

    provisional: Reference
    """What is counted against."""
    counts: Counts
    references: list[str]
    """Ids of the reference and of its successors so far."""
    rung: Rung
    """Of the newest: no successor falls below."""
    coarse: dict[str, list[int]]
    """Coarse bin of each valid bin of every signal: those of the first."""
    first: Ints
    """[H, bins] coarse counts of each hour as first seen, 0 where it was not yet."""
    epsilon: Floats
    """[S] eps_ref of the first."""
    age: int = 0
    """Index of the next age."""
    told: bool = False
    """Whether people were told that it may not pass this age."""


def start(state: learning.State, settings: Settings, learned: Reference) -> State | None:
    """What follows from counts that have made a reference; None when it is as old as it gets."""
    if state.provisional is None or state.counts is None:
        raise ValueError("only what was counted can mature")
    tables = reference.compile_tables(learned)
    epsilon = np.zeros(len(tables.layout.names))
    for place, family in enumerate((tables.ordered, tables.unordered)):
        phi = np.where(np.isnan(family.phi[0]), 1.0, family.phi[0])
        epsilon[family.signals] = reference.error(tables, place, phi)
    now = _by_hour(state.counts, tables)
    fresh = State(
        provisional=state.provisional,
        counts=state.counts,
        references=[learned.reference_id],
        rung="global" if learned.slots is None else learned.slots.rung,
        coarse=reference.coarse_of(tables),
        first=np.where(_seen(state.counts, len(now))[:, None], now, 0),
        epsilon=epsilon,
    )
    return _aged(fresh, settings)


def add(state: State, tables: Tables, start_ms: int, window: Dense) -> State:
    """One closed window more, in order of time; `tables` are those of `state.provisional`."""
    return replace(state, counts=learning.add(state.counts, tables, start_ms, window))


def left_out(state: State, end_ms: int) -> State:
    """A window that ended at `end_ms` is not learned from, whatever it held."""
    return replace(state, counts=learning.left_out(state.counts, end_ms))


def is_due(state: State, settings: Settings, now_ms: int) -> bool:
    """Whether the next age has come."""
    return _age_ms(state, now_ms) >= settings.mature[state.age]


def is_over(state: State, settings: Settings, now_ms: int) -> bool:
    """Whether there are no ages to come any more, or none could be passed for too long."""
    return state.age >= len(settings.mature) or _age_ms(state, now_ms) >= settings.mature[-1] + PATIENCE_MS


def with_told(state: State) -> State:
    """The state once people were told that it may not pass the next age."""
    return replace(state, told=True)


def moved(state: State, tables: Tables) -> Floats:
    """[S] total variation between the laws of all signals now and as first seen, in the hours that were seen before.

    Hours count by what came in them since then. `tables` are those of a reference with the coarse bins of the first.
    """
    now, first = _by_hour(state.counts, tables).astype(np.float64), state.first.astype(np.float64)
    found, at = np.zeros(len(tables.layout.names)), 0
    for family, width in (
        (tables.ordered, reference.ORDERED_BINS),
        (tables.unordered, reference.UNORDERED_BINS),
    ):
        for signal in family.signals.tolist():
            found[signal] = _distance(now[:, at : at + width], first[:, at : at + width])
            at += width
    return found


def successor(state: State, settings: Settings, tables: Tables, *, effective_from_ms: int) -> tuple[State, Reference]:
    """The reference of all that was counted, in force from `effective_from_ms` on; `tables` as in `add`."""
    found = learning.overdispersion_of(state.counts, tables, state.rung)
    grown = learning.completed(
        tables,
        state.counts,
        found,
        effective_from_ms=effective_from_ms,
        origin="learned",
        data=learning.period(state.counts),
        coarse=state.coarse,
    )
    now = _by_hour(state.counts, reference.compile_tables(grown))
    new = _seen(state.counts, len(now)) & (state.first.sum(1) == 0)
    after = replace(
        state,
        references=[*state.references, grown.reference_id],
        rung="global" if grown.slots is None else grown.slots.rung,
        first=np.where(new[:, None], now, state.first),
        age=state.age + 1,
        told=False,
    )
    return _aged(after, settings), grown


def _aged(state: State, settings: Settings) -> State:
    """The state with the ages left out that have passed already."""
    age = state.age
    while age < len(settings.mature) and settings.mature[age] <= _age_ms(state, state.counts.end_ms):
        age += 1
    return replace(state, age=age)


def _age_ms(state: State, now_ms: int) -> int:
    return now_ms - (now_ms if state.counts.first_ms is None else state.counts.first_ms)


def _by_hour(counts: Counts, tables: Tables) -> Ints:
    """[48, bins] coarse counts by hour, [1, bins] in all where windows are longer than one."""
    if tables.reference.window_size_ms > HOUR_MS:
        return tables.to_coarse(counts.dense.counts[:1])
    return cycles.by_hour(counts.cycle, tables)


def _seen(counts: Counts, hours: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[H] hours that were seen whole."""
    return np.ones(1, dtype=np.bool_) if hours == 1 else cycles.seen(counts.cycle) >= HOUR_MS


def _distance(now: Floats, first: Floats) -> float:
    """Total variation between the mixtures of the laws in the rows [H, B], weighted by what came to each since."""
    n, before = now.sum(1), first.sum(1)
    new = np.where(before > 0, n - before, 0.0)
    if not new.sum() > 0:
        return 0.0
    gap = now / np.maximum(n, 1.0)[:, None] - first / np.maximum(before, 1.0)[:, None]
    return float(0.5 * np.abs((new[:, None] * gap).sum(0)).sum() / new.sum())
