"""Features of one reference, from JSON text to columns.

As with records, a typed parse in C does the usual rows and a careful one gives every row its meaning: a value of the
wrong type is invalid and spoils nothing else, an unknown name is counted.
"""

import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Raw, Struct, defstruct

from stream.wire import lenient
from stream.wire.adapters import native
from stream.wire.codec import hash64
from stream.wire.lenient import INVALID, Invalid, Text

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Codes: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]

Features: TypeAlias = Raw | Mapping[str, Any] | Struct
"""The features of one event: JSON text of an object, what the careful parse made of it, or a struct as guessed."""

UNKNOWN_KEPT: Final = 32
"""Unknown names kept: those of smallest hash, so that merging is exact (`statistics.md` 2.6)."""
MISSING_CODE: Final = 2
INVALID_CODE: Final = 3

_BLOCK: Final = 512
"""Rows made to columns at once: read again while they are still in the cache of the processor."""
_EXTRAS_MAX: Final = 64
_LESSONS_MAX: Final = 8
"""Unknown names a decoder learns to pass over quickly, and how often within one call it may learn."""
_NUMBER: Final[Any] = float | None
_CATEGORY: Final[Any] = str | bool | int | float | None
_BOOLEAN: Final[Any] = bool | None


class Columns(Struct, frozen=True):
    """The features of n rows. A number is NaN where it is missing or invalid; the mask tells which."""

    numeric: Floats
    """[n, numeric], contiguous along the rows"""
    numeric_invalid: Mask
    """[n, numeric], contiguous along the rows"""
    categorical: list[list[Text]]
    """Per feature n texts, None for missing, INVALID for invalid."""
    boolean: Codes
    """[n, boolean] 0 false, 1 true, 2 missing, 3 invalid; contiguous along the rows"""
    unknown: dict[str, int]
    """Names the reference does not know, as `lenient.shown_name` shows them, and their rows: 32 of smallest hash."""


