import math
from itertools import pairwise
from typing import Any

import makings
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from stream.signals import extract, outliers
from stream.wire.codec import hash64
from stream.wire.internal import OutlyingRow, Reference, SignalReference

LIMITS = [10.0 + step for step in range(21)]
"""Limits of the upper tail for s = 4 to 24."""


def reference(signals: dict[str, SignalReference], window_rows: float | None = None) -> Reference:
    return makings.a_reference(signals, window_rows=window_rows)


def numeric(low: list[float] | None = None, high: list[float] | None = None) -> SignalReference:
    return SignalReference(type="numeric", counts=[10, 10], edges=[0.0], low=low, high=high)


def columns(n: int, **fields: Any) -> extract.Columns:
    rows = np.arange(n, dtype=np.int64)
    return makings.columns(n, **{"time_ms": rows * 1000, "offsets": rows + 500} | fields)


def judged(own: Reference, given_columns: extract.Columns) -> tuple[extract.Layout, extract.Rows, outliers.Judged]:
    layout = extract.compile_layout(own)
    rows = extract.rows(layout, given_columns)
    return layout, rows, outliers.score(outliers.compile_judge(layout), rows)


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(-40, 40) | st.sampled_from([math.nan, 1e308, -1e308, *LIMITS]), min_size=1, max_size=20)
)
def test_a_value_scores_by_the_limits_it_has_passed(values: list[float]) -> None:
    low = [-limit for limit in LIMITS]
    _, _, found = judged(
        reference({"feature:x": numeric(low, LIMITS)}), columns(len(values), numeric=np.array([values]).T)
    )
    for value, score in zip(values, found.signals[0].tolist(), strict=True):
        passed = [s for s, limit in enumerate(LIMITS, start=4) if abs(value) > limit]
        assert score == max(passed, default=0)
    assert found.rows.tolist() == found.signals[0].tolist()  # one signal: one chance, no penalty


def test_tails_are_one_sided_where_the_reference_says_so() -> None:
    signals = {"feature:up": numeric([], LIMITS), "feature:down": numeric([-1.0], None), "feature:none": numeric()}
    extremes = np.array([[1e9, 1e9, 1e9], [-1e9, -1e9, -1e9]])
    _, _, found = judged(reference(signals), columns(2, numeric=extremes))
    assert found.signals.tolist() == [[24, 0], [0, 4], [0, 0]]
    assert found.rows.tolist() == [23, 3]  # two signals can score: ceil(2 log10(2)) = 1


def test_missing_and_invalid_values_never_score() -> None:
    own = reference(
        {"feature:x": numeric([-1.0], LIMITS), "feature:b": SignalReference(type="boolean", counts=[9999, 1])}
    )
    holes = columns(
        2,
        numeric=np.array([[math.nan], [1e9]]),
        numeric_invalid=np.array([[False], [True]]),
        boolean=np.array([[2], [3]], dtype=np.int8),
    )
    assert not judged(own, holes)[2].rows.any()


def test_a_rare_category_scores_by_the_mass_of_what_is_as_rare() -> None:
    counts = [989_000, 10_000, 500, 490]
    label = SignalReference(type="categorical", counts=counts, categories=["a", "b", "c", "d"], singletons=8)
    texts = ["a", "b", "c", "d", "new", None, object()]
    _, _, found = judged(reference({extract.LABEL: label}), columns(7, label=texts))
    # c: 990 in a million is just below 10^-3; d: 490, 10^-3.3; new: Good-Turing 9 in a million, 10^-5.05
    assert found.signals[0].tolist() == [0, 0, 6, 6, 10, 0, 0]


def test_a_boolean_that_is_almost_always_false_scores_when_true() -> None:
    own = reference({"feature:b": SignalReference(type="boolean", counts=[99_999, 1])})
    _, _, found = judged(own, columns(2, boolean=np.array([[0], [1]], dtype=np.int8)))
    assert found.signals[0].tolist() == [0, 9]


@pytest.mark.parametrize(("signals", "penalty"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 2), (11, 3), (100, 4)])
def test_many_signals_have_many_chances_and_pay_for_them(signals: int, penalty: int) -> None:
    own = reference({f"feature:x{index}": numeric(None, LIMITS) for index in range(signals)})
    assert judged(own, columns(1, numeric=np.full((1, signals), 25.5)))[2].rows.tolist() == [19 - penalty]


