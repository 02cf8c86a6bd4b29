"""Champion against challenger: both answered one request whose label is known.

Two answers are compared iff both predictions and both first labels lie within one horizon of one another. The loss of
a class is 0 or 1. Of numbers it is their share of the error, so that the gain `(|a| - |b|) / (|a| + |b|)` is bounded,
knows no unit and needs no reference.
"""

import numpy as np
from msgspec import Struct

from stream.signals.outcomes import DECISION, Compared, ModelSettings, positive_labels
from stream.stages.join import rows
from stream.stages.join.meet import Scene
from stream.stages.join.rows import Rows
from stream.stages.join.settings import Settings
from stream.stages.join.store import ranges
from stream.wire.internal import Bools, Floats, Ints, ScoreOf


class Answers(Struct, frozen=True, eq=False):
    """n predictions of one version that make pairs, with their labels, sorted by key and time."""

    predictions: Rows
    labels: Rows
    keys: Ints
    """[n] rank of the key"""


def compared(of: Scene, first: Ints, usable: Bools, since_ms: int, settings: Settings) -> list[Compared]:
    """The comparisons whose last row has time' >= `since_ms`.

    `first` [n] is the first label of each prediction, -1 for none; `usable` [n] tells which make pairs.
    """
    found = []
    names = of.predictions.names
    for model, model_id in enumerate(names.models):
        model_settings = settings.models.get(model_id, ModelSettings())
        if model_settings.champion not in names.versions:
            continue
        own = usable & (first >= 0) & (of.predictions.model == model)
        champion = _answers(of, first, own & (of.predictions.version == names.versions.index(model_settings.champion)))
        for challenger in model_settings.challengers:
            if challenger in names.versions:
                other = _answers(of, first, own & (of.predictions.version == names.versions.index(challenger)))
                one = _compared(of, champion, other, since_ms, model_settings)
                if len(one.gains):
                    found.append(one.told(model_id, challenger, settings.windows.size))
    return found


class _Gains(Struct, frozen=True, eq=False):
    gains: Floats
    times_ms: Ints
    """[n] of the last row of each comparison"""
    champion: Rows

    def told(self, model_id: str, challenger: str, size_ms: int) -> Compared:
        return Compared(
            model_id=model_id,
            windows_ms=self.times_ms - self.times_ms % size_ms,
            challengers=[challenger],
            challenger=np.zeros(len(self.gains), dtype=np.int64),
            gains=self.gains,
            segments=[list(names) for names in self.champion.names.segments],
            segment=self.champion.segment,
        )


def _answers(of: Scene, first: Ints, which: Bools) -> Answers:
    picks = np.flatnonzero(which)
    picks = picks[np.lexsort((of.predictions.times_ms[picks], of.prediction_keys[picks]))]
    return Answers(
        predictions=rows.picked(of.predictions, picks),
        labels=rows.picked(of.labels, first[picks]),
        keys=of.prediction_keys[picks],
    )


def _compared(of: Scene, champion: Answers, challenger: Answers, since_ms: int, settings: ModelSettings) -> _Gains:
    span = len(of.moments) + 1
    places = champion.keys * span + np.searchsorted(of.moments, champion.predictions.times_ms)
    times_ms = challenger.predictions.times_ms
    low = challenger.keys * span + np.searchsorted(of.moments, times_ms - of.horizon_ms)
    high = challenger.keys * span + np.searchsorted(of.moments, times_ms + of.horizon_ms, side="right")
    start, end = np.searchsorted(places, low), np.searchsorted(places, high)
    theirs = np.repeat(np.arange(len(times_ms)), end - start)
    one, other = _picked(champion, ranges(start, end)), _picked(challenger, theirs)
    all_ms = np.stack([some.times_ms for pair in (one, other) for some in (pair.predictions, pair.labels)])
    gains = _gains(one, other, settings)
    last_ms = all_ms.max(axis=0)
    valid = (last_ms - all_ms.min(axis=0) <= of.horizon_ms) & (last_ms >= since_ms) & ~np.isnan(gains)
    return _Gains(gains[valid], last_ms[valid], rows.picked(one.predictions, valid))


def _picked(answers: Answers, picks: Ints) -> Answers:
    return Answers(rows.picked(answers.predictions, picks), rows.picked(answers.labels, picks), answers.keys[picks])


def _gains(champion: Answers, challenger: Answers, settings: ModelSettings) -> Floats:
    """[n] loss of the champion minus that of the challenger; NaN where an answer cannot be held against its label."""
    wrong = _wrong(champion, settings) - _wrong(challenger, settings)
    if settings.task == "classification":
        return wrong
    with np.errstate(over="ignore", invalid="ignore"):  # a difference beyond all numbers has no share: NaN
        a, b = (np.abs(pair.predictions.values - pair.labels.values) for pair in (champion, challenger))
        most = np.maximum(np.maximum(a, b), np.finfo(np.float64).tiny)
        of_numbers = (a / most - b / most) / np.maximum(a / most + b / most, 1.0)
    return of_numbers if settings.task == "regression" else np.where(np.isnan(of_numbers), wrong, of_numbers)


def _wrong(answers: Answers, settings: ModelSettings) -> Floats:
    """[n] 1 where the class is wrong; NaN where one is unknown. A score alone says a class, too."""
    predictions, labels = answers.predictions, answers.labels
    positive = np.array([*(name in positive_labels(settings) for name in labels.names.classes), False])
    by_score = (predictions.label < 0) & (predictions.score_of == ScoreOf.POSITIVE) & ~np.isnan(predictions.scores)
    wrong = np.where(
        by_score, (predictions.scores >= DECISION) != positive[labels.label], predictions.label != labels.label
    )
    known = (labels.label >= 0) & (by_score | (predictions.label >= 0))
    return np.where(known, wrong.astype(np.float64), np.nan)
