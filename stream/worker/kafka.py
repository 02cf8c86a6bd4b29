"""Source and sink over Kafka: one group member, one transactional producer, one reader, one AdminClient, one thread.

The recipe and its reasons are in `reliability.md` 2 and 3. Three rules carry it: the group's metadata is read at the
moment offsets are sent, so that a worker whose partitions went elsewhere is refused; partitions are assigned paused
at the beginning of their log and moved by seek before they resume; and no producer begins a transaction after one
whose end is in doubt.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import confluent_kafka
import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # not listed in its __all__
from msgspec import Struct

from stream.wire.record import Batch
from stream.worker import clients
from stream.worker.ends import (
    EXIT_ACCESS,
    EXIT_CONFIGURATION,
    EXIT_DECISION,
    EXIT_RESTART,
    Aborted,
    Addressed,
    Committed,
    End,
    Listener,
    OffsetMark,
    Partition,
    Polled,
    Receipt,
    Stopped,
    Unanswered,
)
from stream.worker.settings import Settings
from stream.worker.sink import Sink
from stream.worker.status import Status
from stream.worker.watchdog import Watchdog

Message: TypeAlias = Any
"""Of confluent_kafka, whose annotations promise None in every answer and text where this consumer only gives bytes."""

COMMITTED_SECONDS: Final = 0.2
BOUNDS_SECONDS: Final = 1.0
DESCRIBE_SECONDS: Final = 5.0
DESCRIBED_FOR_SECONDS: Final = 20.0
SLOT_SECONDS: Final = 25.0
"""Two sessions and five seconds: a member that died while the group was forming is given a whole session by the next
generation before it is known to be gone."""
REFUSED_SECONDS: Final = 30.0
READ_RECORDS: Final = 2_000


class Described(Struct, frozen=True):
    """What the cluster says of a topic."""

    topic_id: str
    partitions: int
    asked_seconds: float


class KafkaEnds:
    """One worker's ends over a Kafka cluster.

    `mock` is for librdkafka's own broker, which serves the demo: its consumer cannot check sums, nobody waits for the
    slot.
    """

    def __init__(  # noqa: PLR0913 - made once
        self,
        settings: Settings,
        slot: str,
        status: Status,
        watchdog: Watchdog | None = None,
        *,
        mock: bool = False,
        say: Callable[..., None] = lambda *_args, **_fields: None,
    ) -> None:
        self._settings = settings
        self._slot = slot
        self._status = status
        self._mock = mock
        self._watchdog = watchdog or Watchdog()
        self._errors = clients.Errors(status.broker_errors)
        self._log = clients.ClientLog(say)
        self._sink = Sink(settings, slot, self._watchdog, self._errors, say)
        self._admin = AdminClient(clients.common(settings, slot) | {"error_cb": self._errors}, logger=self._log)
        self._reader = Consumer(
            clients.reader(settings, slot, mock=mock) | {"error_cb": self._errors}, logger=self._log
        )
        self._consumer: Consumer | None = None
        self._listener: Listener | None = None
        self._described: dict[str, Described] = {}
        self._owned: set[Partition] = set()
        self._running: set[Partition] = set()
        self._resumes: dict[Partition, int] = {}
        """Seeks that could not be made yet."""
        self._unstable: dict[Partition, int] = {}
        self._failure: BaseException | None = None
        self._refused_seconds: float | None = None

    # -- the group ---------------------------------------------------------------------------------------------

    def open(self, topics: Collection[str], listener: Listener) -> None:
        """Wait until the slot is free, fence its former holder, join the group."""
        if self._mock:
            for topic in topics:
                self._describe(topic)
        else:
            self._wait_for_slot()
        self._listener = listener
        self._sink.renew()
        self._consumer = Consumer(
            clients.consumer(self._settings, self._slot, mock=self._mock)
            | {"error_cb": self._errors, "stats_cb": self._hear_statistics},
            logger=self._log,
        )
        self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, records_max: int, timeout_seconds: float) -> list[Polled]:
        """The next records of the running partitions, a batch for each, and the ends that were met."""
        self._seek_again()
        try:
            messages = self._member().consume(min(records_max, 100_000), timeout_seconds)
        except KafkaException as error:
            raise Stopped(EXIT_RESTART, "consumer", str(error.args[0])) from error
        self._raise_failure()
        self._watch_refusals(heard=bool(messages))
        return self._sorted_out(messages)

    def pause(self, partition: Partition) -> None:
        """Deliver nothing of a partition until `resume`."""
        self._resumes.pop(partition, None)
        self._running.discard(partition)
        if partition in self._owned:
            self._member().pause([TopicPartition(*partition)])

    def resume(self, partition: Partition, next_offset: int) -> None:
        """Deliver a partition from `next_offset` on; pause, seek, resume in this order (librdkafka #3471)."""
        if partition not in self._owned:
            return
        member = self._member()
        member.pause([TopicPartition(*partition)])
        try:
            with self._watchdog.guard("seek"):
                member.seek(TopicPartition(*partition, next_offset))
        except KafkaException:
            self._resumes[partition] = next_offset
            return
        self._resumes.pop(partition, None)
        member.resume([TopicPartition(*partition)])
        self._running.add(partition)

    def _seek_again(self) -> None:
        for partition, next_offset in list(self._resumes.items()):
            self.resume(partition, next_offset)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        def assign() -> None:
            if partitions:
                wanted = [TopicPartition(part.topic, part.partition, OFFSET_BEGINNING) for part in partitions]
                consumer.incremental_assign(wanted)
                consumer.pause(wanted)
            named = _named(partitions)
            self._owned |= set(named)
            self._told().assigned(named)

        self._guarded(assign)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        def revoke() -> None:
            self._told().revoked(_named(partitions))
            self._unassign(consumer, partitions)

        self._guarded(revoke)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        def lose() -> None:
            self._told().lost(_named(partitions))
            self._unassign(consumer, partitions)

        self._guarded(lose)

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        for partition in _named(partitions):
            self._owned.discard(partition)
            self._running.discard(partition)
            self._resumes.pop(partition, None)

    def _guarded(self, action: Callable[[], None]) -> None:
        """What a callback raises would be lost in C, and the client would assign by itself."""
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again by the poll that called us
            self._failure = self._failure or error

    def _raise_failure(self) -> None:
        if (failure := self._failure) is not None:
            self._failure = None
            raise Stopped(EXIT_RESTART, "callback", str(failure)) from failure

    def _wait_for_slot(self) -> None:
        """Two workers of one slot would fence each other in turns: the second waits until the first has left."""
        deadline = time.monotonic() + SLOT_SECONDS
        while self._holds_slot():
            if time.monotonic() > deadline:
                name = f"{self._settings.service.id}.{self._slot}"
                raise Stopped(
                    EXIT_CONFIGURATION, "slot_in_use", f"another worker runs as {name}; give --slot another number"
                )
            time.sleep(0.5)

    def _holds_slot(self) -> bool:
        service_id = self._settings.service.id
        try:
            group = self._admin.describe_consumer_groups([service_id], request_timeout=DESCRIBE_SECONDS)[
                service_id
            ].result()
        except KafkaException as error:
            clients.raise_if_denied(error.args[0], "describe group")
            return False
        return any(member.client_id == f"{service_id}.{self._slot}" for member in group.members)

    # -- messages ----------------------------------------------------------------------------------------------

    def _sorted_out(self, messages: Sequence[Message]) -> list[Polled]:
        """Columns per partition; ends and errors after the records they came behind."""
        errors = list(map(_OF.error, messages))
        if set(map(type, errors)) <= {type(None)}:
            return [*_batches(messages)]
        both = list(zip(messages, errors, strict=True))
        batches = _batches([message for message, error in both if error is None])
        met = [self._end_or_error(message) for message, error in both if error is not None]
        return [*batches, *(end for end in met if end is not None)]

    def _end_or_error(self, message: Message) -> End | None:
        error = message.error()
        partition = (message.topic() or "", message.partition() if message.partition() is not None else -1)
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
            return End(*partition, message.offset())
        self._status.broker_errors[error.name()] += 1
        clients.raise_if_denied(error, "consume")
        if error.fatal():
            raise Stopped(EXIT_RESTART, "consumer", error.str())
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001 - librdkafka's own name
            self._told().lost(sorted(self._owned))
        elif error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"} and partition in self._running:
            detail = f"{partition}: {error.str()}; see drift run --accept-reset input_gone"
            raise Stopped(EXIT_DECISION, "input_gone", detail)
        return None

    def _watch_refusals(self, *, heard: bool) -> None:
        now = time.monotonic()
        if heard or not self._errors.refusals:
            self._errors.healthy()
            self._refused_seconds = None
        elif self._refused_seconds is None:
            self._refused_seconds = now
        elif now - self._refused_seconds > REFUSED_SECONDS:
            raise Stopped(EXIT_ACCESS, "authentication", self._errors.last_refusal)

    # -- questions ---------------------------------------------------------------------------------------------

    def committed(self, partition: Partition) -> Committed | None:
        """The decided offset of the group."""
        try:
            [found] = self._member().committed([TopicPartition(*partition)], COMMITTED_SECONDS)
        except KafkaException as error:
            raise _unanswered(error, "committed offset") from error
        if found.error is not None:
            clients.raise_if_denied(found.error, "committed offset")
            raise Unanswered(found.error.name())
        return None if found.offset == OFFSET_INVALID else Committed(found.offset, found.metadata or "")

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """Start of the log and its high watermark.

        Asked by the AdminClient: on a consumer's connection the question would wait behind a fetch.
        """
        starts, ends = self._list_offsets([partition], OffsetSpec.earliest), self.latest([partition])
        if partition not in starts or partition not in ends:
            raise Unanswered("bounds of the log")
        return starts[partition], ends[partition]

    def latest(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The ends of the logs, undecided records included."""
        return self._list_offsets(partitions, OffsetSpec.latest)

    def _list_offsets(
        self, partitions: Collection[Partition], spec: Callable[[], OffsetSpec]
    ) -> Mapping[Partition, int]:
        asked = self._admin.list_offsets(
            {TopicPartition(*partition): spec() for partition in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=BOUNDS_SECONDS,
        )
        found: dict[Partition, int] = {}
        for part, answer in asked.items():
            try:
                found[part.topic, part.partition] = answer.result().offset
            except KafkaException as error:
                clients.raise_if_denied(error.args[0], "list offsets")
                self._status.broker_errors[error.args[0].name()] += 1
        return found

    def lag(self, partition: Partition, next_offset: int) -> int:
        """By the high watermark of the last fetch; control records count."""
        if partition not in self._owned:
            return 0
        try:
            found = self._member().get_watermark_offsets(TopicPartition(*partition), cached=True)
        except KafkaException:
            return 0
        return 0 if found is None else max(0, found[1] - next_offset)

    def unstable(self, partition: Partition) -> int:
        """As the statistics of the last seconds have it."""
        return self._unstable.get(partition, 0)

    def _hear_statistics(self, text: str) -> None:
        for name, topic in msgspec.json.decode(text).get("topics", {}).items():
            for number, part in topic.get("partitions", {}).items():
                if part.get("ls_offset", -1) >= 0 and part.get("hi_offset", -1) >= 0:
                    self._unstable[name, int(number)] = max(0, part["hi_offset"] - part["ls_offset"])

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; an answer of the last minute is good enough, it only grows."""
        known = self._described.get(topic)
        if known is None or time.monotonic() - known.asked_seconds > 3 * DESCRIBED_FOR_SECONDS:
            try:
                known = self._describe(topic)
            except Unanswered:
                if known is None:
                    raise
        return known.partitions

    def topic_id(self, topic: str) -> str:
        """The id the cluster gave the topic when it was made."""
        known = self._described.get(topic)
        if known is None or time.monotonic() - known.asked_seconds > DESCRIBED_FOR_SECONDS:
            known = self._describe(topic)
        return known.topic_id

    def _describe(self, topic: str) -> Described:
        if self._mock:
            found_partitions = len(self._reader.list_topics(topic, timeout=DESCRIBE_SECONDS).topics[topic].partitions)
            return self._remember(topic, Described("mock", found_partitions, time.monotonic()))
        asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=DESCRIBE_SECONDS)
        try:
            found = asked[topic].result()
        except KafkaException as error:
            raise _unanswered(error, f"description of {topic}") from error
        return self._remember(topic, Described(str(found.topic_id), len(found.partitions), time.monotonic()))

    def _remember(self, topic: str, described: Described) -> Described:
        self._described[topic] = described
        return described

    # -- reading outside the group -----------------------------------------------------------------------------

    def follow(self, partition: Partition, next_offset: int | None) -> None:
        """Read a partition from an offset, or from its start if the log does not hold that offset."""
        if self._mock:
            self._describe(partition[0])  # asking for it makes it
        offset = OFFSET_BEGINNING
        if next_offset is not None:
            try:
                start, end = self.bounds(partition)
            except Unanswered:
                start, end = 0, -1
            offset = next_offset if start <= next_offset <= end else OFFSET_BEGINNING
        self._reader.incremental_assign([TopicPartition(*partition, offset)])

    def unfollow(self, partition: Partition) -> None:
        """Read it no more."""
        self._reader.incremental_unassign([TopicPartition(*partition)])

    def read(self, timeout_seconds: float) -> list[Polled]:
        """What the followed partitions have."""
        try:
            messages = self._reader.consume(READ_RECORDS, timeout_seconds)
        except KafkaException as error:
            raise Stopped(EXIT_RESTART, "reader", str(error.args[0])) from error
        return self._sorted_out(messages)

    # -- the transaction ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction."""
        self._sink.begin()

    def produce(self, records: Sequence[Addressed]) -> None:
        """Add records to it."""
        self._sink.produce(records)

    def send_offsets(self, marks: Sequence[OffsetMark]) -> None:
        """As the member of this very moment: a stale one is refused by the group's coordinator."""
        if bad := [mark for mark in marks if mark.next_offset < 0]:
            raise AssertionError(f"{bad[0]} would be ignored silently")
        member = self._member()
        metadata = member.consumer_group_metadata()
        if not self._mock and not (_generation(metadata) >= 0 and member.memberid()):
            # Metadata of a consumer that never joined would pass in a group with living members.
            raise Aborted("not a member of the group")
        offsets = [TopicPartition(mark.topic, mark.partition, mark.next_offset, mark.metadata) for mark in marks]
        self._sink.send_offsets(offsets, metadata)

    def commit(self) -> Receipt:
        """Flush and commit."""
        return self._sink.commit()

    def abort(self) -> None:
        """Abort what was begun, and go on with a new producer."""
        self._sink.abort()

    # -- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the group; the callback for revoked partitions runs in here."""
        if self._consumer is not None:
            with self._watchdog.guard("close", clients.PATIENCE_SECONDS):
                self._consumer.close()
            self._consumer = None
        self._reader.close()
        self._raise_failure()

    def _member(self) -> Consumer:
        if self._consumer is None:
            raise AssertionError("not open")
        return self._consumer

    def _told(self) -> Listener:
        if self._listener is None:
            raise AssertionError("not open")
        return self._listener


_OF: Final[Any] = confluent_kafka.Message
"""Its methods are mapped over messages: called for every record, that costs less than asking each one for them."""


def _batches(messages: Sequence[Message]) -> list[Batch]:
    """Records as columns, a batch for each partition."""
    by_partition: dict[Partition, list[Message]] = {}
    for partition, message in zip(
        zip(map(_OF.topic, messages), map(_OF.partition, messages), strict=True), messages, strict=True
    ):
        by_partition.setdefault(partition, []).append(message)
    return [
        Batch(
            *partition,
            offsets=list(map(_OF.offset, own)),
            timestamps_ms=[time_ms for _, time_ms in map(_OF.timestamp, own)],
            keys=list(map(_OF.key, own)),
            values=list(map(_OF.value, own)),
            headers=list(map(_OF.headers, own)),
        )
        for partition, own in by_partition.items()
    ]


def _named(partitions: Sequence[TopicPartition]) -> list[Partition]:
    return [(part.topic, part.partition) for part in partitions]


def _unanswered(error: KafkaException, what: str) -> Unanswered:
    clients.raise_if_denied(error.args[0], what)
    return Unanswered(f"{what}: {error.args[0].name()}")


def _generation(metadata: Any) -> int:
    """Native int32 behind the 7 bytes of its magic."""
    return int.from_bytes(bytes(metadata)[7:11], "little", signed=True)
