"""What people decide: which windows it applies to, what it changes there, and that nothing else changes."""

from typing import Any

import pytest
from flows import MINUTE_MS, PER_WINDOW, START_MS, Flow, Json, Stream, built, detect_settings, same, view, window
from msgspec.structs import replace

from stream.alerts.policy import Settings as AlertSettings
from stream.profiles.learning import Settings as LearnSettings
from stream.profiles.reference import References
from stream.stages import detect
from stream.wire import codec
from stream.wire.control import Marker, Mute, Relearn, Resolve, Retrained
from stream.wire.internal import Reference
from stream.wire.outbound import fingerprint

MUTE, END = (12, 24), 45
"""Windows that are muted, and the one after which the stream ends."""
OVERALL = fingerprint("credit", "3", "all", "data_drift")


@pytest.fixture(scope="module")
def known() -> References:
    return view(built())


def at_ms(index: float) -> int:
    return START_MS + round(index * MINUTE_MS)


def mute(first: float = MUTE[0], last: float = MUTE[1], **changes: Any) -> Mute:
    return Mute(effective_at_ms=at_ms(first), until_ms=at_ms(last), **changes)


def drifting(first: int = MUTE[0], last: int | None = MUTE[1], **changes: Any) -> list[bytes]:
    back = None if last is None else last * PER_WINDOW
    return Stream(drift_at=first * PER_WINDOW, back_at=back, **changes).records(END * PER_WINDOW)


def told(flow: Flow, segment: str = "all") -> list[tuple[str, str]]:
    return [(one["kind"], one["status"]) for one in flow.alerts if one["segment"] == segment]


def muted(flow: Flow) -> set[str]:
    """Starts of the windows that say so."""
    return {one["window_start"] for one in flow.readings if any(v["reason"] == "muted" for v in one["verdicts"])}


def silent(flow: Flow) -> detect.State:
    """The state without what was said in muted windows."""
    return replace(flow.state, digest=0, tally=detect.State().tally)


def after(flow: Flow, index: int) -> list[Json]:
    return [one for one in flow.readings if one["window_start"] >= window(index)]


# -- mute --------------------------------------------------------------------------------------------------------------


def test_a_muted_holiday_raises_nothing_and_afterwards_detection_goes_on_at_once(known: References) -> None:
    holiday, later = drifting(), drifting(first=30, last=None)
    flow = Flow(known)
    flow.decide(mute())
    flow.run([*holiday[: 28 * PER_WINDOW], *later[28 * PER_WINDOW :]], poll=PER_WINDOW)
    assert {one["starts_at"] > window(30) for one in flow.alerts} == {True}
    first = next(one for one in flow.alerts if one["status"] == "firing" and one["segment"] == "all")
    assert first["starts_at"] <= window(34)
    assert first["change_point"]["at"] == window(30)
    assert muted(flow) == {window(index) for index in range(*MUTE)}
    assert len({one["window_start"] for one in flow.reading()}) >= END - 2, "readings go on"


def test_without_the_mute_the_same_holiday_is_an_alert(known: References) -> None:
    assert ("data_drift", "firing") in told(Flow(known).run(drifting(), poll=PER_WINDOW))


def test_what_happens_in_muted_windows_leaves_no_trace(known: References) -> None:
    flows = [Flow(known), Flow(known)]
    for flow, values in zip(flows, [drifting(), drifting(shift=0.0)], strict=True):
        flow.decide(mute())
        flow.run(values, poll=PER_WINDOW)
    assert after(flows[0], MUTE[0]) != after(flows[1], MUTE[0])
    assert after(flows[0], MUTE[1]) == after(flows[1], MUTE[1])
    assert same(silent(flows[0]), silent(flows[1]))


def test_a_mute_applies_to_windows_that_start_within_it(known: References) -> None:
    flow = Flow(known)
    flow.decide(mute(11.5, 13.5))
    flow.run(drifting(last=None), poll=PER_WINDOW)
    assert muted(flow) >= {window(12), window(13)}
    assert not muted(flow) & {window(11), window(14)}


