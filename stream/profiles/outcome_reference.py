"""References of outcomes: how what a version's outcomes add up to is written down, and read again.

The counts that everybody understands stand under `signals`, with the edges of their fixed grids; scores, confusion and
what is known of serving stand under `outcomes` (`contracts.md` 7).
"""

from typing import Any, Final, TypeAlias

import numpy as np
from msgspec.structs import replace

from stream.profiles import exact, outcomes
from stream.profiles.outcome_tables import (
    ALL,
    COVERAGE,
    DELAY,
    ERROR,
    OutcomeTables,
    Serving,
    aligned,
    compile_outcomes,
)
from stream.signals.outcomes import DELAY_CELLS, DELAY_EDGES_MS, ERROR_CELLS, ERROR_OCTAVES, SCORE_CELLS
from stream.wire.codec import named
from stream.wire.internal import Origin, OutcomeReference, Outcomes, Reference, SignalReference
from stream.wire.times import rfc3339

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_EDGE_DIGITS: Final = 6
"""Digits of an edge as it is written: powers differ between machines in their last bit, a name must not."""
ERROR_EDGES: Final = [
    float(f"{2.0 ** (quarter / 4):.{_EDGE_DIGITS}g}") for quarter in range(-4 * ERROR_OCTAVES, 4 * ERROR_OCTAVES + 1)
]
"""Between the cells of sizes of errors."""
_DELAY_EDGES: Final = (DELAY_EDGES_MS / 1000).tolist()


def written(  # noqa: PLR0913 - all that a reference is made of
    total: Outcomes,
    serving: Serving,
    *,
    origin: Origin,
    data_ms: tuple[int, int],
    effective_from_ms: int,
    window_size_ms: int,
) -> Reference:
    """The reference of scope `outcomes` whose pairs add up to `total`, named by its content.

    `data_ms` are the times of the first pair and of the last.
    """
    total = aligned(total, [ALL, *sorted(set(total.segments) - {ALL})])
    names = total.segments
    known = OutcomeReference(
        scores={name: _cells(total.scores[row]) for row, name in enumerate(names)},
        classes=total.classes,
        confusion={name: total.confusion[row].tolist() for row, name in enumerate(names)},
        mean_error={name: _mean_error(total, row) for row, name in enumerate(names) if total.errors[row].any()},
        serving=serving,
    )
    of_pairs = [n_bar for member, (_, n_bar) in serving.get(ALL, {}).items() if member.startswith(ERROR)]
    return named(
        Reference(
            reference_id="",
            model_id=total.model_id,
            model_version=total.model_version,
            scope="outcomes",
            origin=origin,
            complete=True,
            inherited_from=None,
            n_rows=int(total.pairs[0]),
            data_from=rfc3339(data_ms[0]),
            data_to=rfc3339(data_ms[1]),
            effective_from=rfc3339(effective_from_ms),
            segments={},
            window_size_ms=window_size_ms,
            window_rows=of_pairs[0] if of_pairs else None,
            signals=_signals(total, known),
            row=None,
            slots=None,
            outcomes=known,
        )
    )


def read(reference: Reference) -> OutcomeTables:
    """Everything detectors need of a reference of scope `outcomes`. Costs about 3 ms; keep it.

    Raises `ValueError` on one that contradicts itself.
    """
    known = reference.outcomes
    if reference.scope != "outcomes" or known is None or ALL not in known.scores:
        raise ValueError("not a reference of outcomes")
    names = [ALL, *sorted(known.scores.keys() - {ALL})]
    classes = len(known.classes) + 1 if known.classes else 0
    right = reference.signals.get(ERROR)
    regression = right is not None and right.type == "numeric"
    wrong = _counts(reference, ERROR, names, 2) if not regression else np.zeros((len(names), 2), np.int64)
    coverage = _counts(reference, COVERAGE, names, 2)
    total = replace(
        aligned(outcomes.empty(reference.model_id, reference.model_version, 0), names),
        classes=known.classes,
        pairs=wrong.sum(-1),
        wrong=wrong[:, 1],
        ended=coverage.sum(-1),
        labelled=coverage[:, 1],
        confusion=np.stack([_shaped(known.confusion.get(name), (classes, classes)) for name in names]),
        scores=np.stack([_scores(known.scores[name]) for name in names]),
        errors=_counts(reference, ERROR, names, ERROR_CELLS)
        if regression
        else np.zeros((len(names), ERROR_CELLS), np.int64),
        delays=_counts(reference, DELAY, names, DELAY_CELLS),
    )
    return compile_outcomes(total, known.serving)


def _signals(total: Outcomes, known: OutcomeReference) -> dict[str, SignalReference]:
    found = {}
    if total.confusion[0].any():
        found[ERROR] = _signal(total, np.stack([total.confusion.sum((1, 2)) - total.wrong, total.wrong], axis=1))
    elif total.errors[0].any():
        mean = known.mean_error.get(ALL)
        found[ERROR] = replace(_signal(total, total.errors), type="numeric", edges=ERROR_EDGES, mean=mean)
    if total.delays[0].any():
        found[DELAY] = replace(_signal(total, total.delays), type="numeric", edges=_DELAY_EDGES)
    if total.ended[0]:
        found[COVERAGE] = _signal(total, np.stack([total.ended - total.labelled, total.labelled], axis=1))
    return found


def _signal(total: Outcomes, counts: Ints) -> SignalReference:
    rows = dict(zip(total.segments, counts.tolist(), strict=True))
    return SignalReference(type="boolean", counts=rows.pop(ALL), segments=rows)


def _mean_error(total: Outcomes, row: int) -> float:
    rises, falls = (exact.total(total.sums[row, place]) for place in (0, 1))
    return float((rises + falls) / int(total.errors[row].sum()))


def _cells(scores: Ints) -> list[tuple[int, int, int]]:
    used = np.flatnonzero(scores.sum(-1))
    return [(cell, *pair) for cell, pair in zip(used.tolist(), scores[used].tolist(), strict=True)]


def _scores(cells: list[tuple[int, int, int]]) -> Ints:
    found = np.zeros((SCORE_CELLS, 2), np.int64)
    for cell, *pair in cells:
        if not 0 <= cell < SCORE_CELLS:
            raise ValueError(f"outcomes: there is no score cell {cell}")
        found[cell] = pair
    return found


def _counts(reference: Reference, name: str, segments: list[str], width: int) -> Ints:
    """[G, width] counts of a signal; zeros where there is none."""
    signal = reference.signals.get(name)
    rows = {} if signal is None else {**signal.segments, ALL: signal.counts}
    return np.stack([_shaped(rows.get(segment), (width,)) for segment in segments])


def _shaped(values: Any, shape: tuple[int, ...]) -> Ints:
    """An array of these values; zeros for None. Raises `ValueError` if they do not fit."""
    if values is None:
        return np.zeros(shape, np.int64)
    found = np.array(values, dtype=np.int64).reshape(-1) if 0 in shape else np.array(values, dtype=np.int64)
    if found.size != int(np.prod(shape)):
        raise ValueError(f"outcomes: {found.size} counts, not {int(np.prod(shape))}")
    return found.reshape(shape)
