"""One score per record: how unusual is the most unusual of its values?

Statistic   s_row in half decades of probability: max over the signals of s_j, minus ceil(2 log10(number of signals))
            s_j = largest s with P(a value as rare as this one) <= 10^(-s/2) under the reference, 4 to 24, else 0
Tells when  s_row >= threshold, which follows from the wanted number of rows per period
Cost        O(signals) comparisons per row, no state; a row's score does not depend on the rows beside it
Blind to    combinations the distance of the row does not see; missing and invalid values, which have rates of their own
Source      Hosking & Wallis (1987), doi 10.1080/00401706.1987.10488243, for tails; Good (1953) for unseen categories

The reference stores the tail limits, so a value is scored by comparisons alone (`statistics.md` 11).
"""

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, Field

from stream.signals.extract import LABEL, Columns, Layout, Rows
from stream.wire.codec import hash64
from stream.wire.internal import OutlyingRow, Reference, SignalReference

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Scores: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

LOWEST: Final = 4
"""Least score: a probability of 10^-2. Commoner values are not unusual."""
HIGHEST: Final = 24
"""A probability of 10^-12: beyond it no reference has anything to say."""
OUTLYING: Final = 6
"""A row counts as outlying from here on (10^-3): the 0/1 signal behind the rate of outliers."""
UNKNOWN_THRESHOLD: Final = 12
"""A row is told from 10^-6 on where the reference does not know how many rows a period has."""
CONTRIBUTIONS_MAX: Final = 5
SHOWN_CHARACTERS_MAX: Final = 256
"""A raw text is cut here when it may be shown: a value can be as long as a record."""

