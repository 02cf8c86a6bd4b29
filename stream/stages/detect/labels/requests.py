"""Retrain requests: which open alerts ask for a new model, and the notice that says so."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from stream.alerts import evidence, lifecycle, policy, retrain
from stream.alerts.lifecycle import Emission
from stream.alerts.retrain import Cause
from stream.detectors import locate
from stream.profiles import trail
from stream.stages.detect.labels.plan import PREDICTIONS, OutcomesPlan
from stream.stages.detect.labels.shown import Closed
from stream.stages.detect.labels.tell import improved
from stream.stages.detect.plan import OUTCOME_KINDS
from stream.stages.detect.recent import Spell
from stream.stages.detect.state import OutcomeVersion, Watch
from stream.stages.detect.tell import alert_ids
from stream.stages.detect.watch import since
from stream.wire import outbound
from stream.wire.control import Retrained
from stream.wire.outbound import RetrainDetails
from stream.wire.record import Outgoing
from stream.wire.times import parse_time


def update(  # noqa: PLR0913 - a window, and all that it is asked by
    window: Closed,
    version: OutcomeVersion,
    plan: OutcomesPlan,
    watch: Watch,
    spells: Sequence[Spell],
    retrained: Mapping[str, Retrained],
) -> tuple[retrain.State, list[Outgoing]]:
    """What was asked for after a window, and the request it makes, if any.

    `version` has the rows of alerts as they stand after the window, `spells` are alerts of its inputs, `retrained` what
    came of earlier requests.
    """
    causes = [
        *_of_outcomes(window, version, plan, watch),
        *(_of_inputs(plan, watch, one) for one in spells if one.holds(window.end_ms)),
    ]
    asked = version.retrain
    answer = retrained.get(asked.alert_id or "")
    if answer is not None and answer.outcome != "succeeded":
        asked = retrain.failed(asked)
    if "retrain" in window.orders.muted:
        return asked, []
    state, details = retrain.request(asked, window.settings.retrain, causes, window.end_ms)
    if details is None:
        return state, []
    subject = evidence.Subject(window.model_id, window.model_version, window.segments[0], "retrain")
    alert_id = outbound.alert_id(subject.fingerprint, window.end_ms)
    return replace(state, alert_id=alert_id), [_notice(window, version, plan, subject, details)]


def _of_outcomes(window: Closed, version: OutcomeVersion, plan: OutcomesPlan, watch: Watch) -> list[Cause]:
    """Open alerts of outcomes; a model that became better needs no other."""
    found = []
    for group, alert_id in sorted(alert_ids(window, version.alerts).items()):
        row = version.alerts[window.segments[group[0]], group[1]]
        one = watch.episodes.get(group)
        if one is None or not one.moved or group[1] not in OUTCOME_KINDS or improved(plan, watch, group):
            continue
        since_ms = one.points[one.moved[0]].at_ms
        found.append(
            Cause(
                alert_id=alert_id,
                kind=group[1],
                since_ms=since_ms,
                firing_ms=_firing_ms(row),
                temporary=one.shape == "temporary",
                n_rows=_rows(watch, since_ms),
                n_labels=_labels(plan, watch, since_ms),
            )
        )
    return found


def _of_inputs(plan: OutcomesPlan, watch: Watch, one: Spell) -> Cause:
    return Cause(
        alert_id=one.alert_id,
        kind=one.kind,
        since_ms=one.since_ms,
        firing_ms=one.firing_ms,
        n_rows=_rows(watch, one.since_ms),
        n_labels=_labels(plan, watch, one.since_ms),
    )


def _firing_ms(row: lifecycle.Row) -> int:
    return 0 if row.starts_at_ms is None else row.starts_at_ms


def _rows(watch: Watch, since_ms: int) -> int:
    """Predictions of the whole model since a window."""
    return int(locate.since(watch.moments, 0, since_ms)[PREDICTIONS])


def _labels(plan: OutcomesPlan, watch: Watch, since_ms: int) -> int:
    """Pairs of the whole model since a window: what its first member with errors has counted."""
    column = next((place for place, own in enumerate(plan.columns) if own.kind == "performance"), None)
    return 0 if column is None else int(since(plan, watch, 0, column, since_ms)[0])


def _notice(
    window: Closed, version: OutcomeVersion, plan: OutcomesPlan, subject: evidence.Subject, details: RetrainDetails
) -> Outgoing:
    """The request; its offsets are those of the labels since the change."""
    settings, since_ms = window.settings, parse_time(details.data_from) or 0
    event = evidence.build(
        settings.sender,
        settings.alerts,
        subject,
        Emission(event="notice", sequence=0, starts_at_ms=window.end_ms, updated_at_ms=window.end_ms),
        evidence.Situation(
            severity=policy.severity("retrain", settings.alerts, settings.models.get(window.model_id)),
            details=details,
            window=evidence.judged_window(
                window.start_ms,
                window.end_ms,
                n=int(window.outcomes.pairs[0]),
                n_reference=int(plan.tables.rows[0].max(initial=0)),
                late=0,
            ),
            reference_id=plan.known.reference.reference_id,
            reference_origin=plan.known.reference.origin,
            offsets=evidence.offsets(trail.since(version.trail, since_ms), {}),
        ),
    )
    return outbound.alert_record(event)
