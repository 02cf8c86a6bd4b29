"""Kafka as the commands need it: a topic read without a group, and one sentence for what is wrong with a broker."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

import typer
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from stream.wire.record import Outgoing, Record
from stream.worker import clients
from stream.worker.ends import EXIT_ACCESS, EXIT_CONFIGURATION, Stopped
from stream.worker.settings import Settings

ANSWER_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.25
RECORDS_MAX: Final = 500


def tell(sentence: str) -> None:
    """A word for people, on stderr."""
    typer.echo(f"drift: {sentence}", err=True)


def no_answer(settings: Settings, errors: clients.Errors, error: KafkaException | None = None) -> Stopped:
    """Why a broker does not answer: refused, or not reached."""
    servers = settings.kafka.bootstrap_servers
    if error is not None and error.args[0].name().endswith("_AUTHORIZATION_FAILED"):
        return Stopped(EXIT_ACCESS, "denied", f"{servers}: {error.args[0].str()}; grant the right and try again")
    if errors.refusals:
        detail = f"{servers} refuses the connection: {errors.last_refusal}; see [kafka.properties]"
        return Stopped(EXIT_ACCESS, "refused", detail)
    detail = f"{servers} does not answer; is it the right address (kafka.bootstrap_servers), and is the broker up?"
    return Stopped(EXIT_ACCESS, "unreachable", detail)


def write(settings: Settings, record: Outgoing) -> None:
    """Write a record into the first partition of its topic. `Stopped`, exit code 4, if the broker does not take it."""
    errors = clients.Errors(Counter())
    producer = Producer(clients.common(settings, "send") | {"error_cb": errors, "compression.type": "lz4"})
    failures: list[KafkaException] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            failures.append(KafkaException(error))

    topic = settings.topics.of(record.role)
    try:
        producer.list_topics(timeout=ANSWER_SECONDS)
        producer.produce(
            topic, record.value, record.key, partition=0, headers=list(record.headers), on_delivery=delivered
        )
        left = producer.flush(ANSWER_SECONDS)
    except KafkaException as error:
        raise no_answer(settings, errors, error) from None
    if failures or left:
        raise no_answer(settings, errors, failures[0] if failures else None)


class Log:
    """All partitions of one topic, read from where one likes. Commits nothing and joins nobody."""

    def __init__(self, settings: Settings, topic: str, *, mock: bool = False) -> None:
        self._settings = settings
        self._topic = topic
        self._errors = clients.Errors(Counter())
        own = {"auto.offset.reset": "earliest", "error_cb": self._errors}
        self._consumer = Consumer(clients.reader(settings, "tail", mock=mock) | own)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def history(self, since_ms: int | None, newest: int | None) -> list[Record]:
        """What the topic holds now, in order of time: from a time on, else the `newest` of each partition, else all."""
        try:
            places = self._places(since_ms, newest)
        except KafkaException as error:
            raise no_answer(self._settings, self._errors, error) from None
        self._consumer.assign(places)
        waiting = {place.partition for place in places}
        found: list[Record] = []
        deadline_seconds = time.monotonic() + ANSWER_SECONDS
        while waiting:
            for message in self._consumer.consume(RECORDS_MAX, POLL_SECONDS):
                deadline_seconds = time.monotonic() + ANSWER_SECONDS
                if (problem := message.error()) is None:
                    found.append(_record(message))
                elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                    waiting.discard(message.partition())
                else:
                    raise no_answer(self._settings, self._errors, KafkaException(problem))
            if time.monotonic() > deadline_seconds:
                raise no_answer(self._settings, self._errors)
        return sorted(found, key=lambda record: (record.timestamp_ms, record.partition, record.offset))

    def begin(self) -> Iterator[Sequence[Record]]:
        """Everything from the start of the topic, then what comes; a step that finds nothing does not wait."""
        self._consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in self._numbers()])
        while True:
            messages = self._consumer.consume(RECORDS_MAX, 0)
            yield [_record(message) for message in messages if message.error() is None]

    def live(self) -> Iterator[Sequence[Record]]:
        """What comes after the history, for ever; a broker that is away is waited for."""
        while True:
            messages = self._consumer.consume(RECORDS_MAX, POLL_SECONDS)
            yield [_record(message) for message in messages if message.error() is None]

    def _places(self, since_ms: int | None, newest: int | None) -> list[TopicPartition]:
        places = [TopicPartition(self._topic, number) for number in self._numbers()]
        if since_ms is not None:
            asked = [TopicPartition(place.topic, place.partition, since_ms) for place in places]
            return self._consumer.offsets_for_times(asked, timeout=ANSWER_SECONDS)
        return [TopicPartition(place.topic, place.partition, self._start(place, newest)) for place in places]

    def _numbers(self) -> list[int]:
        """Partitions of the topic. `Stopped`, exit code 3, if it is not there."""
        known = self._consumer.list_topics(self._topic, timeout=ANSWER_SECONDS).topics[self._topic]
        if known.error is not None:
            detail = f"topic {self._topic} is not there ({known.error.str()}); make it with `drift topics create`"
            raise Stopped(EXIT_CONFIGURATION, "topic", detail)
        return sorted(known.partitions)

    def _start(self, place: TopicPartition, newest: int | None) -> int:
        low, high = self._consumer.get_watermark_offsets(place, timeout=ANSWER_SECONDS)
        # The marker of a transaction takes an offset too: hence twice as far back.
        return low if newest is None else max(low, high - 2 * newest - 1)


def _record(message: Message) -> Record:
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=[(name, _bytes(value) or b"") for name, value in _headers(message)],
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    headers = message.headers() or []
    return headers if isinstance(headers, list) else list(headers.items())
