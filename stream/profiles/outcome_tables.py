"""What is normal for outcomes, and what a window of them shows against it.

A *member* is one thing that is watched of the outcomes of a model version: the distribution of label delays, a rate
(errors, labelled predictions), or a mean (residuals of a classification, errors of a regression as u). Which there are
follows from what the reference has seen. G are its segments, `all` first.

A residual is e = y - c, where y says whether what the score is the probability of did happen, and c how often that
happened at this score in the reference (`statistics.md` 12.3). Its mean stays zero when inputs move and the relation of
score and label does not. It is watched over all scores, by side (e where c is above one half, -e below: the model has
become worse, not merely shifted), and in ranges of scores, which a change may hit alone.
"""

from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import reference
from stream.profiles.reference import ORDERED_BINS
from stream.signals.outcomes import (
    CHOSEN,
    DELAY_CELLS,
    ERROR_CELLS,
    NEGATIVE,
    POSITIVE,
    SCORE_BINS,
    SCORE_CELLS,
    SCORE_EDGES,
)
from stream.wire.internal import Outcomes

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Form: TypeAlias = Literal["distribution", "rate", "mean"]
Serving: TypeAlias = dict[str, dict[str, tuple[float, float]]]
"""Overdispersion, and mean events of a window that has any, by segment and name of a member."""

ALL: Final = "all"
ERROR: Final = "outcome:error"
RESIDUAL: Final = "outcome:residual"
DELAY: Final = "outcome:delay"
COVERAGE: Final = "outcome:coverage"
RANGES_MAX: Final = 4
"""Ranges of scores whose residuals are members of their own: quarters of the reference. They cost the others ln 3 of
evidence, a few windows in a hundred; what hits one quarter alone is seen four times sooner."""
TABLE_BINS: Final = 2 * SCORE_BINS
"""Bins of the score table: probability of the positive label, then that of the label predicted."""
UNIT: Final = 2.0**-20
"""What one stands for in the sums of means."""
ARRAYS: Final = (
    *("pairs", "wrong", "log_loss", "squared", "ended", "labelled", "gains"),
    *("confusion", "scores", "score_sums", "errors", "sums", "delays"),
)
"""Those of `Outcomes`, a row per segment."""
_CENTRES: Final = np.convolve(np.concatenate([[0.0], SCORE_EDGES, [1.0]]), [0.5, 0.5], "valid")


class Member(Struct, frozen=True):
    """One thing that is watched."""

    signal: str
    measure: str
    form: Form

    @property
    def name(self) -> str:
        """As references write it."""
        return f"{self.signal} {self.measure}"


class ScoreRange(Struct, frozen=True):
    """Scores that lie side by side in the score table."""

    low: float
    high: float
    bins: slice
    """Of the score table."""

    @property
    def name(self) -> str:
        """Such as [0.25, 0.5); the last one holds its upper end."""
        return f"[{self.low:.3g}, {self.high:.3g}{']' if self.high == 1 else ')'}"


class OutcomeTables(Struct, frozen=True, eq=False):
    """A reference of outcomes, ready for detectors: M members. Made by `compile_outcomes`, never part of a state."""

    segments: list[str]
    classes: list[str]
    members: list[Member]
    """Distributions first, then rates, then means."""
    rows: Floats
    """[G, M] m: events behind each member."""
    mean: Floats
    """[G, M] of a value in [0, 1]; 0 for distributions."""
    sd: Floats
    """[G, M] of a value; 0 for distributions."""
    phi: Floats
    """[G, M] overdispersion; NaN where unknown, as the next."""
    n_bar: Floats
    """[G, M] mean events of a window that has any."""
    delays: Ints
    """[delay cells] coarse bin of each."""
    delay_u: Floats
    """[delay cells] share of shorter delays."""
    delay_p: Floats
    """[G, 16] law of the coarse bins; 0 beyond those in use."""
    delay_variance: Floats
    """[G, 2] of u, and of |2u - 1|."""
    calibration: Floats
    """[G, table bins] how often it happened at this score."""
    scored: Ints
    """[G, table bins] pairs behind it."""
    ranges: list[ScoreRange]
    """At least one."""
    error_rate: Floats
    """[G, ranges] wrong ones among the pairs of each range."""
    loss: Floats
    """[error cells] u of the size of an error: the share of smaller ones."""
    actual: Ints
    """[G, classes + 1] pairs by actual class; width 0 without classes."""

    def of(self, form: Form) -> list[int]:
        """Indices of the members of one form."""
        return [index for index, member in enumerate(self.members) if member.form == form]


