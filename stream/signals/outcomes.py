"""Outcomes: what a prediction and its label, met, measure.

A prediction that knows its label is a *pair*. Pairs arrive here as columns; the counts and integer sums that can be
merged are made of them in `profiles.outcomes`.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


class ModelSettings(BaseModel):
    """What the owner of a model says of its answers: part of a `[[models]]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["classification", "regression"] | None = None
    """None: a pair with two numbers is one of a regression, any other of a classification."""
    positive_label: str | None = None
    """The class a score is the probability of. None: "1" or "true"."""
    champion: str | None = None
    """The model version in charge."""
    challengers: tuple[str, ...] = Field(default=())
    """Model versions compared with it."""


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
