"""Integers of what pairs measure: by score, class, error and delay, per model version, window and segment.

Nothing here needs a reference. An empty `Outcomes` is neutral, order and grouping of a merge do not matter, merged
parts equal the whole to the bit, and no function changes its arguments, as of partial profiles (`summaries`).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import exact
from stream.profiles.summaries import RECORD_BYTES_MAX, joined
from stream.signals.outcomes import (
    DECISION,
    DELAY_CELLS,
    ERROR_CELLS,
    SCORE_CELLS,
    Compared,
    Ended,
    Met,
    ModelSettings,
    delay_cells,
    error_cells,
    positive_labels,
    score_cells,
)
from stream.wire.internal import Outcomes, ScoreOf, Span

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

ALL: Final = "all"
CLASSES_MAX: Final = 31
"""Classes with a row and a column of their own; all others share the last."""
UNIT: Final = 2.0**20
"""Fixed point: a sum of n numbers is off by n 2^-21 at most, a mean by 5e-7."""
SUMS: Final = 5
"""e > 0, e < 0, e^2, truth, truth^2."""

_SURE: Final = 2.0**-52
"""A probability counts as no closer to 0 or 1 than this in a log loss, as in scikit-learn: 36 nats at most."""
_CELLS_MAX: Final = 1 << 22
"""Numbers allocated at once while counting (32 MiB), unless one window has more segments than fit."""
_WIDTH: Final = 3 * SCORE_CELLS + ERROR_CELLS + SUMS * exact.LIMBS + DELAY_CELLS + (CLASSES_MAX + 1) ** 2
_COUNTED_BY: Final = {"score_sums": "scores", "sums": "errors"}
"""Sums may be 0 although there are numbers: the counts beside them tell."""
_OPPOSITES: Final = {"1": "0", "0": "1", "true": "false", "false": "true"}


class _Place(Struct, frozen=True):
    """Where some rows are counted: one place for each model version, window and segment that has any."""

    rows: Ints
    """[n] which rows of the columns given."""
    ranks: list[Ints]
    """Per membership (`all`, then one per segment key) the place of each row [n]; g where it has none."""
    names: list[list[str]]
    """Segments per (window, version), which take consecutive places."""
    groups: list[tuple[int, int]]
    """(window start, version) in the order of their places."""
    group: Ints
    """[n] index of each row's own in `groups`."""

    @property
    def g(self) -> int:
        """Number of places."""
        return sum(len(names) for names in self.names)

    def count(self, width: int, cells: Ints, at: Ints | None = None, weights: Floats | None = None) -> Ints:
        """[g, width] of rows `at` (None: all), or sums of their whole `weights`, by cell."""
        counts = np.zeros((self.g + 1) * width, dtype=np.int64)
        for ranks in self.ranks:
            places = (ranks if at is None else ranks[at]) * width + cells
            # Whole numbers: float64 adds them exactly up to 2^53.
            counts += np.bincount(places, weights, len(counts)).astype(np.int64)
        return counts[: self.g * width].reshape(self.g, width)

    def add(self, weights: Floats | Mask, at: Ints | None = None) -> Ints:
        """[g] sums of whole weights."""
        return self.count(1, np.zeros(len(weights), dtype=np.int64), at, weights.astype(np.float64))[:, 0]


