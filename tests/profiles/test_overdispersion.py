"""Overdispersion from sums, against the formula over all windows at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makings import a_reference
from msgspec.structs import replace
from scipy.stats import norm

from stream.profiles import overdispersion, reference
from stream.profiles.overdispersion import BLOCKS_MIN, LENGTHS, SHARE_MIN
from stream.profiles.reference import Tables, compile_tables
from stream.profiles.summaries import Dense
from stream.wire import codec
from stream.wire.internal import SignalReference

BINS = 16
EDGES = norm.ppf(np.arange(1, BINS) / BINS)


def tables_of(categories: int = 3, segments: dict[str, list[str]] | None = None) -> Tables:
    signals = {
        "feature:a": SignalReference("categorical", [10] * categories, categories=[f"c{i}" for i in range(categories)]),
        "feature:b": SignalReference(
            "numeric", [10] * BINS, edges=EDGES.tolist(), centre=0.0, scale=1.0, low=[], high=[]
        ),
    }
    return compile_tables(
        a_reference(
            signals,
            complete=False,
            n_rows=160,
            effective_from="1970-01-01T00:00:00.000Z",
            segments=segments or {},
            window_size_ms=1,
        )
    )


def window_of(tables: Tables, counts: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Dense:
    """A profile of counts [G, T]; the numeric signal is there in every row."""
    rows = counts[:, reference.valid(tables.layout, 1)].sum(axis=1)
    nothing = np.zeros_like(rows)
    return Dense(rows, nothing, nothing, nothing, counts, np.zeros((len(counts), 1, 4), dtype=np.int64))


def drawn(tables: Tables, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], categories: list[int]) -> Dense:
    counts = np.zeros((1, tables.layout.columns), dtype=np.int64)
    counts[0, : len(categories)] = categories
    first = int(tables.layout.first[1])
    counts[0, first : first + BINS] = np.bincount(np.searchsorted(EDGES, values), minlength=BINS)
    return window_of(tables, counts)


def measured(tables: Tables, windows: dict[int, Dense]) -> overdispersion.Overdispersion:
    sums = overdispersion.start(tables)
    for index, window in windows.items():
        sums = overdispersion.add(sums, tables, index, window)
    total = np.sum([window.counts for window in windows.values()], axis=0)
    return overdispersion.phi(sums, tables, total)


def by_the_formula(tables: Tables, windows: dict[int, Dense], signal: int) -> float:
    """The page's formula for one signal, over whole blocks of all lengths; nan with too few windows."""
    total = np.sum([window.counts[0] for window in windows.values()], axis=0)[reference.valid(tables.layout, signal)]
    first, last, found = min(windows), max(windows), [1.0]
    for length in LENGTHS:
        blocks: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = {}
        for index, window in windows.items():
            block = index // length
            if block * length >= first and (block + 1) * length - 1 <= last:
                own = window.counts[0, reference.valid(tables.layout, signal)]
                blocks[block] = blocks.get(block, 0) + own
        counts = np.array([block for block in blocks.values() if block.sum()])
        if len(counts) < BLOCKS_MIN:
            if length == 1:
                return float("nan")
            continue
        n = counts.sum(axis=1)
        shares, p = counts.sum(axis=0) / counts.sum(), total / total.sum()
        if signal == 1:
            u = tables.u[reference.valid(tables.layout, signal)]
            scores = [u, np.abs(2 * u - 1)]
        else:
            scores = [np.eye(len(p))[b] for b in range(len(p)) if p[b] >= SHARE_MIN]
        for f in scores:
            variance = (p * f**2).sum() - (p * f).sum() ** 2
            if variance > 1e-9:
                found.append((((counts - n[:, None] * shares) @ f) ** 2 / n).sum() / ((len(counts) - 1) * variance))
        seen = shares > 0
        if seen.sum() > 1:
            gaps = (counts - n[:, None] * shares)[:, seen] ** 2 / (n[:, None] * shares[seen])
            found.append(gaps.sum() / ((len(counts) - 1) * (seen.sum() - 1)))
    return max(found)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(1, 120), st.floats(0, 1))
def test_sums_say_what_the_formula_says_over_all_windows(seed: int, first: int, count: int, gaps: float) -> None:
    tables, rng = tables_of(), np.random.default_rng(seed)
    kept = [index for index in range(first, first + count) if rng.random() > gaps / 2] or [first]
    windows = {
        index: drawn(tables, rng.normal(rng.normal(0, 0.3), 1, rng.integers(0, 40)), rng.integers(0, 9, 3).tolist())
        for index in kept
    }

    found = measured(tables, windows)

    assert found.signals[0] == pytest.approx([by_the_formula(tables, windows, s) for s in (0, 1)], nan_ok=True)


