"""JSON values as producers write them: what is a text, a number, a name; what is invalid but no reason to refuse.

The second, slower parse of `contracts.md` 2 lives here. Everything the fast paths of `inbound` and `features` cannot
settle is settled by these functions, so they are the meaning of a record.
"""

import json
import math
import re
from typing import Any, Final, TypeAlias

import orjson

from stream.wire.canonical import number_text

NAME_BYTES_MAX: Final = 128
ID_BYTES_MAX: Final = 256
DEPTH_MAX: Final = 64

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1
_EXACT_INTEGER: Final = 2.0**53


class Invalid:
    """The type of `INVALID`: a value that is there but of no use: wrong type, NaN, infinity, overflow."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = Invalid()
Text: TypeAlias = str | Invalid | None
"""A category: text, None for missing, INVALID."""


class NotJson(Exception):
    """The bytes are no JSON text, not even with NaN and Infinity. Stays inside this room."""


def loads(data: bytes) -> Any:
    """The value of a JSON text; NaN, Infinity and numbers beyond float64 become INVALID.

    Integers beyond 64 bits become floats; of duplicate keys the last wins. Raises `NotJson` on wrong syntax or
    UTF-8, a byte order mark, lone surrogates, and nesting deeper than 64.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _second_parse(data)
    if data.count(b"{") + data.count(b"[") > DEPTH_MAX and _deeper(value, DEPTH_MAX):
        raise NotJson
    return value


def _second_parse(data: bytes) -> Any:
    try:
        value = json.loads(
            data.decode(),
            parse_constant=lambda _: INVALID,
            parse_float=_number_or_invalid,
            parse_int=_integer_or_invalid,
        )
        # Only to find lone surrogates, which the standard library lets through.
        orjson.dumps(value, default=repr)
    except (ValueError, RecursionError, orjson.JSONEncodeError) as error:
        raise NotJson from error
    return value


def _number_or_invalid(digits: str) -> float | Invalid:
    number = float(digits)
    return number if math.isfinite(number) else INVALID


def _integer_or_invalid(digits: str) -> float | Invalid:
    if len(digits) <= len(str(_INTEGER_MIN)):
        number = int(digits)
        if _INTEGER_MIN <= number <= _INTEGER_MAX:
            return number
    return _number_or_invalid(digits)


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_deeper(item, levels - 1) for item in value)
    return False


def number(value: object) -> float | Invalid | None:
    """A number as float64, None for null; booleans, texts and the rest are INVALID."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        return INVALID
    return _as_float(value)


def category(value: object) -> Text:
    """A category as text: `7` and `7.0` are "7", `true` is "true"; objects and arrays are INVALID."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and _INTEGER_MIN <= value <= _INTEGER_MAX:
        return str(value)
    if not isinstance(value, int | float):
        return INVALID
    number = _as_float(value)
    return INVALID if isinstance(number, Invalid) else number_text(number)


def label(value: object) -> Text:
    """A class as text: texts, booleans and whole numbers; other numbers are INVALID."""
    if isinstance(value, float) and not (value.is_integer() and abs(value) <= _EXACT_INTEGER):
        return INVALID
    if isinstance(value, int) and not _INTEGER_MIN <= value <= _INTEGER_MAX:
        return INVALID
    return category(value)


def is_name(text: str, bytes_max: int = NAME_BYTES_MAX) -> bool:
    """Whether a text has 1 to `bytes_max` bytes and no control characters."""
    return 0 < len(text.encode()) <= bytes_max and _CONTROL.search(text) is None


def shown_name(text: str) -> str:
    """A name others sent, fit to be shown: at most 128 bytes, control characters replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).encode()[:NAME_BYTES_MAX].decode(errors="ignore")


def _as_float(value: float) -> float | Invalid:
    try:
        return float(value)
    except OverflowError:
        return INVALID
