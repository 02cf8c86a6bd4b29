"""What detect makes of outcomes: readings, alerts that tell what moved and where the loss is, requests to retrain."""

from typing import Any

import numpy as np
import pytest
from labelled import MINUTE_MS, START_MS, Labelled, Law
from outcomeflow import HOUR_MS, Json, Outcomed, heard, reference, settings, window_of

from stream.alerts.policy import Settings as AlertSettings
from stream.alerts.retrain import Settings as RetrainSettings
from stream.profiles import outcomes
from stream.profiles.learning import Settings as LearnSettings
from stream.signals.outcomes import ModelSettings
from stream.stages import detect
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.control import ControlEvent, Mute, Resolve, Retrained
from stream.wire.internal import CONTROL, Outcomes, Reference
from stream.wire.outbound import fingerprint
from stream.wire.times import rfc3339

CHANGE = 30
KINDS = ("performance", "concept_drift", "data_quality")


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference(Labelled(seed=99))


def changed(known: Reference, law: Law, windows: int = 60, **given: Any) -> Outcomed:
    """A stream whose law changes in window `CHANGE`."""
    stream = Labelled(**{"seed": 2, "changes": {CHANGE: law}, **given})
    return Outcomed(references=heard(known)).run(stream, windows)


def urgent(flow: Outcomed) -> list[Json]:
    return [one for one in flow.alerts if one["severity"] != "info"]


# -- readings ----------------------------------------------------------------------------------------------------------


def test_a_window_has_a_reading_per_segment_and_signal(known: Reference) -> None:
    flow = changed(known, Law(), 2)
    names = ["error", "residual", "confusion", "delay", "coverage"]
    found = [(one["segment"], one["signal"]) for one in flow.readings() if one["window_start"] == rfc3339(START_MS)]
    own = [(segment, f"outcome:{name}") for segment in ("all", "country=AT", "country=DE") for name in names]
    assert found == [("all", "volume:feedback"), *own]


def test_readings_say_what_the_pairs_of_the_window_say(known: Reference) -> None:
    stream = Labelled(seed=2)
    flow, window = changed(known, Law(), 1), stream.window(0)
    row = window.segments.index("all")
    (error,), (delay,), (coverage,) = (flow.reading(f"outcome:{name}") for name in ("error", "delay", "coverage"))
    assert (error["n"], error["mean"]) == (300, pytest.approx(window.wrong[row] / 300))
    assert error["counts"] == [300 - window.wrong[row], window.wrong[row], 0, 0]
    assert error["metrics"]["accuracy"] == pytest.approx(1 - error["mean"])
    assert error["metrics"]["delay_p50_seconds"] == pytest.approx(delay["p50"])
    assert (coverage["n"], coverage["mean"]) == (300, pytest.approx(window.labelled[row] / 300))
    assert sum(delay["counts"]) == 300
    assert [one["detector"] for one in error["verdicts"]] == ["mean", "adwin", "page_hinkley"]
    (confusion,), (residual,) = flow.reading("outcome:confusion"), flow.reading("outcome:residual")
    assert confusion["counts"] == window.confusion[row].reshape(-1).tolist()
    assert abs(residual["mean"]) < 0.1
    assert [one["measure"] for one in residual["verdicts"]] == ["mean", "spread", *(f"range_{k}" for k in range(1, 5))]


def test_an_empty_window_is_told_as_empty(known: Reference) -> None:
    flow = changed(known, Law(), 1)
    flow.send([], START_MS + 3 * MINUTE_MS)
    assert [one["n"] for one in flow.reading("outcome:error")] == [300, 0, 0]
    assert flow.reading("outcome:error")[-1]["mean"] is None
    assert flow.reading("outcome:error")[-1]["verdicts"][0]["reason"] == "empty"


