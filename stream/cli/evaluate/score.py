"""Alarms against labels: three numbers that are judged together, never one score made of them.

*Recall*, the share of the changes that were found; *delay*, from the first row of the new law to the alarm; and *false
alarms* per budget period. The first alarm after a change and before the next is its own, every other alarm is false,
whatever it repeats; the first one after a return to the old law is neither.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from stream.cli.evaluate.scenario import Label


class Figures(Struct, frozen=True):
    """One detector on one scenario, all repetitions together."""

    detector: str
    changes: int
    found: int
    delays: list[int]
    """Rows from the change to the alarm, of the changes found."""
    false_alarms: int
    rows: int
    """Judged, all runs together."""
    runs: int

    @property
    def recall(self) -> float:
        """Share of the changes found; NaN without changes."""
        return self.found / self.changes if self.changes else math.nan

    def delay(self, share: float = 0.5) -> float:
        """Quantile of the delay in rows over all changes, those not found counting as endless."""
        place = math.ceil(share * self.changes) - 1
        ordered = sorted(self.delays)
        return float(ordered[place]) if 0 <= place < len(ordered) else math.inf

    def per_period(self, period_rows: float) -> float:
        """False alarms per period."""
        return self.false_alarms * period_rows / self.rows if self.rows else math.nan


def judge(detector: str, alarms: Sequence[Sequence[int]], labels: Sequence[Label], rows: int) -> Figures:
    """Figures of one detector: `alarms` are the rows seen at each alarm, per repetition of `rows` rows."""
    delays, own = [], 0
    spans = list(pairwise([*labels, Label(rows, back=True)]))
    for run in alarms:
        for label, following in spans:
            first = next((alarm for alarm in run if label.row < alarm <= following.row), None)
            if first is not None:
                own += 1
                if not label.back:
                    delays.append(first - label.row)
    changes = len(alarms) * sum(not label.back for label in labels)
    total = sum(map(len, alarms))
    return Figures(detector, changes, len(delays), delays, total - own, rows * len(alarms), len(alarms))


def poisson_limit(count: int, confidence: float = 0.95) -> float:
    """The largest rate at which so few events would still be seen with probability 1 - `confidence`.

    Worked example: nothing seen, 3.0 may still have been expected.
    """
    low, high = float(count), 3.0 * count + 20
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        term = total = math.exp(-middle)
        for k in range(1, count + 1):
            term *= middle / k
            total += term
        low, high = (middle, high) if total > 1 - confidence else (low, middle)
    return high
