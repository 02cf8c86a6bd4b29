"""What detect's states say, gathered over the tasks of a worker, for the metrics."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from stream.worker.ends import Partition
from stream.worker.stages import Overview, Stages, Standing
from stream.worker.status import Status
from stream.worker.task import RESTORING, Task
from stream.worker.telling import capped

TOO_MANY: Final = "more model versions than budget.model_versions: raise it, or expect more false alarms"


class Overviews:
    """The last overview of each task: what is new is counted, and what has not changed is not computed again."""

    def __init__(self, stages: Stages, models_max: int, signals_max: int, say: Callable[..., None]) -> None:
        self._stages = stages
        self._models_max = models_max
        self._signals_max = signals_max
        self._say = say
        self._known: dict[Partition, Overview] = {}

    def look(self, status: Status, references: Any, tasks: Iterable[Task]) -> None:
        """Write down where the detect tasks stand, by what is committed: what is undone was never said."""
        running = [task for task in tasks if task.stage == "detect" and task.phase not in RESTORING]
        known = {
            task.partition: self._stages.detect_overview(
                references, task.committed.state, self._known.get(task.partition), self._signals_max
            )
            for task in running
        }
        for partition, overview in known.items():
            self._count(status, self._known.get(partition), overview)
        self._known = known
        self._write(status, list(known.values()))

    def _count(self, status: Status, before: Overview | None, now: Overview) -> None:
        """What is new since the last look; what a task that has just come had said was counted where it was before."""
        if before is not None:
            for name, count in now.verdicts.items():
                status.detection.verdicts[name] += max(0, count - before.verdicts.get(name, 0))
            status.detection.suppressed["muted"] += max(0, now.suppressed - before.suppressed)

    def _write(self, status: Status, overviews: list[Overview]) -> None:
        firing: Counter[tuple[str, ...]] = Counter()
        evidence: dict[tuple[str, str], float] = {}
        signals: dict[tuple[str, str], float] = {}
        references: dict[tuple[str, str], int] = {}
        coverage: dict[tuple[str, str], float] = {}
        for (model_id, model_version), one in (pair for own in overviews for pair in _standings(own)):
            model = capped(status, model_id, self._models_max)
            for (kind, severity), count in one.firing.items():
                firing[model, kind, severity] += count
            _raise(evidence, model, one.evidence)
            _raise(signals, model, one.signals)
            if one.data_to_ms is not None and model == model_id:
                references.setdefault((model, model_version), one.data_to_ms)
            if one.coverage is not None and model == model_id:
                coverage[model, model_version] = one.coverage
        most = sorted(signals.items(), key=lambda item: (-item[1], item[0]))[: self._signals_max]
        found = status.detection
        found.firing, found.evidence, found.signal_evidence = dict(firing), evidence, dict(most)
        found.reference_to_ms, found.coverage = references, coverage
        found.budget_alarms = sum(overview.alarms for overview in overviews)
        shares = sum(overview.share for overview in overviews)
        if shares > 1 >= found.budget_shares:
            self._say("budget_exceeded", shares=round(shares, 3), detail=TOO_MANY)
        found.budget_shares = shares


def _standings(overview: Overview) -> Iterator[tuple[tuple[str, str], Standing]]:
    """Inputs first: what tells of both, such as the age of a reference, is theirs."""
    yield from overview.versions.items()
    yield from overview.outcomes.items()


def _raise(found: dict[tuple[str, str], float], model: str, given: Mapping[str, float]) -> None:
    """The largest of each name."""
    for name, value in given.items():
        found[model, name] = max(value, found.get((model, name), 0.0))
