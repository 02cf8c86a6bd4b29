"""Outcomes keep the laws of summaries, and hold exactly what their pairs say."""

import math
from collections import Counter
from copy import deepcopy
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makings import pairs, plain
from msgspec.structs import replace

from stream.profiles import exact, outcomes
from stream.profiles.summaries import RECORD_BYTES_MAX
from stream.signals.outcomes import (
    SCORE_CELLS,
    Compared,
    Ended,
    Met,
    ModelSettings,
    delay_cells,
    error_cells,
    score_cells,
)
from stream.wire import codec
from stream.wire.internal import OUTCOMES, Outcomes, ScoreOf, Span

SEEDS = st.integers(0, 100_000)
COUNTS = st.integers(0, 40)
SEGMENTS = [["k=a"], ["k=b", "l=c"], [], ["k=a", "l=other"]]
SETTINGS = (
    ModelSettings(),
    ModelSettings(positive_label="yes"),
    ModelSettings(task="classification"),
    ModelSettings(task="regression"),
)


def drawn(seed: int, n: int, classes: int = 3) -> Met:
    """n pairs of every sort, in several windows, versions and segments."""
    rng = np.random.default_rng(seed)
    names = ["1", "0", "yes", *(f"class-{index}" for index in range(classes - 3))][:classes]
    scores = rng.choice([0.0, 1.0, 0.5, math.nan, *rng.random(4)], n)
    numbers = rng.normal(size=(2, n)) * 10.0 ** rng.integers(-9, 12, (2, n))
    numbers[rng.random((2, n)) < 0.5] = math.nan
    numbers[rng.random((2, n)) < 0.05] = 0.0
    return pairs(
        n,
        windows_ms=rng.integers(-2, 2, n) * 100,
        versions=["3", "4"],
        version=rng.integers(0, 2, n),
        classes=names,
        predicted=rng.integers(-1, len(names), n),
        actual=rng.integers(-1, len(names), n),
        scores=scores,
        score_of=rng.integers(0, 3, n),
        outputs=numbers[0],
        truths=numbers[1],
        delays_ms=(10.0 ** rng.uniform(0, 11, n)).astype(np.int64),
        segments=SEGMENTS,
        segment=rng.integers(0, len(SEGMENTS), n),
        topics=["predictions", "feedback"],
        topic=rng.integers(0, 2, n),
        partitions=rng.integers(0, 3, n),
        offsets=rng.permutation(10 * n)[:n],
    )


def part(met: Met, picks: np.ndarray[Any, Any]) -> Met:
    """Some of the pairs."""
    columns = {name: value for name in met.__struct_fields__ if isinstance(value := getattr(met, name), np.ndarray)}
    return replace(met, **{name: value[picks] for name, value in columns.items()})


def by_key(found: list[Outcomes]) -> dict[tuple[str, int], list[Outcomes]]:
    keyed: dict[tuple[str, int], list[Outcomes]] = {}
    for one in found:
        keyed.setdefault((one.model_version, one.window_start_ms), []).append(one)
    return keyed


def merged_pairwise(found: list[Outcomes], rng: np.random.Generator) -> Outcomes:
    """Merge in a random tree."""
    left = list(found)
    while len(left) > 1:
        one, other = (left.pop(int(rng.integers(len(left)))) for _ in range(2))
        left.append(outcomes.merge([one, other]))
    return outcomes.merge(left)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=COUNTS, own=st.sampled_from(SETTINGS), classes=st.sampled_from([3, 60]))
def test_merged_parts_equal_the_whole_to_the_bit_in_any_order_and_grouping(
    seed: int, n: int, own: ModelSettings, classes: int
) -> None:
    met, rng = drawn(seed, n, classes), np.random.default_rng(seed + 1)
    at_once = by_key(outcomes.of_pairs(met, own))
    cuts, shuffled = sorted({0, n, *rng.integers(0, n + 1, 4).tolist()}), rng.permutation(n)
    parts = by_key(
        [one for low, high in pairwise(cuts) for one in outcomes.of_pairs(part(met, shuffled[low:high]), own)]
    )
    assert parts.keys() == at_once.keys()
    for key, (whole,) in at_once.items():
        assert plain(outcomes.merge([whole])) == plain(whole)
        assert plain(outcomes.merge(parts[key])) == plain(whole)
        assert plain(merged_pairwise(parts[key], rng)) == plain(whole)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40))
def test_no_function_touches_its_arguments(seed: int, n: int) -> None:
    met = drawn(seed, n)
    before = plain(met)
    found = outcomes.of_pairs(met, ModelSettings())
    assert plain(met) == before
    frozen = deepcopy(found)
    for same in by_key(found).values():
        outcomes.merge([*same, *same])
        outcomes.split(same[0], 64)
    assert plain(found) == plain(frozen)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40), bytes_max=st.integers(1, 40_000))
