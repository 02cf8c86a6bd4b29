"""The demo on one stage: librdkafka's own broker, a real worker, a producer, and whoever tails the alerts.

Event time is a day of its own that begins at midnight, and no partition ticks, so what is said on stdout follows from
the seed alone, in real time as in `--fast`. What does vary, rates, goes to stderr. The built-in broker proves no
guarantee: it forgets offsets of transactions and fences nobody (`reliability.md` 8); it shows the way.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Final

import orjson
from confluent_kafka import Producer
from msgspec import Struct, field
from rich.console import Console

from stream.cli import rendering
from stream.cli.binding import bound
from stream.cli.clients import Log, tell
from stream.cli.demo import reference as references
from stream.cli.demo import shuttle
from stream.cli.demo.shuttle import Event, World
from stream.cli.demo.traffic import offer
from stream.cli.options import Color, console
from stream.cli.references import outgoing
from stream.config import Config, Loaded, worker_settings
from stream.wire.internal import Reference
from stream.wire.record import Record, Role
from stream.wire.times import parse_time, rfc3339
from stream.worker.ends import EXIT_OK, EXIT_RESTART, Stopped
from stream.worker.run import InProcess
from stream.worker.settings import Settings

EXIT_NOT_REPORTED: Final = 1
START_MS: Final = 1_795_219_200_000
"""2026-11-21T00:00:00Z: seconds of the demo are seconds of that day."""
WINDOW_MS: Final = 1_000
PARTITIONS: Final = 4
"""What the built-in broker gives every topic."""
PATIENCE_SECONDS: Final = 60.0
TURN_SECONDS: Final = 0.05
SETTLED_SECONDS: Final = 1.0
"""A transaction becomes visible partition by partition; after this time all of it is."""

ROLES: Final[tuple[Role, ...]] = ("profiles", "references", "control", "snapshots", "alerts", "windows", "dead_letters")
CONFIG: Final = {
    "service": {"id": "drift-demo"},
    "topics": {"feedback": []},
    "windows": {"size": "1s", "lateness": "1s", "idle_after": "0s"},
    "alerts": {"keep_firing_for": "5s"},
    "kafka": {"commit_interval": "200ms"},
}


class Line(Struct, frozen=True):
    """Something that happened at a time of the stream; `event` is empty for what is planted."""

    known_ms: int
    """When it could be known: an outlier at the end of its window."""
    time_ms: int
    rank: str
    text: str = ""
    event: dict[str, Any] = field(default_factory=dict)


class Heard(Struct):
    """What the topics have told so far."""

    lines: list[Line] = field(default_factory=list)
    """Not printed yet."""
    alerts: list[dict[str, Any]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    closed: list[tuple[float, int]] = field(default_factory=list)
    """When (monotonic) the end of a window was first seen in the readings, and that end."""

    @property
    def newest_ms(self) -> int:
        """End of the newest closed window."""
        return self.closed[-1][1] if self.closed else 0

    def settled_ms(self, now_seconds: float) -> int:
        """Up to here everything was heard."""
        return max((end for at, end in self.closed if at <= now_seconds - SETTLED_SECONDS), default=0)


def perform(seed: int, color: Color, *, fast: bool) -> int:
    """The whole demo; its exit code."""
    screen = console(color)
    tell("preparing: reading the data, training the model, building the reference ...")
    world = shuttle.prepare(seed)
    loaded = Loaded(Config.model_validate(CONFIG), {}, frozenset())
    reference = references.build(world, seed, START_MS, WINDOW_MS, effective_from_ms=START_MS)
    events = list(_stream(world, seed))
    _introduce(screen, world, reference, len(events))
    broker = Producer({"bootstrap.servers": "built-in", "test.mock.num.brokers": 1, "linger.ms": 20, "log_level": 4})
    settings = _at(worker_settings(loaded.config), broker)
    _open_topics(broker, settings, reference)
    worker = InProcess(settings, bound(loaded), mock=True)
    worker.start()
    try:
        _wait_for(worker)
        started_seconds = time.monotonic()
        heard = _play(screen, broker, worker, settings, events, fast=fast)
        seconds = time.monotonic() - started_seconds
    finally:
        worker.stop()
    pace = "as fast as they were taken" if fast else "in real time"
    tell(f"{len(events):,} events in {seconds:.1f} s, {len(events) / seconds:,.0f} a second, {pace}")
    return _sum_up(screen, heard)


def _stream(world: World, seed: int) -> Iterator[Event]:
    endless = shuttle.stream_events(world, seed, START_MS, WINDOW_MS, 0, PARTITIONS)
    return takewhile(lambda event: event.time_ms < START_MS + shuttle.WINDOWS * WINDOW_MS, endless)


def _at(settings: Settings, broker: Producer) -> Settings:
    """The same settings with the address of the built-in broker."""
    address = next(iter(broker.list_topics(timeout=PATIENCE_SECONDS).brokers.values()))
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": f"{address.host}:{address.port}"})
    return settings.model_copy(update={"kafka": kafka})


def _open_topics(broker: Producer, settings: Settings, reference: Reference) -> None:
    """The built-in broker makes topics when they are asked for; the reference is there before the first event."""
    for name in [*settings.topics.predictions, *map(settings.topics.of, ROLES)]:
        broker.list_topics(name, timeout=PATIENCE_SECONDS)
    record = outgoing(reference)
    broker.produce(settings.topics.of("references"), record.value, record.key, partition=0)
    if broker.flush(PATIENCE_SECONDS):
        raise Stopped(EXIT_RESTART, "broker", "the built-in broker does not answer")


def _wait_for(worker: InProcess) -> None:
    deadline_seconds = time.monotonic() + PATIENCE_SECONDS
    while not worker.status.started:
        if worker.failure is not None:
            raise worker.failure
        if time.monotonic() > deadline_seconds:
            raise Stopped(EXIT_RESTART, "start", f"the worker did not start within {PATIENCE_SECONDS:.0f} s")
        time.sleep(TURN_SECONDS)


def _play(
    screen: Console, broker: Producer, worker: InProcess, settings: Settings, events: Sequence[Event], *, fast: bool
) -> Heard:
    """Send the events, each at its time, and tell what comes back, until the last window is closed."""
    heard = Heard(lines=_planted())
    topic, sent = settings.topics.predictions[0], 0
    last_ms = events[-1].time_ms - settings.lateness_ms
    last_ms -= last_ms % WINDOW_MS
    started_seconds = time.monotonic()
    deadline_seconds = started_seconds + PATIENCE_SECONDS + shuttle.WINDOWS * WINDOW_MS / 1_000
    with (
        Log(settings, settings.topics.alerts, mock=True) as alerts,
        Log(settings, settings.topics.of("windows"), mock=True) as readings,
        Log(settings, settings.topics.of("dead_letters"), mock=True) as dead_letters,
    ):
        logs = alerts.begin(), readings.begin(), dead_letters.begin()
        while heard.newest_ms < last_ms or heard.settled_ms(time.monotonic()) < last_ms:
            now_seconds = time.monotonic()
            due_ms = START_MS + (now_seconds - started_seconds) * 1_000 if not fast else START_MS * 2
            while sent < len(events) and events[sent].time_ms <= due_ms:
                offer(broker, topic, events[sent])
                sent += 1
            broker.poll(0)
            _hear(heard, *map(next, logs))
            _print_until(screen, heard, heard.settled_ms(now_seconds))
            if worker.failure is not None:
                raise worker.failure
            if now_seconds > deadline_seconds:
                tell("the last window was not closed in time")
                break
            time.sleep(TURN_SECONDS)
    _print_until(screen, heard, START_MS * 2)
    return heard


def _hear(heard: Heard, alerts: Sequence[Record], readings: Sequence[Record], dead_letters: Sequence[Record]) -> None:
    for record in alerts:
        event = orjson.loads(record.value or b"{}")
        heard.alerts.append(event)
        time_ms = _time(event)
        known_ms = time_ms if event["data"]["kind"] != "outlier" else time_ms - time_ms % WINDOW_MS + WINDOW_MS
        heard.lines.append(Line(known_ms, time_ms, event["id"], event=event))
    heard.codes.update(dict(record.headers)["drift.error.code"].decode() for record in dead_letters)
    ends = {parse_time(orjson.loads(record.value or b"{}")["window_end"]) or 0 for record in readings}
    if ends and max(ends) > heard.newest_ms:
        heard.closed.append((time.monotonic(), max(ends)))


def _planted() -> list[Line]:
    return [Line(_ms(place), _ms(place), "", f"planted: {text}") for place, text in shuttle.PLANTED.items()]


def _print_until(screen: Console, heard: Heard, known_ms: int) -> None:
    """In an order that does not depend on the one they were heard in."""
    due = [line for line in heard.lines if line.known_ms <= known_ms]
    for line in sorted(due, key=lambda one: (one.known_ms, one.time_ms, one.rank)):
        if line.event:
            screen.print(rendering.line(line.event))
        else:
            screen.print(f"{rfc3339(line.time_ms)[:19].replace('T', ' ')}  {line.text}", style="bold")
    heard.lines = [line for line in heard.lines if line.known_ms > known_ms]


def _introduce(screen: Console, world: World, reference: Reference, events: int) -> None:
    rate = shuttle.ROWS_PER_WINDOW * 1_000 // WINDOW_MS
    screen.print(
        f"A logistic regression (River), trained on {shuttle.TRAINING_ROWS:,} real rows of the Shuttle dataset, "
        f"right on {world.accuracy():.1%} of others."
    )
    watched = ", ".join(name for name in shuttle.FEATURES if name not in shuttle.UNWATCHED)
    screen.print(
        f"What is normal: {reference.n_rows:,} predictions of the {shuttle.REFERENCE_WINDOWS} seconds before. "
        f"Watched: {watched}, the answers."
    )
    screen.print(f"The stream: {events:,} predictions, {rate} a second. A drift is planted, and goes away again.\n")


def _sum_up(screen: Console, heard: Heard) -> int:
    data = [event["data"] for event in heard.alerts]
    drift = range(_ms(shuttle.DRIFT_FROM) + 1, _ms(shuttle.DRIFT_TO) + 1)
    firing = [one for one in heard.alerts if one["type"].endswith(".firing.v1")]
    true = [one["data"] for one in firing if _time(one) in drift]
    reported = min((parse_time(one["starts_at"]) or 0 for one in true if _names_the_sensor(one)), default=None)
    resolved = [f"second {_second(_time(one))}" for one in heard.alerts if one["type"].endswith(".resolved.v1")]
    outliers = [one["details"]["prediction_id"] for one in data if one["kind"] == "outlier"]
    planted = sum(map(shuttle.is_impossible, outliers))
    codes = ", ".join(f"{code} {count}" for code, count in sorted(heard.codes.items()))
    screen.print()
    screen.print(f"drift began    second {shuttle.DRIFT_FROM}, until second {shuttle.DRIFT_TO}")
    if reported is None:
        screen.print("reported       not at all", style="bold red")
    else:
        after = _second(reported) - shuttle.DRIFT_FROM
        screen.print(f"reported       second {_second(reported)}, {after} seconds later", style="bold green")
    screen.print(f"resolved       {', '.join(resolved) or 'not yet'}")
    screen.print(f"false alarms   {len(firing) - len(true)}")
    screen.print(
        f"outliers       {planted} of {len(shuttle.OUTLYING)} planted, {len(outliers) - planted} of the real rows"
    )
    screen.print(f"dead letters   {sum(heard.codes.values())} of {len(shuttle.BROKEN)} broken records ({codes})")
    screen.print("next           drift replay --help   the same over files of your own")
    return EXIT_NOT_REPORTED if reported is None else EXIT_OK


def _names_the_sensor(data: dict[str, Any]) -> bool:
    moved = {entry["signal"].removeprefix("feature:") for entry in data["signals"]}
    return data["kind"] == "data_drift" and not moved.isdisjoint(shuttle.DRIFTING)


def _time(event: dict[str, Any]) -> int:
    return parse_time(event["time"]) or 0


def _ms(second: int) -> int:
    return START_MS + second * WINDOW_MS


def _second(time_ms: int) -> int:
    return (time_ms - START_MS) // WINDOW_MS
