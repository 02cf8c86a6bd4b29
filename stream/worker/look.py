"""Where the tasks of a worker stand, written down for the metrics."""

from collections.abc import Iterable

from stream.worker.ends import Ends
from stream.worker.stages import Stages
from stream.worker.status import Status
from stream.worker.task import RESTORING, Task


def look(status: Status, tasks: Iterable[Task], ends: Ends, stages: Stages) -> None:
    """Where the tasks stand, for the metrics."""
    held = list(tasks)
    names = sorted({"ingest", "join", "detect"})
    restoring = [task for task in held if task.phase in RESTORING]
    status.assigned = {name: sum(task.stage == name for task in held) for name in names}
    status.restoring = {name: sum(task.stage == name for task in restoring) for name in names}
    status.restore_remaining = {
        name: sum(max(0, task.goal_offset - task.read_offset) for task in restoring if task.stage == name)
        for name in names
    }
    status.started = status.started or (bool(held) and not restoring)
    running = [task for task in held if task.phase not in RESTORING]
    status.lag_records = {task.partition: _lag(task, ends) for task in running}
    status.unstable_records = {task.partition: ends.unstable(task.partition) for task in running}
    watermarks = {task.partition: _watermark(task, stages) for task in running if task.stage != "detect"}
    status.watermark_ms = {partition: mark for partition, mark in watermarks.items() if mark is not None}
    status.pairs_pending = sum(stages.join_waiting(task.running.state) for task in running if task.stage == "join")
    status.snapshot_seconds = {task.partition: task.snapshot_seconds for task in running if task.stage == "detect"}
    status.state_bytes = {"detect": sum(task.snapshot_bytes for task in running)}


def _watermark(task: Task, stages: Stages) -> int | None:
    state = task.running.state
    found: int | None = stages.join_watermark(state) if task.stage == "join" else state.watermark_ms
    return found


def _lag(task: Task, ends: Ends) -> int:
    """Nothing at the end of a partition, where only control records may stand behind the offset."""
    return 0 if task.end_offset is not None else ends.lag(task.partition, task.read_offset)
