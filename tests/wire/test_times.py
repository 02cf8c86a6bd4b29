"""Times: one way to write them, many to read them, and a column says what each of its rows says."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.wire import times

TIMES = st.integers(times.EARLIEST_MS, times.LATEST_MS)
WRITTEN = st.builds(
    lambda moment, fraction, zone: moment.strftime("%4Y-%m-%dT%H:%M:%S").rjust(19, "0") + fraction + zone,
    st.datetimes(),
    st.sampled_from(["", ".5", ".71", ".999", ".123456", ".123456789", ".", ".x"]),
    st.sampled_from(["Z", "+00:00", "-11:30", "+23:59", "+24:00", "z", "", " "]),
)
ODD = st.sampled_from(
    [
        *("2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z"),
        *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999Z", "2026-01-01T24:00:00Z"),
        *(
            "2026-12-31T23:59:60Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01t00:00:00z",
            "\uff12026-01-01T00:00:00Z",
            "é" * 24,
        ),
    ]
)


@given(TIMES)
def test_what_is_written_is_read_back(time_ms: int) -> None:
    written = times.rfc3339(time_ms)
    assert times.parse_time(written) == time_ms
    assert len(written) == 24


@settings(max_examples=150, deadline=None)
@given(st.lists(WRITTEN | ODD | st.none() | st.integers() | st.floats(), min_size=1, max_size=40), st.integers(0, 40))
def test_a_column_says_what_each_row_says(values: list[object], repeats: int) -> None:
    column = values + [values[0]] * repeats
    absent = np.arange(len(column), dtype=np.int64)
    found, bad = times.parse_times(column, absent)
    expected = [place if value is None else times.parse_time(value) for place, value in enumerate(column)]
    assert bad == [place for place, time_ms in enumerate(expected) if time_ms is None]
    assert found.tolist() == [time_ms or 0 for time_ms in expected]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-10, 10**21), min_size=20, max_size=30))
def test_a_column_of_integers_says_what_each_row_says(values: list[int]) -> None:
    found, bad = times.parse_times(values, np.zeros(len(values), dtype=np.int64))
    expected = [times.parse_time(value) for value in values]
    assert bad == [place for place, time_ms in enumerate(expected) if time_ms is None]
    assert found.tolist() == [time_ms or 0 for time_ms in expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-21T02:05:43.715Z", 1_795_226_743_715),
        ("2026-11-21T02:05:43.7159999Z", 1_795_226_743_715),
        ("2026-11-21T03:05:43.715+01:00", 1_795_226_743_715),
        ("2026-12-31T23:59:60Z", 1_798_761_600_000),
        (1_795_226_743, 1_795_226_743_000),
        (1_795_226_743.715, 1_795_226_743_715),
        (1_795_226_743_715, 1_795_226_743_715),
        (1_795_226_743_715.9, 1_795_226_743_715),
        (1_795_226_743_715_999, 1_795_226_743_715),
        (1_795_226_743_715_999_999, 1_795_226_743_715),
        (0, 0),
        (-1.5, -1_500),
    ],
)
def test_a_number_says_its_unit_by_its_size(value: object, expected: int) -> None:
    assert times.parse_time(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T02:05:43",
            "1795226743",
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00Z",
        ),
        *(True, None, [], float("nan"), float("inf"), -float("inf"), 1e308, 10**400, -(10**400), 5 * 10**20),
    ],
)
def test_what_is_no_time_is_none(value: object) -> None:
    assert times.parse_time(value) is None


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.just(UTC)))
def test_python_reads_the_same(moment: datetime) -> None:
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert times.parse_time(moment.isoformat()) == expected