class Measured(Struct, frozen=True, eq=False):
    """What a window of outcomes shows, in the segments of a reference."""

    pairs: Ints
    """[G]"""
    delays: Ints
    """[G, 16] coarse bins."""
    delay_u: Floats
    """[G] sum of u over the delays; of |2u - 1| the next."""
    delay_v: Floats
    rates: Ints
    """[G, rates, 2] events and hits."""
    means: Ints
    """[G, means, 3] events, then sums of the values in [0, 1] and of their squares in units of `UNIT`."""
    actual: Ints
    """[G, classes + 1] pairs by actual class; width 0 without classes."""
    ranges: Ints
    """[G, ranges, 2] pairs by range of scores, and the wrong ones among them."""


def compile_outcomes(total: Outcomes, serving: Serving) -> OutcomeTables:
    """Everything detectors need of the outcomes of a reference, `serving` as far as it is known. 2 ms: keep it."""
    total = aligned(total, [ALL, *sorted(set(total.segments) - {ALL})])
    table = score_table(total.scores)
    ranges = _ranges(table[0].sum(-1))
    members = _members(total, ranges)
    g, m, delay_u = len(total.segments), len(members), _mid(total.delays[0])
    nothing = np.zeros((g, m))
    bare = OutcomeTables(
        segments=total.segments,
        classes=total.classes,
        members=members,
        rows=nothing,
        mean=nothing,
        sd=nothing,
        phi=_known(serving, total.segments, members, 0),
        n_bar=_known(serving, total.segments, members, 1),
        delays=reference.coarse_bins(delay_u),
        delay_u=delay_u,
        delay_p=np.zeros((g, ORDERED_BINS)),
        delay_variance=_variances(total.delays, np.stack([delay_u, np.abs(2 * delay_u - 1)])),
        calibration=calibrated(table),
        scored=table.sum(-1),
        ranges=ranges,
        error_rate=np.zeros((g, len(ranges))),
        loss=_mid(total.errors[0]),
        actual=total.confusion.sum(-1),
    )
    return _with_laws(bare, measure(bare, total))


def range_measure(place: int) -> str:
    """The measure of the residuals of one range of scores."""
    return f"range_{place + 1}"


def score_table(scores: Ints) -> Ints:
    """[..., table bins, 2] from [..., score cells, 2]: which label was predicted is no matter of calibration."""
    negative, positive, chosen = (
        scores[..., block * SCORE_BINS : (block + 1) * SCORE_BINS, :] for block in (NEGATIVE, POSITIVE, CHOSEN)
    )
    return np.concatenate([negative + positive, chosen], axis=-2)


def calibrated(table: Ints) -> Floats:
    """[G, table bins] how often it happened at each score, of counts [G, table bins, 2]; the first row is the whole.

    A bin starts out with one pair that happened as often as its score says, that of a segment with one that did as
    often as in the whole: a score not seen before is believed.
    """
    n, happened = table.sum(-1), table[..., 1]
    whole = (happened[:1] + np.tile(_CENTRES, 2)) / (n[:1] + 1)
    return np.concatenate([whole, (happened[1:] + whole) / (n[1:] + 1)])


def measure(tables: OutcomeTables, outcomes: Outcomes) -> Measured:
    """What a window of outcomes, or any sum of them, shows. Segments that the reference does not know are left out."""
    own = aligned(outcomes, tables.segments)
    table, wrong = score_table(own.scores), _wrong(own.scores)
    g = len(tables.segments)
    hits = [_hits(own, tables.members[index]) for index in tables.of("rate")]
    means = [_sums(tables, tables.members[index], table, own.errors) for index in tables.of("mean")]
    return Measured(
        pairs=own.pairs,
        delays=_binned(own.delays, tables.delays, ORDERED_BINS),
        delay_u=np.asarray(own.delays @ tables.delay_u),
        delay_v=np.asarray(own.delays @ np.abs(2 * tables.delay_u - 1)),
        rates=np.stack(hits, axis=1) if hits else np.zeros((g, 0, 2), np.int64),
        means=np.stack(means, axis=1) if means else np.zeros((g, 0, 3), np.int64),
        actual=_by_actual(tables.classes, own),
        ranges=np.stack(
            [np.stack([table[:, one.bins].sum((1, 2)), wrong[:, one.bins].sum(1)], axis=1) for one in tables.ranges],
            axis=1,
        ),
    )


