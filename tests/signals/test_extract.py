import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makings import a_reference, columns
from msgspec.structs import replace

from stream.signals import extract
from stream.wire import inbound
from stream.wire.codec import hash64
from stream.wire.features import feature_decoder
from stream.wire.internal import Reference, RowReference, SignalReference
from stream.wire.lenient import INVALID
from stream.wire.record import Batch

FINITE = st.floats(allow_nan=False, allow_infinity=False)
EDGES = st.one_of(
    st.lists(FINITE, min_size=1, max_size=63, unique=True),
    # neighbours: an atom's edge has its predecessor beside it
    st.lists(st.integers(-20, 20), min_size=1, max_size=20).map(
        lambda atoms: [edge for atom in atoms for edge in (float(np.nextafter(atom, -math.inf)), float(atom))]
    ),
    # heavy tails: all edges but one in one cell of the grid
    st.integers(3, 63).map(lambda count: [*np.linspace(0.0, 1e-6, count), 1e6]),
).map(lambda edges: sorted({edge + 0.0 for edge in edges}))


def numeric(edges: list[float], **fields: Any) -> SignalReference:
    return SignalReference(type="numeric", counts=[10] * (len(edges) + 1), edges=edges, **fields)


def categorical(categories: list[str], **fields: Any) -> SignalReference:
    counts = [10] * (len(categories) + bool(fields.get("others")))
    return SignalReference(type="categorical", counts=counts, categories=categories, **fields)


def reference(
    signals: dict[str, SignalReference],
    row: RowReference | None = None,
    declared: dict[str, list[str]] | None = None,
) -> Reference:
    return a_reference(signals, row=row, segments=declared or {})


def part(whole: extract.Columns, rows: slice) -> extract.Columns:
    fields: dict[str, Any] = {
        name: getattr(whole, name)[rows] for name in whole.__struct_fields__ if name != "categorical"
    }
    return extract.Columns(categorical=[one[rows] for one in whole.categorical], **fields)


@settings(max_examples=200)
@given(edges=EDGES, drawn=st.lists(st.floats(allow_nan=False), max_size=30))
def test_a_bin_is_the_number_of_edges_below_the_value(edges: list[float], drawn: list[float]) -> None:
    beside = [math.nextafter(edge, side) for edge in edges for side in (-math.inf, math.inf)]
    values = np.array([*drawn, *edges, *beside])
    layout = extract.compile_layout(reference({"feature:x": numeric(edges)}))
    cells = extract.rows(layout, columns(len(values), numeric=values[:, None])).cells
    assert cells[0].tolist() == np.searchsorted(edges, values, side="left").tolist()


def test_minus_zero_and_zero_share_a_bin() -> None:
    layout = extract.compile_layout(reference({"feature:x": numeric([-1.0, 0.0, 1.0])}))
    cells = extract.rows(layout, columns(2, numeric=np.array([[0.0], [-0.0]]))).cells
    assert cells.tolist() == [[1, 1]]


def test_missing_and_invalid_have_bins_of_their_own() -> None:
    layout = extract.compile_layout(
        reference(
            {
                "feature:x": numeric([0.0]),
                "feature:b": SignalReference(type="boolean", counts=[5, 5]),
                "feature:c": categorical(["eu", "us"]),
                extract.SCORE: numeric([0.5]),
            }
        )
    )
    rows = extract.rows(
        layout,
        columns(
            3,
            numeric=np.array([[1.0], [math.nan], [math.nan]]),
            numeric_invalid=np.array([[False], [False], [True]]),
            boolean=np.array([[1], [2], [3]], dtype=np.int8),
            categorical=[["us", None, INVALID]],
            score=np.array([0.7, math.nan, math.nan]),
            score_invalid=np.array([False, False, True]),
        ),
    )
    assert layout.first.tolist() == [0, 4, 8, 13]
    assert layout.columns == 17
    # columns: x 0..3, b 4..7, c 8..12 (eu, us, unseen, missing, invalid), score 13..16
    assert rows.cells.tolist() == [[1, 2, 3], [5, 6, 7], [9, 11, 12], [14, 15, 16]]
    assert rows.invalid.tolist() == [False, False, True]


def test_an_invalid_value_never_reaches_the_moments_whatever_the_column_holds() -> None:
    layout = extract.compile_layout(reference({"feature:x": numeric([0.0])}))
    given_columns = columns(1, numeric=np.array([[1e300]]), numeric_invalid=np.array([[True]]))
    assert np.isnan(extract.rows(layout, given_columns).values).all()
    assert given_columns.numeric[0, 0] == 1e300


