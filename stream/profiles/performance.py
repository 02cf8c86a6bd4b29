"""How well a model does, from the outcomes of a window: what scikit-learn would say of the same pairs.

Counts are exact; means are those of sums in units of 2^-20, off by 5e-7 at most, or exact for a regression. What needs
the order of scores inside a bin is not known: `roc_auc` counts two pairs of one bin as a tie, and is off by no more
than `roc_auc_error`. Quantiles of the delay are off by a quarter octave (19 %) at most.
"""

import math
from typing import Any, Final, TypeAlias

import numpy as np

from stream.profiles.exact import total
from stream.profiles.outcomes import UNIT
from stream.signals.outcomes import CHOSEN, DELAY_EDGES_MS, SCORE_BINS, ModelSettings, positive_labels
from stream.wire.internal import Outcomes
from stream.wire.outbound import Estimate, Metrics

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_BINARY: Final = 2
_PLAIN: Final = (frozenset({"0", "1"}), frozenset({"false", "true"}))
"""Names of two classes of which everybody knows the positive one."""


def metrics(outcomes: Outcomes, segment: int, settings: ModelSettings, estimated: Estimate | None = None) -> Metrics:
    """The metrics of one segment, an index into `outcomes.segments`; None what its pairs do not say.

    Precision, recall and F1 are those of the positive label where there are two classes and it is known which of them
    that is; else means over the classes that occur, where a class without predictions or pairs counts 0. They are
    None with more than 31 classes, as single classes are then not told apart. Log loss and Brier score need the
    probability of the positive label; of a model of several classes only that of its choice is known. The calibration
    error is sum_b |sum of scores - events| / n over the 64 bins of the score; of several classes, that of the choice.
    Bias is the mean of output minus truth. R2 and ROC-AUC are None where all labels are the same.
    """
    ended = int(outcomes.ended[segment])
    quantiles = delay_quantiles(outcomes.delays[segment], (0.5, 0.95))
    figures: dict[str, float | None] = dict.fromkeys(Metrics.__struct_fields__)
    figures |= {"delay_p50_seconds": quantiles[0], "delay_p95_seconds": quantiles[1]}
    figures |= {"coverage": int(outcomes.labelled[segment]) / ended if ended else None}
    if outcomes.confusion[segment].any():
        figures |= _of_classes(outcomes, segment, settings)
    if outcomes.scores[segment].any():
        figures |= _of_scores(outcomes, segment)
    if outcomes.errors[segment].any():
        figures |= _of_numbers(outcomes.sums[segment], int(outcomes.errors[segment].sum()))
    return Metrics(**figures | {"n_labelled": int(outcomes.pairs[segment]), "estimated": estimated})  # type: ignore[arg-type] # by name


def by_bin(scores: Ints) -> Ints:
    """[64, 2] pairs by score and event, of a probability of the positive label, from `Outcomes.scores` of a segment."""
    return np.asarray(scores[: CHOSEN * SCORE_BINS].reshape(CHOSEN, SCORE_BINS, 2).sum(axis=0))


def roc_auc(negatives: Ints | Floats, positives: Ints | Floats) -> float | None:
    """Share of pairs of a positive and a negative in which the positive has the larger score, ties one half.

    By bin of the score, rising. None where one of them is absent.
    """
    of_pairs = float(negatives.sum()) * float(positives.sum())
    if of_pairs <= 0:
        return None
    below = np.cumsum(negatives, dtype=np.float64) - negatives
    return float((positives * (below + negatives / 2)).sum()) / of_pairs


def roc_auc_error(negatives: Ints, positives: Ints) -> float:
    """How far `roc_auc` may lie from that of the scores themselves: half the share of pairs inside one bin."""
    of_pairs = float(negatives.sum()) * float(positives.sum())
    return float((positives.astype(np.float64) * negatives).sum()) / of_pairs / 2 if of_pairs else 0.0


def delay_quantiles(delays: Ints, shares: tuple[float, ...]) -> list[float | None]:
    """Quantiles in seconds of `Outcomes.delays` of a segment, linear inside a cell; beyond the last edge it is that."""
    n = int(delays.sum())
    if not n:
        return [None for _ in shares]
    edges = np.concatenate([[0], DELAY_EDGES_MS, DELAY_EDGES_MS[-1:]]) / 1000
    upto = np.concatenate([[0], np.cumsum(delays)])
    found: list[float | None] = []
    for share in shares:
        cell = int(np.searchsorted(upto[1:], share * n))
        part = (share * n - upto[cell]) / delays[cell]
        found.append(float(edges[cell] + part * (edges[cell + 1] - edges[cell])))
    return found


def ratio(part: float, whole: float) -> float | None:
    """None of nothing."""
    return part / whole if whole > 0 else None


def _of_classes(outcomes: Outcomes, segment: int, settings: ModelSettings) -> dict[str, float | None]:
    confusion = outcomes.confusion[segment]
    accuracy = 1 - int(outcomes.wrong[segment]) / int(confusion.sum())
    if confusion[-1].any() or confusion[:, -1].any():
        return {"accuracy": accuracy}
    right, actual, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    positive = np.array([*(name in positive_labels(settings) for name in outcomes.classes), False])
    if _is_binary(outcomes, segment, settings):
        tp, labels, answers = (int(count[positive].sum()) for count in (right, actual, predicted))
        return {
            "accuracy": accuracy,
            "precision": ratio(tp, answers),
            "recall": ratio(tp, labels),
            "f1": ratio(2 * tp, labels + answers),
        }
    some = (actual + predicted) > 0

    def mean(whole: Ints, times: int = 1) -> float:
        return float(np.mean(times * right[some] / np.maximum(whole[some], 1)))

    return {
        "accuracy": accuracy,
        "precision": mean(predicted),
        "recall": mean(actual),
        "f1": mean(actual + predicted, 2),
    }


def _is_binary(outcomes: Outcomes, segment: int, settings: ModelSettings) -> bool:
    """Whether there are two classes at most, and it is known which of them is positive."""
    known = settings.positive_label is not None or any(names.issuperset(outcomes.classes) for names in _PLAIN)
    scored = bool(outcomes.scores.size and by_bin(outcomes.scores[segment]).any())
    return len(outcomes.classes) <= _BINARY and (known or scored)


def _of_scores(outcomes: Outcomes, segment: int) -> dict[str, float | None]:
    bins, sums = by_bin(outcomes.scores[segment]), outcomes.score_sums[segment].reshape(-1, SCORE_BINS)
    n = int(bins.sum())
    if not n:
        return {"ece": _calibration_error(outcomes.scores[segment][CHOSEN * SCORE_BINS :], sums[CHOSEN])}
    return {
        "log_loss": int(outcomes.log_loss[segment]) / UNIT / n,
        "brier": int(outcomes.squared[segment]) / UNIT / n,
        "roc_auc": roc_auc(bins[:, 0], bins[:, 1]),
        "ece": _calibration_error(bins, sums[:CHOSEN].sum(axis=0)),
    }


def _calibration_error(bins: Ints, sums: Ints) -> float:
    return float(np.abs(sums / UNIT - bins[:, 1]).sum()) / int(bins.sum())


def _of_numbers(sums: Ints, n: int) -> dict[str, float | None]:
    above, below, squares, truth, truth_squares = (total(limbs) for limbs in sums)
    spread = truth_squares - truth * truth / n
    return {
        "mae": float((above + below) / n),
        "rmse": math.sqrt(squares / n),
        "bias": float((above - below) / n),
        "r2": 1 - float(squares / spread) if spread > 0 else None,
    }
