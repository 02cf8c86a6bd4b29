"""Ingest: records become partial profiles, samples, halves of pairs and dead letters; then it forgets.

What survives a transaction is one number per input partition: its watermark. Events wait, decoded but not yet binned,
until enough have gathered or the transaction ends, so that arrays are long whatever the size of a poll; since merging
is exact and the view of the references stands still meanwhile, nothing depends on when they are folded.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from stream.profiles import cuts, summaries, windows
from stream.profiles.reference import References, Tables
from stream.profiles.summaries import Group
from stream.profiles.windows import Settings as WindowSettings
from stream.signals import extract, halves, outliers
from stream.signals.outcomes import ModelSettings
from stream.signals.outliers import Settings as OutlierSettings
from stream.wire import codec, control, feedback, inbound
from stream.wire.adapters.native import Guess
from stream.wire.dead_letter import dead_letter
from stream.wire.features import Columns, FeatureDecoder
from stream.wire.feedback import Labels
from stream.wire.inbound import Events, Limits
from stream.wire.internal import HALVES, PARTIAL, SAMPLE, Halves, Ints, Partial, Sample, UnknownFeature
from stream.wire.record import Batch, Headers, Outgoing

Partition: TypeAlias = tuple[str, int]

FOLD_ROWS: Final = 4096
"""Events that wait to be folded at once: enough that the cost of an array call is spread thin."""
FORMAT: Final = "auto"
CONTROL_FORMAT: Final = "cloudevents"
_CELL_BYTES: Final = 8
_UNLISTED: Final = ModelSettings()


class Settings(Struct, frozen=True, eq=False):
    """Bound once at start; equal only to itself, so that what follows from it can be remembered by it."""

    limits: Limits = field(default_factory=Limits)
    windows: WindowSettings = field(default_factory=WindowSettings)
    outliers: OutlierSettings = field(default_factory=OutlierSettings)
    period_ms: int = 604_800_000
    """`budget.period`: what a number of told outliers refers to."""
    sample_rows: int = summaries.SAMPLE_ROWS
    include_values: bool = False
    """`alerts.include_values`"""
    feedback: tuple[str, ...] = ()
    """Topics whose records bring labels. Without any nothing is ever joined, and no halves are made."""
    sample: float = 1.0
    """`feedback.sample`"""
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """Of those that are listed in the configuration."""
    control: str = "drift.control"
    """The topic of control events."""


class Waiting(Struct, frozen=True, eq=False):
    """Good events of one batch with their windows; late ones bear the window that holds the watermark they met."""

    events: Events
    offsets: Ints
    times_ms: Ints
    """[n] event time; of a late one the watermark it met."""
    windows_ms: Ints
    late: Any
    """[n] mask"""
    headers: list[Headers | None]


class State(Struct, frozen=True, eq=False):
    """One input partition. Without anything pending it is its watermark."""

    watermark_ms: int | None = None
    newest_ms: int | None = None
    """Largest event time since the task started."""
    waiting: tuple[Waiting, ...] = ()
    partials: tuple[Partial, ...] = ()
    samples: tuple[Sample, ...] = ()
    halves: tuple[Halves, ...] = ()


class Outputs(Struct, frozen=True):
    """What is said of a batch at once."""

    records: list[Outgoing]
    """Dead letters, and control events on their way to detect."""
    counts: dict[str, int]
    """Records by outcome: ok, late, malformed, tombstone; and `unknown_fields`."""


class Reader(Struct, frozen=True, eq=False):
    """What reading the rows of one reference needs, made once."""

    features: FeatureDecoder
    judge: outliers.Judge
    told_from: int
    """s*: the least score of a row that is told."""


def start(watermark_ms: int | None) -> State:
    """A task that takes over a partition with the watermark its last transaction left."""
    return State(watermark_ms=watermark_ms)


def step(settings: Settings, references: References, state: State, batch: Batch) -> tuple[State, Outputs]:
    """One batch of one partition further, in offset order: predictions, or labels if it is of a topic of feedback."""
    if batch.topic == settings.control:
        return state, _controls(settings, batch)
    read = _read(settings, references, state, batch)
    malformed = [*read.malformed, *_too_many_models(settings, references, read)]
    if len(malformed) > len(read.malformed):
        read = _without(read, {row for row, _ in malformed})
    lateness = windows.late(read.time_ms, state.watermark_ms, settings.windows.lateness)
    outputs = Outputs(
        records=[dead_letter(batch, row, fault, FORMAT) for row, fault in sorted(malformed, key=lambda one: one[0])],
        counts={
            "ok": len(read) - int(lateness.mask.sum()),
            "late": int(lateness.mask.sum()),
            "malformed": len(malformed),
            "tombstone": read.tombstones,
            "unknown_fields": read.unknown_fields,
        },
    )
    if not len(read):
        return state, outputs
    newest_ms = int(read.time_ms.max())
    state = replace(
        state,
        watermark_ms=lateness.watermark_ms,
        newest_ms=newest_ms if state.newest_ms is None else max(state.newest_ms, newest_ms),
    )
    if isinstance(read, Labels):
        return replace(state, halves=(*state.halves, *_labelled(settings, references, batch, read, lateness))), outputs
    state = replace(state, waiting=(*state.waiting, _waiting(settings, batch, read, lateness)))
    if sum(len(waiting.offsets) for waiting in state.waiting) >= FOLD_ROWS:
        state = _folded(settings, references, (batch.topic, batch.partition), state)
    return state, outputs


def tick(settings: Settings, state: State, time_ms: int) -> State:
    """The partition is idle at `time_ms`: its watermark rises as if an event of that time had come."""
    risen = time_ms - settings.windows.lateness
    return (
        state if state.watermark_ms is not None and state.watermark_ms >= risen else replace(state, watermark_ms=risen)
    )


def flush(
    settings: Settings, references: References, states: Mapping[Partition, State], pairs_partitions: int = 0
) -> tuple[dict[Partition, State], list[Outgoing]]:
    """The end of a transaction: the states with nothing pending, and what was pending as records of all tasks merged.

    `references` must be the view the steps saw, `pairs_partitions` counts those of drift.pairs; 0: no halves are sent.
    Partial profiles and samples come sorted by model, version, window and reference; then halves by model, source and
    target.
    """
    folded = {place: _folded(settings, references, place, state) for place, state in states.items()}
    partials = _gathered(partial for place in sorted(folded) for partial in folded[place].partials)
    samples = _gathered(sample for place in sorted(folded) for sample in folded[place].samples)
    outgoing = [
        _record(PARTIAL, piece)
        for name in sorted(partials)
        for piece in summaries.split(summaries.merge(partials[name], settings.outliers.per_window))
    ] + [
        _record(SAMPLE, piece)
        for name in sorted(samples)
        for piece in summaries.split_sample(summaries.merge_samples(samples[name], settings.sample_rows))
    ]
    if pairs_partitions:
        outgoing += _halves_records([block for state in folded.values() for block in state.halves], pairs_partitions)
    return {place: replace(state, partials=(), samples=(), halves=()) for place, state in folded.items()}, outgoing


def pending(states: Mapping[Partition, State]) -> tuple[int, int]:
    """How many partial profiles wait to be flushed, and about how many bytes they and the waiting events hold."""
    size, count = 0, 0
    for state in states.values():
        parts: list[Partial | Sample] = [*state.partials, *state.samples]
        count += len(parts)
        size += sum(map(_size, parts)) + sum(map(halves.size_of, state.halves))
        size += sum(len(value) for waiting in state.waiting for value in waiting.events.values)
    return count, size


def _read(settings: Settings, references: References, state: State, batch: Batch) -> Events | Labels:
    if batch.topic in settings.feedback:
        return feedback.decode(batch, settings.limits, settings.windows.max_future)
    guess = _guess(settings, references, state, batch)
    return inbound.decode(batch, settings.limits, settings.windows.max_future, guess=guess)


def _guess(settings: Settings, references: References, state: State, batch: Batch) -> Guess | None:
    """What most records of a batch likely are, to decode features along the way. A wrong guess costs time alone."""
    first = inbound.guess_of(batch)
    if first is None:
        return None
    about_ms = batch.timestamps_ms[0] if state.newest_ms is None else state.newest_ms
    tables = references.at(first.model_id, first.model_version, about_ms)
    if tables is None:
        return None
    shape = _reader(settings, tables).features.shape_like(first.features)
    return Guess(first.model_id, first.model_version, shape)


def _controls(settings: Settings, batch: Batch) -> Outputs:
    """Control events are copied to every partition: no state, and no time, comes of them."""
    records: list[Outgoing] = []
    counts = {"ok": 0, "malformed": 0, "tombstone": 0}
    for row, value in enumerate(batch.values):
        if value is None:
            counts["tombstone"] += 1
            continue
        event = control.decode(value, settings.limits)
        if isinstance(event, codec.Malformed):
            counts["malformed"] += 1
            records.append(dead_letter(batch, row, event, CONTROL_FORMAT))
        else:
            counts["ok"] += 1
            records.append(control.forwarded(event))
    return Outputs(records, counts)


def _too_many_models(
    settings: Settings, references: References, read: Events | Labels
) -> list[tuple[int, codec.Malformed]]:
    """What is of model versions the view does not hold, once it holds as many as allowed; a label knows models only."""
    known = references.versions()
    if len(known) < settings.limits.models:
        return []
    names: Iterable[object] = zip(read.model_ids, read.model_versions, strict=True)
    held: set[object] = set(known)
    if isinstance(read, Labels):
        names, held = read.model_ids, {model_id for model_id, _ in known}
    fault = codec.Malformed("too_many_models", f"$.model_id: {settings.limits.models} model versions are known already")
    return [(row, fault) for row, name in zip(read.index.tolist(), names, strict=True) if name not in held]


def _without(read: Events | Labels, refused: set[int]) -> Events | Labels:
    """Less some rows of the batch; what else was counted stays."""
    keep = np.flatnonzero([row not in refused for row in read.index.tolist()])
    rest = feedback.pick(read, keep) if isinstance(read, Labels) else inbound.pick(read, keep)
    return replace(rest, tombstones=read.tombstones, unknown_fields=read.unknown_fields)


def _waiting(settings: Settings, batch: Batch, events: Events, lateness: windows.Lateness) -> Waiting:
    times_ms = np.where(lateness.mask, lateness.watermarks, events.time_ms)
    places = events.index.tolist()
    return Waiting(
        events=events,
        offsets=np.array(batch.offsets, dtype=np.int64)[events.index],
        times_ms=times_ms,
        windows_ms=windows.start_of(times_ms, settings.windows.size),
        late=lateness.mask,
        headers=[batch.headers[place] for place in places],
    )


def _folded(settings: Settings, references: References, place: Partition, state: State) -> State:
    """The state with its waiting events folded into partial profiles and samples."""
    partials, samples, blocks = list(state.partials), list(state.samples), list(state.halves)
    for waiting in _joined(state.waiting):
        for (model_id, version), picks in inbound.by_model(waiting.events).items():
            group = Group(model_id, version, *place)
            own = _picked(waiting, picks)
            for tables, inside in _by_reference(references, group, own.windows_ms):
                some = _picked(own, inside)
                cells = None
                if settings.feedback:
                    times = halves.Times(some.offsets, some.times_ms, some.events.time_ms)
                    block, cells = _answered(settings, tables, group, some.events, times)
                    blocks.append(block)
                if tables is None:
                    samples += _sampled(settings, group, some)
                else:
                    partials += _profiled(settings, tables, group, some, cells)
    return replace(
        state,
        waiting=(),
        partials=tuple(summaries.merge(same) for same in _gathered(partials).values()),
        samples=tuple(summaries.merge_samples(same, settings.sample_rows) for same in _gathered(samples).values()),
        halves=tuple(blocks),
    )


def _by_reference(references: References, group: Group, windows_ms: Ints) -> list[tuple[Tables | None, Ints]]:
    """The rows of each reference: event time decides which one was in force when their window began."""
    starts = np.unique(windows_ms).tolist()
    found = {start: references.at(group.model_id, group.model_version, start) for start in starts}
    if len(set(map(_id_of, found.values()))) == 1:
        return [(found[starts[0]], np.arange(len(windows_ms), dtype=np.int64))]
    by_id: dict[str, list[int]] = {}
    for window_ms in starts:
        by_id.setdefault(_id_of(found[window_ms]), []).append(window_ms)
    return [(found[own[0]], np.flatnonzero(np.isin(windows_ms, own))) for own in by_id.values()]


def _id_of(tables: Tables | None) -> str:
    """The reference id, empty for none."""
    return "" if tables is None else tables.reference.reference_id


def _profiled(
    settings: Settings, tables: Tables, group: Group, some: Waiting, score_cells: Ints | None
) -> list[Partial]:
    late = np.flatnonzero(some.late)
    partials = []
    if len(late):
        lost = _picked(some, late)
        segments = extract.segments(tables.layout, lost.events.tags)
        partials += summaries.late(tables.layout, group, segments, lost.windows_ms)
        score_cells = None if score_cells is None else score_cells[~some.late]
        some = _picked(some, np.flatnonzero(~some.late))
    if not len(some.offsets):
        return partials
    reader = _reader(settings, tables)
    features = reader.features.decode(some.events.features, some.events.values)
    columns = extract.columns(some.events, some.offsets, features)
    rows = extract.rows(tables.layout, columns)
    judged = outliers.score(reader.judge, rows)
    source = outliers.Source(
        group.topic, group.partition, lambda row: _trace(some.headers[row]), settings.include_values
    )
    return partials + summaries.fold(
        tables.layout,
        group,
        rows,
        judged,
        some.windows_ms,
        some.offsets,
        worst=outliers.worst(
            tables.layout, columns, rows, judged, some.windows_ms, reader.told_from, settings.outliers, source
        ),
        unknown=_unknown(reader, some, features),
        scores=score_cells,
    )


def _labelled(
    settings: Settings, references: References, batch: Batch, labels: Labels, lateness: windows.Lateness
) -> list[Halves]:
    """The halves of labels, and of the predictions some repeat.

    These are taken as of their label where they are older: so the two are always close enough to make a pair, and never
    behind what has been joined. For the delay they keep their own time.
    """
    offsets = np.array(batch.offsets, dtype=np.int64)[labels.index]
    times_ms = np.where(lateness.mask, lateness.watermarks, labels.time_ms)
    blocks = []
    for model_id, picks in feedback.by_model(labels).items():
        own = feedback.pick(labels, picks)
        source = halves.Source(model_id, batch.topic, batch.partition)
        block = halves.of_labels(source, own, halves.Times(offsets[picks], times_ms[picks], own.time_ms))
        blocks.append(halves.sampled(block, settings.sample))
    repeated, answers = labels.repeated, labels.predictions
    answered_ms = np.maximum(answers.time_ms, times_ms[repeated])
    for (model_id, version), picks in inbound.by_model(answers).items():
        group = Group(model_id, version, batch.topic, batch.partition)
        windows_ms = windows.start_of(answered_ms[picks], settings.windows.size)
        for tables, inside in _by_reference(references, group, windows_ms):
            rows = picks[inside]
            some = inbound.pick(answers, rows)
            times = halves.Times(offsets[repeated[rows]], answered_ms[rows], some.time_ms)
            blocks.append(_answered(settings, tables, group, some, times)[0])
    return blocks


def _answered(
    settings: Settings, tables: Tables | None, group: Group, events: Events, times: halves.Times
) -> tuple[Halves, Ints]:
    """The halves of predictions of one model version and reference, and the cell of each one's score."""
    source = halves.Source(group.model_id, group.topic, group.partition)
    model = settings.models.get(group.model_id, _UNLISTED)
    answers = halves.answers_of(events, model)
    layout = None if tables is None else tables.layout
    block = halves.of_predictions(source, group.model_version, events, answers, times, layout)
    return halves.sampled(block, settings.sample), halves.cells_of(answers, model)