def test_without_a_reference_readings_say_how_the_model_does_and_why_nothing_is_judged() -> None:
    flow = Outcomed().run(Labelled(), 3)
    (first, *_) = flow.reading("outcome:error")
    assert first["metrics"]["accuracy"] is not None
    assert first["reference_id"] is None
    assert (first["level"], first["verdicts"][0]["reason"]) == ("not_ready", "no_reference")
    assert not flow.reading("outcome:residual")


# -- alerts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_inputs_that_move_under_a_calibrated_model_are_no_concept_drift(known: Reference, seed: int) -> None:
    assert not urgent(changed(known, Law(inputs=1.5), 90, seed=seed))


def test_a_changed_relation_is_told_once_with_its_residual_and_since_when(known: Reference) -> None:
    flow = changed(known, Law(relation=-1.0))
    (alert,) = flow.firing("concept_drift")
    assert CHANGE <= window_of(alert["updated_at"]) <= CHANGE + 8
    assert alert["severity"] == "critical"
    assert alert["details"]["residual"] == pytest.approx(-0.16, abs=0.04)
    low, high = alert["details"]["interval"]
    assert low < alert["details"]["residual"] < high < 0
    assert (alert["details"]["inputs_moved"], alert["details"]["labels_moved"]) == (False, True)
    assert alert["change_point"]["at"] == rfc3339(START_MS + CHANGE * MINUTE_MS)
    assert alert["reference_origin"] == "built"
    assert alert["signals"][0]["signal"] == "outcome:residual"
    assert alert["signals"][0]["before"]["mean"] == 0
    assert not [one for one in flow.alerts if one["status"] == "resolved"]


def test_a_model_that_means_the_opposite_loses_performance_and_the_relation_has_moved(known: Reference) -> None:
    flow = changed(known, Law(flipped=True))
    (alert,) = flow.firing("performance")
    details = alert["details"]
    assert window_of(alert["updated_at"]) <= CHANGE + 2
    assert details["metric"] == "error_rate"
    assert details["after"] - details["before"] > 0.3
    assert details["interval"][0] < details["after"] < details["interval"][1]
    assert (details["n_pairs"], details["confidence"]) == (2 * 300, 0.95)
    assert details["coverage"] == pytest.approx(0.8, abs=0.1)
    assert details["label_delay_p50_seconds"] == pytest.approx(30, rel=0.1)
    assert details["relation_moved"]


def test_fewer_errors_are_told_as_information_and_ask_for_nothing() -> None:
    worse = reference(Labelled(seed=99, changes={0: Law(flipped=True)}))
    flow = Outcomed(references=heard(worse)).run(Labelled(seed=2), 40)
    (alert,) = flow.firing("performance")
    assert alert["severity"] == "info"
    assert alert["details"]["damage"] == []
    assert "performance" not in {one["details"].get("reason") for one in flow.alerts if one["kind"] == "retrain"}


def test_a_regression_is_judged_by_the_size_of_its_errors() -> None:
    stream = Labelled(seed=2, regression=True, changes={CHANGE: Law(noise=1.5)})
    flow = Outcomed(references=heard(reference(Labelled(seed=99, regression=True)))).run(stream, 60)
    (alert,) = flow.firing("performance")
    details = alert["details"]
    assert (details["metric"], details["before"]) == ("mae", pytest.approx(0.8, abs=0.01))
    assert details["after"] == pytest.approx(1.2, abs=0.1)
    assert details["interval"][0] < details["after"] < details["interval"][1]
    assert not flow.firing("concept_drift")


def test_later_and_fewer_labels_are_a_matter_of_quality_with_an_alert_of_their_own(known: Reference) -> None:
    flow = changed(known, Law(delay_ms=90_000, labelled=0.5))
    (alert,) = flow.firing("data_quality")
    checks = {one["signal"]: one for one in alert["details"]["checks"]}
    late, labelled = checks["outcome:delay"], checks["outcome:coverage"]
    assert late["check"] == "late"
    assert late["rate"] > 0.9
    assert late["reference_rate"] == pytest.approx(0.5, abs=0.1)
    assert (labelled["check"], labelled["rate"]) == ("labelled", pytest.approx(0.5, abs=0.05))
    assert alert["labels"]["scope"] == "labels"
    assert alert["fingerprint"] != fingerprint("credit", "3", "all", "data_quality")
    assert "labels later than the usual median 4" in alert["annotations"]["summary"]
    assert alert["annotations"]["action"].startswith("Check whoever sends the labels")
    assert {one["kind"] for one in urgent(flow)} == {"data_quality"}


