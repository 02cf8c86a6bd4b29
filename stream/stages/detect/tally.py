"""What is counted of closed windows: verdicts, and the episodes that the budget of false alarms has to answer for."""

import numpy as np

from stream.alerts import lifecycle
from stream.detectors import Codes
from stream.stages.detect.plan import DETECTORS, Plan
from stream.stages.detect.shown import LEVELS
from stream.stages.detect.state import OutcomeVersion, Tally, Version
from stream.stages.detect.watch import Judged


def verdicts(plan: Plan, judged: Judged | None) -> dict[tuple[str, str], int]:
    """How many verdicts of each detector and level a window has; none where it judged nothing."""
    found: dict[tuple[str, str], int] = {}
    if judged is None:
        return found
    for family, series in enumerate(plan.families):
        if series.enabled:
            _count(found, DETECTORS[family], judged.level[:, series.columns])
    for asked in judged.asked:
        _count(found, asked.detector, asked.verdicts.level)
    return found


def with_level(said: dict[tuple[str, str], int], detector: str, level: int) -> dict[tuple[str, str], int]:
    """One verdict more."""
    name = (detector, LEVELS[level])
    return {**said, name: said.get(name, 0) + 1}


def after(
    tally: Tally, before: Version | OutcomeVersion, version: Version | OutcomeVersion, end_ms: int, period_ms: int
) -> Tally:
    """The tally after a window of inputs or outcomes of a version was closed that ended at `end_ms`."""
    counted = {**tally.verdicts}
    for name, count in version.said.items():
        counted[name] = counted.get(name, 0) + count
    alarms = {at_ms: count for at_ms, count in tally.alarms.items() if at_ms > end_ms - period_ms}
    if begun := sum(_begins(before.alerts.get(name), row) for name, row in version.alerts.items()):
        alarms[end_ms] = alarms.get(end_ms, 0) + begun
    return Tally(counted, alarms, tally.suppressed + version.suppressed)


def _begins(before: lifecycle.Row | None, row: lifecycle.Row) -> bool:
    """Whether an alert is open above `info` that was not before: it began, or it has become urgent."""
    return _counts(row) and not (before and _counts(before) and before.starts_at_ms == row.starts_at_ms)


def _counts(row: lifecycle.Row) -> bool:
    return row.state is lifecycle.State.FIRING and row.severity not in (None, "info")


def _count(found: dict[tuple[str, str], int], detector: str, levels: Codes) -> None:
    for level, count in enumerate(np.bincount(levels.reshape(-1), minlength=len(LEVELS)).tolist()):
        if count:
            name = (detector, LEVELS[level])
            found[name] = found.get(name, 0) + count
