"""What normal is: the law of every signal of a model version, and which reference is in force when.

A `Tables` is everything the detectors ask of one reference, derived from its integers once. Signals fall into two
families: the *ordered* ones (numeric, boolean) have at most 16 coarse bins, a normal score per bin and the scores
u = F_ref(x) and v = |2u - 1|; the *unordered* ones (categorical) have at most 32 bins. G are the segments of the
reference, S its signals in its order, T the columns of its profiles (`signals.extract.Layout`). Segments share edges, u
and coarse bins with the whole model and have counts, probabilities and overdispersion of their own (`statistics.md` 2).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from datetime import tzinfo
from statistics import NormalDist
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from stream.profiles import seasons
from stream.profiles.describe import Scale, compile_scale
from stream.profiles.seasons import Rung
from stream.signals.extract import Layout, compile_layout
from stream.wire.codec import Malformed, decode_reference, named, parse_time, rfc3339, to_json
from stream.wire.internal import RateReference, Reference, SignalReference, Slots
from stream.wire.record import Record

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
N = TypeVar("N", bound=np.generic)
R = TypeVar("R")

ORDERED_BINS: Final = 16
"""Coarse bins of an ordered signal: enough for any shape, few enough that a window of 50 events fills them."""
UNORDERED_BINS: Final = 32
"""The 31 largest categories, and one bin for the rest."""
RATES: Final = ("missing", "invalid", "unseen")
"""Rates of every signal; `unseen` of categorical ones alone."""
ROW_RATES: Final = ("row:quality", "row:outlier")
SMALL_ROWS: Final = 1_000
"""m' below which a segment is not judged."""

_NORMAL: Final = NormalDist()
_WEEKEND_SLOTS: Final = 48


class Family(Struct, frozen=True, eq=False):
    """N signals of one kind with their coarse bins, B of them; what lies beyond a signal's own bins is 0."""

    signals: Ints
    """[N] index among the signals of the reference."""
    bins: Ints
    """[N] coarse bins in use."""
    p: Floats
    """[G, N, B] probability of each bin."""
    z: Floats
    """[N, B] normal score of the mid-CDF of each bin; 0 for unordered signals."""
    rows: Floats
    """[G, N] m: valid rows behind p."""
    epsilon: Floats
    """[G, N] eps_ref: how far p may lie from the truth in total variation (`statistics.md` 2.9); at most 1."""
    phi: Floats
    """[G, N] overdispersion; NaN where unknown."""
    n_bar: Floats
    """[G, N] mean valid events of a non-empty serving window; NaN where unknown."""
    small: Mask
    """[G, N] a segment with m/phi < 1,000: not judged."""


class Scores(Struct, frozen=True, eq=False):
    """Sums of one score in [0, 1] over the valid events of the ordered signals: [G, O]."""

    n: Floats
    s: Floats
    m2: Floats
    """Sum of squared deviations from the mean of the window itself; 0 without events."""


class Rates(Struct, frozen=True, eq=False):
    """What 0/1 signals are compared with. Axes: segment, signal, then `RATES`; for rows segment, then `ROW_RATES`."""

    watched: Mask
    """[S, 3] False for `unseen` of a signal without categories."""
    mean: Floats
    """[G, S, 3] (s + 1/2)/(m + 1)"""
    phi: Floats
    """[G, S, 3] NaN where unknown."""
    row_mean: Floats
    """[G, 2] NaN where the reference does not tell."""
    row_phi: Floats
    """[G, 2]"""


class Season(Struct, frozen=True, eq=False):
    """The slots of a reference: what is normal for segment `all` at each hour."""

    rung: Rung
    zone: tzinfo
    seen_ms: Ints
    """[48] how long the hours of work days, then those of weekends, were seen."""
    p: tuple[Floats, Floats]
    """[slots, N, B] law of the ordered and of the unordered signals in every slot."""
    rows: tuple[Floats, Floats]
    """[N] valid rows behind the slot with the fewest."""
    u_mean: Floats
    """[slots, O] of u, every coarse bin taken at its mean."""
    v_mean: Floats
    """The same of v."""