def test_a_mute_says_nothing_to_windows_that_were_closed_before_it(known: References) -> None:
    flow, values = Flow(known), drifting(last=None)
    flow.run(values[: 20 * PER_WINDOW], poll=PER_WINDOW)
    before = list(flow.published)
    flow.decide(mute(0, 100))
    flow.run(values[20 * PER_WINDOW :], poll=PER_WINDOW)
    assert before
    assert flow.published[: len(before)] == before
    assert min(muted(flow)) >= window(18)


@pytest.mark.parametrize("changes", [{"model_id": "other"}, {"kinds": ["data_quality"]}])
def test_a_mute_of_something_else_changes_no_alert(known: References, changes: dict[str, Any]) -> None:
    plain, flow = Flow(known), Flow(known)
    flow.decide(mute(**changes))
    for one in (plain, flow):
        one.run(drifting(), poll=PER_WINDOW)
    assert [one for one in flow.alerts if one["kind"] == "data_drift"] == [
        one for one in plain.alerts if one["kind"] == "data_drift"
    ]


def test_what_was_firing_goes_on_and_returns_after_the_mute(known: References) -> None:
    flow = Flow(known)
    flow.decide(mute(18, 36))
    flow.run(drifting(first=8, last=20), poll=PER_WINDOW)
    drift = [one for one in flow.alerts if one["fingerprint"] == OVERALL and one["status"] != "notice"]
    assert drift[0]["status"] == "firing"
    assert drift[-1]["resolve_reason"] == "returned"
    assert drift[-1]["ends_at"] > window(36)


def test_what_is_pending_waits_for_the_end_of_the_mute_and_is_counted_once(known: References) -> None:
    pending = AlertSettings.model_validate({"pending_for": "8m"})
    flow = Flow(known, of_detect=detect_settings(alerts=pending))
    flow.decide(mute(16, 30, kinds=["data_drift"]))
    flow.run(drifting(first=10, last=None), poll=PER_WINDOW)
    firing = [one for one in flow.alerts if one["kind"] == "data_drift" and one["status"] == "firing"]
    assert {one["starts_at"] for one in firing if one["sequence"] == 0} == {window(31)}
    assert flow.state.tally.suppressed == len({one["segment"] for one in firing})


def test_outliers_are_kept_back_and_counted(known: References) -> None:
    values = drifting(last=None, shift=12.0)
    plain, flow = Flow(known).run(values, poll=PER_WINDOW), Flow(known)
    flow.decide(mute(12, 15))
    flow.run(values, poll=PER_WINDOW)

    def notices(of: Flow) -> set[str]:
        return {one["alert_id"] for one in of.alerts if "prediction_id" in one["details"]}

    assert notices(flow) < notices(plain)
    assert flow.state.tally.suppressed == len(notices(plain) - notices(flow))


def test_muted_windows_are_no_part_of_what_is_learned() -> None:
    learn = LearnSettings.model_validate({"rows": 900, "min_duration": "60m", "max_duration": "60m"})
    values = Stream(drift_at=10 * PER_WINDOW, back_at=30 * PER_WINDOW).records(110 * PER_WINDOW)
    flow = Flow(of_detect=detect_settings(learn=learn))
    flow.decide(mute(10, 30))
    flow.run(values, poll=PER_WINDOW)
    found = [codec.decode_reference(one.value or b"") for one in flow.of("references")]
    (learned,) = [one for one in found if isinstance(one, Reference) and one.complete]
    spanned = sum(learned.data_from <= window(index) < learned.data_to for index in range(110))
    assert learned.n_rows == (spanned - 20) * PER_WINDOW


# -- resolve -----------------------------------------------------------------------------------------------------------


def test_an_alert_that_is_resolved_by_hand_ends_as_operator_and_does_not_come_again_for_the_same_law(
    known: References,
) -> None:
    flow, values = Flow(known), drifting(last=None)
    flow.decide(Resolve(effective_at_ms=at_ms(25), fingerprint=OVERALL))
    flow.run(values, poll=PER_WINDOW)
    own = [one for one in flow.alerts if one["fingerprint"] == OVERALL]
    assert [one["status"] for one in own if one["status"] != "notice"][-1] == "resolved"
    assert (own[-1]["resolve_reason"], own[-1]["ends_at"]) == ("operator", window(26))
    others = [one for one in flow.alerts if one["fingerprint"] != OVERALL and one["kind"] == "data_drift"]
    assert all(one["resolve_reason"] is None for one in others)


