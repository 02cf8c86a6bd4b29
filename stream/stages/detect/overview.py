"""What metrics say of a detect task: what fires, how near evidence is to an alarm, and what it is compared with.

Read off the state whenever somebody looks, in no window's way: nothing here is remembered or published.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from msgspec import Struct, field

from stream.alerts import lifecycle
from stream.detectors import Floats, budget, ln_sum
from stream.profiles.reference import References
from stream.stages.detect import labels, silence, watch
from stream.stages.detect.close import Name
from stream.stages.detect.labels import plan as labels_plan
from stream.stages.detect.plan import Plan, plan
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import OutcomeVersion, State, Version, Watch
from stream.wire.times import parse_time


class Standing(Struct, frozen=True, eq=False):
    """One model version. Evidence is told as ln M over ln A, 0 at rest and 1 at an alarm."""

    next_ms: int
    """Start of the window that was to be closed next."""
    firing: Mapping[tuple[str, str], int]
    """Open alerts by kind and severity."""
    evidence: Mapping[str, float]
    """By kind, of the segment with most; at least 1 while an alert of the group is open."""
    signals: Mapping[str, float]
    """By signal, of the segment and measure with most: those with most of it."""
    data_to_ms: int | None
    """The newest event behind the reference in force."""
    coverage: float | None = None
    """Of outcomes: share of labelled predictions among those whose horizon ended last."""


class Overview(Struct, frozen=True, eq=False):
    """One detect task."""

    versions: Mapping[Name, Standing] = field(default_factory=dict)
    outcomes: Mapping[Name, Standing] = field(default_factory=dict)
    """Of the same model versions, what is known of their labels."""
    verdicts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By detector and level, since its state began."""
    suppressed: int = 0
    """Alerts and notices that mutes have kept back, likewise."""
    alarms: int = 0
    """Episodes above `info` that began in the last `budget.period` of event time."""
    share: float = 0.0
    """Model versions over `budget.model_versions`."""


def overview(
    settings: Settings, references: References, state: State, before: Overview | None = None, signals: int = 0
) -> Overview:
    """How things stand, with at most so many signals per version.

    Of `before`, what was read off the same state last, all is taken that cannot have changed: versions of which no
    window was closed. Cost: O(series) of the others, about 0.3 us each.
    """
    known, measured = ({}, {}) if before is None else (before.versions, before.outcomes)
    return Overview(
        versions={
            name: _kept(known.get(name), version) or _standing(settings, references, version, signals)
            for name, version in state.versions.items()
        },
        outcomes={
            name: _kept(measured.get(name), version) or _measured(settings, references, version, signals)
            for name, version in state.outcomes.items()
        },
        verdicts=state.tally.verdicts,
        suppressed=state.tally.suppressed,
        alarms=sum(state.tally.alarms.values()),
        share=len(state.versions) / settings.budget.model_versions,
    )


def _kept(known: Standing | None, version: Version | OutcomeVersion) -> Standing | None:
    return known if known is not None and known.next_ms == version.next_ms else None


def _standing(settings: Settings, references: References, version: Version, signals: int) -> Standing:
    tables = references.by_id(version.reference_id or "")
    evidence: dict[str, float] = {}
    by_signal: dict[str, float] = {}
    if version.watch is not None and tables is not None:
        own = plan(settings, tables, version.watch.serving)
        evidence, by_signal = _evidence(own, version.watch, signals)
        evidence[silence.KIND] = silence.ratio(settings, tables, version)
    return Standing(
        next_ms=version.next_ms,
        firing=_firing(version.alerts),
        evidence=evidence,
        signals=by_signal,
        data_to_ms=None if tables is None else parse_time(tables.reference.data_to),
    )


def _measured(settings: Settings, references: References, version: OutcomeVersion, signals: int) -> Standing:
    known = labels.known_before(references, version)
    evidence: dict[str, float] = {}
    by_signal: dict[str, float] = {}
    if version.watch is not None and known is not None:
        own = labels_plan.plan(settings, known, version.watch.serving)
        evidence, by_signal = _evidence(own, version.watch, signals)
    return Standing(
        next_ms=version.next_ms,
        firing=_firing(version.alerts),
        evidence=evidence,
        signals=by_signal,
        data_to_ms=None if known is None else parse_time(known.reference.data_to),
        coverage=version.coverage,
    )


def _firing(rows: Mapping[tuple[str, str], lifecycle.Row]) -> dict[tuple[str, str], int]:
    return Counter(
        (kind, row.severity or "info") for (_, kind), row in rows.items() if row.state is lifecycle.State.FIRING
    )


def _evidence(own: Plan, state: Watch, signals: int) -> tuple[dict[str, float], dict[str, float]]:
    """By kind and by signal."""
    ln_m = watch.ln_evidence(own, state)
    kinds: dict[str, float] = {}
    for kind, members in own.members.items():
        if len(members):
            ln_g = ln_sum(ln_m[:, members] + budget.ln_weights(len(members)))
            kinds[kind] = float(_ratio(ln_g, own.ln_group[kind]).max())
    for _, kind in state.episodes:
        kinds[kind] = max(1.0, kinds[kind])
    return kinds, _signals(own, _ratio(ln_m, own.ln_threshold).max(0), signals) if signals else {}


def _signals(own: Plan, ratios: Floats, most: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for column, ratio in zip(own.columns, ratios.tolist(), strict=True):
        found[column.signal] = max(ratio, found.get(column.signal, 0.0))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most])


def _ratio(ln_m: Floats, ln_a: Floats) -> Floats:
    """Where A is 1 every window may alarm: any evidence is enough."""
    return np.asarray(np.where(ln_a > 0, np.maximum(ln_m, 0.0) / np.where(ln_a > 0, ln_a, 1.0), 1.0))
