"""Predictions that stop coming: one alert, its end, its readings, with references that know serving and without."""

from typing import Any

import orjson
import pytest
from flows import MINUTE_MS, PER_WINDOW, START_MS, Flow, Json, Stream, built, detect_settings, moved, same, view, window
from msgspec.structs import replace

from stream.alerts.policy import ModelSettings
from stream.profiles.reference import References
from stream.stages import detect
from stream.stages.detect import silence
from stream.stages.detect.decisions import Orders
from stream.stages.detect.state import Version
from stream.wire.codec import Malformed
from stream.wire.outbound import fingerprint

STOP = 10
"""Windows until the silence."""


@pytest.fixture(scope="module")
def known() -> References:
    return view(built())


def silent(known: References, windows: int = 8, stop: int = STOP, **settings: Any) -> Flow:
    """A stream that stops; an idle partition goes on telling the time."""
    flow = Flow(known, of_detect=detect_settings(**settings)).run(Stream().records(stop * PER_WINDOW), poll=PER_WINDOW)
    for index in range(stop, stop + windows):
        pause(flow, index)
    return flow


def pause(flow: Flow, index: int) -> None:
    flow.tick(START_MS + (index + 1) * MINUTE_MS + flow.of_detect.windows.lateness)
    flow.commit()


def told(flow: Flow) -> list[Json]:
    return [one for one in flow.alerts if one["kind"] == "silence"]


def test_a_stream_that_stops_is_told_after_two_windows_once(known: References) -> None:
    (alert,) = told(silent(known))
    assert (alert["status"], alert["severity"], alert["segment"]) == ("firing", "critical", "all")
    assert alert["starts_at"] == window(STOP + 2)
    assert alert["details"] == {
        "what": "predictions",
        "last_seen": window(STOP),
        "expected_per_window": pytest.approx(300, rel=0.05),
        "windows": 2,
    }
    assert "no predictions for 2 windows" in alert["annotations"]["summary"]
    (entry,) = alert["signals"]
    assert (entry["signal"], entry["measure"], entry["detector"]) == ("volume:predictions", "rate", "silence")
    assert (entry["n"], entry["direction"], entry["after"]["mean"]) == (0, "down", 0.0)
    assert alert["evidence_offsets"][0]["last_offset"] == STOP * PER_WINDOW - 1
    assert alert["budget"]["share"] == pytest.approx(0.05 / 2 / 64 / 2)


def test_the_readings_say_how_many_came_and_how_many_were_expected(known: References) -> None:
    found = silent(known, windows=3).reading("volume:predictions")
    assert [one["n"] for one in found] == [PER_WINDOW] * STOP + [0] * 3
    assert all(one["reference_mean"] == pytest.approx(300, rel=0.05) for one in found)
    assert [one["level"] for one in found[STOP:]] == ["ok", "drift", "drift"]
    assert [one["alert_id"] is not None for one in found[STOP:]] == [False, True, True]
    (verdict,) = found[0]["verdicts"]
    assert (verdict["measure"], verdict["detector"], verdict["level"]) == ("rate", "silence", "ok")


def test_it_is_over_when_they_come_again(known: References) -> None:
    flow = silent(known, windows=5)
    later = [moved(row, 5 * MINUTE_MS) for row in Stream().rows(12 * PER_WINDOW, first=STOP * PER_WINDOW)]
    flow.run(later, poll=PER_WINDOW)
    firing, resolved = told(flow)
    assert (resolved["status"], resolved["resolve_reason"]) == ("resolved", "returned")
    assert resolved["alert_id"] == firing["alert_id"]
    assert resolved["ends_at"] == window(STOP + 5 + 2 + 5)  # two windows to be sure, five minutes of patience
    assert resolved["details"]["windows"] >= 5
    assert flow.reading("volume:predictions")[-1]["level"] == "ok"


def test_a_version_that_stays_away_is_retired_with_its_alert(known: References) -> None:
    flow = silent(
        known, windows=25, alerts=detect_settings().alerts.model_copy(update={"retire_after": 20 * MINUTE_MS})
    )
    firing, resolved = told(flow)
    assert (firing["status"], resolved["resolve_reason"]) == ("firing", "retired")
    assert flow.state.versions == {}


def test_a_new_reference_ends_it(known: References) -> None:
    flow = silent(known, windows=4)
    again = built(effective_from_ms=START_MS + (STOP + 4) * MINUTE_MS)
    flow.references = view(built(), again)
    later = [moved(row, 4 * MINUTE_MS) for row in Stream().rows(3 * PER_WINDOW, first=STOP * PER_WINDOW)]
    flow.run(later, poll=PER_WINDOW)
    assert [one["resolve_reason"] for one in told(flow)] == [None, "new_reference"]


