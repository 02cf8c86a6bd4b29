"""Runs: rows packed into few bytes, sorted by key or by time, found by key.

A run never changes. What comes together is packed together; four runs of about the same size become one, as in a
log-structured tree, up to a size where that would cost more than it saves. A row is about 25 bytes.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, Final, TypeVar

import numpy as np
from msgspec import Struct

from stream.stages.join import rows
from stream.stages.join.rows import COLUMNS, Column, Columns, Names, Rows, Words, gathered, none, order, together
from stream.wire.internal import Bools, Ints

T = TypeVar("T", bound=Sized)

ROWS_MAX: Final = 1 << 20
"""Larger runs are not made by merging: rows within their horizon share a run with at most so many that are not."""
CROWD: Final = 32
"""Of one id so many predictions and so many labels take part within one horizon; the others are duplicates. So an id
that everybody sends costs no more than one that is sent once."""
MERGED: Final = 4
"""Runs of one size that become one."""
_ONE, _SEVEN, _THREE = np.uint8(1), np.uint64(7), np.uint64(3)


class Packed(Struct, frozen=True, eq=False):
    """A column in the narrowest form that gives back every bit."""

    base: Any
    """Whole numbers: what `data` counts from. If `data` is None, every value is this."""
    data: Column | None
    dtype: np.dtype[Any]
    rows: int

    def at(self, picks: Ints) -> Column:
        """[k] the values in these places."""
        if self.data is None:
            return np.full(len(picks), self.base, dtype=self.dtype)
        return self._wide(self.data[picks])

    def all(self) -> Column:
        """[rows] all values."""
        return np.full(self.rows, self.base, dtype=self.dtype) if self.data is None else self._wide(self.data)

    def part(self, which: Bools) -> "Packed":
        """The values of a mask alone."""
        data = None if self.data is None else self.data[which]
        return Packed(self.base, data, self.dtype, int(which.sum()))

    def _wide(self, data: Column) -> Column:
        wide = data.astype(self.dtype)
        if self.base:
            wide += self.base
        return wide


class Sieve(Struct, frozen=True, eq=False):
    """Tells of most keys that a run does not have them: one bit for each range of keys, eight per row."""

    shift: np.uint64
    bits: np.ndarray[Any, np.dtype[np.uint8]]

    def holds(self, keys: Words) -> Bools:
        """[k] False only where a key is surely not there."""
        ranges = keys >> self.shift
        inside = ranges < np.uint64(8 * len(self.bits))
        ranges[~inside] = 0
        held: Bools = (self.bits[ranges >> _THREE] >> (ranges & _SEVEN).astype(np.uint8) & _ONE).view(np.bool_)
        return inside & held


class Run(Struct, frozen=True, eq=False):
    """Packed rows."""

    names: Names
    columns: dict[str, Packed]
    first_ms: int
    last_ms: int
    sieve: Sieve | None = None
    """Of rows sorted by key."""

    def __len__(self) -> int:
        return self.columns["keys"].rows

    @property
    def keys(self) -> Words:
        """[n] as they are stored."""
        found = self.columns["keys"].data
        return self.columns["keys"].all() if found is None else found

    def column(self, name: str) -> Column:
        """[n] one of `COLUMNS`, unpacked."""
        return self.columns[name].all()

    def rows(self, picks: Ints) -> Rows:
        """The rows in these places, unpacked."""
        return Rows(names=self.names, **{name: packed.at(picks) for name, packed in self.columns.items()})


def pack(parts: Sequence[Columns], order_by: str) -> Run:
    """One run of all rows, at least one, sorted by `keys` or by `times_ms`. Column by column: it needs little room."""
    names, columns = together(parts)
    places = order(np.concatenate(columns(order_by)))
    packed = {name: _packed(np.concatenate(columns(name))[places]) for name in COLUMNS}
    times_ms = packed["times_ms"].all()
    sieve = _sieve(packed["keys"].all()) if order_by == "keys" else None
    return Run(names, packed, int(times_ms.min()), int(times_ms.max()), sieve)


def added(parts: tuple[T, ...], part: T, merge: Callable[[Sequence[T]], T]) -> tuple[T, ...]:
    """Parts in order of time with one more, those at the end merged where four are of about its size."""
    found = [*parts, part]
    while tail := _mergeable(found):
        found[-len(tail) :] = [merge(tail)]
    return tuple(found)


def find(runs: Sequence[Run], keys: Words, since_ms: int) -> Rows:
    """All rows of these keys, sorted and distinct, with time' >= `since_ms`; of those in a crowd the last ones alone.

    A run costs some 10 ns per key it does not have, and 0.1 us per key it has.
    """
    return gathered([_found(run, keys, since_ms) for run in runs if run.last_ms >= since_ms])


def between(runs: Sequence[Run], from_ms: int, until_ms: int, rows_max: int) -> Iterator[Rows]:
    """All rows with time' in the half-open interval, at most so many at once."""
    for run in runs:
        if run.first_ms < until_ms and run.last_ms >= from_ms:
            times_ms = run.column("times_ms")
            yield from _parts(run, (times_ms >= from_ms) & (times_ms < until_ms), rows_max)


