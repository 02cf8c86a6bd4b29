"""One closed window of one model version: it is learned from, judged, and told.

The reference of the newest partial profile judges the window. Another one than before resolves what is open, and all
detectors begin anew; a window that mixes references, or bins with samples, judges nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from stream.alerts.lifecycle import Row
from stream.profiles import cuts, learning, maturing, reference, summaries, trail
from stream.profiles.reference import References, Tables, blank, in_force_last, reference_key
from stream.profiles.summaries import Dense
from stream.stages.detect import inputs, mature, readings, recent, shown, silence, tally, tell
from stream.stages.detect.decisions import Orders
from stream.stages.detect.plan import KINDS, InputsPlan, plan
from stream.stages.detect.recent import Answers, Spell
from stream.stages.detect.settings import Settings
from stream.stages.detect.shown import Closed
from stream.stages.detect.state import Open, Version, Watch
from stream.wire import codec
from stream.wire.control import Retrained
from stream.wire.internal import Partial, Reference, Sample, Span
from stream.wire.outbound import Kind
from stream.wire.record import Outgoing

Name: TypeAlias = tuple[str, str]
"""Model id and version."""
Told: TypeAlias = tuple[Version, list[Outgoing]]

REFERENCE_DELAY_WINDOWS: Final = 2
"""A learned reference comes into force this many windows ahead, so that ingest has heard of it by then."""


class Closing(Struct, frozen=True, eq=False):
    """Which window is closed, and all that does not depend on its content."""

    settings: Settings
    references: References
    name: Name
    start_ms: int
    orders: Orders = Orders()
    references_offset: int = 0
    """Where the log of references had come, by the log of watermarks."""
    retrained: Mapping[str, Retrained] = {}
    """What came of requests to retrain, by their alert id."""

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.settings.windows.size

    @property
    def effective_from_ms(self) -> int:
        """From when on a reference learned from it is in force."""
        return self.end_ms + REFERENCE_DELAY_WINDOWS * self.settings.windows.size

    @property
    def muted(self) -> frozenset[Kind]:
        """The kinds of alerts about inputs that are muted."""
        return self.orders.muted.intersection(KINDS)

    def learns(self, version: Version) -> bool:
        """Whether the window may become part of a reference: not one that is muted, nor one before a relearn."""
        return not self.muted and (version.relearned_ms is None or self.start_ms >= version.relearned_ms)


def close(closing: Closing, version: Version) -> Told:
    """The version after its next window, and what is published of it."""
    window = version.open.get(closing.start_ms, Open())
    spans = [span for partial in window.partials.values() for span in partial.spans]
    spans += window.sample.spans if window.sample else []
    version = replace(
        version,
        watched=True,
        next_ms=closing.end_ms,
        seen_ms=closing.end_ms if spans else version.seen_ms,
        said={},
        suppressed=0,
        trail=trail.append(version.trail, closing.start_ms, spans),
        open={other: one for other, one in version.open.items() if other != closing.start_ms},
    )
    present = sorted(
        (_known(closing, reference_id) for reference_id in window.partials),
        key=lambda tables: in_force_last(tables.reference),
    )
    if closing.settings.outcome_topics:
        version = replace(version, answers=_answers(closing, version, window))
    sampled = window.sample is not None and window.sample.rows > 0
    version, records = _relearns(closing, version)
    if sampled and not present:
        version, ended = _without_reference(closing, version)
        records = records + ended
    if window.sample is not None and sampled and not present and closing.learns(version):
        version, learned = _sampled(closing, version, window.sample)
        records = records + learned
    if not present and version.reference_id is None:
        return version, records
    tables = present[-1] if present else _known(closing, version.reference_id or "")
    together = all(one is tables or reference.has_matured(one, tables) for one in present)
    partial = _merged(closing, tables, window) if together else window.partials.get(tables.reference.reference_id)
    if present:
        version, begun = _under(closing, version, tables, spans)
        records = records + begun
    profile = _dense(tables, partial)
    mixed = sampled or not together
    if not mixed and closing.learns(version):
        version, learned = _counted(closing, version, tables, profile)
        records = records + learned
    elif version.learning is not None and version.learning.counts is not None:
        counts = learning.left_out(version.learning.counts, closing.end_ms)
        version = replace(version, learning=replace(version.learning, counts=counts))
    version, told = _judged(closing, version, tables, profile, partial, mixed=mixed)
    version, counted = _heard(closing, version, tables, profile, mixed=mixed)
    return version, records + told + counted


def _heard(closing: Closing, version: Version, tables: Tables, profile: Dense, *, mixed: bool) -> Told:
    """The number of predictions of a window: judged, told and read, like one more signal of the whole model."""
    place = silence.Place(closing.settings, tables, closing.name, closing.start_ms, closing.orders)
    after, heard = silence.judged(place, version, int(profile.rows[0]), mixed=mixed)
    rows, alerts = silence.told(place, version, after, heard)
    said = tally.with_level(version.said, silence.DETECTOR, heard.level)
    records = [*alerts, silence.reading(place, replace(version, alerts=rows), heard, int(profile.late[0]))]
    return replace(version, silence=after, alerts=rows, said=said), records


def _answers(closing: Closing, version: Version, window: Open) -> dict[int, Answers]:
    """What closed windows leave for their outcomes, this one too."""
    segments = {name: _known(closing, name).segments for name in window.partials}
    found = recent.answers(window.partials.values(), segments)
    return recent.kept(version.answers, closing.end_ms, found)


def _judged(  # noqa: PLR0913 - private, a window and what it is judged by
    closing: Closing, version: Version, tables: Tables, profile: Dense, partial: Partial | None, *, mixed: bool
) -> Told:
    """A window through detectors, alerts and readings. One that mixes references says so and judges nothing."""
    before = version.watch
    if before is None:
        raise ValueError("a window is judged under a reference only")
    own = plan(closing.settings, tables, before.serving)
    after, judged = (before, None) if mixed else inputs.update(own, before, closing.start_ms, profile, closing.muted)
    grown = mature.Grown(version.maturing)
    if not mixed and closing.learns(version):
        grown = _grown(closing, version, own, after, profile)
    window = shown.closed(closing.name, own, closing.start_ms, profile, judged, closing.orders)
    worst = partial.worst if partial is not None else []
    rows, alerts = tell.alerts(window, version, after, immature=grown.told)
    records = [
        *([] if grown.successor is None else [_published(grown.successor)]),
        *alerts,
        *tell.outlier_notices(window, worst),
        *readings.readings(window, tell.alert_ids(window, rows)),
    ]
    version = replace(
        version,
        watch=tell.settled(window, own, version, after, rows),
        alerts=rows,
        maturing=grown.state,
        said=tally.verdicts(own, judged),
        suppressed=tell.suppressed(window, version, worst),
        spells=recent.spells(version.spells, rows, _firing(window, after, rows), closing.end_ms),
    )
    return version, records


def _grown(closing: Closing, version: Version, own: InputsPlan, after: Watch, profile: Dense) -> mature.Grown:
    """What the window makes of a reference that matures."""
    return mature.step(
        closing.references,
        version,
        own,
        after,
        closing.start_ms,
        profile,
        effective_from_ms=closing.effective_from_ms,
    )


def _firing(window: Closed, watch: Watch, rows: Mapping[tuple[str, str], Row]) -> Iterator[Spell]:
    """The alerts that are open after a window, each since when its change began."""
    for (segment, kind), alert_id in tell.alert_ids(window, rows).items():
        name = window.segments[segment]
        starts_ms = rows[name, kind].starts_at_ms
        one = watch.episodes.get((segment, kind))
        if starts_ms is not None and one is not None and one.moved:
            yield Spell(name, kind, alert_id, one.points[one.moved[0]].at_ms, starts_ms)


def _under(closing: Closing, version: Version, tables: Tables, spans: Sequence[Span]) -> Told:
    """The version under the reference of this window."""
    reference_id = tables.reference.reference_id
    if version.watch is not None and version.reference_id == reference_id:
        return version, []
    old = closing.references.by_id(version.reference_id or "")
    if version.watch is not None and old is not None and reference.has_matured(old, tables):
        own = plan(closing.settings, tables, version.watch.serving)
        return replace(version, reference_id=reference_id, watch=inputs.under(own, version.watch)), []
    version, records = _ended(closing, version)
    rows = {name: row for name, row in version.alerts.items() if name[0] in tables.segments}
    fresh = inputs.start(plan(closing.settings, tables, None), closing.start_ms, tell.first_offsets(spans))
    if old is not None and old.reference.complete and not tables.reference.complete:
        # What was learned is gone again, retired by somebody: counting begins anew.
        version = replace(version, learning=None, maturing=None)
    version = replace(version, reference_id=reference_id, segments=tables.segments, watch=fresh, alerts=rows)
    return version, records


def _ended(closing: Closing, version: Version) -> Told:
    """The version with all alerts resolved: its reference is not in force any more."""
    old = closing.references.by_id(version.reference_id or "")
    if version.watch is None or old is None:
        return version, []
    own = plan(closing.settings, old, version.watch.serving)
    last = shown.closed(closing.name, own, closing.start_ms, _dense(old, None), None)
    rows, records = tell.alerts(last, version, version.watch, new_reference=True)
    place, heard = silence.Place(closing.settings, old, closing.name, closing.start_ms), version.silence
    rows, ended = silence.told(place, replace(version, alerts=rows), heard or silence.start(), None, new_reference=True)
    return replace(version, alerts=rows, silence=None), records + ended


def _without_reference(closing: Closing, version: Version) -> Told:
    """The version after a window of which ingest knew no reference: one that was in force has gone."""
    if version.reference_id is None:
        return version, []
    version, records = _ended(closing, version)
    return replace(version, reference_id=None, watch=None, learning=None, maturing=None), records


def _relearns(closing: Closing, version: Version) -> Told:
    """A person wants another reference: from soon on there is none, which is published, and learning begins anew.

    One that is dated before the last time has had what it wants.
    """
    size_ms, last_ms, wanted_ms = closing.settings.windows.size, version.relearned_ms, closing.orders.relearn_ms
    if last_ms is not None and last_ms <= closing.start_ms < last_ms + size_ms:
        version = replace(version, learning=None)
    if wanted_ms is None or (last_ms is not None and wanted_ms <= last_ms):
        return version, []
    from_ms = closing.effective_from_ms
    nothing = blank(*closing.name, window_size_ms=size_ms, effective_from_ms=from_ms)
    return replace(version, relearned_ms=from_ms, maturing=None), [_published(nothing)]


def _sampled(closing: Closing, version: Version, sample: Sample) -> Told:
    """A window without a reference: its rows help to make one."""
    settings = closing.settings
    limits = settings.limits
    undeclared = cuts.Declared(features_max=limits.features, segment_values_max=limits.segment_values)
    declared = settings.declared.get(closing.name[0], undeclared)
    state = version.learning or learning.State()
    if learning.phase(state) is not learning.Phase.SAMPLING and _is_stranded(closing, version, state):
        state = learning.State()
    state, found = learning.sampled(
        state,
        settings.learn,
        cuts.Plan(*closing.name, settings.windows.size, declared),
        sample,
        end_ms=closing.end_ms,
        effective_from_ms=closing.effective_from_ms,
        timezone=settings.seasonality.timezone,
    )
    return _learned(closing, version, state, found)


def _is_stranded(closing: Closing, version: Version, state: learning.State) -> bool:
    """Whether rows are sampled again although a reference was made: it was retired, not merely not heard of yet."""
    last_ms = (
        state.counts.end_ms if state.counts is not None and state.counts.first_ms is not None else version.since_ms
    )
    return closing.end_ms - last_ms > closing.settings.learn.max_wait


def _counted(closing: Closing, version: Version, tables: Tables, profile: Dense) -> Told:
    """A window under a provisional reference: its counts complete it."""
    provisional = tables.reference
    if provisional.complete:
        return replace(version, learning=None), []
    state = version.learning
    if state is None or not (state.learned or state.provisional == provisional):
        state = learning.State(
            provisional=provisional, counts=learning.no_counts(tables, closing.settings.seasonality.timezone)
        )
    if state.learned or not profile.rows[0]:
        return replace(version, learning=state), []
    state, found = learning.counted(
        state,
        closing.settings.learn,
        tables,
        closing.start_ms,
        profile,
        effective_from_ms=closing.effective_from_ms,
    )
    if found is not None:
        version = replace(version, maturing=maturing.start(state, closing.settings.learn, found))
        state = learning.State(learned=True)
    return _learned(closing, version, state, found)


def _known(closing: Closing, reference_id: str) -> Tables:
    """The tables of a reference that a partial profile names; whoever steps has made sure that they are there."""
    tables = closing.references.by_id(reference_id)
    if tables is None:
        raise ValueError(f"reference {reference_id} is not known, so its profiles cannot be read")
    return tables


def _merged(closing: Closing, tables: Tables, window: Open) -> Partial | None:
    """All partial profiles of a window whose references have matured into one, as one of it; None without any."""
    name = tables.reference.reference_id
    same = [replace(partial, reference_id=name) for partial in window.partials.values()]
    return summaries.merge(same, closing.settings.outliers.per_window) if same else None


def _dense(tables: Tables, partial: Partial | None) -> Dense:
    """A profile laid out in full; without a partial profile it is empty."""
    layout, name = tables.layout, (tables.reference.model_id, tables.reference.model_version)
    some = partial or summaries.empty(summaries.Group(*name, "", 0), tables.reference.reference_id, 0)
    return summaries.dense(some, len(tables.segments), layout.columns, len(layout.numeric))


def _learned(closing: Closing, version: Version, state: learning.State, found: Reference | None) -> Told:
    """The version with what it has learned; a reference that was made is published."""
    if found is None:
        return replace(version, learning=state), []
    return replace(version, learning=state, since_ms=closing.end_ms), [_published(found)]


def _published(found: Reference) -> Outgoing:
    return Outgoing("references", reference_key(found), codec.encode_reference(found))
