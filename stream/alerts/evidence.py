"""What one alert shows: signals ranked, before and after, since when, offsets of the evidence, and texts for people.

The stage brings what it knows as a `Situation`, the life cycle brings an `Emission`, and `build` makes one event of
both. The small functions turn numbers of the mathematics into what is published: NaN becomes null, digits that mean
nothing go, milliseconds become times.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.alerts import policy, wording
from stream.alerts.lifecycle import Emission
from stream.wire.codec import rfc3339
from stream.wire.internal import Origin, OutlyingRow, Span
from stream.wire.outbound import (
    Alert,
    Bin,
    Budget,
    BurstDetails,
    ChangePoint,
    ChangeType,
    CloudEvent,
    Contribution,
    Description,
    Details,
    Direction,
    DriftDetails,
    Effect,
    EvidenceOffsets,
    Generator,
    JudgedWindow,
    Kind,
    Level,
    OutlierDetails,
    QualityCheck,
    QualityDetails,
    Severity,
    SignalEntry,
    alert_id,
    envelope,
    fingerprint,
    significant,
)

PARTITIONS_MAX = 64
"""Input partitions whose offsets one alert lists: enough to find the records, bounded whatever the topic's width."""
BINS_MAX = 5
"""Bins of a distribution shown per signal: those that moved most."""
_RAW_DIGITS = 9
"""Digits of a value in the signal's own unit: more than people read, enough for a time in seconds as a feature."""


class Sender(Struct, frozen=True):
    """Who sends: bound once at start."""

    service_id: str
    version: str
    config_id: str
    public_url: str | None = None
    """Where the dashboard is, for links in alerts; without a slash at the end."""


class Subject(Struct, frozen=True):
    """What an alert is about: its identity."""

    model_id: str
    model_version: str
    segment: str
    kind: Kind
    scope: str = ""
    """What of it, where one kind has two alerts: `labels` of `data_quality`."""

    @property
    def fingerprint(self) -> str:
        """Names the alert; the same for every episode."""
        return fingerprint(self.model_id, self.model_version, self.segment, self.kind, self.scope)


class Situation(Struct, frozen=True, kw_only=True):
    """What a closed window shows of one group."""

    details: Details
    severity: Severity = "info"
    """By `policy.severity` and the life cycle."""
    impact: policy.Impact | None = None
    """What the severity was decided by."""
    window: JudgedWindow | None = None
    reference_id: str | None = None
    reference_origin: Origin | None = None
    signals: Sequence[SignalEntry] = ()
    """Those that moved by the evidence, in any order; detections come with the emission."""
    change_type: ChangeType | None = None
    change_point: ChangePoint | None = None
    offsets: Sequence[EvidenceOffsets] = ()
    budget: Budget | None = None


def build(  # noqa: PLR0913 - an alert is made of who sends, what is meant and what happened
    sender: Sender,
    settings: policy.Settings,
    subject: Subject,
    emission: Emission,
    situation: Situation,
    *,
    discriminator: str = "",
    traceparent: str | None = None,
) -> CloudEvent:
    """One event, ready for `outbound.alert_record`.

    A notice of detections (or of a reference that may not mature) lists those alone and is of severity info: the
    evidence of its group says nothing, so neither the group's signals nor its change belong to it.
    """
    name = subject.fingerprint
    unconfirmed = emission.event == "notice" and bool(emission.detections or emission.may_not_mature)
    signals = [*([] if unconfirmed else ranked(situation.signals)), *ranked(emission.detections)]
    alert = Alert(
        alert_id=alert_id(name, emission.starts_at_ms, discriminator),
        fingerprint=name,
        sequence=emission.sequence,
        status="firing" if emission.event == "updated" else emission.event,
        kind=subject.kind,
        severity="info" if unconfirmed else situation.severity,
        model_id=subject.model_id,
        model_version=subject.model_version,
        segment=subject.segment,
        labels=policy.labels(settings, _identity(subject)),
        annotations={},
        starts_at=rfc3339(emission.starts_at_ms),
        ends_at=None if emission.ends_at_ms is None else rfc3339(emission.ends_at_ms),
        updated_at=rfc3339(emission.updated_at_ms),
        window=situation.window,
        reference_id=situation.reference_id,
        reference_origin=situation.reference_origin,
        signals=signals[: settings.max_signals],
        signals_total=len(signals),
        change_type=None if unconfirmed else situation.change_type,
        change_point=None if unconfirmed else situation.change_point,
        evidence_offsets=list(situation.offsets)[:PARTITIONS_MAX],
        budget=situation.budget,
        resolve_reason=emission.resolve_reason,
        details=msgspec.to_builtins(situation.details),
        generator=Generator("driftstream", sender.version, sender.config_id),
    )
    alert = replace(alert, annotations=_annotations(sender, settings, alert, emission, situation))
    return envelope(alert, emission.event, sender.service_id, traceparent)


