"""Scenarios without a reference: every repetition is a model version that learns one, and lets it mature.

Windows go through all that detect does when it closes one. What is told of them is read off the alerts it publishes.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import orjson
from msgspec.structs import replace

from stream.cli.binding import detect_settings
from stream.cli.evaluate import streams
from stream.cli.evaluate.notation import DAY_MS
from stream.cli.evaluate.product import KIND, NOTICES, SUBJECT, Found, Outcome
from stream.cli.evaluate.scenario import Scenario
from stream.cli.evaluate.streams import Ints
from stream.config import Config, Loaded
from stream.detectors import budget
from stream.profiles.reference import References, Tables, reference_key
from stream.profiles.summaries import MOMENTS
from stream.stages.detect.close import Closing, close
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import Open, Version
from stream.wire import codec
from stream.wire.internal import Partial, Reference, Span
from stream.wire.record import Outgoing, Record

MONDAY_MS: Final = 345_600_000
"""The first Monday after 1970 began."""
WEEK_DAYS: Final = 7
VERSION: Final = ("evaluated", "1")


def settings_of(scenario: Scenario, config: Config) -> Settings:
    """What detect is told: the configuration, or the budget that makes A of a group what the scenario wants."""
    made = detect_settings(Loaded(config, {}, frozenset()))
    if scenario.windows_per_false_alarm is None:
        return made
    share = budget.share(config.budget, KIND, segment_values=0, whole=True)
    alarms = config.budget.period / config.windows.size / (scenario.windows_per_false_alarm * share)
    return replace(made, budget=config.budget.model_copy(update={"false_alarms": alarms}))


def run(scenario: Scenario, settings: Settings, seed: int) -> Outcome:
    """All windows of all repetitions."""
    tables = streams.cut_of(scenario, settings.windows.size, seed)
    lives = [_Life(settings, tables, number) for number in range(scenario.repetitions)]
    windows = 0
    for part in streams.windows(scenario, tables, seed):
        windows += part.counts.shape[1]
        for place in range(part.counts.shape[1]):
            for number, life in enumerate(lives):
                life.window(part.first + place, part.counts[number, place], scenario.window)
    share = budget.share(settings.budget, KIND, segment_values=0, whole=True)
    return Outcome(
        windows=windows,
        a=math.exp(budget.ln_threshold(settings.budget, settings.windows.size, share)),
        episodes=sorted((one for life in lives for one in life.episodes), key=lambda one: (one.window, one.repetition)),
        notices={name: [life.notices[name] for life in lives] for name in NOTICES},
        unjudged=windows - sum(life.judged for life in lives) // len(lives),
    )


class _Life:
    """One model version from its first window on. Repetition r begins on the r-th day of a week."""

    def __init__(self, settings: Settings, tables: Tables, number: int) -> None:
        self._settings, self._number = settings, number
        self._first_ms = MONDAY_MS + number % WEEK_DAYS * DAY_MS
        self._version = Version(self._first_ms, self._first_ms)
        self._view = References.empty()
        self._hear(tables.reference)
        self._numeric = len(tables.layout.numeric)
        self.judged = 0
        """Windows that had a verdict."""
        self.episodes: list[Found] = []
        self.notices: dict[str, list[int]] = {name: [] for name in NOTICES}

    def window(self, index: int, counts: Ints, rows: int) -> None:
        """Closes one window."""
        settings, start_ms = self._settings, self._first_ms + index * self._settings.windows.size
        name = self._name(start_ms)
        part = self._partial(name, start_ms, counts, rows)
        opened = replace(self._version, open={start_ms: Open(partials={name: part})})
        closing = Closing(settings, self._view, VERSION, start_ms)
        self._version, published = close(closing, opened)
        self._take(index, published)

    def _name(self, start_ms: int) -> str:
        tables = self._view.at(*VERSION, start_ms)
        if tables is None:
            raise ValueError("the first reference is in force from the beginning")
        return tables.reference.reference_id

    def _partial(self, name: str, start_ms: int, counts: Ints, rows: int) -> Partial:
        none = np.zeros(1, np.int64)
        moments = np.zeros((1, self._numeric, MOMENTS), np.int64)
        spans = [Span("predictions", 0, start_ms, start_ms)]
        return Partial(*VERSION, name, start_ms, none, none + rows, none, none, none, counts[None], moments, spans)

    def _take(self, index: int, published: Iterable[Outgoing]) -> None:
        first = True
        for one in published:
            content = orjson.loads(one.value or b"{}")
            if one.role == "references":
                self._apply(one)
            elif one.role == "alerts" and content["data"]["kind"] == KIND:
                self._tell(index, content["data"])
            elif one.role == "windows" and first:
                first = False
                self.judged += content["level"] != "not_ready"

    def _tell(self, index: int, alert: dict[str, Any]) -> None:
        """An event of the group: an episode that begins or ends, or detections."""
        if alert["status"] == "firing" and alert["sequence"] == 0:
            earliest, latest = (self._index(alert["change_point"][end]) for end in ("earliest", "latest"))
            self.episodes.append(Found(self._number, index, earliest, latest, alert["change_type"]))
        elif alert["status"] == "resolved" and self.episodes:
            self.episodes[-1].returned, self.episodes[-1].shape = index, alert["change_type"]
        for name in {f"{SUBJECT} {entry['detector']}" for entry in alert["signals"]} & set(NOTICES):
            if alert["status"] == "notice":
                self.notices[name].append(index)

    def _index(self, time: str) -> int:
        """Of the window that begins at a time."""
        return ((codec.parse_time(time) or 0) - self._first_ms) // self._settings.windows.size

    def _hear(self, reference: Reference) -> None:
        self._apply(Outgoing("references", reference_key(reference), codec.encode_reference(reference)))

    def _apply(self, one: Outgoing) -> None:
        self._view = self._view.apply(Record("references", 0, self._view.offset, 0, one.key, one.value))
