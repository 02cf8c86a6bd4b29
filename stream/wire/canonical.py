"""The canonical form of JSON (RFC 8785): what a content hash is taken of."""

import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

SAFE_INTEGER: Final = 2**53
"""Beyond it RFC 8785 knows integers only as the nearest float64: write them as texts."""

_FLOAT_LIMIT: Final = 2**1023
_PLAIN_BELOW: Final = 21
_PLAIN_ABOVE: Final = -6
"""Between 10^-6 and 10^21 ECMA-262 writes numbers without an exponent."""


def canonical_json(value: Any) -> bytes:
    """The canonical form of RFC 8785: keys by UTF-16 code units, numbers as ECMAScript writes them, no spaces.

    Two JSON texts with the same meaning have the same canonical form. Raises `ValueError` where RFC 8785 has none: NaN,
    infinity, lone surrogates, nesting beyond the interpreter's stack.
    """
    parts: list[str] = []
    try:
        _canonical(value, parts)
        return "".join(parts).encode()
    except (RecursionError, UnicodeEncodeError, orjson.JSONEncodeError) as error:
        raise ValueError("no canonical JSON form") from error


def _canonical(value: Any, parts: list[str]) -> None:
    match value:
        case None:
            parts.append("null")
        case bool():
            parts.append("true" if value else "false")
        case int() | float():
            parts.append(number_text(value))
        case str():
            parts.append(orjson.dumps(value).decode())
        case Mapping():
            parts.append("{")
            for place, key in enumerate(sorted(value, key=_utf16)):
                parts.append(f"{',' if place else ''}{orjson.dumps(key).decode()}:")
                _canonical(value[key], parts)
            parts.append("}")
        case list() | tuple():
            parts.append("[")
            for place, item in enumerate(value):
                if place:
                    parts.append(",")
                _canonical(item, parts)
            parts.append("]")
        case _:
            raise ValueError(f"no JSON form for {type(value).__name__}")


def _utf16(key: Any) -> bytes:
    if not isinstance(key, str):
        raise ValueError("keys of JSON objects are texts")  # noqa: TRY004 - one kind of error for what has no form
    return key.encode("utf-16-be")


def number_text(value: float) -> str:
    """ECMAScript's Number::toString. Python finds the same shortest digits and only sets the point elsewhere."""
    if isinstance(value, int):
        if abs(value) <= SAFE_INTEGER:
            return str(value)
        if abs(value) >= _FLOAT_LIMIT:
            raise ValueError("no JSON number is that large")
        value = float(value)
    if not math.isfinite(value):
        raise ValueError("NaN and infinity have no JSON form")
    if value == 0:
        return "0"
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    mantissa, _, exponent = text.removeprefix("-").partition("e")
    digits = mantissa.replace(".", "").rstrip("0")
    return ("-" if value < 0 else "") + _with_point(digits, int(exponent) + 1)


def _with_point(digits: str, point: int) -> str:
    """The digits d1 d2 … of 0.d1d2… * 10^point as ECMAScript writes them: plain from 1e-6 to below 1e21."""
    if len(digits) <= point <= _PLAIN_BELOW:
        return digits + "0" * (point - len(digits))
    if 0 < point <= _PLAIN_BELOW:
        return f"{digits[:point]}.{digits[point:]}"
    if _PLAIN_ABOVE < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
