"""Integers that merge exactly: bin counts, fixed-point moments, worst rows, the bottom-k sample.

A `Partial` is what some rows add to one window of one model version. Merging adds arrays, joins spans, and keeps the
worst rows and the unknown names of smallest hash: an empty partial is neutral, order and grouping do not matter,
merged parts equal the whole to the bit, and no function changes its arguments (`statistics.md` 2.6).

The counts of a partial cover the columns `[first_column, first_column + width)` of the reference's T, so that a
profile of very many signals can be cut into records; `merge` puts the pieces together again, `dense` lays the result
out in full.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.signals.extract import Layout, Rows
from stream.signals.outcomes import SCORE_CELLS
from stream.signals.outliers import OUTLYING, Judged, rank
from stream.wire.codec import hash64
from stream.wire.internal import OutlyingRow, Partial, Sample, SampledRow, Span, UnknownFeature

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

MOMENTS: Final = 4
"""Sum v, sum w, sum w^2, clipped (`statistics.md` 2.5)."""
V_MAX: Final = 2.0**26
"""v is clipped here: 64 scales from the centre. Sums of v stay exact in float64 for 2^26 rows."""
W_SHIFT: Final = 10
"""w = v in units 2^10 coarser, so that its square fits: sums of w^2 <= 2^32 are exact in float64 for 2^21 rows."""
ROWS_AT_ONCE: Final = 4096
"""Rows folded at once: their columns stay in the second-level cache, their groups fit 16 bits, their sums 53."""
UNKNOWN_MAX: Final = 32
"""Unknown feature names kept: those of smallest hash."""
SAMPLE_ROWS: Final = 4096
"""k of the bottom-k sample."""
RECORD_BYTES_MAX: Final = 512 * 1024
"""A partial or sample is split so that a record of it stays below this."""

_CELLS_MAX: Final = 1 << 22
"""Counts allocated at once while folding (32 MiB); groups of more windows are folded in parts."""


class Group(Struct, frozen=True):
    """Whose rows they are, and where they were read."""

    model_id: str
    model_version: str
    topic: str
    partition: int


class Dense(Struct, frozen=True):
    """A partial profile laid out in full: one row per segment of the reference, absent ones zero."""

    rows: Ints
    """[G], as the next three"""
    late: Ints
    invalid_rows: Ints
    outlying_rows: Ints
    counts: Ints
    """[G, T]"""
    moments: Ints
    """[G, numeric signals, 4]"""


class _Sums(Struct, frozen=True):
    """Sums over the rows of g (window, segment) pairs."""

    places: Ints
    """[g] window rank * G + segment, rising"""
    rows: Ints
    invalid_rows: Ints
    outlying_rows: Ints
    counts: Ints
    moments: Ints
    scores: Ints


def fold(  # noqa: PLR0913 - a profile is made of everything known about its rows
    layout: Layout,
    group: Group,
    rows: Rows,
    judged: Judged,
    windows_ms: Ints,
    offsets: Ints,
    *,
    worst: Mapping[int, list[OutlyingRow]] | None = None,
    unknown: Mapping[int, list[UnknownFeature]] | None = None,
    scores: Ints | None = None,
) -> list[Partial]:
    """The partial profiles of n rows, one per window, by rising window start.

    `windows_ms` [n] and `offsets` [n] belong to the rows, as do `scores` [n], cells of scores, -1 where there is none;
    `worst` and `unknown` are by window start. Each row counts once in `all` and once per declared segment key. About
    0.3 us per row of 24 signals in groups of thousands.
    """
    folded: dict[int, Partial] = {}
    for part in _parts(layout, windows_ms):
        some = Rows(rows.cells[:, part], rows.values[:, part], rows.segments[:, part], rows.invalid[part])
        some_judged = Judged(judged.signals[:, part], judged.rows[part])
        some_scores = None if scores is None else scores[part]
        for partial in _fold_part(layout, group, some, some_judged, windows_ms[part], offsets[part], some_scores):
            before = folded.get(partial.window_start_ms)
            folded[partial.window_start_ms] = partial if before is None else merge([before, partial])
    return [
        replace(
            folded[start],
            worst=sorted((worst or {}).get(start, []), key=rank),
            unknown=_summed((unknown or {}).get(start, [])),
        )
        for start in sorted(folded)
    ]


def late(layout: Layout, group: Group, segments: Ints, windows_ms: Ints) -> list[Partial]:
    """Partials that only count late events, one per window that held the watermark each one met.

    `segments` [K, n] as `extract.segments` gives them, `windows_ms` [n].
    """
    partials = []
    for start in np.unique(windows_ms).tolist():
        inside = segments[:, windows_ms == start]
        counts = np.bincount(inside.ravel(), minlength=len(layout.segments)).astype(np.int64)
        counts[0] = inside.shape[1]
        present = np.flatnonzero(counts)
        arrays = _zeros(present) | {"late": counts[present]}
        partials.append(replace(empty(group, layout.reference.reference_id, start), **arrays))
    return partials


def unknown_features(rows_of: Mapping[str, int]) -> list[UnknownFeature]:
    """Unknown feature names and their rows in the form that merges, as `fold` takes them per window."""
    return _summed(UnknownFeature(hash64(name), name, rows) for name, rows in rows_of.items())


def empty(group: Group, reference_id: str, window_start_ms: int) -> Partial:
    """The neutral element of `merge`."""
    return Partial(
        model_id=group.model_id,
        model_version=group.model_version,
        reference_id=reference_id,
        window_start_ms=window_start_ms,
        spans=[],
        **_zeros(np.zeros(0, dtype=np.int64)),  # type: ignore[arg-type] # arrays alone
    )


def merge(partials: Sequence[Partial], worst_max: int | None = None) -> Partial:
    """The sum of partials of one window and reference; the `worst_max` (None: all) most unusual rows are kept.

    Exact in any order and grouping. Raises `ValueError` when they do not belong together, or there are none.
    """
    first = partials[0] if partials else None
    if first is None or any(_identity(partial) != _identity(first) for partial in partials):
        raise ValueError("only partial profiles of one window and reference can be merged")
    segments = np.unique(np.concatenate([partial.segments for partial in partials])).astype(np.int64)
    wide = [partial for partial in partials if partial.counts.shape[1]]
    start = min((partial.first_column for partial in wide), default=0)
    end = max((partial.first_column + partial.counts.shape[1] for partial in wide), default=0)
    sums = _room(len(segments), end - start, max(partial.moments.shape[1] for partial in partials))
    for partial in partials:
        _add(sums, partial, np.searchsorted(segments, partial.segments), partial.first_column - start)
    return replace(
        first,
        segments=segments,
        **{name: getattr(sums, name) for name in sums.__struct_fields__},
        scores=_added_scores(partials, segments),
        first_column=start,
        spans=joined(span for partial in partials for span in partial.spans),
        worst=sorted((row for partial in partials for row in partial.worst), key=rank)[:worst_max],
        unknown=_summed(name for partial in partials for name in partial.unknown),
    )


def dense(partial: Partial, segments: int, columns: int, numeric: int) -> Dense:
    """The whole profile of a window: G segments, T columns, N numeric signals; what is absent is zero."""
    full = _room(segments, columns, numeric)
    _add(full, partial, partial.segments, partial.first_column)
    return full


def dense_scores(partial: Partial, segments: int) -> Ints:
    """[G, score cells] of the whole profile of a window: what is absent is zero."""
    full = np.zeros((segments, SCORE_CELLS), dtype=np.int64)
    if partial.scores.size:
        full[partial.segments] = partial.scores
    return full


def split(partial: Partial, bytes_max: int = RECORD_BYTES_MAX) -> list[Partial]:
    """Pieces of about `bytes_max` bytes at most that merge to the partial again, cut by its content alone.

    By segments first; a single segment that is still too large is cut into ranges of columns. Worst rows and unknown
    names travel in the first piece, spans in all.
    """
    item, fixed = _item_bytes(partial.counts), 1024 + 64 * len(partial.spans)
    segment_bytes = 64 + item * partial.counts.shape[1]
    segment_bytes += sum(_item_bytes(values) * values[:1].size for values in (partial.moments, partial.scores))
    at_once = max(1, (bytes_max - fixed) // segment_bytes)
    columns = max(1, partial.counts.shape[1])
    step = columns if segment_bytes + fixed <= bytes_max else max(1, (bytes_max // 2) // item)
    pieces = [
        _piece(partial, slice(segment, segment + at_once), column, column + step)
        for segment in range(0, len(partial.segments), at_once)
        for column in range(0, columns, step)
    ]
    if not pieces:
        return [partial]
    return [replace(pieces[0], worst=partial.worst, unknown=partial.unknown), *pieces[1:]]


def sample(  # noqa: PLR0913 - as fold
    group: Group,
    windows_ms: Ints,
    offsets: Ints,
    hashes: np.ndarray[Any, np.dtype[np.uint64]],
    row_of: Callable[[int], bytes],
    k: int = SAMPLE_ROWS,
) -> list[Sample]:
    """The bottom-k samples of n rows, one per window, by rising window start.

    `hashes` [n] are those of the prediction ids; `row_of(i)` gives the canonical bytes of row i and is asked only for
    rows whose hash is among the k smallest of their window.
    """
    samples = []
    for start in np.unique(windows_ms).tolist():
        inside = np.flatnonzero(windows_ms == start)
        smallest = np.unique(hashes[inside])[:k]
        picks = inside[hashes[inside] <= smallest[-1]]
        spans = [Span(group.topic, group.partition, int(offsets[inside].min()), int(offsets[inside].max()))]
        rows = _bottom((SampledRow(int(hashes[pick]), row_of(int(pick))) for pick in picks), k)
        samples.append(Sample(group.model_id, group.model_version, start, len(inside), 0, spans, rows))
    return samples


def late_sample(group: Group, windows_ms: Ints) -> list[Sample]:
    """Samples that only count late events, one per window that held the watermark each one met."""
    starts, counts = np.unique(windows_ms, return_counts=True)
    return [
        Sample(group.model_id, group.model_version, start, 0, count, [], [])
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
    ]


def merge_samples(samples: Sequence[Sample], k: int = SAMPLE_ROWS) -> Sample:
    """The sample of the union: k rows of smallest hash, one row per hash (the smaller bytes), exact in any order.

    Samples of several windows merge too, into one that bears the first window. Raises `ValueError` when they are of
    several model versions, or there are none.
    """
    if len({(one.model_id, one.model_version) for one in samples}) != 1:
        raise ValueError("only samples of one model version can be merged")
    return Sample(
        model_id=samples[0].model_id,
        model_version=samples[0].model_version,
        window_start_ms=min(one.window_start_ms for one in samples),
        rows=sum(one.rows for one in samples),
        late=sum(one.late for one in samples),
        spans=joined(span for one in samples for span in one.spans),
        sample=_bottom((row for one in samples for row in one.sample), k),
    )


def split_sample(whole: Sample, bytes_max: int = RECORD_BYTES_MAX) -> list[Sample]:
    """Pieces of about `bytes_max` bytes at most that merge to the sample again; the first one carries the counts."""
    pieces: list[list[SampledRow]] = [[]]
    size = 0
    for row in whole.sample:
        length = len(row.row) + 24
        if pieces[-1] and size + length > bytes_max:
            pieces.append([])
            size = 0
        pieces[-1].append(row)
        size += length
    return [replace(whole, sample=pieces[0]), *(replace(whole, rows=0, late=0, sample=rows) for rows in pieces[1:])]


def fixed_point(centre: Floats, step: Floats, values: Floats) -> tuple[Floats, Floats, Mask]:
    """v, w and clipped (`statistics.md` 2.5) of values [numeric signals, n]; v, w are whole numbers, 0 for NaN.

    `|v| <= 2^26`; clipped are those beyond. centre and step (scale * 2^-20) are [numeric signals].
    """
    with np.errstate(over="ignore"):  # what overflows is as far away as what is clipped
        v = values - centre[:, None]
        v /= step[:, None]
    np.rint(v, out=v)
    clipped = np.abs(v) > V_MAX
    np.clip(v, -V_MAX, V_MAX, out=v)
    np.copyto(v, 0.0, where=np.isnan(v))
    w = v + 2.0 ** (W_SHIFT - 1)
    w *= 2.0**-W_SHIFT
    return v, np.floor(w, out=w), clipped


def _parts(layout: Layout, windows_ms: Ints) -> list[slice]:
    """Slices of rows small enough for the caches, and for the counts of all their groups to be allocated at once."""
    n = len(windows_ms)
    if not n:
        return []
    windows = 1 if windows_ms.min() == windows_ms.max() else len(np.unique(windows_ms))
    cells = windows * len(layout.segments) * layout.columns
    step = ROWS_AT_ONCE if cells <= _CELLS_MAX else min(ROWS_AT_ONCE, max(1, _CELLS_MAX // layout.columns))
    return [slice(start, min(n, start + step)) for start in range(0, n, step)]


def _fold_part(  # noqa: PLR0913 - as fold
    layout: Layout, group: Group, rows: Rows, judged: Judged, windows_ms: Ints, offsets: Ints, scores: Ints | None
) -> list[Partial]:
    starts, ranks = _ranked(windows_ms)
    outlying = judged.rows >= OUTLYING
    by_key = [_sums(layout, rows, outlying, ranks * len(layout.segments) + one, scores) for one in rows.segments]
    if by_key:
        whole = _total(by_key[0], len(layout.segments))
    else:
        whole = _sums(layout, rows, outlying, ranks * len(layout.segments), scores)
    first, last = np.full(len(starts), offsets[-1]), np.full(len(starts), offsets[0])
    np.minimum.at(first, ranks, offsets)
    np.maximum.at(last, ranks, offsets)
    sums, neutral = [whole, *by_key], empty(group, layout.reference.reference_id, 0)
    borders = np.arange(len(starts) + 1) * len(layout.segments)
    cuts = [np.searchsorted(one.places, borders) for one in sums]
    return [
        replace(
            neutral,
            window_start_ms=start,
            spans=[Span(group.topic, group.partition, int(first[window]), int(last[window]))],
            **_of_window(sums, [slice(cut[window], cut[window + 1]) for cut in cuts], borders[window]),
        )
        for window, start in enumerate(starts.tolist())
    ]


def _ranked(windows_ms: Ints) -> tuple[Ints, Ints]:
    """The distinct window starts, rising, and the rank of each row's own. One window, the usual case, needs no sort."""
    if windows_ms.min() == windows_ms.max():
        return windows_ms[:1], np.zeros(len(windows_ms), dtype=np.int64)
    starts, ranks = np.unique(windows_ms, return_inverse=True)
    return starts, ranks


