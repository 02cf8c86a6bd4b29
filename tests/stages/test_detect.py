"""What detect promises: windows close once and in order, one drift is one alert, and the state is all it needs."""

from collections import Counter
from typing import Any

import orjson
import pytest
from flows import (
    MINUTE_MS,
    PER_WINDOW,
    SEGMENTS,
    START_MS,
    Flow,
    Json,
    Stream,
    built,
    detect_settings,
    moved,
    published,
    same,
    view,
    window,
    windows,
)

from stream.alerts.policy import Settings as AlertSettings
from stream.profiles.learning import Settings as LearnSettings
from stream.profiles.reference import References
from stream.stages import detect, ingest
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import Reference
from stream.wire.record import Record

SIGNALS = [
    "feature:amount",
    "feature:channel",
    "feature:ratio",
    "feature:returning",
    "latency",
    "prediction:label",
    "prediction:score",
    "row:distance",
    "row:quality",
    "row:outlier",
]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return built()


@pytest.fixture(scope="module")
def known(reference: Reference) -> References:
    return view(reference)


DRIFT, BACK, END = 12, 24, 45
"""Windows in which the drift begins, in which it ends, and after which the stream ends."""


def drifting(**changes: Any) -> Stream:
    return Stream(**{"drift_at": DRIFT * PER_WINDOW, "back_at": BACK * PER_WINDOW, **changes})


@pytest.fixture(scope="module")
def drifted(known: References) -> Flow:
    """A drift that comes and goes, seen from its start to its end."""
    return Flow(known).run(drifting().records(END * PER_WINDOW), poll=PER_WINDOW)


def at(index: int) -> str:
    return window(index)


# -- windows -----------------------------------------------------------------------------------------------------------


def test_a_window_closes_when_every_partition_has_passed_its_end(known: References) -> None:
    flow = Flow(known, partitions=2)
    values = Stream().records(3 * PER_WINDOW)
    flow.read(values[::2], 0)
    assert not flow.commit()
    flow.read(values[1::2], 1)
    flow.commit()
    # Lateness is 30 s: the third window is still open.
    assert [one["window_start"] for one in flow.reading()] == [at(0), at(1)]
    assert [one["n"] for one in flow.reading("prediction:label")] == [PER_WINDOW] * 2


def test_a_tick_closes_windows_like_an_event_does(known: References) -> None:
    flow = Flow(known, partitions=2)
    flow.read(Stream().records(3 * PER_WINDOW), 0)
    flow.commit()
    flow.tick(START_MS + 2 * MINUTE_MS + 30_000, 1)
    flow.commit()
    assert [one["window_start"] for one in flow.reading()] == [at(0), at(1)]


def test_there_is_one_reading_per_window_segment_and_signal_in_one_order(drifted: Flow) -> None:
    names = [(one["window_start"], one["segment"], one["signal"]) for one in drifted.readings]
    closed = [at(index) for index in range(END - 1)]
    per_window = [(segment, name) for segment in SEGMENTS for name in SIGNALS] + [("all", "volume:predictions")]
    assert names == [(start, *one) for start in closed for one in per_window]


def test_readings_add_up_to_the_events(drifted: Flow) -> None:
    for signal in SIGNALS:
        for one in drifted.reading(signal):
            assert one["n"] + one["n_missing"] + one["n_invalid"] + (one["n_unseen"] or 0) == PER_WINDOW


def test_late_events_are_told_with_the_window_that_held_the_watermark(known: References) -> None:
    flow = Flow(known)
    flow.read(Stream().records(2 * PER_WINDOW))
    flow.read([moved(row, -10 * MINUTE_MS) for row in Stream(prefix="late").rows(5)])
    flow.read(Stream().records(PER_WINDOW, first=2 * PER_WINDOW))
    flow.commit()
    assert [(one["n"], one["n_late"]) for one in flow.reading("prediction:label")] == [
        (PER_WINDOW, 0),
        (PER_WINDOW, 5),
    ]


def test_a_window_without_events_has_a_reading_with_nothing_in_it(known: References) -> None:
    flow = Flow(known)
    rows = Stream().rows(2 * PER_WINDOW)
    flow.run([moved(row, 0 if place < PER_WINDOW else 3 * MINUTE_MS) for place, row in enumerate(rows)])
    empty = flow.reading()[1]
    assert [one["n"] for one in flow.reading("prediction:label")] == [PER_WINDOW, 0, 0, 0]
    for name in ("mean", "std", "p05", "p50", "p95", "psi", "jensen_shannon", "wasserstein"):
        assert empty[name] is None
    assert sum(empty["counts"]) == 0
    assert {verdict["reason"] for verdict in empty["verdicts"]} == {"empty"}
    assert {verdict["level"] for verdict in empty["verdicts"]} <= {"ok", "not_ready"}
    assert {one["kind"] for one in flow.alerts} == {"silence"}


