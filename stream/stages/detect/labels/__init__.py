"""Outcomes: one closed window of what pairs of one model version measure is learned from, judged, and told.

Outcomes do not say which reference they belong to. A window is judged by the one in force at its start, among those
that the log of watermarks says were known when it was closed, and the one that was learned here. Until there is one its
outcomes are added up, and its readings say how the model does all the same.
"""

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from msgspec.structs import replace

from stream.detectors import Codes, Reason
from stream.profiles import outcome_learning, outcome_tables, outcomes, trail
from stream.profiles.outcome_tables import ALL
from stream.profiles.reference import References, in_force_last, reference_key
from stream.stages.detect import impact, silence, tally
from stream.stages.detect import watch as watching
from stream.stages.detect.close import Closing
from stream.stages.detect.inputs import CALIBRATION_WINDOWS
from stream.stages.detect.labels import plan as planning
from stream.stages.detect.labels import readings, requests, rivals, shown, tell
from stream.stages.detect.labels.plan import Known, OutcomesPlan
from stream.stages.detect.labels.tell import Beside, Scene
from stream.stages.detect.plan import OUTCOME_KINDS, Serving
from stream.stages.detect.state import Calibration, OutcomeVersion, Version, Watch
from stream.stages.detect.tell import Teller, alert_ids, first_offsets, held_back, settled, told
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import Outcomes
from stream.wire.record import Outgoing
from stream.wire.times import parse_time

Told: TypeAlias = tuple[OutcomeVersion, list[Outgoing]]


def close(closing: Closing, version: OutcomeVersion, inputs: Version | None) -> Told:
    """The version after its next window, and what is published of it; `inputs` has closed the same window."""
    window = version.open.get(closing.start_ms) or outcomes.empty(*closing.name, closing.start_ms)
    version = replace(
        version,
        watched=True,
        suppressed=0,
        next_ms=closing.end_ms,
        seen_ms=closing.end_ms if window.segments else version.seen_ms,
        coverage=_coverage(window, version.coverage),
        trail=trail.append(version.trail, closing.start_ms, window.spans),
        learning=outcome_learning.noticed(version.learning, window),
        open={other: one for other, one in version.open.items() if other != closing.start_ms},
    )
    if version.relearns_ms is not None and version.relearns_ms == closing.start_ms:
        version = replace(version, learning=outcome_learning.State(since_ms=version.learning.since_ms))
    known = _in_force(closing, version)
    version, records = _under(closing, version, known, window)
    if known is None:
        version, learned = _learned(closing, version, window)
        return _told(closing, version, window, inputs, None, records + learned)
    return _judged(closing, version, window, inputs, known, records)


def _coverage(window: Outcomes, before: float | None) -> float | None:
    """Of this window, if it has predictions at the end of their horizon."""
    if ALL not in window.segments:
        return before
    place = window.segments.index(ALL)
    ended, labelled = int(window.ended[place]), int(window.labelled[place])
    return labelled / ended if ended else before


def _in_force(closing: Closing, version: OutcomeVersion) -> Known | None:
    """The reference that a window is judged by."""
    offset = closing.references_offset
    heard = closing.references.outcomes_at(*closing.name, closing.start_ms, offset, planning.read)
    own = None if version.learned is None else _own(version.learned)
    if own is not None and closing.references.is_retired(own.reference.reference_id, offset):
        own = None
    found = [one for one in (own, heard) if one is not None and not _is_over(closing, version, one)]
    return max(found, key=lambda known: in_force_last(known.reference), default=None)


def _is_over(closing: Closing, version: OutcomeVersion, known: Known) -> bool:
    """Whether a reference is not in force at a window, or was until somebody wanted another one."""
    from_ms, since_ms = parse_time(known.reference.effective_from) or 0, version.relearns_ms
    return from_ms > closing.start_ms or (since_ms is not None and from_ms <= since_ms <= closing.start_ms)


