"""Labels that others send: a batch of feedback records becomes columns, and a value for every record that is bad.

As with predictions a record is accepted whole or refused whole (`contracts.md` 2, codes in `reliability.md` 6). A
label that is there but of no use is refused, since it is the one thing that feedback is for.
"""

from operator import attrgetter
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.wire import inbound, lenient
from stream.wire.adapters import feedback, native
from stream.wire.codec import Malformed
from stream.wire.inbound import Events, Limits
from stream.wire.internal import Ints
from stream.wire.record import Batch
from stream.wire.rows import Format, Rows, Task, read, timed, without

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Labels(Struct, frozen=True):
    """The n good records of a batch as columns in offset order, and what became of the others."""

    index: Ints
    """[n] row of the batch."""
    time_ms: Ints
    """[n] when the label became known; the Kafka timestamp where the record does not say."""
    prediction_ids: list[str]
    model_ids: list[str]
    model_versions: list[str | None]
    """[n] None: the label counts for every version that answered."""
    label: list[str | None]
    """[n] the true class."""
    value: Floats
    """[n] the true value; at least one of both is there."""
    repeated: Ints
    """[m] rows, by position, that repeat their own prediction."""
    predictions: Events
    """[m] those predictions, without features; of the label's version, and of its time where they do not say when."""
    malformed: list[tuple[int, Malformed]]
    """(row of the batch, what is wrong), in offset order."""
    tombstones: int
    unknown_fields: int
    """Top-level fields without a meaning, over all good records."""

    def __len__(self) -> int:
        return len(self.index)


def decode(batch: Batch, limits: Limits, max_future_ms: int, input_format: Format = "auto") -> Labels:
    """Every record of a batch of feedback as a label, a tombstone or a `Malformed`. Never raises, whatever the bytes.

    `max_future_ms`: how far beyond its record's Kafka timestamp a time may be. For a record of 150 bytes, in batches of
    hundreds, about 1.4 us, twice that with a prediction of its own; 15 us where the careful path is needed.
    """
    found = read(Task(batch, feedback, limits.record_bytes, limits.features, input_format), max_future_ms)
    truths = _truths(found)
    if useless := _useless(truths):
        found = without(found, useless)
        truths = _truths(found)
    repeated = _repeated(found)
    times_ms, faults = timed(
        batch,
        found.index[repeated],
        [_prediction_time(found.rows[place]) for place in repeated.tolist()],
        max_future_ms,
        "prediction_timestamp",
    )
    if faults:
        found = without(found, {int(repeated[place]): fault for place, fault in faults.items()})
        truths = _truths(found)
        repeated, times_ms = _repeated(found), np.delete(times_ms, list(faults))
    return _columns(found, truths, repeated, times_ms)


def pick(labels: Labels, picks: Ints) -> Labels:
    """Some of the labels, by position in rising order. What was refused comes along only if all are picked."""
    if len(picks) == len(labels):
        return labels
    places = picks.tolist()
    columns: dict[str, Any] = {
        name: column[picks] if isinstance(column, np.ndarray) else [column[place] for place in places]
        for name, column in zip(_COLUMNS, attrgetter(*_COLUMNS)(labels), strict=True)
    }
    kept = np.flatnonzero(np.isin(labels.repeated, picks))
    return Labels(
        **columns,
        repeated=np.searchsorted(picks, labels.repeated[kept]),
        predictions=inbound.pick(labels.predictions, kept),
        malformed=[],
        tombstones=0,
        unknown_fields=0,
    )


def by_model(labels: Labels) -> dict[str, Ints]:
    """Positions of the labels of each model, in order of first appearance."""
    if len(set(labels.model_ids)) == 1:
        return {labels.model_ids[0]: np.arange(len(labels), dtype=np.int64)}
    places: dict[str, list[int]] = {}
    for place, model_id in enumerate(labels.model_ids):
        places.setdefault(model_id, []).append(place)
    return {model_id: np.array(own, dtype=np.int64) for model_id, own in places.items()}


_COLUMNS: Final = Labels.__struct_fields__[: Labels.__struct_fields__.index("repeated")]
_NOTHING: Final = (None, native.Prediction())
_TEXTS: Final = {str, type(None), lenient.Invalid}


_Truths: TypeAlias = tuple[list[lenient.Text], Floats, inbound.Mask]
"""[n] classes, values, and where a value is invalid."""


def _truths(found: Rows) -> _Truths:
    labels = [row.actual.label for row in found.rows]
    if not set(map(type, labels)) <= _TEXTS:
        labels = [lenient.label(own) for own in labels]
    return labels, *inbound.numbers_of([row.actual.value for row in found.rows])


def _useless(truths: _Truths) -> dict[int, Malformed]:
    """The rows whose truth cannot be used, and why."""
    labels, values, invalid = truths
    unsaid = np.array([type(label) is not str for label in labels], dtype=np.bool_) & np.isnan(values)
    return {
        place: Malformed("field_type", "$.actual: neither a label nor a value")
        if invalid[place] or labels[place] is not None
        else Malformed("field_missing", "$.actual: label or value is required")
        for place in np.flatnonzero(unsaid).tolist()
    }


def _repeated(found: Rows) -> Ints:
    """The rows that bring a prediction which says something."""
    answered = [place for place, row in enumerate(found.rows) if row.prediction not in _NOTHING]
    return np.array(answered, dtype=np.int64)


def _prediction_time(row: feedback.Envelope) -> native.Time:
    return row.timestamp if row.prediction_timestamp is None else row.prediction_timestamp


def _columns(found: Rows, truths: _Truths, repeated: Ints, times_ms: Ints) -> Labels:
    rows = found.rows
    labels, values, _ = truths
    return Labels(
        index=found.index,
        time_ms=found.time_ms,
        prediction_ids=[row.prediction_id for row in rows],
        model_ids=[row.model_id for row in rows],
        model_versions=[row.model_version for row in rows],
        label=[label if isinstance(label, str) else None for label in labels],
        value=values,
        repeated=repeated,
        predictions=_predictions(found, repeated, times_ms),
        malformed=found.malformed,
        tombstones=found.tombstones,
        unknown_fields=sum(found.unknown_fields),
    )


def _predictions(found: Rows, repeated: Ints, times_ms: Ints) -> Events:
    places = repeated.tolist()
    own = [found.rows[place] for place in places]
    answers = replace(
        found,
        rows=[
            native.Envelope(
                row.prediction_id, row.model_id, row.model_version, prediction=row.prediction, tags=row.tags
            )
            for row in own
        ],
        index=found.index[repeated],
        time_ms=times_ms,
        values=[found.values[place] for place in places],
        malformed=[],
        tombstones=0,
        unknown_fields=[],
    )
    return inbound.columns(answers)


def _envelope(row: feedback.Envelope) -> native.Envelope:
    return native.Envelope(row.prediction_id, row.model_id, row.model_version, prediction=row.prediction, tags=row.tags)
