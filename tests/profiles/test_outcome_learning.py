"""A reference of outcomes is learned after one horizon, from enough pairs, and labelled rows make the same."""

import numpy as np
import pytest
from labelled import MINUTE_MS, START_MS, Labelled, Law

from stream.profiles import outcome_learning, outcomes
from stream.profiles.learning import Settings
from stream.profiles.outcome_learning import State
from stream.wire.internal import Outcomes, Reference
from stream.wire.times import rfc3339

HORIZON_MS = 30 * MINUTE_MS
SETTINGS = Settings.model_validate({"min_duration": "1m", "max_duration": "200m"})


def learned(windows: list[Outcomes], settings: Settings = SETTINGS) -> tuple[int, Reference] | None:
    """After how many windows there was a reference, and it."""
    state = State()
    for count, window in enumerate(windows, start=1):
        state, found = outcome_learning.counted(
            state,
            settings,
            window,
            horizon_ms=HORIZON_MS,
            size_ms=MINUTE_MS,
            effective_from_ms=window.window_start_ms + 3 * MINUTE_MS,
        )
        if found is not None:
            assert state == State(since_ms=state.since_ms)
            return count, found
    return None


def test_the_first_horizon_is_left_alone_and_then_a_hundred_windows_are_wanted() -> None:
    found = learned(Labelled().windows(140))
    assert found is not None
    count, reference = found
    assert count == 130
    assert (reference.origin, reference.scope, reference.n_rows) == ("learned", "outcomes", 100 * 300)
    assert reference.effective_from == rfc3339(START_MS + 132 * MINUTE_MS)


def test_the_horizon_begins_with_the_first_pairs() -> None:
    empty = [outcomes.empty("credit", "3", START_MS + index * MINUTE_MS) for index in range(50)]
    found = learned([*empty, *Labelled().windows(140, first=50)])
    assert found is not None
    assert found[0] == 50 + 130


def test_few_pairs_end_the_learning_only_when_it_has_lasted() -> None:
    found = learned(Labelled(n=20).windows(260))
    assert found is not None
    assert (found[0], found[1].n_rows) == (230, 200 * 20)


def test_nothing_is_learned_from_less_than_a_thousand_pairs() -> None:
    assert learned(Labelled(n=4).windows(270)) is None


def test_pairs_that_share_causes_are_waited_for() -> None:
    rng = np.random.default_rng(4)
    level = {index: Law(relation=float(move)) for index, move in enumerate(0.8 * rng.standard_normal(300))}
    found = learned(Labelled(n=200, changes=level).windows(300))
    calm = learned(Labelled(n=200).windows(300))
    assert calm is not None
    assert found is not None
    assert found[0] > calm[0]
    known = found[1].outcomes
    assert known is not None
    assert known.serving["all"]["outcome:residual mean"][0] > 2
    assert known.serving["all"]["outcome:residual mean"][1] == pytest.approx(200)


def test_independent_pairs_have_no_overdispersion_in_any_segment() -> None:
    found = learned(Labelled().windows(140))
    assert found is not None
    known = found[1].outcomes
    assert known is not None
    assert set(known.serving) == {"all", "country=AT", "country=DE"}
    assert max(phi for own in known.serving.values() for phi, _ in own.values()) < 2.2


def test_labelled_rows_make_a_reference_whatever_way_they_are_cut() -> None:
    windows = Labelled().windows(120)
    made = [
        outcome_learning.built(
            cut, serving=True, size_ms=MINUTE_MS, effective_from_ms=START_MS, data_ms=(START_MS, START_MS + 1)
        )
        for cut in (windows, windows)
    ]
    assert made[0] == made[1]
    assert made[0].n_rows == 120 * 300
    assert made[0].window_rows == 300


def test_rows_that_are_no_log_of_serving_leave_overdispersion_unknown() -> None:
    found = outcome_learning.built(
        Labelled().windows(20), serving=False, size_ms=MINUTE_MS, effective_from_ms=START_MS, data_ms=(0, 1)
    )
    assert found.outcomes is not None
    assert found.outcomes.serving == {}


def test_too_few_labelled_rows_make_none() -> None:
    with pytest.raises(ValueError, match="1000 labelled rows, not 900"):
        outcome_learning.built(
            Labelled().windows(3), serving=True, size_ms=MINUTE_MS, effective_from_ms=START_MS, data_ms=(0, 1)
        )