class Tables(Struct, frozen=True, eq=False):
    """One reference, ready for the detectors. Made by `compile_tables`; immutable, never part of a state."""

    reference: Reference
    layout: Layout
    segments: list[str]
    """G names, `all` first."""
    p: Floats
    """[G, T] probability of each fine bin among the valid ones; 0 in special columns."""
    u: Floats
    """[T] mid-CDF of each fine bin of ordered signals; 0 elsewhere. Under the reference its mean is 1/2."""
    v: Floats
    """[T] |2u - 1|, the spread; 0 elsewhere."""
    ordered: Family
    unordered: Family
    u_mean: Floats
    """[G, O] of u under p; `_sd` likewise, and those of v."""
    u_sd: Floats
    v_mean: Floats
    v_sd: Floats
    rates: Rates
    rows: Floats
    """[G] all rows behind the reference."""
    window_rows: Floats
    """[G] n-bar: mean rows of a non-empty serving window; NaN where unknown."""
    scale: Scale
    """For `describe`."""
    to_coarse: "Gather"
    """Columns to coarse bins of all signals, ordered ones first."""
    to_signals: "Gather"
    """Valid columns to ordered signals."""
    season: Season | None
    """None where the reference has no slots."""


class Gather(Struct, frozen=True, eq=False):
    """Sums of columns: `order` brings those of one sum together, `starts` says where each begins."""

    order: Ints
    starts: Ints
    cells: Ints
    """Place of each sum among `width` places."""
    width: int

    def __call__(self, columns: np.ndarray[Any, np.dtype[N]]) -> np.ndarray[Any, np.dtype[N]]:
        """Sum columns [G, T] to [G, width]."""
        sums: np.ndarray[Any, np.dtype[N]] = np.zeros((len(columns), self.width), dtype=columns.dtype)
        if len(self.starts):
            sums[:, self.cells] = np.add.reduceat(columns.take(self.order, axis=1), self.starts, axis=1)
        return sums


def compile_tables(reference: Reference, layout: Layout | None = None) -> Tables:
    """Everything detectors need of a reference. Costs about 3 ms for 25 signals and 10 segments; keep it.

    Raises `ValueError` on a reference that contradicts itself, as `extract.compile_layout` does, and where the counts
    of a segment do not fit its signal.
    """
    layout = compile_layout(reference) if layout is None else layout
    counts = reference_counts(layout)
    p, u, cells = np.zeros(counts.shape), np.zeros(layout.columns), np.full(layout.columns, -1, dtype=np.int64)
    kinds = [reference.signals[name].type for name in layout.names]
    ordered = [index for index, kind in enumerate(kinds) if kind != "categorical"]
    unordered = [index for index, kind in enumerate(kinds) if kind == "categorical"]
    for index in range(len(kinds)):
        inside = valid(layout, index)
        p[:, inside] = law(counts[:, inside])
    for place, index in enumerate(ordered):
        inside = valid(layout, index)
        u[inside] = mid_cdf(p[0, inside])
        cells[inside] = place * ORDERED_BINS + bins_of(reference.signals[layout.names[index]])
    for place, index in enumerate(unordered):
        own = bins_of(reference.signals[layout.names[index]])
        cells[valid(layout, index)] = len(ordered) * ORDERED_BINS + place * UNORDERED_BINS + own
    gather = _gather(cells, len(ordered) * ORDERED_BINS + len(unordered) * UNORDERED_BINS)
    fine = _gather_signals(layout, ordered)
    v = np.where(u > 0, np.abs(2 * u - 1), 0.0)
    window_rows, rows = _window_rows(reference, layout), _rows(layout, counts)
    coarse_p = _split(gather(p), len(ordered))
    phi, rate_phi = _overdispersion(layout)
    families = [
        _family(indices, part, layout, counts, phi, window_rows / np.maximum(rows, 1))
        for indices, part in zip((ordered, unordered), coarse_p, strict=True)
    ]
    u_mean, u_sd = _law_of(fine, p, u)
    v_mean, v_sd = _law_of(fine, p, v)
    return Tables(
        reference=reference,
        layout=layout,
        segments=layout.segments,
        p=p,
        u=u,
        v=v,
        ordered=families[0],
        unordered=families[1],
        u_mean=u_mean,
        u_sd=u_sd,
        v_mean=v_mean,
        v_sd=v_sd,
        rates=_rates(layout, counts, rows, rate_phi),
        rows=rows,
        window_rows=window_rows,
        scale=compile_scale(layout),
        to_coarse=gather,
        to_signals=fine,
        season=None
        if reference.slots is None
        else _season(reference.slots, layout, families, gather(p[:1] * np.stack([u, v]))),
    )