class FeatureDecoder:
    """Decodes rows for one reference. Remembers only in which order names come, and which unknown ones to pass over."""

    def __init__(self, numeric: Sequence[str], categorical: Sequence[str], boolean: Sequence[str]) -> None:
        self._names = (*numeric, *categorical, *boolean)
        self._kinds = (_NUMBER,) * len(numeric) + (_CATEGORY,) * len(categorical) + (_BOOLEAN,) * len(boolean)
        self._known = frozenset(self._names)
        self._arrange(range(len(self._names)))
        self._is_handed_out = False

    def _arrange(self, order: Sequence[int]) -> None:
        """Begin with structs whose fields are the known names in some order."""
        self._fields = tuple(self._names[place] for place in order)
        self._field_kinds = tuple(self._kinds[place] for place in order)
        self._places = np.argsort(order).tolist()
        """Where each name stands in a struct."""
        self._extras: tuple[str, ...] = ()
        self._plain = self._latest = _shape(self._fields, self._field_kinds, ())
        # A name that msgspec cannot spell keeps every row on the careful path.
        self._decode = _decoder(self._plain) if all(map(native.is_plain_name, self._names)) else _refuse
        self._shapes = {self._plain: 0}
        """The shapes whose structs are rows of ours, and how many learned names each has."""

    @property
    def shape(self) -> type[Struct]:
        """A struct of the known features, and of the unknown ones learned so far: what a `native.Guess` is made of."""
        self._is_handed_out = True
        return self._latest

    def shape_like(self, features: Raw) -> type[Struct]:
        """`shape`, its fields in the order of this row if nobody has been given a shape before.

        The parser looks for each name behind the one before it: 20 names in another order cost a fifth of a decoding.
        """
        if not self._is_handed_out:
            rank = {name: place for place, name in enumerate(_names_in(features))}
            last = len(rank)
            self._arrange(sorted(range(len(self._names)), key=lambda place: rank.get(self._names[place], last)))
        return self.shape

    def decode(self, features: Sequence[Features], values: Sequence[bytes] = ()) -> Columns:
        """Columns of the rows of `inbound.Events.features`; `.values` are asked for what a guess decoded wrongly.

        Never raises on what `inbound.decode` let through. About 1.9 us per row of 16 numeric and 4 categorical
        features, 0.7 where a guess has decoded them; the first rows with unknown names, and those with an invalid
        value, cost about 10 us.
        """
        unknown: dict[str, int] = {}
        rows, careful = self._rows(features, values, unknown)
        numbers, categories, booleans = (
            [place for place, own in zip(self._places, self._kinds, strict=True) if own is kind] for kind in _MEANING
        )
        numeric = np.empty((len(numbers), len(rows)))
        numeric_invalid = np.zeros(numeric.shape, dtype=np.bool_)
        categorical: list[list[Text]] = [[] for _ in categories]
        boolean = np.empty((len(booleans), len(rows)), dtype=np.int8)
        has_gaps = [False] * len(numbers)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            columns: list[Sequence[Any]] = list(zip(*map(msgspec.structs.astuple, rows[block]), strict=False))
            spoilt = [row - start for row in careful[bisect_left(careful, start) : bisect_left(careful, block.stop)]]
            for place, number in enumerate(numbers):
                column = _checked(columns[number], spoilt, numeric_invalid[place, block])
                has_gaps[place] = write_numbers(column, numeric[place, block], has_gaps=has_gaps[place])
            for texts, category in zip(categorical, categories, strict=True):
                texts.extend(_texts(columns[category]))
            for codes, own in zip(boolean, booleans, strict=True):
                codes[block] = [_CODES[value] for value in columns[own]]
        return Columns(
            numeric=numeric.T,
            numeric_invalid=numeric_invalid.T,
            categorical=categorical,
            boolean=boolean.T,
            unknown=_smallest(unknown),
        )

    def _rows(
        self, features: Sequence[Features], values: Sequence[bytes], unknown: dict[str, int]
    ) -> tuple[list[Struct], list[int]]:
        """A struct of ours per row, and which rows went the careful way; unknown names are counted into `unknown`."""
        types: set[type[Any]] = set(map(type, features))
        rows: list[Any] = []
        careful: list[int] = []
        if types <= self._shapes.keys():
            rows = list(features)
        elif types <= {Raw, dict}:
            self._parse(features, rows, careful, unknown)
        else:
            own = self._shapes.keys() | {Raw, dict}
            mixed = [
                row if type(row) in own else native.raw_features(value)
                for row, value in zip(features, values, strict=True)
            ]
            self._parse(mixed, rows, careful, unknown)
        self._count_extras(rows, unknown)
        return rows, careful

    def _parse(self, features: Sequence[Any], rows: list[Any], careful: list[int], unknown: dict[str, int]) -> None:
        lessons = 0
        source, mixed = iter(features), not set(map(type, features)) <= {Raw, dict}
        decoded = map(self._fast(mixed=mixed), source)
        while len(rows) < len(features):
            try:
                for row in decoded:  # one that raises is taken from `source`, and the next one follows
                    rows.append(row)  # noqa: PERF402 - `extend` does not say what it keeps when one raises
            except _REFUSALS:
                place = len(rows)
            else:
                break
            row, names = self._careful(features[place])
            rows.append(row)
            careful.append(place)
            for name in names:
                unknown[name] = unknown.get(name, 0) + 1
            if not names <= set(self._extras) and lessons < _LESSONS_MAX:
                lessons += 1
                self._learn(names)
                decoded = map(self._fast(mixed=mixed), source)

    def _fast(self, *, mixed: bool) -> Callable[[Any], Any]:
        decode, shapes = self._decode, self._shapes
        return (lambda given: given if type(given) in shapes else decode(given)) if mixed else decode

    def _careful(self, given: Raw | Mapping[str, Any]) -> tuple[Struct, set[str]]:
        values = lenient.loads(bytes(given)) if isinstance(given, Raw) else given
        row = [_MEANING[kind](values.get(name)) for name, kind in zip(self._fields, self._field_kinds, strict=True)]
        return self._plain(*row), values.keys() - self._known

    def _learn(self, names: set[str]) -> None:
        extras = (*self._extras, *sorted(filter(native.is_plain_name, names.difference(self._extras))))
        if len(extras) <= _EXTRAS_MAX:
            self._extras = extras
            self._latest = _shape(self._fields, self._field_kinds, extras)
            self._shapes[self._latest] = len(extras)
            self._decode = self._decode if self._decode is _refuse else _decoder(self._latest)

    def _count_extras(self, rows: Sequence[Struct], unknown: dict[str, int]) -> None:
        """Counts the unknown features that the fast path passed over."""
        for shape in set(map(type, rows)) - {self._plain}:
            passed = [msgspec.structs.astuple(row)[len(self._names) :] for row in rows if type(row) is shape]
            for name, column in zip(self._extras, zip(*passed, strict=True), strict=False):
                if count := len(column) - column.count(None):
                    unknown[name] = unknown.get(name, 0) + count