def _sums(layout: Layout, rows: Rows, outlying: Mask, places: Ints, scores: Ints | None) -> _Sums:
    """Sums by place (window rank * G + segment) of each row."""
    seen = np.bincount(places)
    present = np.flatnonzero(seen)
    dense_rank = np.zeros(len(seen), dtype=np.int64)
    dense_rank[present] = np.arange(len(present))
    ranks = dense_rank.take(places)
    g, columns, n_rows = len(present), layout.columns, seen.take(present)
    # One count for all signals: the table of a group begins at rank * T.
    counts = np.bincount((rows.cells + ranks * columns).ravel(), minlength=g * columns)
    order = np.argsort(ranks.astype(np.uint16), kind="stable")  # 16 bits: numpy sorts them by radix
    return _Sums(
        places=present,
        rows=n_rows,
        invalid_rows=np.bincount(ranks[rows.invalid], minlength=g),
        outlying_rows=np.bincount(ranks[outlying], minlength=g),
        counts=counts.reshape(g, columns),
        moments=_moments(layout, rows.values.take(order, axis=1), np.cumsum(n_rows) - n_rows),
        scores=_scores(scores, ranks, g),
    )


def _scores(cells: Ints | None, ranks: Ints, g: int) -> Ints:
    """[g, score cells] rows by cell; no columns without any."""
    if cells is None:
        return np.zeros((g, 0), dtype=np.int64)
    some = np.flatnonzero(cells >= 0)
    places = ranks.take(some) * SCORE_CELLS + cells.take(some)
    return np.bincount(places, minlength=g * SCORE_CELLS).reshape(g, SCORE_CELLS)


