"""References from training rows."""

import random

import numpy as np
import pytest
from msgspec.structs import replace
from worlds import START_MS, World

from stream.profiles import building, cuts, reference
from stream.profiles.cuts import Declared, Plan, Row
from stream.wire.codec import decode_reference, encode_reference, hash64
from stream.wire.internal import Reference

WORLD = World(seed=3, step_ms=600)
MINUTES = Plan("credit", "3", 60_000, Declared(segments=("country",)))


def built(rows: list[Row], *, serving: bool = True, plan: Plan = MINUTES) -> Reference:
    return building.build(rows, plan, serving=serving, effective_from_ms=START_MS)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return WORLD.rows(20_000)


@pytest.fixture(scope="module")
def whole(rows: list[Row]) -> Reference:
    return built(rows)


def test_no_row_both_cuts_and_counts(rows: list[Row], whole: Reference) -> None:
    assert whole.n_rows == 20_000 - 4_096
    for signal in whole.signals.values():
        assert sum(signal.counts) + signal.missing + signal.invalid + (signal.singletons or 0) == whole.n_rows
    assert built(rows[:1_000]).n_rows == 750


def test_the_order_of_the_rows_does_not_matter(rows: list[Row], whole: Reference) -> None:
    shuffled = rows.copy()
    random.Random(1).shuffle(shuffled)

    assert built(shuffled) == whole


def test_the_order_of_rows_that_share_an_id_does_not_matter_either() -> None:
    rows = [replace(row, prediction_id=f"p{index // 3}") for index, row in enumerate(WORLD.rows(900))]

    assert built(rows[::-1]) == built(rows)


def test_a_reference_comes_back_from_its_json(whole: Reference) -> None:
    assert decode_reference(encode_reference(whole)) == whole
    assert whole.complete
    assert (whole.origin, whole.data_from, whole.data_to) == (
        "built",
        "2026-11-21T00:00:00.000Z",
        "2026-11-21T03:19:59.400Z",
    )


def test_a_log_of_serving_tells_rows_per_window_and_overdispersion(whole: Reference) -> None:
    assert whole.window_rows == pytest.approx(100)
    assert sum(whole.segments_window_rows[f"country={key}"] for key in ("AT", "DE")) < 100
    assert sum(whole.segments_window_rows.values()) == pytest.approx(100, abs=1)
    tables = reference.compile_tables(whole)
    assert tables.segments[-1] == "country=other"
    assert (tables.ordered.phi[:-1] >= 1).all()
    assert np.median(tables.ordered.phi[:-1]) < 1.5
    assert np.isfinite(tables.rates.row_phi[:-1]).all()
    assert np.isnan(tables.ordered.phi[-1]).all()  # no window had a row of another country


def test_rows_that_are_no_log_of_serving_leave_it_open(rows: list[Row], whole: Reference) -> None:
    sampled = built(rows, serving=False)

    assert sampled.window_rows is None
    assert sampled.segments_window_rows == {}
    assert all(signal.overdispersion is None for signal in sampled.signals.values())
    assert all(rate.overdispersion == {} for rate in sampled.rates.values())
    for name, signal in sampled.signals.items():
        assert signal.counts == whole.signals[name].counts
        assert signal.segments == whole.signals[name].segments


def test_segments_of_a_key_add_up_to_the_whole(whole: Reference) -> None:
    for signal in whole.signals.values():
        assert np.sum(list(signal.segments.values()), axis=0).tolist() == signal.counts
        special = np.sum(list(signal.segments_special.values()), axis=0).tolist()
        assert special[:2] == [signal.missing, signal.invalid]
    for rate in whole.rates.values():
        assert np.sum([own for name, own in rate.rows.items() if name != "all"], axis=0).tolist() == rate.rows["all"]


def test_counted_rows_fall_evenly_into_the_bins_of_the_sample(whole: Reference) -> None:
    score = whole.signals["prediction:score"]
    assert len(score.counts) == 64
    expected = whole.n_rows / 64
    assert np.abs(np.array(score.counts) - expected).max() < 6 * np.sqrt(expected * (1 + whole.n_rows / 4_096))


def test_mean_and_standard_deviation_are_those_of_the_counted_rows(rows: list[Row], whole: Reference) -> None:
    counted = sorted(rows, key=lambda row: hash64(row.prediction_id))[4_096:]
    latencies = np.array([row.latency_ms for row in counted])

    latency = whole.signals["latency"]

    assert latency.mean == pytest.approx(latencies.mean(), rel=1e-6)
    assert latency.std == pytest.approx(latencies.std(), rel=1e-4)


def test_a_category_that_occurs_once_is_what_unseen_will_look_like() -> None:
    rows = [Row(f"p{i}", 0, {"shop": f"s{i}" if i % 10 == 0 else f"m{i % 7}"}) for i in range(4_000)]

    shop = built(rows, serving=False, plan=Plan("m", "1", 60_000)).signals["feature:shop"]

    assert shop.categories is not None
    assert shop.singletons == pytest.approx(300, abs=40)
    assert sum(shop.counts) + (shop.singletons or 0) == 3_000


def test_a_category_met_outside_the_sample_is_known() -> None:
    rows = [Row(f"p{i}", 0, {"shop": "rare" if i % 1_000 == 3 else "usual"}) for i in range(8_000)]
    sample = sorted(rows, key=lambda row: hash64(row.prediction_id))[:2_000]
    kept = [row for row in sample if row.features["shop"] == "usual"]
    rows = kept + [row for row in rows if row not in sample]

    shop = built(rows, serving=False, plan=Plan("m", "1", 60_000)).signals["feature:shop"]

    assert {"rare", "usual"} == {*(shop.categories or ())} or shop.others == [hash64("rare")]
    assert shop.singletons == 0


def test_too_few_rows_have_no_reference(rows: list[Row]) -> None:
    assert built(rows[:640], serving=False).n_rows == 480
    with pytest.raises(ValueError, match="a reference needs 640 rows, not 639"):
        built(rows[:639], serving=False)


def test_windows_cut_into_parts_say_the_same(
    rows: list[Row], whole: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_ROWS_AT_ONCE", 150)

    assert built(rows[:2_000]) == built(rows[:2_000])
    assert built(rows) == whole


def test_rows_with_an_invalid_value_are_counted() -> None:
    rows = [
        replace(row, features={**row.features, "ratio_of_income_0": "a lot"}) if index % 4 == 0 else row
        for index, row in enumerate(WORLD.rows(2_000))
    ]

    whole = built(rows, serving=False)

    rows_of_quality, invalid = whole.rates["row:quality"].rows["all"]
    assert (rows_of_quality, invalid) == (1_500, whole.signals["feature:ratio_of_income_0"].invalid)
    assert invalid == pytest.approx(375, abs=40)


def test_an_inferred_schema_reads_the_rows_it_came_from(rows: list[Row]) -> None:
    schema = cuts.infer_schema(rows[:500], MINUTES.declared)

    assert (len(schema.numeric), len(schema.categorical), len(schema.boolean)) == (16, 4, 0)
