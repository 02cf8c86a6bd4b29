"""River's SEA concepts: labels that follow another rule while nothing about the inputs changes.

`statistics.md` 13, figure 5: n = 500, A = 10^6, a score that is the probability of the label under variant 0.
"""

from statistics import median

import numpy as np
import pytest
from labelled import MINUTE_MS, START_MS
from outcomeflow import Outcomed, heard, settings, window_of
from river.datasets import synth

from stream.detectors.budget import Settings as Budget
from stream.profiles import outcome_learning, outcomes
from stream.profiles.reference import References
from stream.signals.outcomes import Met, ModelSettings
from stream.wire.internal import Outcomes, ScoreOf

N, CHANGE, WINDOWS, SEEDS = 500, 20, 45, 3
NOISE = 0.1
BORDER = 8.0
"""Of variant 0: a label is 1 where the first two features add up to more."""
BUDGET = Budget(false_alarms=10_080 / (1e6 * 0.15 / 64))
"""A = 10^6 for performance and for concept drift, of windows of a minute in a week."""


def windows(parts: list[tuple[int, int, int]], start_ms: int = START_MS) -> list[Outcomes]:
    """Windows of some variants, one after the other: (variant, seed, windows)."""
    rows = [row for variant, seed, count in parts for row in synth.SEA(variant, seed=seed, noise=NOISE).take(count * N)]
    sums, labels = np.array([x[0] + x[1] for x, _ in rows]), np.array([int(y) for _, y in rows])
    n, zero, nan = len(rows), np.zeros(len(rows), np.int64), np.full(len(rows), np.nan)
    scores = np.where(sums > BORDER, 1 - NOISE, NOISE)
    met = Met(
        model_id="credit",
        windows_ms=start_ms + np.arange(n) // N * MINUTE_MS,
        versions=["3"],
        version=zero,
        classes=["0", "1"],
        predicted=(scores >= 0.5).astype(np.int64),
        actual=labels,
        scores=scores,
        score_of=np.full(n, ScoreOf.POSITIVE),
        outputs=nan,
        truths=nan,
        delays_ms=np.full(n, 1_000),
        segments=[[]],
        segment=zero,
        topics=["feedback"],
        topic=zero,
        partitions=zero,
        offsets=np.arange(n),
    )
    return outcomes.of_pairs(met, ModelSettings())


@pytest.fixture(scope="module")
def known() -> References:
    reference = outcome_learning.built(
        windows([(0, 1, 100)], START_MS - 100 * MINUTE_MS),
        serving=True,
        size_ms=MINUTE_MS,
        effective_from_ms=START_MS,
        data_ms=(START_MS - 100 * MINUTE_MS, START_MS - 1),
    )
    return heard(reference)


def first_alarms(known: References, variant: int) -> dict[str, list[int | None]]:
    """By kind the window after the change in which it was told, None where it was not."""
    found: dict[str, list[int | None]] = {"performance": [], "concept_drift": []}
    for seed in range(SEEDS):
        flow = Outcomed(references=known, of_detect=settings(budget=BUDGET))
        for one in windows([(0, 10 + seed, CHANGE), (variant, 20 + seed, WINDOWS - CHANGE)]):
            flow.send([one], one.window_start_ms + MINUTE_MS)
        for kind, alarms in found.items():
            told = [window_of(one["updated_at"]) - CHANGE + 1 for one in flow.firing(kind)]
            assert all(window > 0 for window in told)
            alarms.append(told[0] if told else None)
    return found


@pytest.mark.parametrize(("variant", "performance", "concept"), [(1, 4, 7), (2, 6, 8), (3, 2, 3)])
def test_another_rule_is_found_when_the_figures_say(
    known: References, variant: int, performance: int, concept: int
) -> None:
    found = first_alarms(known, variant)
    assert median(one or WINDOWS for one in found["performance"]) <= 1.5 * performance + 1
    assert median(one or WINDOWS for one in found["concept_drift"]) <= 1.5 * concept + 1


def test_the_same_rule_goes_on_without_a_word(known: References) -> None:
    assert first_alarms(known, 0) == {"performance": [None] * SEEDS, "concept_drift": [None] * SEEDS}
