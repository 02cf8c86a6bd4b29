"""Overdispersion: how much wider sums spread than under independence, in the worst direction and at the worst scale.

Events of a window share causes, and windows follow each other. Windows are gathered in blocks of 1, 4, 16, 64 and 256;
over the J whole blocks of one length a sum X_j of n_j events with mean mu and variance V per event gives
`phi = sum_j (X_j - n_j mu)^2/n_j / ((J - 1) V)`, and the worst of all lengths and all sums counts (`statistics.md` 7).
As `sum_j (X_j - n_j mu)^2/n_j = sum_j X_j^2/n_j - (sum X_j)^2/sum n_j` around the blocks' own mean, sums suffice: no
window is kept. It is their own mean, so that a reference that is a little off does not look like a shared cause.

Sums are kept for Q columns of every segment: the coarse bins of all signals, u and v of the ordered ones, the three
rates of each signal, the two rates of rows. State: 20 Q numbers per segment, 0.1 MB at 25 signals.
"""

from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct

from stream.profiles import reference
from stream.profiles.reference import ORDERED_BINS, RATES, ROW_RATES, UNORDERED_BINS, Tables
from stream.profiles.summaries import Dense

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

LENGTHS: Final = (1, 4, 16, 64, 256)
"""Windows per block: from the window itself to four hours of minutes, in factors of four."""
BLOCKS_MIN: Final = 20
"""Whole blocks a length needs; with fewer the estimate is mostly chance."""
SHARE_MIN: Final = 0.05
"""A category below it does not count on its own: one busy customer would speak for the signal."""


class Sums(Struct, frozen=True, eq=False):
    """What the blocks of L lengths have added up to. Made by `start`; `add` makes new ones."""

    first: int | None
    """Index of the first window: a block that began before it is not whole."""
    last: int
    """Index of the newest window."""
    x: Floats
    """[L, G, Q] sums of the running blocks."""
    n: Floats
    """[L, G, S + 1] their events: valid ones of each signal, then all rows."""
    squares: Floats
    """[L, G, Q] sum of X_j^2/n_j over the whole blocks, as the rest."""
    sums: Floats
    """[L, G, Q]"""
    events: Floats
    """[L, G, S + 1]"""
    blocks: Ints
    """[L, G, S + 1] J: those with events."""


class Overdispersion(Struct, frozen=True, eq=False):
    """phi, at least 1; NaN where fewer than 20 windows had events."""

    signals: Floats
    """[G, S] of distributions"""
    rates: Floats
    """[G, S, 3] of `reference.RATES`"""
    rows: Floats
    """[G, 2] of `reference.ROW_RATES`"""


def start(tables: Tables) -> Sums:
    """Nothing added yet. The tables must stay the same for all windows."""
    return nothing(len(tables.segments), len(_owners(tables)), len(tables.layout.names) + 1)


def nothing(segments: int, columns: int, kinds: int) -> Sums:
    """Nothing added yet of so many columns, whose events are counted in so many kinds."""
    wide, narrow = (len(LENGTHS), segments, columns), (len(LENGTHS), segments, kinds)
    x, n, squares, sums, events = (np.zeros(shape) for shape in (wide, narrow, wide, wide, narrow))
    return Sums(None, 0, x, n, squares, sums, events, np.zeros(narrow, dtype=np.int64))


def add(sums: Sums, tables: Tables, index: int, window: Dense) -> Sums:
    """One closed window more; `index` is its start over its size. Windows come in order, empty ones may be left out.

    About 0.1 ms per segment of 25 signals.
    """
    return gathered(sums, _owners(tables), index, *_columns(tables, window))


