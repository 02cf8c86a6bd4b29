"""Cost of the pure part of ingest behind decoding: bins, outlier scores, partial profiles and halves of pairs.

The row is that of the published figures: 16 numeric and 4 categorical features, score, label, latency, distance, one
segment key with 8 values. Run: `OMP_NUM_THREADS=1 python tests/bench/fold.py`. Prints microseconds per record and
core, best of 20.
"""

import sys
import timeit
from collections.abc import Callable
from functools import partial

import numpy as np
from makings import a_reference
from scipy.stats import norm

from stream.profiles import summaries
from stream.signals import extract, halves, outliers
from stream.signals.outcomes import ModelSettings
from stream.wire import codec
from stream.wire.inbound import Events
from stream.wire.internal import HALVES, Reference, RowReference, SignalReference

NUMERIC = 16
CATEGORICAL = 4
CATEGORIES = [f"category-{number}" for number in range(12)]
COUNTRIES = ["AT", "CH", "DE", "ES", "FR", "IT", "NL", "PL"]
BATCHES = (1, 100, 1_000, 5_000, 50_000)
SIZE_MS = 60_000
PARTITIONS = 12


def numeric(sample: extract.Floats) -> SignalReference:
    ordered = np.sort(sample)
    edges = np.unique(ordered[[-(-i * len(ordered) // 64) - 1 for i in range(1, 64)]])
    counts = np.bincount(np.searchsorted(edges, sample), minlength=len(edges) + 1)
    spread = float(sample.std())
    return SignalReference(
        type="numeric",
        counts=counts.tolist(),
        edges=edges.tolist(),
        centre=float(np.median(sample)),
        scale=spread,
        z=np.round(1024 * norm.ppf((np.arange(len(counts)) + 0.5) / len(counts))).astype(int).tolist(),
        low=[float(edges[0]) - spread * step / 4 for step in range(1, 22)],
        high=[float(edges[-1]) + spread * step / 4 for step in range(1, 22)],
    )


def reference(rng: np.random.Generator) -> Reference:
    names = [f"feature:numeric_{number}" for number in range(NUMERIC)]
    signals = {name: numeric(rng.normal(size=8192)) for name in names}
    category = SignalReference(type="categorical", counts=[1000] * 12, categories=CATEGORIES, others=[], singletons=0)
    signals |= {f"feature:categorical_{number}": category for number in range(CATEGORICAL)}
    signals |= {extract.SCORE: numeric(rng.random(8192)), extract.LATENCY: numeric(rng.lognormal(size=8192))}
    signals[extract.LABEL] = SignalReference(
        type="categorical", counts=[9000, 3000], categories=["0", "1"], others=[], singletons=0
    )
    z = np.clip(rng.normal(size=(NUMERIC, 8192)) * 1024, -2500, 2500).round()
    factor = np.tril(rng.normal(size=(NUMERIC, NUMERIC)) * 2048 + 4096 * np.eye(NUMERIC)).round()
    signals[extract.DISTANCE] = numeric(extract.distances(z, np.zeros(NUMERIC), factor))
    return a_reference(
        signals,
        model_id="bench",
        n_rows=12_000,
        segments={"country": COUNTRIES},
        window_size_ms=SIZE_MS,
        window_rows=5_000.0,
        row=RowReference(names=names, mean=[0] * NUMERIC, factor=factor.astype(int).tolist()),
    )


def columns(rng: np.random.Generator, n: int) -> extract.Columns:
    whole = np.zeros(n, dtype=np.bool_)
    return extract.Columns(
        numeric=rng.normal(size=(n, NUMERIC)),
        numeric_invalid=np.zeros((n, NUMERIC), dtype=np.bool_),
        categorical=[[CATEGORIES[pick] for pick in rng.integers(0, 12, n)] for _ in range(CATEGORICAL)],
        boolean=np.zeros((n, 0), dtype=np.int8),
        score=rng.random(n),
        score_invalid=whole,
        value=np.full(n, np.nan),
        value_invalid=whole,
        latency=rng.lognormal(size=n),
        latency_invalid=whole,
        label=[str(pick) for pick in rng.integers(0, 2, n)],
        tags=[{"country": COUNTRIES[pick]} for pick in rng.integers(0, 8, n)],
        prediction_ids=[f"p-{number:08x}" for number in range(n)],
        time_ms=np.arange(n, dtype=np.int64) * 10,
        offsets=np.arange(n, dtype=np.int64),
    )


def events(given: extract.Columns) -> Events:
    """What the halves of pairs need of the same rows."""
    n = len(given)
    return Events(
        index=given.offsets,
        time_ms=given.time_ms,
        prediction_ids=list(given.prediction_ids),
        model_ids=["bench"] * n,
        model_versions=["3"] * n,
        features=[],
        values=[],
        label=[str(label) for label in given.label],
        score=given.score,
        score_invalid=given.score_invalid,
        scores=[None] * n,
        value=given.value,
        value_invalid=given.value_invalid,
        latency=given.latency,
        latency_invalid=given.latency_invalid,
        tags=[tag or {} for tag in given.tags],
        malformed=[],
        tombstones=0,
        unknown_fields=0,
    )


def pair_blocks(layout: extract.Layout, given: Events) -> list[bytes]:
    """What is sent to be joined, and the cells of scores on the way."""
    source, model = halves.Source("bench", "predictions", 0), ModelSettings()
    answers = halves.answers_of(given, model)
    halves.cells_of(answers, model)
    times = halves.Times(given.index, given.time_ms, given.time_ms)
    block = halves.of_predictions(source, "3", given, answers, times, layout)
    return [codec.encode(piece, HALVES) for _, piece in halves.routed(halves.merge([block]), PARTITIONS)]


def best_us(work: Callable[[], object], n: int) -> float:
    number = max(1, 5_000 // n)
    return min(timeit.repeat(work, number=number, repeat=20)) / number / n * 1e6


def main() -> None:
    rng = np.random.default_rng(42)
    normal = reference(rng)
    layout = extract.compile_layout(normal)
    judge = outliers.compile_judge(layout)
    group = summaries.Group(normal.model_id, normal.model_version, "predictions", 0)
    source = outliers.Source("predictions", 0, lambda _: None)
    write = sys.stdout.write
    write(f"{'rows':>8} {'extract':>8} {'outliers':>8} {'fold':>8} {'halves':>8} {'total':>8}  us per record\n")
    for n in BATCHES:
        given = columns(rng, n)
        windows = given.time_ms - given.time_ms % SIZE_MS
        rows = extract.rows(layout, given)
        judged = outliers.score(judge, rows)
        told = partial(outliers.worst, layout, given, rows, judged, windows, 12, outliers.Settings(), source)
        costs = {
            "extract": best_us(partial(extract.rows, layout, given), n),
            "outliers": best_us(partial(outliers.score, judge, rows), n) + best_us(told, n),
            "fold": best_us(partial(summaries.fold, layout, group, rows, judged, windows, given.offsets), n),
            "halves": best_us(partial(pair_blocks, layout, events(given)), n),
        }
        write(f"{n:8d} " + " ".join(f"{cost:8.3f}" for cost in [*costs.values(), sum(costs.values())]) + "\n")


if __name__ == "__main__":
    main()
