"""The life of a model version without a published reference."""

from collections.abc import Iterator

import numpy as np
import pytest
from worlds import START_MS, World

from stream.profiles import building, cuts, learning, reference, summaries
from stream.profiles.cuts import Declared, Plan, Row
from stream.profiles.learning import Phase, Settings, State
from stream.profiles.reference import Tables
from stream.profiles.summaries import Dense
from stream.wire import codec
from stream.wire.codec import hash64, rfc3339
from stream.wire.internal import Reference, Sample, SampledRow

MINUTE_MS = 60_000
PLAN = Plan("credit", "3", MINUTE_MS, Declared(segments=("country",)))
QUICK = Settings.model_validate({"rows": 500, "max_wait": "10m", "min_duration": "2h", "max_duration": "6h"})
WORLD = World(seed=5, step_ms=400)
PER_WINDOW = 150


def window_rows(index: int) -> list[Row]:
    return WORLD.rows(PER_WINDOW, first=index * PER_WINDOW)


def sample_of(index: int) -> Sample:
    rows = [SampledRow(hash64(row.prediction_id), cuts.encode_row(row)) for row in window_rows(index)]
    start_ms = START_MS + index * MINUTE_MS
    whole = Sample("credit", "3", start_ms, PER_WINDOW, 0, [], rows)
    return summaries.merge_samples([whole], QUICK.rows)


def profile_of(tables: Tables, index: int) -> Dense:
    rows = window_rows(index)
    schema = cuts.infer_schema(rows, PLAN.declared)
    ((_, window),) = building.folded(tables, schema, rows, np.full(len(rows), START_MS + index * MINUTE_MS))
    return window


def sampled_until(count: int, settings: Settings = QUICK, *, step: int = 1) -> tuple[State, Reference | None]:
    state, found = State(), None
    for index in range(0, count, step):
        end_ms = START_MS + (index + 1) * MINUTE_MS
        state, found = learning.sampled(
            state, settings, PLAN, sample_of(index), end_ms=end_ms, effective_from_ms=end_ms
        )
        if found is not None:
            break
    return state, found


def learned(settings: Settings = QUICK, restore_every: int = 0) -> Iterator[tuple[int, State, Reference | None]]:
    state, provisional = sampled_until(10, settings)
    assert provisional is not None
    tables = reference.compile_tables(provisional)
    for index in range(4, 600):
        start_ms = START_MS + index * MINUTE_MS
        state, found = learning.counted(
            state, settings, tables, start_ms, profile_of(tables, index), effective_from_ms=start_ms + 2 * MINUTE_MS
        )
        if restore_every and index % restore_every == 0:
            state = restored(state)
        yield index, state, found
        if found is not None:
            return


def restored(state: State) -> State:
    back = codec.decode(codec.encode(state, "test"), State, "test")
    assert isinstance(back, State)
    return back


def test_enough_rows_end_the_sampling() -> None:
    state, found = sampled_until(10)

    assert found is not None
    assert (found.complete, found.origin, found.n_rows) == (False, "learned", 500)
    assert found.effective_from == rfc3339(START_MS + 4 * MINUTE_MS)
    assert learning.phase(state) is Phase.COUNTING
    assert state.provisional == found
    assert found.data_from >= rfc3339(START_MS)


def test_fewer_rows_are_enough_when_the_wait_is_over() -> None:
    _, early = sampled_until(2, Settings(rows=4_096))
    late, found = sampled_until(2, Settings.model_validate({"rows": 4_096, "max_wait": "2m"}))

    assert early is None
    assert found is not None
    assert found.n_rows == 300
    assert learning.phase(late) is Phase.COUNTING


def test_the_sample_is_that_of_all_rows_at_once() -> None:
    _, found = sampled_until(4)
    rows = [row for index in range(4) for row in window_rows(index)]
    smallest = sorted(rows, key=lambda row: hash64(row.prediction_id))[:500]
    schema = cuts.infer_schema(smallest, PLAN.declared)

    expected = cuts.provisional(
        cuts.columns_of(smallest, schema), schema, PLAN, effective_from_ms=START_MS + 4 * MINUTE_MS
    )

    assert found == expected


@pytest.fixture(scope="module")
def life() -> list[tuple[int, State, Reference | None]]:
    return list(learned())


def test_counting_ends_with_rows_time_and_windows(life: list[tuple[int, State, Reference | None]]) -> None:
    last, state, found = life[-1]

    assert found is not None
    assert found.complete
    assert found.n_rows == PER_WINDOW * (last - 3)
    assert last - 3 >= 120  # two hours of windows
    assert learning.phase(state) is Phase.LEARNED
    assert found.window_rows == PER_WINDOW
    assert found.effective_from == rfc3339(START_MS + (last + 2) * MINUTE_MS)
    assert (found.data_from, found.data_to) == (
        rfc3339(START_MS + 4 * MINUTE_MS),
        rfc3339(START_MS + (last + 1) * MINUTE_MS - 1),
    )
    phi = max(signal.overdispersion or 0 for signal in found.signals.values())
    assert found.n_rows >= learning.ROWS_WANTED * phi
    assert codec.decode_reference(codec.encode_reference(found)) == found


def test_a_learned_reference_keeps_the_cuts_of_the_provisional_one(
    life: list[tuple[int, State, Reference | None]],
) -> None:
    provisional, found = life[0][1].provisional, life[-1][2]

    assert provisional is not None
    assert found is not None
    assert found.row == provisional.row
    assert list(found.signals) == list(provisional.signals)
    for name, signal in found.signals.items():
        cut = provisional.signals[name]
        for part in ("edges", "categories", "others", "z", "low", "high", "centre", "scale"):
            assert getattr(signal, part) == getattr(cut, part)
        assert sum(signal.counts) + signal.missing + signal.invalid + (signal.singletons or 0) == found.n_rows


def test_a_restored_life_goes_on_exactly_like_the_original(life: list[tuple[int, State, Reference | None]]) -> None:
    again = list(learned(restore_every=7))

    assert len(again) == len(life)
    assert again[-1][2] == life[-1][2]


def test_overdue_counting_ends_with_a_thousand_rows() -> None:
    hasty = Settings.model_validate({"rows": 500, "max_wait": "10m", "min_duration": "5m", "max_duration": "20m"})

    *_, (last, _, found) = learned(hasty)

    assert last - 3 == 20
    assert found is not None
    assert found.n_rows == 20 * PER_WINDOW


def test_nothing_happens_in_another_phase() -> None:
    counting, provisional = sampled_until(10)
    assert provisional is not None
    tables = reference.compile_tables(provisional)
    window = profile_of(tables, 4)
    done = State(learned=True)

    assert learning.sampled(counting, QUICK, PLAN, sample_of(5), end_ms=0, effective_from_ms=0) == (counting, None)
    assert learning.counted(done, QUICK, tables, 0, window, effective_from_ms=0) == (done, None)
    assert learning.counted(State(), QUICK, tables, 0, window, effective_from_ms=0) == (State(), None)


def test_a_sample_without_values_is_waited_for() -> None:
    row = SampledRow(1, cuts.encode_row(Row("p", 0, {})))
    rows = [SampledRow(index, row.row) for index in range(600)]
    sample = Sample("credit", "3", START_MS, 600, 0, [], rows)

    state, found = learning.sampled(State(), QUICK, PLAN, sample, end_ms=START_MS + MINUTE_MS, effective_from_ms=0)

    assert found is None
    assert learning.phase(state) is Phase.SAMPLING
    assert state.sample is not None
    assert len(state.sample.sample) == QUICK.rows