def coarse(tables: Tables, counts: Ints) -> tuple[Ints, Ints]:
    """Fine counts [G', T] of any segments to coarse ones: ordered [G', O, 16] and unordered [G', C, 32]."""
    return _split(tables.to_coarse(counts), len(tables.ordered.signals))


def scores(tables: Tables, counts: Ints) -> tuple[Scores, Scores]:
    """Sums of u and of v over the valid events of fine counts [G', T]: [G', O] each."""
    numbers = counts.astype(np.float64)
    n = tables.to_signals(numbers)
    return _score(tables.to_signals, numbers, n, tables.u), _score(tables.to_signals, numbers, n, tables.v)


def hits(layout: Layout, counts: Ints) -> Ints:
    """Missing, invalid and unseen events of each signal in fine counts [G', T]: [G', S, 3], of all rows."""
    found = np.zeros((len(counts), len(layout.names), len(RATES)), dtype=np.int64)
    end = layout.first + layout.width
    found[:, :, 0] = counts[:, end - 2]
    found[:, :, 1] = counts[:, end - 1]
    categorical = [index for index, _ in layout.categorical]
    found[:, categorical, 2] = counts[:, end[categorical] - 3]
    return found


def overdispersion(phi: Floats, n: Floats, n_bar: Floats) -> Floats:
    """phi_t of a window with n events: shared causes weigh more when traffic grows (`statistics.md` 7). Broadcasts."""
    return np.asarray(1 + (phi - 1) * np.maximum(0.0, n - 1) / np.maximum(1.0, n_bar - 1))


def law(counts: Ints | Floats) -> Floats:
    """(c + 1/2)/(m + F/2) over the last axis: probabilities of F bins that sum to 1, none of them 0."""
    smoothed = counts + 0.5
    return np.asarray(smoothed / smoothed.sum(-1, keepdims=True))


def mid_cdf(p: Floats) -> Floats:
    """P(below the bin) + P(bin)/2 over the last axis: strictly between 0 and 1, with mean 1/2 under p."""
    return np.asarray(np.cumsum(p, axis=-1) - p / 2)


def normal_scores(u: Floats) -> Floats:
    """Quantiles of the standard normal law of a flat array of probabilities in (0, 1)."""
    return np.array([_NORMAL.inv_cdf(share) for share in u.tolist()])


def coarse_bins(u: Floats) -> Ints:
    """The coarse bin of each fine bin of an ordered signal, floor(16 u) numbered without gaps from 0."""
    bins = np.minimum(np.floor(ORDERED_BINS * u), ORDERED_BINS - 1)
    ranks: Ints = np.unique(bins, return_inverse=True)[1].astype(np.int64)
    return ranks


def largest_bins(counts: Ints) -> Ints:
    """The bin of each category: own ones in their order if they fit, else the 31 largest, the rest together."""
    if len(counts) <= UNORDERED_BINS:
        return np.arange(len(counts))
    bins = np.full(len(counts), UNORDERED_BINS - 1)
    largest = np.sort(np.argsort(-counts, kind="stable")[: UNORDERED_BINS - 1])
    bins[largest] = np.arange(len(largest))
    return bins


