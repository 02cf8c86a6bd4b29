"""What the stages tell each other: partial profiles, samples, pair blocks, outcomes, watermarks and references.

The layout of every array follows from one `Reference`: its segments in the order `segment_names` gives, its signals
in the order of the reference, their bins side by side. Two partial profiles with the same reference therefore merge by
adding arrays.
"""

from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct, field

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
SignalType: TypeAlias = Literal["numeric", "categorical", "boolean"]
Origin: TypeAlias = Literal["built", "learned", "inherited"]


PARTIAL: Final = "partial/1"
SAMPLE: Final = "sample/1"
WATERMARKS: Final = "watermarks/1"
HALVES: Final = "halves/1"
OUTCOMES: Final = "outcomes/1"
CONTROL: Final = "control/1"
"""What a frame on drift.profiles or drift.pairs says it is, in its head and in the header `drift-format`."""


END_OF_TIME_MS: Final = 2**62
"""The watermark of an input that will never bring another record."""


class Span(Struct, frozen=True, order=True):
    """Offsets of one input partition, both ends included."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int


class OutlyingRow(Struct, frozen=True):
    """A row among the most unusual of its window (`statistics.md` 11)."""

    score: int
    """s_row in half decades of probability, 0 to 24."""
    id_hash: int
    prediction_id: str
    time_ms: int
    topic: str
    partition: int
    offset: int
    traceparent: str | None
    contributions: list[tuple[str, int, Any]]
    """(signal, its own score s_j, raw value or None unless values may be shown), by falling score, at most 5."""


class UnknownFeature(Struct, frozen=True):
    """A feature name the reference does not know, and in how many rows it stood."""

    name_hash: int
    name: str
    rows: int


class Partial(Struct, frozen=True):
    """A partial profile: the summaries one transaction built for one model, version and window.

    `segments` [g] names the rows present, as indices into `segment_names(reference)`; the other arrays have one row for
    each of them. Merging two partials adds their arrays segment by segment.
    """

    model_id: str
    model_version: str
    reference_id: str
    window_start_ms: int
    segments: Ints
    rows: Ints
    """[g] events."""
    late: Ints
    """[g] events that came late while their partition's watermark stood in this window."""
    invalid_rows: Ints
    """[g] rows with at least one invalid value."""
    outlying_rows: Ints
    """[g] rows with s_row >= 6."""
    counts: Ints
    """[g, T] bins of all signals side by side; T = sum of the signals' widths (valid bins, then the special ones)."""
    moments: Ints
    """[g, numeric signals, 4]: sum v, sum w, sum w^2, clipped (`statistics.md` 2.5)."""
    spans: list[Span]
    worst: list[OutlyingRow] = field(default_factory=list)
    unknown: list[UnknownFeature] = field(default_factory=list)
    first_column: int = 0
    """The column of T that `counts[:, 0]` stands for: a profile too wide for one record travels in several."""
    scores: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    """[g, score cells] rows by score and predicted label (`signals.outcomes.score_cells`): from it the performance is
    estimated before labels come. No columns where no labels are read."""


class SampledRow(Struct, frozen=True):
    """A row of the bottom-k sample: hash of its prediction id, and its canonical JSON."""

    id_hash: int
    row: bytes


class Sample(Struct, frozen=True):
    """What ingest knows of a window without a reference: a bottom-k sample of its rows (`statistics.md` 2.8)."""

    model_id: str
    model_version: str
    window_start_ms: int
    rows: int
    late: int
    spans: list[Span]
    sample: list[SampledRow]


class ScoreOf(IntEnum):
    """Whose probability a score is."""

    NOTHING = 0
    POSITIVE = 1
    """Of the positive label: a binary answer."""
    PREDICTED = 2
    """Of the label the model chose: one of several classes."""


