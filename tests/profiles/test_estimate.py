"""What is said of a model before labels come is what they say in the end, while the relation of both stays."""

from typing import Any

import numpy as np
import pytest
from datasets import DRIFT_ROW, car_loan
from makings import pairs

from stream.profiles import estimate, outcomes
from stream.profiles.performance import metrics
from stream.signals.outcomes import SCORE_CELLS, Met, ModelSettings
from stream.wire.internal import Outcomes, ScoreOf
from stream.wire.outbound import Estimate

Floats = np.ndarray[Any, np.dtype[np.float64]]


def summed(met: Met) -> Outcomes:
    return outcomes.merge(outcomes.of_pairs(met, ModelSettings()))


def expected(scores: Outcomes, calibration: estimate.Calibration) -> Estimate:
    """Of the same rows, their labels forgotten."""
    found = estimate.estimate(scores.scores[0].sum(axis=1), calibration)
    assert found is not None
    return found


def world(rng: np.random.Generator, n: int, shift: float) -> Outcomes:
    """A model whose score is a skewed view of the truth: P(y | x) does not move, x does."""
    x = rng.normal(shift, 1.5, n)
    truth = 1 / (1 + np.exp(-1.2 * x + 0.4))
    labels = (rng.random(n) < truth).astype(np.int64)
    scores = truth**1.3
    return summed(pairs(n, classes=["0", "1"], actual=labels, scores=scores, score_of=np.full(n, ScoreOf.POSITIVE)))


def accuracy(of: Outcomes) -> float:
    return 1 - float(of.wrong[0]) / float(of.pairs[0])


@pytest.mark.parametrize("shift", [0.0, 0.8, -1.0])
def test_under_covariate_shift_the_accuracy_lies_within_the_stated_band(shift: float) -> None:
    rng, windows, inside = np.random.default_rng(7), 100, 0
    calibration = estimate.calibrate(world(rng, 200_000, 0.0), 0)
    for _ in range(windows):
        labelled = world(rng, 2000, shift)
        found = expected(labelled, calibration)
        assert found.accuracy is not None
        assert found.accuracy_sd is not None
        inside += abs(found.accuracy - accuracy(labelled)) <= 2 * found.accuracy_sd
    assert inside >= 90


def test_the_band_knows_how_few_pairs_stand_behind_the_calibration() -> None:
    rng, misses = np.random.default_rng(8), 0
    window = world(rng, 100_000, 0.0)
    for _ in range(100):
        found = expected(window, estimate.calibrate(world(rng, 500, 0.0), 0))
        assert found.accuracy is not None
        assert found.accuracy_sd is not None
        misses += abs(found.accuracy - accuracy(window)) > 3 * found.accuracy_sd
    assert misses <= 10


def test_precision_recall_f1_and_roc_auc_are_those_of_the_labels() -> None:
    rng = np.random.default_rng(9)
    calibration, labelled = estimate.calibrate(world(rng, 200_000, 0.0), 0), world(rng, 100_000, 0.7)
    found = expected(labelled, calibration)
    assert (found.precision, found.recall, found.f1, found.roc_auc) == pytest.approx(realised(labelled), abs=0.01)


def realised(labelled: Outcomes) -> tuple[float | None, ...]:
    real = metrics(labelled, 0, ModelSettings())
    return real.precision, real.recall, real.f1, real.roc_auc


def car_loans(rows: tuple[dict[str, str], ...], labels: list[str]) -> Outcomes:
    predicted, actual = (
        np.array([int(float(one)) for one in column]) for column in ([row["y_pred"] for row in rows], labels)
    )
    scores = np.array([float(row["y_pred_proba"]) for row in rows])
    return summed(
        pairs(
            len(rows), classes=["0", "1"], predicted=predicted, actual=actual, scores=scores,
            score_of=np.full(len(rows), ScoreOf.POSITIVE),
        )
    )  # fmt: skip


def test_the_loss_of_the_car_loan_model_is_seen_without_labels() -> None:
    reference, analysis = car_loan("reference"), car_loan("analysis")
    targets = [row["repaid"] for row in car_loan("analysis_target")]
    learned = car_loans(reference, [row["repaid"] for row in reference])
    calibration = estimate.calibrate(learned, 0)
    before = car_loans(analysis[:DRIFT_ROW], targets[:DRIFT_ROW])
    after = car_loans(analysis[DRIFT_ROW:], targets[DRIFT_ROW:])
    assert [expected(one, calibration).accuracy for one in (before, after)] == pytest.approx([0.943, 0.910], abs=0.002)
    assert [accuracy(one) for one in (before, after)] == pytest.approx([0.944, 0.916], abs=0.001)
    plain = expected(before, estimate.uncalibrated())
    assert not plain.calibrated
    assert plain.accuracy is not None
    assert abs(plain.accuracy - 0.944) > 0.01


def test_several_classes_have_an_accuracy_alone() -> None:
    n = 50_000
    rng = np.random.default_rng(10)
    scores = rng.uniform(0.2, 1.0, n)
    right = (rng.random(n) < scores**2).astype(np.int64)
    met = pairs(
        n, classes=["a", "b", "c"], predicted=np.zeros(n, dtype=np.int64), actual=1 - right, scores=scores,
        score_of=np.full(n, ScoreOf.PREDICTED),
    )  # fmt: skip
    labelled = summed(met)
    found = expected(labelled, estimate.calibrate(labelled, 0))
    assert found.accuracy == pytest.approx(right.mean(), abs=1e-3)
    assert found.precision is found.recall is found.f1 is found.roc_auc is None


def test_without_scores_nothing_is_estimated_and_without_pairs_nothing_is_calibrated() -> None:
    nothing = np.zeros(SCORE_CELLS, dtype=np.int64)
    assert estimate.estimate(nothing, estimate.uncalibrated()) is None
    unscored = summed(
        pairs(3, classes=["0"], predicted=np.zeros(3, dtype=np.int64), actual=np.zeros(3, dtype=np.int64))
    )
    assert not estimate.calibrate(unscored, 0).calibrated


def test_a_bin_is_as_likely_as_its_pairs_say_and_an_empty_one_as_its_score_says() -> None:
    labels = np.array([1, 1, 0, 1])
    met = pairs(4, classes=["0", "1"], actual=labels, scores=np.full(4, 0.55), score_of=np.full(4, ScoreOf.POSITIVE))
    found = estimate.calibrate(summed(met), 0)
    assert found.probability[0, 32] == pytest.approx(3.5 / 5)
    plain = estimate.uncalibrated().probability
    assert np.delete(found.probability, 32, axis=1) == pytest.approx(np.delete(plain, 32, axis=1))
    assert plain[0] + plain[0, ::-1] == pytest.approx(np.ones(64))