def test_an_operator_says_how_urgent_it_is(known: References) -> None:
    (alert,) = told(silent(known, models={"credit": ModelSettings(severity={"silence": "warning"})}))
    assert alert["severity"] == "warning"


def test_a_stream_that_goes_on_is_never_silent(known: References) -> None:
    flow = Flow(known).run(Stream(seed=5).records(40 * PER_WINDOW), poll=PER_WINDOW)
    assert told(flow) == []


def test_one_empty_window_is_no_silence(known: References) -> None:
    rows = Stream().rows(20 * PER_WINDOW)
    values = [moved(row, 0 if place < 10 * PER_WINDOW else MINUTE_MS) for place, row in enumerate(rows)]
    flow = Flow(known).run(values, poll=PER_WINDOW)
    assert 0 in [one["n"] for one in flow.reading("volume:predictions")]
    assert told(flow) == []


def test_without_serving_a_hundred_windows_tell_what_to_expect() -> None:
    known = view(built(serving=False))
    assert told(silent(known, stop=90)) == []
    (alert,) = told(silent(known, stop=110))
    assert alert["starts_at"] == window(112)


def test_a_fall_is_no_silence_before_a_day_is_known(known: References) -> None:
    """The reference has seen 80 minutes: it cannot tell a night from a fall."""
    rows = Stream().rows(20 * PER_WINDOW)
    values = [moved(row, 0) for place, row in enumerate(rows) if place < 5 * PER_WINDOW or place % 4 == 0]
    flow = Flow(known).run(values, poll=PER_WINDOW)
    assert told(flow) == []


def test_a_fall_to_a_third_is_told_where_days_are_known() -> None:
    friday_ms = START_MS - 86_400_000
    days = Stream(seed=99, start_ms=friday_ms, step_ms=2_000)
    known = view(built(days, rows=2 * 43_200, effective_from_ms=friday_ms))
    rows = Stream(start_ms=friday_ms, step_ms=2_000).rows(1_500)
    values = [moved(row, 0) for place, row in enumerate(rows) if place < 300 or place % 3 == 0]
    flow = Flow(known).run(values, poll=300)
    (alert,) = told(flow)
    assert "only 10 predictions a window" in alert["annotations"]["summary"]
    assert alert["details"]["expected_per_window"] == pytest.approx(30, rel=0.1)


def test_a_restored_silence_goes_on_like_the_original() -> None:
    known = view(built(serving=False))
    flow = silent(known, stop=105, windows=3)
    state = detect.decode(detect.encode(flow.state))
    assert not isinstance(state, Malformed)
    assert same(state, flow.state)
    again = Flow(known, of_detect=flow.of_detect)
    again.inputs, again.next_offsets = dict(flow.inputs), dict(flow.next_offsets)
    again.log, again.state = list(flow.log), state
    for one in (flow, again):
        pause(one, 108)
        pause(one, 109)
    assert same(flow.state, again.state)
    assert told(flow)[-1]["details"]["windows"] == 2


def test_a_mute_is_obeyed_and_a_person_may_end_it(known: References) -> None:
    tables = known.at("credit", "3", START_MS)
    assert tables is not None
    settings, version = detect_settings(), Version(next_ms=START_MS, seen_ms=START_MS)
    muted = Orders(muted=frozenset({"silence"}))
    for index in range(5):
        place = silence.Place(settings, tables, ("credit", "3"), START_MS + index * MINUTE_MS, muted)
        after, heard = silence.judged(place, version, 0, mixed=False)
        version = replace(version, silence=after)
        assert (heard.alarm, silence.told(place, version, after, heard)[1]) == (False, [])
    for index in range(5, 8):
        place = silence.Place(settings, tables, ("credit", "3"), START_MS + index * MINUTE_MS)
        after, heard = silence.judged(place, version, 0, mixed=False)
        rows, _ = silence.told(place, version, after, heard)
        version = replace(version, silence=after, alerts=rows)
    by_hand = Orders(resolved=frozenset({fingerprint("credit", "3", "all", "silence")}))
    place = silence.Place(settings, tables, ("credit", "3"), START_MS + 8 * MINUTE_MS, by_hand)
    after, heard = silence.judged(place, version, 0, mixed=False)
    _, (record,) = silence.told(place, version, after, heard)
    assert orjson.loads(record.value or b"")["data"]["resolve_reason"] == "operator"
