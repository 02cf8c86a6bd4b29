"""`drift demo --produce`: the demo's data into the configured Kafka, at the pace of the clock, until it is stopped."""

import signal
import threading
import time
from collections import Counter
from typing import Final

import typer
from confluent_kafka import KafkaException, Producer

from stream.cli.clients import ANSWER_SECONDS, no_answer, tell
from stream.cli.demo import reference as references
from stream.cli.demo import shuttle
from stream.cli.demo.shuttle import Event
from stream.cli.reference import WINDOWS_AHEAD, send
from stream.config import Loaded, worker_settings
from stream.wire.times import rfc3339
from stream.worker import clients
from stream.worker.ends import EXIT_CONFIGURATION, Stopped
from stream.worker.settings import Settings

WAIT_SECONDS: Final = 0.05


def produce(loaded: Loaded, seed: int) -> None:
    """Publish the reference, then predictions for ever; what is planted is told on stdout as it happens.

    A window gets 500 rows whatever its size, and a round takes 62 windows: with windows of a second the drift comes
    after 20 seconds, with windows of a minute after 20 minutes.
    """
    settings, window_ms = worker_settings(loaded.config), loaded.config.windows.size
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    errors = clients.Errors(Counter())
    producer = Producer(clients.common(settings, "demo") | {"error_cb": errors, "compression.type": "lz4"})
    partitions = _partitions(producer, settings, errors)
    tell("preparing: reading the data, training the model, building the reference ...")
    world = shuttle.prepare(seed)
    ends_ms = _now_ms() - _now_ms() % window_ms
    reference = references.build(world, seed, ends_ms, window_ms, effective_from_ms=ends_ms)
    start_ms = _now_ms() - _now_ms() % window_ms + WINDOWS_AHEAD * window_ms
    send(settings, references.in_force_from(reference, start_ms))
    typer.echo(f"{rfc3339(start_ms)}  the stream begins: {shuttle.ROWS_PER_WINDOW} predictions in a window")
    first = start_ms // window_ms // shuttle.WINDOWS * shuttle.WINDOWS
    for event in shuttle.stream_events(world, seed, start_ms, window_ms, first, partitions):
        while event.time_ms > _now_ms() and not stop.is_set():
            producer.poll(WAIT_SECONDS)
        if stop.is_set():
            break
        offer(producer, settings.topics.predictions[0], event)
        if (event.time_ms - start_ms) % window_ms == 0:
            _tell_planted((event.time_ms - start_ms) // window_ms % shuttle.WINDOWS, event.time_ms)
    producer.flush(ANSWER_SECONDS)
    tell("stopped")


def offer(producer: Producer, topic: str, event: Event) -> None:
    """Send an event, waiting while the client's queue is full."""
    while True:
        try:
            producer.produce(topic, event.value, event.key, event.partition, timestamp=event.time_ms)
        except BufferError:
            producer.poll(WAIT_SECONDS)
        else:
            return


def _partitions(producer: Producer, settings: Settings, errors: clients.Errors) -> int:
    topic = settings.topics.predictions[0]
    try:
        known = producer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
    except KafkaException as error:
        raise no_answer(settings, errors, error) from None
    if known.error is not None:
        detail = f"topic {topic} is not there ({known.error.str()}); make it with `drift topics create --inputs 4`"
        raise Stopped(EXIT_CONFIGURATION, "topic", detail)
    return len(known.partitions)


def _tell_planted(place: int, time_ms: int) -> None:
    if place in shuttle.PLANTED:
        typer.echo(f"{rfc3339(time_ms)}  planted: {shuttle.PLANTED[place]}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