def test_a_reference_without_tails_finds_no_outlier() -> None:
    assert judged(reference({"feature:x": numeric()}), columns(1, numeric=np.array([[1e9]])))[2].rows.tolist() == [0]
    assert judged(reference({}), columns(1))[2].rows.tolist() == [0]


@pytest.mark.parametrize(
    ("window_rows", "per_period", "expected"),
    [
        (None, 10.0, 12),
        (5000.0, 10.0, 14),  # 10 in 50.4 million rows a week: 10^-6.7
        (1e12, 10.0, 24),
        (0.001, 10.0, 1),  # fewer rows a week than one accepts to be told of: every score tells
    ],
)
def test_the_threshold_follows_from_the_wanted_rows_per_period(
    window_rows: float | None, per_period: float, expected: int
) -> None:
    wanted = outliers.Settings(per_period=per_period)
    assert outliers.threshold(reference({}, window_rows), wanted, 7 * 86_400_000) == expected


def test_settings_have_bounds() -> None:
    for bad in ({"per_period": 0}, {"per_window": -1}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            outliers.Settings.model_validate(bad)


def told(
    own: Reference, given_columns: extract.Columns, per_window: int, include_values: bool = False
) -> dict[int, list[OutlyingRow]]:
    layout, rows, found = judged(own, given_columns)
    source = outliers.Source("predictions", 3, lambda row: f"trace-{given_columns.offsets[row]}", include_values)
    starts = given_columns.time_ms - given_columns.time_ms % 10_000
    return outliers.worst(
        layout, given_columns, rows, found, starts, 6, outliers.Settings(per_window=per_window), source
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), per_window=st.integers(0, 5), same=st.booleans())
def test_the_worst_of_parts_merge_to_the_worst_of_all(seed: int, n: int, per_window: int, same: bool) -> None:
    rng = np.random.default_rng(seed)
    own = reference({"feature:x": numeric(None, LIMITS)})
    values = np.full((n, 1), 1e9) if same else rng.uniform(0, 40, (n, 1))
    whole = columns(n, numeric=values)
    at_once = told(own, whole, per_window)
    borders = sorted({0, n, *rng.integers(0, n + 1, 3).tolist()})
    parts: dict[int, list[OutlyingRow]] = {}
    for start, end in pairwise(borders):
        rows = slice(start, end)
        piece = replace(
            columns(end - start, numeric=values[rows]),
            **{name: getattr(whole, name)[rows] for name in ("time_ms", "offsets", "prediction_ids")},
        )
        for window, found in told(own, piece, per_window).items():
            parts.setdefault(window, []).extend(found)
    assert {window: sorted(found, key=outliers.rank)[:per_window] for window, found in parts.items()} == at_once
    for window, found in at_once.items():
        inside = whole.offsets[(whole.time_ms // 10_000 * 10_000 == window) & (values[:, 0] > LIMITS[2])]
        assert len(found) == min(per_window, len(inside))


def test_a_told_row_says_where_it_is_and_what_was_unusual() -> None:
    label = SignalReference(type="categorical", counts=[999_999], categories=["a"], singletons=0)
    names = [f"feature:x{index}" for index in range(6)]
    own = reference(
        {name: numeric(None, LIMITS) for name in names}
        | {"feature:c": label, "feature:b": SignalReference(type="boolean", counts=[10**7, 0]), extract.LABEL: label}
    )
    given_columns = columns(
        2,
        numeric=np.array([[0.0] * 6, [12.5, 11.5, 1e9, 0.0, 11.5, 25.5]]),
        categorical=[["a", "new"]],
        boolean=np.array([[0], [1]], dtype=np.int8),
        label=["a", "odd"],
    )
    (row,) = told(own, given_columns, 20, include_values=True)[0]
    assert (row.prediction_id, row.time_ms, row.topic, row.partition, row.offset) == (
        "p-1",
        1000,
        "predictions",
        3,
        501,
    )
    assert (row.score, row.traceparent, row.id_hash) == (22, "trace-501", hash64("p-1"))
    assert row.contributions == [
        ("feature:x2", 24, 1e9),
        ("feature:x5", 19, 25.5),
        ("feature:b", 14, True),
        ("feature:c", 12, "new"),
        ("prediction:label", 12, "odd"),
    ]
    (hidden,) = told(own, given_columns, 20)[0]
    assert [value for *_, value in hidden.contributions] == [None] * 5