def bins_of(signal: SignalReference) -> Ints:
    """The coarse bin of each valid bin of a signal.

    Raises `ValueError` where those it names are not as many as its bins, or leave gaps.
    """
    counts = np.array(signal.counts, dtype=np.int64)
    if signal.coarse is not None:
        limit = UNORDERED_BINS if signal.type == "categorical" else ORDERED_BINS
        bins = np.array(signal.coarse, dtype=np.int64)
        used = np.unique(bins)
        if len(bins) != len(counts) or len(used) > limit or used.tolist() != list(range(len(used))):
            raise ValueError(f"{len(bins)} coarse bins do not fit {len(counts)} bins")
        return bins
    return largest_bins(counts) if signal.type == "categorical" else coarse_bins(mid_cdf(law(counts)))


def coarse_of(tables: Tables) -> dict[str, list[int]]:
    """The coarse bin of each valid bin of every signal."""
    return {name: bins_of(signal).tolist() for name, signal in tables.reference.signals.items()}


def has_matured(old: Tables, new: Tables) -> bool:
    """Whether a reference is the other, grown older: profiles of both may be added, and what is remembered goes on."""
    learned = all(one.reference.origin == "learned" and one.reference.complete for one in (old, new))
    return learned and _cut_of(old.reference) == _cut_of(new.reference)


def error(tables: Tables, family: int, phi: Floats) -> Floats:
    """[N] eps_ref of the whole model at any hour, `phi` [N]: that of the slot which is known worst."""
    own = (tables.ordered, tables.unordered)[family]
    if tables.season is None:
        return epsilon_ref(own.p[0], own.rows[0] / phi)
    return np.asarray(epsilon_ref(tables.season.p[family], tables.season.rows[family] / phi).max(0))


def epsilon_ref(p: Floats, rows: Floats) -> Floats:
    """Total variation by which p [..., B], counted from `rows` [...] independent rows, may miss the truth; at most 1.

    The expected miss, each bin's error being nearly normal, and a margin: about its 99 % quantile (2.9).
    0.035 for 16 equal bins and 5,000 rows.
    """
    some = np.maximum(rows, 1e-9)
    spread = np.sqrt(p * (1 - p) / (2 * math.pi * some[..., None])).sum(-1)
    return np.asarray(np.minimum(1.0, spread + 0.9 / np.sqrt(some)))


def valid(layout: Layout, index: int) -> slice:
    """The columns of T that hold the valid bins of a signal."""
    first = int(layout.first[index])
    return slice(first, first + len(layout.reference.signals[layout.names[index]].counts))


def reference_counts(layout: Layout) -> Ints:
    """[G, T] the counts of a reference itself, laid out like those of a profile, special columns included.

    Raises `ValueError` where the counts of a segment do not fit the signal.
    """
    counts = np.zeros((len(layout.segments), layout.columns), dtype=np.int64)
    for index, name in enumerate(layout.names):
        signal = layout.reference.signals[name]
        inside = slice(int(layout.first[index]), int(layout.first[index] + layout.width[index]))
        for row, segment in enumerate(layout.segments):
            own = signal.counts if row == 0 else signal.segments.get(segment, [0] * len(signal.counts))
            if len(own) != len(signal.counts):
                raise ValueError(f"{name}: {segment} has {len(own)} counts, not {len(signal.counts)}")
            counts[row, inside] = own + _special(signal, segment if row else None)
    return counts


def _cut_of(reference: Reference) -> tuple[object, ...]:
    """All that decides in which bin an event is counted, fine or coarse."""
    cuts = [
        (name, one.type, one.edges, one.categories, one.others, one.centre, one.scale, one.z, bins_of(one).tolist())
        for name, one in reference.signals.items()
    ]
    return cuts, reference.segments, reference.window_size_ms, reference.row


def _special(signal: SignalReference, segment: str | None) -> list[int]:
    """Counts of the special columns in their order: unseen for categories, missing, invalid."""
    unseen = signal.singletons or 0
    own = [signal.missing, signal.invalid, unseen] if segment is None else signal.segments_special.get(segment, [])
    missing, invalid, unseen = (*own, 0, 0, 0)[:3]
    return [unseen, missing, invalid] if signal.type == "categorical" else [missing, invalid]