def _unknown(reader: Reader, some: Waiting, features: Columns) -> dict[int, list[UnknownFeature]]:
    """Unknown feature names by window. The decoder counts them for all rows; with several windows it looks again."""
    starts = np.unique(some.windows_ms).tolist() if features.unknown else []
    found = {}
    for window_ms in starts:
        inside = np.flatnonzero(some.windows_ms == window_ms)
        own = _picked(some, inside).events
        counted = features if len(starts) == 1 else reader.features.decode(own.features, own.values)
        found[window_ms] = summaries.unknown_features(counted.unknown)
    return found


def _sampled(settings: Settings, group: Group, some: Waiting) -> list[Sample]:
    late = np.flatnonzero(some.late)
    samples = summaries.late_sample(group, some.windows_ms[late]) if len(late) else []
    some = _picked(some, np.flatnonzero(~some.late))
    if not len(some.offsets):
        return samples
    events = some.events
    hashes = codec.hashes(b"", map(str.encode, events.prediction_ids))
    return samples + summaries.sample(
        group,
        some.windows_ms,
        some.offsets,
        hashes,
        lambda row: cuts.encode_row(cuts.row_of(events, row)),
        settings.sample_rows,
    )


@lru_cache(maxsize=4096)
def _reader(settings: Settings, tables: Tables) -> Reader:
    reference = tables.reference
    names = [extract.feature_names(reference, kind) for kind in ("numeric", "categorical", "boolean")]
    return Reader(
        features=FeatureDecoder(*names),
        judge=outliers.compile_judge(tables.layout),
        told_from=outliers.threshold(reference, settings.outliers, settings.period_ms),
    )


