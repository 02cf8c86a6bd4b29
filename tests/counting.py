"""Two stages that only count, behind the API of the real ones: what the worker does to them is easy to see.

An input record is JSON, `{"t": event time, "k": key}`. Ingest counts keys per window; detect adds the counts up and,
when every source has passed the end of a window, publishes one reading per key, and one alert for each hundredth count.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from stream.profiles.windows import Marks, apply, watermark
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import Watermarks
from stream.wire.record import Batch, Outgoing, Record
from stream.worker.ends import Partition
from stream.worker.stages import Stages

SIZE_MS = 1_000
LATENESS_MS = 500


class Row(Struct):
    """An input record."""

    t: int
    k: str
    reference: str | None = None


class Count(Struct, frozen=True, array_like=True):
    """A partial profile."""

    key: str
    window_ms: int
    n: int
    reference: str | None = None


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


class IngestOutputs(Struct, frozen=True):
    """Of one batch."""

    records: list[Outgoing]
    counts: dict[str, int]


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
    dead, counts = [], {"ok": 0, "late": 0, "malformed": 0}
    for offset, value in zip(batch.offsets, batch.values, strict=True):
        try:
            row = msgspec.json.decode(value or b"", type=Row)
        except msgspec.DecodeError:
            place = (("place", f"{batch.topic}/{batch.partition}/{offset}".encode()),)
            dead.append(Outgoing("dead_letters", None, value, place, batch.partition, 0))
            counts["malformed"] += 1
            continue
        if mark is not None and row.t < mark:
            counts["late"] += 1
            continue
        counts["ok"] += 1
        key = (row.k, row.t - row.t % SIZE_MS, row.reference)
        pending[key] = pending.get(key, 0) + 1
        newest = row.t if newest is None else max(newest, row.t)
        mark = newest - LATENESS_MS if mark is None else max(mark, newest - LATENESS_MS)
    return IngestState(mark, newest, pending), IngestOutputs(dead, counts)


def ingest_tick(state: IngestState, time_ms: int) -> IngestState:
    """Time passes without records."""
    raised = time_ms - LATENESS_MS
    mark = raised if state.watermark_ms is None else max(state.watermark_ms, raised)
    return IngestState(mark, state.newest_ms, state.pending)


def ingest_flush(
    _references: View, states: Mapping[Partition, IngestState]
) -> tuple[dict[Partition, IngestState], list[Outgoing]]:
    """Everything pending, merged."""
    merged: dict[tuple[str, int, str | None], int] = {}
    for state in states.values():
        for key, n in state.pending.items():
            merged[key] = merged.get(key, 0) + n
    left = {name: IngestState(state.watermark_ms, state.newest_ms) for name, state in states.items()}
    partials = [
        Outgoing("profiles", key[0].encode(), msgspec.json.encode(Count(*key[:2], n, key[2])))
        for key, n in sorted(merged.items(), key=str)
    ]
    return left, partials


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
        reached = watermark(marks, sorted(marks.partitions)) or 0
        for name in sorted(name for name in open_ if int(name[:20]) + SIZE_MS <= reached):
            said = _close(name[21:], int(name[:20]), open_.pop(name), totals)
            outputs += said
            for output in said:
                chain = codec.hash64(chain.to_bytes(8, "big") + (output.key or b"") + (output.value or b""))
    return DetectState(marks, open_, totals, chain, state.padding), outputs


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


def stages(config_id: str = "counting", padding: bytes = b"") -> Stages:
    """Both stages."""
    return Stages(
        config_id=config_id,
        references=View,
        ingest_start=IngestState,
        ingest_step=ingest_step,
        ingest_tick=ingest_tick,
        ingest_flush=ingest_flush,
        ingest_pending=lambda states: (sum(len(state.pending) for state in states.values()), 0),
        detect_start=lambda: DetectState(padding=padding),
        detect_waits_for=detect_waits_for,
        detect_step=detect_step,
        detect_encode=lambda state: codec.encode(state, "counting"),
        detect_decode=detect_decode,
        detect_digest=lambda state: f"{state.hash:016x}",
    )


def record(time_ms: int, key: str, reference: str | None = None) -> bytes:
    """One input."""
    return msgspec.json.encode(Row(time_ms, key, reference))
