"""Policy: how urgent a kind of alert is, when it is told, and what an operator adds to it. No mathematics."""

import re
from collections.abc import Mapping
from string import Formatter
from typing import Final
from urllib.parse import quote

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stream.wire.durations import Duration
from stream.wire.outbound import SEVERITIES, Kind, Severity

SEVERITY: Final[dict[Kind, Severity]] = {
    "data_drift": "warning",
    "prediction_drift": "warning",
    "data_quality": "warning",
    "concept_drift": "critical",
    "performance": "critical",
    "silence": "critical",
    "outlier": "info",
    "challenger": "info",
    "retrain": "info",
}
"""The default ladder: info for a log or a chat, warning for a ticket today, critical for a page now."""
LADDER: Final = tuple(SEVERITIES)
"""From the lowest."""
SMALL: Final = 0.01
"""Impact below which an alert is one step less urgent: one event in a hundred of the model is concerned."""
LARGE: Final = 0.5
"""Impact from which it is one step more urgent: every other event. A column in another unit, a field gone missing."""

IDENTIFYING: Final = ("model_id", "model_version", "segment", "kind")
"""The labels every alert has, which make its fingerprint."""
SCOPE: Final = "scope"
"""A label more, where one kind has two alerts."""
OWN_ANNOTATIONS: Final = ("summary", "description", "action", "dashboard_url")
PLACEHOLDERS: Final = (*IDENTIFYING, "severity", "fingerprint", "alert_id")
"""What an annotation may hold in braces, as in "https://example.org/runbooks/{kind}"."""

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"  # what Prometheus and Alertmanager accept as the name of a label


class Settings(BaseModel):
    """Times of the life cycle in ms of event time, and what is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pending_for: Duration = 0
    """How long an alarm must stand before it is told. 0: the evidence has waited already."""
    keep_firing_for: Duration = 300_000
    """How long after a return an alert stays open, so that a new alarm continues it. 5 minutes."""
    update_interval: Duration = 3_600_000
    """At most one `updated` event of an alert, and one notice of a group, in this time. An hour."""
    refresh: Duration = Field(default=86_400_000, gt=0, le=86_400_000)
    """An open alert is told again after this time; at most a day: so two days of the topic tell all that is open."""
    retire_after: Duration = Field(default=604_800_000, gt=0)
    """A version silent for this long is gone, and its alerts resolve. A week."""
    max_signals: int = Field(default=20, ge=1, le=200)
    """Signals listed in one alert; `signals_total` counts all."""
    include_values: bool = False
    """Whether raw feature values may leave the system in outlier alerts. They may be personal data: no."""
    severity: dict[Kind, Severity] = Field(default_factory=dict)
    """Overrides of the ladder by kind."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Added to every alert, such as the team."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Added to every alert; may hold placeholders such as {kind}."""

    @field_validator("labels")
    @classmethod
    def _labels_are_new(cls, labels: dict[str, str]) -> dict[str, str]:
        return _checked_names(labels, (*IDENTIFYING, SCOPE))

    @field_validator("annotations")
    @classmethod
    def _annotations_can_be_filled(cls, annotations: dict[str, str]) -> dict[str, str]:
        for name, template in _checked_names(annotations, OWN_ANNOTATIONS).items():
            if problem := _template_problem(template):
                message = f"{name}: {problem}"
                raise ValueError(message)
        return annotations


class ModelSettings(BaseModel):
    """What one model may set for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: dict[Kind, Severity] = Field(default_factory=dict)
    """Overrides of the ladder and of `alerts.severity` by kind."""


class Impact(Struct, frozen=True):
    """What a change means for the model, from the change point until now."""

    size: float
    """Share of the events that lie elsewhere than the reference says, 0 to 1: total variation, or change of a rate."""
    importance: float = 1.0
    """Of the signal, as its owner says; 1 unless they say something."""
    share: float = 1.0
    """Part of the model's traffic that the segment has, 0 to 1."""

    @property
    def value(self) -> float:
        """Size x importance x share."""
        return self.size * self.importance * self.share


def severity(
    kind: Kind,
    settings: Settings,
    model: ModelSettings | None = None,
    impact: Impact | None = None,
    *,
    improved: bool = False,
) -> Severity:
    """How urgent an alert is: the model's word, else that of all alerts, else the ladder by kind and impact.

    On the ladder a small impact is one step down, a large one one step up. An improvement is `info` in any case.
    """
    if improved:
        return "info"
    own = model.severity if model else {}
    if said := own.get(kind) or settings.severity.get(kind):
        return said
    step = 0 if impact is None else _step(impact)
    return LADDER[min(max(LADDER.index(SEVERITY[kind]) + step, 0), len(LADDER) - 1)]


def higher(one: Severity, other: Severity | None) -> Severity:
    """The more urgent of two."""
    return one if other is None else max(one, other, key=LADDER.index)


def labels(settings: Settings, identity: Mapping[str, str]) -> dict[str, str]:
    """The identifying labels, then those of the operator."""
    return {**identity, **settings.labels}


def annotations(settings: Settings, values: Mapping[str, str]) -> dict[str, str]:
    """The operator's annotations with their placeholders filled; inside a URL values are percent-encoded."""
    return {name: _filled(template, values) for name, template in settings.annotations.items()}


def _step(impact: Impact) -> int:
    if impact.value >= LARGE:
        return 1
    return -1 if impact.value < SMALL else 0


def _filled(template: str, values: Mapping[str, str]) -> str:
    if template.startswith(("https://", "http://")):
        return template.format_map({name: quote(value, safe="") for name, value in values.items()})
    return template.format_map(values)


def _checked_names(given: dict[str, str], taken: tuple[str, ...]) -> dict[str, str]:
    for name in given:
        if name in taken:
            message = f"{name} is set by the program itself; take another name"
            raise ValueError(message)
        if not re.fullmatch(_NAME, name):
            message = f"{name!r} is no name: letters, digits and _ only, no digit first"
            raise ValueError(message)
    return given


def _template_problem(template: str) -> str | None:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return f"{error}; a brace that means itself is written twice"
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in PLACEHOLDERS:
            return f"unknown placeholder {{{name}}}; known are {', '.join(PLACEHOLDERS)}"
        if form or conversion:
            return f"write {{{name}}} without a format"
    return None