def _picked(waiting: Waiting, picks: Ints) -> Waiting:
    if len(picks) == len(waiting.offsets):
        return waiting
    return Waiting(
        events=inbound.pick(waiting.events, picks),
        offsets=waiting.offsets[picks],
        times_ms=waiting.times_ms[picks],
        windows_ms=waiting.windows_ms[picks],
        late=waiting.late[picks],
        headers=[waiting.headers[place] for place in picks.tolist()],
    )


def _joined(parts: Sequence[Waiting]) -> list[Waiting]:
    """All that waits as one, since polls may be small."""
    if len(parts) <= 1:
        return list(parts)
    return [
        Waiting(
            events=inbound.join([part.events for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            times_ms=np.concatenate([part.times_ms for part in parts]),
            windows_ms=np.concatenate([part.windows_ms for part in parts]),
            late=np.concatenate([part.late for part in parts]),
            headers=[headers for part in parts for headers in part.headers],
        )
    ]


def _gathered(parts: Iterable[Any]) -> dict[tuple[Any, ...], list[Any]]:
    """Partials, or samples, that belong together."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for part in parts:
        name = (part.model_id, part.model_version, part.window_start_ms, getattr(part, "reference_id", ""))
        found.setdefault(name, []).append(part)
    return found


def _trace(headers: Headers | None) -> str | None:
    """The trace context of a record, for those who follow an outlier to its request."""
    value = next((value for name, value in headers or () if name == "traceparent"), None)
    return None if value is None else value.decode("ascii", "replace")


def _record(kind: str, piece: Partial | Sample) -> Outgoing:
    return Outgoing("profiles", piece.model_id.encode(), codec.encode(piece, kind), (("drift-format", kind.encode()),))


def _halves_records(blocks: Sequence[Halves], partitions: int) -> list[Outgoing]:
    """Halves of one model and source partition together, a record per target partition; more where it were too long."""
    found: dict[tuple[str, str, int], list[Halves]] = {}
    for block in blocks:
        found.setdefault((block.model_id, block.topic, block.partition), []).append(block)
    return [
        Outgoing(
            "pairs",
            piece.model_id.encode(),
            codec.encode(piece, HALVES),
            (("drift-format", HALVES.encode()),),
            partition=target,
        )
        for name in sorted(found)
        for target, piece in halves.routed(halves.merge(found[name]), partitions)
    ]


def _size(part: Partial | Sample) -> int:
    if isinstance(part, Sample):
        return sum(len(row.row) for row in part.sample)
    return _CELL_BYTES * (part.counts.size + part.moments.size + part.scores.size)
