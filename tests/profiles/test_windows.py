from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.profiles import windows
from stream.profiles.windows import Marks
from stream.wire import codec
from stream.wire.internal import END_OF_TIME_MS, SourceMark, Watermarks

TIMES = st.lists(st.integers(-(2**61), 2**61), max_size=40)
LATENESS = st.integers(0, 10**12)
MARK = st.builds(
    SourceMark,
    topic=st.sampled_from(["a", "b"]),
    partition=st.integers(0, 2),
    next_offset=st.integers(0, 100),
    watermark_ms=st.none() | st.integers(-50, 50),
    tick=st.booleans(),
    idle=st.booleans(),
)
RECORDS = st.lists(
    st.lists(MARK, max_size=4, unique_by=lambda mark: (mark.topic, mark.partition)).map(
        lambda marks: Watermarks(marks, {"a": 3, "b": 2}, 0)
    ),
    max_size=12,
)


def array(times: list[int]) -> windows.Ints:
    return np.array(times, dtype=np.int64)


def mark(partition: int, watermark_ms: int | None, *, topic: str = "a", idle: bool = False) -> SourceMark:
    return SourceMark(topic, partition, next_offset=0, watermark_ms=watermark_ms, idle=idle)


def after(*records: list[SourceMark], counts: dict[str, int] | None = None) -> Marks:
    marks = Marks()
    for record in records:
        marks = windows.apply(marks, Watermarks(record, counts or {"a": 2}, 0))
    return marks


@given(times=TIMES, size_ms=st.integers(1, 10**12))
def test_a_window_is_aligned_to_zero_and_holds_its_times(times: list[int], size_ms: int) -> None:
    starts = windows.start_of(array(times), size_ms)
    assert all(start <= time < start + size_ms for start, time in zip(starts.tolist(), times, strict=True))
    assert not (starts % size_ms).any()


def test_times_before_1970_have_windows_too() -> None:
    assert windows.start_of(array([-1, 0, 9, 10]), 10).tolist() == [-10, 0, 0, 10]


@given(times=TIMES, lateness_ms=LATENESS, before=st.none() | st.integers(-(2**61), 2**61))
def test_an_event_is_late_iff_it_lies_below_the_watermark_of_the_events_before_it(
    times: list[int], lateness_ms: int, before: int | None
) -> None:
    judged = windows.late(array(times), before, lateness_ms)
    watermark = before
    for time, late, at in zip(times, judged.mask.tolist(), judged.watermarks.tolist(), strict=True):
        assert late == (watermark is not None and time < watermark)
        watermark = time - lateness_ms if watermark is None else max(watermark, time - lateness_ms)
        assert at == watermark
    assert judged.watermark_ms == watermark