def test_categories_of_the_reference_share_the_bin_other_and_the_rest_is_unseen() -> None:
    others = [hash64("is"), hash64("li")]
    layout = extract.compile_layout(reference({extract.LABEL: categorical(["de", "fr"], others=others)}))
    texts = ["fr", "li", "xx", "is", "li", None, INVALID]
    for _ in range(2):  # what was looked up before changes nothing
        assert extract.rows(layout, columns(7, label=texts)).cells.tolist() == [[1, 2, 3, 2, 2, 4, 5]]


def test_an_unseen_category_is_not_remembered() -> None:
    layout = extract.compile_layout(reference({extract.LABEL: categorical(["de"], others=[1, 2])}))
    extract.rows(layout, columns(1000, label=[f"new-{number}" for number in range(1000)]))
    assert len(layout.categorical[0][1]) == 2


def test_segments_compare_as_text_and_the_rest_is_other() -> None:
    declared = {"tier": ["7", "true"], "country": ["DE", "FR"]}
    layout = extract.compile_layout(reference({}, declared=declared))
    tags: list[dict[str, Any]] = [{"country": "FR", "tier": 7}, {"tier": True}, {"country": "XX", "tier": 7.0}, {}]
    assert layout.segments == ["all", "country=DE", "country=FR", "country=other", "tier=7", "tier=true", "tier=other"]
    assert extract.segments(layout, tags).tolist() == [[2, 3, 3, 3], [4, 5, 4, 6]]