def outlier_notices(  # noqa: PLR0913 - the rows, and everything that is the same for all of them
    sender: Sender,
    settings: policy.Settings,
    rows: Iterable[OutlyingRow],
    *,
    model_id: str,
    model_version: str,
    severity: Severity,
    threshold: int,
    reference_id: str,
    reference_origin: Origin,
) -> list[CloudEvent]:
    """A notice per unusual row of a closed window, in the order of the rows; a row that was sent twice has one.

    `threshold` is s* of `statistics.md` 11: rows below it are passed over.
    """
    subject = Subject(model_id, model_version, "all", "outlier")
    unique = {(row.prediction_id, row.time_ms): row for row in reversed(list(rows)) if row.score >= threshold}
    return [
        build(
            sender,
            settings,
            subject,
            Emission(event="notice", sequence=0, starts_at_ms=row.time_ms, updated_at_ms=row.time_ms),
            Situation(
                severity=severity,
                details=_outlier_details(row, threshold, values=settings.include_values),
                reference_id=reference_id,
                reference_origin=reference_origin,
                offsets=[EvidenceOffsets(row.topic, row.partition, row.offset, row.offset, None)],
            ),
            discriminator=row.prediction_id,
            traceparent=row.traceparent,
        )
        for row in reversed(unique.values())
    ]


def entry(  # noqa: PLR0913 - as many as an entry has fields
    signal: str,
    measure: str,
    detector: str,
    level: Level,
    *,
    statistic: float | None,
    threshold: float | None,
    evidence: float | None,
    n: int,
    before: Description,
    after: Description,
    effect: Effect | None = None,
    bins: Sequence[Bin] = (),
    change_point: ChangePoint | None = None,
    direction: Direction | None = None,
) -> SignalEntry:
    """One signal as one detector saw it; NaN becomes null.

    Without a `direction` it is read off `before` and `after`.
    """
    return SignalEntry(
        signal=signal,
        measure=measure,
        detector=detector,
        level=level,
        statistic=significant(statistic),
        threshold=significant(threshold),
        evidence=significant(evidence),
        n=n,
        direction=direction or direction_of(before, after),
        effect=effect or Effect(None, None, None),
        before=before,
        after=after,
        bins=list(bins),
        change_point=change_point,
    )


def ranked(entries: Iterable[SignalEntry]) -> list[SignalEntry]:
    """By falling evidence; those without (detections) after them; ties in the order of their names."""
    return sorted(
        entries,
        key=lambda entry: (
            entry.evidence is None,
            -(entry.evidence or 0.0),
            entry.signal,
            entry.measure,
            entry.detector,
        ),
    )


def describe(  # noqa: PLR0913 - as many as a description has fields
    *,
    mean: float | None = None,
    std: float | None = None,
    p05: float | None = None,
    p50: float | None = None,
    p95: float | None = None,
    rate: float | None = None,
    top: Sequence[tuple[str, float]] | None = None,
) -> Description:
    """What applies of a signal's summary, rounded for print; NaN and None do not apply."""
    return Description(
        mean=significant(mean, _RAW_DIGITS),
        std=significant(std, _RAW_DIGITS),
        p05=significant(p05, _RAW_DIGITS),
        p50=significant(p50, _RAW_DIGITS),
        p95=significant(p95, _RAW_DIGITS),
        rate=significant(rate),
        top=None if top is None else [(category, significant(share) or 0.0) for category, share in top],
    )


def effect(psi: float | None, jensen_shannon: float | None, wasserstein: float | None = None) -> Effect:
    """Effect sizes, rounded for print; NaN becomes null."""
    return Effect(significant(psi), significant(jensen_shannon), significant(wasserstein))


def direction_of(before: Description, after: Description) -> Direction:
    """Up or down where a rate or a mean tells, else changed."""
    for old, new in ((before.rate, after.rate), (before.mean, after.mean)):
        if old is not None and new is not None and old != new:
            return "up" if new > old else "down"
    return "changed"


def moved_bins(names: Sequence[str], reference: Sequence[float], current: Sequence[float]) -> list[Bin]:
    """The bins whose share moved most, largest move first, at most `BINS_MAX`; ties in the order of the bins.

    `names`, `reference` and `current` have one element per bin, the latter two shares that sum to 1.
    """
    before, after = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    moved = np.argsort(-np.abs(after - before), kind="stable")[:BINS_MAX]
    return [
        Bin(names[index], significant(float(before[index])) or 0.0, significant(float(after[index])) or 0.0)
        for index in moved
        if before[index] != after[index]
    ]


def interval_names(edges: Sequence[float]) -> list[str]:
    """Names of the k + 1 bins that k edges make: "(-inf, 18.0]", "(18.0, 35.0]", "(35.0, inf)".

    An edge right below a rounder number, which gives that number a bin of its own, is shown from its other side:
    "[77.0, 78.0)" holds what lies above the float64 before 77 and up to the one before 78.
    """
    ends = [_border(float(edge)) for edge in edges]
    lows = ["(-inf", *(("[" if below else "(") + text for text, below in ends)]
    highs = [*(text + (")" if below else "]") for text, below in ends), "inf)"]
    return [f"{low}, {high}" for low, high in zip(lows, highs, strict=True)]