def where(run: Run, which: Bools, since_ms: int, rows_max: int) -> Iterator[Rows]:
    """The rows of a mask with time' >= `since_ms`, at most so many at once."""
    return _parts(run, which & (run.column("times_ms") >= since_ms), rows_max)


def kept(run: Run, which: Bools) -> Run:
    """The rows of a mask alone."""
    columns = {name: packed.part(which) for name, packed in run.columns.items()}
    return Run(run.names, columns, run.first_ms, run.last_ms, run.sieve)


def _parts(run: Run, which: Bools, rows_max: int) -> Iterator[Rows]:
    picks = np.flatnonzero(which)
    for first in range(0, len(picks), rows_max):
        yield run.rows(picks[first : first + rows_max])


def _found(run: Run, keys: Words, since_ms: int) -> Rows:
    own = run.keys
    if run.sieve is not None:
        keys = keys[run.sieve.holds(keys)]
    first = np.searchsorted(own, keys)
    hit = own[np.minimum(first, len(own) - 1)] == keys
    first = first[hit]
    last = np.searchsorted(own, keys[hit], side="right")
    places = ranges(first, last)
    if (last - first > CROWD).any():
        ends = np.repeat(last, last - first)
        places = places[(places >= ends - CROWD) | (run.columns["settled"].at(places) != rows.CROWDED)]
    if run.first_ms < since_ms and len(places):
        places = places[run.columns["times_ms"].at(places) >= since_ms]
    return run.rows(places) if len(places) else none()


def ranges(first: Ints, last: Ints) -> Ints:
    """The numbers from each first up to, without, its last: `ranges([3, 7], [5, 8]) == [3, 4, 7]`."""
    counts = last - first
    if not len(counts) or (counts == 1).all():
        return first
    ends = np.cumsum(counts)
    found: Ints = np.arange(ends[-1]) + np.repeat(first - (ends - counts), counts)
    return found


def _sieve(keys: Words) -> Sieve:
    bits = (8 * len(keys)).bit_length()
    shift = max(0, int(keys[-1]).bit_length() - bits)
    held = np.zeros(1 << bits, dtype=np.bool_)
    held[keys >> np.uint64(shift)] = True
    return Sieve(np.uint64(shift), np.packbits(held, bitorder="little"))


def _mergeable(parts: Sequence[T]) -> Sequence[T]:
    """Those at the end that are not larger than the last, by powers of four, if they are enough to be merged."""
    tail = len(parts)
    while tail and _size(parts[tail - 1]) <= _size(parts[-1]):
        tail -= 1
    some = parts[tail:]
    while sum(map(len, some)) > ROWS_MAX:
        some = some[1:]
    return some if len(some) >= MERGED else ()


def _size(part: Sized) -> int:
    return len(part).bit_length() // 2


def _packed(column: Column) -> Packed:
    bits = column.view(np.uint64) if column.dtype.kind == "f" else column
    rows, dtype = len(column), column.dtype
    low, high = bits.min(), bits.max()
    if low == high:
        return Packed(column[0], None, dtype, rows)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = column.astype(np.float32)
        exact = np.array_equal(narrow.astype(np.float64).view(np.uint64), bits)
        return Packed(0, narrow if exact else column, dtype, rows)
    span = int(high) - int(low)
    for narrow_type in (np.uint8, np.uint16, np.uint32):
        if span <= np.iinfo(narrow_type).max:
            return Packed(low, (column - low).astype(narrow_type), dtype, rows)
    return Packed(0, column, dtype, rows)
