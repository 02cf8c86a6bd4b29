"""Sums of numbers of any scale that are exact, and therefore equal in any order and grouping.

A number is cut into pieces of 24 bits along a fixed grid of powers of two; a sum is one integer per piece of the grid,
its *limbs*. 2^38 numbers fit before a limb of 64 bits can overflow. What lies below 2^-168 (10^-51) is cut off, what
lies beyond 2^168 counts as just below it.
"""

from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

LIMBS: Final = 14
_BITS: Final = 24
_LOWEST: Final = -_BITS * LIMBS // 2
"""Exponent of the last bit of limb 0."""
_LARGEST: Final = float(np.ldexp(1 - 2.0**-53, -_LOWEST))
_PIECES: Final = 4
"""53 bits that begin anywhere in a limb end in its third neighbour at the latest."""


def cut(values: Floats) -> tuple[Ints, Floats]:
    """Limbs [4, n] and the whole numbers [4, n] to be added there, below 2^24 in size. `values` [n] hold no NaN."""
    rest = np.clip(values, -_LARGEST, _LARGEST)
    top = (np.frexp(rest)[1].astype(np.int64) - 1 - _LOWEST) // _BITS
    limbs, pieces = np.empty((_PIECES, len(rest)), np.int64), np.empty((_PIECES, len(rest)))
    for place in range(_PIECES):
        limb = np.maximum(top - place, 0)
        shift = (_LOWEST + _BITS * limb).astype(np.int32)
        piece = np.trunc(np.ldexp(rest, -shift))
        rest = rest - np.ldexp(piece, shift)
        limbs[place], pieces[place] = limb, piece
    return limbs, pieces


def square_error(values: Floats) -> Floats:
    """[n] what rounding took from `values * values`: both together are the square, unless it is beyond 2^168.

    T. J. Dekker (1971), A floating-point technique for extending the available precision, Numer. Math. 18.
    """
    inside = np.where(np.abs(values) < _LARGEST, values, 0.0)
    spread = inside * (2.0**27 + 1)
    high = spread - (spread - inside)
    low = inside - high
    return np.asarray(((high * high - inside * inside) + 2 * high * low) + low * low)


def total(limbs: Ints) -> Fraction:
    """The sum that [14] limbs hold."""
    return Fraction(sum(piece << (_BITS * place) for place, piece in enumerate(limbs.tolist())), 1 << -_LOWEST)
