"""Streams of pairs whose relation of score and label, and whose change, are known: windows of outcomes, without a join.

    Labelled(seed=1).windows(200)                           # calibrated, nothing changes
    Labelled(seed=1, changes={100: Law(inputs=1.0)})        # other inputs, the same relation
    Labelled(seed=1, changes={100: Law(relation=-1.5)})     # the same inputs, another relation

The logit of a score is normal; the label is drawn with the score's own probability, moved by `relation` on the logit.
Window i is the same in every call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream.profiles import outcomes
from stream.signals.outcomes import Compared, Ended, Met, ModelSettings
from stream.wire.internal import Outcomes, ScoreOf

START_MS = 1_795_219_200_000
MINUTE_MS = 60_000
SEGMENTS = [["country=AT"], ["country=DE"]]


@dataclass(frozen=True)
class Law:
    """What pairs follow from some window on."""

    inputs: float = 0.0
    """Mean of the logit of the score."""
    relation: float = 0.0
    """What is added to that logit before a label is drawn."""
    flipped: bool = False
    """Whether labels are drawn as if scores meant the opposite."""
    only: str | None = None
    """The one segment that this holds for; all others stay as they were."""
    above: float = 0.0
    """Lowest score that the change of the relation holds for."""
    delay_ms: float = 30_000.0
    """Median delay of a label."""
    labelled: float = 0.8
    """Share of predictions that get one."""
    noise: float = 1.0
    """Of a regression: standard deviation of the error."""


@dataclass(frozen=True)
class Labelled:
    """One model version and its pairs, n in each window."""

    seed: int = 1
    n: int = 300
    model_id: str = "credit"
    model_version: str = "3"
    regression: bool = False
    size_ms: int = MINUTE_MS
    start_ms: int = START_MS
    changes: Mapping[int, Law] = field(default_factory=dict)
    """Laws by the window they begin with; before the first of them `Law()`."""

    def law(self, index: int) -> Law:
        """In force in a window."""
        return self.changes[max(begun)] if (begun := [first for first in self.changes if first <= index]) else Law()

    def windows(self, count: int, first: int = 0) -> list[Outcomes]:
        """Windows first .. first + count - 1."""
        return [self.window(index) for index in range(first, first + count)]

    def window(self, index: int) -> Outcomes:
        """One window; empty where n is 0."""
        found = outcomes.of_pairs(self.met(index), ModelSettings())
        found += outcomes.of_ended(self.ended(index))
        return outcomes.merge([outcomes.empty(self.model_id, self.model_version, self.at(index)), *found])

    def at(self, index: int) -> int:
        """When a window starts."""
        return self.start_ms + index * self.size_ms

    def met(self, index: int) -> Met:
        """The pairs of a window."""
        n, law, rng = self.n, self.law(index), np.random.default_rng([self.seed, index])
        segment = (rng.random(n) < 0.3).astype(np.int64)
        concerned = np.ones(n, np.bool_) if law.only is None else segment == SEGMENTS.index([law.only])
        logit = np.where(concerned, law.inputs, 0.0) + 1.5 * rng.standard_normal(n)
        scores = 1 / (1 + np.exp(-logit))
        moved = np.where(concerned & (scores >= law.above), law.relation, 0.0)
        drawn = 1 / (1 + np.exp(-(np.where(concerned & law.flipped, -logit, logit) + moved)))
        happened = rng.random(n) < drawn
        nan = np.full(n, np.nan)
        truths = 100 + 10 * rng.standard_normal(n)
        errors = np.where(concerned, law.noise, 1.0) * rng.standard_normal(n)
        return Met(
            model_id=self.model_id,
            windows_ms=np.full(n, self.at(index)),
            versions=[self.model_version],
            version=np.zeros(n, np.int64),
            classes=[] if self.regression else ["0", "1"],
            predicted=np.full(n, -1) if self.regression else (scores >= 0.5).astype(np.int64),
            actual=np.full(n, -1) if self.regression else happened.astype(np.int64),
            scores=nan if self.regression else scores,
            score_of=np.full(n, ScoreOf.NOTHING if self.regression else ScoreOf.POSITIVE),
            outputs=truths + errors if self.regression else nan,
            truths=truths if self.regression else nan,
            delays_ms=(law.delay_ms * np.exp(0.5 * rng.standard_normal(n))).astype(np.int64),
            segments=SEGMENTS,
            segment=segment,
            topics=["feedback"],
            topic=np.zeros(n, np.int64),
            partitions=np.zeros(n, np.int64),
            offsets=index * n + np.arange(n),
        )

    def ended(self, index: int) -> Ended:
        """The predictions whose horizon ends in a window."""
        law, rng = self.law(index), np.random.default_rng([self.seed, index, 1])
        return Ended(
            model_id=self.model_id,
            windows_ms=np.full(self.n, self.at(index)),
            versions=[self.model_version],
            version=np.zeros(self.n, np.int64),
            segments=SEGMENTS,
            segment=(rng.random(self.n) < 0.3).astype(np.int64),
            labelled=rng.random(self.n) < law.labelled,
        )

    def compared(self, index: int, gain: float, disagree: float = 0.1) -> Compared:
        """Gains of this version against the champion: `disagree` of the answers differ, better by `gain` on average."""
        rng = np.random.default_rng([self.seed, index, 2])
        better = (disagree + gain) / 2
        draws = rng.random(self.n)
        return Compared(
            model_id=self.model_id,
            windows_ms=np.full(self.n, self.at(index)),
            challengers=[self.model_version],
            challenger=np.zeros(self.n, np.int64),
            gains=np.where(draws < better, 1.0, np.where(draws < disagree, -1.0, 0.0)),
            segments=SEGMENTS,
            segment=(rng.random(self.n) < 0.3).astype(np.int64),
        )


def total(windows: Sequence[Outcomes]) -> Outcomes:
    """All of them as one."""
    return outcomes.merge(windows)
