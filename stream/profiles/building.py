"""How a reference is built from training rows: the two phases of learning, over a set that is there at once.

The min(k, a quarter) of the rows with the smallest id hash decide the cuts, the others are counted. Only a complete log
of serving shows how rows share causes and how many come in a window; from any other set overdispersion and rows per
window stay unknown (`statistics.md` 2.8).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from stream.profiles import cuts, learning, overdispersion, reference, seasons, summaries
from stream.profiles.cuts import Plan, Row, Schema
from stream.profiles.reference import Tables
from stream.profiles.seasons import Rung
from stream.profiles.summaries import Dense, Group
from stream.profiles.windows import start_of
from stream.signals import extract, outliers
from stream.signals.extract import FEATURE, LABEL
from stream.wire.codec import hash64, rfc3339
from stream.wire.internal import Ints, Reference
from stream.wire.lenient import Text, label

_ROWS_AT_ONCE: Final = 16_384
"""Rows turned into columns at once: some 100 MB at most."""


def build(  # noqa: PLR0913 - rows, what is known of them, three settings
    rows: Sequence[Row],
    plan: Plan,
    *,
    serving: bool,
    effective_from_ms: int,
    sample_rows: int = summaries.SAMPLE_ROWS,
    timezone: str = seasons.UTC,
) -> Reference:
    """The complete reference of training rows, named by its content.

    `serving` says that the rows are a complete log with times; its slots are hours of `timezone`. The same rows in any
    order give the same reference.
    Costs about 50 us per row of 20 features. Raises `ValueError` with fewer than 640 rows, or when they have no values.
    """
    ordered = _by_hash(rows)
    k = min(sample_rows, len(ordered) // 4)
    if k < cuts.ROWS_MIN:
        raise ValueError(f"a reference needs {4 * cuts.ROWS_MIN} rows, not {len(ordered)}")
    sample, rest = ordered[:k], ordered[k:]
    schema = cuts.infer_schema(sample, plan.declared)
    cut = cuts.provisional(
        cuts.columns_of(sample, schema),
        schema,
        plan,
        effective_from_ms=effective_from_ms,
        origin="built",
        also_known=_repeated_categories(ordered, schema),
        segments=cuts.segment_values((row.tags for row in ordered), plan.declared),
    )
    tables = reference.compile_tables(cut)
    times = [row.time_ms for row in ordered]
    data = (rfc3339(min(times)), rfc3339(max(times)))
    if serving:
        counts, found = _served(learning.no_counts(tables, timezone), tables, schema, ordered, sample)
    else:
        counts, found = _unserved(tables, schema, rest), None
    return learning.completed(tables, counts, found, effective_from_ms=effective_from_ms, origin="built", data=data)


def _by_hash(rows: Sequence[Row]) -> list[Row]:
    """The rows by the hash of their id; rows that share one, by what is in them."""
    hashes = np.array([hash64(row.prediction_id) for row in rows], dtype=np.uint64)
    if len(np.unique(hashes)) < len(rows):
        return sorted(rows, key=lambda row: (hash64(row.prediction_id), cuts.encode_row(row)))
    return [rows[place] for place in np.argsort(hashes).tolist()]


def _served(
    counts: learning.Counts, tables: Tables, schema: Schema, rows: Sequence[Row], sample: Sequence[Row]
) -> tuple[learning.Counts, tuple[overdispersion.Overdispersion, Rung | None]]:
    """Counts of all rows but the sample; slots and overdispersion of all of them, window by window."""
    for start_ms, window in _windows(tables, schema, rows):
        counts = learning.add(counts, tables, start_ms, window)
    found = learning.overdispersion_of(counts, tables)
    return learning.without(counts, total(tables, schema, sample)), found


def _unserved(tables: Tables, schema: Schema, rows: Sequence[Row]) -> learning.Counts:
    return learning.with_dense(learning.no_counts(tables), total(tables, schema, rows))


def _windows(tables: Tables, schema: Schema, rows: Sequence[Row]) -> Iterator[tuple[int, Dense]]:
    """The profiles of the windows of a log, by rising start."""
    size_ms = tables.reference.window_size_ms
    by_time = sorted(rows, key=lambda row: row.time_ms)
    starts = start_of(np.array([row.time_ms for row in by_time]), size_ms)
    first = 0
    for end in [*np.flatnonzero(np.diff(starts)).tolist(), len(by_time) - 1]:
        if end - first >= _ROWS_AT_ONCE or end + 1 == len(by_time):
            yield from folded(tables, schema, by_time[first : end + 1], starts[first : end + 1])
            first = end + 1


def folded(tables: Tables, schema: Schema, rows: Sequence[Row], starts: Ints) -> Iterator[tuple[int, Dense]]:
    """The profiles of rows whose windows begin at `starts` [n], by rising start of the window."""
    layout = tables.layout
    columns = cuts.columns_of(rows, schema)
    cells = extract.rows(layout, columns)
    judged = outliers.score(outliers.compile_judge(layout), cells)
    group = Group(tables.reference.model_id, tables.reference.model_version, "", 0)
    for partial in summaries.fold(layout, group, cells, judged, starts, columns.offsets):
        yield (
            partial.window_start_ms,
            summaries.dense(partial, len(layout.segments), layout.columns, len(layout.numeric)),
        )


def total(tables: Tables, schema: Schema, rows: Sequence[Row]) -> Dense:
    """One profile of all rows, whatever their times."""
    summed = learning.no_counts(tables).dense
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[first : first + _ROWS_AT_ONCE]
        for _, window in folded(tables, schema, part, np.zeros(len(part), dtype=np.int64)):
            summed = learning.plus(summed, window)
    return summed


def _repeated_categories(rows: Sequence[Row], schema: Schema) -> dict[str, list[str]]:
    """Categories that occur at least twice, by signal. One that occurs once is what `unseen` will look like."""
    found = {}
    for name in schema.categorical:
        found[FEATURE + name] = _repeated(cuts.text_of(row.features.get(name)) for row in rows)
    found[LABEL] = _repeated(label(row.label) for row in rows)
    return found


def _repeated(texts: Iterable[Text]) -> list[str]:
    seen = Counter(texts)
    return [text for text, count in seen.items() if count > 1 and isinstance(text, str)]
