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
    """[n] 1 if it makes no pair (a repeated prediction), or needs no end (a label, repeated or met by then)"""

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


def of_halves(block: Halves) -> Rows:
    """The rows of a pair block, in its order."""
    n = len(block.keys)
    segments = [tuple(names) for names in block.segments]
    given: dict[str, Sequence[Any]] = {
        "models": [block.model_id],
        "versions": block.versions,
        "classes": block.classes,
        "segments": segments,
        "topics": [block.topic],
    }
    names = Names(**{kind: tuple(sorted(set(some))) for kind, some in given.items()})
    codes = {kind: _codes(given[kind], getattr(names, kind)) for kind in given}
    none, first = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
    return Rows(
        names=names,
        keys=block.keys.view(np.uint64),
        times_ms=block.times_ms,
        behind_ms=block.times_ms - block.own_times_ms,
        kind=np.where(block.labels, LABEL, PREDICTION).astype(np.int64),
        model=first,
        version=codes["versions"][block.version],
        label=codes["classes"][block.label],
        scores=block.scores,
        score_of=block.score_of,
        values=block.values,
        segment=codes["segments"][block.segment] if n else none,
        topic=first,
        partition=np.full(n, block.partition, dtype=np.int64),
        offset=block.offsets,
        early_ms=first,
        settled=first,
    )


def none() -> Rows:
    """No rows."""
    return Rows(names=Names(), **{name: np.zeros(0, dtype=_TYPES.get(name, np.int64)) for name in COLUMNS})


def picked(rows: Rows, picks: Ints | Bools) -> Rows:
    """Some of the rows, in the order of `picks`."""
    return Rows(names=rows.names, **{name: rows.column(name)[picks] for name in COLUMNS})


def below(rows: Rows, key: int) -> Bools:
    """Which keys, read without sign, are smaller; `key` is at most 2^64."""
    return rows.keys < np.uint64(key) if key < 1 << 64 else np.ones(len(rows), dtype=np.bool_)


def gathered(parts: Sequence[Rows]) -> Rows:
    """All rows, one part after the other."""
    some = [part for part in parts if len(part)]
    if len(some) <= 1:
        return some[0] if some else none()
    names, columns = together(some)
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
    both = gathered([one, other])
    return picked(both, np.arange(len(one))), picked(both, np.arange(len(one), len(both)))


def held(rows: Rows, early_ms: Ints, settled: Bools) -> Rows:
    """Rows as they are kept: with what was found when they came, without their place in the input."""
    nowhere = np.full(len(rows), -1, dtype=np.int64)
    return replace(
        rows, early_ms=early_ms, settled=settled.astype(np.int64), topic=nowhere, partition=nowhere, offset=nowhere
    )


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
    """The sum of hashes of all rows, modulo 2^64, with what was found when they came."""
    return int(_mixed(content(rows), rows.early_ms, rows.settled).sum(dtype=np.uint64))


def _mixed(*columns: Column) -> Words:
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        mixed ^= column.view(np.uint64)
        mixed *= _ODD
        mixed ^= mixed >> _HALF
    return mixed


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


def _used(part: Columns, name: str, kind: str) -> Iterable[Any]:
    names = getattr(part.names, kind)
    counts = np.bincount(part.column(name) + 1, minlength=len(names) + 1)
    return [name for name, count in zip(names, counts[1:].tolist(), strict=True) if count]