def test_independent_events_are_hardly_overdispersed() -> None:
    tables, rng = tables_of(), np.random.default_rng(1)
    windows = {
        index: drawn(tables, rng.normal(size=500), rng.multinomial(500, [0.6, 0.3, 0.1]).tolist())
        for index in range(2_000)
    }

    found = measured(tables, windows)

    assert found.signals.max() < 1.8
    assert found.rates.max() == 1


def test_a_common_direction_is_seen_where_chi_squared_is_nearly_blind() -> None:
    # The published case: N(0, 1) with a random window mean of sd 0.1, n = 1,000; chi squared 1.6, u 9.5.
    tables, rng = tables_of(), np.random.default_rng(2)
    windows = {index: drawn(tables, rng.normal(rng.normal(0, 0.1), 1, 1_000), [1, 1, 1]) for index in range(2_000)}

    found = measured(tables, windows)

    assert found.signals[0, 1] == pytest.approx(10.5, abs=2)


def test_a_slow_wave_shows_in_long_blocks() -> None:
    tables, rng = tables_of(), np.random.default_rng(3)
    wave = 0.1 * np.sin(2 * np.pi * np.arange(6_000) / 288)
    windows = {index: drawn(tables, rng.normal(wave[index], 1, 100), [1, 1, 1]) for index in range(6_000)}

    assert measured(tables, windows).signals[0, 1] > 10


def test_with_fewer_than_twenty_windows_nothing_is_known() -> None:
    tables, rng = tables_of(), np.random.default_rng(4)
    windows = {index: drawn(tables, rng.normal(size=100), [1, 0, 0]) for index in range(21)}

    few = measured(tables, {index: windows[index] for index in range(19)})

    assert np.isnan(few.signals).all()
    assert np.isnan(few.rates).all()
    assert np.isnan(few.rows).all()
    assert np.isfinite(measured(tables, windows).signals).all()


def test_a_rate_that_comes_in_bursts_is_overdispersed() -> None:
    tables, rng = tables_of(), np.random.default_rng(5)
    windows = {}
    for index in range(200):
        window = drawn(tables, rng.normal(size=100), [20, 20, 20])
        window.counts[0, 4] = 40 if index % 10 == 0 else 0  # missing
        windows[index] = window

    found = measured(tables, windows)

    assert found.rates[0, 0, 0] > 20
    assert found.rates[0, 1, 0] == 1


def test_a_segment_is_measured_on_its_own_windows() -> None:
    tables, rng = tables_of(segments={"k": ["x"]}), np.random.default_rng(6)
    windows = {}
    for index in range(100):
        counts = np.zeros((3, tables.layout.columns), dtype=np.int64)
        for g, mean in ((1, rng.normal(0, 0.5)), (2, 0)):
            counts[g] = drawn(tables, rng.normal(mean, 1, 200), [1, 1, 1]).counts[0]
        counts[0] = counts[1] + counts[2]
        windows[index] = window_of(tables, counts)

    phi = measured(tables, windows).signals[:, 1]

    assert phi[1] > phi[0] > phi[2]
    assert phi[2] < 2


def test_restored_sums_go_on_exactly_like_the_original() -> None:
    tables, rng = tables_of(), np.random.default_rng(7)
    sums = overdispersion.start(tables)
    for index in range(50):
        sums = overdispersion.add(sums, tables, index, drawn(tables, rng.normal(size=50), [1, 2, 3]))
        restored = codec.decode(codec.encode(sums, "test"), overdispersion.Sums, "test")
        assert isinstance(restored, overdispersion.Sums)
        for name in sums.__struct_fields__:
            assert np.array_equal(getattr(sums, name), getattr(restored, name))
        sums = restored


def test_a_window_leaves_the_sums_before_it_alone() -> None:
    tables, rng = tables_of(), np.random.default_rng(8)
    before = overdispersion.start(tables)
    copy = replace(before, x=before.x.copy(), squares=before.squares.copy())

    overdispersion.add(before, tables, 3, drawn(tables, rng.normal(size=50), [1, 2, 3]))

    assert np.array_equal(before.x, copy.x)
    assert np.array_equal(before.squares, copy.squares)
    assert before.first is None