def of_pairs(met: Met, settings: ModelSettings) -> list[Outcomes]:
    """The outcomes of n pairs of one model: one per window and version, in this order, split as `split` does.

    A pair of two numbers is one of a regression, any other of a classification, unless the task is given; a pair counts
    in `all`, and in the segments of its prediction. A model that sent a probability of the positive label and named
    none has predicted it if that is one half or more; its answer then bears the name of the actual class where they
    agree, else that of the opposite one. About 0.4 us per pair of a classification with one segment key.
    """
    met = _answered(met, settings)
    classified = (met.predicted >= 0) & (met.actual >= 0) & (settings.task != "regression")
    numbers = np.isfinite(met.outputs) & np.isfinite(met.truths) & (settings.task != "classification")
    if settings.task is None:
        classified &= ~numbers
    used = _used(met.classes, met.predicted[classified], met.actual[classified])
    found = []
    for place in _places(met.windows_ms, met.version, met.segments, met.segment, alone=len(used) > CLASSES_MAX):
        part = classified[place.rows]
        arrays = {"pairs": place.add(np.ones(len(place.rows)))}
        arrays |= {"delays": place.count(DELAY_CELLS, delay_cells(met.delays_ms[place.rows]))}
        arrays |= _scored(met, settings, place, np.flatnonzero(part))
        arrays |= _measured(met, place, np.flatnonzero(numbers[place.rows]))
        classes, arrays["confusion"] = _confused(met, place, np.flatnonzero(part))
        arrays["wrong"] = place.add(part & (met.predicted[place.rows] != met.actual[place.rows]))
        found += _cut(met.model_id, met.versions, place, arrays, classes, _spans(met, place))
    return [piece for one in found for piece in split(one)]


def of_ended(ended: Ended) -> list[Outcomes]:
    """How many predictions came to the end of their horizon, and how many of them with a label; as `of_pairs`."""
    found = []
    for place in _places(ended.windows_ms, ended.version, ended.segments, ended.segment):
        arrays = {"ended": place.add(np.ones(len(place.rows))), "labelled": place.add(ended.labelled[place.rows])}
        found += _cut(ended.model_id, ended.versions, place, arrays)
    return [piece for one in found for piece in split(one)]


def of_compared(compared: Compared) -> list[Outcomes]:
    """The gains of challengers, each under its own version; as `of_pairs`."""
    found = []
    for place in _places(compared.windows_ms, compared.challenger, compared.segments, compared.segment):
        gains = compared.gains[place.rows]
        sums = [np.ones(len(gains)), np.rint(gains * UNIT), np.rint(gains * gains * UNIT)]
        arrays = {"gains": np.stack([place.add(one) for one in sums], axis=1)}
        found += _cut(compared.model_id, compared.challengers, place, arrays)
    return [piece for one in found for piece in split(one)]


def empty(model_id: str, model_version: str, window_start_ms: int) -> Outcomes:
    """The neutral element of `merge`."""
    arrays = _zeros(0)
    return Outcomes(model_id, model_version, window_start_ms, segments=[], classes=[], spans=[], **arrays)


def merge(outcomes: Sequence[Outcomes]) -> Outcomes:
    """The sum of outcomes of one model version, exact in any order and grouping.

    Those of several windows merge too, into one that bears the first window. Raises `ValueError` when they are of
    several model versions, or there are none.
    """
    if len({(one.model_id, one.model_version) for one in outcomes}) != 1:
        raise ValueError("only outcomes of one model version can be merged")
    segments = sorted({name for one in outcomes for name in one.segments})
    classes = sorted({name for one in outcomes for name in one.classes})[:CLASSES_MAX]
    place = {name: index for index, name in enumerate(segments)}
    at = [np.array([place[name] for name in one.segments], dtype=np.int64) for one in outcomes]
    sums = _zeros(len(segments), outcomes, classes)
    for name in sums.keys() - {"confusion"}:
        for one, rows in zip(outcomes, at, strict=True):
            added = getattr(one, name)
            if added.size:
                sums[name][rows] += added
    for one, rows in zip(outcomes, at, strict=True):
        _add_confusion(sums["confusion"], one, rows, classes)
    return Outcomes(
        outcomes[0].model_id,
        outcomes[0].model_version,
        min(one.window_start_ms for one in outcomes),
        segments=segments,
        classes=classes,
        spans=joined(span for one in outcomes for span in one.spans),
        **sums,
    )


