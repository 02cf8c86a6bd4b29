"""Small streams, and both stages led by hand: what a worker does, without a worker.

    flow = Flow(view(reference))
    flow.read(Stream(drift_at=3_000).records(6_000))
    flow.commit()
    flow.alerts, flow.readings

A stream has eight signals (amount, ratio, channel, returning, score, label, latency and the distance of the row), one
tag with two values, and a row every 200 ms: 300 in a window of a minute.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import msgspec
import numpy as np
import orjson

from stream.alerts.evidence import Sender
from stream.cli.binding import outcome_topics
from stream.profiles.building import build
from stream.profiles.cuts import Declared, Plan, Row
from stream.profiles.reference import References, reference_key
from stream.profiles.windows import Settings as WindowSettings
from stream.stages import detect, ingest, join
from stream.wire import codec, control
from stream.wire.control import ControlEvent, Decision
from stream.wire.internal import WATERMARKS, Reference, SourceMark, Watermarks
from stream.wire.record import Batch, Outgoing, Record
from stream.worker.settings import Settings
from stream.worker.stages import Stages

Json: TypeAlias = dict[str, Any]

START_MS = 1_795_219_200_000
"""2026-11-21T00:00:00Z"""
MINUTE_MS = 60_000
STEP_MS = 200
PER_WINDOW = MINUTE_MS // STEP_MS
CHANNELS = ("web", "app", "branch")
COUNTRIES = ("AT", "DE")
SEGMENTS = ("all", "country=AT", "country=DE", "country=other")
_BLOCK = 1024


@dataclass(frozen=True)
class Stream:
    """One model version and its traffic, in order of time; row i is the same in every call."""

    seed: int = 1
    model_id: str = "credit"
    model_version: str = "3"
    start_ms: int = START_MS
    step_ms: int = STEP_MS
    drift_at: int | None = None
    """First row of the new law: amount and channel move."""
    back_at: int | None = None
    """First row of the old law again."""
    shift: float = 1.5
    prefix: str = "p"

    def rows(self, n: int, first: int = 0) -> list[Json]:
        """Rows first .. first + n - 1 as native JSON."""
        blocks = range(first // _BLOCK, (first + n + _BLOCK - 1) // _BLOCK)
        draws = np.concatenate(
            [np.random.default_rng([self.seed, block]).standard_normal((_BLOCK, 8)) for block in blocks]
        )[first - blocks.start * _BLOCK :][:n]
        at = np.arange(first, first + n)
        moved = np.zeros(n)
        if self.drift_at is not None:
            moved[(at >= self.drift_at) & (at < (self.back_at or first + n))] = self.shift
        draws[:, 0] += moved
        draws[:, 2] += moved
        return [self._row(row, values) for row, values in zip(at.tolist(), draws.tolist(), strict=True)]

    def records(self, n: int, first: int = 0) -> list[bytes]:
        """The same rows as bytes."""
        return [orjson.dumps(row) for row in self.rows(n, first)]

    def training(self, n: int) -> list[Row]:
        """The same rows as references are built from."""
        return [
            Row(
                prediction_id=row["prediction_id"],
                time_ms=row["timestamp"],
                features=row["features"],
                label=row["prediction"]["label"],
                score=row["prediction"]["score"],
                latency_ms=row["latency_ms"],
                tags=row["tags"],
            )
            for row in self.rows(n)
        ]

    def _row(self, row: int, draws: Sequence[float]) -> Json:
        amount, ratio, channel, returning, noise, latency, tag, absent = draws
        score = 1 / (1 + np.exp(-0.8 * ratio - 0.5 * noise))
        return {
            "prediction_id": f"{self.prefix}-{self.seed}-{row}",
            "model_id": self.model_id,
            "model_version": self.model_version,
            "timestamp": self.start_ms + row * self.step_ms,
            "features": {
                "amount": None if absent < -2.3 else round(float(np.exp(4 + 0.5 * amount)), 2),
                "ratio": round(0.3 + 0.1 * ratio + 0.05 * amount, 9),
                "channel": CHANNELS[0 if channel < 0 else 1 if channel < 1.2 else 2],
                "returning": returning > 0.3,
            },
            "prediction": {"label": "approve" if score >= 0.5 else "deny", "score": round(float(score), 6)},
            "tags": {"country": COUNTRIES[tag > 0.4]},
            "latency_ms": round(float(np.exp(2.5 + 0.4 * latency)), 3),
        }


DECLARED = Declared(segments=("country",))


def built(
    stream: Stream | None = None, rows: int = 24_000, *, serving: bool = True, effective_from_ms: int = START_MS
) -> Reference:
    """A reference of the rows that a stream like this one had before `START_MS`."""
    before = stream or Stream(seed=99)
    before = replace(before, start_ms=before.start_ms - rows * before.step_ms, prefix="t")
    plan = Plan(before.model_id, before.model_version, MINUTE_MS, DECLARED)
    return build(before.training(rows), plan, serving=serving, effective_from_ms=effective_from_ms)


def published(reference: Reference) -> Outgoing:
    """The record of a reference."""
    return Outgoing("references", reference_key(reference), codec.encode_reference(reference))


def view(*references: Reference) -> References:
    """The view that has heard of some references."""
    found = References.empty()
    for offset, reference in enumerate(references):
        record = published(reference)
        found = found.apply(Record("drift.references", 0, offset, 0, record.key, record.value))
    return found


def detect_settings(**changes: Any) -> detect.Settings:
    """Those of the product, with the segments of the streams."""
    base = {"sender": Sender("test", "0.1.0", "0" * 16), "declared": {"credit": DECLARED, "other": DECLARED}}
    return detect.Settings(**{**base, **changes})


def stages(
    of_ingest: ingest.Settings | None = None,
    of_detect: detect.Settings | None = None,
    of_join: join.Settings | None = None,
) -> Stages:
    """All stages as a worker is given them."""
    one, other, pairs = of_ingest or ingest.Settings(), of_detect or detect_settings(), of_join or join.Settings()
    return Stages(
        config_id="0" * 16,
        references=References.empty,
        ingest_start=ingest.start,
        ingest_step=lambda references, state, batch: ingest.step(one, references, state, batch),
        ingest_tick=lambda state, time_ms: ingest.tick(one, state, time_ms),
        ingest_flush=lambda references, states, partitions: ingest.flush(one, references, states, partitions),
        ingest_pending=ingest.pending,
        join_start=lambda halvings, committed: join.start(pairs, halvings, committed),
        join_step=lambda state, records: join.step(pairs, state, records),
        join_watermark=join.watermark,
        join_oldest=join.oldest,
        join_halvings=join.halvings,
        join_waiting=join.waiting,
        join_digest=join.digest,
        detect_start=lambda: detect.start(other),
        detect_waits_for=detect.waits_for,
        detect_step=lambda references, state, records: detect.step(other, references, state, records),
        detect_encode=detect.encode,
        detect_decode=detect.decode,
        detect_digest=detect.digest,
        detect_overview=lambda references, state, before, signals: detect.overview(
            other, references, state, before, signals
        ),
    )


def stages_of(settings: Settings) -> Stages:
    """As a worker is given them, reading its topics."""
    topics, predictions = settings.topics, tuple(settings.topics.predictions)
    return stages(
        ingest.Settings(feedback=tuple(topics.feedback), control=topics.of("control")),
        detect_settings(topics=predictions, outcome_topics=outcome_topics(topics)),
        join.Settings(topics=(*predictions, *topics.feedback)),
    )


@dataclass
class Flow:
    """Both stages on one partition of drift.profiles, fed by hand. A commit is what a transaction would be."""

    references: References = field(default_factory=References.empty)
    partitions: int = 1
    of_ingest: ingest.Settings = field(default_factory=ingest.Settings)
    of_detect: detect.Settings = field(default_factory=detect_settings)
    hears: bool = True
    """Whether learned references are heard at once."""

    def __post_init__(self) -> None:
        self.inputs = {("predictions", number): ingest.start(None) for number in range(self.partitions)}
        self.next_offsets = dict.fromkeys(self.inputs, 0)
        self.state = detect.start(self.of_detect)
        self.log: list[Record] = []
        """drift.profiles"""
        self.published: list[Outgoing] = []
        self.counts: dict[str, int] = {}
        self._ticked: set[tuple[str, int]] = set()

    def read(self, values: Sequence[bytes | None], partition: int = 0, timestamp_ms: int = START_MS * 2) -> None:
        """One poll of one partition."""
        where = ("predictions", partition)
        batch = batch_of(values, partition, self.next_offsets[where], timestamp_ms)
        self.inputs[where], outputs = ingest.step(self.of_ingest, self.references, self.inputs[where], batch)
        self.next_offsets[where] += len(values)
        self.published += outputs.records
        for outcome, count in outputs.counts.items():
            self.counts[outcome] = self.counts.get(outcome, 0) + count

    def tick(self, time_ms: int, partition: int = 0) -> None:
        """An idle partition speaks."""
        where = ("predictions", partition)
        self.inputs[where] = ingest.tick(self.of_ingest, self.inputs[where], time_ms)
        self._ticked.add(where)

    def commit(self, change: Callable[[detect.State], detect.State] = lambda state: state) -> list[Outgoing]:
        """End a transaction and let detect read it, one record at a time; `change` is done to its state before each."""
        self.inputs, outgoing = ingest.flush(self.of_ingest, self.references, self.inputs)
        sources = [
            SourceMark(*where, self.next_offsets[where], state.watermark_ms, tick=where in self._ticked)
            for where, state in self.inputs.items()
        ]
        self._ticked = set()
        marks = Watermarks(sources, {"predictions": self.partitions}, self.references.offset)
        outgoing.append(Outgoing("profiles", None, codec.encode(marks, WATERMARKS)))
        return self._told(outgoing, change)

    def decide(self, *decisions: Decision, source: str = "test") -> list[Outgoing]:
        """Control events, each in a transaction of its own; the id of an event is its place."""
        told = []
        for decision in decisions:
            event = ControlEvent(source, str(len(self.log)), decision)
            batch = replace_topic(batch_of([control.cloud_event(event, START_MS)]), self.of_ingest.control)
            _, outputs = ingest.step(self.of_ingest, self.references, ingest.start(None), batch)
            told += self._told(outputs.records)
        return told

    def _told(
        self, outgoing: Iterable[Outgoing], change: Callable[[detect.State], detect.State] = lambda state: state
    ) -> list[Outgoing]:
        """What detect says to some records of drift.profiles."""
        told: list[Outgoing] = []
        for one in outgoing:
            record = Record("drift.profiles", 0, len(self.log), 0, one.key, one.value, one.headers)
            self.log.append(record)
            assert detect.waits_for(self.references, record) is None
            self.state, records = detect.step(self.of_detect, self.references, change(self.state), [record])
            told += records
        self.published += told
        self.hear(told if self.hears else ())
        return told

    def hear(self, records: Iterable[Outgoing]) -> None:
        """References among some records come to everybody's ears."""
        for record in records:
            if record.role == "references":
                at = self.references.offset
                self.references = self.references.apply(
                    Record("drift.references", 0, at, 0, record.key, record.value, record.headers)
                )

    def run(self, values: Sequence[bytes], poll: int = 1_000, commit: int = 1) -> "Flow":
        """Deal records to the partitions in turn, `poll` of each at a time, a commit after every `commit` polls."""
        dealt = [values[partition :: self.partitions] for partition in range(self.partitions)]
        for turn, first in enumerate(range(0, len(dealt[0]), poll), start=1):
            for partition, own in enumerate(dealt):
                self.read(own[first : first + poll], partition)
            if turn % commit == 0:
                self.commit()
        self.commit()
        return self

    def of(self, role: str) -> list[Outgoing]:
        """What was published for one topic."""
        return [record for record in self.published if record.role == role]

    @property
    def alerts(self) -> list[Json]:
        """`data` of all alert events."""
        return [orjson.loads(record.value or b"")["data"] for record in self.of("alerts")]

    @property
    def readings(self) -> list[Json]:
        """All readings."""
        return [orjson.loads(record.value or b"") for record in self.of("windows")]

    def reading(self, signal: str = "feature:amount", segment: str = "all") -> list[Json]:
        """The readings of one signal, one per window."""
        return [one for one in self.readings if (one["signal"], one["segment"]) == (signal, segment)]


