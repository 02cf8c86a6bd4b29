"""Sums to the last bit."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.profiles import exact


def summed(values: list[float]) -> exact.Ints:
    limbs, pieces = exact.cut(np.array(values, dtype=np.float64))
    assert (np.abs(pieces) < 2**24).all()
    assert (limbs >= 0).all()
    return np.bincount(limbs.ravel(), pieces.ravel(), exact.LIMBS).astype(np.int64)


ORDINARY = st.floats(-1e40, 1e40).filter(lambda value: value == 0 or abs(value) > 1e-34)
"""Numbers all of whose bits lie above 2^-168."""


@given(values=st.lists(ORDINARY, max_size=30), cut=st.integers(0, 30))
def test_sums_are_those_of_exact_arithmetic_in_any_grouping(values: list[float], cut: int) -> None:
    assert exact.total(summed(values)) == sum(map(Fraction, values))
    assert (summed(values[:cut]) + summed(values[cut:])).tolist() == summed(values).tolist()


def test_a_small_number_beside_a_large_one_is_not_lost() -> None:
    assert exact.total(summed([1e30, 1.0, -1e30])) == 1.0


def test_what_is_beyond_the_grid_counts_as_its_end() -> None:
    ends = [exact.total(summed([value])) for value in (math.inf, -math.inf, 1e300, 1e-60, 5e-324)]
    assert ends == [2.0**168 - 2.0**115, -(2.0**168) + 2.0**115, 2.0**168 - 2.0**115, 0.0, 0.0]


@given(value=st.floats(-1e25, 1e25).filter(lambda value: value == 0 or abs(value) > 1e-100))
def test_a_square_and_its_error_are_exact(value: float) -> None:
    error = exact.square_error(np.array([value]))
    assert Fraction(value * value) + Fraction(float(error[0])) == Fraction(value) ** 2


def test_a_square_beyond_the_grid_has_no_error() -> None:
    assert exact.square_error(np.array([1e200, -1e308, math.inf])).tolist() == [0, 0, 0]