def test_encoding_splitting_and_what_is_empty_change_nothing(seed: int, n: int, bytes_max: int) -> None:
    for one in outcomes.of_pairs(drawn(seed, n), ModelSettings()):
        pieces = outcomes.split(one, bytes_max)
        decoded = [codec.decode(codec.encode(piece, OUTCOMES), Outcomes, OUTCOMES) for piece in pieces]
        assert plain(decoded) == plain(pieces)
        empty = outcomes.empty("credit", one.model_version, one.window_start_ms)
        assert plain(outcomes.merge([empty, *pieces[::-1]])) == plain(one)
        assert plain(outcomes.merge([empty, empty])) == plain(empty)


def test_outcomes_of_many_segments_travel_in_small_records() -> None:
    n, count = 4000, 2000
    met = replace(drawn(1, n, classes=40), segments=[[f"shop={index}"] for index in range(count)])
    met = replace(met, segment=np.arange(n) % count, windows_ms=met.windows_ms * 0, version=met.version * 0)
    pieces = outcomes.of_pairs(met, ModelSettings())
    assert len(pieces) > 1
    assert max(len(codec.encode(piece, OUTCOMES)) for piece in pieces) <= RECORD_BYTES_MAX
    whole = outcomes.merge(pieces)
    assert len(whole.segments) == count + 1
    assert whole.pairs.sum() == 2 * n


class Counted:
    """One segment of one window, pair by pair: slow and obvious."""

    def __init__(self) -> None:
        self.pairs = self.wrong = 0
        self.log_loss = self.squared = 0
        self.confusion: Counter[tuple[str, str]] = Counter()
        self.scores: Counter[tuple[int, int]] = Counter()
        self.score_sums: Counter[int] = Counter()
        self.errors: Counter[int] = Counter()
        self.delays: Counter[int] = Counter()
        self.sums = [Fraction(0)] * 5

    def add(self, met: Met, row: int, own: ModelSettings) -> None:
        self.pairs += 1
        self.delays[int(delay_cells(met.delays_ms[[row]])[0])] += 1
        output, truth = float(met.outputs[row]), float(met.truths[row])
        numbers = not math.isnan(output) and not math.isnan(truth)
        if own.task == "regression" or (own.task is None and numbers):
            if numbers:
                self.add_number(output, truth)
        else:
            self.add_class(met, row, own)

    def add_number(self, output: float, truth: float) -> None:
        error = output - truth
        self.errors[int(error_cells(np.array([error]))[0])] += 1
        exactly = [Fraction(term) for term in (max(error, 0.0), max(-error, 0.0), error * error, truth)]
        for place, term in enumerate([*exactly, Fraction(truth) ** 2]):
            self.sums[place] += term

    def add_class(self, met: Met, row: int, own: ModelSettings) -> None:
        if met.actual[row] < 0:
            return
        actual, score, of = met.classes[met.actual[row]], float(met.scores[row]), met.score_of[row]
        positives = ("1", "true") if own.positive_label is None else (own.positive_label,)
        scored = of == ScoreOf.POSITIVE and not math.isnan(score)
        if met.predicted[row] >= 0:
            predicted = met.classes[met.predicted[row]]
        elif scored:
            yes, no = ("yes", "not yes") if own.positive_label else ("1", "0")
            predicted = yes if score >= 0.5 else no
            if (score >= 0.5) == (actual in positives):
                predicted = actual
        else:
            return
        self.confusion[actual, predicted] += 1
        self.wrong += actual != predicted
        if math.isnan(score) or of == ScoreOf.NOTHING:
            return
        happened = actual in positives if scored else actual == predicted
        cell = score_cells(met.scores[[row]], met.score_of[[row]], np.array([True]), np.array([predicted in positives]))
        self.scores[int(cell[0]), int(happened)] += 1
        self.score_sums[int(cell[0])] += round(score * 2**20)
        if scored:
            likely = min(max(score if happened else 1 - score, 2.0**-52), 1 - 2.0**-52)
            self.log_loss += round(-math.log(likely) * 2**20)
            self.squared += round((score - happened) ** 2 * 2**20)


def sparse(array: np.ndarray[Any, Any]) -> dict[Any, int]:
    """What is not 0, by place."""
    places = [tuple(place) for place in np.argwhere(array).tolist()]
    return {place if array.ndim > 1 else place[0]: int(array[place]) for place in places}


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 60), own=st.sampled_from(SETTINGS))
def test_outcomes_hold_exactly_what_their_pairs_say(seed: int, n: int, own: ModelSettings) -> None:
    met = drawn(seed, n)
    expected: dict[tuple[str, int, str], Counted] = {}
    for row in range(n):
        for name in ["all", *SEGMENTS[met.segment[row]]]:
            key = (met.versions[met.version[row]], int(met.windows_ms[row]), name)
            expected.setdefault(key, Counted()).add(met, row, own)
    found = outcomes.of_pairs(met, own)
    assert {(one.model_version, one.window_start_ms, name) for one in found for name in one.segments} == set(expected)
    for one in found:
        for place, name in enumerate(one.segments):
            wanted = expected[one.model_version, one.window_start_ms, name]
            names = [*one.classes, "the others"]
            confusion = {(names[a], names[p]): count for (a, p), count in sparse(one.confusion[place]).items()}
            assert confusion == wanted.confusion
            assert (one.pairs[place], one.wrong[place]) == (wanted.pairs, wanted.wrong)
            assert (one.log_loss[place], one.squared[place]) == (wanted.log_loss, wanted.squared)
            assert sparse(one.scores[place]) == wanted.scores
            assert sparse(one.score_sums[place]) == {cell: count for cell, count in wanted.score_sums.items() if count}
            assert sparse(one.errors[place]) == wanted.errors
            assert sparse(one.delays[place]) == wanted.delays
            totals = [exact.total(limbs) for limbs in one.sums[place]]
            assert len(totals) == (5 if one.errors.size else 0)
            # Bits below 2^-168 are cut off.
            assert all(abs(got - said) < 2.0**-150 for got, said in zip(totals, wanted.sums, strict=False))