_LIMITS: Final = 10.0 ** (-np.arange(LOWEST, HIGHEST + 1) / 2)


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Section `[outliers]` of the configuration."""

    per_period: float = Field(default=10.0, gt=0)
    """Ordinary rows told per `budget.period` and model version: what one accepts to read for seeing the odd ones."""
    per_window: int = Field(default=20, ge=0, le=100)
    """Rows told per window at most, the worst ones. A change of unit makes every row an outlier; twenty show it. A
    hundred still fit one record."""


class Judge(Struct, frozen=True):
    """The scoring side of one reference."""

    numeric: Ints
    """Index among the signals of each numeric one."""
    low: Floats
    """[numeric signals, 1] below it a value scores; -inf where there is no tail."""
    high: Floats
    """[numeric signals, 1]"""
    limits: Floats
    """[2 * numeric signals, 21] what is passed for s = 4, 5, ..: above, then below with the sign turned; else inf."""
    by_column: Ints
    """The categorical and the boolean signals."""
    of_column: Scores
    """[T] score of each of their bins; 0 elsewhere."""
    penalty: int
    """ceil(2 log10(number of signals that can score)): so many chances to be unusual."""


class Judged(Struct, frozen=True):
    """Scores of n rows, in half decades."""

    signals: Scores
    """[S, n] s_j"""
    rows: Scores
    """[n] s_row"""


class Source(Struct, frozen=True):
    """Where a group of rows was read, and what is told of a row beside its scores."""

    topic: str
    partition: int
    traceparent: Callable[[int], str | None]
    """Trace context of a row of the group by its index; asked for told rows only."""
    include_values: bool = False
    """Whether raw values may be shown (`alerts.include_values`)."""


def compile_judge(layout: Layout) -> Judge:
    """The tables for scoring rows of a layout. Cache it beside the layout."""
    tails = [layout.reference.signals[layout.names[index]] for index in layout.numeric]
    limits = np.full((2 * len(tails), HIGHEST - LOWEST + 1), math.inf)
    for position, signal in enumerate(tails):
        for row, passed in ((position, signal.high or []), (position + len(tails), [-low for low in signal.low or []])):
            limits[row, : len(passed)] = passed
    of_column = np.zeros(layout.columns, dtype=np.int8)
    by_column = [index for index, _ in layout.categorical] + [index for index, _ in layout.boolean]
    for index in by_column:
        scores = _bin_scores(layout.reference.signals[layout.names[index]])
        of_column[layout.first[index] :][: len(scores)] = scores
    scoring = sum(bool(signal.low or signal.high) for signal in tails) + len(by_column)
    return Judge(
        numeric=np.array(layout.numeric, dtype=np.int64),
        low=-limits[len(tails) :, :1],
        high=limits[: len(tails), :1],
        limits=limits,
        by_column=np.array(by_column, dtype=np.int64),
        of_column=of_column,
        penalty=math.ceil(2 * math.log10(scoring)) if scoring else 0,
    )


def score(judge: Judge, rows: Rows) -> Judged:
    """Score every value and every row. About 0.1 us per row of 24 signals in groups of thousands."""
    signals = np.zeros(rows.cells.shape, dtype=np.int8)
    signals[judge.by_column] = judge.of_column.take(rows.cells.take(judge.by_column, axis=0))
    outside = rows.values < judge.low
    outside |= rows.values > judge.high
    positions, at = np.nonzero(outside)
    values = rows.values[positions, at]
    below = values < judge.low[positions, 0]
    limits = judge.limits.take(positions + below * len(judge.numeric), axis=0)
    passed = np.count_nonzero(limits < np.where(below, -values, values)[:, None], axis=1)
    signals[judge.numeric[positions], at] = passed + (LOWEST - 1)
    return Judged(signals, np.maximum(signals.max(axis=0, initial=0) - np.int8(judge.penalty), 0))


def threshold(reference: Reference, settings: Settings, period_ms: int) -> int:
    """s*: a row is told iff its score reaches it. 12 where the reference does not know the traffic, else 1 to 24.

    Under the reference about 10^(-s/2) of the rows reach a score of s, hence -2 log10(wanted rows / rows of a period).
    """
    if not reference.window_rows:
        return UNKNOWN_THRESHOLD
    rows_per_period = reference.window_rows * period_ms / reference.window_size_ms
    return min(HIGHEST, max(1, math.ceil(-2 * math.log10(settings.per_period / rows_per_period))))


def worst(  # noqa: PLR0913 - a told row is made of everything known about it
    layout: Layout,
    columns: Columns,
    rows: Rows,
    judged: Judged,
    windows_ms: Ints,
    least: int,
    settings: Settings,
    source: Source,
) -> dict[int, list[OutlyingRow]]:
    """The rows to be told, by window start: those of highest (s_row, id hash), at most `per_window` in each window.

    They have a score of at least `least`, see `threshold`. `windows_ms` [n] is the window of each row. Merging such
    lists keeps the rows one would have picked from all at once.
    """
    told: dict[int, list[OutlyingRow]] = {}
    candidates = np.flatnonzero(judged.rows >= least)
    for window_ms in np.unique(windows_ms[candidates]).tolist():
        inside = candidates[windows_ms[candidates] == window_ms]
        picks = _highest(inside, judged.rows[inside], columns, settings.per_window)
        told[window_ms] = [_told(layout, columns, rows, judged, pick, source) for pick in picks]
    return told


def rank(row: OutlyingRow) -> tuple[int, int, str, int, int]:
    """Sorting key, the most unusual first. Rows of equal score and id still have one order: their place in the log."""
    return (-row.score, -row.id_hash, row.topic, row.partition, row.offset)


def _bin_scores(signal: SignalReference) -> Scores:
    """Score of each valid bin, and of `unseen` behind them for categories."""
    counts = np.array(signal.counts, dtype=np.float64)
    m = counts.sum()
    p = (counts + 0.5) / (m + 0.5 * len(counts))
    rare = [math.fsum(p[p <= own]) for own in p]
    if signal.type == "categorical":
        rare.append(((signal.singletons or 0) + 1) / (m + 1))
    passed = (np.array(rare)[:, None] <= _LIMITS).sum(axis=1)
    return np.where(passed > 0, passed + (LOWEST - 1), 0).astype(np.int8)


def _highest(candidates: Ints, scores: Scores, columns: Columns, count: int) -> list[int]:
    """The `count` first of the candidates by `rank`. An id is hashed only where the scores alone do not decide."""
    if len(candidates) > count > 0:
        high = scores >= np.sort(scores)[-count]
        candidates, scores = candidates[high], scores[high]
    ids, offsets = columns.prediction_ids, columns.offsets
    ranked = sorted(
        (-score, -hash64(ids[row]), int(offsets[row]), row)
        for score, row in zip(scores.tolist(), candidates.tolist(), strict=True)
    )
    return [row for *_, row in ranked[:count]]


def _told(  # noqa: PLR0913 - as worst
    layout: Layout, columns: Columns, rows: Rows, judged: Judged, row: int, source: Source
) -> OutlyingRow:
    scores = judged.signals[:, row]
    signals = [int(index) for index in np.argsort(-scores, kind="stable")[:CONTRIBUTIONS_MAX] if scores[index]]
    return OutlyingRow(
        score=int(judged.rows[row]),
        id_hash=hash64(columns.prediction_ids[row]),
        prediction_id=columns.prediction_ids[row],
        time_ms=int(columns.time_ms[row]),
        topic=source.topic,
        partition=source.partition,
        offset=int(columns.offsets[row]),
        traceparent=source.traceparent(row),
        contributions=[
            (
                layout.names[index],
                int(scores[index]),
                _raw(layout, columns, rows, index, row) if source.include_values else None,
            )
            for index in signals
        ],
    )


def _raw(layout: Layout, columns: Columns, rows: Rows, signal: int, row: int) -> object:
    """What a signal's value is shown as."""
    if signal in layout.numeric:
        return float(rows.values[layout.numeric.index(signal), row])
    for first in (first for index, first in layout.boolean if index == signal):
        return bool(rows.cells[signal, row] - first)
    features = [index for index, _ in layout.categorical if layout.names[index] != LABEL]
    texts = columns.label if layout.names[signal] == LABEL else columns.categorical[features.index(signal)]
    return str(texts[row])[:SHOWN_CHARACTERS_MAX]