def _moments(layout: Layout, values: Floats, starts: Ints) -> Ints:
    """[g, numeric signals, 4] sums over consecutive groups of columns of values [numeric signals, n]."""
    v, w, clipped = fixed_point(layout.centre, layout.step, values)
    moments = np.zeros((len(starts), len(values), MOMENTS), dtype=np.int64)
    moments[:, :, 0] = np.add.reduceat(v, starts, axis=1).T
    moments[:, :, 1] = np.add.reduceat(w, starts, axis=1).T
    moments[:, :, 2] = np.add.reduceat(np.multiply(w, w, out=v), starts, axis=1).T
    if clipped.any():
        moments[:, :, 3] = np.add.reduceat(clipped, starts, axis=1, dtype=np.int64).T
    return moments


def _total(sums: _Sums, segments: int) -> _Sums:
    """The sums of `all`: every row belongs to exactly one segment of a key, so those of any one key add up to it."""
    windows, starts = np.unique(sums.places // segments, return_index=True)
    cuts = list(pairwise([*starts.tolist(), len(sums.places)]))

    def added(values: Ints) -> Ints:  # np.add.reduceat along the first axis takes three times as long
        return np.stack([np.add.reduce(values[start:end], axis=0) for start, end in cuts])

    return _Sums(
        places=windows * segments,
        rows=added(sums.rows),
        invalid_rows=added(sums.invalid_rows),
        outlying_rows=added(sums.outlying_rows),
        counts=added(sums.counts),
        moments=added(sums.moments),
        scores=added(sums.scores),
    )


def _of_window(sums: list[_Sums], cuts: list[slice], first_place: int) -> dict[str, Ints]:
    """The arrays of one partial: `all`, then the segments present of each key."""
    arrays = {
        name: np.concatenate([getattr(one, name)[cut] for one, cut in zip(sums, cuts, strict=True)])
        for name in _Sums.__struct_fields__
    }
    places = arrays.pop("places")
    return arrays | {"segments": places - first_place, "late": np.zeros_like(places)}


def _zeros(segments: Ints) -> dict[str, Ints]:
    """The arrays of a partial without rows."""
    g = len(segments)
    none = {name: np.zeros(g, dtype=np.int64) for name in ("rows", "late", "invalid_rows", "outlying_rows")}
    nothing = {name: np.zeros((g, 0), dtype=np.int64) for name in ("counts", "scores")}
    nothing |= {"moments": np.zeros((g, 0, MOMENTS), dtype=np.int64)}
    return {"segments": segments, **none, **nothing}


def _room(segments: int, columns: int, numeric: int) -> Dense:
    return Dense(
        rows=np.zeros(segments, dtype=np.int64),
        late=np.zeros(segments, dtype=np.int64),
        invalid_rows=np.zeros(segments, dtype=np.int64),
        outlying_rows=np.zeros(segments, dtype=np.int64),
        counts=np.zeros((segments, columns), dtype=np.int64),
        moments=np.zeros((segments, numeric, MOMENTS), dtype=np.int64),
    )


def _add(sums: Dense, partial: Partial, at: Ints, column: int) -> None:
    """Add a partial to arrays of our own; `at` are the rows its segments have there, each once."""
    sums.rows[at] += partial.rows
    sums.late[at] += partial.late
    sums.invalid_rows[at] += partial.invalid_rows
    sums.outlying_rows[at] += partial.outlying_rows
    sums.counts[at, column : column + partial.counts.shape[1]] += partial.counts
    sums.moments[at, : partial.moments.shape[1]] += partial.moments


def _added_scores(partials: Sequence[Partial], segments: Ints) -> Ints:
    """[g, score cells] over the given segments; no columns if no partial has any."""
    scored = [partial for partial in partials if partial.scores.size]
    sums = np.zeros((len(segments), SCORE_CELLS if scored else 0), dtype=np.int64)
    for partial in scored:
        sums[np.searchsorted(segments, partial.segments)] += partial.scores
    return sums


def _identity(partial: Partial) -> tuple[str, str, str, int]:
    return partial.model_id, partial.model_version, partial.reference_id, partial.window_start_ms


def joined(spans: Iterable[Span]) -> list[Span]:
    """One span per source partition, from its smallest to its largest offset, sorted."""
    found: dict[tuple[str, int], Span] = {}
    for span in spans:
        other = found.get((span.topic, span.partition), span)
        first, last = min(span.first_offset, other.first_offset), max(span.last_offset, other.last_offset)
        found[span.topic, span.partition] = Span(span.topic, span.partition, first, last)
    return sorted(found.values())


def _summed(names: Iterable[UnknownFeature]) -> list[UnknownFeature]:
    """The 32 names of smallest hash. Exact although parts keep 32 too: what is dropped there had 32 before it."""
    counted: dict[tuple[int, str], int] = {}
    for one in names:
        counted[one.name_hash, one.name] = counted.get((one.name_hash, one.name), 0) + one.rows
    return [UnknownFeature(*key, counted[key]) for key in sorted(counted)[:UNKNOWN_MAX]]


def _bottom(rows: Iterable[SampledRow], k: int) -> list[SampledRow]:
    """k rows of smallest hash, rising; of rows with one hash the smaller bytes."""
    kept: dict[int, bytes] = {}
    for row in rows:
        before = kept.get(row.id_hash)
        kept[row.id_hash] = row.row if before is None else min(before, row.row)
    return [SampledRow(id_hash, kept[id_hash]) for id_hash in sorted(kept)[:k]]


def _item_bytes(values: Ints) -> int:
    """Bytes per number of the smallest integer type that holds all of them: what the codec writes."""
    return int(np.min_scalar_type(int(np.abs(values).max(initial=0)) * 2).itemsize)


def _piece(partial: Partial, rows: slice, first: int, end: int) -> Partial:
    """Some segments and some columns; everything but the counts travels with the first columns."""
    counts = partial.counts[rows, first:end]
    if first:
        own: dict[str, Any] = _zeros(partial.segments[rows])
    else:
        names = ("segments", "rows", "late", "invalid_rows", "outlying_rows", "moments", "scores")
        own = {name: getattr(partial, name)[rows] for name in names}
    own |= {"counts": counts, "first_column": partial.first_column + first, "worst": [], "unknown": []}
    return replace(partial, **own)
