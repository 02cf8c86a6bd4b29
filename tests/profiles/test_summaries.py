import math
from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makings import a_reference, plain
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import summaries
from stream.signals import extract
from stream.signals.extract import Rows
from stream.signals.outcomes import SCORE_CELLS
from stream.signals.outliers import Judged
from stream.wire import codec
from stream.wire.internal import (
    OutlyingRow,
    Partial,
    Sample,
    SampledRow,
    SignalReference,
    Span,
    UnknownFeature,
)

GROUP = summaries.Group("credit", "3", "predictions", 7)
SIZE_MS = 100
CENTRES = (0.0, 5.0)
SCALES = (1.0, 0.25)

SEEDS = st.integers(0, 100_000)
COUNTS = st.integers(0, 40)


def layout(declared: dict[str, list[str]]) -> extract.Layout:
    signals = {
        f"feature:x{index}": SignalReference(
            type="numeric", counts=[5, 5, 5], edges=[-1.0, 1.0], centre=centre, scale=scale
        )
        for index, (centre, scale) in enumerate(zip(CENTRES, SCALES, strict=True))
    }
    signals["prediction:label"] = SignalReference(type="categorical", counts=[5, 5], categories=["0", "1"])
    return extract.compile_layout(a_reference(signals, n_rows=15, segments=declared, window_size_ms=SIZE_MS))


LAYOUTS = [layout({}), layout({"k": ["a", "b"]}), layout({"k": ["a", "b"], "l": ["c"]})]


class Folded(Struct):
    """n rows, ready to be folded in any parts."""

    layout: extract.Layout
    rows: Rows
    judged: Judged
    windows_ms: summaries.Ints
    offsets: summaries.Ints
    worst: list[list[OutlyingRow]]
    unknown: list[list[UnknownFeature]]
    scores: summaries.Ints | None

    def part(self, picks: summaries.Ints) -> list[Partial]:
        rows, judged, windows = self.rows, self.judged, self.windows_ms[picks]
        worst: dict[int, list[OutlyingRow]] = {}
        unknown: dict[int, list[UnknownFeature]] = {}
        for pick, window in zip(picks.tolist(), windows.tolist(), strict=True):
            worst.setdefault(window, []).extend(self.worst[pick])
            unknown.setdefault(window, []).extend(self.unknown[pick])
        return summaries.fold(
            self.layout,
            GROUP,
            Rows(rows.cells[:, picks], rows.values[:, picks], rows.segments[:, picks], rows.invalid[picks]),
            Judged(judged.signals[:, picks], judged.rows[picks]),
            windows,
            self.offsets[picks],
            worst=worst,
            unknown=unknown,
            scores=None if self.scores is None else self.scores[picks],
        )


def drawn(seed: int, n: int, windows: int = 3) -> Folded:
    rng = np.random.default_rng(seed)
    own = LAYOUTS[seed % len(LAYOUTS)]
    cells = (own.first[:, None] + rng.integers(0, own.width[:, None], (len(own.names), n))).astype(np.int64)
    values = rng.normal(scale=10.0, size=(len(own.numeric), n))
    values[rng.random(values.shape) < 0.1] = math.nan
    values[rng.random(values.shape) < 0.05] = 1e308
    segments = [rng.choice([*table.values(), table[None]], n) for _, table in own.segment_tables]
    scores = rng.integers(0, 25, (len(own.names), n)).astype(np.int8)
    offsets = np.cumsum(rng.integers(1, 3, n)).astype(np.int64)
    return Folded(
        layout=own,
        rows=Rows(
            cells, values, np.array(segments, dtype=np.int64).reshape(len(own.segment_tables), n), rng.random(n) < 0.2
        ),
        judged=Judged(scores, scores.max(axis=0, initial=0)),
        windows_ms=rng.integers(-windows, windows, n) * SIZE_MS,
        offsets=offsets,
        worst=[[outlier(int(rng.integers(0, 25)), int(one))] if rng.random() < 0.3 else [] for one in offsets],
        unknown=[[unknown(int(pick)) for pick in rng.integers(0, 60, 2)] for _ in range(n)],
        scores=rng.integers(-1, SCORE_CELLS, n) if seed % 4 else None,
    )


def outlier(score: int, offset: int) -> OutlyingRow:
    return OutlyingRow(score, 10**18 - 7 * (offset % 5), f"p-{offset}", 0, "predictions", 7, offset, None, [])


def unknown(number: int) -> UnknownFeature:
    return UnknownFeature((number * 2_654_435_761) % 2**32, f"name-{number}", 1)