def test_where_pairs_stand_is_told_per_partition() -> None:
    met = pairs(
        3, topics=["predictions", "feedback"], topic=np.array([1, 0, 1]), partitions=np.array([2, 0, 2]),
        offsets=np.array([9, 4, 5]),
    )  # fmt: skip
    (one,) = outcomes.of_pairs(met, ModelSettings())
    assert one.spans == [Span("feedback", 2, 5, 9), Span("predictions", 0, 4, 4)]


@pytest.mark.parametrize(
    ("score", "actual", "positive", "predicted"),
    [
        (0.5, "1", None, "1"),
        (0.49, "1", None, "0"),
        (0.9, "0", None, "1"),
        (0.1, "0", None, "0"),
        (0.9, "false", None, "true"),
        (0.1, "true", None, "false"),
        (0.9, "deny", None, "1"),
        (0.9, "deny", "approve", "approve"),
        (0.1, "approve", "approve", "not approve"),
        (0.1, "deny", "approve", "deny"),
    ],
)
def test_a_score_alone_is_an_answer(score: float, actual: str, positive: str | None, predicted: str) -> None:
    met = pairs(
        1, classes=[actual], actual=np.array([0]), scores=np.array([score]), score_of=np.array([ScoreOf.POSITIVE])
    )
    (one,) = outcomes.of_pairs(met, ModelSettings(positive_label=positive))
    assert one.classes == sorted({actual, predicted})
    assert sparse(one.confusion[0]) == {(one.classes.index(actual), one.classes.index(predicted)): 1}
    assert one.scores[0].sum() == 1
    assert one.scores.shape == (1, SCORE_CELLS, 2)


def test_classes_beyond_the_thirty_first_share_a_cell_but_not_their_errors() -> None:
    n = 40
    names = [f"class-{index:02}" for index in range(n)]
    met = pairs(n, classes=names, actual=np.arange(n), predicted=np.append(np.arange(n - 1), n - 2))
    (one,) = outcomes.of_pairs(met, ModelSettings())
    assert one.classes == names[:31]
    assert one.confusion[0].diagonal().tolist() == [1] * 31 + [9]
    assert one.wrong.tolist() == [1]


def test_gains_and_ended_predictions_are_counted_by_version_window_and_segment() -> None:
    where: dict[str, Any] = {"windows_ms": np.array([0, 0, 100]), "segments": [["k=a"], []]}
    places = np.array([0, 1, 0])
    ended = Ended(
        "credit", versions=["3"], version=places * 0, segment=places, labelled=np.array([1, 0, 1]) > 0, **where
    )
    found = outcomes.of_ended(ended)
    assert [(one.window_start_ms, one.segments) for one in found] == [(0, ["all", "k=a"]), (100, ["all", "k=a"])]
    assert [(one.ended.tolist(), one.labelled.tolist()) for one in found] == [([2, 1], [1, 1]), ([1, 1], [1, 1])]
    gains = np.array([-1.0, 0.25, 0.0])
    compared = Compared("credit", challengers=["4", "5"], challenger=places, gains=gains, segment=places * 0, **where)
    got = [(one.model_version, one.window_start_ms, one.gains.tolist()) for one in outcomes.of_compared(compared)]
    one, quarter = 2**20, 2**18
    assert got == [
        ("4", 0, [[1, -one, one]] * 2),
        ("5", 0, [[1, quarter, quarter // 4]] * 2),
        ("4", 100, [[1, 0, 0]] * 2),
    ]
    assert outcomes.merge([found[0], *outcomes.of_pairs(pairs(5), ModelSettings())]).pairs.tolist() == [5, 0]


def test_nothing_makes_no_outcomes() -> None:
    assert outcomes.of_pairs(pairs(0), ModelSettings()) == []


def test_outcomes_of_several_windows_merge_but_not_those_of_several_versions() -> None:
    first, second = outcomes.empty("credit", "3", 100), outcomes.empty("credit", "3", 0)
    assert outcomes.merge([first, second]).window_start_ms == 0
    for refused in ([], [first, outcomes.empty("credit", "4", 0)]):
        with pytest.raises(ValueError, match="one model version"):
            outcomes.merge(refused)