def test_a_profile_of_a_closed_window_is_refused_and_counted(known: References) -> None:
    flow = Flow(known)
    flow.run(Stream().records(3 * PER_WINDOW))
    partial = next(record for record in flow.log if codec.kind_of(record.value or b"") == "partial/1")
    before = flow.state
    after, told = detect.step(flow.of_detect, known, before, [partial])
    assert (after.refused, told) == (before.refused + 1, [])
    assert detect.digest(after) == detect.digest(before)


def test_many_windows_that_are_due_at_once_are_closed_over_several_records(known: References) -> None:
    jump = detect.CLOSED_PER_RECORD // len(SEGMENTS) + 50
    values = [*Stream().records(PER_WINDOW), *(moved(row, jump * MINUTE_MS) for row in Stream(prefix="z").rows(1))]
    flow = Flow(known)
    flow.read(values)
    first = flow.commit()
    bound = detect.CLOSED_PER_RECORD // len(SEGMENTS)
    assert len(first) <= (bound + 1) * (len(SEGMENTS) * len(SIGNALS) + 1) + 1
    for _ in range(3):
        flow.commit()
    assert [one["window_start"] for one in flow.reading()] == [at(index) for index in range(jump - 1)]


def test_what_no_ingest_has_written_is_no_record_of_ours(known: References) -> None:
    settings = detect_settings()
    for value in (None, b"", b"{}", b"partial/1"):
        record = Record("drift.profiles", 3, 17, 0, None, value)
        with pytest.raises(ValueError, match=r"drift\.profiles\[3\] offset 17"):
            detect.step(settings, known, detect.start(settings), [record])


def test_detect_says_which_reference_a_profile_waits_for_and_how_far_a_watermark_had_heard(
    known: References, reference: Reference
) -> None:
    flow = Flow(known)
    flow.read(Stream().records(10))
    flow.commit()
    asked = [detect.waits_for(References.empty(), record) for record in flow.log]
    assert asked == [reference.reference_id, "before offset 1"]
    assert [detect.waits_for(known, record) for record in flow.log] == [None, None]


# -- one drift, one alert ----------------------------------------------------------------------------------------------


def test_a_drift_that_comes_and_goes_is_one_firing_and_one_resolved_event_per_group(drifted: Flow) -> None:
    told = [one for one in drifted.alerts if one["status"] != "notice"]
    assert {one["kind"] for one in told} == {"data_drift"}
    for segment in ("all", "country=AT", "country=DE"):
        statuses = [one["status"] for one in told if one["segment"] == segment]
        assert statuses[0] == "firing"
        assert statuses[-1] == "resolved"
        assert Counter(statuses)["firing"] == Counter(statuses)["resolved"] == 1
        assert len({one["alert_id"] for one in told if one["segment"] == segment}) == 1


def test_the_alert_says_when_what_and_how_much(drifted: Flow) -> None:
    firing = next(one for one in drifted.alerts if one["status"] == "firing" and one["segment"] == "all")
    assert at(DRIFT + 1) <= firing["starts_at"] <= at(DRIFT + 4)
    assert firing["change_point"]["earliest"] <= at(DRIFT) <= firing["change_point"]["latest"]
    assert firing["change_type"] == "sudden"
    listed = {one["signal"] for one in firing["signals"] if one["detector"] == "histogram"}
    assert {"feature:amount", "feature:ratio"} <= listed
    assert "feature:returning" not in listed
    amount = next(one for one in firing["signals"] if one["signal"] == "feature:amount")
    assert amount["direction"] == "up"
    assert amount["after"]["mean"] > 1.3 * amount["before"]["mean"]
    assert amount["statistic"] >= amount["threshold"] or len(listed) > 1
    assert firing["evidence_offsets"][0]["first_offset"] == DRIFT * PER_WINDOW


def test_the_resolved_event_says_that_it_was_temporary_and_returned(drifted: Flow) -> None:
    resolved = next(one for one in drifted.alerts if one["status"] == "resolved" and one["segment"] == "all")
    assert (resolved["resolve_reason"], resolved["change_type"]) == ("returned", "temporary")
    assert resolved["ends_at"] == resolved["updated_at"] > at(BACK)
    assert resolved["sequence"] >= 1


