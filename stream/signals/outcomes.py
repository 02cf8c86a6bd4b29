"""Outcomes: what a prediction and its label, met, measure.

A prediction that knows its label is a *pair*. Pairs arrive here as columns; the counts and integer sums that can be
merged are made of them in `profiles.outcomes`. Their grids are fixed, the same for every model: nothing need be known
of a model before its outcomes can be counted, and counts of different times can be added.
"""

from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, Field, model_validator

from stream.wire.internal import ScoreOf

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

DECISION: Final = 0.5
"""A model that sends a probability of the positive label and names none has predicted it from here on."""
SCORE_BINS: Final = 64
_LOGIT_STEP: Final = 0.3
"""Bins of .075 around a score of one half, and scores apart down to 1 in 11,000: rare events have small scores."""


def _score_edges() -> Floats:
    # Rounded to 2^-30: the last bit of an exponential differs between machines, an edge must not.
    steps = np.arange(1, SCORE_BINS // 2) * _LOGIT_STEP
    upper = np.rint(2.0**30 / (1 + np.exp(-steps))) / 2.0**30
    return np.concatenate([1 - upper[::-1], [DECISION], upper])


SCORE_EDGES: Final = _score_edges()
"""[63] rising, edge and its mirror image add up to 1 exactly, one half is the middle one. A bin holds its lower edge;
0 and 1 are in the outer bins."""
NEGATIVE: Final = 0
POSITIVE: Final = 1
CHOSEN: Final = 2
SCORE_CELLS: Final = 3 * SCORE_BINS
"""Three blocks of bins side by side: probability of the positive label where another one (`NEGATIVE`) or this one
(`POSITIVE`) was predicted, and probability of the label that was predicted (`CHOSEN`)."""

ERROR_OCTAVES: Final = 40
ERROR_CELLS: Final = 2 + 8 * ERROR_OCTAVES
"""Sizes of errors in quarter octaves from 2^-40 to 2^40, then what is below (and 0) first, what is above last."""
_QUARTERS: Final = np.array([0.5946035575013605, 0.7071067811865476, 0.8408964152537145])
"""2^-3/4, 2^-1/2, 2^-1/4: written out, as powers differ between machines in their last bit."""

_DELAY_OCTAVES: Final = (-4, 25)
DELAY_EDGES_MS: Final = np.ceil(1000 * 2.0 ** np.arange(_DELAY_OCTAVES[0], _DELAY_OCTAVES[1] + 0.25, 0.25)).astype(
    np.int64
)
"""Quarter octaves of seconds from 1/16 s to 2^25 s (388 days); a cell holds its lower edge."""
DELAY_CELLS: Final = len(DELAY_EDGES_MS) + 1
"""The first cell is what is below all edges, the last what is above."""


class ModelSettings(BaseModel, frozen=True, extra="forbid"):
    """What the owner of a model says of its answers: part of a `[[models]]` table."""

    task: Literal["classification", "regression"] | None = None
    """None: a pair with two numbers is one of a regression, any other of a classification."""
    positive_label: str | None = None
    """The class a score is the probability of. None: "1" or "true"."""
    champion: str | None = None
    """The model version in charge."""
    challengers: tuple[str, ...] = Field(default=())
    """Model versions compared with it."""

    @model_validator(mode="after")
    def _challengers_have_another_to_challenge(self) -> "ModelSettings":
        if self.challengers and self.champion is None:
            raise ValueError("challengers are compared with a champion; name its version")
        if self.champion in self.challengers:
            raise ValueError(f"{self.champion!r} is the champion, it cannot be one of the challengers")
        return self


class Met(Struct, frozen=True, eq=False):
    """n pairs of one model, in any order. -1 and NaN where a half does not say."""

    model_id: str
    windows_ms: Ints
    """[n] start of the window that holds the later half."""
    versions: list[str]
    version: Ints
    classes: list[str]
    predicted: Ints
    actual: Ints
    """[n] indices into `classes`."""
    scores: Floats
    score_of: Ints
    """[n] `wire.internal.ScoreOf`"""
    outputs: Floats
    truths: Floats
    """[n] of a regression."""
    delays_ms: Ints
    """[n] from the prediction to its label, at least 0."""
    segments: list[list[str]]
    """Names beside `all`."""
    segment: Ints
    topics: list[str]
    topic: Ints
    partitions: Ints
    offsets: Ints
    """[n] where the half that completed the pair stands in the input."""


class Compared(Struct, frozen=True, eq=False):
    """n answers of a champion and a challenger to one request whose label is known, of one model."""

    model_id: str
    windows_ms: Ints
    """[n] start of the window that holds the latest of the three."""
    challengers: list[str]
    challenger: Ints
    """[n] index of the version of the challenger."""
    gains: Floats
    """[n] loss of the champion minus that of the challenger, in [-1, 1]."""
    segments: list[list[str]]
    segment: Ints


class Ended(Struct, frozen=True, eq=False):
    """n predictions of one model whose horizon ended: whether a label has come."""

    model_id: str
    windows_ms: Ints
    """[n] start of the window in which it ended."""
    versions: list[str]
    version: Ints
    segments: list[list[str]]
    segment: Ints
    labelled: Bools


def positive_labels(settings: ModelSettings) -> tuple[str, ...]:
    """The classes a score of `ScoreOf.POSITIVE` may be the probability of."""
    return ("1", "true") if settings.positive_label is None else (settings.positive_label,)


def score_cells(scores: Floats, score_of: Ints, known: Bools, positive: Bools) -> Ints:
    """[n] cell of each score, 0 to `SCORE_CELLS` - 1, or -1 where there is none.

    `known` [n] says that the model named a label, `positive` [n] that it is the positive one; where it named none its
    score decides, see `DECISION`.
    """
    bins = np.searchsorted(SCORE_EDGES, scores, side="right")
    chosen = score_of == ScoreOf.PREDICTED
    block = np.where(chosen, CHOSEN, np.where(known, positive, scores >= DECISION))
    valid = ~np.isnan(scores) & (chosen & known | (score_of == ScoreOf.POSITIVE))
    return np.where(valid, block * SCORE_BINS + bins, -1)


def error_cells(errors: Floats) -> Ints:
    """[n] cell of the size of each error, 0 to `ERROR_CELLS` - 1. Errors are numbers, infinity is one."""
    fraction, exponent = np.frexp(np.abs(errors))
    quarter = np.searchsorted(_QUARTERS, fraction, side="right")
    cells = np.clip(4 * (exponent.astype(np.int64) - 1 + ERROR_OCTAVES) + quarter + 1, 0, ERROR_CELLS - 1)
    return np.where(fraction == 0, 0, np.where(np.isinf(fraction), ERROR_CELLS - 1, cells))


def delay_cells(delays_ms: Ints) -> Ints:
    """[n] cell of each delay, 0 to `DELAY_CELLS` - 1."""
    return np.searchsorted(DELAY_EDGES_MS, delays_ms, side="right").astype(np.int64)
