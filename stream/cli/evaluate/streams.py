"""Scenarios as numbers: the reference of every repetition, and the windows of the stream, binned as ingest bins them.

The repetitions of a scenario are the segments of one reference: they share edges, have counts and errors of their own,
and each is a group of its own, so one pass through the detectors judges them all.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.cli.evaluate.notation import Block, Floats, Law, Piece
from stream.cli.evaluate.scenario import Scenario
from stream.profiles import cuts, learning, overdispersion
from stream.profiles.reference import Tables, compile_tables
from stream.profiles.summaries import MOMENTS, SAMPLE_ROWS, Dense
from stream.signals import extract
from stream.signals.extract import Columns, Layout
from stream.wire.codec import named
from stream.wire.internal import Reference

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_VALUES_AT_ONCE: Final = 2_000_000
"""Values drawn at once: 16 MB a column."""
_SAMPLE_SHARE: Final = 3
"""Counted rows per row of the sample: a quarter of all rows cuts the bins."""
_REPETITION: Final = "repetition"
STREAM, REFERENCE, SAMPLE, LAW = range(4)
"""Purposes of draws: each has generators of its own."""


class Windows(Struct, frozen=True, eq=False):
    """Some windows in a row."""

    first: int
    """Index of the first."""
    values: Floats
    """[repetitions, windows, rows, signals]"""
    counts: Ints
    """[repetitions, windows, T]"""


def blocks(scenario: Scenario, window_ms: int, pieces: list[Piece], repetitions: int) -> Iterator[tuple[Law, Block]]:
    """What is drawn, in order."""
    first = 0
    for piece in pieces:
        windows = piece.rows // scenario.window
        signals = int(piece.law.parameters[0]) if piece.law.name == "gaussians" else 1
        step = max(1, _VALUES_AT_ONCE // (repetitions * scenario.window * signals))
        for start in range(0, windows, step):
            size = min(step, windows - start)
            yield piece.law, Block(repetitions, size, scenario.window, first + start, start, windows, window_ms)
        first += windows


def windows(scenario: Scenario, tables: Tables, seed: int, *, binned: bool = True) -> Iterator[Windows]:
    """The stream of all repetitions, in parts. The same seed gives the same stream, whatever is looked at of it."""
    rng = np.random.default_rng([seed, STREAM])
    layout = _plain(tables.reference)
    size_ms = tables.reference.window_size_ms
    for law, block in blocks(scenario, size_ms, scenario.pieces, scenario.repetitions):
        values = law.draw(rng, block) * scenario.scale
        counts = _counts(layout, law, values) if binned else np.zeros((0, 0, 0), np.int64)
        yield Windows(block.first, values, counts)


def tables_of(scenario: Scenario, window_ms: int, seed: int) -> Tables:
    """The references of all repetitions, as segments of one."""
    law = scenario.reference_law
    shape = (scenario.reference_rows_counted, scenario.window, window_ms, scenario.scale)
    return _tables(law, *shape, scenario.repetitions, seed, shared=scenario.shared)


def cut_of(scenario: Scenario, window_ms: int, seed: int) -> Tables:
    """The provisional reference that a stream is counted against while it is learned."""
    shape = (scenario.reference_rows_counted, scenario.window, window_ms, scenario.scale)
    return compile_tables(named(replace(_cut(scenario.reference_law, *shape, seed), reference_id="", origin="learned")))


def law_counts(scenario: Scenario, tables: Tables, law: Law, rows: int, seed: int) -> Ints:
    """[T] counts of many rows of one law: nearly its probabilities."""
    drawn = law.draw(np.random.default_rng([seed, LAW]), Block(1, rows // scenario.window, scenario.window))
    return np.asarray(_counts(_plain(tables.reference), law, drawn * scenario.scale).sum((0, 1)))


def profile(tables: Tables, counts: Ints, rows: int) -> Dense:
    """One window of all repetitions ([repetitions, T]) as detect gets it; the segments `all` and `other` are empty."""
    segments, columns = len(tables.segments), tables.layout.columns
    dense, every, none = np.zeros((segments, columns), np.int64), np.zeros(segments, np.int64), np.zeros(segments, int)
    dense[1 : 1 + len(counts)] = counts
    every[1 : 1 + len(counts)] = rows
    # Moments serve readings alone; no detector looks at them.
    moments = np.zeros((segments, len(tables.layout.numeric), MOMENTS), np.int64)
    return Dense(every, none, none, none, dense, moments)


@lru_cache(maxsize=8)
def _tables(
    law: Law, rows: int, window: int, window_ms: int, scale: float, repetitions: int, seed: int, *, shared: bool
) -> Tables:
    cut = compile_tables(_cut(law, rows, window, window_ms, scale, seed))
    found = [
        _counted(cut, law, rows, window, scale, np.random.default_rng([seed, REFERENCE, number]))
        for number in range(1 if shared else repetitions)
    ]
    return compile_tables(_together(found * repetitions if shared else found))


def _cut(law: Law, rows: int, window: int, window_ms: int, scale: float, seed: int) -> Reference:
    """The first phase: bins from a sample of its own."""
    wanted = min(SAMPLE_ROWS, max(cuts.ROWS_MIN, rows // _SAMPLE_SHARE))
    drawn = law.draw(np.random.default_rng([seed, SAMPLE]), Block(1, -(-wanted // window), window)) * scale
    values = drawn.reshape(-1, drawn.shape[3])[:wanted]
    names = [f"x{number:04d}" for number in range(values.shape[1])]
    schema = cuts.Schema(*(names if kind == law.kind else [] for kind in ("numeric", "categorical", "boolean")))
    plan = cuts.Plan("evaluated", "1", window_ms)
    return cuts.provisional(_columns(law, values), schema, plan, effective_from_ms=0, origin="built")


def _counted(cut: Tables, law: Law, rows: int, window: int, scale: float, rng: np.random.Generator) -> Reference:
    """The second phase, window by window, so that overdispersion is seen."""
    counts = learning.no_counts(cut)
    pieces = [Piece(law, rows // window * window)]
    size_ms = cut.reference.window_size_ms
    none, n = np.zeros(1, np.int64), np.full(1, window)
    for _, block in blocks(Scenario("", window=window), size_ms, pieces, 1):
        found = _counts(cut.layout, law, law.draw(rng, block) * scale)[0]
        moments = np.zeros((1, len(cut.layout.numeric), MOMENTS), np.int64)
        for place, own in enumerate(found):
            dense = Dense(n, none, none, none, own[None], moments)
            counts = learning.add(counts, cut, (block.first + place) * size_ms, dense)
    phi = overdispersion.phi(counts.sums, cut, counts.dense.counts)
    data = (cut.reference.data_from, cut.reference.data_to)
    # Laws are of one cut for all repetitions, so there are no slots: coarse bins of each would be its own.
    return learning.completed(cut, counts, (phi, None), effective_from_ms=0, origin="built", data=data)


def _together(found: list[Reference]) -> Reference:
    """References of one cut as the segments of one reference."""
    names = [f"{number:04d}" for number in range(len(found))]
    segments = [f"{_REPETITION}={name}" for name in names]

    def gathered(name: str) -> Any:
        own = [reference.signals[name] for reference in found]
        special = [[one.missing, one.invalid, *([one.singletons or 0] * (one.type == "categorical"))] for one in own]
        spread = {
            segment: [one.overdispersion, *(one.rates_overdispersion or [])]
            for segment, one in zip(segments, own, strict=True)
            if one.overdispersion is not None
        }
        return replace(
            own[0],
            segments=dict(zip(segments, (one.counts for one in own), strict=True)),
            segments_special=dict(zip(segments, special, strict=True)),
            segments_overdispersion=spread,
        )

    return replace(
        found[0],
        segments={_REPETITION: names},
        signals={name: gathered(name) for name in found[0].signals},
        segments_window_rows={
            segment: one.window_rows
            for segment, one in zip(segments, found, strict=True)
            if one.window_rows is not None
        },
    )


def _plain(reference: Reference) -> Layout:
    """The layout of a reference without its segments: repetitions are told apart by their place, not by tags."""
    return extract.compile_layout(replace(reference, segments={}))


def _counts(layout: Layout, law: Law, values: Floats) -> Ints:
    """[repetitions, windows, T] bins of [repetitions, windows, rows, signals]."""
    repetitions, count, rows, signals = values.shape
    cells = extract.rows(layout, _columns(law, values.reshape(-1, signals))).cells
    owner = np.repeat(np.arange(repetitions * count) * layout.columns, rows)
    found = np.bincount((cells + owner).ravel(), minlength=repetitions * count * layout.columns)
    return found.reshape(repetitions, count, layout.columns)


def _columns(law: Law, values: Floats) -> Columns:
    """Values [n, signals] as the columns of events that have nothing else."""
    n, kind = len(values), law.kind
    missing, valid = np.full(n, np.nan), np.zeros(n, np.bool_)
    empty = np.zeros((n, 0))
    names = [f"c{code}" for code in range(int(values.max()) + 1)] if kind == "categorical" else []
    texts = [list(map(names.__getitem__, column.astype(np.int64).tolist())) for column in values.T if names]
    return Columns(
        numeric=values if kind == "numeric" else empty,
        numeric_invalid=np.zeros((n, values.shape[1] if kind == "numeric" else 0), np.bool_),
        categorical=texts if kind == "categorical" else [],
        boolean=(values if kind == "boolean" else empty).astype(np.int8),
        score=missing,
        score_invalid=valid,
        value=missing,
        value_invalid=valid,
        latency=missing,
        latency_invalid=valid,
        label=[None] * n,
        tags=[None] * n,
        prediction_ids=[""] * n,
        time_ms=np.zeros(n, np.int64),
        offsets=np.zeros(n, np.int64),
    )
