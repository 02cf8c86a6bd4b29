"""What the budget buys: shares that add up, thresholds as the stage has them, and changes that are found in time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flows import built, detect_settings
from hypothesis import given
from hypothesis import strategies as st

from stream.detectors import Floats, Ints, histogram
from stream.detectors.adwin import Settings as AdwinSettings
from stream.detectors.budget import Settings as BudgetSettings
from stream.detectors.page_hinkley import Settings as PageHinkleySettings
from stream.profiles.reference import Tables, compile_tables
from stream.stages.detect import power
from stream.stages.detect.plan import InputsPlan, plan
from stream.stages.detect.power import Power

HOUR_MS = 3_600_000
NOTHING: dict[tuple[str, str], tuple[float, float]] = {}


@pytest.fixture(scope="module")
def tables() -> Tables:
    return compile_tables(built())


@pytest.fixture(scope="module")
def own(tables: Tables) -> InputsPlan:
    return plan(detect_settings(), tables, None)


def of(found: Sequence[Power], signal: str, detector: str, measure: str, segment: str = "all") -> Power:
    (one,) = [
        one
        for one in found
        if (one.segment, one.signal, one.detector, one.measure) == (segment, signal, detector, measure)
    ]
    return one


def amount(own: InputsPlan, events: float, within_ms: int = HOUR_MS) -> float:
    """The shift of amount that is found at so many events per window; inf for none."""
    found = power.powers(own, {("all", "feature:amount"): (events, events)}, within_ms)
    size = of(found, "feature:amount", "histogram", "distribution").smallest
    return math.inf if size is None else size


def test_the_shares_of_a_version_are_part_of_its_own_and_follow_from_the_settings(own: InputsPlan) -> None:
    found = power.shares(own)
    assert sum(one.share for one in found) <= 1 / 64
    whole = next(one for one in found if (one.segment, one.kind) == ("all", "data_drift"))
    assert whole.share == 0.3 / 64 / 2
    assert whole.windows == pytest.approx(10_080 / whole.share)
    assert whole.members == 5


def test_thresholds_are_those_the_stage_judges_by(own: InputsPlan) -> None:
    found = power.powers(own, NOTHING, HOUR_MS)
    a = 10_080 / (0.3 / 64 / 2) * 5
    assert 10 ** of(found, "feature:amount", "histogram", "distribution").threshold == pytest.approx(a)
    assert of(found, "feature:amount", "adwin", "mean").threshold == pytest.approx(1 / (2 * 3 * a))
    hinkley = of(found, "feature:amount", "page_hinkley", "mean")
    assert 20 < hinkley.threshold < 200
    assert hinkley.smallest is None


def test_the_number_of_predictions_has_half_of_what_silence_may_spend(own: InputsPlan) -> None:
    spent, one = power.of_volume(own, {("all", "volume:predictions"): (300.0, 300.0)})
    assert (spent.share, spent.members) == (0.05 / 2 / 64 / 2, 1)
    assert 10**one.threshold == pytest.approx(spent.windows)
    assert (one.signal, one.events, one.smallest) == ("volume:predictions", 300.0, None)


def test_thresholds_that_were_set_by_hand_are_shown_as_they_are(tables: Tables) -> None:
    by_hand = detect_settings(
        adwin=AdwinSettings(form="textbook", delta=0.01),
        page_hinkley=PageHinkleySettings(form="textbook", threshold=33),
    )
    found = power.powers(plan(by_hand, tables, None), NOTHING, HOUR_MS)
    assert of(found, "latency", "adwin", "spread").threshold == 0.01
    assert of(found, "latency", "page_hinkley", "mean").threshold == 33


def test_every_signal_and_segment_has_its_line(own: InputsPlan) -> None:
    found = power.powers(own, NOTHING, HOUR_MS)
    assert {one.segment for one in found} == set(own.segments)
    assert {one.signal for one in found} == {column.signal for column in own.columns}
    assert {one.unit for one in found if one.signal == "feature:channel"} == {"share"}
    assert {one.unit for one in found if one.signal == "latency" and one.measure == "distribution"} == {"sd"}


def test_more_traffic_and_more_time_find_less(own: InputsPlan) -> None:
    sizes = [amount(own, events) for events in (3, 30, 300, 3_000, 30_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert amount(own, 300, 4 * HOUR_MS) < amount(own, 300) < amount(own, 300, HOUR_MS // 4)


def test_without_traffic_nothing_is_found_and_without_knowledge_of_it_nothing_is_said(own: InputsPlan) -> None:
    assert amount(own, 0) == math.inf
    blind = plan(detect_settings(), compile_tables(built(serving=False)), None)
    one = of(power.powers(blind, NOTHING, HOUR_MS), "feature:amount", "histogram", "distribution")
    assert (one.events, one.overdispersion, one.smallest) == (None, None, None)
    assert amount(blind, 300) < amount(own, 300)  # an overdispersion that is not known yet is 1


def test_a_larger_tolerance_hides_more(tables: Tables, own: InputsPlan) -> None:
    tolerant = plan(detect_settings(budget=BudgetSettings(tolerance=0.1)), tables, None)
    assert amount(tolerant, 3_000) > amount(own, 3_000) + 0.1


def test_windows_longer_than_the_time_are_granted_three(own: InputsPlan) -> None:
    assert amount(own, 3_000, 1) == amount(own, 3_000, 3 * 60_000)


def test_a_segment_that_is_not_judged_finds_nothing(own: InputsPlan) -> None:
    found = power.powers(own, {("country=other", "latency"): (1e6, 1e6)}, HOUR_MS)
    assert of(found, "latency", "histogram", "distribution", "country=other").smallest is None


# -- the promise -------------------------------------------------------------------------------------------------------


def windows_to_alarm(own: InputsPlan, q: Floats, n: int, seed: int) -> int:
    """Windows until the member alone crosses, drawn from the law q of amount."""
    rng, law = np.random.default_rng(seed), own.ordered.law
    one = histogram.law(law.p[:1], law.epsilon[:1], z=own.ordered.z[:1] if own.ordered.z is not None else None)
    state = histogram.start(1, q.shape[0], len(one.weights))
    for window in range(1, 200):
        counts: Ints = rng.multinomial(n, q)[None].astype(np.int64)
        phi, reason = np.ones(1), np.zeros(1, np.int8)
        state, verdicts = histogram.update(
            state, own.settings.histogram, histogram.Window(counts, one, phi, own.ordered.ln_threshold[:1], reason)
        )
        if verdicts.statistic[0] >= verdicts.threshold[0]:
            return window
    return 200


@pytest.mark.parametrize("n", [100, 1_000])
def test_a_shift_of_the_size_told_is_found_within_the_time_told(n: int) -> None:
    """Half of the time, and near the tolerance within half as much again: there the promise is too bold."""
    blind = plan(detect_settings(), compile_tables(built(serving=False)), None)
    size = amount(blind, n)
    q = power.shifted(blind.ordered.law.p[:1], np.array([size]))[0]
    delays = [windows_to_alarm(blind, q / q.sum(), n, seed) for seed in range(21)]
    assert 30 <= np.median(delays) <= 90


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=16), st.floats(0, 0.9))
def test_changed_laws_are_laws_and_have_changed_by_what_is_said(weights: list[float], part: float) -> None:
    p = np.array([weights]) / sum(weights)
    most = p.max()
    for size in (part * (1 - most), -part * most):
        q = power.gained(p, np.array([size]))
        assert q.sum() == pytest.approx(1)
        assert 0.5 * np.abs(q - p).sum() == pytest.approx(abs(size), abs=1e-9)
    moved: Any = power.shifted(p, np.array([4 * part]))
    assert moved.sum() == pytest.approx(1)
    assert moved[0].cumsum()[0] <= p[0, 0] + 1e-9
