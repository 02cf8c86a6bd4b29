"""How things stand, from what the topics hold and the group has committed: read only, whatever runs or does not."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition
from msgspec import Struct

from stream.cli.clients import ANSWER_SECONDS, Log, no_answer
from stream.cli.tail import read
from stream.profiles.reference import References
from stream.stages.detect.power import Traffic
from stream.wire.outbound import SEVERITIES, Reading
from stream.wire.record import Record, Role
from stream.worker import clients
from stream.worker.metadata import decode_ingest
from stream.worker.settings import Settings

TOLD_MS: Final = 2 * 86_400_000
"""The newest two days of the alerts tell all that is open, because what is open is told again every day."""
RECENT_MS: Final = 3_600_000
NEWEST: Final = 2_000
"""Readings per partition that tell the traffic where the last hour has none, as after a replay."""

Event: TypeAlias = dict[str, Any]
Name: TypeAlias = tuple[str, str]
"""Model id and version."""


class Place(Struct, frozen=True):
    """How far the group has come in one partition."""

    topic: str
    partition: int
    lag: int
    """Records behind the end of the log; behind a transaction's marker there is none."""
    watermark_ms: int | None = None
    """Of an input: what is older is late by now. None before the first commit, and of topics of ours."""


class Told(Struct, frozen=True):
    """What the alerts of the newest two days say."""

    opened: list[Event]
    """The newest event of each alert that is open, in the order in which they began."""
    above_info: int
    """Episodes above `info` that began in that time."""


def alerts(settings: Settings, models: Collection[str] = ()) -> Told:
    """Read from the topic of alerts; of all models, if none is named."""
    with Log(settings, settings.topics.alerts) as log:
        newest_ms = max((record.timestamp_ms for record in log.history(None, 1)), default=None)
        # A broker that finds nothing by time has no index of times, as the one inside librdkafka: then all are read.
        records = [] if newest_ms is None else log.history(newest_ms - TOLD_MS, None) or log.history(None, None)
    return told([read(record) for record in records], models)


def told(events: Iterable[Event], models: Collection[str] = ()) -> Told:
    """What is open after these events, whatever their order; foreign records are passed over."""
    newest: dict[str, Event] = {}
    begun: set[str] = set()
    for event in events:
        data = event.get("data")
        if not isinstance(data, dict) or data.get("status") not in ("firing", "resolved"):
            continue
        if models and data.get("model_id") not in models:
            continue
        name = str(data.get("alert_id"))
        if _sequence(event) >= _sequence(newest.get(name, {})):
            newest[name] = event
        if _sequence(event) == 0 and rank(data.get("severity")) > rank("info"):
            begun.add(name)
    opened = [event for event in newest.values() if event["data"]["status"] == "firing"]
    opened.sort(key=lambda event: (str(event["data"].get("starts_at")), str(event["data"].get("alert_id"))))
    return Told(opened, len(begun))


def rank(severity: object) -> int:
    """For comparisons; what is no severity comes last."""
    return SEVERITIES[severity][1] if isinstance(severity, str) and severity in SEVERITIES else 0


def places(settings: Settings) -> list[Place]:
    """How far the group of the workers has come in the inputs and in what its stages tell each other."""
    errors = clients.Errors(Counter())
    reader = Consumer(clients.reader(settings, "status", mock=False) | {"error_cb": errors})
    try:
        held = reader.list_topics(timeout=ANSWER_SECONDS).topics
        asked = [
            TopicPartition(topic, partition)
            for topic in _topics(settings)
            if topic in held and held[topic].error is None
            for partition in sorted(held[topic].partitions)
        ]
        committed = reader.committed(asked, timeout=ANSWER_SECONDS) if asked else []
        return [_place(reader, place) for place in committed]
    except KafkaException as error:
        raise no_answer(settings, errors, error) from None
    finally:
        reader.close()


def references(settings: Settings) -> References:
    """The references in the topic, as a worker hears of them."""
    with Log(settings, settings.topics.of("references")) as log:
        records = sorted(log.history(None, None), key=lambda record: record.offset)
    return References.empty().apply_all(records)


def traffic(settings: Settings, now_ms: int) -> dict[Name, Traffic]:
    """Events per window of every signal, from the readings of the last hour, else from the newest there are."""
    with Log(settings, settings.topics.of("windows")) as log:
        records = log.history(now_ms - RECENT_MS, None) or log.history(None, NEWEST)
    return traffic_of(records)


def traffic_of(records: Sequence[Record]) -> dict[Name, Traffic]:
    """Mean events and rows of all windows of a signal; what is no reading is passed over."""
    decoder = msgspec.json.Decoder(Reading)
    sums: dict[Name, dict[tuple[str, str], tuple[int, int, int]]] = {}
    for record in records:
        try:
            one = decoder.decode(record.value or b"")
        except msgspec.DecodeError:
            continue
        own = sums.setdefault((one.model_id, one.model_version), {})
        windows, events, rows = own.get((one.segment, one.signal), (0, 0, 0))
        more = one.n + (one.n_missing or 0) + (one.n_invalid or 0) + (one.n_unseen or 0)
        own[one.segment, one.signal] = (windows + 1, events + one.n, rows + more)
    return {name: {place: _means(*totals) for place, totals in own.items()} for name, own in sums.items()}


def _means(windows: int, events: int, rows: int) -> tuple[float, float]:
    return events / windows, rows / windows


def _topics(settings: Settings) -> list[str]:
    ours: tuple[Role, ...] = ("pairs", "profiles")
    return [*settings.topics.predictions, *settings.topics.feedback, *map(settings.topics.of, ours)]


def _place(reader: Consumer, place: TopicPartition) -> Place:
    low, high = reader.get_watermark_offsets(place, timeout=ANSWER_SECONDS)
    reached = low if place.offset == OFFSET_INVALID else max(place.offset, low)
    mark = decode_ingest(place.metadata or "")
    return Place(place.topic, place.partition, max(0, high - reached), None if mark is None else mark.watermark_ms)


def _sequence(event: Mapping[str, Any]) -> int:
    number = (event.get("data") or {}).get("sequence")
    return number if isinstance(number, int) else -1