def _rows(layout: Layout, counts: Ints) -> Floats:
    """[G] all rows behind the reference: every row has one value of every signal."""
    if not layout.names:
        return np.zeros(len(counts))
    by_signal: Floats = np.add.reduceat(counts, layout.first, axis=1).astype(np.float64)
    return np.asarray(by_signal.max(axis=1))


def _window_rows(reference: Reference, layout: Layout) -> Floats:
    known = {**reference.segments_window_rows, "all": reference.window_rows}
    return np.array([_or_nan(known.get(name)) for name in layout.segments])


def _overdispersion(layout: Layout) -> tuple[Floats, Floats]:
    """[G, S] of distributions and [G, S, 3] of rates, NaN where the reference does not tell."""
    table = np.full((len(layout.segments), len(layout.names), 1 + len(RATES)), np.nan)
    for index, name in enumerate(layout.names):
        signal = layout.reference.signals[name]
        if signal.overdispersion is not None:
            table[0, index, 0] = signal.overdispersion
        rates = signal.rates_overdispersion or []
        table[0, index, 1 : 1 + len(rates)] = rates
        for row, segment in enumerate(layout.segments[1:], start=1):
            own = signal.segments_overdispersion.get(segment, [])
            table[row, index, : len(own)] = own
    return table[:, :, 0], table[:, :, 1:]


def _family(  # noqa: PLR0913 - private, everything a family is made of
    indices: list[int], p: Floats, layout: Layout, counts: Ints, phi: Floats, windows: Floats
) -> Family:
    rows = np.zeros((len(counts), len(indices)))
    for place, index in enumerate(indices):
        rows[:, place] = counts[:, valid(layout, index)].sum(axis=1)
    own_phi = phi[:, indices]
    effective = rows / np.where(np.isnan(own_phi), 1.0, own_phi)
    z = np.zeros(p.shape[1:])
    if p.shape[2] == ORDERED_BINS:
        used = p[0] > 0
        z[used] = normal_scores(mid_cdf(p[0])[used])
    small = effective < SMALL_ROWS
    small[0] = False
    return Family(
        signals=np.array(indices, dtype=np.int64),
        bins=(p[0] > 0).sum(-1),
        p=p,
        z=z,
        rows=rows,
        epsilon=epsilon_ref(p, effective),
        phi=own_phi,
        n_bar=rows * windows[:, None],
        small=small,
    )


def slot_counts(slots: Slots, layout: Layout) -> dict[str, Ints]:
    """The counts [slots, bins] of each signal of the reference.

    Raises `ValueError` where they do not fit the rung or the signal, or the time zone is unknown.
    """
    seasons.zone_of(slots.timezone)
    wanted = int(seasons.SLOTS[slots.rung].max()) + 1
    counts = {}
    for name in layout.names if slots.rung != "global" else ():
        own = slots.counts.get(name, [])
        widths = {len(row) for row in own}
        if len(own) != wanted or len(widths) != 1:
            raise ValueError(f"{name}: {slots.rung} has {wanted} slots of as many bins each")
        counts[name] = np.array(own, dtype=np.int64)
    if len(slots.seen_ms) != _WEEKEND_SLOTS:
        raise ValueError(f"slots: seen_ms has {_WEEKEND_SLOTS} hours, not {len(slots.seen_ms)}")
    return counts


