"""Streams written down: `normal(0,1)x5000, normal(0.5,1)x5000`, and the laws they may be made of.

A piece is a law and its rows; where one law gives way to another, something has changed. Every draw comes from the
generator it is handed, so a stream is named by its text and a seed.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Random: TypeAlias = np.random.Generator
Kind: TypeAlias = Literal["numeric", "boolean", "categorical"]

DAY_MS: Final = 86_400_000
_PIECE: Final = re.compile(r"\s*([a-z_]+)\(([^()]*)\)\s*x\s*(\d+)\s*(?:,|$)")
_SESSION: Final = 10
"""Rows of one session."""
_WORK_DAYS, _WEEK_DAYS = 5, 7


class Block(Struct, frozen=True):
    """What is drawn at once: some windows of one piece, for all repetitions."""

    repetitions: int
    windows: int
    rows: int
    """Per window."""
    first: int = 0
    """Index of the first window in the stream."""
    piece_first: int = 0
    """The same in the piece."""
    piece_windows: int = 1
    """Windows of the whole piece."""
    window_ms: int = 60_000

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the draws of one signal."""
        return self.repetitions, self.windows, self.rows


class Law(Struct, frozen=True):
    """A law by name with its parameters, as `normal(0,1)`."""

    name: str
    parameters: tuple[float, ...]

    @property
    def kind(self) -> Kind:
        """Of its values. Categories are drawn as numbers 0, 1, ..."""
        return _LAWS[self.name][0]

    def draw(self, rng: Random, block: Block) -> Floats:
        """Values [repetitions, windows, rows, signals] of one block."""
        values = _LAWS[self.name][1](rng, block, *self.parameters)
        return values if values.ndim > len(block.shape) else values[..., None]


class Piece(Struct, frozen=True):
    """So many rows of one law."""

    law: Law
    rows: int


def parse(text: str) -> list[Piece]:
    """The pieces of a stream. Raises `ValueError` with what is wrong."""
    pieces, place = [], 0
    while place < len(text.rstrip()):
        found = _PIECE.match(text, place)
        if found is None:
            raise ValueError(f"{text[place:]!r} is not a piece such as normal(0,1)x5000")
        name, parameters, rows = found.groups()
        if name not in _LAWS:
            raise ValueError(f"{name!r} is no law; one of {', '.join(sorted(_LAWS))}")
        try:
            numbers = tuple(float(part) for part in parameters.split(",") if part.strip())
        except ValueError:
            raise ValueError(f"{name}({parameters}): parameters are numbers") from None
        piece = Piece(Law(name, numbers), int(rows))
        _check(piece.law)
        pieces.append(piece)
        place = found.end()
    if not pieces:
        raise ValueError("a stream needs at least one piece such as normal(0,1)x5000")
    return pieces


def _check(law: Law) -> None:
    """Draw once, so that wrong parameters are told before anything runs."""
    try:
        law.draw(np.random.default_rng(0), Block(1, 1, _SESSION))
    except (TypeError, ValueError) as error:
        text = f"{law.name}({','.join(f'{value:g}' for value in law.parameters)})"
        raise ValueError(f"{text}: {str(error).partition('() ')[2] or error}") from None


def _normal(rng: Random, block: Block, mean: float, sd: float) -> Floats:
    return rng.normal(mean, sd, block.shape)


def _lognormal(rng: Random, block: Block, mean: float, sd: float) -> Floats:
    return rng.lognormal(mean, sd, block.shape)


def _bernoulli(rng: Random, block: Block, p: float) -> Floats:
    return (rng.random(block.shape) < p).astype(np.float64)


def _rates(rng: Random, block: Block, p: float, sd: float) -> Floats:
    """0/1 with a rate that every window draws anew."""
    rate = np.clip(rng.normal(p, sd, (block.repetitions, block.windows, 1)), 0.0, 1.0)
    return (rng.random(block.shape) < rate).astype(np.float64)


