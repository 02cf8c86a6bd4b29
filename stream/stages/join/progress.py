"""Time goes on: rows whose window is over meet those that are held, and those whose horizon is over are told.

Rows are processed in event time, many windows at once where nothing can happen at their ends. Decisions concern rows
within one horizon only (`meet`), so it does not matter how time is cut; only the sample is halved at ends of windows.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.stages.join import compare, inbox, meet, places, rows, store, told
from stream.stages.join.places import Places
from stream.stages.join.rows import Rows, Words
from stream.stages.join.settings import Settings
from stream.stages.join.state import Held, State
from stream.stages.join.store import Run
from stream.stages.join.told import Told
from stream.wire.internal import Bools, Ints

ROWS_AT_ONCE: Final = 1 << 18
"""Rows processed at once: a good hundred bytes each while they are looked at."""
_BEFORE_ALL_TIME: Final = -(2**62)


def advance(settings: Settings, state: State, until_ms: int) -> tuple[State, Told]:
    """All windows up to one end."""
    parts = []
    state = replace(state, inbox=inbox.sorted_(state.inbox))
    while state.reached_ms is None or state.reached_ms < until_ms:
        state, part = _passed(settings, state, _next(settings, state, until_ms))
        parts.append(part)
        is_end = state.reached_ms is not None and state.reached_ms % settings.windows.size == 0
        if is_end and not state.is_replay:
            state, dropped = _bounded(settings, state)
            parts.append(dropped)
    return state, told.joined(parts)


def halved(settings: Settings, state: State) -> tuple[State, Told]:
    """Half of the sample: rows of the other half are dropped, both halves of a pair alike."""
    limit = threshold(settings, state.halvings + 1)
    box, over = inbox.below(state.inbox, limit)
    held, rest = _below(settings, state, limit)
    dropped = [told.counted(some, "over_limit") for some in (over, *rest)]
    state = replace(state, inbox=box, total=_less(state.total, [over, *rest]), held=held, halvings=state.halvings + 1)
    return state, told.joined(dropped)


def threshold(settings: Settings, halvings: int) -> int:
    """Keys below it, read without sign, are joined."""
    return int(settings.feedback.sample * 2.0**64) >> halvings


def _bounded(settings: Settings, state: State) -> tuple[State, Told]:
    parts = []
    while state.held.undecided > settings.feedback.max_pending:
        state, part = halved(settings, state)
        parts.append(part)
    return state, told.joined(parts)


def _next(settings: Settings, state: State, until_ms: int) -> int:
    """How far to go at once: to an end of a window if the sample may be halved there, and not with too many rows."""
    first_ms = inbox.first_ms(state.inbox)
    if first_ms is None or first_ms >= until_ms:
        return until_ms
    size_ms = settings.windows.size
    many = state.held.undecided + inbox.due(state.inbox, until_ms) > settings.feedback.max_pending
    if many and not state.is_replay:
        until_ms = first_ms - first_ms % size_ms + size_ms
    while until_ms - first_ms > 1 and inbox.due(state.inbox, until_ms) > ROWS_AT_ONCE:
        until_ms = first_ms + (until_ms - first_ms) // 2
    return until_ms


def _passed(settings: Settings, state: State, until_ms: int) -> tuple[State, Told]:
    """All rows before a time processed, and those told whose horizon it ends."""
    box, due = inbox.taken(state.inbox, until_ms)
    from_ms = _BEFORE_ALL_TIME if state.reached_ms is None else state.reached_ms
    state = replace(state, inbox=box, reached_ms=until_ms)
    parts = []
    if len(due):
        state, part = _arrived(settings, state, due, from_ms)
        parts.append(part)
    state, part = _ended(settings, state, from_ms)
    return state, told.joined([*parts, part])


class _Came(Struct, frozen=True, eq=False):
    """Rows of one kind that share their keys with rows that have just come."""

    rows: Rows
    new: Bools
    """[n] which have just come"""
    part: Bools
    """[n] which take part, being in no crowd"""

    def held(self, early_ms: Ints, settled: Bools) -> Rows:
        """The new ones as they are kept, with what was found of those that take part."""
        found = np.zeros((2, len(self.new)), dtype=np.int64)
        found[:, self.part] = early_ms, np.where(settled, rows.SETTLED, 0)
        found[1, ~self.part] = rows.CROWDED
        return rows.picked(rows.held(self.rows, found[0], found[1]), self.new)


def _arrived(settings: Settings, state: State, due: Rows, from_ms: int) -> tuple[State, Told]:
    """New rows meet the others of their keys, and are held."""
    horizon_ms, size_ms = settings.feedback.horizon, settings.windows.size
    came = _set_up(state.held, due, from_ms, horizon_ms)
    of = meet.scene(horizon_ms, *(rows.picked(one.rows, one.part) for one in came))
    predictions, labels = of.predictions, of.labels
    new_predictions, new_labels = (one.new[one.part] for one in came)
    before = meet.repeated_predictions(of)
    usable = np.where(new_predictions, before < 0, predictions.settled == 0)
    first = meet.first_labels(of, np.where(new_predictions, horizon_ms, predictions.early_ms))
    apart_ms = predictions.times_ms - labels.times_ms[first] if len(labels) else np.zeros_like(first)
    # The label that a held prediction met when it came may be gone; then what was found is not its first.
    gone = ~new_predictions & (predictions.early_ms > 0) & (apart_ms != predictions.early_ms)
    first = np.where(usable & ~gone, first, -1)
    early_ms = np.where(first >= 0, np.maximum(apart_ms, 0), 0)

    met = first >= 0
    met[met] = (new_predictions | new_labels[first])[met] if len(labels) else False
    pairs = rows.picked(predictions, met), rows.picked(labels, first[met])
    label_before = meet.repeated_labels(of)
    known = meet.first_predictions(of, horizon_ms, 0)

    parts = [
        told.met(*pairs, size_ms),
        Told(compared=compare.compared(of, first, usable, from_ms, settings)),
        *(told.counted(one.rows, "duplicate", one.new & ~one.part) for one in came),
        told.counted(predictions, "duplicate", new_predictions & ~usable),
        told.counted(labels, "duplicate", new_labels & (label_before >= 0)),
    ]
    spots = _leaning(state.places, came, horizon_ms)
    for some, which, others, found in (
        (predictions, new_predictions & (before >= 0), predictions, before),
        (predictions, new_predictions & (early_ms > 0), labels, first),
        (labels, new_labels & (label_before >= 0), labels, label_before),
        (labels, new_labels & (known >= 0), predictions, known),
    ):
        spots = places.leans(spots, some.times_ms[which], others.times_ms[found[which]])
    kept = came[0].held(early_ms, ~usable), came[1].held(0 * known, (label_before >= 0) | (known >= 0))
    state = replace(state, held=_with(state.held, *kept), places=spots, total=_more(state.total, kept))
    return state, told.joined(parts)


def _more(total: int, some: Sequence[Rows]) -> int:
    """The digest when what was found of these rows is known."""
    return (total + sum(map(rows.found, some))) % 2**64


def _less(total: int, some: Sequence[Rows]) -> int:
    """The digest without these rows."""
    return (total - sum(map(rows.total, some)) - sum(map(rows.found, some))) % 2**64


def _set_up(held: Held, due: Rows, from_ms: int, horizon_ms: int) -> list[_Came]:
    """Predictions and labels: those that have just come, by key and time, and those that are held of their keys."""
    by_time = rows.order(due.times_ms)
    due = rows.picked(due, by_time[rows.order(due.keys[by_time])])
    keys, is_label = rows.distinct(due.keys), due.kind == rows.LABEL
    found = []
    for runs, which in ((held.predictions, ~is_label), (held.labels, is_label)):
        old = store.find(runs, keys, from_ms - horizon_ms)
        both = rows.gathered([old, rows.picked(due, which)])
        new = np.arange(len(both)) >= len(old)
        crowded = np.where(new, meet.crowded(both, horizon_ms, store.CROWD), both.settled == rows.CROWDED)
        found.append(_Came(both, new, ~crowded))
    return found


def _leaning(spots: Places, came: Sequence[_Came], horizon_ms: int) -> Places:
    """Who is in a crowd is the one decision that others rest on: where there is one, a replay needs two horizons."""
    keys = np.concatenate([one.rows.keys[~one.part] for one in came])
    if not len(keys):
        return spots
    times_ms = np.concatenate([one.rows.times_ms[one.new & np.isin(one.rows.keys, keys)] for one in came])
    return places.leans(spots, times_ms, times_ms - 2 * horizon_ms)


def _with(held: Held, predictions: Rows, labels: Rows) -> Held:
    runs = [
        store.added(before, store.pack([some], "keys"), _merged) if len(some) else before
        for before, some in ((held.predictions, predictions), (held.labels, labels))
    ]
    return Held(
        predictions=runs[0],
        labels=runs[1],
        undecided=held.undecided + len(predictions) + len(labels),
    )


def _merged(runs: Sequence[Run]) -> Run:
    return store.pack(runs, "keys")


def _ended(settings: Settings, state: State, from_ms: int) -> tuple[State, Told]:
    """Rows whose horizon has ended are told and forgotten."""
    horizon_ms, held, parts = settings.feedback.horizon, state.held, []
    reached_ms = from_ms if state.reached_ms is None else state.reached_ms
    span = from_ms - horizon_ms, reached_ms - horizon_ms
    undecided, total = held.undecided, state.total
    for some in store.between(held.predictions, *span, ROWS_AT_ONCE):
        parts.append(_predictions_ended(settings, held, some))
        undecided, total = undecided - len(some), _less(total, [some])
    for some in store.between(held.labels, *span, ROWS_AT_ONCE):
        parts.append(_labels_ended(settings, held, some))
        undecided, total = undecided - len(some), _less(total, [some])
    held = Held(
        predictions=tuple(run for run in held.predictions if run.last_ms >= span[1]),
        labels=tuple(run for run in held.labels if run.last_ms >= span[1]),
        undecided=undecided,
    )
    return replace(state, held=held, total=total, places=places.past(state.places, span[1], horizon_ms)), told.joined(
        parts
    )


def _predictions_ended(settings: Settings, held: Held, some: Rows) -> Told:
    horizon_ms = settings.feedback.horizon
    some = rows.picked(some, some.settled == 0)
    if not len(some):
        return Told()
    open_keys = rows.distinct(some.keys[some.early_ms == 0])
    of = meet.scene(horizon_ms, some, _taking_part(held.labels, open_keys, int(some.times_ms.min())))
    labelled = (of.predictions.early_ms > 0) | (meet.first_labels(of, 0) >= 0)
    return told.ended(of.predictions, labelled, horizon_ms, settings.windows.size)


def _labels_ended(settings: Settings, held: Held, some: Rows) -> Told:
    horizon_ms = settings.feedback.horizon
    some = rows.picked(some, some.settled == 0)
    if not len(some):
        return Told()
    others = _taking_part(held.predictions, rows.distinct(some.keys), int(some.times_ms.min()))
    of = meet.scene(horizon_ms, others, some)
    return told.counted(of.labels, "unknown", meet.first_predictions(of, 0, horizon_ms) < 0)


def _taking_part(runs: Sequence[Run], keys: Words, since_ms: int) -> Rows:
    found = store.find(runs, keys, since_ms)
    return rows.picked(found, found.settled != rows.CROWDED)


def _below(settings: Settings, state: State, limit: int) -> tuple[Held, list[Rows]]:
    """The rows held with keys below a limit, and the undecided ones among the others."""
    since_ms = _BEFORE_ALL_TIME if state.reached_ms is None else state.reached_ms - settings.feedback.horizon
    dropped: list[Rows] = []
    kept: list[tuple[Run, ...]] = []
    for runs in (state.held.predictions, state.held.labels):
        dropped += [
            some for run in runs for some in store.where(run, run.keys >= np.uint64(limit), since_ms, ROWS_AT_ONCE)
        ]
        kept.append(tuple(store.kept(run, run.keys < np.uint64(limit)) for run in runs))
    held = Held(
        predictions=tuple(run for run in kept[0] if len(run)),
        labels=tuple(run for run in kept[1] if len(run)),
        undecided=state.held.undecided - sum(map(len, dropped)),
    )
    return held, dropped