class Halves(Struct, frozen=True):
    """A pair block: n halves of pairs, predictions or labels of one model, read from one source partition in its order.

    Columns that say nothing of a row hold -1, or NaN. Indices point into the lists beside them.
    """

    model_id: str
    topic: str
    partition: int
    """Of the source, such as predictions."""
    offsets: Ints
    """[n] in the source, rising."""
    keys: Ints
    """[n] 64-bit hash of the model and prediction id, its bits read as a signed integer."""
    labels: Bools
    """[n] True for a label, False for a prediction."""
    times_ms: Ints
    """[n] event time, or that of the partition's watermark where the event came late."""
    own_times_ms: Ints
    """[n] event time in any case: for delays alone."""
    versions: list[str]
    version: Ints
    """[n] model version; -1 in a label that counts for every version that answered."""
    classes: list[str]
    label: Ints
    """[n] predicted or actual class."""
    scores: Floats
    """[n] probability, of whom `score_of` says; predictions alone."""
    score_of: Ints
    """[n] `ScoreOf`"""
    values: Floats
    """[n] regression output, or the true value."""
    segments: list[list[str]]
    """Names of segments beside `all`, as the reference of the prediction has them."""
    segment: Ints
    """[n] index into `segments`; labels -1."""


class Outcomes(Struct, frozen=True):
    """What the pairs of one model version say of one window: integers alone, on grids that are the same everywhere.

    Nothing but names decides what is added to what: summaries of the same model merge whatever references they were
    made under. Grids and cells are those of `signals.outcomes`; arrays of what no pair has are of width 0.
    """

    model_id: str
    model_version: str
    window_start_ms: int
    segments: list[str]
    """[g] names of the segments present, `all` among them, sorted."""
    pairs: Ints
    """[g] pairs."""
    wrong: Ints
    """[g] pairs whose predicted class is not the actual one."""
    log_loss: Ints
    """[g] sum in units of 2^-20, over the pairs with a probability of the positive label; as the next."""
    squared: Ints
    """[g] sum of (score - label)^2 in units of 2^-20."""
    ended: Ints
    """[g] predictions whose horizon ended."""
    labelled: Ints
    """[g] those among them that have a label."""
    gains: Ints
    """[g, 3] requests which the champion answered too, then sums of d and d^2 in units of 2^-20, where d is the loss of
    the champion minus that of this version."""
    classes: list[str]
    """[c] sorted: the 31 first by text, at most."""
    confusion: Ints
    """[g, c + 1, c + 1] actual by predicted class; the last is every other class. Without classes [g, 0, 0]."""
    scores: Ints
    """[g, score cells, 2] pairs by score, whose event did not or did happen: the actual class is the positive one, or,
    where the score is the predicted label's, the predicted one."""
    score_sums: Ints
    """[g, score cells] sums of the scores in units of 2^-20."""
    errors: Ints
    """[g, error cells] pairs of two numbers by the size of e = output - truth."""
    sums: Ints
    """[g, 5, limbs] sums of e where it is positive, of -e where it is negative, of e^2, truth and truth^2, to the last
    bit (`profiles.exact`)."""
    delays: Ints
    """[g, delay cells] pairs by delay of the label."""
    spans: list[Span]
    """Where the halves that completed the pairs stand."""


class SourceMark(Struct, frozen=True):
    """Where one input partition stands after a transaction."""

    topic: str
    partition: int
    next_offset: int
    watermark_ms: int | None
    tick: bool = False
    """The watermark was raised by the clock of an idle partition, not by a record."""
    idle: bool = False
    """The partition is at its end and declares that nobody need wait for it (`reliability.md` 5, follow)."""


class Watermarks(Struct, frozen=True):
    """The watermark record that closes a transaction in every partition of drift.profiles."""

    sources: list[SourceMark]
    partitions: dict[str, int]
    """Partition count of every input topic."""
    references_offset: int
    """Next offset of drift.references that ingest had read when it worked."""


class SignalReference(Struct, frozen=True, omit_defaults=False):
    """What is normal for one signal (`contracts.md` 7). Fields that do not belong to its type are None."""

    type: SignalType
    counts: list[int]
    """Rows per valid bin: len(edges) + 1 for numeric; one per category, then `other` if `others` is not empty, for
    categorical; false, true for boolean."""
    missing: int = 0
    invalid: int = 0
    edges: list[float] | None = None
    mean: float | None = None
    std: float | None = None
    centre: float | None = None
    scale: float | None = None
    z: list[int] | None = None
    low: list[float] | None = None
    high: list[float] | None = None
    categories: list[str] | None = None
    others: list[int] | None = None
    """64-bit hashes of the reference categories that share the bin `other`."""
    singletons: int | None = None
    """Rows of the counting phase whose category nothing but themselves made known: the measure for `unseen`."""
    overdispersion: float | None = None
    rates_overdispersion: list[float] | None = None
    """Overdispersion of the rates of missing and invalid, for categories also of unseen."""
    segments: dict[str, list[int]] = field(default_factory=dict)
    """Counts as above per segment name, `all` excepted."""
    segments_special: dict[str, list[int]] = field(default_factory=dict)
    """Missing and invalid, for categories also `singletons`, per segment name, `all` excepted."""
    segments_overdispersion: dict[str, list[float]] = field(default_factory=dict)
    """Overdispersion, then that of the rates, per segment name, `all` excepted; absent where unknown."""
    coarse: list[int] | None = None
    """Coarse bin of each valid bin where it does not follow from the counts: a matured reference keeps those of the
    first, so that what detectors remember goes on."""


