"""What join promises: the same pairs whatever way the halves came, by the book, and again after a restart."""

from collections import Counter
from collections.abc import Sequence
from math import nan

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pairs import MODEL, Half, Log, Source, expected, feedback, frames, prediction, told

from stream.profiles.windows import Settings as WindowSettings
from stream.signals.outcomes import ModelSettings
from stream.stages import join
from stream.stages.join import Feedback, Settings, State
from stream.wire.internal import END_OF_TIME_MS, ScoreOf
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

    def __init__(self, settings: Settings, halvings: int = 0) -> None:
        self.settings = settings
        self.state = join.start(settings, halvings)
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
    id=st.sampled_from("abc"),
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
    for half in draw(st.lists(halves, max_size=25)):
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


@hypothesis_settings(max_examples=80)
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


@hypothesis_settings(max_examples=100)
@given(st.data(), worlds(), st.sampled_from([3, 8, 10_000]), st.sampled_from([5, HORIZON_MS, 10 * LAST_MS]))
def test_a_silent_replay_from_the_oldest_row_needed_ends_in_the_same_state(
    data: st.DataObject, world: list[Half], max_pending: int, horizon_ms: int
) -> None:
    settings = settings_of(max_pending, horizon_ms)
    records, _ = data.draw(logs(world, idle=True))
    committed = data.draw(st.integers(0, len(records)))
    first = Run(settings)
    for some in data.draw(cuts(records[:committed])):
        first.step(some)

    second = Run(settings, join.halvings(first.state))
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


def seen(state: State) -> tuple[object, ...]:
    """All that a worker sees of a state, but for the oldest offset: another replay may need less."""
    return join.digest(state), join.watermark(state), join.waiting(state), join.halvings(state)