def feature_decoder(
    names_numeric: Sequence[str], names_categorical: Sequence[str], names_boolean: Sequence[str]
) -> FeatureDecoder:
    """A decoder for the features of one reference, in the reference's order within each type. Cache it by reference."""
    return FeatureDecoder(names_numeric, names_categorical, names_boolean)


def values_of(features: Features, value: bytes) -> dict[str, float | str | bool | Invalid | None]:
    """All features of one row whose names may stand in a reference, for learning one: None missing, INVALID invalid."""
    given = features if isinstance(features, Raw | dict) else native.raw_features(value)
    values = lenient.loads(bytes(given)) if isinstance(given, Raw) else given
    return {
        name: INVALID if isinstance(own, dict | list) else own for name, own in values.items() if lenient.is_name(name)
    }


def _boolean(value: object) -> bool | Invalid | None:
    return value if value is None or isinstance(value, bool) else INVALID


_MEANING: Final[dict[Any, Callable[[object], Any]]] = {
    _NUMBER: lenient.number,
    _CATEGORY: lenient.category,
    _BOOLEAN: _boolean,
}
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_CODES: Final = {False: 0, True: 1, None: MISSING_CODE, INVALID: INVALID_CODE}
_TEXTS: Final = {str, type(None), Invalid}
_REFUSALS: Final = (msgspec.DecodeError, ValueError, TypeError, RecursionError)
"""What the fast path may raise; `TypeError` where the row is a dict already."""


@lru_cache(maxsize=256)
def _shape(names: tuple[str, ...], kinds: tuple[Any, ...], extras: tuple[str, ...]) -> type[Struct]:
    fields: list[Any] = [(f"f{place}", kind, None) for place, kind in enumerate(kinds + (Raw,) * len(extras))]
    rename = {f"f{place}": name for place, name in enumerate(names + extras) if native.is_plain_name(name)}
    return defstruct("Features", fields, rename=rename, gc=False, forbid_unknown_fields=True)


def _refuse(_: Any) -> Any:
    raise ValueError


def _names_in(features: Raw) -> list[str]:
    """The names of an object in their order; none where they cannot be read."""
    try:
        return list(_OBJECT.decode(features))
    except native.REFUSALS:
        return []


def _decoder(shape: type[Struct]) -> Callable[[Any], Any]:
    return msgspec.json.Decoder(shape).decode


def write_numbers(column: Sequence[Any], numbers: Floats, *, has_gaps: bool = False) -> bool:
    """Writes numbers and Nones, as NaN, into an array of the same length.

    Returns whether there are Nones; who writes a column in parts hands that on, so that it is not tried in vain again.
    """
    if not has_gaps:
        try:  # packing a column of floats is four times faster than numpy's reading of it
            numbers[:] = np.frombuffer(struct.pack(f"{len(column)}d", *column))
        except (struct.error, OverflowError):
            pass
        else:
            return False
    numbers[:] = column
    return True


def _checked(column: Sequence[Any], careful: Sequence[int], invalid: Mask) -> Sequence[Any]:
    """A column with None for what is invalid in the rows that went the careful way, and these marked."""
    spoilt = [row for row in careful if column[row] is INVALID]
    if not spoilt:
        return column
    invalid[spoilt] = True
    return [None if value is INVALID else value for value in column]


def _texts(column: Sequence[Any]) -> Sequence[Text]:
    if set(map(type, column)) <= _TEXTS:
        return column
    return [lenient.category(value) for value in column]


def _smallest(unknown: Mapping[str, int]) -> dict[str, int]:
    shown: dict[str, int] = {}
    for name, rows in unknown.items():
        shown[lenient.shown_name(name)] = shown.get(lenient.shown_name(name), 0) + rows
    return {name: shown[name] for name in sorted(shown, key=hash64)[:UNKNOWN_KEPT]}
