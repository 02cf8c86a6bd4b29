"""Accidents happen when and where they are planned."""

import pytest

from stream.worker.ends import Aborted
from stream.worker.failpoints import Failpoint, Failpoints, Planned, parse


def test_a_plan_is_read() -> None:
    assert parse("commit=kill, step@detect:5=sleep:2.5,clock=+3600") == [
        Failpoint("commit", None, 1, "kill"),
        Failpoint("step", "detect", 5, "sleep:2.5"),
        Failpoint("clock", None, 1, "+3600"),
    ]
    assert parse("") == []


@pytest.mark.parametrize("text", ["nowhere=kill", "commit=explode", "commit", "commit:x=kill", "clock=soon"])
def test_a_plan_that_cannot_be_read_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="DRIFT_FAILPOINT"):
        parse(text)


def test_it_fires_at_its_passage_and_only_there() -> None:
    failpoints = Failpoints(parse("commit:2=raise,commit:3=abort,step@ingest=raise"))
    failpoints.hit("commit")
    failpoints.hit("step", "detect")
    with pytest.raises(Planned):
        failpoints.hit("commit")
    with pytest.raises(Aborted):
        failpoints.hit("commit")
    failpoints.hit("commit")
    with pytest.raises(Planned):
        failpoints.hit("step", "ingest")


def test_nothing_is_planned_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFT_FAILPOINT", raising=False)
    failpoints = Failpoints.from_environment()
    assert failpoints.planned == []
    assert failpoints.clock_ms == 0
    monkeypatch.setenv("DRIFT_FAILPOINT", "clock=-90")
    assert Failpoints.from_environment().clock_ms == -90_000