@given(times=TIMES, lateness_ms=LATENESS, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_how_a_partition_is_cut_into_batches_changes_nothing(
    times: list[int], lateness_ms: int, cuts: list[int]
) -> None:
    whole = windows.late(array(times), None, lateness_ms)
    watermark, mask = None, []
    for start, end in pairwise(sorted({0, len(times), *(min(cut, len(times)) for cut in cuts)})):
        judged = windows.late(array(times[start:end]), watermark, lateness_ms)
        assert watermark is None or (judged.watermark_ms is not None and judged.watermark_ms >= watermark)
        watermark = judged.watermark_ms
        mask += judged.mask.tolist()
    assert (mask, watermark) == (whole.mask.tolist(), whole.watermark_ms)


def test_a_late_event_is_counted_where_its_watermark_stands() -> None:
    judged = windows.late(array([100, 250, 120]), None, 30)
    assert judged.mask.tolist() == [False, False, True]
    assert windows.start_of(judged.watermarks, 100).tolist() == [0, 200, 200]


@given(records=RECORDS)
def test_marks_survive_a_snapshot(records: list[Watermarks]) -> None:
    marks = Marks()
    for record in records:
        marks = windows.apply(marks, record)
    assert codec.decode(codec.encode(marks, "marks/1"), Marks) == marks


@given(records=RECORDS)
def test_no_watermark_ever_falls(records: list[Watermarks]) -> None:
    marks = Marks()
    for record in records:
        before, marks = marks, windows.apply(marks, record)
        for place, source in before.sources.items():
            now = marks.sources[place].watermark_ms
            assert source.watermark_ms is None or (now is not None and now >= source.watermark_ms)
        was, now = windows.watermark(before, ["a", "b"]), windows.watermark(marks, ["a", "b"])
        assert was is None or (now is not None and now >= was)


@given(records=RECORDS)
def test_a_mark_is_applied_to_a_copy_and_in_any_order_of_its_sources(records: list[Watermarks]) -> None:
    marks = Marks()
    for record in records:
        frozen = Marks(dict(marks.sources), dict(marks.partitions), marks.references_offset, dict(marks.highest_ms))
        turned = Watermarks(record.sources[::-1], record.partitions, record.references_offset)
        there, back = windows.apply(marks, record), windows.apply(marks, turned)
        assert marks == frozen
        assert there == back
        marks = there


@given(records=RECORDS)
def test_nobody_follows_beyond_the_newest_time_of_its_topic(records: list[Watermarks]) -> None:
    marks, newest = Marks(), {"a": -100, "b": -100}
    for record in records:
        marks = windows.apply(marks, record)
        for one in record.sources:
            newest[one.topic] = max(newest[one.topic], -100 if one.watermark_ms is None else one.watermark_ms)
        assert all(
            source.watermark_ms is None or source.watermark_ms <= newest[topic]
            for (topic, _), source in marks.sources.items()
        )


def test_a_window_waits_for_all_partitions_of_all_its_topics() -> None:
    counts = {"a": 2, "b": 1}
    assert windows.watermark(Marks(), ["a"]) is None
    assert windows.watermark(after([mark(0, 10)], counts=counts), ["a"]) is None
    both = after([mark(0, 10)], [mark(1, 30)], counts=counts)
    assert windows.watermark(both, ["a"]) == 10
    assert windows.watermark(both, ["a", "b"]) is None
    assert windows.watermark(both, ["a", "unannounced"]) is None
    assert windows.watermark(both, []) is None
    assert windows.waiting_for(both, ["a"]) == [("a", 0)]
    assert windows.waiting_for(both, ["a", "b"]) == [("b", 0)]


def test_a_partition_that_was_added_is_waited_for_from_its_announcement_on() -> None:
    two = after([mark(0, 10), mark(1, 20)])
    three = windows.apply(two, Watermarks([mark(0, 90)], {"a": 3}, 7))
    assert windows.watermark(three, ["a"]) is None
    # an old worker that still announces two does not shrink the topic again
    still = windows.apply(three, Watermarks([], {"a": 2}, 3))
    assert (still.partitions["a"], still.references_offset) == (3, 7)


def test_an_idle_partition_follows_what_stood_in_the_log_before_its_previous_declaration() -> None:
    once = after([mark(0, 50)], [mark(1, None, idle=True)], [mark(0, 80)])
    assert windows.watermark(once, ["a"]) is None
    twice = windows.apply(once, Watermarks([mark(1, None, idle=True)], {"a": 2}, 0))
    assert windows.watermark(twice, ["a"]) == 50
    thrice = windows.apply(twice, Watermarks([mark(1, None, idle=True)], {"a": 2}, 0))
    assert windows.watermark(thrice, ["a"]) == 80


def test_a_watermark_of_the_same_record_is_not_followed() -> None:
    marks = after([mark(0, 50), mark(1, None, idle=True)], [mark(1, None, idle=True)])
    assert windows.watermark(marks, ["a"]) is None


def test_nobody_follows_another_topic() -> None:
    marks = after([mark(0, 50, topic="b")], *[[mark(0, None, idle=True)]] * 3, counts={"a": 1, "b": 1})
    assert windows.watermark(marks, ["a"]) is None


def test_a_topic_at_rest_stays_and_an_empty_one_closes_nothing() -> None:
    at_rest = after([mark(0, 40), mark(1, 50)], *[[mark(0, None, idle=True), mark(1, None, idle=True)]] * 5)
    assert windows.watermark(at_rest, ["a"]) == 50
    empty = after(*[[mark(0, None, idle=True), mark(1, None, idle=True)]] * 5)
    assert windows.watermark(empty, ["a"]) is None


def test_inputs_that_have_ended_close_the_window_of_the_newest_event_and_nothing_beyond() -> None:
    settings = windows.Settings.model_validate({"size": "100ms", "lateness": "30ms"})
    still = after([mark(0, 270), mark(1, 150)])
    assert windows.reached(still, ["a"], settings) == windows.watermark(still, ["a"]) == 150
    half = after([mark(0, 270), mark(1, 150)], [mark(0, END_OF_TIME_MS - 30)])
    assert windows.reached(half, ["a"], settings) == 150
    ended = after([mark(0, 270), mark(1, 150)], [mark(0, END_OF_TIME_MS - 30)], [mark(1, END_OF_TIME_MS - 30)])
    assert windows.reached(ended, ["a"], settings) == 400


def test_the_end_of_one_topic_is_not_that_of_another() -> None:
    settings = windows.Settings.model_validate({"size": "100ms", "lateness": "30ms"})
    counts, end_ms = {"a": 1, "b": 1}, END_OF_TIME_MS - 30
    shown, over = [mark(0, 270), mark(0, 970, topic="b")], [mark(0, end_ms), mark(0, end_ms, topic="b")]
    ended = after(shown, over, counts=counts)
    assert windows.reached(ended, ["a"], settings) == 400
    assert windows.reached(ended, ["b"], settings) == 1_100
    assert windows.reached(ended, ["a", "b"], settings) == 1_100