def _season(slots: Slots, layout: Layout, families: list[Family], scores: Floats) -> Season:
    """The season in slots; `scores` [2, width] are sums of u and v over the coarse bins under the law of all hours.

    Raises `ValueError` on slots that contradict their reference.
    """
    counts, seen_ms = slot_counts(slots, layout), np.array(slots.seen_ms, dtype=np.int64)
    laws, fewest = [], []
    for family in families:
        if slots.rung == "global":
            laws.append(family.p[:1])
            fewest.append(family.rows[0])
            continue
        own = np.zeros((int(seasons.SLOTS[slots.rung].max()) + 1, *family.p.shape[1:]), dtype=np.int64)
        for place, signal in enumerate(family.signals.tolist()):
            name, bins = layout.names[signal], int(family.bins[place])
            if counts[name].shape[1] != bins:
                raise ValueError(f"{name}: its slots have {counts[name].shape[1]} bins, not {bins}")
            own[:, place, :bins] = counts[name]
        laws.append(seasons.laws(seasons.by_first_hour(own, slots.rung), family.bins, slots.rung))
        known = seen_ms >= seasons.HOUR_MS if len(own) == len(seen_ms) else np.ones(len(own), dtype=np.bool_)
        fewest.append(own[known].sum(-1).min(0, initial=np.iinfo(np.int64).max).astype(np.float64))
    ordered = families[0].p[0]
    sums = scores[:, : ordered.size].reshape(2, *ordered.shape)
    u, v = np.divide(sums, ordered, out=np.zeros_like(sums), where=ordered > 0)
    return Season(
        rung=slots.rung,
        zone=seasons.zone_of(slots.timezone),
        seen_ms=seen_ms,
        p=(laws[0], laws[1]),
        rows=(fewest[0], fewest[1]),
        u_mean=(laws[0] * u).sum(-1),
        v_mean=(laws[0] * v).sum(-1),
    )


def _rates(layout: Layout, counts: Ints, rows: Floats, phi: Floats) -> Rates:
    watched = np.ones((len(layout.names), len(RATES)), dtype=np.bool_)
    watched[:, 2] = [layout.reference.signals[name].type == "categorical" for name in layout.names]
    row_mean, row_phi = np.full((2, len(layout.segments), len(ROW_RATES)), np.nan)
    for column, name in enumerate(ROW_RATES):
        known = layout.reference.rates.get(name, RateReference({}))
        for row, segment in enumerate(layout.segments):
            if segment in known.rows:
                total, having = known.rows[segment]
                row_mean[row, column] = (having + 0.5) / (total + 1)
            row_phi[row, column] = _or_nan(known.overdispersion.get(segment))
    mean = (hits(layout, counts) + 0.5) / (rows[:, None, None] + 1)
    return Rates(watched, mean, phi, row_mean, row_phi)


def _law_of(fine: Gather, p: Floats, score: Floats) -> tuple[Floats, Floats]:
    mean = fine(p * score)
    return mean, np.sqrt(np.maximum(0.0, fine(p * score**2) - mean**2))


def _score(fine: Gather, counts: Floats, n: Floats, score: Floats) -> Scores:
    s = fine(counts * score)
    mean = np.divide(s, n, out=np.zeros_like(s), where=n > 0)
    # The mean of its own signal under every column.
    own = np.zeros((len(counts), counts.shape[1]))
    own[:, fine.order] = np.repeat(mean, np.diff(fine.starts, append=len(fine.order)), axis=1)
    return Scores(n, s, fine(counts * (score - own) ** 2))


def _gather(cells: Ints, width: int) -> Gather:
    order = np.argsort(cells, kind="stable")[np.count_nonzero(cells < 0) :]
    present, starts = np.unique(cells[order], return_index=True)
    return Gather(order, starts.astype(np.int64), present, width)


def _gather_signals(layout: Layout, indices: list[int]) -> Gather:
    owner = np.full(layout.columns, -1, dtype=np.int64)
    for place, index in enumerate(indices):
        owner[valid(layout, index)] = place
    return _gather(owner, len(indices))


