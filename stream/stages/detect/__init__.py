"""Detect: partial profiles become windows, verdicts, and alerts.

Records of one `drift.profiles` partition come in offset order. A watermark record may close windows: those whose end
every input partition has passed, in the order of their end, model and version. `step` never changes the state it is
given: whoever holds the old one can go back to it.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import inf
from typing import Final

from msgspec.structs import replace

from stream.profiles import outcomes, summaries, windows
from stream.profiles.reference import References
from stream.stages.detect import labels, silence, tally
from stream.stages.detect.close import Closing, Name, close
from stream.stages.detect.decisions import Decisions, Subject, heard, kept, orders
from stream.stages.detect.overview import Overview, overview
from stream.stages.detect.plan import KINDS, LABELS, OUTCOME_KINDS
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import STATE_VERSION, Open, OutcomeVersion, State, Version
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.control import ControlEvent
from stream.wire.internal import (
    CONTROL,
    OUTCOMES,
    PARTIAL,
    SAMPLE,
    WATERMARKS,
    Outcomes,
    Partial,
    Sample,
    Watermarks,
)
from stream.wire.record import Outgoing, Record

__all__ = [
    "STATE_VERSION",
    "Overview",
    "Settings",
    "State",
    "decode",
    "digest",
    "encode",
    "overview",
    "start",
    "step",
    "waits_for",
]

CLOSED_PER_RECORD: Final = 1000
"""Windows of a segment closed for one input record at most; the rest with the next: transactions stay bounded."""
_BEFORE_ALL_TIME: Final = -(2**63)
"""No reference is published with a window of outcomes: a relearn is carried out with one of inputs."""
_SNAPSHOT: Final = f"detect/{STATE_VERSION}"


def start(settings: Settings) -> State:
    """Nothing seen yet."""
    del settings
    return State()


def waits_for(references: References, record: Record) -> str | None:
    """What `references` must hold before a step with this record, and does not.

    The id of the reference that a partial profile was built with; or how far ingest had heard, since the references in
    force for outcomes are those known by then.
    """
    kind = None if record.value is None else codec.kind_of(record.value)
    if kind == PARTIAL:
        partial = codec.opened(record, Partial, PARTIAL)
        return None if references.by_id(partial.reference_id) else partial.reference_id
    if kind == WATERMARKS:
        offset = codec.opened(record, Watermarks, WATERMARKS).references_offset
        return None if references.offset >= offset else f"before offset {offset}"
    return None


def step(
    settings: Settings, references: References, state: State, records: Sequence[Record]
) -> tuple[State, list[Outgoing]]:
    """Some records further. Raises `ValueError` on bytes that no ingest has written: the log is not ours."""
    state = replace(state, versions=dict(state.versions), outcomes=dict(state.outcomes))
    outgoing: list[Outgoing] = []
    for record in records:
        state = _heard(settings, state, record)
        state, published = _closed_windows(settings, references, state)
        outgoing += published
    return state, outgoing


def encode(state: State) -> bytes:
    """The state as one frame, for `decode`."""
    return codec.encode(state, _SNAPSHOT)


def decode(data: bytes) -> State | Malformed:
    """The state in a frame; never raises."""
    return codec.decode(data, State, _SNAPSHOT)


def digest(state: State) -> str:
    """16 hex digits over all that was published so far: equal for equal histories."""
    return f"{state.digest:016x}"


def _heard(settings: Settings, state: State, record: Record) -> State:
    """The state after one record, before any window is closed for it."""
    kind = None if record.value is None else codec.kind_of(record.value)
    if kind == PARTIAL:
        return _gathered(settings, state, codec.opened(record, Partial, PARTIAL))
    if kind == SAMPLE:
        return _gathered(settings, state, codec.opened(record, Sample, SAMPLE))
    if kind == OUTCOMES:
        return _measured(settings, state, codec.opened(record, Outcomes, OUTCOMES))
    if kind == WATERMARKS:
        return replace(state, marks=windows.apply(state.marks, codec.opened(record, Watermarks, WATERMARKS)))
    if kind == CONTROL:
        return _decided(settings, state, codec.opened(record, ControlEvent, CONTROL))
    raise ValueError(f"{codec.place(record)}: not a record of this system")


def _decided(settings: Settings, state: State, event: ControlEvent) -> State:
    """The state with one control event more: it applies to windows that are closed from now on."""
    watermark_ms = windows.watermark(state.marks, settings.topics)
    return replace(state, decisions=heard(state.decisions, event, watermark_ms, settings.windows.size))


def _gathered(settings: Settings, state: State, part: Partial | Sample) -> State:
    """The state with one partial profile or sample merged into its window."""
    name = (part.model_id, part.model_version)
    version = state.versions.get(name)
    if not _may_enter(settings, state, version, part.window_start_ms):
        return replace(state, refused=state.refused + 1)
    version = version or Version(next_ms=part.window_start_ms, seen_ms=part.window_start_ms)
    window = version.open.get(part.window_start_ms, Open())
    if isinstance(part, Partial):
        same = [one for one in (window.partials.get(part.reference_id), part) if one is not None]
        merged = summaries.merge(same, settings.outliers.per_window)
        window = replace(window, partials={**window.partials, part.reference_id: merged})
    else:
        samples = [one for one in (window.sample, part) if one is not None]
        window = replace(window, sample=summaries.merge_samples(samples, settings.learn.rows))
    state.versions[name] = replace(
        version,
        next_ms=min(version.next_ms, part.window_start_ms),
        open={**version.open, part.window_start_ms: window},
    )
    return state


def _measured(settings: Settings, state: State, part: Outcomes) -> State:
    """The state with some outcomes merged into their window; nothing is made of them where no feedback is read."""
    if not settings.outcome_topics:
        return state
    name, start_ms = (part.model_id, part.model_version), part.window_start_ms
    version = state.outcomes.get(name)
    closed_ms = _outcomes_watermark(settings, state)
    if version is not None and version.watched:
        refused = start_ms < version.next_ms
    else:
        late = closed_ms is not None and start_ms + settings.windows.size <= closed_ms
        refused = late or (version is None and len(state.outcomes) >= settings.limits.models)
    if refused:
        return replace(state, refused=state.refused + 1)
    version = version or OutcomeVersion(next_ms=start_ms, seen_ms=start_ms)
    parts = [one for one in (version.open.get(start_ms), part) if one is not None]
    state.outcomes[name] = replace(
        version, next_ms=min(version.next_ms, start_ms), open={**version.open, start_ms: outcomes.merge(parts)}
    )
    return state


def _may_enter(settings: Settings, state: State, version: Version | None, start_ms: int) -> bool:
    """Whether a window may still be added to: it was not closed, and its model version is watched or may be."""
    if version is not None and version.watched:
        return start_ms >= version.next_ms
    if version is None and len(state.versions) >= settings.limits.models:
        return False
    watermark_ms = windows.watermark(state.marks, settings.topics)
    return watermark_ms is None or start_ms + settings.windows.size > watermark_ms


def _closed_windows(settings: Settings, references: References, state: State) -> tuple[State, list[Outgoing]]:
    """All windows that every source has passed, closed in order, up to the bound of one record that others follow.

    Those of inputs go first: outcomes of a window ask what was open among the inputs of the same window.
    """
    outgoing: list[Outgoing] = []
    room: float = inf if windows.have_ended(state.marks, settings.topics) else CLOSED_PER_RECORD
    watermark_ms = windows.reached(state.marks, settings.topics, settings.windows)
    while watermark_ms is not None and room > 0 and (due := _due(settings, state.versions, watermark_ms)):
        for name in due:
            state, records = _closed(settings, references, state, name)
            outgoing += records
            room -= len(state.versions[name].segments) if name in state.versions else 1
            if room <= 0:
                break
    while room > 0 and (later := _due_outcomes(settings, state)):
        for name in later:
            state, records = _closed_outcomes(settings, references, state, name)
            outgoing += records
            room -= len(state.outcomes[name].segments) if name in state.outcomes else 1
            if room <= 0:
                break
    _tidy(settings, state)
    return replace(state, digest=_chained(state.digest, outgoing), decisions=_kept(state, watermark_ms)), outgoing


def _kept(state: State, watermark_ms: int | None) -> Decisions:
    """The decisions that still concern a window."""
    if watermark_ms is None or not state.decisions.held:
        return state.decisions
    inputs = [version.next_ms for version in state.versions.values()]
    own = [version.next_ms for version in state.outcomes.values()]
    return kept(state.decisions, min([watermark_ms, *inputs, *own]))


def _tidy(settings: Settings, state: State) -> None:
    """What inputs have kept for outcomes that are closed, or will never come, may go."""
    watermark_ms = _outcomes_watermark(settings, state)
    for name, version in state.versions.items():
        own = state.outcomes.get(name)
        closed_ms = watermark_ms if own is None else own.next_ms
        if version.answers and closed_ms is not None and next(iter(version.answers)) <= closed_ms:
            waiting = {end_ms: one for end_ms, one in version.answers.items() if end_ms > closed_ms}
            state.versions[name] = replace(version, answers=waiting)


def _closed(settings: Settings, references: References, state: State, name: Name) -> tuple[State, list[Outgoing]]:
    """The next window of the inputs of one version, closed by what people have decided of it."""
    before = state.versions[name]
    closing = Closing(settings, references, name, before.next_ms)
    subject = Subject(name, before.segments, (*KINDS, silence.KIND))
    own, decisions = orders(state.decisions, subject, start_ms=closing.start_ms, from_ms=closing.effective_from_ms)
    version, records = close(replace(closing, orders=own), before)
    if version.relearned_ms != before.relearned_ms and name in state.outcomes:
        state.outcomes[name] = replace(state.outcomes[name], relearns_ms=version.relearned_ms)
    counted = tally.after(state.tally, before, version, closing.end_ms, settings.budget.period)
    state.versions[name] = version
    if version.silent_for(settings.alerts.retire_after):
        _forget(state, name, version)
    return replace(state, decisions=decisions, tally=counted), records


def _closed_outcomes(
    settings: Settings, references: References, state: State, name: Name
) -> tuple[State, list[Outgoing]]:
    """The next window of the outcomes of one version, likewise."""
    before, inputs = state.outcomes[name], state.versions.get(name)
    subject = Subject(name, before.segments, (*OUTCOME_KINDS, silence.KIND), LABELS)
    own, decisions = orders(state.decisions, subject, start_ms=before.next_ms, from_ms=_BEFORE_ALL_TIME)
    closing = Closing(
        settings,
        references,
        name,
        before.next_ms,
        own,
        references_offset=state.marks.references_offset,
        retrained=state.decisions.retrained,
    )
    version, records = labels.close(closing, before, inputs)
    counted = tally.after(state.tally, before, version, closing.end_ms, settings.budget.period)
    state.outcomes[name] = version
    if version.silent_for(settings.alerts.retire_after):
        del state.outcomes[name]
        if version.open:
            first_ms = min(version.open)
            state.outcomes[name] = OutcomeVersion(first_ms, first_ms, open=version.open)
    return replace(state, decisions=decisions, tally=counted), records


def _forget(state: State, name: Name, version: Version) -> None:
    """A version that was silent for long is gone; events after the silence begin it anew, whether they are here yet."""
    del state.versions[name]
    if version.open:
        first_ms = min(version.open)
        state.versions[name] = Version(first_ms, first_ms, open=version.open)


def _due(
    settings: Settings, versions: Mapping[Name, Version] | Mapping[Name, OutcomeVersion], watermark_ms: int
) -> list[Name]:
    """The model versions with the earliest window to close, sorted; none when nothing is due."""
    starts = {
        name: version.next_ms
        for name, version in versions.items()
        if version.next_ms + settings.windows.size <= watermark_ms
    }
    first = min(starts.values(), default=None)
    return sorted(name for name, start_ms in starts.items() if start_ms == first)


def _due_outcomes(settings: Settings, state: State) -> list[Name]:
    """As `_due`, of outcomes whose inputs are closed as far, or have ended."""
    watermark_ms = _outcomes_watermark(settings, state)
    if watermark_ms is None:
        return []
    ended = windows.have_ended(state.marks, settings.topics)
    ready = {
        name: version
        for name, version in state.outcomes.items()
        if ended or name not in state.versions or state.versions[name].next_ms > version.next_ms
    }
    return _due(settings, ready, watermark_ms)


def _outcomes_watermark(settings: Settings, state: State) -> int | None:
    """How far all feedback and all joins have come; None without any feedback."""
    return windows.reached(state.marks, settings.outcome_topics, settings.windows) if settings.outcome_topics else None


def _chained(digest: int, outgoing: Sequence[Outgoing]) -> int:
    """The digest with the bytes of more alerts and readings."""
    if not outgoing:
        return digest
    told = blake2b(digest.to_bytes(8, "big"), digest_size=8)
    for record in outgoing:
        told.update(record.value or b"")
    return int.from_bytes(told.digest(), "big")
