"""Detect: partial profiles become windows, verdicts, and alerts.

Records of one `drift.profiles` partition come in offset order. A watermark record may close windows: those whose end every
input partition has passed, in the order of their end, model and version. `step` never changes the state it is given:
whoever holds the old one can go back to it.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import Reason
from stream.profiles import cuts, learning, summaries, trail, windows
from stream.profiles.reference import References, Tables, reference_key
from stream.profiles.summaries import Dense
from stream.stages.detect import tell, watch
from stream.stages.detect.plan import plan
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import STATE_VERSION, Open, State, Version
from stream.stages.detect.tell import Closed
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import (
    END_OF_TIME_MS,
    PARTIAL,
    SAMPLE,
    WATERMARKS,
    Partial,
    Reference,
    Sample,
    Span,
    Watermarks,
)
from stream.wire.record import Outgoing, Record

__all__ = ["STATE_VERSION", "Settings", "State", "decode", "digest", "encode", "start", "step", "waits_for"]

Name: TypeAlias = tuple[str, str]
"""Model id and version."""
T = TypeVar("T", bound=Struct)

CLOSED_PER_RECORD: Final = 1000
"""Segments of windows closed for one input record at most; the rest with the next, so that transactions stay bounded."""
REFERENCE_DELAY_WINDOWS: Final = 2
"""A learned reference comes into force this many windows ahead, so that ingest has heard of it by then."""
_SNAPSHOT: Final = f"detect/{STATE_VERSION}"


def start(settings: Settings) -> State:
    """Nothing seen yet."""
    del settings
    return State()


def waits_for(references: References, record: Record) -> str | None:
    """The id of a reference that a partial profile was built with and `references` does not hold."""
    if record.value is None or codec.kind_of(record.value) != PARTIAL:
        return None
    partial = _opened(record, Partial, PARTIAL)
    return None if references.by_id(partial.reference_id) else partial.reference_id


def step(
    settings: Settings, references: References, state: State, records: Sequence[Record]
) -> tuple[State, list[Outgoing]]:
    """Some records further. Raises `ValueError` on bytes that no ingest has written: the log is not ours."""
    state = replace(state, versions=dict(state.versions))
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
    """16 hex digits over all alerts and readings published so far: equal for equal histories."""
    return f"{state.digest:016x}"


def _heard(settings: Settings, state: State, record: Record) -> State:
    """The state after one record, before any window is closed for it."""
    match None if record.value is None else codec.kind_of(record.value):
        case "partial/1":
            return _gathered(settings, state, _opened(record, Partial, PARTIAL))
        case "sample/1":
            return _gathered(settings, state, _opened(record, Sample, SAMPLE))
        case "watermarks/1":
            return replace(state, marks=windows.apply(state.marks, _opened(record, Watermarks, WATERMARKS)))
        case _:
            where = f"{record.topic}[{record.partition}] offset {record.offset}"
            raise ValueError(f"{where}: not a record of this system")


def _opened(record: Record, shape: type[T], kind: str) -> T:
    found = codec.decode(record.value or b"", shape, kind)
    if isinstance(found, Malformed):
        where = f"{record.topic}[{record.partition}] offset {record.offset}"
        raise ValueError(f"{where}: {found.code}: {found.detail}")
    return found


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


def _may_enter(settings: Settings, state: State, version: Version | None, start_ms: int) -> bool:
    """Whether a window may still be added to: it was not closed, and its model version is watched or may be."""
    if version is not None and version.watched:
        return start_ms >= version.next_ms
    if version is None and len(state.versions) >= settings.limits.models:
        return False
    watermark_ms = windows.watermark(state.marks, settings.topics)
    return watermark_ms is None or start_ms + settings.windows.size > watermark_ms


def _closed_windows(settings: Settings, references: References, state: State) -> tuple[State, list[Outgoing]]:
    """All windows that every source has passed, closed in order, up to the bound of one record."""
    watermark_ms = windows.watermark(state.marks, settings.topics)
    outgoing: list[Outgoing] = []
    room = CLOSED_PER_RECORD
    while watermark_ms is not None and room > 0 and (due := _due(settings, state, watermark_ms)):
        for name in due:
            version, records = _close(settings, references, name, state.versions[name])
            outgoing += records
            room -= len(version.segments)
            if version.forgotten(settings.alerts.retire_after):
                del state.versions[name]
            else:
                state.versions[name] = version
            if room <= 0:
                break
    return replace(state, digest=_chained(state.digest, outgoing)), outgoing


def _due(settings: Settings, state: State, watermark_ms: int) -> list[Name]:
    """The model versions with the earliest window to close, sorted; none when nothing is due.

    At the end of an input (a watermark beyond all time) only windows up to the newest with events are due.
    """
    ended = watermark_ms + settings.windows.lateness >= END_OF_TIME_MS
    starts = {
        name: version.next_ms
        for name, version in state.versions.items()
        if version.next_ms + settings.windows.size <= watermark_ms and (version.open or not ended)
    }
    first = min(starts.values(), default=None)
    return sorted(name for name, start_ms in starts.items() if start_ms == first)


def _close(
    settings: Settings, references: References, name: Name, version: Version
) -> tuple[Version, list[Outgoing]]:
    """One window of one model version."""
    start_ms, end_ms = version.next_ms, version.next_ms + settings.windows.size
    window = version.open.get(start_ms, Open())
    spans = [span for partial in window.partials.values() for span in partial.spans]
    spans += window.sample.spans if window.sample else []
    version = replace(
        version,
        watched=True,
        next_ms=end_ms,
        seen_ms=end_ms if spans else version.seen_ms,
        trail=trail.append(version.trail, start_ms, spans),
        open={other: one for other, one in version.open.items() if other != start_ms},
    )
    found = [references.by_id(reference_id) for reference_id in window.partials]
    present = sorted((tables for tables in found if tables is not None), key=_in_force_last)
    sampled = window.sample is not None and window.sample.rows > 0
    if window.sample is not None and sampled and not present:
        return _sampled(settings, name, version, window.sample, end_ms)
    tables = present[-1] if present else references.by_id(version.reference_id or "")
    if tables is None:
        return version, []
    partial = window.partials.get(tables.reference.reference_id)
    profile = summaries.dense(
        partial or summaries.empty(summaries.Group(*name, "", 0), tables.reference.reference_id, start_ms),
        len(tables.segments),
        tables.layout.columns,
        len(tables.layout.numeric),
    )
    version, records = _under(settings, references, name, version, tables, start_ms, profile, spans)
    mixed = len(present) + sampled > 1
    version, learned = _counted(settings, version, tables, start_ms, profile) if not mixed else (version, [])
    version, told = _judged(settings, name, version, tables, partial, start_ms, profile, mixed=mixed)
    return version, [*records, *learned, *told]


def _judged(
    settings: Settings,
    name: Name,
    version: Version,
    tables: Tables,
    partial: Partial | None,
    start_ms: int,
    profile: Dense,
    *,
    mixed: bool,
) -> tuple[Version, list[Outgoing]]:
    """A window through detectors, alerts and readings. One that mixes references says so and judges nothing."""
    before = version.watch
    if before is None:
        raise ValueError("a version is judged under a reference only")
    own = plan(settings, tables, before.serving)
    after, judged = (before, None) if mixed else watch.update(settings, own, before, start_ms, profile)
    window = Closed(settings, *name, own, start_ms, profile, judged, Reason.REFERENCE_CHANGED)
    rows, alerts = tell.alerts(window, version, after)
    records = [
        *alerts,
        *tell.outlier_notices(window, partial.worst if partial is not None else ()),
        *tell.readings(window, tell.alert_ids(window, rows)),
    ]
    return replace(version, watch=tell.settled(window, version, after, rows), alerts=rows), records


def _under(
    settings: Settings,
    references: References,
    name: Name,
    version: Version,
    tables: Tables,
    start_ms: int,
    profile: Dense,
    spans: Sequence[Span],
) -> tuple[Version, list[Outgoing]]:
    """The version under the reference of this window. A new one resolves what is open, and all detectors begin anew."""
    if version.watch is not None and version.reference_id == tables.reference.reference_id:
        return version, []
    rows, records = version.alerts, list[Outgoing]()
    old = references.by_id(version.reference_id or "")
    if version.watch is not None and old is not None:
        empty = summaries.dense(
            summaries.empty(summaries.Group(*name, "", 0), old.reference.reference_id, start_ms),
            len(old.segments),
            old.layout.columns,
            len(old.layout.numeric),
        )
        last = Closed(settings, *name, plan(settings, old, version.watch.serving), start_ms, empty, None, Reason.NONE)
        rows, records = tell.alerts(last, version, version.watch, new_reference=True)
    began: dict[tuple[str, int], int] = {}
    for span in spans:
        where = (span.topic, span.partition)
        began[where] = min(began.get(where, span.first_offset), span.first_offset)
    fresh = watch.start(settings, plan(settings, tables, None), start_ms, began)
    version = replace(
        version, reference_id=tables.reference.reference_id, segments=tables.segments, watch=fresh, alerts=rows
    )
    return version, records


def _sampled(
    settings: Settings, name: Name, version: Version, sample: Sample, end_ms: int
) -> tuple[Version, list[Outgoing]]:
    """A window without a reference: its rows help to make one."""
    wanted = cuts.Plan(*name, settings.windows.size, settings.declared.get(name[0], cuts.Declared()))
    state, found = learning.sampled(
        version.learning or learning.State(),
        settings.learn,
        wanted,
        sample,
        end_ms=end_ms,
        effective_from_ms=_effective_from(settings, end_ms),
    )
    return replace(version, learning=state), _published(found)


def _counted(
    settings: Settings, version: Version, tables: Tables, start_ms: int, profile: Dense
) -> tuple[Version, list[Outgoing]]:
    """A window under a provisional reference: its counts complete it."""
    provisional = tables.reference
    if provisional.complete:
        return replace(version, learning=None), []
    state = version.learning
    if state is None or state.provisional is None or state.provisional.reference_id != provisional.reference_id:
        state = learning.State(provisional=provisional, counts=learning.no_counts(tables))
    if profile.rows[0]:
        effective_from_ms = _effective_from(settings, start_ms + settings.windows.size)
        state, found = learning.counted(
            state, settings.learn, tables, start_ms, profile, effective_from_ms=effective_from_ms
        )
        return replace(version, learning=state), _published(found)
    return replace(version, learning=state), []


def _effective_from(settings: Settings, end_ms: int) -> int:
    return end_ms + REFERENCE_DELAY_WINDOWS * settings.windows.size


def _published(reference: Reference | None) -> list[Outgoing]:
    if reference is None:
        return []
    return [Outgoing("references", reference_key(reference), codec.encode_reference(reference))]


def _in_force_last(tables: Tables) -> tuple[int, str]:
    return codec.parse_time(tables.reference.effective_from) or 0, tables.reference.reference_id


def _chained(digest: int, outgoing: Sequence[Outgoing]) -> int:
    """The digest with the bytes of more alerts and readings."""
    if not outgoing:
        return digest
    told = blake2b(digest.to_bytes(8, "big"), digest_size=8)
    for record in outgoing:
        told.update(record.value or b"")
    return int.from_bytes(told.digest(), "big")