def test_the_loss_is_traced_to_the_segment_that_has_it(known: Reference) -> None:
    flow = changed(known, Law(flipped=True, only="country=DE"), 80)
    (alert,) = flow.firing("performance")
    assert "Most of it comes from country=DE" in alert["annotations"]["description"]
    first, *_ = alert["details"]["damage"]
    assert (first["segment"], first["scores"]) == ("country=DE", None)
    assert first["share"] > 0.8
    assert first["n"] > 0
    shares = [one["share"] for one in alert["details"]["damage"]]
    assert shares == sorted(shares, reverse=True)
    assert flow.firing("performance", "country=DE")
    assert not flow.firing("performance", "country=AT")


def test_the_loss_is_traced_to_the_scores_that_have_it(known: Reference) -> None:
    flow = changed(known, Law(relation=-2.5, above=0.72), 80)
    (alert,) = flow.firing("performance")
    ranges = [one for one in alert["details"]["damage"] if one["scores"] is not None]
    assert ranges[0]["scores"][1] == 1.0
    assert ranges[0]["share"] > 0.8


def test_errors_that_return_resolve_the_alert(known: Reference) -> None:
    stream = Labelled(seed=2, changes={CHANGE: Law(flipped=True), CHANGE + 10: Law()})
    flow = Outcomed(references=heard(known)).run(stream, 80)
    ended = [(one["kind"], one["resolve_reason"]) for one in flow.alerts if one["status"] == "resolved"]
    assert set(ended) == {("performance", "returned"), ("concept_drift", "returned")}


def test_another_reference_resolves_what_is_open_and_is_judged_by_from_then_on(known: Reference) -> None:
    flow = changed(known, Law(flipped=True), 40)
    fresh = reference(Labelled(seed=98, changes={0: Law(flipped=True)}))
    flow.references = heard(known, fresh)
    before = len(flow.alerts)
    flow.run(Labelled(seed=2, changes={0: Law(flipped=True)}), 20, first=40)
    new = flow.alerts[before:]
    assert {(one["kind"], one["resolve_reason"]) for one in new if one["status"] == "resolved"} == {
        ("performance", "new_reference"),
        ("concept_drift", "new_reference"),
    }
    assert not flow.state.outcomes["credit", "3"].watch.episodes  # type: ignore[union-attr]
    assert flow.reading("outcome:error")[-1]["reference_id"] == fresh.reference_id


def test_a_reference_that_does_not_know_serving_goes_no_further_than_a_warning_for_a_hundred_windows() -> None:
    blind = reference(Labelled(seed=99), serving=False)
    flow = Outcomed(references=heard(blind)).run(Labelled(seed=2, changes={50: Law(flipped=True)}), 99)
    assert not urgent(flow)
    assert "warning" in {one["level"] for one in flow.reading("outcome:error")}


def test_a_reference_that_does_not_know_serving_learns_it_from_a_hundred_windows() -> None:
    blind = reference(Labelled(seed=99), serving=False)
    flow = Outcomed(references=heard(blind)).run(Labelled(seed=2, changes={105: Law(flipped=True)}), 115)
    (alert,) = flow.firing("performance")
    assert window_of(alert["updated_at"]) <= 107


# -- learning ----------------------------------------------------------------------------------------------------------

LEARN = {"learn": LearnSettings.model_validate({"min_duration": "1m"}), "horizon": 10 * MINUTE_MS}