def aligned(outcomes: Outcomes, segments: list[str]) -> Outcomes:
    """The same outcomes in these segments, in their order, all arrays as wide as their grids; others are left out."""
    place = {name: row for row, name in enumerate(outcomes.segments)}
    rows = np.array([place.get(name, -1) for name in segments], dtype=np.int64)
    widths = {"scores": (SCORE_CELLS, 2), "score_sums": (SCORE_CELLS,), "errors": (ERROR_CELLS,)}
    widths |= {"delays": (DELAY_CELLS,)}
    arrays = {}
    for name in ARRAYS:
        given = getattr(outcomes, name)
        # One more row of zeros, for segments that are not there.
        whole = np.zeros((len(outcomes.segments) + 1, *widths.get(name, given.shape[1:])), np.int64)
        if given.size:
            whole[:-1] = given
        arrays[name] = whole[rows]
    return replace(outcomes, segments=segments, **arrays)


def _members(total: Outcomes, ranges: list[ScoreRange]) -> list[Member]:
    """What the reference has seen at all can be watched."""
    found = []
    if total.delays[0].any():
        found.append(Member(DELAY, "distribution", "distribution"))
    if total.confusion[0].any():
        found.append(Member(ERROR, "rate", "rate"))
    if total.ended[0]:
        found.append(Member(COVERAGE, "rate", "rate"))
    if total.errors[0].any():
        found.append(Member(ERROR, "mean", "mean"))
    if total.scores[0].any():
        found += [Member(RESIDUAL, "mean", "mean"), Member(RESIDUAL, "spread", "mean")]
        found += [Member(RESIDUAL, range_measure(place), "mean") for place in range(len(ranges)) if len(ranges) > 1]
    return found


def _ranges(n: Ints) -> list[ScoreRange]:
    """Quarters of the pairs by score, fewer where single scores hold more than that. `n` [table bins]."""
    used = np.flatnonzero(n)
    middle = np.cumsum(n)[used] - n[used] / 2
    quarter = np.floor(middle * RANGES_MAX / max(int(n.sum()), 1))
    starts = [0, *used[np.flatnonzero(np.diff(quarter)) + 1].tolist(), len(n)]
    return [_score_range(first, end) for first, end in pairwise(starts)]


def _score_range(first: int, end: int) -> ScoreRange:
    edges = np.concatenate([[0.0], SCORE_EDGES, [1.0]])
    return ScoreRange(float(edges[first % SCORE_BINS]), float(edges[(end - 1) % SCORE_BINS + 1]), slice(first, end))


def _with_laws(bare: OutcomeTables, total: Measured) -> OutcomeTables:
    """The tables with what is normal for their members, as the reference itself measures."""
    g, members = len(bare.segments), len(bare.members)
    n, sums, squares = np.zeros((3, g, members))
    n[:, bare.of("distribution")] = total.delays.sum(-1)[:, None]
    for place, index in enumerate(bare.of("rate")):
        n[:, index], sums[:, index] = total.rates[:, place].T
        squares[:, index] = sums[:, index]
    for place, index in enumerate(bare.of("mean")):
        n[:, index] = total.means[:, place, 0]
        sums[:, index], squares[:, index] = total.means[:, place, 1:].T * UNIT
    own = sums / np.maximum(n, 1)
    sd = np.sqrt(np.maximum(squares / np.maximum(n, 1) - own**2, 0.0))
    rates = [member.form == "rate" for member in bare.members]
    residuals = [member.signal == RESIDUAL for member in bare.members]
    mean = np.where(residuals, 0.5, np.where(rates, (sums + 0.5) / (n + 1), own))
    bins = int(bare.delays.max()) + 1
    delay_p = np.zeros((g, ORDERED_BINS))
    delay_p[:, :bins] = reference.law(total.delays[:, :bins])
    return replace(
        bare,
        rows=n,
        mean=mean,
        sd=np.where(rates, np.sqrt(mean * (1 - mean)), sd),
        delay_p=delay_p,
        error_rate=(total.ranges[:, :, 1] + 0.5) / (total.ranges[:, :, 0] + 1),
    )


