"""Whether predictions, and labels, still come: their number in each closed window (`statistics.md` 8.5).

What is expected comes from a reference that knows serving. Without one it is learned from live windows: after a hundred
empty windows can be told from rare ones, after a day a fall can be told from a night. Of the whole model alone.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.alerts import evidence, lifecycle, policy
from stream.detectors import Floats, Level, Reason, Verdicts, budget
from stream.detectors import silence as detector
from stream.profiles import trail, volume
from stream.profiles.reference import Tables
from stream.profiles.volume import Expected
from stream.stages.detect.decisions import Orders
from stream.stages.detect.plan import LABELS, GroupKind
from stream.stages.detect.settings import Settings
from stream.stages.detect.shown import LEVELS, REASONS
from stream.stages.detect.state import OutcomeVersion, Silence, Version
from stream.wire import outbound
from stream.wire.codec import rfc3339
from stream.wire.internal import Reference, Span
from stream.wire.outbound import Reading, SilenceDetails, Verdict, significant
from stream.wire.record import Outgoing

KIND: Final[GroupKind] = "silence"
SIGNAL: Final = "volume:predictions"
FEEDBACK: Final = "volume:feedback"
MEASURE: Final = "rate"
DETECTOR: Final = "silence"
ALL: Final = "all"
WINDOWS_MIN: Final = 100
"""Live windows without which nothing is expected."""


class Compared(Protocol):
    """The reference that a window is judged by, of inputs or of outcomes."""

    @property
    def reference(self) -> Reference:
        """As it was written down."""

    @property
    def segments(self) -> Sequence[str]:
        """`all` first."""

    @property
    def rows(self) -> Floats:
        """[G] rows behind it."""


class Heard(Struct, frozen=True, eq=False):
    """What the number of predictions of one window says."""

    n: int
    expected: float | None
    """None where nothing is known."""
    level: int
    reason: int
    statistic: float
    threshold: float
    """NaN both, where there is no verdict."""
    alarm: bool = False
    returned: bool = False


class Place(Struct, frozen=True, eq=False):
    """Which window of whom."""

    settings: Settings
    tables: Compared
    name: tuple[str, str]
    start_ms: int
    orders: Orders = Orders()
    what: Literal["predictions", "feedback"] = "predictions"

    @property
    def muted(self) -> bool:
        """Whether nothing is to be made of this window."""
        return KIND in self.orders.muted

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.settings.windows.size

    @property
    def signal(self) -> str:
        """What its number is called."""
        return SIGNAL if self.what == "predictions" else FEEDBACK


def start() -> Silence:
    """Nothing heard under this reference yet."""
    return Silence(detector.start(1))


def share(settings: Settings, segments: Sequence[str]) -> float:
    """Of the budget, for the group."""
    return budget.share(settings.budget, KIND, segment_values=len(segments) - 1, whole=True)


def ln_threshold(settings: Settings, segments: Sequence[str]) -> float:
    """ln A_g, and of its one member."""
    return budget.ln_threshold(settings.budget, settings.windows.size, share(settings, segments))


def ratio(settings: Settings, tables: Tables, version: Version) -> float:
    """ln M over ln A_s: 0 at rest, 1 at an alarm and while an episode is open."""
    one = version.silence
    if one is None:
        return 0.0
    limit = ln_threshold(settings, tables.segments)
    now = max(0.0, float(detector.ln_evidence(one.quiet)[0])) / limit if limit > 0 else 1.0
    return now if one.back is None else max(1.0, now)


def judged(place: Place, version: Version | OutcomeVersion, n: int, *, mixed: bool) -> tuple[Silence, Heard]:
    """One closed window further; one that mixes references tells nothing."""
    silence = version.silence or start()
    row = version.alerts.get((ALL, KIND))
    firing = row is not None and row.state is lifecycle.State.FIRING
    known = place.tables.reference.volume or silence.known
    size_ms = place.settings.windows.size
    expected = None if known is None else volume.expected(known, place.start_ms, size_ms)
    reason = Reason.MUTED if place.muted else _reason(place.tables, expected, mixed=mixed)
    limit = ln_threshold(place.settings, place.tables.segments)
    one = detector.Window(
        n=np.array([float(n)]),
        expected=np.array([0.0 if expected is None else expected.mean]),
        phi=np.array([1.0 if expected is None else expected.dispersion]),
        falls=np.array([expected is not None and expected.falls]),
        ln_threshold=np.array([limit]),
        reason=np.array([reason], np.int8),
    )
    before = silence
    if silence.back is None:
        quiet, verdicts = detector.update(silence.quiet, one)
        silence = replace(silence, quiet=quiet)
        if not firing:
            silence = _followed(silence, place.start_ms, n, since=float(detector.ln_evidence(quiet)[0]) > 0)
    else:
        back, verdicts = detector.returned(silence.back, one)
        silence = _followed(replace(silence, back=back), place.start_ms, n, since=True)
    heard = _heard(n, None if expected is None else expected.mean, verdicts)
    crossed = heard.level == Level.DRIFT
    if before.back is None and crossed:
        heard, silence = replace(heard, alarm=True), replace(silence, back=detector.start(1))
    elif before.back is not None:
        heard = replace(heard, level=Level.DRIFT if reason == Reason.NONE else heard.level, returned=crossed)
        if crossed:
            silence = replace(silence, quiet=detector.start(1), back=None)
    if heard.expected is not None:
        silence = replace(silence, expected=heard.expected)
    return _learned(place, silence, n, left_out=mixed or place.muted), heard


def told(
    place: Place,
    version: Version | OutcomeVersion,
    silence: Silence,
    heard: Heard | None,
    *,
    new_reference: bool = False,
) -> tuple[dict[tuple[str, str], lifecycle.Row], list[Outgoing]]:
    """The rows of all alerts after this window, and the alert records of this one."""
    row = version.alerts.get((ALL, KIND), lifecycle.Row())
    alarm, returned = (False, False) if heard is None else (heard.alarm, heard.returned)
    if row.state in (lifecycle.State.INACTIVE, lifecycle.State.RESOLVED) and not alarm:
        return version.alerts, []
    settings = place.settings
    severity = policy.severity(KIND, settings.alerts, settings.models.get(place.name[0]))
    condition = lifecycle.Condition(
        severity=severity,
        alarm=alarm,
        returned=returned,
        new_reference=new_reference,
        operator=_subject(place).fingerprint in place.orders.resolved,
        muted=place.muted,
        silent_ms=place.end_ms - version.seen_ms,
        content=lifecycle.content_of(row.lifted(severity), None, [f"{place.signal} {MEASURE}"]),
    )
    row, emissions = lifecycle.advance(row, condition, place.end_ms, settings.alerts)
    records = [_record(place, version, silence, heard, emission) for emission in emissions]
    return {**version.alerts, (ALL, KIND): row}, records


def reading(place: Place, version: Version | OutcomeVersion, heard: Heard, late: int) -> Outgoing:
    """Of the number of predictions, or of pairs: `n` is it, and the mean is what was expected."""
    row = version.alerts.get((ALL, KIND))
    alert_id = None
    if row and row.state is lifecycle.State.FIRING and row.starts_at_ms is not None:
        alert_id = outbound.alert_id(_subject(place).fingerprint, row.starts_at_ms)
    level, statistic = LEVELS[heard.level], significant(heard.statistic)
    verdict = Verdict(
        MEASURE, DETECTOR, level, statistic, significant(heard.threshold), statistic, heard.n, REASONS[heard.reason]
    )
    return outbound.reading_record(
        Reading(
            model_id=place.name[0],
            model_version=place.name[1],
            segment=ALL,
            signal=place.signal,
            type="numeric",
            window_start=rfc3339(place.start_ms),
            window_end=rfc3339(place.end_ms),
            n=heard.n,
            n_missing=None,
            n_invalid=None,
            n_unseen=None,
            n_late=late,
            mean=None,
            std=None,
            p05=None,
            p50=None,
            p95=None,
            reference_id=place.tables.reference.reference_id,
            reference_slot=None,
            reference_mean=significant(heard.expected),
            psi=None,
            jensen_shannon=None,
            wasserstein=None,
            counts=None,
            metrics=None,
            level=level,
            alert_id=alert_id,
            verdicts=[verdict],
        )
    )


def _reason(tables: Compared, expected: Expected | None, *, mixed: bool) -> Reason:
    if mixed:
        return Reason.REFERENCE_CHANGED
    if not tables.reference.complete:
        return Reason.LEARNING
    if expected is None:
        return Reason.WARMING_UP
    return Reason.NONE if expected.mean > 0 else Reason.LEARNING


def _followed(silence: Silence, start_ms: int, n: int, *, since: bool) -> Silence:
    """The windows since the evidence began; at rest none."""
    if not since:
        return replace(silence, windows=0, events=0)
    first_ms = silence.since_ms if silence.windows else start_ms
    return replace(silence, since_ms=first_ms, windows=silence.windows + 1, events=silence.events + n)


def _heard(n: int, expected: float | None, verdicts: Verdicts) -> Heard:
    level, reason = int(verdicts.level[0]), int(verdicts.reason[0])
    return Heard(n, expected, level, reason, float(verdicts.statistic[0]), float(verdicts.threshold[0]))


def _learned(place: Place, silence: Silence, n: int, *, left_out: bool) -> Silence:
    """What is expected of windows without a silence, where the reference does not tell; newly told every hour."""
    if place.tables.reference.volume is not None or not place.tables.reference.complete:
        return silence
    if silence.back is not None or left_out:
        # These windows were not empty: they are not looked at.
        return replace(silence, sums=volume.left_out(silence.sums, place.end_ms))
    size_ms, timezone = place.settings.windows.size, place.settings.seasonality.timezone
    sums = volume.add(silence.sums, place.start_ms, size_ms, n, timezone)
    known = silence.known
    if volume.windows(sums) >= WINDOWS_MIN and (known is None or len(sums.hours) != len(silence.sums.hours)):
        known = volume.volume(sums, size_ms, timezone)
    return replace(silence, sums=sums, known=known)


def _record(
    place: Place, version: Version | OutcomeVersion, silence: Silence, heard: Heard | None, emission: lifecycle.Emission
) -> Outgoing:
    settings, reference = place.settings, place.tables.reference
    watch, spent = version.watch, share(settings, place.tables.segments)
    spans: list[Span] = trail.since(version.trail, min(silence.since_ms, version.seen_ms - settings.windows.size))
    situation = evidence.Situation(
        severity=emission.severity,
        details=SilenceDetails(
            what=place.what,
            last_seen=rfc3339(version.seen_ms if silence.events or not silence.windows else silence.since_ms),
            expected_per_window=significant(silence.expected) or 0.0,
            windows=silence.windows,
        ),
        window=evidence.judged_window(
            place.start_ms,
            place.end_ms,
            n=0 if heard is None else heard.n,
            n_reference=int(place.tables.rows[0]),
            late=0,
        ),
        reference_id=reference.reference_id,
        reference_origin=reference.origin,
        signals=[_entry(place, silence, heard)],
        offsets=evidence.offsets(spans, {} if watch is None else watch.began),
        budget=evidence.budget(settings.budget.false_alarms, settings.budget.period, spent),
    )
    return outbound.alert_record(evidence.build(settings.sender, settings.alerts, _subject(place), emission, situation))


def _entry(place: Place, silence: Silence, heard: Heard | None) -> outbound.SignalEntry:
    statistic = None if heard is None else heard.statistic
    return evidence.entry(
        place.signal,
        MEASURE,
        DETECTOR,
        "drift",
        statistic=statistic,
        threshold=None if heard is None else heard.threshold,
        evidence=statistic,
        n=silence.events,
        before=evidence.describe(mean=silence.expected),
        after=evidence.describe(mean=silence.events / max(silence.windows, 1)),
        direction="down",
    )


def _subject(place: Place) -> evidence.Subject:
    return evidence.Subject(*place.name, ALL, KIND, "" if place.what == "predictions" else LABELS)
