"""The topics of the system: what `drift topics create` makes, and what `drift run` checks and never alters.

An expectation that exactly-once or a restore depends on is a fault (exit 3); the others are warnings. Every one names
topic, key, value found, value expected, and how to mend it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not listed in its __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from msgspec import Struct

from stream.wire.record import Role
from stream.worker import clients
from stream.worker.settings import Settings

DAY_MS: Final = 86_400_000
ASK_SECONDS: Final = 15.0
DEFAULT_PARTITIONS: Final = 12
REPLICAS_SAFE: Final = 3
"""From here on a broker can go away without writes having to stop."""
SNAPSHOTS_IN_LOG: Final = 10
"""The log of drift.profiles must reach back over this many snapshot intervals."""

Level = Literal["fault", "warning"]


class TopicSpec(Struct, frozen=True):
    """One topic as it is made."""

    name: str
    role: Role
    partitions: int
    config: dict[str, str]


class Finding(Struct, frozen=True):
    """What a check found wrong."""

    level: Level
    topic: str
    key: str
    found: str
    expected: str
    mend: str

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.topic}: {self.key} is {self.found}, expected {self.expected}; {self.mend}"


COMMON: Final = {"unclean.leader.election.enable": "false"}
APPENDED: Final = {"message.timestamp.type": "LogAppendTime"}
"""With event times a broker would delete a backfill before it was read."""
CONFIGS: Final[dict[Role, dict[str, str]]] = {
    "pairs": {"cleanup.policy": "delete", **APPENDED},
    "profiles": {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS), **APPENDED},
    "references": {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(8 * DAY_MS),
        "max.message.bytes": "8388608",
        **APPENDED,
    },
    "control": {"cleanup.policy": "delete", "retention.ms": str(90 * DAY_MS), **APPENDED},
    "snapshots": {
        "cleanup.policy": "compact",
        "segment.bytes": str(64 * 1024 * 1024),
        "segment.ms": "600000",
        "min.cleanable.dirty.ratio": "0.1",
        "max.compaction.lag.ms": "3600000",
        "delete.retention.ms": "3600000",
        **APPENDED,
    },
    "alerts": {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS), "message.timestamp.type": "CreateTime"},
    "windows": {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS), "message.timestamp.type": "CreateTime"},
    "dead_letters": {
        "cleanup.policy": "delete",
        "retention.ms": str(14 * DAY_MS),
        "message.timestamp.type": "CreateTime",
    },
}
"""Also told to keep them: references outlive the profiles that name them, so that a replay finds their content."""

ALONE: Final[tuple[Role, ...]] = ("references", "control")
"""One partition: an offset names a view, and decisions have an order."""

FAULTS: Final = frozenset({"cleanup.policy", "message.timestamp.type", "max.message.bytes", "partitions"})
AT_LEAST: Final = frozenset({"retention.ms", "max.message.bytes", "min.compaction.lag.ms", "delete.retention.ms"})


def specs(settings: Settings, *, partitions: int = DEFAULT_PARTITIONS, replication: int = 3) -> list[TopicSpec]:
    """All topics of ours; that of pairs only where there is feedback.

    `min.insync.replicas` is 2 where there are at least three replicas.
    """
    in_sync = {"min.insync.replicas": "2" if replication >= REPLICAS_SAFE else "1"}
    kept = {"pairs": {"retention.ms": str(_pairs_needed_ms(settings) + DAY_MS)}}
    return [
        TopicSpec(
            settings.topics.of(role),
            role,
            1 if role in ALONE else partitions,
            COMMON | in_sync | config | kept.get(role, {}),
        )
        for role, config in CONFIGS.items()
        if role != "pairs" or settings.topics.feedback
    ]


def _pairs_needed_ms(settings: Settings) -> int:
    """How far back the log of pairs is the state of join: a label is held until the last prediction it met leaves."""
    return 2 * settings.horizon_ms + settings.lateness_ms


def inputs_of(settings: Settings) -> list[str]:
    """The topics that are the user's own."""
    return [*settings.topics.predictions, *settings.topics.feedback]


def create(
    settings: Settings,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    replication: int = 3,
    inputs: int | None = None,
    dry_run: bool = False,
) -> dict[str, str]:
    """Make what is missing: topic to "created", "exists" or the broker's refusal. Twice is harmless.

    `inputs` partitions for topics of predictions and feedback; None leaves those alone.
    """
    wanted = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=replication, config=spec.config)
        for spec in specs(settings, partitions=partitions, replication=replication)
    ]
    if inputs is not None:
        names = inputs_of(settings)
        wanted += [NewTopic(name, num_partitions=inputs, replication_factor=replication) for name in names]
    client = admin(settings)  # held: its answers die with it
    asked = client.create_topics(wanted, request_timeout=ASK_SECONDS, validate_only=dry_run)
    made = {name: _made(answer) for name, answer in asked.items()}
    if not dry_run:
        _wait_for(client, {name for name, answer in made.items() if answer == "created"})
    return made


