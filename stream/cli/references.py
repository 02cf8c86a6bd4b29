"""References as files and as records, and the training rows they are built from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import orjson
import typer
from msgspec.structs import replace

from stream.profiles.cuts import Row, row_of
from stream.profiles.reference import reference_key
from stream.wire import codec, inbound
from stream.wire.codec import Malformed
from stream.wire.inbound import Limits
from stream.wire.internal import Reference
from stream.wire.record import Batch, Outgoing, Record
from stream.worker import files

ROWS_AT_ONCE = 5_000


def read_references(file: Path) -> list[Reference]:
    """The references in a file, one in a line: of inputs, then of outcomes. A usage error if there is none."""
    try:
        lines = file.read_bytes().strip().splitlines() or [b""]
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    found = []
    for line in lines:
        one = codec.decode_reference(line)
        if isinstance(one, Malformed):
            hint = "make one with `drift reference build`"
            raise typer.BadParameter(f"{file}: not a reference ({one.code}: {one.detail}); {hint}")
        found.append(one)
    return found


def outgoing(reference: Reference) -> Outgoing:
    """The record of a reference."""
    return Outgoing("references", reference_key(reference), codec.encode_reference(reference))


def training_rows(
    records: Iterator[Record], limits: Limits, max_future_ms: int
) -> tuple[dict[tuple[str, str], list[Row]], Counter[str]]:
    """The rows of each model and version, and how many records were refused, by code."""
    found: dict[tuple[str, str], list[Row]] = {}
    refused: Counter[str] = Counter()
    while chunk := list(islice(records, ROWS_AT_ONCE)):
        events = inbound.decode(batch_of(chunk), limits, max_future_ms)
        refused.update(fault.code for _, fault in events.malformed)
        names = zip(events.model_ids, events.model_versions, strict=True)
        for place, name in enumerate(names):
            found.setdefault(name, []).append(row_of(events, place))
    return found, refused


def records_of(paths: Sequence[str], given: files.FileFormat) -> Iterator[Record]:
    """The predictions of some files, one file after the other; of rows with a label those that repeat theirs."""
    progress = files.Progress()
    for partition, path in enumerate(paths):
        yield from files.records(path, "predictions", partition, progress, given=given)
        labelled = files.records(path, "predictions", partition, progress, given=given, feedback=True)
        yield from filter(None, map(_unlabelled, labelled))


def _unlabelled(record: Record) -> Record | None:
    """A row with a label as the prediction it repeats; None where it has no features."""
    try:
        row = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return record
    if not isinstance(row, dict) or not row.get("features"):
        return None
    del row["actual"]
    at = row.pop("prediction_timestamp", None)
    return replace(record, value=orjson.dumps(row if at is None else row | {"timestamp": at}))


def batch_of(records: Sequence[Record]) -> Batch:
    """Records as the columns of one batch."""
    first = records[0]
    return Batch(
        first.topic,
        first.partition,
        [record.offset for record in records],
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.headers or None for record in records],
    )