def test_what_was_learned_is_published_and_in_force_from_the_next_window_on() -> None:
    flow = Outcomed(of_detect=settings(**LEARN)).run(Labelled(seed=2), 115)
    (published,) = flow.of("references")
    assert b'"scope":"outcomes"' in (published.value or b"")
    ids = [one["reference_id"] for one in flow.reading("outcome:error")]
    assert ids.index(next(filter(None, ids))) == 110
    assert len(set(ids[110:])) == 1
    assert {one["verdicts"][0]["reason"] for one in flow.reading("outcome:error")[:110]} == {"no_reference", "learning"}


def test_when_a_learned_reference_is_heard_of_does_not_matter() -> None:
    stream = Labelled(seed=2, changes={130: Law(flipped=True)})
    flows = [Outcomed(of_detect=settings(**LEARN)) for _ in range(2)]
    deaf = flows[1]
    for index in range(140):
        for flow in flows:
            flow.send([stream.window(index)], stream.at(index) + MINUTE_MS)
        deaf.references = heard()
    assert flows[0].published == deaf.published
    assert deaf.firing("performance")


# -- state -------------------------------------------------------------------------------------------------------------


def test_outcomes_may_come_in_any_pieces_and_order(known: Reference) -> None:
    stream = Labelled(seed=2, changes={10: Law(flipped=True)})
    whole = Outcomed(references=heard(known)).run(stream, 20)
    cut = Outcomed(references=heard(known))
    rng = np.random.default_rng(1)
    parts = [part for index in range(20) for part in pieces(stream, index)]
    cut.send([parts[place] for place in rng.permutation(len(parts))], START_MS + 20 * MINUTE_MS)
    assert sorted(record.value or b"" for record in whole.published) == sorted(
        record.value or b"" for record in cut.published
    )


def pieces(stream: Labelled, index: int) -> list[Outcomes]:
    """The same window as pairs and ends of horizons apart."""
    return [*outcomes.of_pairs(stream.met(index), ModelSettings()), *outcomes.of_ended(stream.ended(index))]


def test_a_state_goes_on_after_it_was_written_down(known: Reference) -> None:
    stream = Labelled(seed=2, changes={10: Law(flipped=True)})
    whole, half = (Outcomed(references=heard(known)) for _ in range(2))
    whole.run(stream, 24)
    half.run(stream, 12)
    restored = detect.decode(detect.encode(half.state))
    assert not isinstance(restored, Malformed)
    half.state = restored
    half.run(stream, 12, first=12)
    assert half.published == whole.published
    assert detect.digest(half.state) == detect.digest(whole.state)


def test_outcomes_of_closed_windows_are_refused(known: Reference) -> None:
    flow = changed(known, Law(), 5)
    flow.send([Labelled(seed=3).window(2)], START_MS + 6 * MINUTE_MS)
    assert flow.state.refused == 1


def test_a_version_whose_labels_have_stopped_is_forgotten(known: Reference) -> None:
    retiring = settings(alerts=AlertSettings.model_validate({"retire_after": "1h"}))
    flow = Outcomed(references=heard(known), of_detect=retiring).run(Labelled(seed=2), 2)
    flow.send([], START_MS + 2 * HOUR_MS)
    assert flow.state.outcomes == {}


# -- what is asked for -------------------------------------------------------------------------------------------------


def test_a_lasting_loss_asks_for_a_new_model_once_with_the_data_since_the_change(known: Reference) -> None:
    flow = changed(known, Law(flipped=True), 80)
    (request,) = [one for one in flow.alerts if one["kind"] == "retrain"]
    (firing,) = flow.firing("performance")
    details = request["details"]
    assert firing["alert_id"] in details["causes"]
    assert details["data_from"] == rfc3339(START_MS + CHANGE * MINUTE_MS)
    assert details["n_labels"] >= 1_000
    assert window_of(request["updated_at"]) >= window_of(firing["updated_at"]) + 10
    assert request["status"] == "notice"
    (span,) = request["evidence_offsets"]
    assert (span["topic"], span["first_offset"]) == ("feedback", CHANGE * 300)
    assert span["last_offset"] == (window_of(request["updated_at"]) + 1) * 300 - 1


