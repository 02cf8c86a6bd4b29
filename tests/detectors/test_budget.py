"""The budget: shares never sum to more than the whole, thresholds follow, attribution ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.detectors import budget, ln_sum


@given(st.integers(0, 12).map(lambda x: 2**x), st.integers(0, 300))
def test_shares_of_a_full_fleet_sum_to_at_most_one(versions: int, values: int) -> None:
    settings = budget.Settings(model_versions=versions)
    total = 0.0
    for kind in budget.KIND_SHARES:
        total += budget.share(settings, kind, segment_values=values, whole=True)
        total += values * budget.share(settings, kind, segment_values=values, whole=False)
    assert total * versions <= 1 + 1e-12


def test_the_share_of_the_contract_is_met() -> None:
    settings = budget.Settings()
    assert budget.share(settings, "data_drift", segment_values=8, whole=False) == pytest.approx(0.00029296875)


def test_the_worked_example_holds() -> None:
    settings = budget.Settings()
    part = budget.share(settings, "data_drift", segment_values=0, whole=True)
    assert budget.ln_threshold(settings, 60_000, part) == pytest.approx(14.58, abs=0.01)


def test_a_budget_of_every_window_has_the_threshold_one() -> None:
    assert budget.ln_threshold(budget.Settings(false_alarms=1e6), 60_000, 1.0) == 0.0


def test_only_powers_of_two_count_versions() -> None:
    with pytest.raises(ValidationError, match="power of two"):
        budget.Settings(model_versions=48)


def test_a_member_alone_crosses_at_its_displayed_threshold() -> None:
    weights = budget.ln_weights(20)
    alone = np.full(20, -np.inf)
    alone[3] = 10.0 - weights[3]
    assert ln_sum(alone + weights) == pytest.approx(10.0)


def test_a_group_is_never_later_than_a_member() -> None:
    weights = budget.ln_weights(3)
    assert ln_sum(np.array([5.0, 5.0, 5.0]) + weights) == pytest.approx(5.0)


def test_those_with_evidence_are_listed_and_nobody_else() -> None:
    ln_m = np.array([1.0, 30.0, -np.inf, 20.0, 2.0])
    order, shown = budget.listed(ln_m, np.full(5, 12.0))
    assert order.tolist() == [1, 3]
    assert shown.all()


def test_without_any_evidence_the_first_three_contribute() -> None:
    order, shown = budget.listed(np.array([0.1, 0.3, 0.2, 0.0]), np.full(4, 12.0))
    assert order.tolist() == [1, 2, 0]
    assert not shown.any()
