"""The configuration under evaluation: detect's own watch over every window of a scenario."""

import math
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.cli.binding import detect_settings
from stream.cli.evaluate import streams
from stream.cli.evaluate.notation import Law
from stream.cli.evaluate.scenario import Scenario
from stream.cli.evaluate.streams import Ints
from stream.config import Config, Loaded
from stream.detectors import Bools, Floats, Level, Reason, budget, histogram
from stream.profiles import reference
from stream.profiles.reference import Tables
from stream.stages.detect import inputs, watch
from stream.stages.detect.plan import Group, InputsPlan, plan
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import Episode, Watch

KIND: Final = "data_drift"
SUBJECT: Final = "driftstream"
NOTICES: Final = ("driftstream adwin", "driftstream page_hinkley")
_LAW_ROWS: Final = 400_000
"""Rows from which the law after a change is known when a promise is computed."""


class Found(Struct):
    """One episode."""

    repetition: int
    window: int
    """Index of the one that alarmed."""
    earliest: int
    """Windows between which the change lies with 95 % confidence."""
    latest: int
    shape: str | None
    returned: int | None = None
    """Index of the window in which the old law was back."""


class Outcome(Struct, frozen=True):
    """What the product said of a scenario."""

    windows: int
    """Per repetition."""
    a: float
    """Threshold of the group: windows to one false alarm."""
    episodes: list[Found]
    notices: dict[str, list[list[int]]]
    """Windows with detections of ADWIN and of Page-Hinkley, per repetition."""
    unjudged: int = 0
    """Windows without a verdict per repetition: they cannot alarm, so the budget allows nothing for them."""


def settings_of(scenario: Scenario, config: Config) -> Settings:
    """What detect is told: the configuration, with the whole budget of a model version for every repetition."""
    made = detect_settings(Loaded(config, {}, frozenset()))
    whole = budget.share(config.budget, KIND, segment_values=0, whole=True)
    own = budget.share(config.budget, KIND, segment_values=scenario.repetitions + 1, whole=False)
    alarms = config.budget.false_alarms * whole / own
    if scenario.windows_per_false_alarm is not None:
        alarms = config.budget.period / config.windows.size / (scenario.windows_per_false_alarm * own)
    return replace(made, budget=config.budget.model_copy(update={"false_alarms": alarms}))


def planned(settings: Settings, tables: Tables) -> InputsPlan:
    """The plan of all repetitions. Each stands for a whole model, which is judged however small its reference is."""
    made = plan(settings, tables, None)
    ordered, unordered = (
        replace(series, reason=np.full_like(series.reason, Reason.NONE)) for series in (made.ordered, made.unordered)
    )
    return replace(made, ordered=ordered, unordered=unordered)


def run(scenario: Scenario, own: InputsPlan, seed: int) -> Outcome:
    """All windows of all repetitions; where only the delay is asked for, until every repetition has alarmed."""
    state = inputs.start(own, 0, {})
    seen = _Seen(own, scenario.repetitions)
    for part in streams.windows(scenario, own.tables, seed):
        for place in range(part.counts.shape[1]):
            index = part.first + place
            dense = streams.profile(own.tables, part.counts[:, place], scenario.window)
            before = state.episodes
            state, judged = inputs.update(own, state, index * own.settings.windows.size, dense)
            seen.take(index, before, state, judged)
            if _only_delay(scenario) and len(seen.first) == scenario.repetitions:
                return seen.outcome(index + 1, state)
    return seen.outcome(index + 1, state)


def detections(own: InputsPlan, judged: watch.Judged) -> dict[str, Bools]:
    """[G] segments in which ADWIN and Page-Hinkley have fired on any signal."""
    shape = (len(own.tables.segments), len(own.ordered.columns))
    fired = {
        f"{SUBJECT} {asked.detector}": (asked.verdicts.level == Level.DRIFT).reshape(len(asked.measures), *shape)
        for asked in judged.asked
    }
    return {name: fired[name].any((0, 2)) for name in NOTICES if name in fired}


def promise(scenario: Scenario, own: InputsPlan, law: Law, seed: int) -> float:
    """Windows within which half of the changes to a law should be found: 1.25 ln A/(n D) + 2 (`statistics.md` 5.5).

    D is the growth rate of the best member of the group, without what lies in the ball of what is normal; at tolerance
    0 the whole divergence. inf where it is 0.
    """
    counts = streams.law_counts(scenario, own.tables, law, _LAW_ROWS, seed)[None]
    best, exact = math.inf, own.settings.budget.tolerance == 0
    for series, coarse in zip((own.ordered, own.unordered), reference.coarse(own.tables, counts), strict=True):
        rows = slice(len(series.columns), 2 * len(series.columns))
        epsilon = series.law.epsilon[rows]
        growth = _growth(coarse[0], series.law.p[rows], np.zeros_like(epsilon) if exact else epsilon)
        ln_a = series.ln_threshold[rows]
        some = growth > 0
        best = min([best, *(ln_a[some] / growth[some] / scenario.window).tolist()])
    return 1.25 * best + 2


def _growth(counts: Ints, p: Floats, epsilon: Floats) -> Floats:
    """[N] expected ln of the clipped likelihood ratio per event under the law of the counts."""
    return histogram.growth(counts / np.maximum(counts.sum(1, keepdims=True), 1), p, epsilon)


def _only_delay(scenario: Scenario) -> bool:
    return scenario.expect.delay is not None and not scenario.expect.budget and scenario.chapter == "delays"


class _Seen:
    """Episodes and notices as windows go by."""

    def __init__(self, own: InputsPlan, repetitions: int) -> None:
        self._own = own
        self._open: dict[Group, Found] = {}
        self._all: list[Found] = []
        self._notices: dict[str, list[list[int]]] = {name: [[] for _ in range(repetitions)] for name in NOTICES}
        self.first: set[int] = set()
        """Repetitions that have alarmed."""

    def take(self, index: int, before: dict[Group, Episode], state: Watch, judged: watch.Judged) -> None:
        """One window more."""
        for group in sorted(group for group in judged.alarms - before.keys() if group[1] == KIND):
            self._opened(index, group, state.episodes[group])
        for group in judged.returns:
            if group in self._open:
                found = self._open.pop(group)
                found.returned, found.shape = index, before[group].shape
        for name, fired in detections(self._own, judged).items():
            for segment in np.flatnonzero(fired).tolist():
                self._notices[name][segment - 1].append(index)

    def outcome(self, windows: int, state: Watch) -> Outcome:
        """All of it; what is open keeps the shape it has now."""
        for group, found in self._open.items():
            found.shape = state.episodes[group].shape
        a = math.exp(float(self._own.ln_group[KIND][1]))
        return Outcome(windows, a, self._all, self._notices)

    def _opened(self, index: int, group: Group, one: Episode) -> None:
        size_ms = self._own.settings.windows.size
        point = one.points[one.moved[0]]
        earliest, latest = point.earliest_ms // size_ms, point.latest_ms // size_ms
        found = Found(group[0] - 1, index, earliest, latest, one.shape)
        self._open[group] = found
        self._all.append(found)
        self.first.add(found.repetition)
