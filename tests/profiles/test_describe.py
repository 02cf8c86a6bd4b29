"""Means, standard deviations and quantiles of a window, against the values behind it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import NUMERIC, World

from stream.profiles import building, cuts, describe, reference
from stream.profiles.cuts import Declared, Plan, Row
from stream.profiles.reference import Tables

WORLD = World(seed=9)


@pytest.fixture(scope="module")
def tables() -> Tables:
    rows = WORLD.rows(4_096)
    schema = cuts.infer_schema(rows, Declared())
    cut = cuts.provisional(cuts.columns_of(rows, schema), schema, Plan("credit", "3", 60_000), effective_from_ms=0)
    return reference.compile_tables(cut)


def test_mean_and_standard_deviation_are_those_of_the_values(tables: Tables) -> None:
    window = building.total(tables, cuts.infer_schema(WORLD.rows(500), Declared()), WORLD.rows(3_000, first=10_000))
    values = WORLD.columns(3_000, first=10_000).numeric

    mean, std = describe.mean_and_std(tables.scale, window.counts, window.moments)

    for place, name in enumerate(NUMERIC):
        at = tables.layout.numeric.index(tables.layout.names.index(f"feature:{name}"))
        assert mean[0, at] == pytest.approx(np.nanmean(values[:, place]), rel=1e-6)
        assert std[0, at] == pytest.approx(np.nanstd(values[:, place]), rel=1e-3)


def test_quantiles_are_those_of_the_values_up_to_a_bin(tables: Tables) -> None:
    window = building.total(tables, cuts.infer_schema(WORLD.rows(500), Declared()), WORLD.rows(3_000, first=10_000))
    values = WORLD.columns(3_000, first=10_000)

    found = describe.quantiles(tables.scale, window.counts, (0.05, 0.5, 0.95))

    for place, name in enumerate(NUMERIC):
        at = tables.layout.numeric.index(tables.layout.names.index(f"feature:{name}"))
        own = values.numeric[:, place]
        below = [(own <= quantile).sum() / (~np.isnan(own)).sum() for quantile in found[0, at]]
        if not name.startswith("number"):  # whole numbers have few quantiles
            assert below == pytest.approx([0.05, 0.5, 0.95], abs=0.01)


def test_an_empty_window_has_no_description(tables: Tables) -> None:
    nothing = np.zeros((2, tables.layout.columns), dtype=np.int64)
    moments = np.zeros((2, len(tables.layout.numeric), 4), dtype=np.int64)

    mean, std = describe.mean_and_std(tables.scale, nothing, moments)

    assert np.isnan(mean).all()
    assert np.isnan(std).all()
    assert np.isnan(describe.quantiles(tables.scale, nothing, (0.5,))).all()
    assert describe.valid_events(tables.scale, nothing).tolist() == [[0] * len(tables.layout.numeric)] * 2


@settings(max_examples=20, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(1, 50))
def test_a_heavy_value_is_its_own_quantile(value: float, count: int) -> None:
    rows = [Row(f"p{i}", 0, {"x": value if i % 2 else float(i)}) for i in range(200)]
    schema = cuts.infer_schema(rows, Declared())
    cut = cuts.provisional(cuts.columns_of(rows, schema), schema, Plan("m", "1", 60_000), effective_from_ms=0)
    tables = reference.compile_tables(cut)
    window = building.total(tables, schema, [Row(f"q{i}", 0, {"x": value}) for i in range(count)])
    at = tables.layout.numeric.index(tables.layout.names.index("feature:x"))

    found = describe.quantiles(tables.scale, window.counts, (0.05, 0.5, 1.0))[0, at]

    assert found == pytest.approx([value] * 3)
