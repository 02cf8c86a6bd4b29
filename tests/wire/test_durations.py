import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from stream.wire import durations
from stream.wire.durations import Duration


class Settings(BaseModel, frozen=True):
    wait: Duration = 30_000


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("0s", 0), ("500ms", 500), ("90s", 90_000), ("1m", 60_000), ("1h", 3_600_000), ("7d", 604_800_000)],
)
def test_a_duration_is_read_as_milliseconds(text: str, expected_ms: int) -> None:
    assert Settings.model_validate({"wait": text}).wait == expected_ms


@given(st.integers(0, durations.LONGEST_MS))
def test_writing_and_reading_a_duration_change_nothing(duration_ms: int) -> None:
    assert durations.parse(durations.text_of(duration_ms)) == duration_ms


@pytest.mark.parametrize(
    "value", ["", "s", "1", "1.5s", "-1s", "1 s", "1S", "1w", "٣s", "1s\n", "999999999d", 60, 60.0, None]
)
def test_anything_else_is_refused_with_the_mend(value: object) -> None:
    with pytest.raises(ValidationError, match=r"unit|hundred years"):
        Settings.model_validate({"wait": value})


def test_a_duration_is_dumped_as_people_write_it() -> None:
    assert Settings().model_dump() == {"wait": "30s"}
    assert Settings.model_json_schema()["properties"]["wait"]["type"] == "string"
