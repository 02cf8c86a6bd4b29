"""A run once more, from what it left in the log: the stages alone, one record at a time, no clock, no group, no broker.

When an idle input let time pass, which references had been heard, how transactions were cut: whatever a live run did
by the clock stands as a fact in the watermark records of `drift.profiles`. With these facts the public topics are a
function of the inputs, for every interleaving; a difference is a bug (`reliability.md` 1, oracle O2).
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from stream.wire import codec
from stream.wire.internal import WATERMARKS, SourceMark, Watermarks
from stream.wire.record import EVERY_PARTITION, Batch, Outgoing, Record
from stream.worker.ends import Partition
from stream.worker.stages import Stages


class Run(Struct, frozen=True):
    """What a run that began with its inputs has left behind: records in offset order, as committed readers see them."""

    inputs: Mapping[Partition, Sequence[Record]]
    profiles: Sequence[Sequence[Record]]
    """By partition of `drift.profiles`. Its watermark records are read, its profiles are made anew."""
    references: Sequence[Record]
    """All of `drift.references`, those the run itself has learned among them."""
    pairs: Sequence[Sequence[Record]] = ()
    """By partition of `drift.pairs`, nothing where there was no feedback. Its watermark records are read, the halves
    are made anew."""


class Differs(Exception):
    """The inputs are not those the run has read: a watermark comes out otherwise."""


def rerun(run: Run, stages: Stages, *, lateness_ms: int, on_output: Callable[[Outgoing], None]) -> None:
    """Do everything again that the run has committed; `on_output` hears what it publishes, in order per key.

    A learned reference is published too, but the one used is that of the log, since its place there is a fact. Costs
    what the run has cost the stages, at batches of one record.
    """
    facts = [list(_facts(records)) for records in run.profiles]
    views = _views(stages, run.references)
    ingest = _Ingest(stages, run.inputs, views, lateness_ms, len(run.pairs))
    join = _Join(stages, run.pairs)
    made: dict[bytes, deque[list[Outgoing]]] = defaultdict(deque)
    """What the transactions have told detect, by their watermark record: every partition has them all."""
    for fact in facts[0] if facts else ():
        marks = _opened(fact)
        if (marks.sources[0].topic, marks.sources[0].partition) in run.inputs:
            told, letters = ingest.transaction(marks)
            join.hear(fact.value or b"", [one for one in told if one.role == "pairs"])
            made[fact.value or b""].append([one for one in told if one.role == "profiles"])
            for letter in letters:
                on_output(letter)
        else:
            made[fact.value or b""].append(join.transaction(marks))
    for own in facts:
        waiting = {name: deque(told) for name, told in made.items()}
        state = stages.detect_start()
        for fact in own:
            for record in _told_before(fact, waiting[fact.value or b""].popleft(), len(facts)):
                state, outputs = stages.detect_step(views[max(views)], state, [record])
                for output in outputs:
                    on_output(output)


class _Ingest:
    """The ingest tasks of all partitions, transaction by transaction."""

    def __init__(
        self,
        stages: Stages,
        inputs: Mapping[Partition, Sequence[Record]],
        views: Mapping[int, Any],
        lateness_ms: int,
        pairs_partitions: int,
    ) -> None:
        self._stages = stages
        self._inputs = {partition: deque(records) for partition, records in inputs.items()}
        self._views = views
        self._lateness_ms = lateness_ms
        self._pairs_partitions = pairs_partitions
        self._states: dict[Partition, Any] = {}

    def transaction(self, marks: Watermarks) -> tuple[list[Outgoing], list[Outgoing]]:
        """What one transaction has told join and detect, in the order of the worker, and its dead letters.

        Control events first, then profiles, samples and halves by key.
        """
        view = self._views[marks.references_offset]
        told = [output for mark in marks.sources for output in self._source(view, mark)]
        places = [(mark.topic, mark.partition) for mark in marks.sources]
        states, partials = self._stages.ingest_flush(
            view, {place: self._states[place] for place in places}, self._pairs_partitions
        )
        self._states |= states
        events = [output for output in told if output.role == "profiles"]
        letters = [output for output in told if output.role != "profiles"]
        return [*events, *sorted(partials, key=lambda output: output.key or b"")], letters

    def _source(self, view: Any, mark: SourceMark) -> list[Outgoing]:
        """One partition up to where the transaction had read it; a tick comes behind its records."""
        place = (mark.topic, mark.partition)
        state = self._states.get(place) or self._stages.ingest_start(None)
        records, told = self._inputs[place], list[Outgoing]()
        while records and records[0].offset < mark.next_offset:
            state, outputs = self._stages.ingest_step(view, state, _batch(records.popleft()))
            told += outputs.records
        if mark.tick and mark.watermark_ms is not None:
            state = self._stages.ingest_tick(state, mark.watermark_ms + self._lateness_ms)
        if state.watermark_ms != mark.watermark_ms:
            raise Differs(f"{place} at {mark.next_offset}: watermark {state.watermark_ms}, was {mark.watermark_ms}")
        self._states[place] = state
        return told


class _Join:
    """The join tasks of all partitions of `drift.pairs`, each as far as its watermark records say."""

    def __init__(self, stages: Stages, pairs: Sequence[Sequence[Record]]) -> None:
        self._stages = stages
        self._facts = [deque(_facts(records)) for records in pairs]
        self._halves: list[dict[bytes, deque[list[Outgoing]]]] = [defaultdict(deque) for _ in pairs]
        """Per partition what the transactions have told it, by their watermark record."""
        self._states = [stages.join_start(0, 0) for _ in pairs]

    def hear(self, fact: bytes, told: Sequence[Outgoing]) -> None:
        """What a transaction of ingest has told join."""
        for halves in self._halves:
            halves[fact].append(list(told))

    def transaction(self, marks: Watermarks) -> list[Outgoing]:
        """The outcomes of one transaction, sorted by key."""
        outcomes: list[Outgoing] = []
        for mark in marks.sources:
            outcomes += self._source(mark)
        return sorted(outcomes, key=lambda output: output.key or b"")

    def _source(self, mark: SourceMark) -> list[Outgoing]:
        facts, outcomes = self._facts[mark.partition], list[Outgoing]()
        state = self._states[mark.partition]
        while facts and facts[0].offset < mark.next_offset:
            fact = facts.popleft()
            told = self._halves[mark.partition][fact.value or b""].popleft()
            for record in _told_before(fact, told, len(self._facts)):
                state, outputs = self._stages.join_step(state, [record])
                outcomes += outputs.records
        if (reached := self._stages.join_watermark(state)) != mark.watermark_ms:
            raise Differs(f"{mark.topic} {mark.partition}: watermark {reached}, was {mark.watermark_ms}")
        self._states[mark.partition] = state
        return outcomes


def _told_before(fact: Record, told: Sequence[Outgoing], partitions: int) -> list[Record]:
    """What of a transaction stands in the partition of its watermark record, and then this."""
    here = [one for one in told if _place(one, partitions) in {EVERY_PARTITION, fact.partition}]
    records = [Record(fact.topic, fact.partition, fact.offset, 0, one.key, one.value, one.headers) for one in here]
    return [*records, fact]


def _place(one: Outgoing, partitions: int) -> int:
    if one.partition is None or one.partition == EVERY_PARTITION:
        return EVERY_PARTITION if one.partition else codec.partition_of(one.key, partitions)
    return one.partition % partitions


def _facts(records: Sequence[Record]) -> Iterator[Record]:
    return (record for record in records if record.value is not None and codec.kind_of(record.value) == WATERMARKS)


def _opened(fact: Record) -> Watermarks:
    marks = codec.decode(fact.value or b"", Watermarks, WATERMARKS)
    if isinstance(marks, codec.Malformed):
        raise Differs(f"{fact.topic} offset {fact.offset}: {marks.code}: {marks.detail}")
    return marks


def _views(stages: Stages, references: Sequence[Record]) -> dict[int, Any]:
    """The view at every offset it ever had."""
    view = stages.references()
    views = {view.offset: view}
    for record in references:
        view = view.apply(record)
        views[view.offset] = view
    return views


def _batch(record: Record) -> Batch:
    headers = record.headers or None
    return Batch(
        record.topic,
        record.partition,
        [record.offset],
        [record.timestamp_ms],
        [record.key],
        [record.value],
        [headers],
    )