def gathered(sums: Sums, owners: Ints, index: int, x: Floats, n: Floats) -> Sums:
    """One window more of any sums `x` [G, Q] among `n` [G, kinds] events; `owners` [Q] says of which kind each is."""
    first = index if sums.first is None else sums.first
    lengths = np.array(LENGTHS)
    # Blocks that ended in windows left out; then those that end with this one.
    sums = _flushed(sums, owners, lengths, index // lengths != sums.last // lengths, first)
    sums = Sums(first, index, sums.x + x, sums.n + n, sums.squares, sums.sums, sums.events, sums.blocks)
    return _flushed(sums, owners, lengths, (index + 1) % lengths == 0, first)


def phi(sums: Sums, tables: Tables, counts: Ints) -> Overdispersion:
    """The overdispersion of all windows added, against the law of fine counts [G, T] of the same windows."""
    owners, names = _owners(tables), tables.layout.names
    ratios = ratios_of(sums, owners, _variances(tables, sums, counts))
    bins = len(tables.ordered.signals) * ORDERED_BINS + len(tables.unordered.signals) * UNORDERED_BINS
    spreads = chi_squares(sums, owners, bins)[:, :, :-1]
    worst = np.fmax.reduce(ratios, axis=0, initial=np.nan)
    enough = sums.blocks[0] >= BLOCKS_MIN
    signals = np.fmax.reduce(spreads, axis=0, initial=np.nan)
    for index in range(len(names)):
        own = worst[:, owners == index]
        if own.shape[1]:
            signals[:, index] = np.fmax(signals[:, index], np.fmax.reduce(own, axis=1))
    rest = worst[:, owners == len(names)]
    rates, rows = rest[:, : -len(ROW_RATES)], rest[:, -len(ROW_RATES) :]
    return Overdispersion(
        signals=np.where(enough[:, :-1], np.fmax(signals, 1.0), np.nan),
        rates=np.where(enough[:, -1:], np.fmax(rates, 1.0), np.nan).reshape(len(rest), len(names), len(RATES)),
        rows=np.where(enough[:, -1:], np.fmax(rows, 1.0), np.nan),
    )


def signal_owners(tables: Tables) -> Ints:
    """[P] the signal each column of `signal_columns` belongs to: coarse bins, u, v."""
    ordered, unordered = tables.ordered.signals, tables.unordered.signals
    bins = [np.repeat(ordered, ORDERED_BINS), np.repeat(unordered, UNORDERED_BINS)]
    return np.concatenate([*bins, ordered, ordered]).astype(np.int64)


def signal_columns(tables: Tables, counts: Ints) -> tuple[Floats, Floats]:
    """The sums x [R, P] and events n [R, S] of the distributions in fine counts [R, T]."""
    ordered, unordered = reference.coarse(tables, counts)
    u, v = reference.scores(tables, counts)
    rows = len(counts)
    n = np.empty((rows, len(tables.layout.names)))
    n[:, tables.ordered.signals] = ordered.sum(-1)
    n[:, tables.unordered.signals] = unordered.sum(-1)
    parts = [ordered.reshape(rows, -1), unordered.reshape(rows, -1), u.s, v.s]
    return np.concatenate(parts, axis=1, dtype=np.float64), n


def _owners(tables: Tables) -> Ints:
    """[Q] the signal whose valid events each column counts among, S for rates: bins, u, v, rates, rates of rows."""
    count = len(tables.layout.names)
    rates = np.full(count * len(RATES) + len(ROW_RATES), count)
    return np.concatenate([signal_owners(tables), rates]).astype(np.int64)


def _columns(tables: Tables, window: Dense) -> tuple[Floats, Floats]:
    """The x [G, Q] and n [G, S + 1] of one window."""
    x, n = signal_columns(tables, window.counts)
    rates = reference.hits(tables.layout, window.counts).reshape(len(x), -1)
    rows = np.stack([window.invalid_rows, window.outlying_rows], axis=1)
    return (
        np.concatenate([x, rates, rows], axis=1, dtype=np.float64),
        np.concatenate([n, window.rows[:, None]], axis=1, dtype=np.float64),
    )


def _flushed(sums: Sums, owners: Ints, lengths: Ints, ended: Any, first: int) -> Sums:
    """The running blocks of the lengths in `ended` [L] are added, if they are whole and hold events, and begin anew."""
    if not ended.any():
        return sums
    whole = ended & (sums.last // lengths * lengths >= first)
    taken = whole[:, None, None] & (sums.n > 0)
    n = np.where(taken, sums.n, 0.0)
    x = np.where(taken[:, :, owners], sums.x, 0.0)
    squares = np.divide(x**2, n[:, :, owners], out=np.zeros_like(x), where=taken[:, :, owners])
    kept = ~ended[:, None, None]
    return Sums(
        first=sums.first,
        last=sums.last,
        x=sums.x * kept,
        n=sums.n * kept,
        squares=sums.squares + squares,
        sums=sums.sums + x,
        events=sums.events + n,
        blocks=sums.blocks + taken,
    )


def _deviations(sums: Sums, owners: Ints) -> Floats:
    """[L, G, Q] sum over blocks of (X_j - n_j mean)^2/n_j; NaN for lengths with too few blocks."""
    events, blocks = sums.events[:, :, owners], sums.blocks[:, :, owners]
    some = blocks >= BLOCKS_MIN
    explained = np.divide(sums.sums**2, events, out=np.zeros_like(events), where=some)
    return np.where(some, np.maximum(0.0, sums.squares - explained), np.nan)


def ratios_of(sums: Sums, owners: Ints, variances: Floats) -> Floats:
    """[L, G, Q] phi of each sum by itself; NaN where it says nothing. `variances` [G, Q] per event."""
    dof = (sums.blocks[:, :, owners] - 1) * variances
    return np.asarray(np.divide(_deviations(sums, owners), dof, out=np.full(dof.shape, np.nan), where=dof > 0))


def chi_squares(sums: Sums, owners: Ints, bins: int) -> Floats:
    """[L, G, kinds] phi of all the bins of a kind together; they stand in the first columns. NaN without any."""
    own_sums = sums.sums[:, :, :bins]
    shares = np.divide(own_sums, sums.events[:, :, owners[:bins]], out=np.zeros_like(own_sums), where=own_sums > 0)
    deviations = _deviations(sums, owners)[:, :, :bins]
    terms = np.divide(deviations, shares, out=np.zeros_like(shares), where=shares > 0)
    found = np.full(sums.blocks.shape, np.nan)
    for kind in range(sums.blocks.shape[2]):
        own = owners[:bins] == kind
        dof = (sums.blocks[:, :, kind] - 1) * (np.count_nonzero(shares[:, :, own], axis=-1) - 1)
        np.divide(terms[:, :, own].sum(-1), dof, out=found[:, :, kind], where=dof > 0)
    return found


def _variances(tables: Tables, sums: Sums, counts: Ints) -> Floats:
    """[G, Q] variance per event of what each column adds up; 0 where it does not count on its own."""
    p = tables.to_signals
    g = len(counts)
    numbers = counts.astype(np.float64)
    n = np.maximum(p(numbers), 1.0)
    bins = len(tables.ordered.signals) * ORDERED_BINS
    _, unordered = reference.coarse(tables, counts)
    share = unordered / np.maximum(unordered.sum(-1, keepdims=True), 1)
    own_share = np.where(share >= SHARE_MIN, share * (1 - share), 0.0)
    scores = [p(numbers * score**2) / n - (p(numbers * score) / n) ** 2 for score in (tables.u, tables.v)]
    hits, rows = sums.sums[0, :, -_rate_count(tables) :], sums.events[0, :, -1:]
    mean = (hits + 0.5) / (rows + 1)
    parts = [np.zeros((g, bins)), own_share.reshape(g, -1), *scores, mean * (1 - mean)]
    return np.concatenate(parts, axis=1)


def _rate_count(tables: Tables) -> int:
    return len(tables.layout.names) * len(RATES) + len(ROW_RATES)