class RowReference(Struct, frozen=True):
    """The integers of the distance of a row (`statistics.md` 2.7)."""

    names: list[str]
    mean: list[int]
    factor: list[list[int]]


class Slots(Struct, frozen=True):
    """Seasonal slots: the rung, its time zone, and coarse counts per slot and signal (`statistics.md` 9)."""

    rung: Literal["global", "hour_of_day", "hour_of_day_weekend", "hour_of_week"]
    """`global`: one law for all hours, of which it is known which were seen."""
    timezone: str
    counts: dict[str, list[list[int]]]
    """Empty for `global`."""
    seen_ms: list[int]
    """How long each of 48 hours, those of work days and then those of weekends, was seen."""


class Volume(Struct, frozen=True):
    """How many rows a window of serving has, by seasonal slot (`statistics.md` 8.5)."""

    rung: Literal["global", "hour_of_day", "hour_of_day_weekend", "hour_of_week"]
    timezone: str
    windows: list[int]
    """Per slot, empty ones included."""
    rows: list[int]
    """Per slot, in these windows."""
    dispersion: float
    """Variance of such numbers over their mean, at least 1."""
    whole_day: bool
    """Whether at least a day was seen: a night is then no fall."""


class RateReference(Struct, frozen=True):
    """How many rows have a property, such as an invalid value, by segment name, `all` included."""

    rows: dict[str, list[int]]
    """Rows of the counting phase, and those with the property."""
    overdispersion: dict[str, float] = field(default_factory=dict)
    """Absent where unknown."""


class OutcomeReference(Struct, frozen=True):
    """What outcomes looked like beside what has bins of its own; by segment name, `all` included."""

    scores: dict[str, list[tuple[int, int, int]]]
    """Cell of `signals.outcomes` that holds pairs; those where the event did not happen, and where it did."""
    classes: list[str]
    """Sorted."""
    confusion: dict[str, list[list[int]]]
    """Actual by predicted class, the last row and column every other class; empty without classes."""
    mean_error: dict[str, float]
    """Of a regression, the mean size of its errors."""
    serving: dict[str, dict[str, tuple[float, float]]]
    """Per member, such as `outcome:error rate`, its overdispersion, at least 1, and its mean events of a window that
    has any; absent where unknown."""


class Reference(Struct, frozen=True):
    """What normal is for one model version: immutable, named by the hash of its content (`contracts.md` 7)."""

    reference_id: str
    model_id: str
    model_version: str
    scope: Literal["inputs", "outcomes"]
    origin: Origin
    complete: bool
    inherited_from: str | None
    n_rows: int
    data_from: str
    data_to: str
    effective_from: str
    segments: dict[str, list[str]]
    """Declared tag keys and their known values, both sorted."""
    window_size_ms: int
    window_rows: float | None
    signals: dict[str, SignalReference]
    row: RowReference | None
    slots: Slots | None
    rates: dict[str, RateReference] = field(default_factory=dict)
    """`row:quality` (a row with an invalid value) and `row:outlier` (s_row >= 6)."""
    segments_window_rows: dict[str, float] = field(default_factory=dict)
    """Mean rows of a non-empty window per segment name, `all` excepted; absent where unknown."""
    outcomes: OutcomeReference | None = None
    """Of scope `outcomes` alone."""
    volume: Volume | None = None
    """None where serving is not known."""
    schema_version: int = 1


def segment_names(reference: Reference) -> list[str]:
    """`all`, then `key=value` for every declared value and `key=other`, keys and values sorted."""
    names = ["all"]
    for key in sorted(reference.segments):
        names += [f"{key}={value}" for value in sorted(reference.segments[key])]
        names.append(f"{key}=other")
    return names
