"""Metrics equal those of scikit-learn on the same pairs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makings import pairs
from sklearn import metrics as sklearn  # type: ignore[import-untyped] # has no types
from sklearn.calibration import calibration_curve  # type: ignore[import-untyped] # has no types

from stream.profiles import outcomes, performance
from stream.signals.outcomes import SCORE_BINS, SCORE_EDGES, Ended, Met, ModelSettings
from stream.wire.internal import Outcomes, ScoreOf
from stream.wire.outbound import Metrics

SEEDS = st.integers(0, 100_000)
SIZES = st.integers(2, 400)
DEFAULT = ModelSettings()


def summed(met: Met, own: ModelSettings = DEFAULT) -> Outcomes:
    return outcomes.merge(outcomes.of_pairs(met, own))


def of(met: Met, own: ModelSettings = DEFAULT) -> Metrics:
    return performance.metrics(summed(met, own), 0, own)


def binary(seed: int, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels, both occurring, and scores that know something of them, some of them sure and some equal."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.append([0, 1], rng.integers(0, 2, n - 2)))
    scores = 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 2)))
    return labels, rng.choice([0.0, 1.0, 0.25], n) * (away := rng.random(n) < 0.1) + scores * ~away


def answered(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], names: tuple[str, str] = ("0", "1")) -> Met:
    n = len(labels)
    return pairs(n, classes=list(names), actual=labels, scores=scores, score_of=np.full(n, ScoreOf.POSITIVE))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=SIZES)
def test_metrics_of_a_binary_model_equal_those_of_scikit_learn(seed: int, n: int) -> None:
    labels, scores = binary(seed, n)
    got, predicted = of(answered(labels, scores)), scores >= 0.5
    assert got.n_labelled == n
    assert got.accuracy == pytest.approx(sklearn.accuracy_score(labels, predicted), abs=1e-12)
    precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
        labels, predicted, average="binary", zero_division=np.nan
    )
    assert got.recall == pytest.approx(recall)
    assert got.precision is None if np.isnan(precision) else got.precision == pytest.approx(precision)
    assert got.f1 == pytest.approx(f1)
    assert got.log_loss == pytest.approx(sklearn.log_loss(labels, scores), abs=1e-6)
    assert got.brier == pytest.approx(sklearn.brier_score_loss(labels, scores), abs=1e-6)
    assert got.mae is got.rmse is got.bias is got.r2 is None


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=SIZES)
def test_the_roc_auc_is_that_of_scikit_learn_within_the_stated_error(seed: int, n: int) -> None:
    labels, scores = binary(seed, n)
    met = answered(labels, scores)
    bins = performance.by_bin(summed(met).scores[0])
    found, error = of(met).roc_auc, performance.roc_auc_error(bins[:, 0], bins[:, 1])
    assert found is not None
    assert abs(found - sklearn.roc_auc_score(labels, scores)) <= error + 1e-12
    places = np.searchsorted(SCORE_EDGES, scores, side="right")
    assert found == pytest.approx(sklearn.roc_auc_score(labels, places))


def test_the_bins_cost_a_roc_auc_less_than_a_hundredth() -> None:
    labels, scores = binary(1, 20_000)
    met = answered(labels, scores)
    bins = performance.by_bin(summed(met).scores[0])
    assert performance.roc_auc_error(bins[:, 0], bins[:, 1]) < 0.02
    assert of(met).roc_auc == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=0.001)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=SIZES)
def test_the_calibration_error_is_that_of_the_calibration_curve_over_the_bins(seed: int, n: int) -> None:
    labels, scores = binary(seed, n)
    places = np.searchsorted(SCORE_EDGES, scores, side="right")
    observed, _ = calibration_curve(labels, (places + 0.5) / SCORE_BINS, n_bins=SCORE_BINS)
    used, count = np.unique(places, return_counts=True)
    said = np.array([scores[places == place].mean() for place in used])
    assert of(answered(labels, scores)).ece == pytest.approx((count * np.abs(said - observed)).sum() / n, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=SIZES, classes=st.integers(3, 31))
def test_metrics_of_several_classes_are_macro_averages(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    actual, predicted, scores = rng.integers(0, classes, n), rng.integers(0, classes, n), rng.random(n)
    actual[:2], predicted[:2] = 0, 1
    names = [f"class {index}" for index in range(classes)]
    of_choice = {"scores": scores, "score_of": np.full(n, ScoreOf.PREDICTED)}
    got = of(pairs(n, classes=names, actual=actual, predicted=predicted, **of_choice))
    wanted = sklearn.precision_recall_fscore_support(actual, predicted, average="macro", zero_division=0)
    assert (got.precision, got.recall, got.f1) == pytest.approx(wanted[:3])
    assert got.accuracy == pytest.approx(sklearn.accuracy_score(actual, predicted), abs=1e-12)
    assert got.log_loss is got.brier is got.roc_auc is None
    places = np.searchsorted(SCORE_EDGES, scores, side="right")
    gaps = [(scores - (actual == predicted))[places == place].sum() for place in range(SCORE_BINS)]
    assert got.ece == pytest.approx(np.abs(gaps).sum() / n, abs=1e-6)


def test_classes_that_are_not_told_apart_have_an_accuracy_and_nothing_else() -> None:
    n = 100
    names = [f"class-{index:02}" for index in range(40)]
    got = of(pairs(n, classes=names, actual=np.arange(n) % 40, predicted=np.arange(n) % 39))
    assert got.accuracy == pytest.approx(0.39)
    assert got.precision is got.recall is got.f1 is None


@pytest.mark.parametrize(
    ("names", "positive", "f1"),
    [(("0", "1"), None, 0.5), (("false", "true"), None, 0.5), (("no", "yes"), "yes", 0.5), (("no", "yes"), None, 0.65)],
)
def test_two_classes_are_binary_when_it_is_known_which_is_positive(
    names: tuple[str, str], positive: str | None, f1: float
) -> None:
    actual, predicted = np.array([0, 0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 0])
    met = pairs(7, classes=list(names), actual=actual, predicted=predicted)
    assert of(met, ModelSettings(positive_label=positive)).f1 == pytest.approx(f1)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=SIZES, shift=st.sampled_from([0.0, 1e6, -1e12]), scale=st.sampled_from([1e-6, 1.0, 1e9]))
def test_metrics_of_a_regression_equal_those_of_scikit_learn(seed: int, n: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    truths = shift * scale + scale * rng.normal(size=n)
    outputs = truths + scale * rng.normal(0.3, 0.5, n)
    got = of(pairs(n, truths=truths, outputs=outputs))
    assert got.mae == pytest.approx(sklearn.mean_absolute_error(truths, outputs), rel=1e-6)
    assert got.rmse == pytest.approx(sklearn.root_mean_squared_error(truths, outputs), rel=1e-6)
    assert got.bias == pytest.approx((outputs - truths).mean(), rel=1e-6, abs=1e-9 * scale)
    assert got.r2 == pytest.approx(sklearn.r2_score(truths, outputs), rel=1e-6 if abs(shift) < 1e12 else 1e-3)
    assert got.accuracy is got.f1 is got.log_loss is got.ece is None


def test_what_cannot_be_divided_is_not_told() -> None:
    one = of(answered(np.array([0]), np.array([0.2])))
    assert (one.accuracy, one.precision, one.recall, one.f1, one.roc_auc) == (1.0, None, None, None, None)
    assert of(pairs(2, truths=np.array([3.0, 3.0]), outputs=np.array([2.0, 5.0]))).r2 is None
    none = of(pairs(3))
    told = {name for name in none.__struct_fields__ if getattr(none, name) is not None}
    assert told == {"n_labelled", "delay_p50_seconds", "delay_p95_seconds"}


def test_coverage_is_the_labelled_share_of_the_predictions_that_ended() -> None:
    zero = np.zeros(4, dtype=np.int64)
    ended = Ended("credit", zero, ["3"], zero, [[]], zero, np.array([True, False, False, False]))
    (one,) = outcomes.of_ended(ended)
    assert performance.metrics(one, 0, DEFAULT).coverage == 0.25


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=SIZES)
def test_delay_quantiles_are_right_within_a_quarter_octave(seed: int, n: int) -> None:
    delays_ms = (10.0 ** np.random.default_rng(seed).uniform(2, 10, n)).astype(np.int64)
    got = of(pairs(n, delays_ms=delays_ms))
    for found, share in ((got.delay_p50_seconds, 0.5), (got.delay_p95_seconds, 0.95)):
        assert found is not None
        exact = float(np.quantile(delays_ms, share, method="inverted_cdf")) / 1000
        assert exact / 1.2 <= found <= exact * 1.2


def test_delays_beyond_the_grid_are_its_ends() -> None:
    assert of(pairs(1, delays_ms=np.array([2**60]))).delay_p50_seconds == 2**25
    assert of(pairs(1)).delay_p50_seconds == pytest.approx(0.0315)
