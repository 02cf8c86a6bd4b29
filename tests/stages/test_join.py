"""What join promises: the same pairs whatever way the halves came, by the book, and again after a restart."""

from collections import Counter
from collections.abc import Sequence
from math import nan

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pairs import MODEL, Half, Log, Source, expected, feedback, frames, prediction, told

from stream.profiles.outcomes import UNIT
from stream.profiles.windows import Settings as WindowSettings
from stream.signals.outcomes import ModelSettings
from stream.stages import join
from stream.stages.join import Feedback, Settings, State, inbox, progress, rows, store
from stream.wire import codec
from stream.wire.internal import END_OF_TIME_MS, Outcomes, ScoreOf, SourceMark
from stream.wire.record import Outgoing, Record

SIZE_MS = 10
HORIZON_MS = 35
LATENESS_MS = 8
LAST_MS = 200


def settings_of(max_pending: int = 10_000, horizon_ms: int = HORIZON_MS, **model: object) -> Settings:
    return Settings(
        feedback=Feedback.model_construct(horizon=horizon_ms, sample=1.0, max_pending=max_pending),
        windows=WindowSettings.model_construct(size=SIZE_MS, lateness=LATENESS_MS, idle_after=0, max_future=0),
        models={MODEL: ModelSettings.model_validate({"champion": "1", "challengers": ("2",), **model})},
    )


SETTINGS = settings_of()


class Run:
    """A task led by hand."""

    def __init__(self, settings: Settings, halvings: int = 0, committed: int = 0) -> None:
        self.settings = settings
        self.state = join.start(settings, halvings, committed)
        self.records: list[Outgoing] = []
        self.counts: Counter[str] = Counter()

    def step(self, records: Sequence[Record]) -> None:
        self.state, outputs = join.step(self.settings, self.state, records)
        self.records += outputs.records
        for (model_id, outcome), count in outputs.counts.items():
            assert model_id == MODEL
            self.counts[outcome] += count


halves = st.builds(
    Half,
    is_label=st.booleans(),
    id=st.sampled_from("aaabc"),
    time_ms=st.integers(0, LAST_MS),
    version=st.sampled_from(["1", "2"]),
    label=st.sampled_from(["0", "1", None]),
    score=st.sampled_from([nan, 0.1, 0.5, 0.9]),
    score_of=st.sampled_from([ScoreOf.POSITIVE, ScoreOf.PREDICTED]),
    value=st.sampled_from([nan, 0.0, -1.5, 1e300]),
    segment=st.sampled_from([(), ("country=AT",), ("country=AT", "kind=x")]),
    behind_ms=st.sampled_from([0, 0, 0, 7]),
)


@st.composite
def worlds(draw: st.DrawFn) -> list[Half]:
    """Halves whose labels say nothing that only predictions say, some of them for every version, some sent twice."""
    found = []
    for half in draw(st.lists(halves, max_size=30)):
        fields = {"score": nan, "score_of": ScoreOf.NOTHING, "segment": ()} if half.is_label else {}
        if half.is_label and draw(st.booleans()):
            fields["version"] = None
        found.append(_with(half, fields))
    return found + (draw(st.lists(st.sampled_from(found), max_size=3)) if found else [])


def _with(half: Half, fields: dict[str, object]) -> Half:
    make = feedback if half.is_label else prediction
    return make(**{**half.__dict__, **fields})


def sources_of(draw: st.DrawFn, world: Sequence[Half]) -> list[Source]:
    """The world over any number of partitions, disordered within the lateness."""
    found = []
    for topic, is_label in (("predictions", False), ("feedback", True)):
        partitions = draw(st.integers(1, 3))
        lists: list[list[tuple[int, int, Half]]] = [[] for _ in range(partitions)]
        for number, half in enumerate(world):
            if half.is_label == is_label:
                seen_ms = half.time_ms + draw(st.integers(0, LATENESS_MS))
                lists[draw(st.integers(0, partitions - 1))].append((seen_ms, number, half))
        found += [
            Source(topic, partition, [half for _, _, half in sorted(some, key=lambda one: one[:2])])
            for partition, some in enumerate(lists)
        ]
    return found