def _wait_for(client: AdminClient, names: set[str]) -> None:
    """Until the broker that is asked has heard of what another one made: whoever checks next must not miss a topic."""
    deadline = time.monotonic() + ASK_SECONDS
    while not names <= client.list_topics(timeout=ASK_SECONDS).topics.keys() and time.monotonic() < deadline:
        time.sleep(0.1)


def _made(answer: Any) -> str:
    try:
        answer.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return "exists"
        return f"{error.args[0].name()}: {error.args[0].str()}"
    return "created"


def check(settings: Settings) -> list[Finding]:
    """What is wrong with the topics; faults keep a worker from starting.

    Raises KafkaException if the broker does not answer.
    """
    client = admin(settings)
    counts = {
        name: len(topic.partitions)
        for name, topic in client.list_topics(timeout=ASK_SECONDS).topics.items()
        if topic.error is None
    }
    findings = _missing(settings, counts)
    if findings:
        return findings
    ours = specs(settings)
    configs = _configs(client, [spec.name for spec in ours] + inputs_of(settings))
    findings = _partitions(settings, counts)
    for spec in ours:
        findings += _compare(spec, configs.get(spec.name, {}), settings)
    for name in inputs_of(settings):
        findings += _input(name, configs.get(name, {}))
    return findings


def _missing(settings: Settings, counts: Mapping[str, int]) -> list[Finding]:
    names = [spec.name for spec in specs(settings)] + inputs_of(settings)
    return [
        Finding("fault", name, "topic", "missing", "there", "run `drift topics create` (inputs: with --inputs)")
        for name in names
        if name not in counts
    ]


def _partitions(settings: Settings, counts: Mapping[str, int]) -> list[Finding]:
    profiles = counts[settings.topics.of("profiles")]
    expected = {settings.topics.of(role): 1 for role in ALONE} | {settings.topics.of("snapshots"): profiles}
    return [
        Finding("fault", name, "partitions", str(counts[name]), str(count), "delete the topic and create it again")
        for name, count in expected.items()
        if counts[name] != count
    ]


def _compare(spec: TopicSpec, found: Mapping[str, str], settings: Settings) -> list[Finding]:
    expected = dict(spec.config)
    expected.setdefault("max.message.bytes", "1000000")
    findings = []
    del expected["min.insync.replicas"]  # follows the replication, which is the cluster's size
    for key, value in expected.items():
        if key in found and not _is_enough(key, found[key], value):
            findings.append(
                Finding(_level(spec, key, found[key], settings), spec.name, key, found[key], value, _alter(key, value))
            )
    return findings


def _level(spec: TopicSpec, key: str, found: str, settings: Settings) -> Level:
    if spec.role in {"pairs", "profiles"} and key == "retention.ms":
        least = max(DAY_MS, SNAPSHOTS_IN_LOG * settings.service.snapshot_interval)
        if spec.role == "pairs":
            least = _pairs_needed_ms(settings)
        return "fault" if not _is_enough(key, found, str(least)) else "warning"
    return "fault" if key in FAULTS else "warning"


def _input(name: str, found: Mapping[str, str]) -> list[Finding]:
    """Input topics are the user's; all we ask is that the broker keeps time from running ahead."""
    key, limit = "message.timestamp.after.max.ms", DAY_MS
    bounded = found.get("message.timestamp.type") == "LogAppendTime" or int(found.get(key, limit)) <= limit
    return [] if bounded else [Finding("warning", name, key, found[key], "3600000", _alter(key, "3600000"))]


def _is_enough(key: str, found: str, expected: str) -> bool:
    if key in AT_LEAST:
        return int(found) == -1 or int(found) >= int(expected)
    return found == expected


def _alter(key: str, value: str) -> str:
    return f"set it: kafka-configs.sh --alter --entity-type topics --add-config {key}={value}"


def _configs(client: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    asked = client.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=ASK_SECONDS
    )
    found: dict[str, dict[str, str]] = {}
    for resource, answer in asked.items():
        try:
            found[resource.name] = {key: entry.value for key, entry in answer.result().items()}
        except KafkaException as error:
            clients.raise_if_denied(error.args[0], f"describe the configuration of {resource.name}")
            raise
    return found


def admin(settings: Settings, errors: Callable[[KafkaError], None] | None = None) -> AdminClient:
    """A client for questions."""
    quiet: Callable[[KafkaError], None] = errors or (lambda _error: None)
    return AdminClient(
        clients.common(settings, "admin") | {"error_cb": quiet},
        logger=clients.ClientLog(lambda *_args, **_fields: None),
    )