def batch_of(
    values: Sequence[bytes | None],
    partition: int = 0,
    first_offset: int = 0,
    timestamp_ms: int = START_MS * 2,
    headers: Mapping[int, Any] | None = None,
) -> Batch:
    """Values as consecutive records of one partition."""
    n = len(values)
    return Batch(
        "predictions",
        partition,
        list(range(first_offset, first_offset + n)),
        [timestamp_ms] * n,
        [None] * n,
        list(values),
        [(headers or {}).get(row) for row in range(n)],
    )


def replace_topic(batch: Batch, topic: str) -> Batch:
    """The same records in another topic."""
    return msgspec.structs.replace(batch, topic=topic)


def window(index: int) -> str:
    """The start of the window `index` after `START_MS`, as it is published."""
    return codec.rfc3339(START_MS + index * MINUTE_MS)


def moved(row: Json, by_ms: int) -> bytes:
    """A row at another time."""
    return orjson.dumps({**row, "timestamp": row["timestamp"] + by_ms})


def windows(**texts: str) -> WindowSettings:
    """Settings of windows from texts."""
    return WindowSettings.model_validate(texts)


def same(state: detect.State, other: detect.State) -> bool:
    """Whether two states are equal to the bit."""
    return detect.encode(state) == detect.encode(other)


def without_offsets(value: bytes) -> bytes:
    """An alert's bytes without the one field that depends on partitioning."""
    event = orjson.loads(value)
    if "data" in event:
        event["data"].pop("evidence_offsets")
    return msgspec.json.encode(event)
