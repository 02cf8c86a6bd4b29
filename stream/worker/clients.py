"""The properties of every Kafka client of a worker, and the order in which an error of one is judged.

Each property stands in `reliability.md` 2 with its reason; what a person adds in `[kafka.properties]` goes underneath.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError

from stream.worker.ends import EXIT_ACCESS, EXIT_RESTART, Aborted, Stopped
from stream.worker.settings import Settings

TRANSACTION_SECONDS: Final = 15
PATIENCE_SECONDS: Final = 30.0
"""For init_transactions; without a limit it hangs for ever on a wrong password."""

COMMON: Final[dict[str, Any]] = {
    "metadata.recovery.strategy": "none",
    "message.max.bytes": 8_388_608,
    "log.connection.close": True,
}
PRODUCER: Final[dict[str, Any]] = {
    "transaction.timeout.ms": TRANSACTION_SECONDS * 1_000,
    "queue.buffering.max.kbytes": 65_536,
    "linger.ms": 10,
    "compression.type": "lz4",
}
CONSUMER: Final[dict[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "max.poll.interval.ms": 120_000,
    "enable.partition.eof": True,
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 32_768,
    "fetch.message.max.bytes": 262_144,
    "fetch.max.bytes": 8_388_608,
    "fetch.queue.backoff.ms": 50,
    # A partition that resumes has to wait for a fetch that is already waiting for others: 500 by default.
    "fetch.wait.max.ms": 100,
    "allow.auto.create.topics": False,
    "check.crcs": True,
}
CLASSIC: Final[dict[str, Any]] = {
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 3_000,
}
KIP_848: Final[dict[str, Any]] = {"group.protocol": "consumer", "group.remote.assignor": "uniform"}
MOCK: Final[dict[str, Any]] = {"check.crcs": False, "allow.auto.create.topics": True}
"""librdkafka's own broker writes control batches whose checksum its own consumer refuses, and makes topics on use."""

SIZES: Final = frozenset(
    [
        "message.max.bytes",
        "queue.buffering.max.kbytes",
        "queued.min.messages",
        "queued.max.messages.kbytes",
        "fetch.message.max.bytes",
        "fetch.max.bytes",
        "linger.ms",
        "compression.type",
    ]
)
"""Of the properties above, those a person may set."""


def common(settings: Settings, slot: str) -> dict[str, Any]:
    """What all clients share."""
    given = settings.kafka.properties
    return {
        **{name: value for name, value in given.items() if name not in PRODUCER and name not in CONSUMER},
        **COMMON,
        **_set(COMMON, settings),
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "client.id": f"{settings.service.id}.{slot}",
    }


def producer(settings: Settings, slot: str) -> dict[str, Any]:
    """Of the transactional producer."""
    own = {**PRODUCER, **_set(PRODUCER, settings), "transactional.id": f"{settings.service.id}.{slot}"}
    return common(settings, slot) | own


def consumer(settings: Settings, slot: str, *, mock: bool) -> dict[str, Any]:
    """Of the member of the group."""
    protocol = CLASSIC if settings.kafka.group_protocol == "classic" else KIP_848
    return reader(settings, slot, mock=mock) | protocol | {"statistics.interval.ms": 5_000}


def reader(settings: Settings, slot: str, *, mock: bool) -> dict[str, Any]:
    """Of the reader of references and snapshots: the same id, because access is granted to that id, and no member."""
    own = {
        **CONSUMER,
        **_set(CONSUMER, settings),
        "group.id": settings.service.id,
        **(MOCK if mock else {}),
    }
    return common(settings, slot) | own


def _set(ours: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Sizes among ours that were given another value."""
    given = settings.kafka.properties
    return {name: given[name] for name in ours if name in SIZES and name in given}


def judge(error: KafkaError, during: str) -> None:
    """The meaning of an error of a transactional call, in this order. Returning means: the same call again.

    An authorization error first: it is fatal or abortable besides, and neither would tell what to mend.
    """
    raise_if_denied(error, during)
    if error.fatal():
        raise Stopped(EXIT_RESTART, "fenced" if error.name() == "_FENCED" else "fatal", f"{during}: {error.str()}")
    if error.code() == KafkaError._TIMED_OUT:  # noqa: SLF001 - librdkafka's own name
        # Whether it happened is unknown, and a late EndTxn may still hit the next transaction: only a new epoch
        # is safe.
        raise Stopped(EXIT_RESTART, "unknown_outcome", f"{during}: {error.str()}")
    if error.txn_requires_abort():
        raise Aborted(f"{during}: {error.name()}")
    if not error.retriable():
        raise Stopped(EXIT_RESTART, "transaction", f"{during}: {error.name()} {error.str()}")


def raise_if_denied(error: KafkaError, during: str) -> None:
    """Exit 4 on a missing right."""
    if error.name().endswith("_AUTHORIZATION_FAILED"):
        raise Stopped(EXIT_ACCESS, error.name().lower(), f"{during}: {error.str()}")


class ClientLog:
    """A logger for librdkafka: its warnings become lines of our log instead of text of its own on stderr."""

    WARNING: Final = 30

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say

    def log(self, level: int, _form: str, facility: str = "", client: str = "", text: str = "", *_rest: Any) -> None:
        """One line."""
        if level >= self.WARNING:
            self._say("client", code=facility, client=client, detail=text)


class CoordinatorWatch(ClientLog):
    """Notices besides when the connection to the transaction coordinator broke or a request to it timed out.

    librdkafka repeats an EndTxn silently then, and the first copy may be still on its way (KIP-890 is not in it).
    """

    SUSPICIOUS: Final = ("FAIL", "REQTMOUT")

    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__(say)
        self.tainted = False

    def log(self, level: int, form: str, facility: str = "", client: str = "", text: str = "", *rest: Any) -> None:
        """One line."""
        super().log(level, form, facility, client, text, *rest)
        if facility in self.SUSPICIOUS and "TxnCoordinator" in text:
            self.tainted = True


class Errors:
    """What `error_cb` heard: counted, and whether the broker keeps refusing who we are."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.refusals = 0
        self.last_refusal = ""

    def __call__(self, error: KafkaError) -> None:
        """Called by the client inside a poll."""
        name = error.name()
        self.counts[name] += 1
        text = error.str()
        if name in {"_AUTHENTICATION", "_SSL"} or (name == "_TRANSPORT" and "SSL" in text):
            self.refusals += 1
            self.last_refusal = text

    def healthy(self) -> None:
        """Something worked: what was refused before is over."""
        self.refusals = 0