def by_window(partials: list[Partial]) -> dict[int, list[Partial]]:
    found: dict[int, list[Partial]] = {}
    for partial in partials:
        found.setdefault(partial.window_start_ms, []).append(partial)
    return found


def pieces(whole: Folded, rng: np.random.Generator) -> list[Partial]:
    """The partials of the rows, cut into random parts and shuffled."""
    n = len(whole.offsets)
    cuts = sorted({0, n, *rng.integers(0, n + 1, 4).tolist()})
    shuffled = rng.permutation(n)
    found = [partial for start, end in pairwise(cuts) for partial in whole.part(np.sort(shuffled[start:end]))]
    return [found[pick] for pick in rng.permutation(len(found))]


def merged_pairwise(partials: list[Partial], rng: np.random.Generator, worst_max: int | None) -> Partial:
    """Merge in a random tree."""
    left = list(partials)
    while len(left) > 1:
        one, other = (left.pop(int(rng.integers(len(left)))) for _ in range(2))
        left.append(summaries.merge([one, other], worst_max))
    return summaries.merge(left, worst_max)


@settings(max_examples=60)
@given(seed=SEEDS, n=COUNTS, worst_max=st.sampled_from([None, 0, 3]))
def test_merged_parts_equal_the_whole_to_the_bit_in_any_order_and_grouping(
    seed: int, n: int, worst_max: int | None
) -> None:
    whole, rng = drawn(seed, n), np.random.default_rng(seed + 1)
    at_once = {partial.window_start_ms: partial for partial in whole.part(np.arange(n))}
    parts = by_window(pieces(whole, rng))
    assert parts.keys() == at_once.keys()
    for start, partial in at_once.items():
        expected = plain(summaries.merge([partial], worst_max))
        assert plain(summaries.merge(parts[start], worst_max)) == expected
        assert plain(merged_pairwise(parts[start], rng, worst_max)) == expected


@settings(max_examples=30)
@given(seed=SEEDS, n=st.integers(1, 40))
def test_no_function_touches_its_arguments(seed: int, n: int) -> None:
    whole = drawn(seed, n, windows=1)
    before = plain(whole)
    partials = whole.part(np.arange(n))
    assert plain(whole) == before
    frozen = deepcopy(partials)
    by_start = by_window(partials)
    for same in by_start.values():
        summaries.merge([*same, *same])
        summaries.split(same[0], 64)
        summaries.dense(same[0], len(whole.layout.segments), whole.layout.columns, len(whole.layout.numeric))
    assert plain(partials) == plain(frozen)


@settings(max_examples=30)
@given(seed=SEEDS, n=st.integers(1, 40), bytes_max=st.integers(1, 4000))
def test_encoding_and_decoding_change_nothing(seed: int, n: int, bytes_max: int) -> None:
    for partial in drawn(seed, n).part(np.arange(n)):
        for piece in [partial, *summaries.split(partial, bytes_max)]:
            assert plain(codec.decode(codec.encode(piece, "partial/1"), Partial)) == plain(piece)


@settings(max_examples=30)
@given(seed=SEEDS, n=st.integers(1, 40))
def test_an_empty_partial_is_neutral(seed: int, n: int) -> None:
    for partial in drawn(seed, n).part(np.arange(n)):
        empty = summaries.empty(GROUP, partial.reference_id, partial.window_start_ms)
        assert plain(summaries.merge([partial, empty])) == plain(partial)
        assert plain(summaries.merge([empty, partial])) == plain(partial)
        assert plain(summaries.merge([empty, empty])) == plain(empty)