def _hits(outcomes: Outcomes, member: Member) -> Ints:
    """[G, 2] events and hits of a rate."""
    if member.signal == COVERAGE:
        return np.stack([outcomes.ended, outcomes.labelled], axis=1)
    return np.stack([outcomes.confusion.sum((1, 2)), outcomes.wrong], axis=1)


def _sums(tables: OutcomeTables, member: Member, table: Ints, errors: Ints) -> Ints:
    """[G, 3] events, and sums of the values and of their squares of a mean; `table` and `errors` of the window."""
    if member.signal == ERROR:
        counts, values = errors, tables.loss
    else:
        bins, weights = _bins_of(tables, member)
        e = np.stack([-tables.calibration, 1 - tables.calibration], axis=2) * weights[:, :, None]
        counts, values = table[:, bins].reshape(len(table), -1), ((e + 1) / 2)[:, bins].reshape(len(table), -1)
    sums = [(counts * power).sum(-1) for power in (values, values**2)]
    return np.stack([counts.sum(-1), *(np.rint(one / UNIT).astype(np.int64) for one in sums)], axis=1)


def _bins_of(tables: OutcomeTables, member: Member) -> tuple[slice, Floats]:
    """Bins of the score table that a residual counts, and the sign [G, table bins] it gives them."""
    if member.measure == "spread":
        return slice(None), np.sign(tables.calibration - 0.5)
    whole = np.ones_like(tables.calibration)
    own = [one.bins for place, one in enumerate(tables.ranges) if range_measure(place) == member.measure]
    return (own[0] if own else slice(None)), whole


def _wrong(scores: Ints) -> Ints:
    """[G, table bins] pairs whose predicted label is not the actual one, of counts [G, score cells, 2]."""
    block = [scores[:, place * SCORE_BINS : (place + 1) * SCORE_BINS] for place in (NEGATIVE, POSITIVE, CHOSEN)]
    return np.concatenate([block[NEGATIVE][:, :, 1] + block[POSITIVE][:, :, 0], block[CHOSEN][:, :, 0]], axis=1)


def _by_actual(classes: list[str], outcomes: Outcomes) -> Ints:
    """[G, classes + 1] pairs by actual class, as the reference names them; what it does not know comes last."""
    actual = outcomes.confusion.sum(-1)
    if not (classes and outcomes.classes):
        return np.zeros((len(actual), len(classes) + 1 if classes else 0), np.int64)
    place = {name: index for index, name in enumerate(classes)}
    cells = np.array([*(place.get(name, len(classes)) for name in outcomes.classes), len(classes)])
    return _binned(actual, cells, len(classes) + 1)


def _binned(counts: Ints, bins: Ints, width: int) -> Ints:
    """[G, width] sums of counts [G, cells] by the bin of each cell."""
    return np.asarray(counts @ (bins[:, None] == np.arange(width)).astype(np.int64))


def _mid(counts: Ints) -> Floats:
    """Share of smaller ones, those of the own cell half: its mean over the counts is one half. 0 without any."""
    n = max(int(counts.sum()), 1)
    return np.asarray((np.cumsum(counts) - counts / 2) / n)


def _variances(counts: Ints, scores: Floats) -> Floats:
    """[G, scores] variance of scores [scores, cells] under counts [G, cells]; 0 without any."""
    n = np.maximum(counts.sum(-1, keepdims=True), 1)
    return np.asarray(np.maximum((counts @ scores.T**2) / n - ((counts @ scores.T) / n) ** 2, 0.0))


def _known(serving: Serving, segments: list[str], members: list[Member], place: int) -> Floats:
    """[G, M] overdispersion (0) or mean events of a window (1); NaN where unknown."""
    unknown = (np.nan, np.nan)
    whole = Member(RESIDUAL, "mean", "mean").name
    # A range of scores that was cut otherwise while it was learned spreads like all of them.
    names = [[member.name, whole] if member.measure.startswith("range_") else [member.name] for member in members]
    known = [serving.get(segment, {}) for segment in segments]
    found = [[next((own[name] for name in any_of if name in own), unknown)[place] for any_of in names] for own in known]
    return np.array(found, dtype=np.float64).reshape(len(segments), len(members))
