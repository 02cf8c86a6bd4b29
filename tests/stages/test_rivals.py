"""Champion and challenger: a notice when it is decided, per segment too, and an interval in every reading."""

import pytest
from labelled import MINUTE_MS, START_MS, Labelled
from outcomeflow import Json, Outcomed, settings, window_of

from stream.profiles import outcomes
from stream.signals.outcomes import ModelSettings
from stream.wire.internal import Outcomes

MODELS = {"credit": ModelSettings(champion="3", challengers=("4",))}
CHALLENGER = Labelled(seed=4, model_version="4", n=500)


def run(gain: float, windows: int, stream: Labelled = CHALLENGER, disagree: float = 0.1) -> Outcomed:
    flow = Outcomed(of_detect=settings(outcomes=MODELS))
    for index in range(windows):
        flow.send(parts(stream, index, gain, disagree), START_MS + (index + 1) * MINUTE_MS)
    return flow


def parts(stream: Labelled, index: int, gain: float, disagree: float = 0.1) -> list[Outcomes]:
    return outcomes.of_compared(stream.compared(index, gain, disagree))


def notices(flow: Outcomed, segment: str = "all") -> list[Json]:
    return [one for one in flow.alerts if (one["kind"], one["segment"]) == ("challenger", segment)]


def test_a_better_challenger_is_told_once_with_its_gain() -> None:
    flow = run(0.04, 20)
    (notice,) = notices(flow)
    details = notice["details"]
    assert (details["champion"], details["challenger"], details["decision"]) == ("3", "4", "challenger_better")
    assert details["gain"] == pytest.approx(0.04, abs=0.03)
    assert details["interval"][0] < details["gain"] < details["interval"][1]
    assert details["log10_e_value"] > 1.3
    assert details["n_pairs"] == 500 * (window_of(notice["updated_at"]) + 1)
    assert (notice["status"], notice["severity"], notice["model_version"]) == ("notice", "info", "4")


def test_a_worse_challenger_is_told_as_such() -> None:
    (notice,) = notices(run(-0.05, 20))
    assert notice["details"]["decision"] == "champion_better"
    assert notice["details"]["gain"] < 0


def test_no_difference_is_told_when_none_of_a_point_is_left() -> None:
    (notice,) = notices(run(0.0, 40, Labelled(seed=4, model_version="4", n=4_000), disagree=0.02))
    assert notice["details"]["decision"] == "no_difference_found"
    low, high = notice["details"]["interval"]
    assert -0.01 < low < 0 < high < 0.01


def test_segments_are_decided_on_their_own() -> None:
    flow = run(0.08, 30)
    assert [one["details"]["decision"] for one in notices(flow, "country=DE")] == ["challenger_better"]
    whole, own = notices(flow)[0], notices(flow, "country=DE")[0]
    assert whole["alert_id"] != own["alert_id"]
    assert own["details"]["n_pairs"] < whole["details"]["n_pairs"] * 10


def test_readings_have_the_gain_of_the_window_and_the_interval_since_the_start() -> None:
    flow = run(0.04, 12)
    readings = flow.reading("outcome:gain")
    assert len(readings) == 12
    widths = [one["interval"][1] - one["interval"][0] for one in readings]
    assert widths == sorted(widths, reverse=True)
    assert all(one["interval"][0] <= 0.04 <= one["interval"][1] for one in readings)
    assert readings[0]["verdicts"][0]["detector"] == "challenger"
    assert readings[-1]["verdicts"][0]["level"] == "drift"
    assert "interval" not in flow.reading("outcome:error")[0]


def test_a_window_without_answers_changes_nothing() -> None:
    flow = run(0.04, 3)
    before = flow.reading("outcome:gain")[-1]
    flow.send([], START_MS + 4 * MINUTE_MS)
    after = flow.reading("outcome:gain")[-1]
    assert (after["n"], after["mean"], after["interval"]) == (0, None, before["interval"])