def world(seed: int, n: int) -> tuple[extract.Layout, extract.Columns]:
    """A reference with every kind of signal, and n rows with holes."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 6))
    names = [f"feature:x{index}" for index in range(d)]
    signals = {
        name: numeric(np.sort(rng.normal(size=7)).tolist(), z=rng.integers(-3000, 3000, 8).tolist()) for name in names
    }
    signals["feature:flag"] = SignalReference(type="boolean", counts=[9, 1], z=[-500, 1500])
    signals["feature:c"] = categorical(["a", "b"], others=[hash64("c")])
    signals |= {
        extract.SCORE: numeric([0.2, 0.5]),
        extract.LABEL: categorical(["0", "1"]),
        extract.LATENCY: numeric([1.0]),
    }
    signals[extract.DISTANCE] = numeric(np.sort(rng.uniform(0, 2.0**24, 15)).tolist())
    entering = [*names, "feature:flag"]
    row = RowReference(
        entering, rng.integers(-200, 200, d + 1).tolist(), rng.integers(-(2**15), 2**15, (d + 1, d + 1)).tolist()
    )
    layout = extract.compile_layout(reference(signals, row, {"k": ["1", "2"]}))
    numbers, holes = rng.normal(size=(n, d)), rng.random((n, d)) < 0.1
    numbers[holes | (rng.random((n, d)) < 0.1)] = math.nan
    return layout, columns(
        n,
        numeric=numbers,
        numeric_invalid=holes,
        boolean=rng.integers(0, 4, (n, 1)).astype(np.int8),
        categorical=[rng.choice(np.array(["a", "b", "c", "d", None, INVALID], dtype=object), n).tolist()],
        score=rng.random(n),
        latency=rng.exponential(size=n),
        label=rng.choice(np.array(["0", "1", None], dtype=object), n).tolist(),
        tags=[{"k": str(value)} for value in rng.integers(0, 4, n)],
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_a_row_means_the_same_whatever_stands_beside_it(seed: int, n: int, cuts: list[int]) -> None:
    layout, whole = world(seed, n)
    borders = sorted({0, n, *(min(cut, n) for cut in cuts)})
    pieces = [extract.rows(layout, part(whole, slice(start, end))) for start, end in pairwise(borders)]
    at_once = extract.rows(layout, whole)
    for name, axis in (("cells", 1), ("values", 1), ("segments", 1), ("invalid", 0)):
        joined = np.concatenate([getattr(piece, name) for piece in pieces], axis=axis)
        assert joined.tobytes() == np.ascontiguousarray(getattr(at_once, name)).tobytes()


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 128), n=st.integers(1, 20))
def test_the_distance_is_exact_and_independent_of_the_batch(seed: int, d: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    z, mean = rng.integers(-4096, 4096, (d, n)), rng.integers(-1024, 1024, d)
    factor = rng.integers(-(2**15), 2**15, (d, d))
    found = extract.distances(z.astype(float), mean.astype(float), factor.astype(float))
    # numpy's shift of negative integers rounds down, as floor does
    y = ((z - mean[:, None]).T @ factor) >> extract.FACTOR_BITS
    assert found.tolist() == (y * y).sum(axis=1).tolist()
    single = [
        extract.distances(z[:, [row]].astype(float), mean.astype(float), factor.astype(float)) for row in range(n)
    ]
    assert np.concatenate(single).tobytes() == found.tobytes()


def test_the_values_stand_in_the_order_of_the_reference_wherever_the_distance_is() -> None:
    last, given_columns = world(2, 30)
    signals = last.reference.signals
    turned = {extract.DISTANCE: signals[extract.DISTANCE]} | signals
    first = extract.compile_layout(replace(last.reference, signals=turned))
    there, here = extract.rows(last, given_columns), extract.rows(first, given_columns)
    assert first.names[first.numeric[0]] == extract.DISTANCE
    assert here.values[0].tobytes() == there.values[-1].tobytes()
    assert here.values[1:].tobytes() == there.values[:-1].tobytes()
    assert (here.cells[0] - first.first[0]).tolist() == (there.cells[-1] - last.first[-1]).tolist()


def test_extracting_leaves_its_arguments_alone() -> None:
    layout, given_columns = world(1, 50)
    before = {
        name: value.copy()
        for name in given_columns.__struct_fields__
        if isinstance(value := getattr(given_columns, name), np.ndarray)
    }
    extract.rows(layout, given_columns)
    for name, value in before.items():
        assert value.tobytes() == getattr(given_columns, name).tobytes()


def test_decoded_events_become_columns() -> None:
    values: list[bytes | None] = [
        b'{"prediction_id":"p-1","model_id":"m","features":{"x":1},"prediction":{"label":true,"score":0.25},"tags":{"k":1}}',
        b'{"prediction_id":"p-2","model_id":"m","features":{"x":2},"prediction":{"score":7},"latency_ms":3}',
    ]
    batch = Batch("predictions", 0, [10, 12], [0, 5], [None, None], values, [None, None])
    events = inbound.decode(batch, inbound.Limits(), 300_000)
    signals = {
        "feature:x": numeric([1.5]),
        extract.SCORE: numeric([0.5]),
        extract.LABEL: categorical(["false", "true"]),
        extract.LATENCY: numeric([1.0]),
    }
    own = reference(signals, declared={"k": ["1"]})
    offsets = np.array(batch.offsets)[events.index]
    decoded = feature_decoder(extract.feature_names(own, "numeric"), [], []).decode(events.features)
    given_columns = extract.columns(events, offsets, decoded)
    rows = extract.rows(extract.compile_layout(own), given_columns)
    assert extract.feature_names(own, "numeric") == ["x"]
    # columns: x 0..3, score 4..7, label 8..12, latency 13..16
    assert rows.cells.tolist() == [[0, 1], [4, 7], [9, 11], [15, 14]]
    assert rows.segments.tolist() == [[1, 2]]
    assert (given_columns.offsets.tolist(), given_columns.time_ms.tolist()) == ([10, 12], [0, 5])


def test_no_rows_and_no_signals_are_no_special_case() -> None:
    layout, given_columns = world(1, 3)
    assert extract.rows(layout, part(given_columns, slice(0, 0))).cells.shape == (len(layout.names), 0)
    bare = extract.compile_layout(reference({}))
    assert (bare.columns, len(extract.rows(bare, columns(2)))) == (0, 2)


@pytest.mark.parametrize(
    ("name", "signal", "complaint"),
    [
        ("volume:predictions", numeric([0.0]), "not a signal of a prediction"),
        (extract.SCORE, categorical(["a"]), "must be numeric"),
        ("feature:x", SignalReference(type="numeric", counts=[1, 2]), "one more than edges"),
        ("feature:x", numeric([1.0, 0.0]), "must rise"),
        ("feature:x", SignalReference(type="boolean", counts=[1]), "two counts"),
        ("feature:x", SignalReference(type="categorical", counts=[1], categories=["a", "b"]), "one per category"),
        (extract.DISTANCE, numeric([0.0]), "no row"),
    ],
)
def test_a_reference_that_contradicts_itself_is_refused(name: str, signal: SignalReference, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        extract.compile_layout(reference({name: signal}))


def test_a_distance_over_signals_without_normal_scores_is_refused() -> None:
    signals = {"feature:x": numeric([0.0]), extract.DISTANCE: numeric([0.0])}
    for row in (RowReference(["feature:x"], [0], [[1]]), RowReference(["feature:y"], [0], [[1]])):
        with pytest.raises(ValueError, match="no normal scores"):
            extract.compile_layout(reference(signals, row))
    signals["feature:x"] = replace(signals["feature:x"], z=[-1, 1])
    with pytest.raises(ValueError, match="mean"):
        extract.compile_layout(reference(signals, RowReference(["feature:x"], [0, 1], [[1]])))
