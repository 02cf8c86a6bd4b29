"""Three stages that only count, behind the API of the real ones: what the worker does to them is easy to see.

An input record is JSON, `{"t": event time, "k": key, "id": pair}`. Ingest counts keys per window; detect adds the
counts up and, when every source has passed the end of a window, publishes one reading per key, and one alert for each
hundredth count. A record of a topic of feedback is a label: join counts, per key `pair:k` and window of the later
half, the predictions whose id has a label within the horizon.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from stream.profiles.windows import Marks, apply, watermark
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import Watermarks
from stream.wire.record import Batch, Outgoing, Record
from stream.worker.ends import Partition
from stream.worker.settings import Settings
from stream.worker.stages import Stages

SIZE_MS = 1_000
LATENESS_MS = 500
HORIZON_MS = 1_500
FEEDBACK = "feedback"
"""How the name of a topic of feedback ends."""
PAIR = "pair:"


class Row(Struct):
    """An input record."""

    t: int
    k: str
    reference: str | None = None
    id: str | None = None


class Count(Struct, frozen=True, array_like=True):
    """A partial profile."""

    key: str
    window_ms: int
    n: int
    reference: str | None = None


class Half(Struct, frozen=True, array_like=True, order=True):
    """A prediction or a label."""

    time_ms: int
    is_label: bool
    id: str
    key: str
    source: str
    """Of its record: topic, partition and offset."""


class View(Struct, frozen=True):
    """References: their keys."""

    offset: int = 0
    known: frozenset[str] = frozenset()

    def apply(self, record: Record) -> "View":
        return View(record.offset + 1, self.known | {(record.key or b"").decode()})


class IngestState(Struct, frozen=True):
    """Per input partition."""

    watermark_ms: int | None = None
    newest_ms: int | None = None
    pending: dict[tuple[str, int, str | None], int] = field(default_factory=dict)
    halves: tuple[Half, ...] = ()


class IngestOutputs(Struct, frozen=True):
    """Of one batch."""

    records: list[Outgoing]
    counts: dict[str, int]


class JoinState(Struct, frozen=True):
    """Per partition of drift.pairs: all halves that are not yet forgotten, with the offset of their record."""

    halvings: int = 0
    marks: Marks = field(default_factory=Marks)
    held: tuple[tuple[Half, int], ...] = ()
    heard: dict[tuple[str, int], int] = field(default_factory=dict)
    """Source to the offset of its newest watermark record."""
    watermark_ms: int | None = None


class JoinOutputs(Struct, frozen=True):
    """Of some records."""

    records: list[Outgoing]
    counts: dict[tuple[str, str], int]


class DetectState(Struct, frozen=True):
    """Per partition of drift.profiles."""

    marks: Marks = field(default_factory=Marks)
    open: dict[str, int] = field(default_factory=dict)
    """'window/key' to count"""
    totals: dict[str, int] = field(default_factory=dict)
    hash: int = 0
    padding: bytes = b""


def ingest_step(_references: View, state: IngestState, batch: Batch) -> tuple[IngestState, IngestOutputs]:
    """Count, or refuse."""
    pending, mark, newest = dict(state.pending), state.watermark_ms, state.newest_ms
    is_label, halves = batch.topic.endswith(FEEDBACK), list(state.halves)
    dead, counts = [], {"ok": 0, "late": 0, "malformed": 0}
    for offset, value in zip(batch.offsets, batch.values, strict=True):
        try:
            row = msgspec.json.decode(value or b"", type=Row)
        except msgspec.DecodeError:
            place = (("place", f"{batch.topic}/{batch.partition}/{offset}".encode()),)
            dead.append(Outgoing("dead_letters", None, value, place, batch.partition, 0))
            counts["malformed"] += 1
            continue
        if row.id is not None:
            time_ms = row.t if mark is None else max(row.t, mark)
            halves.append(Half(time_ms, is_label, row.id, row.k, f"{batch.topic}/{batch.partition}/{offset}"))
        if mark is not None and row.t < mark:
            counts["late"] += 1
            continue
        counts["ok"] += 1
        if not is_label:
            key = (row.k, row.t - row.t % SIZE_MS, row.reference)
            pending[key] = pending.get(key, 0) + 1
        newest = row.t if newest is None else max(newest, row.t)
        mark = newest - LATENESS_MS if mark is None else max(mark, newest - LATENESS_MS)
    return IngestState(mark, newest, pending, tuple(halves)), IngestOutputs(dead, counts)


def ingest_tick(state: IngestState, time_ms: int) -> IngestState:
    """Time passes without records."""
    raised = time_ms - LATENESS_MS
    mark = raised if state.watermark_ms is None else max(state.watermark_ms, raised)
    return IngestState(mark, state.newest_ms, state.pending, state.halves)


def ingest_flush(
    _references: View, states: Mapping[Partition, IngestState], pairs_partitions: int
) -> tuple[dict[Partition, IngestState], list[Outgoing]]:
    """Everything pending, merged."""
    merged: dict[tuple[str, int, str | None], int] = {}
    for state in states.values():
        for key, n in state.pending.items():
            merged[key] = merged.get(key, 0) + n
    left = {name: IngestState(state.watermark_ms, state.newest_ms) for name, state in states.items()}
    partials = [_counted(key[0], key[1], n, key[2]) for key, n in sorted(merged.items(), key=str)]
    return left, partials + (_pair_blocks(states, pairs_partitions) if pairs_partitions else [])


def _pair_blocks(states: Mapping[Partition, IngestState], partitions: int) -> list[Outgoing]:
    blocks: dict[int, list[Half]] = {}
    for name in sorted(states):
        for half in states[name].halves:
            blocks.setdefault(codec.partition_of(half.id.encode(), partitions), []).append(half)
    return [Outgoing("pairs", b"", msgspec.json.encode(blocks[target]), (), target) for target in sorted(blocks)]


def join_step(state: JoinState, records: Sequence[Record]) -> tuple[JoinState, JoinOutputs]:
    """Hold halves; when every source has passed a time, tell the pairs whose later half lies below it."""
    outputs: list[Outgoing] = []
    counts = {(PAIR, "matched"): 0, (PAIR, "expired"): 0}
    for record in records:
        if not record.headers:
            halves = msgspec.json.decode(record.value or b"", type=list[Half])
            state = replace(state, held=state.held + tuple((half, record.offset) for half in halves))
            continue
        mark = codec.decode(record.value or b"", Watermarks)
        assert isinstance(mark, Watermarks)
        heard = state.heard | {(source.topic, source.partition): record.offset for source in mark.sources}
        state = replace(state, marks=apply(state.marks, mark), heard=heard)
        reached = watermark(state.marks, _inputs(state.marks))
        if reached is not None and reached != state.watermark_ms:
            found = _found(state, reached)
            counts[PAIR, "matched"] += sum(found.values())
            outputs += [_counted(PAIR + key, window_ms, n) for (key, window_ms), n in sorted(found.items())]
            kept = tuple((half, offset) for half, offset in state.held if half.time_ms + 2 * HORIZON_MS >= reached)
            counts[PAIR, "expired"] += len(state.held) - len(kept)
            state = replace(state, watermark_ms=reached, held=kept)
    return state, JoinOutputs(outputs, {name: n for name, n in counts.items() if n})


def _found(state: JoinState, reached: int) -> dict[tuple[str, int], int]:
    """Pairs whose later half lies between the former watermark and this one: a prediction takes its first label."""
    labels: dict[str, list[int]] = {}
    for half, _ in state.held:
        if half.is_label:
            labels.setdefault(half.id, []).append(half.time_ms)
    found: dict[tuple[str, int], int] = {}
    for half, _ in state.held:
        near = [time for time in labels.get(half.id, ()) if abs(time - half.time_ms) <= HORIZON_MS]
        if half.is_label or not near:
            continue
        met_ms = max(half.time_ms, min(near))
        if (state.watermark_ms is None or met_ms >= state.watermark_ms) and met_ms < reached:
            key = (half.key, met_ms - met_ms % SIZE_MS)
            found[key] = found.get(key, 0) + 1
    return found


def join_oldest(state: JoinState) -> int | None:
    """The oldest record it needs."""
    return min([*(offset for _, offset in state.held), *state.heard.values()], default=None)


def join_digest(state: JoinState) -> str:
    """Of the halves that may still meet another, whatever their order."""
    held = [half for half, _ in state.held if half.time_ms + HORIZON_MS >= (state.watermark_ms or 0)]
    return f"{sum(codec.hash64(msgspec.json.encode(half)) for half in held) % 2**64:016x}"


def _inputs(marks: Marks) -> list[str]:
    return sorted(topic for topic in marks.partitions if not topic.endswith("pairs"))


def _counted(key: str, window_ms: int, n: int, reference: str | None = None) -> Outgoing:
    return Outgoing("profiles", key.encode(), msgspec.json.encode(Count(key, window_ms, n, reference)))


def detect_waits_for(references: View, record: Record) -> str | None:
    """The reference a count names."""
    if record.headers:
        return None
    needed = msgspec.json.decode(record.value or b"", type=Count).reference
    return needed if needed is not None and needed not in references.known else None


def detect_step(_references: View, state: DetectState, records: Sequence[Record]) -> tuple[DetectState, list[Outgoing]]:
    """Add up; close what every source has passed."""
    outputs: list[Outgoing] = []
    marks, open_, totals, chain = state.marks, dict(state.open), dict(state.totals), state.hash
    for record in records:
        if not record.headers:
            count = msgspec.json.decode(record.value or b"", type=Count)
            name = f"{count.window_ms:020d}/{count.key}"
            open_[name] = open_.get(name, 0) + count.n
            continue
        mark = codec.decode(record.value or b"", Watermarks)
        assert isinstance(mark, Watermarks)
        marks = apply(marks, mark)
        for name in sorted(name for name in open_ if int(name[:20]) + SIZE_MS <= _reached(marks, name[21:])):
            said = _close(name[21:], int(name[:20]), open_.pop(name), totals)
            outputs += said
            for output in said:
                chain = codec.hash64(chain.to_bytes(8, "big") + (output.key or b"") + (output.value or b""))
    return DetectState(marks, open_, totals, chain, state.padding), outputs


def _reached(marks: Marks, key: str) -> int:
    """Pairs wait for feedback and for join, everything else for predictions."""
    of_pairs = {topic for topic in marks.partitions if topic.endswith((FEEDBACK, "pairs"))}
    topics = of_pairs if key.startswith(PAIR) else marks.partitions.keys() - of_pairs
    return watermark(marks, sorted(topics)) or 0


def _close(key: str, window_ms: int, n: int, totals: dict[str, int]) -> list[Outgoing]:
    before = totals.get(key, 0)
    totals[key] = before + n
    reading = codec.to_json({"key": key, "window": window_ms, "n": n})
    said = [Outgoing("windows", key.encode(), reading, (), None, window_ms)]
    hundredths = range(before // 100 + 1, totals[key] // 100 + 1)
    alerts = [codec.to_json({"key": key, "h": hundredth}) for hundredth in hundredths]
    return said + [Outgoing("alerts", key.encode(), alert, (), None, window_ms) for alert in alerts]


def detect_decode(data: bytes) -> DetectState | Malformed:
    """Back from bytes."""
    return codec.decode(data, DetectState)


JOIN: Final[dict[str, Any]] = {
    "join_start": lambda halvings, _: JoinState(halvings),
    "join_step": join_step,
    "join_watermark": lambda state: state.watermark_ms,
    "join_oldest": join_oldest,
    "join_halvings": lambda state: state.halvings,
    "join_waiting": lambda state: len(state.held),
    "join_digest": join_digest,
}


class Nothing(Struct, frozen=True):
    """What counting says of a task for the metrics."""

    versions: dict[tuple[str, str], Any] = {}
    outcomes: dict[tuple[str, str], Any] = {}
    verdicts: dict[tuple[str, str], int] = {}
    suppressed: int = 0
    alarms: int = 0
    share: float = 0.0


def stages(config_id: str = "counting", padding: bytes = b"") -> Stages:
    """All three stages."""
    return Stages(
        config_id=config_id,
        references=View,
        ingest_start=IngestState,
        ingest_step=ingest_step,
        ingest_tick=ingest_tick,
        ingest_flush=ingest_flush,
        ingest_pending=lambda states: (sum(len(state.pending) for state in states.values()), 0),
        **JOIN,
        detect_start=lambda: DetectState(padding=padding),
        detect_waits_for=detect_waits_for,
        detect_step=detect_step,
        detect_encode=lambda state: codec.encode(state, "counting"),
        detect_decode=detect_decode,
        detect_digest=lambda state: f"{state.hash:016x}",
        detect_overview=lambda _references, _state, _before, _signals: Nothing(),
    )


def record(time_ms: int, key: str, reference: str | None = None, pair: str | None = None) -> bytes:
    """One input."""
    return msgspec.json.encode(Row(time_ms, key, reference, pair))


def stages_of(_settings: Settings) -> Stages:
    """As a worker is given them."""
    return stages()
