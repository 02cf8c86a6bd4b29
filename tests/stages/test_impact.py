"""How urgent an alert of detect is: what changed, how much it matters, and how much of the traffic it concerns."""

from typing import Any

import numpy as np
import pytest
from flows import PER_WINDOW, START_MS, Flow, Json, Stream, built, detect_settings, view

from stream.alerts.policy import ModelSettings
from stream.alerts.policy import Settings as AlertSettings
from stream.profiles.reference import References
from stream.stages.detect.plan import plan
from stream.stages.detect.series import Past

DRIFT, END = 12, 30
"""Windows in which the drift begins, and after which the stream ends."""


@pytest.fixture(scope="module")
def known() -> References:
    return view(built())


def told(known: References, shift: float, end: int = END, **settings: Any) -> list[Json]:
    """What the life of one drift of amount and channel publishes, notices left out."""
    stream = Stream(drift_at=DRIFT * PER_WINDOW, shift=shift)
    flow = Flow(known, of_detect=detect_settings(**settings))
    flow.run(stream.records(end * PER_WINDOW), poll=PER_WINDOW)
    return [one for one in flow.alerts if one["status"] != "notice" and one["kind"] == "data_drift"]


def of(alerts: list[Json], segment: str = "all") -> list[str]:
    return [one["severity"] for one in alerts if one["segment"] == segment]


def test_a_drift_of_half_a_deviation_is_a_ticket_and_one_of_three_a_page(known: References) -> None:
    assert of(told(known, 0.5)) == ["warning"]
    large = told(known, 3.0)
    assert of(large) == ["critical"]
    described = large[0]["annotations"]["description"]
    assert "It concerns about" in described
    assert described.endswith("% of the model's events.")


def test_what_is_as_urgent_as_its_kind_needs_no_reason(known: References) -> None:
    assert "It concerns" not in told(known, 0.5)[0]["annotations"]["description"]


def test_a_segment_counts_with_its_share_of_the_traffic(known: References) -> None:
    """The country DE has about a third of the events: three deviations of a third are no page."""
    assert of(told(known, 3.0), "country=DE") == ["warning"]


def test_the_owner_of_a_model_says_what_matters(known: References) -> None:
    careless = {"credit": {"feature:amount": 0.0, "feature:channel": 0.0, "feature:ratio": 0.0, "row:distance": 0.0}}
    assert of(told(known, 1.0, importance={"credit": {"feature:amount": 3.0}})) == ["critical"]
    assert of(told(known, 1.0, importance=careless)) == ["info"]
    assert of(told(known, 1.0, importance={"other": {"feature:amount": 3.0}})) == ["warning"]


def test_the_operator_overrules_it(known: References) -> None:
    assert of(told(known, 3.0, alerts=AlertSettings(severity={"data_drift": "warning"}))) == ["warning"]
    assert of(told(known, 0.5, models={"credit": ModelSettings(severity={"data_drift": "critical"})})) == ["critical"]


def test_a_change_that_grows_is_told_as_more_urgent(known: References) -> None:
    """The first step is a ticket, a second one makes it a page."""
    small = Stream(drift_at=DRIFT * PER_WINDOW, shift=0.6)
    large = Stream(drift_at=0, shift=4.0)
    flow = Flow(known, of_detect=detect_settings(alerts=AlertSettings.model_validate({"update_interval": "1m"})))
    flow.run(small.records(30 * PER_WINDOW), poll=PER_WINDOW)
    flow.run(large.records(60 * PER_WINDOW, first=30 * PER_WINDOW), poll=PER_WINDOW)
    found = [one for one in flow.alerts if one["kind"] == "data_drift" and one["segment"] == "all"]
    severities = [one["severity"] for one in found if one["status"] == "firing"]
    assert severities[0] == "warning"
    assert severities[-1] == "critical"
    assert severities == sorted(severities, key=["info", "warning", "critical"].index)


def test_the_size_of_a_change_is_its_total_variation_or_the_change_of_the_rate(known: References) -> None:
    tables = known.at("credit", "3", START_MS)
    assert tables is not None
    own = plan(detect_settings(), tables, None)
    ordered, rates = own.ordered, own.rates
    expected = np.round(ordered.law.p[:1] * 1_000_000).astype(np.int64)
    one = np.array([0])
    assert ordered.distance(one, Past(expected))[0] < 1e-4
    turned = np.zeros_like(expected)
    turned[0, 0] = 1_000_000
    assert ordered.distance(one, Past(turned))[0] == pytest.approx(1 - ordered.law.p[0, 0], abs=1e-4)
    mean = float(rates.law.mean[0])
    half = np.array([[1_000_000, 500_000]])
    assert rates.distance(one, Past(half))[0] == pytest.approx(0.5 - mean, abs=1e-4)