def test_no_request_without_labels_enough(known: Reference) -> None:
    asking = settings(retrain=RetrainSettings(min_labels=1_000_000))
    stream = Labelled(seed=2, changes={CHANGE: Law(flipped=True)})
    flow = Outcomed(references=heard(known), of_detect=asking).run(stream, 80)
    assert not [one for one in flow.alerts if one["kind"] == "retrain"]


# -- labels that stop --------------------------------------------------------------------------------------------------


def test_labels_that_stop_coming_are_a_silence_of_their_own_until_they_are_back(known: Reference) -> None:
    flow = Outcomed(references=heard(known)).run(Labelled(seed=2), 110)
    for index in range(110, 116):
        flow.send([], START_MS + (index + 1) * MINUTE_MS)
    (alert,) = flow.firing("silence")
    details = alert["details"]
    assert details["what"] == "feedback"
    assert details["last_seen"] == rfc3339(START_MS + 110 * MINUTE_MS)
    assert details["expected_per_window"] == pytest.approx(300, rel=0.05)
    assert window_of(alert["updated_at"]) <= 113
    assert (alert["severity"], alert["labels"]["scope"]) == ("critical", "labels")
    assert alert["fingerprint"] != fingerprint("credit", "3", "all", "silence")
    flow.run(Labelled(seed=2), 12, first=116)
    assert [one["resolve_reason"] for one in flow.alerts if one["status"] == "resolved"] == ["returned"]
    volume = flow.reading("volume:feedback")
    assert [one["n"] for one in volume[108:118]] == [300, 300, *[0] * 6, 300, 300]


# -- what people decide ------------------------------------------------------------------------------------------------


def decided(flow: Outcomed, decision: Any) -> None:
    event = ControlEvent(source="/test", id="1", decision=decision)
    flow.step([codec.encode(event, CONTROL)])


def test_a_muted_window_neither_bets_nor_asks(known: Reference) -> None:
    flow = Outcomed(references=heard(known))
    until_ms = START_MS + 60 * MINUTE_MS
    decided(flow, Mute(effective_at_ms=START_MS, until_ms=until_ms, model_id=None, kinds=[], reason="holidays"))
    flow.run(Labelled(seed=2, changes={10: Law(flipped=True)}), 40)
    assert flow.alerts == []
    assert flow.reading("outcome:error")[20]["verdicts"][0]["reason"] == "muted"


def test_a_person_ends_an_alert_on_labels(known: Reference) -> None:
    flow = changed(known, Law(delay_ms=90_000), 36)
    (alert,) = flow.firing("data_quality")
    at_ms = START_MS + 36 * MINUTE_MS
    decided(flow, Resolve(effective_at_ms=at_ms, fingerprint=alert["fingerprint"], reason="known"))
    flow.run(Labelled(seed=2, changes={CHANGE: Law(delay_ms=90_000)}), 2, first=36)
    assert [one["resolve_reason"] for one in flow.alerts if one["status"] == "resolved"] == ["operator"]


def test_a_retraining_that_failed_is_asked_for_again(known: Reference) -> None:
    asking = settings(retrain=RetrainSettings.model_validate({"min_gap": "5m", "settle": "1m"}))
    stream = Labelled(seed=2, changes={10: Law(flipped=True)})
    flow = Outcomed(references=heard(known), of_detect=asking).run(stream, 40)
    (request,) = [one for one in flow.alerts if one["kind"] == "retrain"]
    decided(flow, Retrained(effective_at_ms=START_MS, alert_id=request["alert_id"], outcome="failed"))
    flow.run(stream, 10, first=40)
    requests = [one for one in flow.alerts if one["kind"] == "retrain"]
    assert [window_of(one["updated_at"]) for one in requests[1:]] == [40]
