"""Detect: partial profiles become windows, verdicts, and alerts.

Records of one `drift.profiles` partition come in offset order. A watermark record may close windows: those whose end
every input partition has passed, in the order of their end, model and version. `step` never changes the state it is
given: whoever holds the old one can go back to it.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import inf
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import summaries, windows
from stream.profiles.reference import References
from stream.stages.detect import tally
from stream.stages.detect.close import Closing, Name, close
from stream.stages.detect.decisions import Decisions, Subject, heard, kept, orders
from stream.stages.detect.overview import Overview, overview
from stream.stages.detect.plan import KINDS
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import STATE_VERSION, Open, State, Version
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.control import ControlEvent
from stream.wire.internal import CONTROL, PARTIAL, SAMPLE, WATERMARKS, Partial, Sample, Watermarks
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

T = TypeVar("T", bound=Struct)

CLOSED_PER_RECORD: Final = 1000
"""Windows of a segment closed for one input record at most; the rest with the next: transactions stay bounded."""
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
    """16 hex digits over all that was published so far: equal for equal histories."""
    return f"{state.digest:016x}"


def _heard(settings: Settings, state: State, record: Record) -> State:
    """The state after one record, before any window is closed for it."""
    kind = None if record.value is None else codec.kind_of(record.value)
    if kind == PARTIAL:
        return _gathered(settings, state, _opened(record, Partial, PARTIAL))
    if kind == SAMPLE:
        return _gathered(settings, state, _opened(record, Sample, SAMPLE))
    if kind == WATERMARKS:
        return replace(state, marks=windows.apply(state.marks, _opened(record, Watermarks, WATERMARKS)))
    if kind == CONTROL:
        return _decided(settings, state, _opened(record, ControlEvent, CONTROL))
    raise ValueError(f"{_place(record)}: not a record of this system")


def _decided(settings: Settings, state: State, event: ControlEvent) -> State:
    """The state with one control event more: it applies to windows that are closed from now on."""
    watermark_ms = windows.watermark(state.marks, settings.topics)
    return replace(state, decisions=heard(state.decisions, event, watermark_ms, settings.windows.size))


def _opened(record: Record, shape: type[T], kind: str) -> T:
    found = codec.decode(record.value or b"", shape, kind)
    if isinstance(found, Malformed):
        raise ValueError(f"{_place(record)}: {found.code}: {found.detail}")  # noqa: TRY004 - bytes, not types, are wrong
    return found


def _place(record: Record) -> str:
    return f"{record.topic}[{record.partition}] offset {record.offset}"


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
    """All windows that every source has passed, closed in order, up to the bound of one record that others follow."""
    watermark_ms = windows.reached(state.marks, settings.topics, settings.windows)
    outgoing: list[Outgoing] = []
    room: float = inf if windows.have_ended(state.marks, settings.topics) else CLOSED_PER_RECORD
    while watermark_ms is not None and room > 0 and (due := _due(settings, state, watermark_ms)):
        for name in due:
            state, records = _closed_window(settings, references, state, name)
            outgoing += records
            version = state.versions[name]
            room -= len(version.segments)
            if version.silent_for(settings.alerts.retire_after):
                _forget(state, name, version)
            if room <= 0:
                break
    return replace(state, digest=_chained(state.digest, outgoing), decisions=_kept(state, watermark_ms)), outgoing


def _closed_window(
    settings: Settings, references: References, state: State, name: Name
) -> tuple[State, list[Outgoing]]:
    """The next window of one version, by what people have decided of it."""
    before = state.versions[name]
    closing = Closing(settings, references, name, before.next_ms)
    subject = Subject(name, before.segments, KINDS)
    own, decisions = orders(state.decisions, subject, start_ms=closing.start_ms, from_ms=closing.effective_from_ms)
    version, records = close(replace(closing, orders=own), before)
    state.versions[name] = version
    counted = tally.after(state.tally, before, version, closing.end_ms, settings.budget.period)
    return replace(state, decisions=decisions, tally=counted), records


def _kept(state: State, watermark_ms: int | None) -> Decisions:
    """The decisions that still concern a window."""
    if watermark_ms is None or not state.decisions.held:
        return state.decisions
    return kept(state.decisions, min([watermark_ms, *(version.next_ms for version in state.versions.values())]))


def _forget(state: State, name: Name, version: Version) -> None:
    """A version that was silent for long is gone; events after the silence begin it anew, whether they are here yet."""
    del state.versions[name]
    if version.open:
        first_ms = min(version.open)
        state.versions[name] = Version(first_ms, first_ms, open=version.open)


def _due(settings: Settings, state: State, watermark_ms: int) -> list[Name]:
    """The model versions with the earliest window to close, sorted; none when nothing is due."""
    starts = {
        name: version.next_ms
        for name, version in state.versions.items()
        if version.next_ms + settings.windows.size <= watermark_ms
    }
    first = min(starts.values(), default=None)
    return sorted(name for name, start_ms in starts.items() if start_ms == first)


def _chained(digest: int, outgoing: Sequence[Outgoing]) -> int:
    """The digest with the bytes of more alerts and readings."""
    if not outgoing:
        return digest
    told = blake2b(digest.to_bytes(8, "big"), digest_size=8)
    for record in outgoing:
        told.update(record.value or b"")
    return int.from_bytes(told.digest(), "big")
