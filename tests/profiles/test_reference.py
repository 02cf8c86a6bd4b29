"""The tables of a reference, and which reference is in force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import norm

from stream.profiles import reference as r
from stream.profiles.reference import References
from stream.wire.codec import encode_reference, hash64, named, rfc3339
from stream.wire.internal import RateReference, Reference, SignalReference
from stream.wire.record import Record

HOUR_MS = 3_600_000


def a_reference(signals: dict[str, SignalReference] | None = None, **changes: Any) -> Reference:
    whole = Reference(
        reference_id="",
        model_id="credit",
        model_version="3",
        scope="inputs",
        origin="built",
        complete=True,
        inherited_from=None,
        n_rows=50_000,
        data_from=rfc3339(0),
        data_to=rfc3339(HOUR_MS),
        effective_from=rfc3339(0),
        segments={},
        window_size_ms=60_000,
        window_rows=100.0,
        signals=signals or {"feature:age": numeric([10, 20, 30])},
        row=None,
        slots=None,
    )
    return named(replace(whole, **changes))


def numeric(counts: list[int], **more: Any) -> SignalReference:
    edges = [float(index) for index in range(len(counts) - 1)]
    return SignalReference("numeric", counts, edges=edges, centre=0.0, scale=1.0, low=[], high=[], **more)


def categorical(counts: list[int], **more: Any) -> SignalReference:
    return SignalReference("categorical", counts, categories=[f"c{i}" for i in range(len(counts))], others=[], **more)


def record(offset: int, reference: Reference | bytes | None, key: bytes | None = None) -> Record:
    value = encode_reference(reference) if isinstance(reference, Reference) else reference
    key = r.reference_key(reference) if isinstance(reference, Reference) else key
    return Record("drift.references", 0, offset, 0, key, value)


counts_of_bins = st.lists(st.integers(0, 10_000), min_size=1, max_size=64).filter(any)


@given(counts_of_bins)
def test_the_mean_of_u_is_one_half_under_the_reference(counts: list[int]) -> None:
    tables = r.compile_tables(a_reference({"feature:x": numeric(counts)}))

    assert tables.p[0].sum() == pytest.approx(1, abs=1e-12)
    assert tables.u_mean[0, 0] == pytest.approx(0.5, abs=1e-12)
    assert (tables.p[0, : len(counts)] > 0).all()


@given(counts_of_bins)
def test_coarse_bins_are_sixteenths_of_u_numbered_without_gaps(counts: list[int]) -> None:
    u = r.mid_cdf(r.law(np.array(counts)))
    bins = r.coarse_bins(u)

    assert bins[0] == 0
    assert set(np.diff(bins)) <= {0, 1}
    assert bins[-1] < 16
    assert all((bins[i] == bins[j]) == (int(16 * u[i]) == int(16 * u[j])) for i in range(len(u)) for j in range(i))


@given(st.data())
@settings(max_examples=30)
def test_windows_are_mapped_to_coarse_bins_scores_and_rates_as_a_loop_would(data: st.DataObject) -> None:
    signals = {
        "feature:a": numeric(data.draw(counts_of_bins)),
        "feature:b": categorical(data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=60)), singletons=3),
        "feature:c": SignalReference("boolean", [70, 30]),
        "prediction:score": numeric(data.draw(counts_of_bins)),
    }
    tables = r.compile_tables(a_reference(signals))
    layout = tables.layout
    counts = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 50, (3, layout.columns))

    ordered, unordered = r.coarse(tables, counts)
    u, v = r.scores(tables, counts)
    rates = r.hits(layout, counts)

    for place, index in enumerate(tables.ordered.signals):
        inside = r.valid(layout, index)
        bins = r.coarse_bins(tables.u[inside])
        for g in range(3):
            own = counts[g, inside]
            assert ordered[g, place].tolist() == np.bincount(bins, own, minlength=16).tolist()
            for score, found in ((tables.u[inside], u), (np.abs(2 * tables.u[inside] - 1), v)):
                values = np.repeat(score, own)
                assert found.n[g, place] == len(values)
                assert found.s[g, place] == pytest.approx(values.sum(), abs=1e-9)
                expected = ((values - values.mean()) ** 2).sum() if len(values) else 0
                assert found.m2[g, place] == pytest.approx(expected, abs=1e-9)
    for place, index in enumerate(tables.unordered.signals):
        inside = r.valid(layout, index)
        bins = r.largest_bins(np.array(signals[layout.names[index]].counts))
        assert unordered[0, place].tolist() == np.bincount(bins, counts[0, inside], minlength=32).tolist()
    for index, signal in enumerate(signals.values()):
        end = int(layout.first[index] + layout.width[index])
        unseen = counts[:, end - 3] if signal.type == "categorical" else np.zeros(3)
        assert rates[:, index].tolist() == np.stack([counts[:, end - 2], counts[:, end - 1], unseen], axis=1).tolist()


def test_the_largest_thirty_one_categories_have_bins_of_their_own() -> None:
    counts = np.arange(40)[::-1].copy()
    counts[38] = 1_000

    bins = r.largest_bins(counts)

    assert bins[38] == 30
    assert (bins[:30] == np.arange(30)).all()
    assert (np.delete(bins, 38)[30:] == 31).all()


@pytest.mark.parametrize(
    ("rows", "epsilon"),
    [(1_000, 0.077), (5_000, 0.035), (15_000, 0.020), (50_000, 0.011), (100_000, 0.0077), (1_000_000, 0.0024)],
)
def test_the_error_of_the_reference_is_the_published_one(rows: int, epsilon: float) -> None:
    assert r.epsilon_ref(np.full(16, 1 / 16), np.array(float(rows))) == pytest.approx(epsilon, rel=0.02)


@pytest.mark.parametrize("bins", [2, 4, 16, 64])
def test_the_error_of_the_reference_covers_its_own_chance(bins: int) -> None:
    p, rows = np.full(bins, 1 / bins), 5_000
    drawn = np.random.default_rng(bins).multinomial(rows, p, size=20_000) / rows

    total_variation = 0.5 * np.abs(drawn - p).sum(-1)

    assert np.quantile(total_variation, 0.99) <= r.epsilon_ref(p, np.array(float(rows)))


def test_normal_scores_are_quantiles() -> None:
    tables = r.compile_tables(a_reference({"feature:x": numeric([25, 25, 25, 25])}))

    assert tables.ordered.z[0, :4] == pytest.approx(norm.ppf([0.125, 0.375, 0.625, 0.875]))


def test_segments_have_their_own_law_on_the_bins_of_the_whole() -> None:
    signal = numeric([500, 500], segments={"country=DE": [900, 100]}, segments_special={"country=DE": [7, 3]})
    tables = r.compile_tables(a_reference({"feature:x": signal}, segments={"country": ["DE"]}, segments_window_rows={}))

    assert tables.segments == ["all", "country=DE", "country=other"]
    assert tables.ordered.p[:, 0, :2] == pytest.approx(np.array([[0.5, 0.5], [900.5 / 1001, 100.5 / 1001], [0.5, 0.5]]))
    assert tables.u_mean[:, 0] == pytest.approx([0.5, 0.25 * 900.5 / 1001 + 0.75 * 100.5 / 1001, 0.5])
    assert tables.rows.tolist() == [1000, 1010, 0]
    assert tables.rates.mean[1, 0, :2] == pytest.approx([7.5 / 1011, 3.5 / 1011])
    assert tables.ordered.epsilon[2, 0] == 1
    assert tables.ordered.small[:, 0].tolist() == [False, False, True]


def test_what_the_reference_does_not_know_is_nan() -> None:
    known = a_reference(
        {"feature:x": numeric([9, 9], overdispersion=2.0, rates_overdispersion=[1.5, 1.0])},
        rates={"row:quality": RateReference({"all": [99, 9]}, {"all": 3.0})},
    )
    tables = r.compile_tables(known)

    assert tables.ordered.phi.tolist() == [[2.0]]
    assert tables.ordered.n_bar.tolist() == [[100.0]]
    assert np.isnan(tables.rates.phi[0, 0]).tolist() == [False, False, True]
    assert tables.rates.row_mean[0] == pytest.approx([0.095, np.nan], nan_ok=True)
    assert np.isnan(r.compile_tables(a_reference(window_rows=None)).ordered.n_bar).all()


def test_shared_causes_weigh_more_when_traffic_grows() -> None:
    phi = r.overdispersion(np.array(3.0), np.array([0, 1, 51, 101, 201]), np.array(101.0))

    assert phi.tolist() == [1, 1, 2, 3, 5]


def test_counts_of_a_segment_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="feature:x: country=DE has 3 counts, not 2"):
        r.compile_tables(
            a_reference(
                {"feature:x": numeric([1, 1], segments={"country=DE": [1, 2, 3]})}, segments={"country": ["DE"]}
            )
        )


def test_a_window_has_the_reference_in_force_when_it_began() -> None:
    early, late = (a_reference(effective_from=rfc3339(hour * HOUR_MS)) for hour in (1, 2))
    for order in ((early, late), (late, early)):
        view = References.empty().apply_all(record(offset, one) for offset, one in enumerate(order))

        found = [view.at("credit", "3", time_ms) for time_ms in (0, HOUR_MS - 1, HOUR_MS, 2 * HOUR_MS - 1, 2 * HOUR_MS)]

        ids = [tables and tables.reference.reference_id for tables in found]
        assert ids == [None, None, early.reference_id, early.reference_id, late.reference_id]
    assert view.at("credit", "4", HOUR_MS) is None
    assert view.versions() == [("credit", "3")]


def test_a_view_stays_as_it_is_when_the_log_goes_on() -> None:
    reference = a_reference()
    before = References.empty().apply(record(4, reference))
    after = before.apply(record(7, None, r.reference_key(reference)))

    assert (before.offset, after.offset) == (5, 8)
    assert before.by_id(reference.reference_id) is before.at("credit", "3", 0)
    assert after.at("credit", "3", 0) is None
    assert after.by_id(reference.reference_id) is before.by_id(reference.reference_id)
    assert after.at("credit", "3", 0) is None
    assert after.versions() == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff",
        encode_reference(a_reference()).replace(b"50000", b"50001"),
        encode_reference(a_reference(effective_from="tomorrow")),
        encode_reference(a_reference({"feature:x": replace(numeric([1, 2]), edges=[1.0, 2.0])})),
    ],
)
def test_a_reference_that_cannot_be_read_is_counted_and_ignored(value: bytes) -> None:
    good = a_reference()
    view = References.empty().apply(record(0, good)).apply(record(1, value, b"x"))

    assert (view.errors, view.offset) == (1, 2)
    assert view.at("credit", "3", 0) is not None


@pytest.mark.parametrize("key", [None, b"", b"x", b"[]", b'["credit","3"]', b'["credit","3","0000000000000000"]'])
def test_a_tombstone_of_nothing_changes_nothing(key: bytes | None) -> None:
    view = References.empty().apply(record(0, a_reference())).apply(record(1, None, key))

    assert (view.errors, view.offset) == (0, 2)
    assert view.at("credit", "3", 0) is not None


def test_outcomes_do_not_replace_inputs() -> None:
    outcomes = a_reference(scope="outcomes", effective_from=rfc3339(HOUR_MS))
    view = References.empty().apply(record(0, a_reference())).apply(record(1, outcomes))

    tables = view.at("credit", "3", HOUR_MS)

    assert tables is not None
    assert tables.reference.scope == "inputs"
    assert view.by_id(outcomes.reference_id) is None


def test_hashes_of_other_categories_share_a_bin() -> None:
    signal = replace(categorical([5, 3]), categories=["c0"], others=[hash64("rare")])
    tables = r.compile_tables(a_reference({"feature:b": signal}))

    assert tables.unordered.bins.tolist() == [2]
    assert tables.unordered.p[0, 0, :3] == pytest.approx([5.5 / 9, 3.5 / 9, 0])


def test_a_blank_reference_says_that_there_is_none_until_another_comes_into_force() -> None:
    first, later = (a_reference(effective_from=rfc3339(at_ms)) for at_ms in (0, 200_000))
    nothing = r.blank("credit", "3", window_size_ms=60_000, effective_from_ms=100_000)
    view = References.empty().apply_all([record(offset, one) for offset, one in enumerate((first, later, nothing))])
    assert view.errors == 0
    found = [view.at("credit", "3", at_ms) for at_ms in (99_999, 100_000, 199_999, 200_000)]
    assert [None if one is None else one.reference for one in found] == [first, None, None, later]


def test_a_blank_reference_goes_before_others_of_the_same_time() -> None:
    nothing = r.blank("credit", "3", window_size_ms=60_000, effective_from_ms=0)
    view = References.empty().apply_all([record(0, nothing), record(1, a_reference())])
    assert view.at("credit", "3", 0) is None