def counted(whole: Folded, window_ms: int, segment: int) -> dict[str, Any]:
    """The sums of one segment and window, row by row in whole numbers: slow and obvious."""
    own = whole.layout
    counts, moments = [0] * own.columns, [[0, 0, 0, 0] for _ in own.numeric]
    scores = [] if whole.scores is None else [0] * SCORE_CELLS
    rows = invalid = outlying = 0
    for row in range(len(whole.offsets)):
        if whole.windows_ms[row] != window_ms or (segment and segment not in whole.rows.segments[:, row]):
            continue
        rows += 1
        invalid += int(whole.rows.invalid[row])
        outlying += int(whole.judged.rows[row] >= 6)
        for cell in whole.rows.cells[:, row]:
            counts[cell] += 1
        if whole.scores is not None and whole.scores[row] >= 0:
            scores[whole.scores[row]] += 1
        for sums, value, centre, scale in zip(moments, whole.rows.values[:, row], CENTRES, SCALES, strict=True):
            if math.isnan(value):
                continue
            at = (float(value) - centre) / scale * 2**20
            exact = round(at) if math.isfinite(at) else 2**60
            v = max(-(2**26), min(2**26, exact))
            w = (v + 2**9) >> 10
            for index, term in enumerate((v, w, w * w, int(exact != v))):
                sums[index] += term
    return {
        "rows": rows,
        "invalid_rows": invalid,
        "outlying_rows": outlying,
        "counts": counts,
        "moments": moments,
        "scores": scores,
    }


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(1, 40))
def test_a_partial_holds_exactly_the_sums_of_its_rows(seed: int, n: int) -> None:
    whole = drawn(seed, n)
    partials = whole.part(np.arange(n))
    assert [partial.window_start_ms for partial in partials] == sorted(set(whole.windows_ms.tolist()))
    assert sum(int(partial.rows[0]) for partial in partials) == n
    for partial in partials:
        inside = whole.offsets[whole.windows_ms == partial.window_start_ms]
        assert partial.spans == [Span("predictions", 7, int(inside.min()), int(inside.max()))]
        assert partial.segments.tolist() == sorted(set(partial.segments.tolist()))
        for position, segment in enumerate(partial.segments.tolist()):
            expected = counted(whole, partial.window_start_ms, segment)
            assert expected == {name: getattr(partial, name)[position].tolist() for name in expected}


def test_folding_many_rows_over_many_windows_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(1, 900, windows=20)
    at_once = plain(whole.part(np.arange(900)))
    monkeypatch.setattr(summaries, "_CELLS_MAX", 1000)
    assert plain(whole.part(np.arange(900))) == at_once
    monkeypatch.setattr(summaries, "ROWS_AT_ONCE", 7)
    assert plain(whole.part(np.arange(900))) == at_once


def test_a_reference_without_signals_counts_rows() -> None:
    bare = extract.compile_layout(replace(LAYOUTS[0].reference, signals={}))
    nothing = Rows(
        np.zeros((0, 3), dtype=np.int64),
        np.zeros((0, 3)),
        np.zeros((0, 3), dtype=np.int64),
        np.zeros(3, dtype=np.bool_),
    )
    judged = Judged(np.zeros((0, 3), dtype=np.int8), np.zeros(3, dtype=np.int8))
    (partial,) = summaries.fold(bare, GROUP, nothing, judged, np.zeros(3, dtype=np.int64), np.arange(3))
    assert (partial.rows.tolist(), partial.counts.shape, partial.moments.shape) == ([3], (1, 0), (1, 0, 4))


def test_no_rows_make_no_partial() -> None:
    assert drawn(1, 0).part(np.arange(0)) == []


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(1, 40), bytes_max=st.integers(1, 4000))
def test_the_pieces_of_a_split_merge_to_the_whole(seed: int, n: int, bytes_max: int) -> None:
    for partial in drawn(seed, n).part(np.arange(n)):
        parts = summaries.split(partial, bytes_max)
        order = np.random.default_rng(seed).permutation(len(parts))
        assert plain(summaries.merge([parts[pick] for pick in order])) == plain(partial)


def test_a_profile_of_five_thousand_features_travels_in_small_records() -> None:
    segments, columns = 3, 5_000 * 66
    rng = np.random.default_rng(1)
    partial = replace(
        drawn(1, 5, windows=1).part(np.arange(5))[0],
        segments=np.arange(segments),
        **{name: rng.integers(0, 9, segments) for name in ("rows", "late", "invalid_rows", "outlying_rows")},
        counts=rng.integers(0, 70_000, (segments, columns)),
        moments=rng.integers(-(2**40), 2**40, (segments, 5_000, 4)),
    )
    parts = summaries.split(partial)
    assert max(len(codec.encode(part, "partial/1")) for part in parts) <= summaries.RECORD_BYTES_MAX
    assert plain(summaries.merge(parts[::-1])) == plain(partial)


@settings(max_examples=30)
@given(seed=SEEDS, n=st.integers(1, 40))
def test_a_dense_profile_has_a_row_for_every_segment(seed: int, n: int) -> None:
    whole = drawn(seed, n)
    for partial in whole.part(np.arange(n)):
        dense = summaries.dense(partial, len(whole.layout.segments), whole.layout.columns, len(whole.layout.numeric))
        assert dense.counts[partial.segments].tolist() == partial.counts.tolist()
        assert dense.moments[partial.segments].tolist() == partial.moments.tolist()
        absent = np.setdiff1d(np.arange(len(whole.layout.segments)), partial.segments)
        assert not dense.counts[absent].any()
        assert not dense.rows[absent].any()
        assert dense.rows.sum() == partial.rows.sum()
        scores = summaries.dense_scores(partial, len(whole.layout.segments))
        assert scores.shape == (len(whole.layout.segments), SCORE_CELLS)
        assert scores[partial.segments].sum() == scores.sum() == partial.scores.sum()


