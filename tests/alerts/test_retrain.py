"""Retrain requests: asked for by what stands, with enough labels behind it, and not again too soon."""

from typing import Any

import pytest

from stream.alerts import retrain
from stream.alerts.retrain import Cause, Settings, State
from stream.wire.times import rfc3339

HOUR = 3_600_000
SETTINGS = Settings()


def cause(**given: Any) -> Cause:
    defaults: dict[str, Any] = {
        "alert_id": "a" * 32,
        "kind": "performance",
        "since_ms": HOUR,
        "firing_ms": 2 * HOUR,
        "n_rows": 9_000,
        "n_labels": 3_000,
    }
    return Cause(**{**defaults, **given})


def test_a_standing_alert_asks_once_it_has_settled_with_the_data_since_the_change() -> None:
    state, early = retrain.request(State(), SETTINGS, [cause()], 2 * HOUR + SETTINGS.settle - 1)
    assert early is None
    now_ms = 2 * HOUR + SETTINGS.settle
    state, found = retrain.request(state, SETTINGS, [cause()], now_ms)
    assert found is not None
    assert (found.reason, found.causes) == ("performance", ["a" * 32])
    assert (found.data_from, found.data_to) == (rfc3339(HOUR), rfc3339(now_ms))
    assert (found.n_rows, found.n_labels) == (9_000, 3_000)
    assert found.not_before == rfc3339(now_ms + SETTINGS.min_gap)
    assert state.requested_ms == now_ms


@pytest.mark.parametrize(
    "given",
    [{"kind": "data_drift"}, {"temporary": True}, {"n_labels": 999}],
    ids=["of a kind not chosen", "told to be temporary", "too few labels"],
)
def test_no_request_for_what_is(given: dict[str, Any]) -> None:
    assert retrain.request(State(), SETTINGS, [cause(**given)], 24 * HOUR)[1] is None


def test_an_alert_asks_no_second_time_unless_its_retraining_failed() -> None:
    state, _ = retrain.request(State(), SETTINGS, [cause()], 24 * HOUR)
    assert retrain.request(state, SETTINGS, [cause()], 240 * HOUR)[1] is None
    again = retrain.failed(state)
    assert retrain.request(again, SETTINGS, [cause()], 47 * HOUR)[1] is None
    assert retrain.request(again, SETTINGS, [cause()], 48 * HOUR)[1] is not None


def test_another_alert_asks_again_after_the_gap_and_names_all_that_stand() -> None:
    state, _ = retrain.request(State(), SETTINGS, [cause()], 24 * HOUR)
    both = [cause(), cause(alert_id="b" * 32, kind="concept_drift", since_ms=5 * HOUR, n_labels=2_000)]
    assert retrain.request(state, SETTINGS, both, 47 * HOUR)[1] is None
    state, found = retrain.request(state, SETTINGS, both, 48 * HOUR)
    assert found is not None
    assert (found.reason, found.causes) == ("concept_drift", ["a" * 32, "b" * 32])
    assert found.data_from == rfc3339(HOUR)
    assert set(state.named) == {"a" * 32, "b" * 32}


def test_the_order_of_the_causes_does_not_matter() -> None:
    both = [cause(), cause(alert_id="b" * 32, kind="concept_drift")]
    assert retrain.request(State(), SETTINGS, both, 24 * HOUR) == retrain.request(
        State(), SETTINGS, both[::-1], 24 * HOUR
    )