def test_an_alert_that_was_resolved_by_hand_fires_again_when_the_drift_comes_again(known: References) -> None:
    flow = Flow(known)
    flow.decide(Resolve(effective_at_ms=at_ms(12), fingerprint=OVERALL))
    first, second = drifting(first=5, last=16), drifting(first=32, last=None)
    flow.run([*first[: 30 * PER_WINDOW], *second[30 * PER_WINDOW :]], poll=PER_WINDOW)
    own = [one for one in flow.alerts if one["fingerprint"] == OVERALL and one["status"] != "notice"]
    assert [one["status"] for one in own if one["sequence"] == 0] == ["firing", "firing"]
    assert own[-1]["starts_at"] > window(32)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_decisions_that_can_apply_no_more_are_forgotten(known: References) -> None:
    flow = Flow(known)
    flow.decide(
        mute(0, 3),
        mute(5, 200),
        Resolve(effective_at_ms=at_ms(1), fingerprint="0" * 16),
        Resolve(effective_at_ms=at_ms(3), fingerprint=OVERALL),
    )
    assert len(flow.state.decisions.held) == 4
    flow.run(Stream().records(10 * PER_WINDOW), poll=PER_WINDOW)
    assert [held.decision for held in flow.state.decisions.held.values()] == [mute(5, 200)]


def test_an_event_that_comes_twice_is_one_event(known: References) -> None:
    one, other = Flow(known), Flow(known)
    one.decide(mute())
    other.decide(mute())
    again = other.log[-1]
    other.state, _ = detect.step(other.of_detect, other.references, other.state, [again])
    assert same(one.state, other.state)


def test_answers_to_retrain_requests_are_remembered_and_markers_are_not(known: References) -> None:
    flow = Flow(known)
    first, second = (
        Retrained(effective_at_ms=0, alert_id=f"{digit:032x}", outcome="succeeded", model_version="4")
        for digit in (1, 2)
    )
    flow.decide(first, second, Marker(effective_at_ms=0, text="deploy"))
    assert flow.state.decisions.held == {}
    assert list(flow.state.decisions.retrained.values()) == [first, second]
    corrected = replace(first, outcome="failed")
    flow.decide(corrected)
    assert list(flow.state.decisions.retrained.values()) == [second, corrected]


def test_a_marker_changes_nothing(known: References) -> None:
    plain, marked = Flow(known), Flow(known)
    marked.decide(Marker(effective_at_ms=0, text="deploy", model_id="credit"))
    for flow in (plain, marked):
        flow.run(drifting(), poll=PER_WINDOW)
    assert same(plain.state, marked.state)


def test_a_restored_state_goes_on_exactly_like_the_original(known: References) -> None:
    whole, cut = Flow(known), Flow(known)
    for flow in (whole, cut):
        flow.decide(mute(), Resolve(effective_at_ms=at_ms(40), fingerprint=OVERALL))
        values = drifting(last=30)
        for first in range(0, len(values), PER_WINDOW):
            flow.read(values[first : first + PER_WINDOW])
            if flow is cut:
                flow.commit(restored)
            else:
                flow.commit()
    assert whole.published == cut.published
    assert same(whole.state, cut.state)


def restored(state: detect.State) -> detect.State:
    found = detect.decode(detect.encode(state))
    assert isinstance(found, detect.State)
    return found


# -- relearn -----------------------------------------------------------------------------------------------------------

RELEARN = 20
"""The window from which on another law is normal: the one that has come with window 8."""
SOON = LearnSettings.model_validate({"rows": 900, "min_duration": "60m", "max_duration": "90m"})


def relearn(index: float = RELEARN) -> Relearn:
    return Relearn(effective_at_ms=at_ms(index), model_id="credit", model_version="3")


def references(flow: Flow) -> list[Reference]:
    found = [codec.decode_reference(one.value or b"") for one in flow.of("references")]
    return [one for one in found if isinstance(one, Reference)]


