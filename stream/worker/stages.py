"""The stages as the worker sees them: functions with their settings bound, whatever they compute."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from stream.wire.record import Batch, Outgoing, Record
from stream.worker.ends import Partition
from stream.worker.settings import Settings
from stream.worker.task import StageName


class References(Protocol):
    """An immutable view of the references heard so far."""

    @property
    def offset(self) -> int:
        """The next offset of drift.references it has not seen."""

    def apply(self, record: Record) -> "References":
        """The view after one more record."""


class IngestOutputs(Protocol):
    """What ingest says of a batch at once; the rest it keeps until it is flushed."""

    @property
    def records(self) -> Sequence[Outgoing]:
        """Dead letters."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Records by outcome: ok, late, malformed, tombstone."""


class IngestState(Protocol):
    """What the worker reads from the state of an ingest task."""

    @property
    def watermark_ms(self) -> int | None:
        """Largest event time minus lateness."""

    @property
    def newest_ms(self) -> int | None:
        """Largest event time since the task started."""


class JoinOutputs(Protocol):
    """What join says of some records."""

    @property
    def records(self) -> Sequence[Outgoing]:
        """Outcomes."""

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Halves by model and outcome: matched, expired, duplicate, over_limit, unknown."""


class Standing(Protocol):
    """What detect says of one model version, for the metrics."""

    @property
    def firing(self) -> Mapping[tuple[str, str], int]:
        """Open alerts by kind and severity."""

    @property
    def evidence(self) -> Mapping[str, float]:
        """By kind: 0 at rest, 1 at an alarm."""

    @property
    def signals(self) -> Mapping[str, float]:
        """Likewise by signal: those with most of it."""

    @property
    def data_to_ms(self) -> int | None:
        """The newest event behind the reference in force."""

    @property
    def coverage(self) -> float | None:
        """Of outcomes: share of labelled predictions among those whose horizon ended last."""


class Overview(Protocol):
    """What detect says of a task, for the metrics."""

    @property
    def versions(self) -> Mapping[tuple[str, str], Standing]:
        """By model id and version."""

    @property
    def outcomes(self) -> Mapping[tuple[str, str], Standing]:
        """Likewise, what is known of their labels."""

    @property
    def verdicts(self) -> Mapping[tuple[str, str], int]:
        """By detector and level, since the state began."""

    @property
    def suppressed(self) -> int:
        """Alerts and notices that mutes have kept back, since the state began."""

    @property
    def alarms(self) -> int:
        """Episodes above `info` that began in the last `budget.period` of event time."""

    @property
    def share(self) -> float:
        """Model versions over those the budget is cut for."""


class Stages(Struct, frozen=True):
    """The lifts, settings bound. Tests put counting fakes in their place.

    Every function is pure and leaves its arguments valid: an aborted transaction is undone by forgetting its states.
    """

    config_id: str
    """Hash of all settings that can change a result."""
    references: Callable[[], Any]
    """The empty view."""
    ingest_start: Callable[[int | None], Any]
    """watermark -> state"""
    ingest_step: Callable[[Any, Any, Batch], tuple[Any, Any]]
    """references, state, batch -> state, outputs"""
    ingest_tick: Callable[[Any, int], Any]
    """state, time -> state with the watermark at time - lateness or above"""
    ingest_flush: Callable[[Any, Mapping[Partition, Any], int], tuple[Mapping[Partition, Any], Sequence[Outgoing]]]
    """references, states, partitions of drift.pairs (0: no halves) -> the states without anything pending, and what
    was pending as records"""
    ingest_pending: Callable[[Mapping[Partition, Any]], tuple[int, int]]
    """states -> partial profiles and bytes that wait to be flushed"""
    join_start: Callable[[int, int], Any]
    """how often the threshold was halved, offset below which records are replayed -> state"""
    join_step: Callable[[Any, Sequence[Record]], tuple[Any, JoinOutputs]]
    """state, records -> state, outputs"""
    join_watermark: Callable[[Any], int | None]
    """J: the time up to which it has told all outcomes"""
    join_oldest: Callable[[Any], int | None]
    """S: the offset from which a task that starts with nothing comes to the same state; None: where it stands"""
    join_halvings: Callable[[Any], int]
    join_waiting: Callable[[Any], int]
    """Rows that may still meet another"""
    join_digest: Callable[[Any], str]
    detect_start: Callable[[], Any]
    detect_waits_for: Callable[[Any, Record], str | None]
    """references, record -> the reference it needs and the view does not have"""
    detect_step: Callable[[Any, Any, Sequence[Record]], tuple[Any, Sequence[Outgoing]]]
    """references, state, records -> state, outputs"""
    detect_encode: Callable[[Any], bytes]
    detect_decode: Callable[[bytes], Any]
    """bytes -> state | Malformed"""
    detect_digest: Callable[[Any], str]
    detect_overview: Callable[[Any, Any, Any, int], Overview]
    """references, state, the overview of an earlier state of the same task or None, signals per version -> overview"""


def sources_of(settings: Settings) -> list[str]:
    """The topics whose partitions have watermarks: all inputs, and the pairs join makes of them."""
    topics = settings.topics
    return [*topics.predictions, *topics.feedback, *([topics.of("pairs")] if topics.feedback else [])]


def stage_table(settings: Settings) -> dict[str, StageName]:
    """Which stage reads which topic: one row per topic the group subscribes to."""
    stages: dict[str, StageName] = dict.fromkeys(settings.topics.predictions, "ingest")
    if settings.topics.feedback:
        stages |= dict.fromkeys(settings.topics.feedback, "ingest")
        stages[settings.topics.of("pairs")] = "join"
    stages[settings.topics.of("control")] = "ingest"
    stages[settings.topics.of("profiles")] = "detect"
    return stages
