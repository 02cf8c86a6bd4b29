"""The life of an alert, pair by pair, and as stories in event time."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.alerts import lifecycle
from stream.alerts.lifecycle import TRANSITIONS, Cause, Condition, Emission, Row, State, Step
from stream.alerts.policy import Settings
from stream.wire import codec
from stream.wire.outbound import Description, Effect, SignalEntry

MINUTE = 60_000
AT_ONCE = Settings.model_validate({"pending_for": "0s", "keep_firing_for": "5m", "update_interval": "1h"})
PATIENT = AT_ONCE.model_copy(update={"pending_for": 3 * MINUTE})

# What contracts.md 4 says, once more and by hand: the only pairs that lead elsewhere or publish something.
MOVES = {
    (State.INACTIVE, Cause.ALARM): Step(State.PENDING),
    (State.RESOLVED, Cause.ALARM): Step(State.PENDING),
    (State.PENDING, Cause.HELD): Step(State.FIRING, "firing"),
    (State.PENDING, Cause.RETURN): Step(State.INACTIVE),
    (State.PENDING, Cause.NEW_REFERENCE): Step(State.INACTIVE),
    (State.PENDING, Cause.RETIRED): Step(State.INACTIVE),
    (State.PENDING, Cause.OPERATOR): Step(State.INACTIVE),
    (State.FIRING, Cause.SETTLED): Step(State.RESOLVED, "resolved"),
    (State.FIRING, Cause.NEW_REFERENCE): Step(State.RESOLVED, "resolved"),
    (State.FIRING, Cause.RETIRED): Step(State.RESOLVED, "resolved"),
    (State.FIRING, Cause.OPERATOR): Step(State.RESOLVED, "resolved"),
    (State.FIRING, Cause.CHANGED): Step(State.FIRING, "updated"),
    (State.FIRING, Cause.REFRESH): Step(State.FIRING, "updated"),
    (State.INACTIVE, Cause.NOTICE): Step(State.INACTIVE, "notice"),
    (State.PENDING, Cause.NOTICE): Step(State.PENDING, "notice"),
    (State.RESOLVED, Cause.NOTICE): Step(State.RESOLVED, "notice"),
}


def detection(signal: str = "feature:income", detector: str = "adwin") -> SignalEntry:
    return SignalEntry(
        signal=signal,
        measure="mean",
        detector=detector,
        level="drift",
        statistic=1.2,
        threshold=1.0,
        evidence=None,
        n=100,
        direction="up",
        effect=Effect(None, None, None),
        before=Description(mean=1.0),
        after=Description(mean=2.0),
        bins=[],
        change_point=None,
    )


ALARM = Condition(alarm=True, content="a")
OPEN = Condition(content="a")
RETURN = Condition(returned=True, content="a")
QUIET = Condition()


def story(
    windows: dict[int, Condition], until: int, settings: Settings = AT_ONCE, otherwise: Condition = OPEN
) -> tuple[Row, list[Emission]]:
    """Lives through the windows that end at minutes 1 to `until`; those not named bring `otherwise`."""
    row, told = Row(), []
    for minute in range(1, until + 1):
        row, emissions = lifecycle.advance(row, windows.get(minute, otherwise), minute * MINUTE, settings)
        told += emissions
    return row, told


def brief(emissions: list[Emission]) -> list[tuple[str, int]]:
    return [(emission.event, emission.updated_at_ms // MINUTE) for emission in emissions]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("cause", Cause)
def test_every_pair_of_state_and_cause_has_its_step(state: State, cause: Cause) -> None:
    assert TRANSITIONS[state][cause] == MOVES.get((state, cause), Step(state))


def test_an_alarm_is_told_in_its_own_window() -> None:
    row, told = story({2: ALARM}, 10)
    assert brief(told) == [("firing", 2)]
    assert row.state is State.FIRING
    assert (told[0].sequence, told[0].starts_at_ms, told[0].ends_at_ms) == (0, 2 * MINUTE, None)


def test_a_pending_alarm_is_told_once_it_has_stood_long_enough() -> None:
    row, told = story({2: ALARM}, 10, PATIENT)
    assert brief(told) == [("firing", 5)]
    assert row.starts_at_ms == 5 * MINUTE


@pytest.mark.parametrize("minute", [3, 4, 5])
def test_a_pending_alarm_that_returns_is_never_told(minute: int) -> None:
    row, told = story({2: ALARM, minute: RETURN}, 10, PATIENT)
    assert told == []
    assert row == Row()


def test_an_alert_resolves_when_its_return_has_lasted() -> None:
    #  alarm 2 ──── return 10 ── keep_firing_for 5 ── 15
    row, told = story({2: ALARM, 10: RETURN}, 20)
    assert brief(told) == [("firing", 2), ("resolved", 15)]
    assert (told[1].sequence, told[1].starts_at_ms, told[1].ends_at_ms) == (1, 2 * MINUTE, 15 * MINUTE)
    assert told[1].resolve_reason == "returned"
    assert row.state is State.RESOLVED


def test_an_alarm_within_the_grace_after_a_return_goes_on_with_the_same_episode() -> None:
    #  alarm 2 ── return 10 ── alarm 13 ── return 20 ── 25
    _, told = story({2: ALARM, 10: RETURN, 13: ALARM, 20: RETURN}, 30)
    assert brief(told) == [("firing", 2), ("resolved", 25)]


def test_a_second_return_does_not_start_the_grace_anew() -> None:
    _, told = story({2: ALARM, 10: RETURN, 13: RETURN}, 30)
    assert brief(told) == [("firing", 2), ("resolved", 15)]


def test_without_grace_a_return_resolves_in_its_own_window() -> None:
    _, told = story({2: ALARM, 10: RETURN}, 20, AT_ONCE.model_copy(update={"keep_firing_for": 0}))
    assert brief(told) == [("firing", 2), ("resolved", 10)]


def test_an_alarm_after_the_end_is_a_new_episode() -> None:
    _, told = story({2: ALARM, 10: RETURN, 17: ALARM}, 20)
    assert brief(told) == [("firing", 2), ("resolved", 15), ("firing", 17)]
    assert [(emission.sequence, emission.starts_at_ms // MINUTE) for emission in told] == [(0, 2), (1, 2), (0, 17)]


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (Condition(new_reference=True), "new_reference"),
        (Condition(operator=True), "operator"),
        (Condition(silent_ms=AT_ONCE.retire_after), "retired"),
    ],
)
def test_other_ends_resolve_at_once(condition: Condition, reason: str) -> None:
    _, told = story({2: ALARM, 7: condition}, 20)
    assert brief(told) == [("firing", 2), ("resolved", 7)]
    assert told[1].resolve_reason == reason


def test_an_end_and_a_new_alarm_in_one_window_are_two_episodes() -> None:
    _, told = story({2: ALARM, 7: Condition(new_reference=True, alarm=True, content="a")}, 20)
    assert brief(told) == [("firing", 2), ("resolved", 7), ("firing", 7)]
    assert told[2].starts_at_ms == 7 * MINUTE


def test_a_change_is_told_when_the_interval_has_passed() -> None:
    #  firing 2 ── content b from 10 on ── updated at 62, once
    changed = {minute: Condition(content="b") for minute in range(10, 101)}
    _, told = story({2: ALARM, **changed}, 100)
    assert brief(told) == [("firing", 2), ("updated", 62)]
    assert told[1].sequence == 1


def test_a_change_that_is_taken_back_is_not_told() -> None:
    _, told = story({2: ALARM, 10: Condition(content="b")}, 200)
    assert brief(told) == [("firing", 2)]


def test_an_open_alert_is_told_again_every_day() -> None:
    day = 24 * 60
    _, told = story({2: ALARM}, 2 * day + 10)
    assert brief(told) == [("firing", 2), ("updated", day + 2), ("updated", 2 * day + 2)]


def test_a_detection_without_an_alarm_is_a_notice() -> None:
    row, told = story({3: Condition(detections=(detection(),))}, 10, otherwise=QUIET)
    assert brief(told) == [("notice", 3)]
    assert told[0].detections == (detection(),)
    assert row.state is State.INACTIVE


def test_detections_of_an_hour_share_one_notice_and_none_is_lost() -> None:
    windows = {
        3: Condition(detections=(detection("a"),)),
        10: Condition(detections=(detection("b"),)),
        20: Condition(detections=(detection("a"), detection("c", "page_hinkley"))),
    }
    _, told = story(windows, 200, otherwise=QUIET)
    assert brief(told) == [("notice", 3), ("notice", 63)]
    assert [entry.signal for entry in told[1].detections] == ["b", "a", "c"]


def test_an_alert_lists_the_detections_since_its_change_point_though_a_notice_told_them() -> None:
    windows = {
        3: Condition(detections=(detection("before"),)),
        8: Condition(detections=(detection("since"),)),
        9: Condition(alarm=True, content="a", since_ms=7 * MINUTE, detections=(detection("now"),)),
    }
    _, told = story(windows, 10, otherwise=QUIET)
    assert brief(told) == [("notice", 3), ("firing", 9)]
    assert [entry.signal for entry in told[1].detections] == ["since", "now"]


def test_a_detection_before_the_change_point_waits_for_the_end_of_the_alert() -> None:
    windows = {
        3: Condition(detections=(detection("first"),)),
        5: Condition(detections=(detection("unrelated"),)),
        9: Condition(alarm=True, content="a", since_ms=7 * MINUTE),
        80: RETURN,
    }
    _, told = story(windows, 90)
    assert brief(told) == [("notice", 3), ("firing", 9), ("resolved", 85), ("notice", 85)]
    assert [entry.signal for entry in told[3].detections] == ["unrelated"]


def test_while_firing_a_detection_makes_no_event_of_its_own() -> None:
    _, told = story({2: ALARM, 5: Condition(content="a", detections=(detection(),)), 10: RETURN}, 20)
    assert brief(told) == [("firing", 2), ("resolved", 15)]


def test_a_reference_that_may_not_mature_is_a_notice() -> None:
    _, told = story({3: Condition(may_not_mature=True)}, 10, otherwise=QUIET)
    assert brief(told) == [("notice", 3)]
    assert told[0].may_not_mature


def test_what_is_remembered_of_detections_is_bounded() -> None:
    flood = {minute: Condition(detections=tuple(detection(str(n)) for n in range(500))) for minute in range(1, 20)}
    row, _ = story(flood, 19, otherwise=QUIET)
    assert len(row.detections) == lifecycle.REMEMBERED_MAX
    week = AT_ONCE.retire_after // MINUTE
    forgotten, _ = lifecycle.advance(row, QUIET, 100 * MINUTE, AT_ONCE)
    forgotten, _ = lifecycle.advance(forgotten, QUIET, (100 + week) * MINUTE, AT_ONCE)
    assert forgotten.detections == ()


def test_the_order_of_signals_is_no_news_and_everything_else_is() -> None:
    told = lifecycle.content_of("warning", "sudden", ["a", "b"])
    assert told == lifecycle.content_of("warning", "sudden", ["b", "a", "a"])
    others = [
        lifecycle.content_of("critical", "sudden", ["a", "b"]),
        lifecycle.content_of("warning", None, ["a", "b"]),
        lifecycle.content_of("warning", "sudden", ["a"]),
        lifecycle.content_of("warning", "sudden", ["a", "b"], shifts=1),
    ]
    assert told not in others
    assert len(set(others)) == len(others)


CONDITIONS = st.builds(
    Condition,
    alarm=st.booleans(),
    returned=st.booleans(),
    new_reference=st.sampled_from([False, False, False, True]),
    operator=st.sampled_from([False, False, False, True]),
    silent_ms=st.sampled_from([0, 0, AT_ONCE.retire_after]),
    content=st.sampled_from(["a", "b"]),
    since_ms=st.none() | st.integers(0, 200 * MINUTE),
    detections=st.sampled_from([(), (), (detection("a"),), (detection("b"),)]),
    may_not_mature=st.sampled_from([False, False, False, True]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), CONDITIONS), max_size=40), st.sampled_from([AT_ONCE, PATIENT]))
def test_whatever_windows_bring_episodes_are_whole(windows: list[tuple[int, Condition]], chosen: Settings) -> None:
    row, now, told, notices = Row(), 0, [], []
    for minutes, condition in windows:
        now += minutes * MINUTE
        row, emissions = lifecycle.advance(row, condition, now, chosen)
        told += [emission for emission in emissions if emission.event != "notice"]
        notices += [emission for emission in emissions if emission.event == "notice"]
        # A row in a snapshot is the row.
        assert codec.decode(codec.encode(row, "row/1"), Row) == row
    # Firing opens, sequence counts, resolved closes, and the episode keeps its start.
    for before, after in pairwise(told):
        if after.event == "firing":
            assert before.event == "resolved"
            assert after.sequence == 0
        else:
            assert before.event != "resolved"
            assert after.sequence == before.sequence + 1
            assert after.starts_at_ms == before.starts_at_ms
    assert not told or told[0].event == "firing"
    assert (row.state is State.FIRING) == bool(told and told[-1].event != "resolved")
    # No two events of any alert share an id.
    ids = [(emission.starts_at_ms, emission.sequence) for emission in [*told, *notices]]
    assert len(set(ids)) == len(ids)
    for earlier, later in pairwise(told):
        if later.event == "updated":
            assert later.updated_at_ms - earlier.updated_at_ms >= chosen.update_interval


def test_what_becomes_more_urgent_is_told_and_nothing_is_taken_back() -> None:
    windows = {
        2: Condition(alarm=True, content="a", severity="warning"),
        70: Condition(content="b", severity="critical"),
        140: Condition(content="c", severity="info"),
        150: Condition(returned=True, content="c"),
    }
    row, told = story(windows, 160, otherwise=Condition(content="a", severity="info"))
    assert [(one.event, one.severity) for one in told if one.event != "updated"] == [
        ("firing", "warning"),
        ("resolved", "critical"),
    ]
    assert {one.severity for one in told if one.updated_at_ms >= 70 * MINUTE} == {"critical"}
    assert row.lifted("info") == "info"  # the episode is over


def test_the_next_episode_begins_with_its_own_severity() -> None:
    windows = {
        2: Condition(alarm=True, content="a", severity="critical"),
        5: Condition(new_reference=True, alarm=True, content="a", severity="warning"),
    }
    row, told = story(windows, 6)
    assert [(one.event, one.severity) for one in told] == [
        ("firing", "critical"),
        ("resolved", "critical"),
        ("firing", "warning"),
    ]
    assert (row.lifted("info"), row.lifted("critical")) == ("warning", "critical")


MUTED = Condition(content="a", muted=True)


def test_in_muted_windows_nothing_begins_and_what_waits_begins_afterwards() -> None:
    muted = dict.fromkeys(range(3, 20), MUTED)
    _, told = story({1: ALARM, **muted}, until=25, settings=PATIENT)
    assert brief(told) == [("firing", 20)]


def test_in_muted_windows_nothing_is_noticed_and_nothing_is_lost() -> None:
    found = Condition(detections=(detection(),))
    windows = {1: found, 2: Condition(detections=(detection("feature:age"),)), **dict.fromkeys(range(3, 100), MUTED)}
    _, told = story(windows, until=120, otherwise=QUIET)
    assert brief(told) == [("notice", 1), ("notice", 100)]
    assert [entry.signal for entry in told[1].detections] == ["feature:age"]


@given(st.lists(st.sampled_from([MUTED, Condition(muted=True), Condition(returned=True, muted=True)]), max_size=40))
def test_muted_windows_end_alerts_and_never_begin_one(windows: list[Condition]) -> None:
    firing, _ = story({1: ALARM}, until=3)
    for start in (Row(), firing):
        row, told = start, list[Emission]()
        for minute, condition in enumerate(windows, start=4):
            row, emissions = lifecycle.advance(row, condition, minute * MINUTE, AT_ONCE)
            told += emissions
        assert not {"firing", "notice"} & {emission.event for emission in told}
