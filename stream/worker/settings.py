"""Sections of the configuration that concern the engine room: service, kafka, topics, http, log, metrics."""

import re
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, field_validator

from stream.wire.durations import Duration
from stream.wire.record import Role

NAME: Final = r"^[a-zA-Z0-9._-]{1,128}$"
"""What Kafka allows in the name of a topic."""

OURS: Final = frozenset(
    [
        "transactional.id",
        "transaction.timeout.ms",
        "metadata.recovery.strategy",
        "group.id",
        "client.id",
        "isolation.level",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "partition.assignment.strategy",
        "group.protocol",
        "group.remote.assignor",
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "enable.partition.eof",
        "fetch.queue.backoff.ms",
        "allow.auto.create.topics",
        "check.crcs",
        "bootstrap.servers",
        "acks",
        "enable.idempotence",
        "message.timeout.ms",
        "group.instance.id",
    ]
)
"""Properties that exactly-once depends on: they cannot be set from outside."""


class _Section(BaseModel, frozen=True, extra="forbid"):
    """Frozen, and an unknown key is an error."""


class Service(_Section, frozen=True):
    """Section `[service]`."""

    id: str = Field(default="drift", pattern=NAME)
    """Names the consumer group, the transactional ids and the source of events."""
    snapshot_interval: Duration = 60_000
    """How often a detect task writes its state; a restart replays at most this much, and what came meanwhile."""


class Topics(_Section, frozen=True):
    """Section `[topics]`: names, no patterns, because a window waits for all partitions of its inputs."""

    predictions: list[str] = Field(default=["predictions"], min_length=1)
    feedback: list[str] = ["feedback"]
    alerts: str = Field(default="alerts", pattern=NAME)
    prefix: str = Field(default="drift.", pattern=r"^[a-zA-Z0-9._-]{0,64}$")

    @field_validator("predictions", "feedback")
    @classmethod
    def _names_of_topics(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.match(NAME, name):
                raise ValueError(f"{name!r} is no name of a topic: letters, digits, '.', '_' and '-' only")
        if len(set(names)) != len(names):
            raise ValueError("a topic is named twice")
        return names

    def of(self, role: Role) -> str:
        """The topic of a role."""
        return self.alerts if role == "alerts" else self.prefix + role.replace("_", "-")


class Kafka(_Section, frozen=True):
    """Section `[kafka]`."""

    bootstrap_servers: str = ""
    """Required by every command that connects."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """`consumer` is KIP-848, for brokers from 4.0 on."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a first start begins to read the inputs."""
    commit_interval: Duration = Field(default=500, ge=10, le=5_000)
    """A transaction ends after this time: the delay of an alert against the cost of a commit (10 ms)."""
    commit_records: int = Field(default=50_000, ge=1, le=1_000_000)
    """... or after this many records."""
    properties: dict[str, Any] = {}
    """Passed to librdkafka; nested tables become dotted names."""

    @field_validator("properties")
    @classmethod
    def _properties_are_free(cls, properties: dict[str, Any]) -> dict[str, Any]:
        flat = flattened(properties)
        if taken := sorted(OURS & flat.keys()):
            raise ValueError(f"{', '.join(taken)}: exactly-once depends on it, it cannot be set")
        return flat


class Http(_Section, frozen=True):
    """Section `[http]`: metrics and health."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    """0: any free port."""


class Log(_Section, frozen=True):
    """Section `[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: json unless on a terminal."""


class Metrics(_Section, frozen=True):
    """Section `[metrics]`: how many label values from data are told apart."""

    models: int = Field(default=200, ge=0)
    signal_series: int = Field(default=0, ge=0, le=10_000)
    """Signals that have a series of their own, those with most evidence; a fleet has many: none."""


def flattened(properties: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names: `{"sasl": {"username": "drift"}}` becomes `{"sasl.username": "drift"}`."""
    flat: dict[str, Any] = {}
    for name, value in properties.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


class Settings(_Section, frozen=True):
    """What the worker needs of the whole configuration."""

    service: Service = Service()
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    http: Http = Http()
    log: Log = Log()
    metrics: Metrics = Metrics()
    lateness_ms: int = 30_000
    """`windows.lateness`."""
    idle_after_ms: int = 30_000
    """`windows.idle_after`; 0: an idle partition neither ticks nor follows."""
    horizon_ms: int = 604_800_000
    """`feedback.horizon`: how long the log of pairs is needed."""
    max_future_ms: int = 300_000
    """`windows.max_future`."""
    dead_letter_ratio: float = 0.5
    """`limits.dead_letter_ratio`."""
