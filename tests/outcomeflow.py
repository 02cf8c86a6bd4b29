"""Detect alone on windows of outcomes, as join would send them.

flow = Outcomed(references=heard(reference(Labelled())))
flow.run(Labelled(seed=2, changes={40: Law(relation=-1.0)}), 80)
flow.alerts, flow.reading("outcome:error")
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson
from labelled import MINUTE_MS, START_MS, Labelled

from stream.alerts.evidence import Sender
from stream.profiles import outcome_learning, outcomes
from stream.profiles.reference import References, reference_key
from stream.stages import detect
from stream.wire import codec
from stream.wire.internal import OUTCOMES, WATERMARKS, Outcomes, Reference, SourceMark, Watermarks
from stream.wire.record import Outgoing, Record

Json: TypeAlias = dict[str, Any]

INPUTS = ("predictions",)
TOPICS = ("feedback", "drift.pairs")
HOUR_MS = 60 * MINUTE_MS


def reference(stream: Labelled, windows: int = 120, *, serving: bool = True) -> Reference:
    """What was normal before `START_MS`: the stream's own windows, as a log of serving."""
    return outcome_learning.built(
        stream.windows(windows),
        serving=serving,
        size_ms=stream.size_ms,
        effective_from_ms=START_MS,
        data_ms=(START_MS - windows * stream.size_ms, START_MS - 1),
    )


def heard(*references: Reference) -> References:
    """The view that has heard of some references."""
    records = [
        Record("drift.references", 0, offset, 0, reference_key(one), codec.encode_reference(one))
        for offset, one in enumerate(references)
    ]
    return References.empty().apply_all(records)


def settings(**changes: Any) -> detect.Settings:
    """Those of the product, with feedback."""
    base = {"sender": Sender("test", "0.1.0", "0" * 16), "topics": INPUTS, "outcome_topics": TOPICS}
    return detect.Settings(**{**base, **changes})


@dataclass
class Outcomed:
    """One partition of drift.profiles."""

    references: References = field(default_factory=References.empty)
    of_detect: detect.Settings = field(default_factory=settings)

    def __post_init__(self) -> None:
        self.state = detect.start(self.of_detect)
        self.offset = 0
        self.published: list[Outgoing] = []

    def run(self, stream: Labelled, windows: int, first: int = 0) -> "Outcomed":
        """Windows of a stream, one transaction each."""
        for index in range(first, first + windows):
            self.send([stream.window(index)], stream.at(index) + stream.size_ms)
        return self

    def send(self, parts: Iterable[Outcomes], watermark_ms: int, inputs_ms: int | None = None) -> list[Outgoing]:
        """Outcomes, then the watermarks of everything."""
        records = [codec.encode(part, OUTCOMES) for one in parts for part in outcomes.split(one) if one.segments]
        times = [(topic, inputs_ms if topic in INPUTS and inputs_ms else watermark_ms) for topic in (*INPUTS, *TOPICS)]
        marks = Watermarks(
            [SourceMark(topic, 0, 0, time_ms) for topic, time_ms in times],
            dict.fromkeys([*INPUTS, *TOPICS], 1),
            self.references.offset,
        )
        return self.step([*records, codec.encode(marks, WATERMARKS)])

    def step(self, values: Sequence[bytes]) -> list[Outgoing]:
        """Any records."""
        told = []
        for value in values:
            record = Record("drift.profiles", 0, self.offset, 0, None, value)
            self.offset += 1
            assert detect.waits_for(self.references, record) is None
            self.state, records = detect.step(self.of_detect, self.references, self.state, [record])
            told += records
        self.published += told
        for one in told:
            if one.role == "references":
                at = self.references.offset
                self.references = self.references.apply(Record("drift.references", 0, at, 0, one.key, one.value))
        return told

    def of(self, role: str) -> list[Outgoing]:
        """What was published for one topic."""
        return [record for record in self.published if record.role == role]

    @property
    def alerts(self) -> list[Json]:
        """`data` of all alert events."""
        return [orjson.loads(record.value or b"")["data"] for record in self.of("alerts")]

    def firing(self, kind: str, segment: str = "all") -> list[Json]:
        """First events of episodes."""
        return [
            one
            for one in self.alerts
            if (one["kind"], one["segment"], one["status"], one["sequence"]) == (kind, segment, "firing", 0)
        ]

    def readings(self) -> list[Json]:
        """All readings."""
        return [orjson.loads(record.value or b"") for record in self.of("windows")]

    def reading(self, signal: str, segment: str = "all") -> list[Json]:
        """The readings of one signal, one per window."""
        return [one for one in self.readings() if (one["signal"], one["segment"]) == (signal, segment)]


def window_of(time: str) -> int:
    """The window that ends at a time."""
    return ((codec.parse_time(time) or 0) - START_MS) // MINUTE_MS - 1
