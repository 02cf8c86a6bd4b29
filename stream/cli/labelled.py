"""Labelled rows of files as windows of outcomes: through the product's own ingest and join, without a log."""

from collections.abc import Iterator, Sequence
from itertools import islice

from stream.cli.binding import ingest_settings, join_settings
from stream.cli.references import ROWS_AT_ONCE, batch_of, outgoing
from stream.config import Config
from stream.profiles import outcomes
from stream.stages import References, ingest, join
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import END_OF_TIME_MS, OUTCOMES, WATERMARKS, Outcomes, Reference, SourceMark, Watermarks
from stream.wire.record import Record
from stream.worker import files


def outcomes_of(config: Config, inputs: Reference, paths: Sequence[str], given: files.FileFormat) -> list[Outcomes]:
    """The windows of outcomes, by rising start, of the model version that a reference of its inputs was built for.

    A row with `actual` is a label, and its own prediction if it repeats one. They meet as in the stream, in the
    segments of `inputs`; nothing is late.
    """
    record = outgoing(inputs)
    view = References.empty().apply(Record("", 0, 0, 0, record.key, record.value))
    settings = join_settings(config)
    values = [*_halves(config, view, paths, given), codec.encode(_end(settings.topics), WATERMARKS)]
    records = [Record("", 0, offset, 0, None, value) for offset, value in enumerate(values)]
    _, told = join.step(settings, join.start(settings), records)
    found: dict[int, list[Outcomes]] = {}
    for one in told.records:
        part = codec.decode(one.value or b"", Outcomes, OUTCOMES)
        if not isinstance(part, Malformed) and _name(part) == _name(inputs):
            found.setdefault(part.window_start_ms, []).append(part)
    return [outcomes.merge(found[start_ms]) for start_ms in sorted(found)]


def _halves(config: Config, view: References, paths: Sequence[str], given: files.FileFormat) -> Iterator[bytes]:
    """The halves of all rows, as ingest sends them to one partition."""
    settings = ingest_settings(config)
    for topic, labels in ((config.topics.predictions[0], False), (config.topics.feedback[0], True)):
        for partition, path in enumerate(paths):
            rows = files.records(path, topic, partition, files.Progress(), given=given, sort=True, feedback=labels)
            state = ingest.start(None)
            while chunk := list(islice(rows, ROWS_AT_ONCE)):
                state, _ = ingest.step(settings, view, state, batch_of(chunk))
                states, sent = ingest.flush(settings, view, {(topic, partition): state}, 1)
                state = states[topic, partition]
                yield from (one.value for one in sent if one.role == "pairs" and one.value is not None)


def _end(topics: Sequence[str]) -> Watermarks:
    """All files are at their end."""
    marks = [SourceMark(topic, 0, 0, END_OF_TIME_MS) for topic in topics]
    return Watermarks(marks, dict.fromkeys(topics, 1), 0)


def _name(one: Outcomes | Reference) -> tuple[str, str]:
    return one.model_id, one.model_version
