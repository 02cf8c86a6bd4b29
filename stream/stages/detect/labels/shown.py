"""A closed window of outcomes, and what all that is told of it shows."""

import numpy as np
from msgspec import Struct

from stream.alerts.evidence import Subject
from stream.detectors import Ints, Reason
from stream.profiles import estimate, outcome_tables, performance
from stream.profiles.estimate import Calibration
from stream.profiles.outcome_tables import ALL, OutcomeTables
from stream.signals.outcomes import SCORE_BINS, ModelSettings
from stream.stages.detect.decisions import Orders
from stream.stages.detect.labels.plan import OutcomesPlan
from stream.stages.detect.plan import LABELS, Group
from stream.stages.detect.recent import Answers
from stream.stages.detect.settings import Settings
from stream.stages.detect.watch import Judged
from stream.wire.internal import Outcomes
from stream.wire.outbound import Metrics


class Closed(Struct, frozen=True, eq=False):
    """A closed window of outcomes, in the segments of its reference; without one in its own. Made by `closed`."""

    model_id: str
    model_version: str
    settings: Settings
    plan: OutcomesPlan | None
    start_ms: int
    segments: list[str]
    outcomes: Outcomes
    """Aligned to the segments."""
    judged: Judged | None
    reason: Reason
    """Why nothing is judged, where nothing is."""
    metrics: list[Metrics]
    """By segment."""
    orders: Orders
    """What people have decided of it."""

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.settings.windows.size

    def subject(self, group: Group) -> Subject:
        """What an alert of a group is about."""
        scope = LABELS if group[1] == "data_quality" else ""
        return Subject(self.model_id, self.model_version, self.segments[group[0]], group[1], scope)


def closed(  # noqa: PLR0913 - all that a window is told by
    settings: Settings,
    plan: OutcomesPlan | None,
    outcomes: Outcomes,
    judged: Judged | None,
    answers: Answers | None,
    *,
    reason: Reason = Reason.NONE,
    orders: Orders | None = None,
) -> Closed:
    """A window ready to be told; `answers` are what the predictions of the same window have left."""
    own = settings.outcomes.get(outcomes.model_id, ModelSettings())
    segments = [ALL, *sorted(set(outcomes.segments) - {ALL})] if plan is None else plan.segments
    aligned = outcome_tables.aligned(outcomes, segments)
    return Closed(
        outcomes.model_id,
        outcomes.model_version,
        settings,
        plan,
        outcomes.window_start_ms,
        segments,
        aligned,
        judged,
        reason,
        [
            performance.metrics(aligned, row, own, estimate.estimate(_scores(answers, name), _calibration(plan, row)))
            for row, name in enumerate(segments)
        ],
        orders or Orders(),
    )


def _scores(answers: Answers | None, segment: str) -> Ints:
    """Predictions of a segment by score."""
    if answers is None or segment not in answers.segments or not answers.scores.shape[1]:
        return np.zeros(3 * SCORE_BINS, np.int64)
    return np.asarray(answers.scores[answers.segments.index(segment)])


def _calibration(plan: OutcomesPlan | None, segment: int) -> Calibration:
    tables: OutcomeTables | None = None if plan is None else plan.tables
    if tables is None or not tables.scored[segment].any():
        return estimate.uncalibrated()
    probability = tables.calibration[segment].reshape(-1, SCORE_BINS)
    n = tables.scored[segment].reshape(-1, SCORE_BINS)
    return Calibration(probability, probability * (1 - probability) / (n + 1), calibrated=True)
