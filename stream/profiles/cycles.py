"""What learning adds up hour by hour: the counts behind seasonal slots, and overdispersion around their law.

A season would pass for a shared cause of all events of an hour. Blocks of windows are therefore compared with what the
slots expect (`statistics.md` 7, 9), which is not known before all windows are in. With a mean mu_c that is the same in
all blocks of one cell c, a quarter of an hour of the week, `sum_j (X_j - n_j mu_c)^2/n_j` is
`sum_j X_j^2/n_j - 2 sum_c X_c mu_c + sum_c n_c mu_c^2`: sums of cells suffice for blocks that end with their cell, and
longer blocks follow from sums of whole hours.

Of segment `all` alone. State per ordered signal: 17 counts and two sums of scores by cell, 672 of them after a week,
and by hour of learning, and 66 counts by hour of the week: 8 KB after a day, 70 KB after three weeks once encoded.
Windows of more than an hour have no slots: of them it is only known which hours they covered.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import overdispersion, reference, seasons
from stream.profiles.overdispersion import BLOCKS_MIN, SHARE_MIN
from stream.profiles.reference import ORDERED_BINS, UNORDERED_BINS, Tables
from stream.profiles.seasons import DAY_MS, HOUR_MS, HOURS, LADDER, QUARTERS, SLOTS, Rung
from stream.wire.internal import Slots

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

LENGTHS: Final = (1, 4, 16)
"""Windows per block inside a cell."""
HOURS_PER_BLOCK: Final = (1, 4)
SLOT_COUNTS_MAX: Final = 600_000
"""Numbers in the slots of a reference, at most seven digits each: half of what one record may hold."""
_OVER_AN_HOUR: Final = np.array([1 / 8, 3 / 4, 1 / 8])
"""Weights of the slots before, at and after an hour in the interpolated law, averaged over the hour."""


class Row(Struct, frozen=True, eq=False):
    """What some windows have added up to."""

    counts: Ints
    """[bins + S] coarse bins of all signals, then events of each: integers, which are kept small."""
    scores: Floats
    """[2 * O] sums of u, then of v."""


class Sums(Struct, frozen=True, eq=False):
    """What the windows so far have added up to. Made by `start`; `add` makes new ones that share what stays."""

    timezone: str
    hours: dict[int, Ints]
    """[T] fine counts by hour of the week."""
    seen_ms: dict[int, int]
    """How long each hour of the week was seen; a pause of less than an hour is part of it."""
    cells: dict[int, Row]
    """By cell: windows that have one law."""
    local_hours: dict[int, Row]
    """By hour on the clock."""
    running: list[Row]
    """Per length, of the block not yet over."""
    squares: Floats
    """[L, P] sum of X_j^2/n_j over those that are."""
    blocks: Ints
    """[L, S] those with events."""
    cell: int
    """Of the newest window, its index, and its end."""
    index: int
    end_ms: int
    first_ms: int | None
    """Start of the first window."""


class Season(Struct, frozen=True, eq=False):
    """The highest rung that qualifies, and the overdispersion [S] against its law; NaN where unknown."""

    rung: Rung
    phi: Floats


def start(tables: Tables, timezone: str) -> Sums:
    """Nothing added yet. The tables must stay the same for all windows."""
    p, s, lengths = len(overdispersion.signal_owners(tables)), len(tables.layout.names), len(LENGTHS)
    return Sums(
        timezone=timezone,
        hours={},
        seen_ms={},
        cells={},
        local_hours={},
        running=[_nothing(tables)] * lengths,
        squares=np.zeros((lengths, p)),
        blocks=np.zeros((lengths, s), dtype=np.int64),
        cell=-1,
        index=-1,
        end_ms=0,
        first_ms=None,
    )


def add(sums: Sums, tables: Tables, start_ms: int, counts: Ints) -> Sums:
    """One closed window with events more, in order of time: fine counts [T] of segment `all`."""
    size_ms, zone = tables.reference.window_size_ms, seasons.zone_of(sums.timezone)
    sums = replace(sums, first_ms=start_ms if sums.first_ms is None else sums.first_ms)
    if size_ms > HOUR_MS:
        return _covered(sums, start_ms, size_ms)
    centre_ms, index = start_ms + size_ms // 2, start_ms // size_ms
    at, local = seasons.moment(centre_ms, zone), seasons.local_hour(centre_ms, zone)
    hour, quarter = (at.hour, round(at.weight * QUARTERS)) if at.weight < 1 else (at.next_hour, 0)
    cell = (hour * HOURS + (at.next_hour if quarter else hour)) * QUARTERS + quarter
    lengths = np.array(LENGTHS)
    over = (index // lengths != sums.index // lengths) | (cell != sums.cell)
    sums = _flushed(sums, tables, over)
    row, none = _row(tables, counts), _nothing(tables)
    week_hour, pause_ms = local % HOURS, start_ms - sums.end_ms
    lasted_ms = size_ms + (pause_ms if 0 <= pause_ms < HOUR_MS else 0)
    return replace(
        sums,
        hours={**sums.hours, week_hour: sums.hours.get(week_hour, 0) + counts},
        seen_ms={**sums.seen_ms, week_hour: sums.seen_ms.get(week_hour, 0) + lasted_ms},
        cells={**sums.cells, cell: _plus(sums.cells.get(cell, none), row)},
        local_hours={**sums.local_hours, local: _plus(sums.local_hours.get(local, none), row)},
        running=[_plus(one, row) for one in sums.running],
        cell=cell,
        index=index,
        end_ms=start_ms + size_ms,
    )


def season(sums: Sums, tables: Tables, counts: Ints, *, phi_max: float, at_least: Rung = "global") -> Season | None:
    """The highest rung whose slots have enough independent rows, `phi_max` at most counting for one, and fit a record.

    `counts` [T] are those of all windows added. No rung below `at_least`, which was used before. None before a day has
    passed, and for windows of more than one: nothing is known of seasons then.
    """
    size_ms = tables.reference.window_size_ms
    if sums.first_ms is None or size_ms > DAY_MS or sums.end_ms - sums.first_ms < DAY_MS:
        return None
    unknown = Season("global", np.full(len(tables.layout.names), np.nan))
    if size_ms > HOUR_MS:
        return unknown
    first, last = int(tables.layout.first[0]), int(tables.layout.first[0] + tables.layout.width[0])
    rows = np.zeros(HOURS)
    for hour, own in sums.hours.items():
        rows[hour] = own[first:last].sum()
    rows *= (seen(sums) >= HOUR_MS)[SLOTS["hour_of_day_weekend"]]
    weeks = (sums.end_ms - sums.first_ms) / (HOURS * HOUR_MS)
    sums = _flushed(sums, tables, np.ones(len(LENGTHS), dtype=np.bool_))
    for rung in reversed(LADDER[1:]):
        if (SLOTS[rung].max() + 1) * _bins(tables) > SLOT_COUNTS_MAX:
            continue
        if rung == at_least:
            return Season(rung, _phi(sums, tables, counts, rung))
        if LADDER.index(seasons.rung_of(rows, weeks)) >= LADDER.index(rung):
            phi = _phi(sums, tables, counts, rung)
            worst = min(float(np.fmax.reduce(phi, initial=1.0)), phi_max)
            if LADDER.index(seasons.rung_of(rows / worst, weeks)) >= LADDER.index(rung):
                return Season(rung, phi)
    return unknown


def seen(sums: Sums) -> Ints:
    """[48] how long the hours of work days, then those of weekends, were seen."""
    by_hour = np.zeros(HOURS, dtype=np.int64)
    for hour, lasted_ms in sums.seen_ms.items():
        by_hour[hour] = lasted_ms
    return seasons.by_slot(by_hour, "hour_of_day_weekend")


def slots(sums: Sums, tables: Tables, rung: Rung) -> Slots:
    """The slots of a rung as a reference carries them; `tables` are those of that reference."""
    counts: dict[str, list[list[int]]] = {}
    if rung != "global":
        fine = np.zeros((HOURS, tables.layout.columns), dtype=np.int64)
        for hour, own in sums.hours.items():
            fine[hour] = own
        coarse = reference.coarse(tables, seasons.by_slot(fine, rung))
        for family, by_slot in zip((tables.ordered, tables.unordered), coarse, strict=True):
            for place, signal in enumerate(family.signals.tolist()):
                counts[tables.layout.names[signal]] = by_slot[:, place, : int(family.bins[place])].tolist()
    return Slots(rung, sums.timezone, counts, seen(sums).tolist())


def by_hour(sums: Sums, tables: Tables) -> Ints:
    """[48, bins] coarse counts of the hours of work days, then of those of weekends, all signals side by side."""
    fine = np.zeros((HOURS, tables.layout.columns), dtype=np.int64)
    for hour, own in sums.hours.items():
        fine[hour] = own
    return tables.to_coarse(seasons.by_slot(fine, "hour_of_day_weekend"))


def _covered(sums: Sums, start_ms: int, size_ms: int) -> Sums:
    """A window longer than an hour: the hours it covers were seen."""
    zone, seen_ms = seasons.zone_of(sums.timezone), dict(sums.seen_ms)
    for middle_ms, lasted_ms in seasons.pieces(start_ms, size_ms):
        hour = seasons.local_hour(middle_ms, zone) % HOURS
        seen_ms[hour] = seen_ms.get(hour, 0) + lasted_ms
    return replace(sums, seen_ms=seen_ms, end_ms=start_ms + size_ms)


def _row(tables: Tables, counts: Ints) -> Row:
    """One window with fine counts [T]."""
    x, n = overdispersion.signal_columns(tables, counts[None])
    bins = _bins(tables)
    return Row(np.concatenate([x[0, :bins], n[0]]).astype(np.int64), x[0, bins:])


def _nothing(tables: Tables) -> Row:
    bins, scores = _bins(tables), 2 * len(tables.ordered.signals)
    return Row(np.zeros(bins + len(tables.layout.names), dtype=np.int64), np.zeros(scores))


def _plus(one: Row, other: Row) -> Row:
    return Row(one.counts + other.counts, one.scores + other.scores)


def _stacked(tables: Tables, rows: Iterable[Row]) -> tuple[Floats, Floats]:
    """Sums x [R, P] and the events [R, S] among which they are."""
    found = list(rows)
    counts = np.stack([row.counts for row in found]).astype(np.float64)
    bins = _bins(tables)
    return np.concatenate([counts[:, :bins], np.stack([row.scores for row in found])], axis=1), counts[:, bins:]


def _flushed(sums: Sums, tables: Tables, over: np.ndarray[Any, np.dtype[np.bool_]]) -> Sums:
    """The running blocks of the lengths in `over` [L] are added and begin anew."""
    owners, none = overdispersion.signal_owners(tables), _nothing(tables)
    x, n = _stacked(tables, (row if ends else none for row, ends in zip(sums.running, over.tolist(), strict=True)))
    return replace(
        sums,
        running=[none if ends else row for row, ends in zip(sums.running, over.tolist(), strict=True)],
        squares=sums.squares + _over(x * x, n[:, owners]),
        blocks=sums.blocks + (n > 0),
    )


def _phi(sums: Sums, tables: Tables, counts: Ints, rung: Rung) -> Floats:
    """[S] at least 1; NaN where too few blocks had events."""
    owners = overdispersion.signal_owners(tables)
    hours = np.array(sorted(sums.hours))
    x, n = overdispersion.signal_columns(tables, np.stack([sums.hours[hour] for hour in hours.tolist()]))
    means, known = _means(x, n[:, owners], hours, rung)
    deviations, dof = _deviations(sums, tables, (means, known), rung)
    shares, variances = _variances(tables, counts, (x, n[:, owners]), means[hours])
    some = np.where(dof >= BLOCKS_MIN, dof, np.nan)
    own = _over(deviations, some[:, owners] * np.where(_counts_alone(tables, shares), variances, 0.0), np.nan)
    bins = np.arange(len(owners)) < _bins(tables)
    terms, expected = _over(deviations, shares) * bins, _over(variances, shares) * bins
    found = np.full((len(dof), len(tables.layout.names)), np.nan)
    for signal in range(found.shape[1]):
        its = owners == signal
        spread = _over(terms[:, its].sum(1), some[:, signal] * expected[its].sum(), np.nan)
        found[:, signal] = np.fmax(spread, np.fmax.reduce(own[:, its], axis=1, initial=np.nan))
    return np.asarray(np.where(sums.blocks[0] >= BLOCKS_MIN, np.fmax(np.fmax.reduce(found, axis=0), 1.0), np.nan))


def _means(x: Floats, n: Floats, hours: Ints, rung: Rung) -> tuple[Floats, Floats]:
    """[168, P] mean of each column in the slot of each hour, and the events behind it."""
    all_x, all_n = np.zeros((2, HOURS, x.shape[1]))
    all_x[hours], all_n[hours] = x, n
    sums, events = (seasons.by_slot(whole, rung)[SLOTS[rung]] for whole in (all_x, all_n))
    return _over(sums, events), events


def _deviations(sums: Sums, tables: Tables, law: tuple[Floats, Floats], rung: Rung) -> tuple[Floats, Floats]:
    """[L', P] squared deviations of blocks of all lengths from what the slots expect, and their freedom [L', S].

    `law` is what `_means` says.
    """
    owners, (means, known) = overdispersion.signal_owners(tables), law
    cells = np.array(sorted(sums.cells))
    hour, ahead, weight = cells // (QUARTERS * HOURS), cells // QUARTERS % HOURS, cells % QUARTERS / QUARTERS
    mu = _mixed(means, known, np.stack([hour, ahead], axis=1), np.stack([1 - weight, weight], axis=1))
    x, n = _stacked(tables, (sums.cells[cell] for cell in cells.tolist()))
    within = (n[:, owners] * mu * mu - 2 * x * mu).sum(0)
    deviations, slots = [*(sums.squares + within)], _slots(known, owners, rung, n.shape[1])
    dof = [*(sums.blocks - slots)]
    local = np.array(sorted(sums.local_hours))
    x, n = _stacked(tables, (sums.local_hours[one] for one in local.tolist()))
    near = (local[:, None] + np.array([-1, 0, 1])) % HOURS
    mu = _mixed(means, known, near, np.tile(_OVER_AN_HOUR, (len(local), 1)))
    rest = x - n[:, owners] * mu
    for length in HOURS_PER_BLOCK:
        starts = np.flatnonzero(np.diff(local // length, prepend=-1))
        total, events = np.add.reduceat(rest, starts), np.add.reduceat(n, starts)
        deviations.append(_over(total * total, events[:, owners]).sum(0))
        dof.append((events > 0).sum(0) - slots / length)
    return np.maximum(np.stack(deviations), 0.0), np.stack(dof)


def _mixed(means: Floats, known: Floats, hours: Ints, weights: Floats) -> Floats:
    """[C, P] means of hours [C, J] mixed by weights [C, J]; an hour never seen leaves its weight to the others."""
    weight = weights[:, :, None] * (known[hours] > 0)
    return _over((weight * means[hours]).sum(1), weight.sum(1))


def _slots(known: Floats, owners: Ints, rung: Rung, signals: int) -> Floats:
    """[S] slots with events, each of which has taken one block to know its mean."""
    first_hours = np.unique(SLOTS[rung], return_index=True)[1]
    found = np.zeros(signals)
    found[owners] = (known[first_hours] > 0).sum(0)
    return found


def _variances(tables: Tables, counts: Ints, sums: tuple[Floats, Floats], means: Floats) -> tuple[Floats, Floats]:
    """[P] mean of each column, and its variance per event inside a slot; `means` [H, P] of the hours."""
    x, n = sums
    events = np.maximum(n.sum(0), 1.0)
    total = counts[None].astype(np.float64)
    squares = [tables.to_signals(total * score * score)[0] for score in (tables.u, tables.v)]
    second = np.concatenate([x.sum(0)[: _bins(tables)], *squares]) / events
    return x.sum(0) / events, np.maximum(second - (n * means * means).sum(0) / events, 0.0)


def _counts_alone(tables: Tables, shares: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[P] True for u, v and frequent categories: sums that are looked at each on its own."""
    ordered, bins = len(tables.ordered.signals) * ORDERED_BINS, _bins(tables)
    place = np.arange(len(shares))
    return np.asarray((place >= bins) | ((place >= ordered) & (shares >= SHARE_MIN)))


def _bins(tables: Tables) -> int:
    return len(tables.ordered.signals) * ORDERED_BINS + len(tables.unordered.signals) * UNORDERED_BINS


def _over(above: Floats, below: Floats, otherwise: float = 0.0) -> Floats:
    out = np.full(np.broadcast_shapes(above.shape, below.shape), otherwise)
    return np.asarray(np.divide(above, below, out=out, where=below > 0))
