"""What ingest promises: every event in one profile, or counted; nothing depends on how the log was cut."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from flows import (
    COUNTRIES,
    MINUTE_MS,
    PER_WINDOW,
    START_MS,
    STEP_MS,
    Stream,
    batch_of,
    built,
    moved,
    replace_topic,
    view,
    windows,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stream.profiles import summaries
from stream.profiles.reference import References
from stream.signals.outcomes import SCORE_CELLS, score_cells
from stream.stages import ingest
from stream.wire import codec, control
from stream.wire.inbound import Limits
from stream.wire.internal import HALVES, PARTIAL, SAMPLE, Halves, Partial, Reference, Sample, ScoreOf
from stream.wire.record import Batch, Outgoing

HERE = ("predictions", 0)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return built()


@pytest.fixture(scope="module")
def known(reference: Reference) -> References:
    return view(reference)


def opened(records: Sequence[Outgoing]) -> list[Partial | Sample]:
    """What a flush says, decoded."""
    found: list[Partial | Sample] = []
    for record in records:
        shape = Partial if codec.kind_of(record.value or b"") == PARTIAL else Sample
        part = codec.decode(record.value or b"", shape)
        assert isinstance(part, Partial | Sample)
        assert (record.role, record.key) == ("profiles", part.model_id.encode())
        assert dict(record.headers)["drift-format"].decode() in {PARTIAL, SAMPLE}
        found.append(part)
    return found


def flushed(
    references: References,
    values: Sequence[bytes | None],
    settings: ingest.Settings | None = None,
    watermark_ms: int | None = None,
) -> tuple[list[Partial | Sample], ingest.State, dict[str, int], list[Outgoing]]:
    """One batch in one transaction."""
    settings = settings or ingest.Settings()
    state, outputs = ingest.step(settings, references, ingest.start(watermark_ms), batch_of(values))
    states, records = ingest.flush(settings, references, {HERE: state})
    return opened(records), states[HERE], outputs.counts, outputs.records


def by_segment(part: Partial, reference: Reference) -> dict[str, int]:
    """Rows by segment name."""
    names = ["all", *(f"country={value}" for value in reference.segments["country"]), "country=other"]
    return {names[index]: rows for index, rows in zip(part.segments.tolist(), part.rows.tolist(), strict=True)}


# -- windows, references, segments -------------------------------------------------------------------------------------


def test_every_event_is_in_the_profile_of_its_window_once_for_all_and_once_per_segment_key(
    known: References, reference: Reference
) -> None:
    parts, state, counts, _ = flushed(known, Stream().records(3 * PER_WINDOW + 10))
    assert [part.window_start_ms for part in parts] == [START_MS + index * MINUTE_MS for index in range(4)]
    rows = [by_segment(part, reference) for part in parts if isinstance(part, Partial)]
    assert [one["all"] for one in rows] == [PER_WINDOW] * 3 + [10]
    assert all(sum(one.get(f"country={value}", 0) for value in COUNTRIES) == one["all"] for one in rows)
    assert counts["ok"] == 3 * PER_WINDOW + 10
    assert state.watermark_ms == START_MS + (3 * PER_WINDOW + 9) * STEP_MS - ingest.Settings().windows.lateness


def test_a_tag_value_the_reference_does_not_know_is_in_the_segment_other(
    known: References, reference: Reference
) -> None:
    rows = Stream().rows(10)
    for row, tags in zip(rows, [{"country": "FR"}, {"country": 7}, {}, {"town": "Linz"}], strict=False):
        row["tags"] = tags
    (part,), *_ = flushed(known, [orjson.dumps(row) for row in rows])
    assert isinstance(part, Partial)
    assert by_segment(part, reference)["all"] == 10
    assert by_segment(part, reference)["country=other"] == 4


def test_the_spans_of_a_profile_name_the_offsets_of_its_own_events(known: References) -> None:
    parts, *_ = flushed(known, Stream().records(2 * PER_WINDOW))
    spans = [(span.topic, span.partition, span.first_offset, span.last_offset) for part in parts for span in part.spans]
    assert spans == [("predictions", 0, 0, PER_WINDOW - 1), ("predictions", 0, PER_WINDOW, 2 * PER_WINDOW - 1)]


def test_a_reference_published_in_the_middle_is_chosen_by_the_start_of_the_window(reference: Reference) -> None:
    newer = built(Stream(seed=98), effective_from_ms=START_MS + 2 * MINUTE_MS + 1)
    references = view(reference, newer)
    parts, *_ = flushed(references, Stream().records(5 * PER_WINDOW))
    assert [part.reference_id for part in parts if isinstance(part, Partial)] == (
        [reference.reference_id] * 3 + [newer.reference_id] * 2
    )
    # Whatever is newest, and in whatever order it was heard.
    assert [
        part.reference_id
        for part in flushed(view(newer, reference), Stream().records(10))[0]
        if isinstance(part, Partial)
    ] == [reference.reference_id]


def test_events_before_the_first_reference_are_sampled_and_later_ones_profiled() -> None:
    references = view(built(effective_from_ms=START_MS + MINUTE_MS))
    parts, *_ = flushed(references, Stream().records(2 * PER_WINDOW))
    assert [(type(part), part.window_start_ms) for part in parts] == [
        (Partial, START_MS + MINUTE_MS),
        (Sample, START_MS),
    ]


def test_a_sample_is_the_rows_of_smallest_id_hash_whatever_the_order() -> None:
    values = Stream().records(PER_WINDOW)
    small = ingest.Settings(sample_rows=50)
    (one,), *_ = flushed(References.empty(), values, small)
    disordered = [values[place] for first in range(0, PER_WINDOW, 100) for place in range(first + 99, first - 1, -1)]
    (other,), *_ = flushed(References.empty(), disordered, small)
    assert isinstance(one, Sample)
    assert isinstance(other, Sample)
    assert one.sample == other.sample
    assert one.rows == PER_WINDOW
    hashes = sorted(codec.hash64(orjson.loads(value)["prediction_id"]) for value in values)
    assert [row.id_hash for row in one.sample] == hashes[:50]


# -- lateness ----------------------------------------------------------------------------------------------------------


def test_a_late_event_is_in_no_profile_but_counted_in_the_window_that_held_the_watermark(known: References) -> None:
    rows = Stream().rows(2 * PER_WINDOW)
    late = [moved(row, -10 * MINUTE_MS) for row in Stream(prefix="late").rows(7)]
    values = [orjson.dumps(row) for row in rows]
    parts, state, counts, _ = flushed(known, values + late)
    assert (counts["ok"], counts["late"]) == (2 * PER_WINDOW, 7)
    assert all(isinstance(part, Partial) for part in parts)
    assert [int(part.rows[0]) for part in parts if isinstance(part, Partial)] == [PER_WINDOW] * 2
    # The watermark stands 30 s before the last event: in the second window.
    assert [int(part.late[0]) for part in parts if isinstance(part, Partial)] == [0, 7]
    assert state.watermark_ms == START_MS + (2 * PER_WINDOW - 1) * STEP_MS - 30_000
    counts_only, *_ = flushed(known, values)
    for part, without in zip(parts, counts_only, strict=True):
        assert isinstance(part, Partial)
        assert isinstance(without, Partial)
        assert (part.counts == without.counts).all()
        assert (part.moments == without.moments).all()


def test_a_late_event_without_a_reference_is_counted_and_not_sampled() -> None:
    rows = Stream().rows(PER_WINDOW)
    late = moved(Stream(prefix="late").rows(1)[0], -10 * MINUTE_MS)
    (sample,), _, counts, _ = flushed(References.empty(), [*map(orjson.dumps, rows), late])
    assert isinstance(sample, Sample)
    assert (sample.rows, sample.late, counts["late"]) == (PER_WINDOW, 1, 1)


def test_an_event_within_lateness_is_in_time_and_the_watermark_of_a_task_taken_over_still_counts(
    known: References,
) -> None:
    row = Stream().rows(1)[0]
    for watermark_ms, outcome in ((START_MS, "ok"), (START_MS + 1, "late")):
        _, state, counts, _ = flushed(known, [orjson.dumps(row)], watermark_ms=watermark_ms)
        assert counts[outcome] == 1
        assert state.watermark_ms == watermark_ms


def test_a_tick_raises_the_watermark_and_never_lowers_it() -> None:
    settings = ingest.Settings(windows=windows(lateness="10s"))
    state = ingest.tick(settings, ingest.start(None), START_MS)
    assert state.watermark_ms == START_MS - 10_000
    assert ingest.tick(settings, state, START_MS - 1).watermark_ms == START_MS - 10_000
    assert ingest.tick(settings, state, START_MS + 1).watermark_ms == START_MS - 9_999


def test_an_event_behind_a_tick_is_late(known: References) -> None:
    settings = ingest.Settings()
    state = ingest.tick(settings, ingest.start(None), START_MS + MINUTE_MS)
    _, outputs = ingest.step(settings, known, state, batch_of(Stream().records(1)))
    assert (outputs.counts["ok"], outputs.counts["late"]) == (0, 1)


# -- nothing depends on the cut ----------------------------------------------------------------------------------------


def whole(references: References, values: Sequence[bytes | None], cuts: Sequence[int], flushes: Sequence[bool]) -> Any:
    """All that a log comes to when it is polled and committed at the given places: sums by window and reference."""
    settings, state = ingest.Settings(sample_rows=64), ingest.start(None)
    records: list[Outgoing] = []
    dead: list[Outgoing] = []
    counts: Counter[str] = Counter()
    edges = [0, *cuts, len(values)]
    for first, stop, flush in zip(edges[:-1], edges[1:], [*flushes, True], strict=True):
        state, outputs = ingest.step(settings, references, state, batch_of(values[first:stop], first_offset=first))
        dead += outputs.records
        counts.update(outputs.counts)
        if flush:
            states, more = ingest.flush(settings, references, {HERE: state})
            state, records = states[HERE], records + list(more)
    assert ingest.pending({HERE: state}) == (0, 0)
    return _merged(opened(records)), state.watermark_ms, dead, counts


def _merged(parts: Sequence[Partial | Sample]) -> dict[Any, bytes]:
    """The sums that detect makes."""
    found: dict[Any, list[Any]] = {}
    for part in parts:
        name = (type(part).__name__, part.window_start_ms, getattr(part, "reference_id", ""))
        found.setdefault(name, []).append(part)
    return {
        name: codec.encode(
            summaries.merge(same) if name[0] == "Partial" else summaries.merge_samples(same, 64), "sum/1"
        )
        for name, same in found.items()
    }


def strange(values: list[bytes]) -> list[bytes | None]:
    """A log with everything in it: bad and late records, tombstones, unknown features, outliers."""
    found: list[bytes | None] = list(values)
    found[3::50] = [b'{"prediction_id": 1}'] * len(found[3::50])
    found[7::60] = [None] * len(found[7::60])
    for place in range(11, len(found), 40):
        row = orjson.loads(values[place])
        row["features"] |= {f"new_{place % 3}": place, "amount": 1e9}
        found[place] = orjson.dumps(row)
    for place in range(600, len(found), 90):
        found[place] = moved(orjson.loads(values[place]), -5 * MINUTE_MS)
    return found


@pytest.fixture(scope="module")
def log() -> list[bytes | None]:
    return strange(Stream().records(4 * PER_WINDOW))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_poll_sizes_and_commit_moments_change_no_sum(
    data: st.DataObject, reference: Reference, log: list[bytes | None]
) -> None:
    references = view(built_later(reference))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(log) - 1), max_size=12)))
    flushes = data.draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))
    assert whole(references, log, cuts, flushes) == whole(references, log, [], [])


def built_later(reference: Reference) -> Reference:
    """The same in force from the second window on: the first one is sampled."""
    return codec.named(replace(reference, reference_id="", effective_from=codec.rfc3339(START_MS + MINUTE_MS)))


def test_one_poll_per_record_gives_the_sums_of_one_poll_for_all(known: References, log: list[bytes | None]) -> None:
    some = log[:700]
    everywhere = range(1, len(some))
    assert whole(known, some, everywhere, [False] * len(everywhere)) == whole(known, some, [], [])
    assert whole(known, some, everywhere, [True] * len(everywhere)) == whole(known, some, [], [])


def test_partitions_merge_into_the_profile_of_one(known: References) -> None:
    settings, values = ingest.Settings(), Stream().records(2 * PER_WINDOW)
    states = {}
    for partition in range(3):
        state, _ = ingest.step(settings, known, ingest.start(None), batch_of(values[partition::3], partition))
        states["predictions", partition] = state
    parts = opened(ingest.flush(settings, known, states)[1])
    alone, *_ = flushed(known, values)
    assert len(parts) == len(alone) == 2
    for part, other in zip(parts, alone, strict=True):
        assert isinstance(part, Partial)
        assert isinstance(other, Partial)
        assert (part.counts == other.counts).all()
        assert len(part.spans) == 3


def test_an_old_state_can_be_taken_up_again(known: References) -> None:
    """An abort is to forget the new state: what was done to it has not touched the old one."""
    settings, values = ingest.Settings(), Stream().records(6_000)
    old, _ = ingest.step(settings, known, ingest.start(None), batch_of(values[:3_000]))
    before = ingest.flush(settings, known, {HERE: old})[1]
    ahead, _ = ingest.step(settings, known, old, batch_of(values[3_000:], first_offset=3_000))
    ingest.flush(settings, known, {HERE: ahead})
    ingest.tick(settings, ahead, START_MS * 2)
    assert ingest.flush(settings, known, {HERE: old})[1] == before


def test_what_waits_is_told_so_that_transactions_can_end_early(known: References) -> None:
    settings, values = ingest.Settings(), Stream().records(100)
    state, _ = ingest.step(settings, known, ingest.start(None), batch_of(values))
    assert ingest.pending({HERE: state}) == (0, sum(map(len, values)))
    state, _ = ingest.step(settings, known, state, batch_of(Stream().records(ingest.FOLD_ROWS), first_offset=100))
    partials, size = ingest.pending({HERE: state})
    assert partials >= ingest.FOLD_ROWS // PER_WINDOW
    assert size > 0


# -- halves of pairs ---------------------------------------------------------------------------------------------------

JOINING = ingest.Settings(feedback=("feedback",))


def blocks(records: Sequence[Outgoing], partitions: int) -> list[Halves]:
    """The pair blocks of a flush, decoded."""
    found = []
    for record in records:
        if record.role == "pairs":
            block = codec.decode(record.value or b"", Halves, HALVES)
            assert isinstance(block, Halves)
            assert dict(record.headers)["drift-format"] == HALVES.encode()
            assert {key % partitions for key in block.keys.view(np.uint64).tolist()} == {record.partition}
            found.append(block)
    return found


def rows_of(found: Sequence[Halves]) -> list[tuple[Any, ...]]:
    """Halves as rows, by key and place."""
    return sorted(
        (
            key,
            block.topic,
            block.partition,
            int(block.offsets[row]),
            bool(block.labels[row]),
            int(block.times_ms[row]),
            int(block.own_times_ms[row]),
            block.versions[block.version[row]] if block.version[row] >= 0 else None,
            block.classes[block.label[row]] if block.label[row] >= 0 else None,
            str(block.scores[row]),
            int(block.score_of[row]),
            str(block.values[row]),
            tuple(block.segments[block.segment[row]]) if block.segment[row] >= 0 else None,
        )
        for block in found
        for row, key in enumerate(block.keys.tolist())
    )


def joined(
    references: References,
    values: Sequence[bytes | None],
    cuts: Sequence[int] = (),
    partitions: int = 3,
    settings: ingest.Settings = JOINING,
) -> list[tuple[Any, ...]]:
    """All halves of a log of predictions, cut into transactions."""
    state, found = ingest.start(None), []
    edges = [0, *cuts, len(values)]
    for first, stop in pairwise(edges):
        state, _ = ingest.step(settings, references, state, batch_of(values[first:stop], first_offset=first))
        states, records = ingest.flush(settings, references, {HERE: state}, partitions)
        state = states[HERE]
        found += blocks(records, partitions)
    return rows_of(found)


def test_every_good_prediction_becomes_one_half_late_ones_as_of_the_watermark_they_met(
    known: References, log: list[bytes | None]
) -> None:
    rows = joined(known, log)
    state, outputs = ingest.step(JOINING, known, ingest.start(None), batch_of(log))
    assert len(rows) == outputs.counts["ok"] + outputs.counts["late"]
    late = [row for row in rows if row[5] != row[6]]
    assert len(late) == outputs.counts["late"] > 0
    assert all(time_ms > own_ms for *_, time_ms, own_ms, _, _, _, _, _, _ in late)
    assert {row[12] for row in rows} == {("country=AT",), ("country=DE",)}
    assert {row[7] for row in rows} == {"3"}
    assert ingest.pending({HERE: state})[1] > 0


def test_without_topics_of_feedback_there_are_no_halves_and_no_scores_and_nothing_else_changes(
    known: References, log: list[bytes | None]
) -> None:
    plain, _ = ingest.step(ingest.Settings(), known, ingest.start(None), batch_of(log))
    joining, _ = ingest.step(JOINING, known, ingest.start(None), batch_of(log))
    assert plain.halves == ()
    without = ingest.flush(ingest.Settings(), known, {HERE: plain}, 3)[1]
    assert {record.role for record in without} == {"profiles"}
    own = [record for record in ingest.flush(JOINING, known, {HERE: joining}, 3)[1] if record.role == "profiles"]
    assert own == ingest.flush(JOINING, known, {HERE: joining}, 0)[1]
    parts = [part for part in opened(own) if isinstance(part, Partial)]
    assert [codec.encode(replace(part, scores=part.scores[:, :0]), PARTIAL) for part in parts] == [
        record.value for record in without
    ]


def test_scores_are_counted_by_window_and_segment_late_ones_in_none(known: References, reference: Reference) -> None:
    rows = Stream().rows(2 * PER_WINDOW)
    late = [moved(row, -10 * MINUTE_MS) for row in Stream(prefix="late").rows(7)]
    values = [*map(orjson.dumps, rows), *late]
    parts, *_ = flushed(known, values, JOINING)
    for index, part in enumerate(parts):
        assert isinstance(part, Partial)
        own = [row["prediction"] for row in rows[index * PER_WINDOW : (index + 1) * PER_WINDOW]]
        scores = np.array([answer["score"] for answer in own])
        positive = np.array([answer["label"] == "1" for answer in own])
        known_labels, whose = np.ones(PER_WINDOW, dtype=np.bool_), np.full(PER_WINDOW, ScoreOf.POSITIVE)
        cells = score_cells(scores, whose, known_labels, positive)
        assert part.scores[0].tolist() == np.bincount(cells, minlength=SCORE_CELLS).tolist()
        assert part.scores[1:].sum(axis=0).tolist() == part.scores[0].tolist()
        assert by_segment(part, reference)["all"] == PER_WINDOW


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 1_199), max_size=6), partitions=st.integers(1, 4))
def test_poll_sizes_and_partitions_change_no_half(
    cuts: set[int], partitions: int, reference: Reference, log: list[bytes | None]
) -> None:
    references = view(built_later(reference))
    assert joined(references, log, sorted(cuts), partitions) == joined(references, log)


# -- labels ------------------------------------------------------------------------------------------------------------

THERE = ("feedback", 2)


def label(number: int, **changes: Any) -> bytes:
    """The true outcome of row `number` of a stream, known a minute after it."""
    fields = {
        "prediction_id": f"p-1-{number}",
        "model_id": "credit",
        "timestamp": START_MS + number * STEP_MS + MINUTE_MS,
        "actual": {"label": "approve" if number % 3 else "deny"},
    }
    return orjson.dumps(fields | changes)


def fed(values: Sequence[bytes | None], first_offset: int = 0) -> Batch:
    n = len(values)
    offsets = list(range(first_offset, first_offset + n))
    return Batch(*THERE, offsets, [START_MS * 2] * n, [None] * n, list(values), [None] * n)


def labelled(
    references: References, values: Sequence[bytes | None], cuts: Sequence[int] = (), watermark_ms: int | None = None
) -> tuple[list[tuple[Any, ...]], ingest.State, Counter[str], list[Outgoing]]:
    """All halves of a log of feedback, cut into transactions."""
    state, found = ingest.start(watermark_ms), []
    counts: Counter[str] = Counter()
    dead: list[Outgoing] = []
    for first, stop in pairwise([0, *cuts, len(values)]):
        state, outputs = ingest.step(JOINING, references, state, fed(values[first:stop], first))
        counts.update(outputs.counts)
        dead += outputs.records
        states, records = ingest.flush(JOINING, references, {THERE: state}, 3)
        assert {record.role for record in records} <= {"pairs"}
        state = states[THERE]
        found += blocks(records, 3)
    return rows_of(found), state, counts, dead


def test_a_label_meets_its_prediction_under_one_key(known: References) -> None:
    predictions = joined(known, Stream().records(40))
    labels, state, counts, _ = labelled(known, [label(number) for number in range(40)])
    assert [row[0] for row in predictions] == [row[0] for row in labels]
    assert {row[1:3] for row in labels} == {THERE}
    assert {row[4] for row in labels} == {True}
    assert {row[7:] for row in labels} == {(None, name, "nan", 0, "nan", None) for name in ("approve", "deny")}
    assert (counts["ok"], counts["late"]) == (40, 0)
    assert state.watermark_ms == START_MS + 39 * STEP_MS + 30_000


def test_a_late_label_is_taken_as_of_the_watermark_it_met_and_keeps_its_own_time(known: References) -> None:
    values = [label(0), label(1, timestamp=START_MS), label(2, actual={"value": 2.5}, model_version="4")]
    rows, _, counts, _ = labelled(known, values)
    of_offset = {row[3]: row for row in rows}
    assert of_offset[1][5:7] == (START_MS + 30_000, START_MS)
    assert of_offset[2][7:] == ("4", None, "nan", 0, "2.5", None)
    assert (counts["ok"], counts["late"]) == (2, 1)


def test_a_label_that_repeats_its_prediction_makes_both_halves_close_enough_to_meet(known: References) -> None:
    own = {"prediction": {"label": "deny", "score": 0.25}, "tags": {"country": "DE"}}
    values = [
        label(0, **own, prediction_timestamp=START_MS - 90 * 86_400_000),
        label(1, **own, prediction_timestamp=START_MS - 1, timestamp=START_MS - 5 * MINUTE_MS, model_version="3"),
        label(2, **own, prediction_timestamp=START_MS + 2 * MINUTE_MS, model_version="3"),
    ]
    rows, *_ = labelled(known, values)
    halves = {(row[3], row[4]): row for row in rows}
    assert len(halves) == 6
    assert halves[0, False][5:] == (
        *(START_MS + MINUTE_MS, START_MS - 90 * 86_400_000, "default", "deny", "0.25", 1, "nan", ()),
    )
    assert halves[0, True][5:8] == (START_MS + MINUTE_MS, START_MS + MINUTE_MS, None)
    watermark_ms = START_MS + 30_000
    # A late label stands where the watermark stood, and its prediction with it.
    assert halves[1, False][5:7] == (watermark_ms, START_MS - 1)
    assert halves[1, True][5:7] == (watermark_ms, START_MS - 5 * MINUTE_MS)
    # A label dated before its prediction does not change the time of that one.
    assert halves[2, False][5:8] == (START_MS + 2 * MINUTE_MS, START_MS + 2 * MINUTE_MS, "3")
    assert halves[2, False][12] == ("country=DE",)


def test_bad_labels_are_dead_letters_and_tombstones_are_counted(known: References) -> None:
    _, _, counts, dead = labelled(known, [label(0, actual=None), None, label(1), Stream().records(1)[0]])
    assert [dict(record.headers)["drift.error.code"] for record in dead] == [b"field_missing"] * 2
    assert (counts["ok"], counts["malformed"], counts["tombstone"]) == (1, 2, 1)


def test_labels_of_a_model_beyond_the_limit_are_refused(known: References) -> None:
    settings = ingest.Settings(feedback=("feedback",), limits=Limits(models=1))
    values = [label(0, model_version="77"), label(1, model_id="fresh"), None]
    state, outputs = ingest.step(settings, known, ingest.start(None), fed(values))
    assert [dict(record.headers)["drift.error.code"] for record in outputs.records] == [b"too_many_models"]
    assert [len(block.keys) for block in state.halves] == [1]
    assert (outputs.counts["ok"], outputs.counts["tombstone"]) == (1, 1)


def test_of_a_sample_of_ids_both_halves_are_sent_or_none(known: References) -> None:
    settings = ingest.Settings(feedback=("feedback",), sample=0.5)
    own = {"prediction": {"label": "deny"}, "prediction_timestamp": START_MS}
    predictions = joined(known, Stream().records(200), settings=settings)
    state, _ = ingest.step(settings, known, ingest.start(None), fed([label(number, **own) for number in range(200)]))
    rows = rows_of(blocks(ingest.flush(settings, known, {THERE: state}, 3)[1], 3))
    kept = {row[0] for row in predictions}
    assert 60 < len(kept) < 140
    assert {row[0] for row in rows if row[4]} == {row[0] for row in rows if not row[4]} == kept
    assert kept == {row[0] for row in joined(known, Stream().records(200)) if row[0] % 2**64 < 2**63}


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 299), max_size=8))
def test_poll_sizes_change_no_label(cuts: set[int], known: References) -> None:
    own = {"prediction": {"label": "deny"}, "tags": {"country": "DE"}, "prediction_timestamp": START_MS}
    values: list[bytes | None] = [label(number, **(own if number % 4 == 0 else {})) for number in range(300)]
    values[7::20] = [label(number, timestamp=START_MS) for number in range(7, 300, 20)]
    values[3::50] = [b"{"] * 6
    values[5::60] = [None] * 5
    values[9::30] = [label(number, model_id="other") for number in range(9, 300, 30)]
    cut, whole = labelled(known, values, sorted(cuts)), labelled(known, values)
    assert (cut[0], cut[1].watermark_ms, cut[2:]) == (whole[0], whole[1].watermark_ms, whole[2:])


# -- bad records -------------------------------------------------------------------------------------------------------

ROW = Stream().rows(1)[0]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("json_invalid", b"{"),
        ("json_invalid", orjson.dumps(ROW)[:-20]),
        ("json_invalid", orjson.dumps(ROW).replace(b"approve", b"\xff\xfe")),
        ("not_an_object", b"[1, 2]"),
        ("field_missing", orjson.dumps({key: value for key, value in ROW.items() if key != "prediction_id"})),
        ("field_type", orjson.dumps({**ROW, "model_id": 7})),
        ("name_invalid", orjson.dumps({**ROW, "model_id": "m" * 200})),
        ("timestamp_invalid", orjson.dumps({**ROW, "timestamp": "yesterday"})),
        ("timestamp_in_future", orjson.dumps({**ROW, "timestamp": START_MS * 2 + 300_001})),
        ("schema_version", orjson.dumps({**ROW, "schema_version": 2})),
        ("too_many_features", orjson.dumps({**ROW, "features": {f"f{i}": i for i in range(5_001)}})),
        ("too_large", orjson.dumps({**ROW, "note": "x" * 1_048_576})),
    ],
)  # fmt: skip
def test_a_bad_record_is_a_dead_letter_with_its_code_and_bytes(known: References, code: str, value: bytes) -> None:
    good = Stream().records(2)
    (part,), _, counts, dead = flushed(known, [good[0], value, good[1]])
    assert isinstance(part, Partial)
    assert (int(part.rows[0]), counts["ok"], counts["malformed"]) == (2, 2, 1)
    headers = dict(dead[0].headers)
    assert headers["drift.error.code"].decode() == code
    assert headers["drift.error.offset"] == b"1"
    assert (dead[0].value or b"")[:1_000] == value[:1_000]


def test_dead_letters_come_in_the_order_of_the_log() -> None:
    limits = Limits(models=1)
    other = orjson.dumps({**ROW, "model_id": "fresh"})
    _, outputs = ingest.step(
        ingest.Settings(limits=limits), view(built()), ingest.start(None), batch_of([other, b"{", other, b"["])
    )
    codes = [dict(record.headers)["drift.error.code"].decode() for record in outputs.records]
    assert codes == ["too_many_models", "json_invalid", "too_many_models", "json_invalid"]
    assert outputs.counts["malformed"] == 4


def test_a_tombstone_is_counted_and_no_letter(known: References) -> None:
    parts, _, counts, dead = flushed(known, [None, Stream().records(1)[0], None])
    assert (counts["tombstone"], counts["ok"], len(dead), len(parts)) == (2, 1, 0, 1)


@pytest.mark.parametrize(
    "literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"12"', b"[1]", b"{}", b"true", b"1" + b"0" * 400]
)
def test_an_invalid_value_has_a_bin_of_its_own_and_its_record_stays_good(known: References, literal: bytes) -> None:
    rows = Stream().rows(10)
    values = [orjson.dumps({**row, "features": {**row["features"], "amount": 0.125}}) for row in rows]
    (plain,), *_ = flushed(known, values)
    (part,), _, counts, dead = flushed(known, [values[0].replace(b"0.125", literal), *values[1:]])
    assert isinstance(part, Partial)
    assert isinstance(plain, Partial)
    assert (counts["ok"], dead) == (10, [])
    assert part.invalid_rows[0] == plain.invalid_rows[0] + 1
    assert part.rows[0] == 10
    assert part.counts[0].sum() == plain.counts[0].sum()


@pytest.mark.parametrize("literal", [b"1e308", b"-1e308", b"123456789012345678901234567890", b"-0.0", b"5e-324"])
def test_an_extreme_number_is_a_number(known: References, literal: bytes) -> None:
    rows = Stream().rows(10)
    values = [orjson.dumps({**row, "features": {**row["features"], "amount": 0.125}}) for row in rows]
    (part,), *_ = flushed(known, [values[0].replace(b"0.125", literal), *values[1:]])
    assert isinstance(part, Partial)
    assert (int(part.rows[0]), int(part.invalid_rows[0])) == (10, 0)


def test_the_worst_rows_travel_with_their_place_and_trace(known: References) -> None:
    rows = Stream().rows(20)
    rows[5]["features"]["amount"] = 1e12
    batch = batch_of([orjson.dumps(row) for row in rows], headers={5: (("traceparent", b"00-ab-cd-01"),)})
    settings = ingest.Settings()
    state, _ = ingest.step(settings, known, ingest.start(None), batch)
    (part,) = opened(ingest.flush(settings, known, {HERE: state})[1])
    assert isinstance(part, Partial)
    worst = part.worst[0]
    assert (worst.prediction_id, worst.offset, worst.traceparent) == ("p-1-5", 5, "00-ab-cd-01")
    assert worst.contributions[0][0] == "feature:amount"
    assert worst.contributions[0][2] is None


def test_unknown_features_are_named_in_the_windows_they_stood_in(known: References) -> None:
    rows = Stream().rows(2 * PER_WINDOW)
    rows[0]["features"]["first"] = 1
    rows[PER_WINDOW]["features"]["second"] = 2
    rows[PER_WINDOW + 1]["features"]["second"] = 2
    parts, *_ = flushed(known, [orjson.dumps(row) for row in rows])
    assert [[(one.name, one.rows) for one in part.unknown] for part in parts if isinstance(part, Partial)] == [
        [("first", 1)],
        [("second", 2)],
    ]


def test_control_events_are_copied_and_bad_ones_are_dead_letters() -> None:
    mute = control.Mute(effective_at_ms=START_MS, until_ms=START_MS + 1)
    event = control.ControlEvent("test", "1", mute)
    values = [control.cloud_event(event, START_MS), None, b"{}"]
    batch = replace_topic(batch_of(values), ingest.Settings().control)
    state, outputs = ingest.step(ingest.Settings(), References.empty(), ingest.start(None), batch)
    assert outputs.counts == {"ok": 1, "malformed": 1, "tombstone": 1}
    copied, letter = outputs.records
    assert copied == control.forwarded(event)
    headers = dict(letter.headers)
    assert (letter.role, letter.value) == ("dead_letters", b"{}")
    assert (headers["drift.error.code"], headers["drift.error.format"]) == (b"field_missing", b"cloudevents")
    assert (state.watermark_ms, ingest.pending({("drift.control", 0): state})) == (None, (0, 0))