@st.composite
def logs(draw: st.DrawFn, world: Sequence[Half], *, idle: bool = False) -> tuple[list[Record], list[Half]]:
    """The world in a log, interleaved anyhow; and its halves with their places in the input.

    Sources that declare themselves `idle` follow the others, so that some of what they bring is late.
    """
    sources = sources_of(draw, world)
    log = Log(sources, LATENESS_MS)
    while any(source.read < len(source.halves) for source in sources):
        resting = draw(st.sets(st.integers(0, len(sources) - 1))) if idle else ()
        log.commit([0 if place in resting else draw(st.integers(0, 4)) for place in range(len(sources))], idle=resting)
    log.commit([0] * len(sources), ended=True)
    return log.records, [half for source in sources for half in source.placed]


@st.composite
def cuts(draw: st.DrawFn, records: Sequence[Record]) -> list[Sequence[Record]]:
    """The same records in several steps."""
    places = sorted(draw(st.sets(st.integers(0, len(records)), max_size=8)))
    return [records[first:last] for first, last in zip([0, *places], [*places, len(records)], strict=True)]


@pytest.fixture(params=["large", "tiny"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are packed, merged and processed at once: nothing may depend on it."""
    if request.param == "tiny":
        monkeypatch.setattr(progress, "ROWS_AT_ONCE", 2)
        monkeypatch.setattr(inbox, "FRESH_MAX", 3)
        monkeypatch.setattr(store, "MERGED", 2)
        monkeypatch.setattr(store, "CROWD", 2)
        monkeypatch.setattr(store, "ROWS_MAX", 12)


@pytest.mark.usefixtures("parts")
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), worlds())
def test_outcomes_are_those_of_the_book_however_the_halves_came(data: st.DataObject, world: list[Half]) -> None:
    records, placed = data.draw(logs(world))
    run = Run(SETTINGS)
    for some in data.draw(cuts(records)):
        run.step(some)

    book = expected(SETTINGS, placed, run.state.reached_ms or 0)

    assert frames(told(run.records)) == frames(book.outcomes)
    assert dict(run.counts) == book.counts
    assert join.watermark(run.state) == END_OF_TIME_MS


@pytest.mark.usefixtures("parts")
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), worlds(), st.sampled_from([3, 5, 8, 10_000]), st.sampled_from([5, HORIZON_MS, 10 * LAST_MS]))
def test_a_silent_replay_from_the_oldest_row_needed_ends_in_the_same_state(
    data: st.DataObject, world: list[Half], max_pending: int, horizon_ms: int
) -> None:
    settings = settings_of(max_pending, horizon_ms)
    records, _ = data.draw(logs(world, idle=True))
    committed = data.draw(st.integers(0, len(records)))
    first = Run(settings)
    for some in data.draw(cuts(records[:committed])):
        first.step(some)

    next_offset = records[committed - 1].offset + 1 if committed else 0
    second = Run(settings, join.halvings(first.state), next_offset)
    oldest = join.oldest(first.state)
    replayed = [record for record in records[:committed] if oldest is not None and record.offset >= oldest]
    for some in data.draw(cuts(replayed)):
        second.step(some)

    assert seen(second.state) == seen(first.state)
    for some in data.draw(cuts(records[committed:])):
        [one, two] = [join.step(settings, run.state, some) for run in (first, second)]
        assert one[1] == two[1]
        assert seen(one[0]) == seen(two[0])
        first.state, second.state = one[0], two[0]


def test_a_replay_does_not_halve_the_sample_because_time_stands_still_in_it() -> None:
    settings = settings_of(max_pending=5)
    answers = [prediction(f"p{time_ms}", time_ms) for time_ms in (0, 1, 2, 3, 11, 12, 13)]
    log = Log([Source("predictions", 0, answers), Source("feedback", 0, []), Source("feedback", 1, [])])
    rests = SourceMark("feedback", 1, 0, 100)
    log.mark([rests])
    log.commit([4, 0, 0])
    log.mark([SourceMark("predictions", 0, 4, 10), SourceMark("feedback", 0, 0, 10)])
    log.commit([3, 0, 0])
    log.mark([rests])
    first = Run(settings)
    first.step(log.records)

    second = Run(settings, join.halvings(first.state), committed=log.records[-1].offset + 1)
    second.step([record for record in log.records if record.offset >= (join.oldest(first.state) or 0)])

    assert join.oldest(first.state) == log.records[1].offset
    assert join.waiting(first.state) == len(answers)
    assert seen(second.state) == seen(first.state)


def test_a_replay_knows_who_was_in_a_crowd_even_if_the_crowd_is_long_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CROWD", 2)
    labels = [feedback("a", 0), feedback("a", 1), feedback("b", 2), feedback("a", 3), feedback("c", 50)]
    answers = [prediction("b", 20), prediction("a", 37), prediction("c", 50)]
    log = Log([Source("predictions", 0, answers), Source("feedback", 0, labels)])
    for _ in labels:
        log.commit([0, 1])
    for _ in answers:
        log.commit([1, 0])
    first, second = Run(SETTINGS), Run(SETTINGS)
    first.step(log.records)

    second.step([record for record in log.records if record.offset >= (join.oldest(first.state) or 0)])

    assert seen(second.state) == seen(first.state)
    assert join.oldest(first.state) == 0


@hypothesis_settings(max_examples=60)
@given(st.data(), worlds(), st.sampled_from([3, 8]))
def test_steps_may_be_cut_anyhow_even_where_the_sample_is_halved(
    data: st.DataObject, world: list[Half], max_pending: int
) -> None:
    settings = settings_of(max_pending)
    records, _ = data.draw(logs(world, idle=True))
    one, other = Run(settings), Run(settings)
    one.step(records)

    for some in data.draw(cuts(records)):
        other.step(some)

    assert seen(other.state) == seen(one.state)
    assert frames(told(other.records)) == frames(told(one.records))
    assert other.counts == one.counts


@hypothesis_settings(max_examples=40)
@given(st.data(), worlds())
def test_a_step_leaves_the_state_it_is_given_as_it_was(data: st.DataObject, world: list[Half]) -> None:
    settings = settings_of(max_pending=8)
    records, _ = data.draw(logs(world, idle=True))
    begun = data.draw(st.integers(0, len(records)))
    run = Run(settings)
    run.step(records[:begun])
    before = seen(run.state), join.oldest(run.state)

    once = join.step(settings, run.state, records[begun:])
    again = join.step(settings, run.state, records[begun:])

    assert (seen(run.state), join.oldest(run.state)) == before
    assert once[1] == again[1]
    assert seen(once[0]) == seen(again[0])


def seen(state: State) -> tuple[object, ...]:
    """All that a worker sees of a state, but for the oldest offset: another replay may need less."""
    return join.digest(state), join.watermark(state), join.waiting(state), join.halvings(state)


class Told:
    """What a log of two sources says of some halves, each read in its order, up to a time."""

    def __init__(self, halves: Sequence[Half], until_ms: int | None = None, settings: Settings = SETTINGS) -> None:
        split = [[half for half in halves if half.is_label == is_label] for is_label in (False, True)]
        log = Log([Source("predictions", 0, split[0]), Source("feedback", 0, split[1])], LATENESS_MS)
        log.commit([len(some) for some in split])
        if until_ms is None:
            log.commit([0, 0], ended=True)
        else:
            log.mark([SourceMark(source.topic, 0, source.read, until_ms) for source in log.sources])
        run = Run(settings)
        run.step(log.records)
        self.state = run.state
        self.counts = dict(run.counts)
        self.outcomes = told(run.records)

    def all_of(self, version: str, window_ms: int) -> Outcomes:
        """The outcomes of `all` alone."""
        one = self.outcomes[version, window_ms]
        assert one.segments == ["all"]
        return one

    @property
    def windows(self) -> list[tuple[str, int]]:
        """Versions and windows with outcomes."""
        return sorted(self.outcomes)


def test_a_pair_belongs_to_the_window_of_its_later_half() -> None:
    found = Told([prediction("a", 5, label="1"), feedback("a", 27, label="0")], until_ms=30)

    assert found.windows == [("1", 20)]
    assert found.all_of("1", 20).wrong.tolist() == [1]
    assert found.counts == {"matched": 1}


def test_a_label_that_comes_before_its_prediction_waits_for_it() -> None:
    found = Told([feedback("a", 5, label="1"), prediction("a", 27, label="1")], until_ms=30)

    assert found.windows == [("1", 20)]
    assert found.all_of("1", 20).delays[0].nonzero()[0].tolist() == [0]
    assert [span.topic for span in found.all_of("1", 20).spans] == ["predictions"]


def test_nothing_is_told_before_every_source_has_passed_the_window() -> None:
    halves = [prediction("a", 5, label="1"), feedback("a", 6, label="1")]

    assert Told(halves, until_ms=9).windows == []
    assert Told(halves, until_ms=10).windows == [("1", 0)]


@pytest.mark.parametrize(("delay_ms", "matched"), [(HORIZON_MS, 1), (HORIZON_MS + 1, 0)])
def test_a_pair_counts_if_its_halves_lie_within_the_horizon(delay_ms: int, matched: int) -> None:
    found = Told([prediction("a", 5, label="1"), feedback("a", 5 + delay_ms, label="1")], until_ms=60)

    assert found.counts.get("matched", 0) == matched


def test_a_prediction_without_a_label_ends_with_its_horizon() -> None:
    halves = [prediction("a", 5, label="1"), prediction("b", 6, label="1"), feedback("b", 8, label="1")]

    before, after = Told(halves, until_ms=40), Told(halves, until_ms=50)

    assert ("1", 40) not in before.windows
    assert after.all_of("1", 40).ended.tolist() == [2]
    assert after.all_of("1", 40).labelled.tolist() == [1]
    assert after.counts == {"matched": 1, "expired": 1}
    assert join.waiting(after.state) == 0


def test_a_label_without_a_prediction_is_unknown_once_its_horizon_has_ended() -> None:
    halves = [feedback("a", 5, label="1"), prediction("b", 0, label="1")]

    assert Told(halves, until_ms=40).counts.get("unknown") is None
    assert Told(halves, until_ms=50).counts["unknown"] == 1


def test_the_first_of_several_labels_counts_and_a_correction_is_a_duplicate() -> None:
    halves = [prediction("a", 0, label="1"), feedback("a", 7, label="0"), feedback("a", 18, label="1")]

    found = Told(halves, until_ms=30)

    assert found.windows == [("1", 0)]
    assert found.all_of("1", 0).wrong.tolist() == [1]
    assert found.counts == {"matched": 1, "duplicate": 1}


def test_an_answer_repeated_within_the_horizon_counts_once() -> None:
    halves = [prediction("a", 0, label="1"), prediction("a", 20, label="0"), feedback("a", 25, label="1")]

    found = Told(halves, until_ms=60)

    assert found.counts == {"matched": 1, "duplicate": 1}
    assert sum(int(one.pairs[0]) for one in found.outcomes.values() if len(one.pairs)) == 1


def test_a_label_of_one_version_is_not_taken_by_another() -> None:
    halves = [
        prediction("a", 0, "1", label="1"),
        prediction("a", 1, "2", label="1"),
        feedback("a", 3, "2", label="1"),
        feedback("a", 14, None, label="0"),
    ]

    found = Told(halves, until_ms=30)

    assert found.all_of("2", 0).wrong.tolist() == [0]
    assert found.all_of("1", 10).wrong.tolist() == [1]
    assert found.counts == {"matched": 2}


def test_a_late_half_counts_at_its_watermark_and_only_the_delay_keeps_its_own_time() -> None:
    halves = [prediction("a", 5, label="1"), feedback("a", 24, label="1", behind_ms=20)]

    [(window, one)] = Told(halves, until_ms=30).outcomes.items()

    assert window == ("1", 20)
    assert one.delays[0].nonzero()[0].tolist() == [0]


def test_champion_and_challenger_are_compared_once_the_label_is_there() -> None:
    halves = [
        prediction("a", 0, "1", label="0"),
        prediction("a", 12, "2", label="1"),
        feedback("a", 24, label="1"),
        prediction("b", 0, "1", label="0"),
        feedback("b", 1, label="0"),
        prediction("b", 33, "2", label="1"),
    ]

    found = Told(halves, until_ms=40)

    assert found.all_of("2", 20).gains.tolist() == [[1, UNIT, UNIT]]
    assert found.all_of("2", 30).gains.tolist() == [[1, -UNIT, UNIT]]
    assert not found.all_of("1", 20).gains.any()


def test_the_gain_of_a_regression_is_a_share_of_the_errors() -> None:
    halves = [
        prediction("a", 0, "1", value=7.0),
        prediction("a", 1, "2", value=4.0),
        feedback("a", 2, value=3.0),
        prediction("b", 0, "1", value=3.0),
        prediction("b", 1, "2", value=3.0),
        feedback("b", 2, value=3.0),
    ]

    found = Told(halves, until_ms=10)

    assert found.all_of("2", 0).gains.tolist() == [[2, 0.6 * UNIT // 1 + 1, round(0.36 * UNIT)]]


def test_answers_further_apart_than_the_horizon_are_not_compared() -> None:
    halves = [
        prediction("a", 0, "1", label="0"),
        feedback("a", 20, label="1"),
        prediction("a", HORIZON_MS + 1, "2", label="1"),
    ]

    found = Told(halves, until_ms=60)

    assert found.counts["matched"] == 2
    assert not any(one.gains.any() for one in found.outcomes.values())


def test_at_the_end_of_the_input_the_last_window_is_told() -> None:
    found = Told([prediction("a", 5, label="1"), feedback("a", 27, label="0")])

    assert found.windows == [("1", 20)]
    assert join.watermark(found.state) == END_OF_TIME_MS


def test_without_any_feedback_nothing_is_told_and_the_sample_bounds_what_waits() -> None:
    settings = settings_of(max_pending=100)
    log = Log(
        [Source("predictions", 0, [prediction(f"p{row}", row) for row in range(1_000)]), Source("feedback", 0, [])]
    )
    run = Run(settings)
    for _ in range(10):
        log.commit([100, 0])
    run.step(log.records)

    assert run.records == []
    assert join.watermark(run.state) is None
    assert 20 < join.waiting(run.state) <= 100
    assert run.counts["over_limit"] == 1_000 - join.waiting(run.state)
    assert join.halvings(run.state) >= 4


def test_a_halved_sample_keeps_both_halves_of_what_remains_and_favours_no_outcome() -> None:
    rows = 4_000
    halves = [prediction(f"p{row}", row // 400, label=str(row % 2)) for row in range(rows)]
    halves += [feedback(f"p{row}", 10 + row // 400, label=str(row % 3 // 2)) for row in range(rows)]

    found = Told(halves, until_ms=100, settings=settings_of(max_pending=3_000))

    halvings = join.halvings(found.state)
    kept = {half.id for half in halves if half.key < 2**64 >> halvings}
    wrong = {half.id for half in halves[:rows] if half.label != halves[rows + int(half.id[1:])].label}
    pairs = sum(int(one.pairs[0]) for one in found.outcomes.values() if len(one.pairs))
    assert halvings == 2
    assert pairs == len(kept) == found.counts["matched"]
    assert found.counts["over_limit"] == 2 * (rows - len(kept))
    assert sum(int(one.wrong[0]) for one in found.outcomes.values() if len(one.wrong)) == len(kept & wrong)
    assert abs(len(kept & wrong) / len(kept) - len(wrong) / rows) < 0.05


def test_a_half_that_comes_when_its_window_is_over_is_late() -> None:
    log = Log([Source("predictions", 0, [prediction("a", 5), prediction("b", 6)]), Source("feedback", 0, [])])
    log.commit([1, 0])
    log.mark([SourceMark(topic, 0, 0, 20) for topic in ("predictions", "feedback")])
    log.commit([1, 0])
    run = Run(SETTINGS)

    run.step(log.records)

    assert run.counts == {"late": 1}
    assert join.waiting(run.state) == 1


def test_a_state_that_has_read_nothing_needs_nothing() -> None:
    assert join.oldest(join.start(SETTINGS)) is None
    assert join.waiting(join.start(SETTINGS)) == 0


@pytest.mark.parametrize("value", [None, b"", b"hello", codec.encode(SourceMark("predictions", 0, 0, None), "mark/1")])
def test_bytes_of_somebody_else_are_refused(value: bytes | None) -> None:
    record = Record("drift.pairs", 3, 7, 0, None, value)

    with pytest.raises(ValueError, match=r"drift.pairs\[3\] offset 7"):
        join.step(SETTINGS, join.start(SETTINGS), [record])


def test_a_pair_block_that_is_damaged_is_refused() -> None:
    log = Log([Source("predictions", 0, [prediction("a", 5)])])
    log.commit([1])
    record = log.records[0]
    assert record.value is not None

    with pytest.raises(ValueError, match="frame_checksum"):
        join.step(SETTINGS, join.start(SETTINGS), [replace(record, value=record.value[:-1] + b"x")])


WORDS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1), st.sampled_from([0, 2**63, 2**64 - 1]))
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-(2**62), 2**62), st.integers(1_795_219_200_000, 1_795_219_200_050))


@hypothesis_settings(max_examples=200)
@given(st.one_of(st.tuples(st.just(np.uint64), st.lists(WORDS)), st.tuples(st.just(np.int64), st.lists(NUMBERS))))
def test_the_order_of_a_column_leaves_equals_as_they_stand(given_: tuple[type[np.generic], list[int]]) -> None:
    dtype, values = given_
    column = np.array(values, dtype=dtype)
    assert rows.order(column).tolist() == np.argsort(column, kind="stable").tolist()
