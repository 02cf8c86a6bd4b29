"""Cuts: types, edges, tails and the distance, from a sample."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from worlds import CATEGORICAL, NUMERIC, World, batch_of

from stream.profiles import cuts
from stream.profiles.cuts import Declared, Plan, Row
from stream.profiles.reference import compile_tables
from stream.signals import extract
from stream.wire import inbound
from stream.wire.codec import decode_reference, encode_reference, reference_id
from stream.wire.internal import Reference
from stream.wire.lenient import INVALID

PLAN = Plan("credit", "3", 60_000, Declared(segments=("country",)))


def cut(rows: list[Row], plan: Plan = PLAN) -> Reference:
    schema = cuts.infer_schema(rows, plan.declared)
    return cuts.provisional(cuts.columns_of(rows, schema), schema, plan, effective_from_ms=0)


def rows_of(*values: object) -> list[Row]:
    return [Row(f"p{index}", index, {"x": value}) for index, value in enumerate(values)]


@given(st.lists(st.one_of(st.integers(-5, 5).map(float), st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_edges_are_quantiles_and_a_heavy_value_has_a_bin_of_its_own(values: list[float]) -> None:
    ordered, k = sorted(value + 0.0 for value in values), len(values)
    quantiles = [ordered[math.ceil(i * k / 16) - 1] for i in range(1, 16)]
    atoms = {value for value in quantiles if quantiles.count(value) > 1}

    edges = cuts.edges(np.array(values), 16).tolist()

    before = {math.nextafter(value, -math.inf) for value in atoms}
    assert edges == sorted({value for value in {*quantiles, *before} if value > -math.inf})
    assert len(edges) <= 15
    for atom in atoms:
        bins = np.searchsorted(edges, np.array(values))
        assert {value + 0.0 for value, own in zip(values, bins, strict=True) if own == edges.index(atom)} == {atom}


def test_a_small_sample_has_few_bins_and_a_smaller_one_no_reference() -> None:
    numbers = np.random.default_rng(0).normal(size=640).tolist()

    assert len(cut(rows_of(*numbers)).signals["feature:x"].counts) == 64
    assert len(cut(rows_of(*numbers[:639])).signals["feature:x"].counts) == 16
    assert len(cut(rows_of(*numbers[:160])).signals["feature:x"].counts) == 16
    with pytest.raises(ValueError, match="160 sample rows, not 159"):
        cut(rows_of(*numbers[:159]))


def test_rows_without_values_have_no_reference() -> None:
    with pytest.raises(ValueError, match="has a value"):
        cut(rows_of(*[None, INVALID] * 100))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5, None], "numeric"),
        ([1, "a"], "numeric"),
        ([1, "a", "b"], "categorical"),
        ([True, False, None], "boolean"),
        ([True, 1, "a", "b"], "categorical"),
        (["1", "2"], "categorical"),
        ([INVALID, [], {}, 3], "numeric"),
        ([None, INVALID, math.nan], None),
    ],
)
def test_types_are_those_of_most_values(values: list[object], kind: str | None) -> None:
    schema = cuts.infer_schema(rows_of(*values), Declared())

    kinds = {"numeric": schema.numeric, "categorical": schema.categorical, "boolean": schema.boolean}
    assert [name for name, features in kinds.items() if features] == ([kind] if kind else [])


def test_what_is_declared_is_not_inferred() -> None:
    rows = [Row("p", 0, {"zip": 80331, "age": 40, "id": "x", "b": 1})]
    declared = Declared(types={"zip": "categorical"}, unwatched=frozenset({"id"}))

    schema = cuts.infer_schema(rows, declared)

    assert (schema.numeric, schema.categorical) == (["age", "b"], ["zip"])
    assert len(cuts.infer_schema(rows, Declared(features_max=2)).numeric) == 2


def test_values_of_a_wrong_type_are_invalid_and_never_coerced() -> None:
    values: list[object] = [1, 2.5, None, "3", True, math.nan, math.inf, 10**400, [], INVALID]
    columns = cuts.columns_of(rows_of(*values), cuts.Schema(["x"], ["x"], ["x"]))

    assert columns.numeric[:3, 0] == pytest.approx([1, 2.5, math.nan], nan_ok=True)
    assert columns.numeric_invalid[:, 0].tolist() == [False] * 3 + [True] * 7
    assert columns.categorical[0][:5] == ["1", "2.5", None, "3", "true"]
    assert columns.categorical[0][5:] == [INVALID] * 5
    assert columns.boolean[:5, 0].tolist() == [3, 3, 2, 3, 1]


FLOATS = ("numeric", "score", "value", "latency")
json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.just(10**400),
    st.floats(),
    st.text("aä\u2028\U0001f600"),
)


@given(st.dictionaries(st.text("abc", min_size=1), json_values, max_size=4), json_values, json_values)
def test_a_row_comes_back_from_its_bytes_with_the_same_meaning(
    features: dict[str, object], label: object, score: object
) -> None:
    row = Row("p", 5, features, label=label, score=score, tags={"t": True})
    schema = cuts.Schema(sorted(features), sorted(features), sorted(features))

    back = cuts.decode_row(cuts.encode_row(row))
    reordered = Row("p", 5, dict(reversed(features.items())), label=label, score=score, tags={"t": True})

    assert cuts.encode_row(reordered) == cuts.encode_row(row)
    before, after = (cuts.columns_of([one], schema) for one in (row, back))
    for name in before.__struct_fields__:
        assert np.array_equal(np.array(getattr(before, name)), np.array(getattr(after, name)), equal_nan=name in FLOATS)


def test_a_record_becomes_a_row_with_the_same_meaning() -> None:
    world = World(seed=8)
    bare = (
        b'{"prediction_id":"p","model_id":"m","features":{"a":NaN,"b":[1],"c":null,"d":2},"prediction":{"score":"x"}}'
    )
    events = inbound.decode(batch_of([*world.records(3), bare]), inbound.Limits(), 0)

    rows = [cuts.decode_row(cuts.encode_row(cuts.row_of(events, place))) for place in range(4)]

    assert rows[:3] == world.rows(3)
    assert rows[3].features == {"a": [], "b": [], "c": None, "d": 2}
    assert (rows[3].score, rows[3].value, rows[3].tags) == ([], None, None)
    assert cuts.columns_of(rows, cuts.Schema([], [], [])).tags[3] is None


def test_the_shape_of_a_tail_is_that_of_probability_weighted_moments() -> None:
    y = np.sort(stats.genpareto(0.3, scale=2.0).rvs(4_000, random_state=1))
    weights = (len(y) - np.arange(1, len(y) + 1)) / (len(y) - 1)
    a0, a1 = y.mean(), (weights * y).mean()
    shape, spread = 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)

    limits = cuts.tail(y, 1.0, 64)

    rare = 64 * 10.0 ** (-np.arange(4, 25) / 2) / 2
    assert limits == pytest.approx(stats.genpareto(shape, scale=spread).isf(rare))
    assert (shape, spread) == pytest.approx((0.3, 2.0), rel=0.15)


def test_a_tail_of_few_different_values_is_exponential() -> None:
    limits = cuts.tail(np.repeat([1.0, 2.0], 50), 5.0, 64)

    assert limits == pytest.approx(5.0 * -np.log(64 * 10.0 ** (-np.arange(4, 25) / 2) / 2))
    assert cuts.tail(np.zeros(0), 1.0, 64)[0] == pytest.approx(-math.log(0.32))


@pytest.mark.parametrize("law", [stats.norm(), stats.expon(), stats.lognorm(1.0), stats.t(5), stats.t(3)])
def test_limits_of_tails_keep_their_promise(law: stats.rv_continuous) -> None:
    at_four, at_six = [], []
    for seed in range(40):
        values = np.asarray(law.rvs(8_192, random_state=seed))
        low, high = cuts._tails(values, cuts.edges(values, 64), 1.0)
        at_four.append(law.cdf(low[4]) + law.sf(high[4]))
        at_six.append(law.cdf(low[8]) + law.sf(high[8]))

    assert 1e-4 / 5 <= np.median(at_four) <= 3e-4  # the normal law, lighter than exponential, errs to the safe side
    assert np.mean(at_six) <= 1e-5


def test_the_covariance_is_shrunk_as_ledoit_and_wolf_do() -> None:
    z = np.random.default_rng(2).multivariate_normal([0.1, -0.2, 0], [[1, 0.6, 0], [0.6, 1, 0.2], [0, 0.2, 1]], 300)
    mean = z.mean(axis=0)
    covariance = np.cov(z.T, bias=True)
    noise = sum(((np.outer(row - mean, row - mean) - covariance) ** 2).sum() for row in z) / 300**2
    expected = noise / ((covariance - np.eye(3)) ** 2).sum()

    found_mean, found, weight = cuts.shrunk_covariance(z)

    assert weight == pytest.approx(expected)
    assert found_mean == pytest.approx(mean)
    assert found == pytest.approx((1 - expected) * covariance + expected * np.eye(3))


def test_the_weight_of_the_identity_has_limits() -> None:
    twins = np.random.default_rng(3).normal(size=(5_000, 1)).repeat(2, axis=1)
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    assert cuts.shrunk_covariance(twins)[2] == 0.02
    assert np.linalg.eigvalsh(cuts.shrunk_covariance(twins)[1]).min() == pytest.approx(0.02)
    assert cuts.shrunk_covariance(square)[2] == 1


def test_the_distance_of_independent_normal_scores_is_chi_squared() -> None:
    values = np.random.default_rng(4).normal(size=(4_096, 3))
    rows = [Row(f"p{i}", 0, dict(zip("abc", line, strict=True))) for i, line in enumerate(values.tolist())]

    reference = cut(rows)
    layout = extract.compile_layout(reference)
    columns = cuts.columns_of(rows, cuts.infer_schema(rows, Declared()))
    distances = extract.rows(layout, columns).values[-1] * 2.0**-20

    assert reference.row is not None
    assert reference.row.names == ["feature:a", "feature:b", "feature:c"]
    assert distances.mean() == pytest.approx(3, rel=0.03)
    assert stats.kstest(distances, stats.chi2(3).cdf).statistic < 0.03


def test_a_cut_holds_every_signal_in_the_order_of_canonical_json() -> None:
    reference = cut(World(seed=1).rows(2_000))

    features = sorted(f"feature:{name}" for name in (*NUMERIC, *CATEGORICAL))
    assert list(reference.signals) == [*features, "latency", "prediction:label", "prediction:score", "row:distance"]
    assert reference.reference_id == reference_id(reference)
    assert not reference.complete
    assert reference.segments == {"country": ["AT", "BE", "CH", "DE", "ES", "FR", "IT", "PL"]}
    assert decode_reference(encode_reference(reference)) == reference
    for signal in reference.signals.values():
        assert sum(signal.counts) + signal.missing + signal.invalid == 2_000
    compile_tables(reference)


def test_more_categories_than_bins_share_one() -> None:
    values = [f"c{i % 300:03d}" for i in range(900)] + ["c299"]
    signal = cut(rows_of(*values)).signals["feature:x"]

    assert signal.categories is not None
    assert signal.others is not None
    assert signal.categories[0] == "c299"
    assert (len(signal.categories), len(signal.others), len(signal.counts)) == (255, 45, 256)
    assert sum(signal.counts) == 901


def test_only_the_most_frequent_tag_values_make_segments() -> None:
    tags = [{"country": "DE"}] * 3 + [{"country": 7}] * 2 + [{"country": True}, {"country": [1]}, {}, None]

    found = cuts.segment_values(tags, Declared(segments=("country",), segment_values_max=2))

    assert found == {"country": ["7", "DE"]}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), st.integers(0, 99))
def test_no_values_break_a_reference(extremes: list[float], seed: int) -> None:
    drawn = np.random.default_rng(seed).choice(extremes, 200).tolist()

    reference = cut(rows_of(*drawn))

    assert decode_reference(encode_reference(reference)) == reference


@pytest.mark.parametrize("values", [[0.0] * 200, [5.0] * 200, [1e308, -1e308] * 100, [5e-324, 0.0] * 100])
def test_a_constant_or_enormous_signal_has_a_law(values: list[float]) -> None:
    signal = cut(rows_of(*values)).signals["feature:x"]

    assert signal.scale is not None
    assert signal.scale > 0
    assert sum(signal.counts) == 200