def _is_muted(closing: Closing) -> bool:
    """Whether a window is none to learn from."""
    return not closing.orders.muted.isdisjoint(OUTCOME_KINDS)


@lru_cache(maxsize=256)
def _own(data: bytes) -> Known | None:
    """A learned reference, made ready once."""
    found = codec.decode_reference(data)
    return None if isinstance(found, Malformed) else planning.read(found)


def _under(closing: Closing, version: OutcomeVersion, known: Known | None, window: Outcomes) -> Told:
    """The version under the reference of this window; another one than before resolves what is open."""
    name = None if known is None else known.reference.reference_id
    if name == version.reference_id:
        return version, []
    rows, records = version.alerts, list[Outgoing]()
    old = known_before(closing.references, version)
    if version.watch is not None and old is not None:
        plan = planning.plan(closing.settings, old, version.watch.serving)
        last = shown.closed(closing.settings, plan, outcomes.empty(*closing.name, closing.start_ms), None, None)
        scene = Scene(last, plan, version.watch, version.trail, Beside())
        rows, records = told(last, version, _teller(scene), new_reference=True)
        place = silence.Place(closing.settings, old, closing.name, closing.start_ms, what="feedback")
        heard = version.silence or silence.start()
        rows, ended = silence.told(place, replace(version, alerts=rows), heard, None, new_reference=True)
        records = records + ended
    fresh = None if known is None else _fresh(closing, known, window)
    segments = [ALL] if known is None else known.tables.segments
    rows = {group: row for group, row in rows.items() if group[0] in segments}
    version = replace(version, reference_id=name, segments=segments, watch=fresh, silence=None, alerts=rows)
    return version, records


def known_before(references: References, version: OutcomeVersion) -> Known | None:
    """The reference of the windows until now."""
    own = None if version.learned is None else _own(version.learned)
    if own is not None and own.reference.reference_id == version.reference_id:
        return own
    return references.outcome_reference(version.reference_id or "", planning.read)


def _fresh(closing: Closing, known: Known, window: Outcomes) -> Watch:
    """All detectors at rest."""
    plan = planning.plan(closing.settings, known, None)
    calibration = None
    if not plan.serving_known:
        spread = outcome_learning.no_spread(known.tables)
        calibration = Calibration(spread.sums, spread.events, spread.events[:, 0], spread.windows)
    return watching.start(plan, closing.start_ms, first_offsets(window.spans), calibration)


def _learned(closing: Closing, version: OutcomeVersion, window: Outcomes) -> Told:
    """A window without a reference: it helps to make one, unless it is muted."""
    if _is_muted(closing):
        return version, []
    state, found = outcome_learning.counted(
        version.learning,
        closing.settings.learn,
        window,
        horizon_ms=closing.settings.horizon,
        size_ms=closing.settings.windows.size,
        effective_from_ms=closing.end_ms,
    )
    version = replace(version, learning=state)
    if found is None:
        return version, []
    data = codec.encode_reference(found)
    return replace(version, learned=data), [Outgoing("references", reference_key(found), data)]


def _judged(  # noqa: PLR0913 - private, a window and what it is judged by
    closing: Closing,
    version: OutcomeVersion,
    window: Outcomes,
    inputs: Version | None,
    known: Known,
    records: list[Outgoing],
) -> Told:
    if version.watch is None:
        raise ValueError("a window is judged under a reference only")
    own = planning.plan(closing.settings, known, version.watch.serving)
    answers = None if inputs is None else inputs.answers.get(closing.end_ms)
    rows = 0 if answers is None else answers.rows
    seen = planning.window(own, closing.start_ms, window, rows, _no_bet(closing, own))
    after, judged = watching.update(own, version.watch, seen)
    after = after if _is_muted(closing) else _calibrated(own, after, window)
    closed = shown.closed(closing.settings, own, window, judged, answers, orders=closing.orders)
    spells = () if inputs is None else inputs.spells
    moved = frozenset(one.segment for one in spells if one.kind == "data_drift" and one.holds(closing.end_ms))
    scene = Scene(closed, own, after, version.trail, Beside(moved))
    alerts, events = told(closed, version, _teller(scene))
    version = replace(
        version,
        watch=settled(closed, own, version, after, alerts),
        alerts=alerts,
        said=tally.verdicts(own, judged),
        suppressed=held_back(closed, version),
    )
    asked, requested = requests.update(closed, version, own, after, spells, closing.retrained)
    version = replace(version, retrain=asked)
    version, heard = _heard(closing, version, known, int(closed.outcomes.pairs[0]))
    return _told(closing, version, window, inputs, closed, [*records, *events, *requested, *heard])