def test_readings_of_a_firing_group_carry_its_alert_and_the_listed_signals_read_drift(drifted: Flow) -> None:
    firing = next(one for one in drifted.alerts if one["status"] == "firing" and one["segment"] == "all")
    resolved = next(one for one in drifted.alerts if one["status"] == "resolved" and one["segment"] == "all")
    for one in drifted.reading("feature:amount"):
        is_open = firing["starts_at"] <= one["window_end"] < resolved["ends_at"]
        assert one["alert_id"] == (firing["alert_id"] if is_open else None)
        if firing["starts_at"] <= one["window_end"] <= at(BACK):
            assert one["level"] == "drift"
    assert {one["alert_id"] for one in drifted.reading("prediction:score")} == {None}


def test_a_stream_like_the_reference_is_quiet(known: References) -> None:
    flow = Flow(known).run(Stream(seed=5).records(60 * PER_WINDOW), poll=PER_WINDOW)
    assert [one for one in flow.alerts if one["severity"] != "info"] == []
    assert {one["level"] for one in flow.readings if one["segment"] == "all"} <= {"ok", "not_ready"}


def detections(readings: list[Json]) -> set[tuple[str, str, str, str]]:
    """(segment, signal, measure, detector) of all that was found without evidence."""
    return {
        (one["segment"], one["signal"], verdict["measure"], verdict["detector"])
        for one in readings
        for verdict in one["verdicts"]
        if verdict["detector"] not in {"histogram", "mean"} and verdict["level"] == "drift"
    }


def test_every_detection_is_in_the_alert_or_in_a_notice_of_severity_info(drifted: Flow, known: References) -> None:
    # A shift too small for the evidence: most of it is found by ADWIN and Page-Hinkley alone.
    small = Flow(known).run(drifting(shift=0.25).records(END * PER_WINDOW), poll=PER_WINDOW)
    for flow in (drifted, small):
        found = detections(flow.readings)
        told = {
            (one["segment"], entry["signal"], entry["measure"], entry["detector"])
            for one in flow.alerts
            for entry in one["signals"]
            if entry["detector"] not in {"histogram", "mean"}
        }
        assert found
        assert found <= told
        assert {one["severity"] for one in flow.alerts if one["status"] == "notice"} <= {"info"}


def test_a_new_reference_resolves_what_is_open_and_begins_anew(reference: Reference) -> None:
    now = built(Stream(seed=97, drift_at=0), effective_from_ms=START_MS + 30 * MINUTE_MS)
    flow = Flow(view(reference, now)).run(drifting(back_at=None).records(END * PER_WINDOW), poll=PER_WINDOW)
    told = [one for one in flow.alerts if one["segment"] == "all" and one["status"] != "notice"]
    assert [one["status"] for one in told] == ["firing", "resolved"]
    assert (told[1]["resolve_reason"], told[1]["ends_at"]) == ("new_reference", at(31))
    assert told[1]["reference_id"] == reference.reference_id
    assert {one["reference_id"] for one in flow.reading()[30:]} == {now.reference_id}
    assert {one["level"] for one in flow.reading()[30:]} <= {"ok", "not_ready"}


