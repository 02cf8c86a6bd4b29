"""Rows: halves of pairs as columns, whichever block they came in.

A code points into the sorted names of its kind; so codes of the same `Names` compare like the names themselves. `-1`
and NaN say nothing. Rows of several blocks are put side by side by `gathered`, which brings them to one set of names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.wire.codec import hash64
from stream.wire.internal import Bools, Floats, Halves, Ints

Words: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
Column: TypeAlias = np.ndarray[Any, Any]

PREDICTION: Final = 0
LABEL: Final = 1
SETTLED: Final = 1
CROWDED: Final = 2


class Names(Struct, frozen=True):
    """What the codes of some rows stand for, each sorted."""

    models: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    segments: tuple[tuple[str, ...], ...] = ()
    topics: tuple[str, ...] = ()


class Rows(Struct, frozen=True, eq=False):
    """n halves of pairs."""

    names: Names
    keys: Words
    """[n] hash of the model and prediction id"""
    times_ms: Ints
    """[n] event time, or that of the watermark a late one met"""
    behind_ms: Ints
    """[n] how far its own event time lies before that"""
    kind: Ints
    """[n] `PREDICTION` or `LABEL`"""
    model: Ints
    version: Ints
    label: Ints
    """[n] predicted or actual class"""
    scores: Floats
    score_of: Ints
    values: Floats
    segment: Ints
    topic: Ints
    partition: Ints
    offset: Ints
    """[n] its place in the input; -1 once it is held, for a half that completes a pair has just come."""
    early_ms: Ints
    """[n] how long before the prediction its label came; 0 if not before it."""
    settled: Ints
    """[n] `SETTLED` if it makes no pair (a repeated prediction), or needs no end (a label, repeated or met by then);
    `CROWDED` if it takes no part at all"""

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> Column:
        """One of `COLUMNS`."""
        found: Column = getattr(self, name)
        return found


class Columns(Protocol):
    """What rows can be gathered from."""

    @property
    def names(self) -> Names:
        """What codes stand for."""

    def column(self, name: str) -> Column:
        """[n] one of `COLUMNS`."""


COLUMNS: Final = Rows.__struct_fields__[1:]
_CODED: Final = {"model": "models", "version": "versions", "label": "classes", "segment": "segments", "topic": "topics"}
_TYPES: Final = {"keys": np.uint64, "scores": np.float64, "values": np.float64}


def of_blocks(blocks: Sequence[Halves]) -> Rows:
    """The rows of pair blocks, at least one, in their order. About 40 us per block and 0.1 us per row."""
    counts = [len(block.keys) for block in blocks]
    names, code = {}, {}
    lists: dict[str, list[Any]] = {
        "models": [[block.model_id] for block in blocks],
        "versions": [block.versions for block in blocks],
        "classes": [block.classes for block in blocks],
        "segments": [[tuple(segment) for segment in block.segments] for block in blocks],
        "topics": [[block.topic] for block in blocks],
    }
    for kind, some in lists.items():
        names[kind] = tuple(sorted({name for own in some for name in own}))
        code[kind] = _recoded(some, names[kind], counts)
    first, times_ms = np.zeros(sum(counts), dtype=np.int64), np.concatenate([block.times_ms for block in blocks])
    return Rows(
        names=Names(**names),
        keys=np.concatenate([block.keys for block in blocks]).view(np.uint64),
        times_ms=times_ms,
        behind_ms=times_ms - np.concatenate([block.own_times_ms for block in blocks]),
        kind=np.concatenate([block.labels for block in blocks]).astype(np.int64),
        model=code["models"](first),
        version=code["versions"](np.concatenate([block.version for block in blocks])),
        label=code["classes"](np.concatenate([block.label for block in blocks])),
        scores=np.concatenate([block.scores for block in blocks]),
        score_of=np.concatenate([block.score_of for block in blocks]),
        values=np.concatenate([block.values for block in blocks]),
        segment=code["segments"](np.concatenate([block.segment for block in blocks])),
        topic=code["topics"](first),
        partition=np.repeat([block.partition for block in blocks], counts),
        offset=np.concatenate([block.offsets for block in blocks]),
        early_ms=first,
        settled=first,
    )


def none() -> Rows:
    """No rows."""
    return Rows(names=Names(), **{name: np.zeros(0, dtype=_TYPES.get(name, np.int64)) for name in COLUMNS})


def picked(rows: Rows, picks: Ints | Bools) -> Rows:
    """Some of the rows, in the order of `picks`."""
    if picks.dtype == np.bool_ and picks.all():
        return rows
    return Rows(names=rows.names, **{name: rows.column(name)[picks] for name in COLUMNS})


def below(rows: Rows, key: int) -> Bools:
    """Which keys, read without sign, are smaller; `key` is at most 2^64."""
    return rows.keys < np.uint64(key) if key < 1 << 64 else np.ones(len(rows), dtype=np.bool_)


def gathered(parts: Sequence[Rows]) -> Rows:
    """All rows, one part after the other."""
    full = [part for part in parts if len(part)]
    if len(full) <= 1:
        return full[0] if full else none()
    names, columns = together(full)
    return Rows(names=names, **{name: np.concatenate(columns(name)) for name in COLUMNS})


def together(parts: Sequence[Columns]) -> tuple[Names, Callable[[str], list[Column]]]:
    """Names that serve all parts, and the columns of each part with codes of these names. Names unused are left out."""
    names = parts[0].names
    if all(part.names == names for part in parts[1:]):
        return names, lambda name: [part.column(name) for part in parts]
    used = {kind: [_used(part, name, kind) for part in parts] for name, kind in _CODED.items()}
    names = Names(**{kind: tuple(sorted(set().union(*some))) for kind, some in used.items()})
    codes = {
        name: [_codes(getattr(part.names, kind), getattr(names, kind)) for part in parts]
        for name, kind in _CODED.items()
    }

    def columns(name: str) -> list[Column]:
        found = [part.column(name) for part in parts]
        return [code[column] for code, column in zip(codes[name], found, strict=True)] if name in codes else found

    return names, columns


def aligned(one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """Both with the same names."""
    if not len(one) or not len(other):
        return (one, replace(other, names=one.names)) if len(one) else (replace(one, names=other.names), other)
    names, columns = together([one, other])
    pairs = {name: columns(name) for name in COLUMNS}
    return (
        Rows(names=names, **{name: pair[0] for name, pair in pairs.items()}),
        Rows(names=names, **{name: pair[1] for name, pair in pairs.items()}),
    )


def distinct(column: Column) -> Column:
    """The values that occur, rising. Faster than `numpy.unique`, which hashes whole numbers first."""
    ordered = np.sort(column)
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    found: Column = ordered[first]
    return found


def order(column: Column) -> Ints:
    """What puts whole numbers in order, those that are equal as they stand: `np.argsort(column, kind="stable")`.

    About 10 ns per row, a third to a fifth of that: the processor sorts words, and has no way to sort them stably.
    """
    if (column[1:] >= column[:-1]).all():
        return np.arange(len(column))
    low, bits = column.min(), len(column).bit_length()
    if (int(column.max()) - int(low)).bit_length() + bits < _WORD_BITS:
        words: Ints = (column - low).astype(np.int64)  # with its place behind it no number equals another
        words <<= bits
        words |= np.arange(len(column))
        words.sort()
        words &= (1 << bits) - 1
        return words
    found: Ints = np.argsort(column)
    ordered = column[found]
    return np.argsort(column, kind="stable") if (ordered[1:] == ordered[:-1]).any() else found


def held(rows: Rows, early_ms: Ints, settled: Ints) -> Rows:
    """Rows as they are kept: with what was found when they came, without their place in the input."""
    nowhere = np.full(len(rows), -1, dtype=np.int64)
    return replace(rows, early_ms=early_ms, settled=settled, topic=nowhere, partition=nowhere, offset=nowhere)


def content(rows: Rows) -> Words:
    """[n] a hash of what each row says, the same whichever way it came and however it is stored.

    About 0.1 us per row.
    """
    names = rows.names
    return _mixed(
        rows.keys,
        rows.times_ms,
        rows.behind_ms,
        rows.kind,
        _words(names.models)[rows.model],
        _words(names.versions)[rows.version],
        _words(names.classes)[rows.label],
        rows.scores,
        rows.score_of,
        rows.values,
        _words(names.segments)[rows.segment],
    )


def total(rows: Rows) -> int:
    """The sum of hashes of all rows, modulo 2^64."""
    return int(content(rows).sum(dtype=np.uint64))


def found(rows: Rows) -> int:
    """The same of what was found when they came, for those that met anything then."""
    which = np.flatnonzero((rows.early_ms != 0) | (rows.settled != 0))
    return int(_mixed(rows.keys[which], rows.early_ms[which], rows.settled[which]).sum(dtype=np.uint64))


def _mixed(*columns: Column) -> Words:
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        mixed ^= column.view(np.uint64)
        mixed *= _ODD
        mixed ^= mixed >> _HALF
    return mixed


_WORD_BITS: Final = 64
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)


@lru_cache(maxsize=1024)
def _words(names: tuple[Any, ...]) -> Words:
    """Hashes of names; the last, that -1 points to, of none."""
    texts = ["\0".join(name) if isinstance(name, tuple) else name for name in names]
    return np.array([*map(hash64, texts), 0], dtype=np.uint64)


def _codes(before: Sequence[Any], after: Sequence[Any]) -> Ints:
    """Code before -> code after, -1 for -1 (the last) and for names that are gone."""
    place: Mapping[Any, int] = {name: code for code, name in enumerate(after)}
    return np.array([*(place.get(name, -1) for name in before), -1], dtype=np.int64)


def _recoded(lists: Sequence[Sequence[Any]], after: Sequence[Any], counts: Sequence[int]) -> Callable[[Ints], Ints]:
    """The same for columns side by side, of so many rows each, whose codes point into lists of their own."""
    place: Mapping[Any, int] = {name: code for code, name in enumerate(after)}
    codes = np.array([code for names in lists for code in (-1, *map(place.__getitem__, names))], dtype=np.int64)
    sizes = [len(names) + 1 for names in lists]
    starts = np.repeat(np.cumsum([1, *sizes[:-1]]), counts)
    return lambda column: codes[column + starts]


def _used(part: Columns, name: str, kind: str) -> Iterable[Any]:
    names = getattr(part.names, kind)
    counts = np.bincount(part.column(name) + 1, minlength=len(names) + 1)
    return [name for name, count in zip(names, counts[1:].tolist(), strict=True) if count]
