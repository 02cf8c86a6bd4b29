"""Where the tasks of a worker stand, written down for the metrics."""

from collections.abc import Iterable

from stream.worker.ends import Ends
from stream.worker.status import Status
from stream.worker.task import RESTORING, Task


def look(status: Status, tasks: Iterable[Task], ends: Ends) -> None:
    """Where the tasks stand, for the metrics."""
    held = list(tasks)
    stages = sorted({"ingest", "detect"} | {task.stage for task in held})
    restoring = [task for task in held if task.phase in RESTORING]
    status.assigned = {stage: sum(task.stage == stage for task in held) for stage in stages}
    status.restoring = {stage: sum(task.stage == stage for task in restoring) for stage in stages}
    status.restore_remaining = {
        stage: sum(max(0, task.goal_offset - task.read_offset) for task in restoring if task.stage == stage)
        for stage in stages
    }
    status.started = status.started or (bool(held) and not restoring)
    running = [task for task in held if task.phase not in RESTORING]
    status.lag_records = {task.partition: _lag(task, ends) for task in running}
    status.unstable_records = {task.partition: ends.unstable(task.partition) for task in running}
    status.watermark_ms = {
        task.partition: task.running.state.watermark_ms
        for task in running
        if task.stage == "ingest" and task.running.state.watermark_ms is not None
    }
    status.snapshot_seconds = {task.partition: task.snapshot_seconds for task in running if task.stage == "detect"}
    status.state_bytes = {"detect": sum(task.snapshot_bytes for task in running)}


def _lag(task: Task, ends: Ends) -> int:
    """Nothing at the end of a partition, where only control records may stand behind the offset."""
    return 0 if task.end_offset is not None else ends.lag(task.partition, task.read_offset)