def split(outcomes: Outcomes, bytes_max: int = RECORD_BYTES_MAX) -> list[Outcomes]:
    """Pieces of about `bytes_max` bytes at most that merge to the outcomes again: some segments each, spans in all."""
    arrays = {name: getattr(outcomes, name) for name in _zeros(0)}
    segment_bytes = 256 + sum(8 * array[:1].size for array in arrays.values())
    fixed = 1024 + 64 * len(outcomes.spans) + sum(len(name) + 4 for name in outcomes.classes)
    step = max(1, (bytes_max - fixed) // segment_bytes)
    if len(outcomes.segments) <= step:
        return [outcomes]
    return [
        replace(
            outcomes,
            segments=outcomes.segments[first : first + step],
            **{name: array[first : first + step] for name, array in arrays.items()},
        )
        for first in range(0, len(outcomes.segments), step)
    ]


def _answered(met: Met, settings: ModelSettings) -> Met:
    """The same pairs, where a score of the positive label stands for the label that was not named."""
    by_score = (met.predicted < 0) & (met.actual >= 0) & (met.score_of == ScoreOf.POSITIVE) & ~np.isnan(met.scores)
    if not by_score.any():
        return met
    names = dict.fromkeys([*met.classes, *(_opposite(name, settings) for name in met.classes)])
    place = {name: index for index, name in enumerate(names)}
    own = np.array([place[name] for name in met.classes], dtype=np.int64)
    opposite = np.array([place[_opposite(name, settings)] for name in met.classes], dtype=np.int64)
    positive = _positive(met.classes, settings)
    agree = positive[met.actual] == (met.scores >= DECISION)
    guessed = np.where(agree, own[met.actual], opposite[met.actual])
    predicted = np.where(by_score, guessed, np.where(met.predicted >= 0, own[met.predicted], -1))
    actual = np.where(met.actual >= 0, own[met.actual], -1)
    return replace(met, classes=list(names), predicted=predicted, actual=actual)


def _opposite(name: str, settings: ModelSettings) -> str:
    """The other answer to a question of two: the positive label, or the usual name of what it is not."""
    positive = positive_labels(settings)
    if name in positive:
        return _OPPOSITES.get(name, f"not {name}")
    return _OPPOSITES[name] if _OPPOSITES.get(name) in positive else positive[0]


def _positive(classes: list[str], settings: ModelSettings) -> Mask:
    """[c + 1] whether a class is the positive one; the last entry is that of index -1, no class."""
    positive = positive_labels(settings)
    return np.array([*(name in positive for name in classes), False])


def _scored(met: Met, settings: ModelSettings, place: _Place, at: Ints) -> dict[str, Ints]:
    """By score; `at` are the places of classified pairs in `place.rows`, as below."""
    rows = place.rows[at]
    positive = _positive(met.classes, settings)
    known, predicted = np.ones(len(rows), dtype=np.bool_), positive[met.predicted[rows]]
    cells = score_cells(met.scores[rows], met.score_of[rows], known, predicted)
    some = np.flatnonzero(cells >= 0)
    if not len(some):
        return {}
    at, rows, cells = at[some], rows[some], cells[some]
    scores, binary = met.scores[rows], met.score_of[rows] == ScoreOf.POSITIVE
    happened = np.where(binary, positive[met.actual[rows]], met.predicted[rows] == met.actual[rows])
    likelihood = np.clip(np.where(happened, scores, 1 - scores), _SURE, 1 - _SURE)
    return {
        "scores": place.count(2 * SCORE_CELLS, 2 * cells + happened, at).reshape(-1, SCORE_CELLS, 2),
        "score_sums": place.count(SCORE_CELLS, cells, at, np.rint(scores * UNIT)),
        "log_loss": place.add(np.where(binary, np.rint(-np.log(likelihood) * UNIT), 0.0), at),
        "squared": place.add(np.where(binary, np.rint((scores - happened) ** 2 * UNIT), 0.0), at),
    }


def _measured(met: Met, place: _Place, at: Ints) -> dict[str, Ints]:
    """Of a regression."""
    if not len(at):
        return {}
    truths = met.truths[place.rows[at]]
    with np.errstate(over="ignore"):  # what overflows counts as the largest number that can be added
        errors = met.outputs[place.rows[at]] - truths
        terms = [np.abs(errors), errors * errors, truths, truths * truths]
    # The variance of truths far from 0 is a small difference of large sums: their squares must be exact.
    terms.append(exact.square_error(truths))
    rises = np.where(errors > 0, 0, 1)
    counts = np.zeros((place.g, SUMS * exact.LIMBS), dtype=np.int64)
    for row, term in zip([rises, *np.array([2, 3, 4, 4])], terms, strict=True):
        limbs, pieces = exact.cut(term)
        for limb, piece in zip(row * exact.LIMBS + limbs, pieces, strict=True):
            counts += place.count(counts.shape[1], limb, at, piece)
    return {
        "errors": place.count(ERROR_CELLS, error_cells(errors), at),
        "sums": counts.reshape(-1, SUMS, exact.LIMBS),
    }


def _confused(met: Met, place: _Place, at: Ints) -> tuple[list[str], Ints]:
    """The classes of these pairs and their confusion: the 31 first by text, and all others."""
    predicted, actual = met.predicted[place.rows[at]], met.actual[place.rows[at]]
    used = {index: met.classes[index] for index in _used(met.classes, predicted, actual).tolist()}
    classes = sorted(set(used.values()))[:CLASSES_MAX]
    if not classes:
        return [], np.zeros((place.g, 0, 0), dtype=np.int64)
    cell = {name: index for index, name in enumerate(classes)}
    cells = np.array([cell.get(used.get(index, ""), len(classes)) for index in range(len(met.classes))], dtype=np.int64)
    width = len(classes) + 1
    counts = place.count(width * width, cells[actual] * width + cells[predicted], at)
    return classes, counts.reshape(-1, width, width)


def _used(classes: list[str], *indices: Ints) -> Ints:
    """The indices of classes that occur, rising."""
    return np.flatnonzero(sum(np.bincount(one, minlength=len(classes)) for one in indices))


def _places(
    windows_ms: Ints, version: Ints, segments: list[list[str]], segment: Ints, *, alone: bool = False
) -> Iterator[_Place]:
    """The rows in parts small enough to count at once, by window and version; `alone`: one of these at a time."""
    if not len(windows_ms):
        return
    starts, window = np.unique(windows_ms, return_inverse=True)
    versions = int(version.max()) + 1
    keys, group = np.unique(window * versions + version, return_inverse=True)
    names = sorted({ALL, *(name for combination in segments for name in combination)})
    members = _members(names, segments)
    order = np.argsort(group, kind="stable") if len(keys) > 1 else np.arange(len(group))
    borders = np.searchsorted(group[order], np.arange(len(keys) + 1))
    step = 1 if alone else max(1, _CELLS_MAX // (_WIDTH * len(names)))
    for first in range(0, len(keys), step):
        some = keys[first : first + step]
        rows = order[borders[first] : borders[first + len(some)]]
        groups = [(int(starts[key // versions]), int(key % versions)) for key in some.tolist()]
        yield _placed(rows, groups, group[rows] - first, members[:, segment[rows]], names)


def _members(names: list[str], segments: list[list[str]]) -> Ints:
    """[1 + K, combinations + 1] indices of names by membership, or -1; the last column is that of no combination."""
    place = {name: index for index, name in enumerate(names)}
    members = np.full((1 + max(map(len, segments), default=0), len(segments) + 1), -1, dtype=np.int64)
    members[0] = place[ALL]
    for column, combination in enumerate(segments):
        members[1 : 1 + len(combination), column] = [place[name] for name in combination]
    return members


def _placed(rows: Ints, groups: list[tuple[int, int]], group: Ints, members: Ints, names: list[str]) -> _Place:
    """`members` [1 + K, n] are those of the rows."""
    size = len(groups) * len(names)
    sparse = np.where(members >= 0, group * len(names) + members, size)
    present = np.flatnonzero(np.bincount(sparse.ravel(), minlength=size)[:size])
    ranks = np.full(size + 1, len(present), dtype=np.int64)
    ranks[present] = np.arange(len(present))
    own: list[list[str]] = [[] for _ in groups]
    for place in present.tolist():
        own[place // len(names)].append(names[place % len(names)])
    return _Place(rows, [ranks[one] for one in sparse], own, groups, group)


def _spans(met: Met, place: _Place) -> list[list[Span]]:
    """Where the pairs of each (window, version) stand."""
    topic, partition, offsets = met.topic[place.rows], met.partitions[place.rows], met.offsets[place.rows]
    partitions = int(partition.max()) + 1
    code = (place.group * len(met.topics) + topic) * partitions + partition
    sources, source = np.unique(code, return_inverse=True)
    first, last = np.full(len(sources), np.iinfo(np.int64).max), np.full(len(sources), -1)
    np.minimum.at(first, source, offsets)
    np.maximum.at(last, source, offsets)
    spans: list[list[Span]] = [[] for _ in place.groups]
    for code, low, high in zip(sources.tolist(), first.tolist(), last.tolist(), strict=True):
        group, name = divmod(code // partitions, len(met.topics))
        spans[group].append(Span(met.topics[name], code % partitions, low, high))
    return [joined(own) for own in spans]


def _cut(  # noqa: PLR0913 - outcomes are made of everything counted
    model_id: str,
    versions: list[str],
    place: _Place,
    arrays: dict[str, Ints],
    classes: list[str] | None = None,
    spans: list[list[Span]] | None = None,
) -> list[Outcomes]:
    """One `Outcomes` per (window, version); what none of its pairs has is of width 0."""
    found, first = [], 0
    for index, ((window_ms, version), segments) in enumerate(zip(place.groups, place.names, strict=True)):
        own = {name: array[first : first + len(segments)] for name, array in arrays.items()}
        first += len(segments)
        zeros = _zeros(len(segments))
        known, own["confusion"] = _trimmed(classes or [], own.get("confusion", zeros["confusion"]))
        kept = {name: array for name, array in own.items() if own[_COUNTED_BY.get(name, name)].any()}
        found.append(
            Outcomes(
                model_id,
                versions[version],
                window_ms,
                segments=segments,
                classes=known,
                spans=spans[index] if spans else [],
                **zeros | kept,
            )
        )
    return found


def _trimmed(classes: list[str], confusion: Ints) -> tuple[list[str], Ints]:
    """Without the classes that no pair has."""
    whole = confusion.sum(axis=0)
    seen = np.flatnonzero((whole.sum(axis=0) + whole.sum(axis=1))[: len(classes)])
    if not len(seen):
        return [], confusion[:, :0, :0]
    kept = np.append(seen, len(classes))
    return [classes[index] for index in seen], confusion[:, kept[:, None], kept]


def _add_confusion(sums: Ints, one: Outcomes, rows: Ints, classes: list[str]) -> None:
    if not one.classes:
        return
    place = {name: index for index, name in enumerate(classes)}
    cells = np.array([*(place.get(name, len(classes)) for name in one.classes), len(classes)], dtype=np.int64)
    np.add.at(sums, (rows[:, None, None], cells[:, None], cells), one.confusion)


def _zeros(g: int, like: Sequence[Outcomes] = (), classes: Sequence[str] = ()) -> dict[str, Ints]:
    """The arrays of an `Outcomes` of g segments, each as wide as the widest of `like`."""
    width = len(classes) + 1 if classes else 0
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("pairs", "wrong", "log_loss", "squared", "ended", "labelled"), ()
    )
    shapes |= {"gains": (3,), "confusion": (width, width), "scores": (0, 2), "score_sums": (0,)}
    shapes |= {"errors": (0,), "sums": (0, exact.LIMBS), "delays": (0,)}
    for name in ("scores", "score_sums", "errors", "sums", "delays"):
        shapes[name] = max([shapes[name], *(getattr(one, name).shape[1:] for one in like)])
    return {name: np.zeros((g, *shape), dtype=np.int64) for name, shape in shapes.items()}
