"""Who may read: what waits between the stages goes before new input."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from counting import IngestState

from stream.worker.balance import INTERNAL_LAG_RECORDS, LEAD_MS, balance
from stream.worker.ends import Ends, Partition
from stream.worker.task import Phase, Reason, Task

INPUT, FEEDBACK = ("predictions", 0), ("feedback", 0)


class Lagging:
    """Ends of which only the lag is asked for."""

    def __init__(self, lags: Mapping[Partition, int]) -> None:
        self.lags = lags

    def lag(self, partition: Partition, _next_offset: int) -> int:
        return self.lags.get(partition, 0)


def task(stage: Any, partition: Partition, watermark_ms: int | None = None) -> Task:
    found = Task(stage, partition, 0.0)
    found.phase, found.pauses = Phase.RUNNING, set()
    found.settle(IngestState(watermark_ms), 0)
    return found


def held(tasks: list[Task], lags: Mapping[Partition, int] = {}) -> set[tuple[Partition, Reason]]:
    """Whom something holds back."""
    found = balance(tasks, cast("Ends", Lagging(lags)), ["feedback"])
    return {(one.partition, reason) for one, reason, is_held in found if is_held}


@pytest.mark.parametrize(("stage", "topic"), [("join", "drift.pairs"), ("detect", "drift.profiles")])
def test_inputs_wait_while_what_follows_lags(stage: str, topic: str) -> None:
    inputs = [task("ingest", INPUT), task("ingest", FEEDBACK)]
    follower = task(stage, (topic, 1))
    assert held([*inputs, follower], {(topic, 1): INTERNAL_LAG_RECORDS}) == set()
    lagging = {(topic, 1): INTERNAL_LAG_RECORDS + 1}
    assert held([*inputs, follower], lagging) == {(INPUT, "internal_lag"), (FEEDBACK, "internal_lag")}


def test_predictions_do_not_run_ahead_of_labels_that_are_to_come() -> None:
    ahead, behind = task("ingest", INPUT, LEAD_MS + 1_001), task("ingest", FEEDBACK, 1_000)
    assert held([ahead, behind]) == {(INPUT, "leads")}
    behind.end_offset = 7
    assert held([ahead, behind]) == set()


def test_feedback_that_is_stopped_keeps_nobody_waiting_and_a_stopped_input_does() -> None:
    ahead, stopped = task("ingest", INPUT, LEAD_MS + 1_001), task("ingest", FEEDBACK, 1_000)
    stopped.pauses = {"dead_letters"}
    assert held([ahead, stopped]) == set()
    ahead, stopped = task("ingest", INPUT, LEAD_MS + 1_001), task("ingest", ("predictions", 1), 1_000)
    stopped.pauses = {"dead_letters"}
    assert held([ahead, stopped]) == {(INPUT, "leads")}
