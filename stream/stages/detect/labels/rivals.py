"""Champion and challenger: what is known of the gain of a version, by segment, and the notices that decide it."""

from math import ceil, log2
from typing import Final, Literal, TypeAlias

import numpy as np

from stream.alerts import evidence, policy
from stream.alerts.lifecycle import Emission
from stream.detectors import Floats, Reason, Verdicts, challenger, interval
from stream.detectors.budget import SEGMENT_VALUES_MIN
from stream.detectors.challenger import Decision
from stream.profiles import trail
from stream.profiles.outcomes import UNIT
from stream.profiles.trail import Trail
from stream.signals.outcomes import ModelSettings
from stream.stages.detect.labels.readings import Gain
from stream.stages.detect.labels.shown import Closed
from stream.stages.detect.shown import LEVELS, REASONS
from stream.stages.detect.state import Rival
from stream.wire import outbound
from stream.wire.outbound import ChallengerDetails, significant
from stream.wire.record import Outgoing

NO_DIFFERENCE: Final = 3
"""Told, beside `Decision`: neither is better by as much as the tolerance of means. The evidence may still decide."""
Words: TypeAlias = Literal["challenger_better", "champion_better", "no_difference_found"]
_WORDS: Final[dict[int, Words]] = {
    int(Decision.CHALLENGER_BETTER): "challenger_better",
    int(Decision.CHAMPION_BETTER): "champion_better",
    NO_DIFFERENCE: "no_difference_found",
}


def update(
    window: Closed, before: dict[str, Rival], past: Trail
) -> tuple[dict[str, Rival], dict[str, Gain], list[Outgoing]]:
    """By segment what is known after a window, what readings say of it, and notices of what is decided."""
    settings = window.settings.outcomes.get(window.model_id, ModelSettings())
    gains = window.outcomes.gains
    names = sorted({*before, *(name for row, name in enumerate(window.segments) if gains[row, 0])})
    after, shown, notices = dict(before), dict[str, Gain](), []
    for name in names:
        row = window.segments.index(name) if name in window.segments else None
        counts = np.zeros(3) if row is None else gains[row] / np.array([1, UNIT, UNIT])
        one = before.get(name, Rival(challenger.start(1)))
        state, verdicts = challenger.update(
            one.state, window.settings.challenger, _window(counts, _rivals(settings, len(names), name))
        )
        shown[name] = Gain(_interval(window, state), _verdict(verdicts, int(counts[0])))
        decision = _decided(window, state)
        told = one.told
        decided = told in (Decision.CHALLENGER_BETTER, Decision.CHAMPION_BETTER)
        muted = "challenger" in window.orders.muted
        if decision not in (int(Decision.NONE), told) and not (decided or muted):
            notices.append(_notice(window, settings, name, state, decision, verdicts, past))
            told = decision
        after[name] = Rival(state, told)
    return after, shown, notices


def _verdict(verdicts: Verdicts, n: int) -> outbound.Verdict:
    """As readings show it: the champion's or the challenger's lead, whichever is likelier."""
    statistic, threshold = (significant(float(one[0])) for one in (verdicts.statistic, verdicts.threshold))
    level, reason = LEVELS[int(verdicts.level[0])], REASONS[int(verdicts.reason[0])]
    return outbound.Verdict("mean", "challenger", level, statistic, threshold, statistic, n, reason)


def _window(counts: Floats, rivals: float) -> challenger.Window:
    n, s, squares = (np.array([one], np.float64) for one in counts)
    return challenger.Window(n, s, squares, np.array([rivals]), np.array([Reason.NONE], np.int8))


def _rivals(settings: ModelSettings, segments: int, name: str) -> float:
    """Who shares the chance of a wrong decision: the challengers, and in segments these, as of a power of two."""
    share = max(len(settings.challengers), 1)
    return float(share if name == "all" else share * 2 ** ceil(log2(max(SEGMENT_VALUES_MIN, segments))))


def _interval(window: Closed, state: challenger.State) -> tuple[float, float]:
    low, high = interval.bounds(*challenger.on_unit_scale(state), window.settings.challenger.confidence)
    return significant(2 * float(low[0]) - 1) or 0.0, significant(2 * float(high[0]) - 1) or 0.0


def _decided(window: Closed, state: challenger.State) -> int:
    """What can be told now."""
    if state.decision[0] != Decision.NONE:
        return int(state.decision[0])
    low, high = _interval(window, state)
    tolerance = window.settings.mean.tolerance
    return NO_DIFFERENCE if state.n[0] and -tolerance < low and high < tolerance else int(Decision.NONE)


def _notice(  # noqa: PLR0913 - private, all a notice is made of
    window: Closed,
    settings: ModelSettings,
    segment: str,
    state: challenger.State,
    decision: int,
    verdict: Verdicts,
    past: Trail,
) -> Outgoing:
    subject = evidence.Subject(window.model_id, window.model_version, segment, "challenger")
    alerts = window.settings.alerts
    regression = bool(window.outcomes.errors.any())
    details = ChallengerDetails(
        champion=settings.champion or "",
        challenger=window.model_version,
        metric="relative_error" if regression else "error_rate",
        gain=significant(float(state.s[0] / max(state.n[0], 1))) or 0.0,
        interval=_interval(window, state),
        confidence=window.settings.challenger.confidence,
        log10_e_value=significant(float(verdict.statistic[0])) or 0.0,
        n_pairs=int(state.n[0]),
        decision=_WORDS[decision],
    )
    event = evidence.build(
        window.settings.sender,
        alerts,
        subject,
        Emission(event="notice", sequence=0, starts_at_ms=window.end_ms, updated_at_ms=window.end_ms),
        evidence.Situation(
            severity=policy.severity("challenger", alerts, window.settings.models.get(window.model_id)),
            details=details,
            window=evidence.judged_window(
                window.start_ms, window.end_ms, n=int(window.outcomes.pairs[0]), n_reference=0, late=0
            ),
            offsets=evidence.offsets(trail.since(past, 0), {}),
        ),
        discriminator=window.model_version,
    )
    return outbound.alert_record(event)