def _border(edge: float) -> tuple[str, bool]:
    """How an edge is written, and whether it lies right below what is written."""
    above = math.nextafter(edge, math.inf)
    rounder = len(repr(above)) + 4 < len(repr(edge))
    return (repr(above), True) if rounder else (repr(edge), False)


def offsets(spans: Iterable[Span], resets: Mapping[tuple[str, int], int]) -> list[EvidenceOffsets]:
    """Input offsets of the evidence per partition, joined to one range each, in the order of topic and partition.

    `resets` gives, per (topic, partition), the offset at which the group's evidence last began from nothing.
    """
    ranges: dict[tuple[str, int], tuple[int, int]] = {}
    for span in spans:
        where = span.topic, span.partition
        first, last = ranges.get(where, (span.first_offset, span.last_offset))
        ranges[where] = min(first, span.first_offset), max(last, span.last_offset)
    return [EvidenceOffsets(*where, *ranges[where], resets.get(where)) for where in sorted(ranges)[:PARTITIONS_MAX]]


def judged_window(start_ms: int, end_ms: int, *, n: int, n_reference: int, late: int) -> JudgedWindow:
    """The window that was judged, as published."""
    return JudgedWindow(rfc3339(start_ms), rfc3339(end_ms), n, n_reference, late)


def change_point(at_ms: int, earliest_ms: int, latest_ms: int) -> ChangePoint:
    """Since when, as published."""
    return ChangePoint(rfc3339(at_ms), rfc3339(earliest_ms), rfc3339(latest_ms))


def budget(false_alarms: float, period_ms: int, share: float) -> Budget:
    """The promise behind the thresholds; the share is published in full, so that they can be recomputed."""
    return Budget(false_alarms, period_ms // 1000 if period_ms % 1000 == 0 else period_ms / 1000, share)


def drift_details(
    *, watched: int, moved: int, origin: Origin | None, first_window_ms: int | None, since: tuple[int, int] | None
) -> DriftDetails:
    """Details of `data_drift` and `prediction_drift`.

    `skew`: against a built reference, whose first judged window starts at `first_window_ms`, within the interval
    `since` (earliest, latest) of the change point: serving differed from training from its start on.
    """
    skew = (
        origin == "built"
        and first_window_ms is not None
        and since is not None
        and since[0] <= first_window_ms <= since[1]
    )
    return DriftDetails(watched, moved, skew)


def quality_details(entries: Iterable[SignalEntry], checks_max: int) -> QualityDetails:
    """Details of `data_quality`: the rates that moved, by falling evidence, at most `checks_max` of them."""
    return QualityDetails(
        [
            QualityCheck(entry.measure, entry.signal, entry.after.rate or 0.0, entry.before.rate or 0.0, entry.n)
            for entry in ranked(entries)[:checks_max]
        ]
    )


def burst_details(entry: SignalEntry) -> BurstDetails:
    """Details of `outlier` as a condition: the rate of unusual rows."""
    return BurstDetails(entry.after.rate or 0.0, entry.before.rate or 0.0, entry.n)


def _outlier_details(row: OutlyingRow, threshold: int, *, values: bool) -> OutlierDetails:
    return OutlierDetails(
        prediction_id=row.prediction_id,
        score=row.score,
        threshold=threshold,
        # Scores count half decades, so a second digit would pretend to know more than they say.
        p_value=significant(10 ** (-row.score / 2), 1) or 0.0,
        contributions=[
            Contribution(signal, score, value if values else None) for signal, score, value in row.contributions
        ],
    )


def _identity(subject: Subject) -> dict[str, str]:
    own = {name: getattr(subject, name) for name in policy.IDENTIFYING}
    return own | {policy.SCOPE: subject.scope} if subject.scope else own


def _annotations(
    sender: Sender, settings: policy.Settings, alert: Alert, emission: Emission, situation: Situation
) -> dict[str, str]:
    """The texts for people, then the operator's, then the link to the dashboard."""
    details, impact = situation.details, situation.impact
    values = alert.labels | {
        "severity": alert.severity,
        "fingerprint": alert.fingerprint,
        "alert_id": alert.alert_id,
    }
    said = wording.texts(alert, emission.event, details, may_not_mature=emission.may_not_mature)
    if impact is not None and alert.severity != policy.SEVERITY[alert.kind] and emission.event != "notice":
        said = said._replace(description=f"{said.description} {wording.meaning(impact)}")
    texts = said._asdict() | policy.annotations(settings, values)
    if sender.public_url:
        texts["dashboard_url"] = f"{sender.public_url.rstrip('/')}/alerts/{alert.alert_id}"
    return texts