def _heard(closing: Closing, version: OutcomeVersion, known: Known, pairs: int) -> Told:
    """Whether labels still come."""
    place = silence.Place(closing.settings, known, closing.name, closing.start_ms, closing.orders, what="feedback")
    after, heard = silence.judged(place, version, pairs, mixed=False)
    rows, alerts = silence.told(place, version, after, heard)
    said = tally.with_level(version.said, silence.DETECTOR, heard.level)
    records = [*alerts, silence.reading(place, replace(version, alerts=rows), heard, 0)]
    return replace(version, silence=after, alerts=rows, said=said), records


def _told(  # noqa: PLR0913 - private, a window and what was made of it
    closing: Closing,
    version: OutcomeVersion,
    window: Outcomes,
    inputs: Version | None,
    closed: shown.Closed | None,
    records: list[Outgoing],
) -> Told:
    """The readings of a window, and what is decided on champion and challenger."""
    if closed is None:
        reason = Reason.LEARNING if version.learning.total is not None else Reason.NO_REFERENCE
        answers = None if inputs is None else inputs.answers.get(closing.end_ms)
        closed = shown.closed(closing.settings, None, window, None, answers, reason=reason, orders=closing.orders)
    after, gains, notices = rivals.update(closed, version.rivals, version.trail)
    ids = alert_ids(closed, version.alerts)
    return replace(version, rivals=after), [*records, *notices, *readings.readings(closed, ids, gains)]


def _teller(scene: Scene) -> Teller:
    return Teller(
        plan=scene.plan,
        watch=scene.watch,
        kinds=OUTCOME_KINDS,
        detections=tell.detections(scene.window),
        severity=lambda group, meant: tell.severity(scene, group, meant),
        impact=lambda group: impact.of(scene.plan, scene.watch, group, {}),
        situation=lambda group: tell.situation(scene, group),
    )


def _no_bet(closing: Closing, plan: OutcomesPlan) -> Codes:
    """[G, C] members of muted kinds do not bet on this window."""
    no_bet = np.zeros(plan.ln_threshold.shape, np.int8)
    no_bet[:, [column.kind in closing.orders.muted for column in plan.columns]] = Reason.MUTED
    return no_bet


def _calibrated(plan: OutcomesPlan, watch: Watch, window: Outcomes) -> Watch:
    """Under a reference that does not know serving: learn how it spreads from the first windows with pairs."""
    before, tables = watch.calibration, plan.tables
    if before is None or not window.segments:
        return watch
    own = outcome_tables.measure(tables, window)
    spread = outcome_learning.Spread(before.sums, before.windows, before.counts)
    index = window.window_start_ms // plan.settings.windows.size
    spread = outcome_learning.add(spread, tables, index, own)
    pairs = before.rows + (own.pairs > 0)
    if pairs[0] < CALIBRATION_WINDOWS:
        return replace(watch, calibration=Calibration(spread.sums, spread.events, pairs, spread.windows))
    phi, n_bar = outcome_learning.serving_of(spread, tables)
    # Evidence that was gathered as if events were independent does not count.
    return replace(watch, calibration=None, serving=Serving(phi, n_bar), quiet=watching.at_rest(plan))
