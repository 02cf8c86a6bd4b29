"""Line charts as SVG: a pure function from numbers to text, so that a page looks the same wherever it is made."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from msgspec import Struct

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 210, 40, 50
_COLOURS: Final = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5", "#64473a", "#9b9a97", "#dfab01", "#e03e3e")
_TICKS: Final = 5
_NOTHING: Final = 1e-9
"""Smaller values are drawn as 0."""


class Line(Struct, frozen=True):
    """One line: points by rising x, drawn as steps."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def line_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """An SVG of 720 x 360; both axes begin at 0. Without any point it is an empty frame."""
    points = [point for line in lines for point in line.points]
    x_max = _round_up(max((x for x, _ in points), default=1.0))
    y_max = _round_up(max((y for _, y in points), default=1.0))
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        '<g font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in range(_TICKS + 1):
        x, y = _LEFT + wide * tick / _TICKS, _TOP + high - high * tick / _TICKS
        parts += [
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + wide}" y2="{y:.1f}" stroke="#e3e2e0"/>',
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(y_max * tick / _TICKS)}</text>',
            f'<text x="{x:.1f}" y="{_TOP + high + 18}" text-anchor="middle">{_number(x_max * tick / _TICKS)}</text>',
        ]
    middle = _TOP + high / 2
    parts += [
        f'<text x="{_LEFT + wide / 2:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text text-anchor="middle" transform="translate(16 {middle:.1f}) rotate(-90)">{escape(y_label)}</text>',
    ]
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [(_LEFT + wide * x / x_max, _TOP + high - high * y / y_max) for x, y in line.points]
        pen = f'stroke="{colour}" stroke-width="2"' + (' stroke-dasharray="6 4"' if line.dashed else "")
        x, y = _LEFT + wide + 12, _TOP + 12 + 18 * number
        parts += [
            f'<path d="{_steps(placed, straight=line.dashed)}" fill="none" {pen}/>',
            f'<path d="M{x} {y - 4}h22" {pen}/>',
            f'<text x="{x + 28}" y="{y}">{escape(line.name)}</text>',
        ]
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _steps(placed: Sequence[tuple[float, float]], *, straight: bool) -> str:
    if not placed:
        return "M0 0"
    (x, y), *rest = placed
    moves = [f"M{x:.1f} {y:.1f}"]
    for x, y in rest:
        moves.append(f"L{x:.1f} {y:.1f}" if straight else f"H{x:.1f}V{y:.1f}")
    return "".join(moves)


def _round_up(value: float) -> float:
    """The next number of one digit that five ticks divide well."""
    if value < _NOTHING:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * unit >= value * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004 - three digits
