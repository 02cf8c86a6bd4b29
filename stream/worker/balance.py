"""Who may read: internal topics before inputs, and no input far ahead of the others. It decides when, never what."""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from stream.worker.ends import Ends
from stream.worker.task import Phase, Reason, Task

INTERNAL_LAG_RECORDS: Final = 10_000
LEAD_MS: Final = 3_600_000
"""An input partition further ahead of the slowest waits: that bounds the windows that are open at once."""


def balance(tasks: Iterable[Task], ends: Ends, feedback: Collection[str]) -> Iterator[tuple[Task, Reason, bool]]:
    """For every running input, topics of `feedback` included: whether it is held back, by each of the two reasons."""
    held = list(tasks)
    inputs = [task for task in held if task.stage == "ingest" and task.phase is Phase.RUNNING]
    if not inputs:
        return
    waiting = sum(
        ends.lag(task.partition, task.read_offset)
        for task in held
        if task.stage != "ingest" and task.phase not in {Phase.FETCHING, Phase.SEARCHING}
    )
    already = "internal_lag" in inputs[0].pauses
    limit = INTERNAL_LAG_RECORDS // 2 if already else INTERNAL_LAG_RECORDS
    slowest_ms = min((mark for task in inputs if (mark := _progress_ms(task, feedback)) is not None), default=None)
    for task in inputs:
        yield task, "internal_lag", waiting > limit
        ahead_ms = 0 if slowest_ms is None else (task.running.state.watermark_ms or slowest_ms) - slowest_ms
        yield task, "leads", ahead_ms > LEAD_MS and task.end_offset is None


def _progress_ms(task: Task, feedback: Collection[str]) -> int | None:
    """The watermark of an input that has more to come; one that is at its end keeps nobody waiting.

    Nor does feedback that was stopped because it cannot be read: predictions are watched without it.
    """
    if task.end_offset is not None or (task.partition[0] in feedback and "dead_letters" in task.pauses):
        return None
    watermark_ms: int | None = task.running.state.watermark_ms
    return watermark_ms
