"""The transactional producer: begin, produce, offsets, commit, abort, and a new producer whenever an end is in doubt.

A delayed EndTxn of transaction N can end N + 1 (librdkafka has no KIP-890), so no transaction is begun on a producer
whose last one did not certainly end: after an abort, a slow commit or a broken connection to the coordinator comes a
new one, and its epoch fences the straggler (`reliability.md` 2).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer, TopicPartition

from stream.worker import clients
from stream.worker.ends import EXIT_RESTART, Aborted, Addressed, Partition, Receipt, Stopped
from stream.worker.settings import Settings
from stream.worker.watchdog import Watchdog

T = TypeVar("T")
Message: TypeAlias = Any

SLOW_COMMIT_SECONDS: Final = 5.0
SERVE_EVERY: Final = 500


class Sink:
    """One transactional id and the producers that carry it, one after the other."""

    def __init__(
        self,
        settings: Settings,
        slot: str,
        watchdog: Watchdog,
        errors: clients.Errors,
        say: Callable[..., None],
    ) -> None:
        self._settings = settings
        self._slot = slot
        self._watchdog = watchdog
        self._errors = errors
        self._coordinator = clients.CoordinatorWatch(say)
        self._producer: Producer | None = None
        self._began = False
        self._slow = False
        self._tracked: dict[Partition, int] = {}
        self._broker_ms: int | None = None

    def begin(self) -> None:
        """Begin, on a producer whose last transaction has certainly ended."""
        if self._slow or self._coordinator.tainted:
            self.renew()
        self._tracked, self._broker_ms = {}, None
        self._transactional("begin", self._sink().begin_transaction)
        self._began = True

    def produce(self, records: Sequence[Addressed]) -> None:
        """Hand the records to the client; what the broker refuses shows in `commit`."""
        sink = self._sink()
        for number, record in enumerate(records):
            self._produce(sink, record)
            if number % SERVE_EVERY == SERVE_EVERY - 1:
                self._serve(sink, 0.0)

    def _produce(self, sink: Producer, record: Addressed) -> None:
        how: dict[str, Any] = {} if record.timestamp_ms is None else {"timestamp": record.timestamp_ms}
        if record.tracked:
            how["on_delivery"] = self._delivered
        while True:
            try:
                sink.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers) or None,
                    **how,
                )
            except BufferError:
                self._serve(sink, 0.1)
            except KafkaException as error:
                clients.judge(error.args[0], f"produce to {record.topic}")
                raise Aborted(error.args[0].name()) from error
            else:
                return

    def _serve(self, sink: Producer, timeout_seconds: float) -> None:
        try:
            sink.poll(timeout_seconds)
        except (KafkaException, SystemError) as error:
            raise Stopped(EXIT_RESTART, "fatal", str(error)) from error

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            return
        place = (message.topic(), message.partition())
        self._tracked[place] = min(self._tracked.get(place, message.offset()), message.offset())
        kind, time_ms = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME:
            self._broker_ms = time_ms

    def send_offsets(self, offsets: list[TopicPartition], metadata: Any) -> None:
        """Next offsets, as the member the group's metadata names."""
        self._transactional("send offsets", lambda: self._sink().send_offsets_to_transaction(offsets, metadata, -1))

    def commit(self) -> Receipt:
        """Flush and commit."""
        started = time.monotonic()
        self._transactional("commit", lambda: self._sink().commit_transaction(-1))
        self._began = False
        self._serve(self._sink(), 0.0)
        self._slow = time.monotonic() - started > SLOW_COMMIT_SECONDS
        return Receipt(self._tracked, self._broker_ms)

    def abort(self) -> None:
        """Abort, and go on with a new producer: a delayed EndTxn of the old one hits nobody."""
        if not self._began:
            return
        self._began = False
        try:
            self._transactional("abort", lambda: self._sink().abort_transaction(-1))
        except Aborted as again:
            raise Stopped(EXIT_RESTART, "abort", str(again)) from again
        self.renew()

    def renew(self) -> None:
        """A producer with a new epoch; the broker ends what the old one left behind."""
        if self._producer is not None:
            self._producer.purge()
        self._coordinator.tainted = self._slow = False
        self._producer = Producer(
            clients.producer(self._settings, self._slot) | {"error_cb": self._errors}, logger=self._coordinator
        )
        deadline = time.monotonic() + 2 * clients.PATIENCE_SECONDS
        while True:
            try:
                with self._watchdog.guard("init_transactions", 3 * clients.PATIENCE_SECONDS):
                    self._producer.init_transactions(clients.PATIENCE_SECONDS)
            except KafkaException as error:
                clients.raise_if_denied(error.args[0], "init_transactions")
                if error.args[0].fatal() or not error.args[0].retriable() or time.monotonic() > deadline:
                    raise Stopped(EXIT_RESTART, "init_transactions", error.args[0].str()) from error
            else:
                return

    def _transactional(self, what: str, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + clients.TRANSACTION_SECONDS
        while True:
            try:
                with self._watchdog.guard(what):
                    return call()
            except KafkaException as error:
                clients.judge(error.args[0], what)
                if time.monotonic() > deadline:
                    raise Stopped(EXIT_RESTART, "transaction", f"{what}: {error.args[0].name()}") from error
                time.sleep(0.05)
            except SystemError as error:
                raise Stopped(EXIT_RESTART, "fatal", f"{what}: {error}") from error

    def _sink(self) -> Producer:
        if self._producer is None:
            raise AssertionError("not open")
        return self._producer