def test_unknown_names_keep_those_of_smallest_hash() -> None:
    found = summaries.unknown_features({f"name-{number}": number for number in range(50)})
    hashes = sorted(codec.hash64(f"name-{number}") for number in range(50))
    assert [one.name_hash for one in found] == hashes[:32]
    assert all(one.name == f"name-{one.rows}" for one in found)


def test_late_events_are_counted_by_window_and_segment_and_in_no_bin() -> None:
    own = LAYOUTS[1]  # all, k=a, k=b, k=other
    partials = summaries.late(own, GROUP, np.array([[1, 1, 3, 2]]), np.array([0, 0, 0, 100]))
    assert [(partial.window_start_ms, partial.segments.tolist(), partial.late.tolist()) for partial in partials] == [
        (0, [0, 1, 3], [3, 2, 1]),
        (100, [0, 2], [1, 1]),
    ]
    whole = replace(drawn(1, 30, windows=1), layout=own)
    on_time = summaries.fold(own, GROUP, whole.rows, whole.judged, np.zeros(30, dtype=np.int64), whole.offsets)
    both = summaries.merge([partials[0], on_time[0]])
    assert both.late.sum() == 6
    assert (both.rows[0], both.spans) == (30, on_time[0].spans)
    full = summaries.dense(both, 4, own.columns, 2)
    assert full.counts.tolist() == summaries.dense(on_time[0], 4, own.columns, 2).counts.tolist()
    assert not partials[0].counts.size


def test_partials_of_different_windows_are_not_merged() -> None:
    first, second = (summaries.empty(GROUP, "0123456789abcdef", start) for start in (0, 100))
    with pytest.raises(ValueError, match="one window"):
        summaries.merge([first, second])
    with pytest.raises(ValueError, match="one window"):
        summaries.merge([])


@settings(max_examples=60)
@given(seed=SEEDS, n=st.integers(1, 60), k=st.integers(1, 30))
def test_a_sample_is_the_smallest_hashes_however_it_was_gathered(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 40, n).astype(np.uint64) + np.uint64(2**63)
    texts = [b"row-%d" % number for number in rng.integers(0, 100, n)]
    windows, offsets = rng.integers(0, 2, n) * SIZE_MS, np.arange(n)

    def sample(picks: summaries.Ints) -> list[Sample]:
        return summaries.sample(GROUP, windows[picks], offsets[picks], hashes[picks], lambda row: texts[picks[row]], k)

    at_once = {one.window_start_ms: one for one in sample(np.arange(n))}
    cuts = sorted({0, n, *rng.integers(0, n + 1, 4).tolist()})
    parts = [one for start, end in pairwise(cuts) for one in sample(np.arange(start, end)) if end > start]
    for start, whole in at_once.items():
        own = [one for one in parts if one.window_start_ms == start]
        shuffled = [own[pick] for pick in rng.permutation(len(own))]
        assert summaries.merge_samples(shuffled, k) == whole
        assert summaries.merge_samples(summaries.split_sample(whole, 60)[::-1], k) == whole
        distinct: dict[int, bytes] = {}
        for row in np.flatnonzero(windows == start).tolist():
            id_hash = int(hashes[row])
            distinct[id_hash] = min(distinct.get(id_hash, texts[row]), texts[row])
        assert whole.sample == [SampledRow(id_hash, distinct[id_hash]) for id_hash in sorted(distinct)[:k]]
        assert whole.rows == (windows == start).sum()


def test_only_rows_that_can_be_sampled_are_asked_for() -> None:
    asked: list[int] = []

    def row_of(row: int) -> bytes:
        asked.append(row)
        return b""

    hashes = np.arange(1000, dtype=np.uint64)[::-1].copy()
    whole = summaries.sample(GROUP, np.zeros(1000, dtype=np.int64), np.arange(1000), hashes, row_of, 10)
    assert sorted(asked) == list(range(990, 1000))
    assert summaries.merge_samples([*whole, *summaries.late_sample(GROUP, np.zeros(3, dtype=np.int64))]).late == 3


def test_samples_of_several_windows_become_one_and_of_several_versions_do_not() -> None:
    first, second = (Sample("credit", "3", start, 1, 0, [], [SampledRow(start, b"")]) for start in (100, 0))
    assert summaries.merge_samples([first, second]).window_start_ms == 0
    with pytest.raises(ValueError, match="one model version"):
        summaries.merge_samples([first, replace(second, model_version="4")])