def _ar(rng: Random, block: Block, phi: float) -> Floats:
    """Each value leans on the one before; variance 1."""
    noise = rng.normal(0.0, np.sqrt(1 - phi * phi), (block.repetitions, block.windows * block.rows))
    value = rng.normal(0.0, 1.0, block.repetitions)
    for place in range(noise.shape[1]):
        value = phi * value + noise[:, place]
        noise[:, place] = value
    return noise.reshape(block.shape)


def _sessions(rng: Random, block: Block, within: float) -> Floats:
    """Ten rows in turn share their mean and differ by `within` standard deviations; variance 1."""
    sessions = -(-block.rows // _SESSION)
    centres = rng.normal(0.0, np.sqrt(1 - within * within), (block.repetitions, block.windows, sessions))
    return np.asarray(np.repeat(centres, _SESSION, axis=2)[:, :, : block.rows] + rng.normal(0.0, within, block.shape))


def _bimodal(rng: Random, block: Block, half: float) -> Floats:
    """Two humps at -half and half, mean 0 and variance 1."""
    side = np.where(rng.random(block.shape) < 0.5, -half, half)  # noqa: PLR2004 - a fair coin
    return np.asarray(side + rng.normal(0.0, np.sqrt(1 - half * half), block.shape))


def _ramp(rng: Random, block: Block, start: float, end: float) -> Floats:
    """Variance 1; the mean goes evenly from one value to the other within the piece."""
    at = (block.piece_first + np.arange(block.windows) + 0.5) / block.piece_windows
    return np.asarray(rng.normal(0.0, 1.0, block.shape) + (start + (end - start) * at)[:, None])


def _daily(rng: Random, block: Block, height: float) -> Floats:
    """Variance 1 around a mean that goes up and down once a day."""
    day = (block.first + np.arange(block.windows)) * block.window_ms / DAY_MS
    return np.asarray(rng.normal(0.0, 1.0, block.shape) + (height * np.sin(2 * np.pi * day))[:, None])


def _weekly(rng: Random, block: Block, height: float, weekend: float) -> Floats:
    """As `daily`, and higher on Saturdays and Sundays; repetition r begins on the r-th day of a week."""
    days = (block.first + np.arange(block.windows)) * block.window_ms / DAY_MS
    at = days + np.arange(block.repetitions)[:, None] % _WEEK_DAYS
    mean = height * np.sin(2 * np.pi * at) + weekend * (at % _WEEK_DAYS >= _WORK_DAYS)
    return np.asarray(rng.normal(0.0, 1.0, block.shape) + mean[..., None])


def _shares(rng: Random, block: Block, *shares: float) -> Floats:
    """Categories with these shares; they need not sum to 1."""
    if not shares or min(shares) < 0:
        raise ValueError("shares are at least one positive number")
    limits = np.cumsum(shares) / np.sum(shares)
    limits[-1] = 1.0
    return np.searchsorted(limits, rng.random(block.shape), side="right").astype(np.float64)


def _categories(rng: Random, block: Block, count: float) -> Floats:
    """Categories with shares as 1, 1/2, 1/3, ..."""
    return _shares(rng, block, *(1 / np.arange(1, int(count) + 1)))


def _gaussians(rng: Random, block: Block, signals: float, correlation: float) -> Floats:
    """So many normal signals, every pair with this correlation (at least 0)."""
    common = rng.normal(0.0, np.sqrt(correlation), (*block.shape, 1))
    return np.asarray(common + rng.normal(0.0, np.sqrt(1 - correlation), (*block.shape, int(signals))))


_LAWS: Final[dict[str, tuple[Kind, Callable[..., Floats]]]] = {
    "normal": ("numeric", _normal),
    "lognormal": ("numeric", _lognormal),
    "ar": ("numeric", _ar),
    "sessions": ("numeric", _sessions),
    "bimodal": ("numeric", _bimodal),
    "ramp": ("numeric", _ramp),
    "daily": ("numeric", _daily),
    "weekly": ("numeric", _weekly),
    "gaussians": ("numeric", _gaussians),
    "bernoulli": ("boolean", _bernoulli),
    "rates": ("boolean", _rates),
    "shares": ("categorical", _shares),
    "categories": ("categorical", _categories),
}