def test_a_window_that_mixes_references_judges_nothing_and_says_so(reference: Reference) -> None:
    newer = built(Stream(seed=98), effective_from_ms=START_MS + MINUTE_MS)
    flow = Flow(view(reference))
    flow.run(Stream().records(2 * PER_WINDOW + PER_WINDOW // 2), poll=PER_WINDOW)
    flow.hear([published(newer)])
    flow.run(Stream().records(4 * PER_WINDOW, first=2 * PER_WINDOW + PER_WINDOW // 2), poll=PER_WINDOW)
    ids = [one["reference_id"] for one in flow.reading()]
    assert ids == [reference.reference_id] * 2 + [newer.reference_id] * 3
    mixed = flow.reading()[2]
    assert {(verdict["level"], verdict["reason"]) for verdict in mixed["verdicts"]} == {
        ("not_ready", "reference_changed")
    }
    assert flow.reading()[4]["verdicts"][0]["level"] == "ok"


def test_a_window_of_samples_and_profiles_is_mixed_too(reference: Reference) -> None:
    flow = Flow()
    flow.read(Stream().records(PER_WINDOW // 2))
    flow.commit()
    flow.hear([published(reference)])
    flow.run(Stream().records(3 * PER_WINDOW, first=PER_WINDOW // 2), poll=PER_WINDOW)
    reasons = [{verdict["reason"] for verdict in one["verdicts"]} for one in flow.reading()]
    assert reasons[0] == {"reference_changed"}
    assert reasons[1] != {"reference_changed"}


def test_a_version_that_falls_silent_is_retired_with_its_alert(known: References) -> None:
    settings = detect_settings(alerts=AlertSettings.model_validate({"retire_after": "30m"}))
    flow = Flow(known, of_detect=settings)
    flow.run(drifting(back_at=None).records(20 * PER_WINDOW), poll=PER_WINDOW)
    assert flow.alerts[-1]["status"] != "resolved"
    other = Stream(model_id="other", start_ms=START_MS + 20 * MINUTE_MS, step_ms=MINUTE_MS)
    flow.run(other.records(40), poll=1)
    last = [one for one in flow.alerts if one["segment"] == "all" and one["status"] != "notice"][-1]
    assert (last["status"], last["resolve_reason"], last["ends_at"]) == ("resolved", "retired", at(50))
    assert list(flow.state.versions) == [("other", "3")]
    assert flow.reading()[-1]["window_end"] == at(50)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_version_that_comes_back_after_its_silence_begins_anew_however_the_log_was_cut(
    known: References, is_known: bool
) -> None:
    learn = LearnSettings.model_validate({"rows": 1000, "min_duration": "10m"})
    settings = detect_settings(learn=learn, alerts=AlertSettings.model_validate({"retire_after": "30m"}))
    first = Stream(drift_at=2 * PER_WINDOW).rows(3 * PER_WINDOW)
    back = Stream(start_ms=START_MS + 60 * MINUTE_MS, prefix="b").rows(8 * PER_WINDOW)
    clock = Stream(model_id="other", step_ms=MINUTE_MS).rows(70)
    rows = sorted([*first, *back, *clock], key=lambda row: row["timestamp"])
    values = [orjson.dumps(row) for row in rows]
    flows = [
        Flow(known if is_known else References.empty(), of_detect=settings, hears=False).run(values, poll=poll)
        for poll in (50, len(values))
    ]
    flows[1].commit()
    told = [sorted((record.key or b"", record.value or b"") for record in flow.published) for flow in flows]
    assert told[0] == told[1]
    assert len(told[0]) > 0


# -- learning ----------------------------------------------------------------------------------------------------------

LEARN = LearnSettings.model_validate({"rows": 1000, "min_duration": "1h"})


@pytest.fixture(scope="module")
def learned() -> Flow:
    """An unknown model, watched until it has a reference and drifts."""
    flow = Flow(of_ingest=ingest.Settings(sample_rows=1000), of_detect=detect_settings(learn=LEARN))
    return flow.run(Stream(drift_at=125 * PER_WINDOW).records(135 * PER_WINDOW), poll=PER_WINDOW)


def test_an_unknown_model_is_sampled_cut_counted_and_then_judged(learned: Flow) -> None:
    provisional, complete = (codec.decode_reference(record.value or b"") for record in learned.of("references"))
    assert isinstance(provisional, Reference)
    assert isinstance(complete, Reference)
    assert (provisional.complete, complete.complete) == (False, True)
    assert (provisional.origin, complete.origin) == ("learned", "learned")
    # 1,000 rows are there when the fourth window closes; the cut is in force two windows after its end.
    assert provisional.effective_from == at(6)
    assert complete.segments == {"country": ["AT", "DE"]}
    readings = learned.reading()
    assert readings[0]["window_start"] == at(6)
    counting = [one for one in readings if one["reference_id"] == provisional.reference_id]
    assert {verdict["reason"] for one in counting for verdict in one["verdicts"]} == {"learning"}
    assert {one["level"] for one in counting} == {"not_ready"}
    judged = [one for one in readings if one["reference_id"] == complete.reference_id]
    assert judged[0]["window_start"] == complete.effective_from
    assert readings == counting + judged
    # 100 windows of counting, then two more until it is in force.
    assert len(counting) == 102
    assert complete.n_rows == 100 * PER_WINDOW
    assert judged[1]["level"] == "ok"


def test_a_learned_reference_finds_the_drift_and_nothing_before(learned: Flow) -> None:
    told = [one for one in learned.alerts if one["severity"] != "info"]
    assert {one["status"] for one in told if one["segment"] == "all"} == {"firing"}
    assert min(one["starts_at"] for one in told) > at(125)
    assert {one["reference_origin"] for one in told} == {"learned"}


def test_few_rows_are_enough_after_the_longest_wait() -> None:
    learn = LearnSettings.model_validate({"rows": 1000, "max_wait": "5m"})
    flow = Flow(of_detect=detect_settings(learn=learn))
    flow.run(Stream(step_ms=1_000).records(8 * 60), poll=60)
    (provisional,) = flow.of("references")
    found = codec.decode_reference(provisional.value or b"")
    assert isinstance(found, Reference)
    assert found.effective_from == at(7)


def test_a_reference_that_does_not_know_serving_warns_only_for_a_hundred_windows() -> None:
    blind = view(built(serving=False))
    early = Flow(blind).run(Stream(drift_at=5 * PER_WINDOW).records(30 * PER_WINDOW), poll=PER_WINDOW)
    assert [one for one in early.alerts if one["severity"] != "info"] == []
    assert "warning" in {one["level"] for one in early.reading("feature:channel")}
    assert {one["verdicts"][0]["level"] for one in early.readings} == {"not_ready", "ok", "warning"}
    late = Flow(blind).run(Stream(drift_at=102 * PER_WINDOW).records(108 * PER_WINDOW), poll=PER_WINDOW)
    found = [one for one in late.alerts if one["severity"] != "info" and one["segment"] == "all"]
    assert [one["status"] for one in found] == ["firing"]
    assert at(103) <= found[0]["starts_at"] <= at(106)


# -- the state ---------------------------------------------------------------------------------------------------------


def restored(state: detect.State) -> detect.State:
    found = detect.decode(detect.encode(state))
    assert isinstance(found, detect.State)
    assert same(found, state)
    assert detect.digest(found) == detect.digest(state)
    return found


def test_a_restored_state_goes_on_exactly_like_the_original(known: References, drifted: Flow) -> None:
    flow = Flow(known)
    values = drifting().records(END * PER_WINDOW)
    for first in range(0, len(values), PER_WINDOW):
        flow.read(values[first : first + PER_WINDOW])
        flow.commit(restored)
    flow.commit(restored)
    assert flow.published == drifted.published
    assert detect.digest(flow.state) == detect.digest(drifted.state)
    assert same(flow.state, drifted.state)


def test_a_restored_learner_goes_on_exactly_like_the_original(learned: Flow) -> None:
    flow = Flow(of_ingest=ingest.Settings(sample_rows=1000), of_detect=detect_settings(learn=LEARN))
    values = Stream(drift_at=125 * PER_WINDOW).records(135 * PER_WINDOW)
    for first in range(0, len(values), 5 * PER_WINDOW):
        for start in range(first, first + 5 * PER_WINDOW, PER_WINDOW):
            flow.read(values[start : start + PER_WINDOW])
            flow.commit(restored if start == first else lambda state: state)
    flow.commit(restored)
    assert flow.published == learned.published


def test_a_step_leaves_the_state_it_was_given_alone(known: References) -> None:
    """An abort is to go on with the old state."""
    flow = Flow(known, of_ingest=ingest.Settings())
    values = drifting().records(END * PER_WINDOW)
    for first in range(0, len(values), PER_WINDOW):
        old = flow.state
        before = detect.encode(old)
        flow.read(values[first : first + PER_WINDOW])
        seen = len(flow.log)
        outputs = flow.commit()
        assert detect.encode(old) == before
        again, repeated = detect.step(flow.of_detect, known, old, flow.log[seen:])
        assert repeated == outputs
        assert same(again, flow.state)


def test_what_is_no_snapshot_is_malformed_and_raises_nothing(drifted: Flow) -> None:
    data = detect.encode(drifted.state)
    for bad in (b"", b"drift", data[:-1], data[:100], data[:50] + b"\0" + data[51:], data + b"\0"):
        assert isinstance(detect.decode(bad), Malformed)


def test_the_state_stays_small_however_long_the_stream(known: References) -> None:
    flow = Flow(known)
    sizes = []
    for first in range(0, 60, 10):
        flow.run(Stream(seed=6).records(10 * PER_WINDOW, first=first * PER_WINDOW), poll=PER_WINDOW)
        sizes.append(len(detect.encode(flow.state)))
    assert sizes[-1] < 2.5 * sizes[0]


# -- hostile values ----------------------------------------------------------------------------------------------------

LITERALS = [
    b"NaN", b"-Infinity", b"null", b"1e308", b"-1e308", b"1e999", b'"text"', b"[]", b"1" + b"0" * 300, b"true", b"-0.0",
]  # fmt: skip


def test_hostile_values_leave_detection_working(known: References, drifted: Flow) -> None:
    rows = drifting().rows(END * PER_WINDOW)
    values = []
    for place, row in enumerate(rows):
        value = orjson.dumps(row)
        if place % 40 == 0:
            spoiled = {**row, "features": {**row["features"], "amount": 0.125}}
            value = orjson.dumps(spoiled).replace(b"0.125", LITERALS[place // 40 % len(LITERALS)])
        values.append(value)
    flow = Flow(known).run(values, poll=PER_WINDOW)
    assert flow.counts["ok"] == len(values)
    ours, theirs = (
        [one for one in some.alerts if one["segment"] == "all" and one["status"] == "firing"]
        for some in (flow, drifted)
    )
    assert [one["starts_at"] for one in ours] == [one["starts_at"] for one in theirs]
    assert sum(one["n_invalid"] for one in flow.reading()) > 0
    for record in flow.of("windows"):
        assert b"NaN" not in (record.value or b"")
        assert b"Infinity" not in (record.value or b"")


def test_a_signal_that_turns_into_garbage_does_not_stop_the_others(known: References) -> None:
    rows = drifting(back_at=None).rows(20 * PER_WINDOW)
    for row in rows[5 * PER_WINDOW :]:
        row["latency_ms"] = "soon"
    flow = Flow(known).run([orjson.dumps(row) for row in rows], poll=PER_WINDOW)
    assert {one["n_invalid"] for one in flow.reading("latency")[5:]} == {PER_WINDOW}
    begun = {
        one["kind"]: one["starts_at"] for one in flow.alerts if one["status"] == "firing" and one["segment"] == "all"
    }
    assert begun.keys() == {"data_drift", "data_quality"}
    assert at(DRIFT + 1) <= begun["data_drift"] <= at(DRIFT + 4)


# -- outliers ----------------------------------------------------------------------------------------------------------


def test_an_unusual_row_is_told_when_its_window_closes(known: References, reference: Reference) -> None:
    rows = Stream().rows(3 * PER_WINDOW)
    rows[400]["features"]["amount"] = 1e9
    flow = Flow(known).run([orjson.dumps(row) for row in rows], poll=PER_WINDOW)
    (notice,) = [one for one in flow.alerts if one["kind"] == "outlier"]
    assert (notice["status"], notice["severity"], notice["segment"]) == ("notice", "info", "all")
    assert notice["details"]["prediction_id"] == "p-1-400"
    assert notice["details"]["score"] >= notice["details"]["threshold"]
    assert notice["details"]["contributions"][0]["signal"] == "feature:amount"
    assert notice["details"]["contributions"][0]["value"] is None
    assert notice["reference_id"] == reference.reference_id
    assert notice["evidence_offsets"] == [
        {"topic": "predictions", "partition": 0, "first_offset": 400, "last_offset": 400, "reset_offset": None}
    ]
    assert notice["starts_at"] == codec.rfc3339(rows[400]["timestamp"])


def test_a_change_of_unit_tells_twenty_rows_per_window_and_not_all(known: References) -> None:
    rows = Stream().rows(3 * PER_WINDOW)
    for row in rows[PER_WINDOW : 2 * PER_WINDOW]:
        row["features"]["amount"] = 1e9
    flow = Flow(known).run([orjson.dumps(row) for row in rows], poll=PER_WINDOW)
    assert Counter(one["kind"] for one in flow.alerts)["outlier"] == 20


def test_detect_publishes_nothing_but_its_own_topics(drifted: Flow, learned: Flow) -> None:
    assert {record.role for record in drifted.published} == {"alerts", "windows"}
    assert {record.role for record in learned.published} == {"alerts", "windows", "references"}


def test_windows_of_another_size_are_aligned_to_zero(reference: Reference) -> None:
    size = windows(size="90s", lateness="10s")
    flow = Flow(view(reference), of_ingest=ingest.Settings(windows=size), of_detect=detect_settings(windows=size))
    flow.run(Stream().records(4 * PER_WINDOW), poll=PER_WINDOW)
    assert [one["window_start"] for one in flow.reading()] == [codec.rfc3339(START_MS + 90_000 * i) for i in range(2)]
