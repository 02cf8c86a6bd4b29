"""How well a model probably does before any label has come, from its scores alone (CBPE, `statistics.md` 12.4).

A score tells how likely the answer is right, once it is calibrated: on pairs with labels, the share of events among
those of the same bin. Summed over the predictions of a window that gives the expected confusion. It holds as long as
the relation of score and label stays: inputs may move, and a changed relation is not seen. NannyML/nannyml,
`docs/how_it_works/performance_estimation.rst`.
"""

import math
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct

from stream.profiles.performance import by_bin, ratio, roc_auc
from stream.signals.outcomes import CHOSEN, NEGATIVE, POSITIVE, SCORE_BINS, SCORE_EDGES
from stream.wire.internal import Outcomes
from stream.wire.outbound import Estimate

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

BORDERS: Final = np.concatenate([[0.0], SCORE_EDGES, [1.0]])
"""[65] of the bins of a score."""


class Calibration(Struct, frozen=True, eq=False):
    """How likely an event is, by score: the positive label in row 0, that the model's choice is right in row 1."""

    probability: Floats
    """[2, 64]"""
    variance: Floats
    """[2, 64] of the probability: (c (1 - c)) / (n + 1) of n pairs, 0 where scores are taken for probabilities."""
    calibrated: bool


def uncalibrated() -> Calibration:
    """Scores taken for the probabilities they say they are: the middle of each bin."""
    middle = np.tile((BORDERS[:-1] + BORDERS[1:]) / 2, (2, 1))
    return Calibration(middle, np.zeros_like(middle), calibrated=False)


def calibrate(outcomes: Outcomes, segment: int) -> Calibration:
    """From the pairs of one segment, an index into `outcomes.segments`.

    c = (events + 1/2) / (n + 1) in every bin with pairs; the middle of the bin where there are none. Without any pair
    that has a score, `uncalibrated()`.
    """
    scores, plain = outcomes.scores[segment], uncalibrated()
    if not scores.any():
        return plain
    pairs = np.stack([by_bin(scores), scores[CHOSEN * SCORE_BINS :]])
    n, events = pairs.sum(axis=2), pairs[:, :, 1]
    probability = np.where(n > 0, (events + 0.5) / (n + 1), plain.probability)
    return Calibration(probability, probability * (1 - probability) / (n + 1), calibrated=True)


def estimate(scores: Ints, calibration: Calibration) -> Estimate | None:
    """The performance to be expected of predictions counted by score cell [192]; None if none has a score.

    `accuracy_sd` is the standard deviation of the accuracy that labels will show: that of n draws with these
    probabilities, and that of the probabilities, as far as they were found on few pairs. What belongs to a positive
    label is None where scores are those of one of several classes.
    """
    n = int(scores.sum())
    if not n:
        return None
    counts = scores.reshape(-1, SCORE_BINS).astype(np.float64)
    event, chosen = calibration.probability
    right = np.stack([1 - event, event, chosen])
    accuracy = float((counts * right).sum()) / n
    slopes = np.stack([counts[POSITIVE] - counts[NEGATIVE], counts[CHOSEN]])
    variance = float((counts * right * (1 - right)).sum()) + float((slopes**2 * calibration.variance).sum())
    figures: dict[str, float | None] = dict.fromkeys(("precision", "recall", "f1", "roc_auc"))
    if not counts[CHOSEN].any():
        figures |= _of_positive(counts[NEGATIVE], counts[POSITIVE], event)
    return Estimate(
        n=n,
        accuracy=accuracy,
        accuracy_sd=math.sqrt(variance) / n,
        calibrated=calibration.calibrated,
        **figures,
    )


def _of_positive(negative: Floats, positive: Floats, event: Floats) -> dict[str, float | None]:
    """From predictions by score, those of another label and those of the positive one."""
    answers, all_of_bin = float(positive.sum()), negative + positive
    tp, labels = float((positive * event).sum()), float((all_of_bin * event).sum())
    return {
        "precision": ratio(tp, answers),
        "recall": ratio(tp, labels),
        "f1": ratio(2 * tp, labels + answers),
        "roc_auc": roc_auc(all_of_bin * (1 - event), all_of_bin * event),
    }