def _split(
    sums: np.ndarray[Any, np.dtype[N]], ordered: int
) -> tuple[np.ndarray[Any, np.dtype[N]], np.ndarray[Any, np.dtype[N]]]:
    border = ordered * ORDERED_BINS
    return (
        sums[:, :border].reshape(len(sums), ordered, ORDERED_BINS),
        sums[:, border:].reshape(len(sums), -1, UNORDERED_BINS),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


class References:
    """All references that one log of references tells of, as of one offset. Immutable: `apply` makes a new view.

    A view shares its references, and the tables derived from them on first use, with the views before it.
    """

    def __init__(self) -> None:
        self.offset = 0
        """Next offset of the log."""
        self.errors = 0
        """Records that could not be read, and were ignored."""
        self._by_id: dict[str, _Known] = {}
        self._retired: frozenset[str] = frozenset()
        self._by_version: dict[tuple[str, str], list[_Known]] = {}
        self._outcomes: dict[tuple[str, str], list[_Known]] = {}
        """Those of scope `outcomes`, retired or not."""

    @classmethod
    def empty(cls) -> "References":
        """Nothing known yet."""
        return cls()

    def apply(self, record: Record) -> "References":
        """The view after one more record: a reference, or the tombstone that retires one."""
        return self.apply_all([record])

    def apply_all(self, records: Iterable[Record]) -> "References":
        """The view after many records, in offset order, at the cost of one."""
        view = References()
        view.offset, view.errors = self.offset, self.errors
        view._by_id, view._retired, view._outcomes = dict(self._by_id), self._retired, dict(self._outcomes)
        touched: set[tuple[str, str]] = set()
        for record in records:
            version = view._take(record)
            if version is not None:
                touched.add(version)
            view.offset = max(view.offset, record.offset + 1)
        view._by_version = dict(self._by_version)
        for version in touched:
            view._by_version.pop(version, None)
        for known in sorted(view._by_id.values(), key=lambda one: in_force_last(one.reference)):
            in_use = known.reference.scope == "inputs" and known.reference.reference_id not in view._retired
            if known.version in touched and in_use:
                view._by_version.setdefault(known.version, []).append(known)
        return view

    def at(self, model_id: str, model_version: str, window_start_ms: int) -> Tables | None:
        """The tables in force for the inputs of a window: those of the latest `effective_from` at or before its start.

        Of several with one `effective_from` a blank one goes before all, a complete one before a provisional one, then
        the larger id. While a blank one is in force there are none.
        """
        known = self._by_version.get((model_id, model_version), [])
        place = bisect_right(known, window_start_ms, key=lambda one: one.effective_from_ms)
        return known[place - 1].tables() if place and not is_blank(known[place - 1].reference) else None

    def by_id(self, reference_id: str) -> Tables | None:
        """The tables of one reference of scope `inputs`, in force or not, retired or not; None when it is unknown.

        Profiles were built with a retired one before its tombstone was heard: they stay readable.
        """
        known = self._by_id.get(reference_id)
        return known.tables() if known is not None and known.reference.scope == "inputs" else None

    def outcomes_at(
        self, model_id: str, model_version: str, window_start_ms: int, offset: int, read: Callable[[Reference], R]
    ) -> R | None:
        """What `read` makes of the reference in force for the outcomes of a window, as of an offset of the log.

        Unlike partial profiles, outcomes do not say which reference they belong to: records from `offset` on do not
        count, so that it matters nothing what else this worker has heard. One that `read` refuses with `ValueError` is
        passed over; what it makes is kept.
        """
        known = [
            one
            for one in self._outcomes.get((model_id, model_version), [])
            if one.heard < offset and one.effective_from_ms <= window_start_ms and not one.retired < offset
        ]
        for one in sorted(known, key=lambda one: in_force_last(one.reference), reverse=True):
            try:
                return one.made(read)
            except ValueError:
                continue
        return None

    def is_retired(self, reference_id: str, offset: int) -> bool:
        """Whether a reference of scope `outcomes` had been retired, as of an offset of the log."""
        known = self._by_id.get(reference_id)
        return known is not None and known.retired < offset

    def outcome_reference(self, reference_id: str, read: Callable[[Reference], R]) -> R | None:
        """What `read` makes of a reference of scope `outcomes`, in force or not; None when it is unknown."""
        known = self._by_id.get(reference_id)
        return known.made(read) if known is not None and known.reference.scope == "outcomes" else None

    def versions(self) -> list[tuple[str, str]]:
        """(model id, model version) of all that have a reference of their inputs, sorted."""
        return sorted(version for version, known in self._by_version.items() if known)

    def _take(self, record: Record) -> tuple[str, str] | None:
        """Take in one record; the model version it concerns, None if it changes nothing."""
        if record.value is None:
            gone = self._by_id.get(_id_in_key(record.key))
            if gone is None:
                return None
            self._retired |= {gone.reference.reference_id}
            if gone.reference.scope == "outcomes":
                self._heard_of(gone.until(record.offset))
            return gone.version
        reference = decode_reference(record.value)
        known = None if isinstance(reference, Malformed) else _known(reference)
        if known is None:
            self.errors += 1
            return None
        name = known.reference.reference_id
        if known.reference.scope == "outcomes":
            before = self._by_id.get(name)
            in_use = before is not None and before.retired == math.inf
            self._heard_of(before if before is not None and in_use else known.since(record.offset))
        else:
            self._by_id[name] = known
        self._retired -= {name}
        return known.version

    def _heard_of(self, known: "_Known") -> None:
        """A reference of outcomes instead of what was known of it before."""
        name = known.reference.reference_id
        others = [one for one in self._outcomes.get(known.version, []) if one.reference.reference_id != name]
        self._by_id[name] = known
        self._outcomes[known.version] = [*others, known]


class _Known:
    """A reference that can be read; what follows from it is made on first use, as most are never asked for."""

    def __init__(self, reference: Reference, effective_from_ms: int, heard: int = 0, retired: float = math.inf) -> None:
        self.reference = reference
        self.effective_from_ms = effective_from_ms
        self.version = (reference.model_id, reference.model_version)
        self.heard = heard
        """Offset of its record; of its tombstone the next."""
        self.retired = retired
        self._made: dict[Any, Any] = {}

    def since(self, offset: int) -> "_Known":
        """The same, heard of at an offset."""
        return _Known(self.reference, self.effective_from_ms, offset)

    def until(self, offset: int) -> "_Known":
        """The same, retired at an offset."""
        gone = _Known(self.reference, self.effective_from_ms, self.heard, offset)
        gone._made = self._made
        return gone

    def tables(self) -> Tables:
        return self.made(compile_tables)

    def made(self, make: Callable[[Reference], R]) -> R:
        """What a function makes of the reference, made once; so is the error it ends with."""
        if make not in self._made:
            try:
                self._made[make] = make(self.reference)
            except ValueError as error:
                self._made[make] = error
        found = self._made[make]
        if isinstance(found, ValueError):
            raise found
        result: R = found
        return result


def reference_key(reference: Reference) -> bytes:
    """The key of a reference's record: `["credit","3","9f2c51d0a7b84e3f"]`."""
    return to_json([reference.model_id, reference.model_version, reference.reference_id])


def _known(reference: Reference) -> _Known | None:
    effective_from_ms = parse_time(reference.effective_from)
    if effective_from_ms is None:
        return None
    known = _Known(reference, effective_from_ms)
    try:
        if reference.scope == "inputs" and not is_blank(reference):
            layout = compile_layout(reference)
            reference_counts(layout)
            if reference.slots is not None:
                compile_tables(reference, layout)
    except ValueError:
        return None
    return known


def blank(model_id: str, model_version: str, *, window_size_ms: int, effective_from_ms: int) -> Reference:
    """A reference that knows nothing: from then on what is normal is to be learned anew. It has no signals."""
    at = rfc3339(effective_from_ms)
    return named(
        Reference(
            reference_id="",
            model_id=model_id,
            model_version=model_version,
            scope="inputs",
            origin="learned",
            complete=False,
            inherited_from=None,
            n_rows=0,
            data_from=at,
            data_to=at,
            effective_from=at,
            segments={},
            window_size_ms=window_size_ms,
            window_rows=None,
            signals={},
            row=None,
            slots=None,
        )
    )


def is_blank(reference: Reference) -> bool:
    """Whether a reference says that there is none."""
    return reference.scope == "inputs" and not reference.signals


def in_force_last(reference: Reference) -> tuple[int, bool, bool, str]:
    """Sorting key: of several references the last one goes before the others."""
    at_ms = parse_time(reference.effective_from) or 0
    return (at_ms, is_blank(reference), reference.complete, reference.reference_id)


def _id_in_key(key: bytes | None) -> str:
    """The reference id in a record's key, empty if there is none."""
    try:
        _, _, reference_id = msgspec.json.decode(key or b"", type=tuple[str, str, str])
    except msgspec.DecodeError:
        return ""
    return reference_id