@pytest.fixture(scope="module")
def relearned(known: References) -> Flow:
    """A drift for good that is called normal, and the old law again after that was learned."""
    flow = Flow(known, of_detect=detect_settings(learn=SOON))
    flow.decide(relearn())
    back = RELEARN + 120
    return flow.run(Stream(drift_at=8 * PER_WINDOW, back_at=back * PER_WINDOW).records((back + 8) * PER_WINDOW), 600)


def test_what_is_open_resolves_as_new_reference_when_learning_begins(relearned: Flow) -> None:
    own = [one for one in relearned.alerts if one["fingerprint"] == OVERALL and one["status"] != "notice"]
    resolved = next(one for one in own if one["status"] == "resolved")
    assert own[0]["status"] == "firing"
    assert resolved["resolve_reason"] == "new_reference"
    assert resolved["ends_at"] == window(RELEARN + 1)


def test_a_decision_that_is_dated_ahead_begins_exactly_then_with_other_cuts(relearned: Flow, known: References) -> None:
    blank, provisional, learned = references(relearned)
    assert (blank.effective_from, blank.signals, blank.complete) == (window(RELEARN), {}, False)
    assert (provisional.complete, learned.complete, learned.origin) == (False, True, "learned")
    assert provisional.data_from >= window(RELEARN)
    old = known.at("credit", "3", START_MS)
    assert old is not None
    assert provisional.signals["feature:amount"].edges != old.reference.signals["feature:amount"].edges
    told = {one["reference_id"] for one in relearned.reading() if one["window_start"] < window(RELEARN)}
    assert told == {old.reference.reference_id}


def test_afterwards_drift_is_against_the_recent_past(relearned: Flow) -> None:
    learned = references(relearned)[-1]
    later = [one for one in relearned.alerts if one["starts_at"] >= learned.effective_from and one["segment"] == "all"]
    firing = next(one for one in later if one["kind"] == "data_drift" and one["status"] == "firing")
    assert firing["starts_at"] > window(RELEARN + 120)
    assert (firing["reference_id"], firing["reference_origin"]) == (learned.reference_id, "learned")


def test_a_relearn_in_the_middle_of_learning_begins_it_anew() -> None:
    flow = Flow(of_detect=detect_settings(learn=SOON))
    flow.decide(relearn(30))
    flow.run(Stream(drift_at=15 * PER_WINDOW).records(60 * PER_WINDOW), poll=PER_WINDOW)
    found = references(flow)
    assert [(one.complete, bool(one.signals)) for one in found] == [(False, True), (False, False), (False, True)]
    assert found[2].data_from >= window(30) > found[0].data_to


def test_a_relearn_that_comes_again_has_had_what_it_wants(known: References) -> None:
    flow = Flow(known, of_detect=detect_settings(learn=SOON))
    values = Stream().records(40 * PER_WINDOW)
    flow.decide(relearn(5))
    flow.run(values[: 20 * PER_WINDOW], poll=PER_WINDOW)
    flow.decide(relearn(5))
    flow.run(values[20 * PER_WINDOW :], poll=PER_WINDOW)
    assert [one.effective_from for one in references(flow) if not one.signals] == [window(5)]


def test_a_relearn_of_another_version_changes_nothing(known: References) -> None:
    plain, flow = Flow(known), Flow(known)
    flow.decide(Relearn(effective_at_ms=at_ms(5), model_id="credit", model_version="4"))
    for one in (plain, flow):
        one.run(drifting(), poll=PER_WINDOW)
    assert flow.published == plain.published


def test_a_restored_relearner_goes_on_exactly_like_the_original(known: References) -> None:
    whole, cut = (Flow(known, of_detect=detect_settings(learn=SOON)) for _ in range(2))
    values = Stream(drift_at=8 * PER_WINDOW).records(32 * PER_WINDOW)
    for flow in (whole, cut):
        flow.decide(relearn(15))
        for first in range(0, len(values), PER_WINDOW):
            flow.read(values[first : first + PER_WINDOW])
            if flow is cut:
                flow.commit(restored)
            else:
                flow.commit()
    assert len(references(whole)) == 2
    assert whole.published == cut.published
    assert same(whole.state, cut.state)
