"""Durations as people write them: "500ms", "90s", "1m", "7d"; in the program a whole number of milliseconds."""

import re
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_MS: Final = 36_500 * UNITS_MS["d"]
"""A hundred years: far above any setting, far below the int64 that times live in."""

PATTERN: Final = r"^[0-9]{1,15}(ms|s|m|h|d)$"
_WRITTEN = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_HINT = 'write a whole number with its unit (ms, s, m, h or d), such as "90s" or "7d"'


def parse(text: str) -> int:
    """Milliseconds of a written duration.

    One whole number and one unit: `parse("90s") == 90_000`. Raises `ValueError`, with the mend in its words, on
    anything else and above a hundred years.
    """
    if not (found := _WRITTEN.fullmatch(text)):
        raise ValueError(_HINT)
    duration_ms = int(found[1]) * UNITS_MS[found[2]]
    if duration_ms > LONGEST_MS:
        raise ValueError("longer than a hundred years")
    return duration_ms


def text_of(duration_ms: int) -> str:
    """The shortest writing of a duration: `text_of(90_000) == "90s"`, and `parse` is its inverse."""
    if duration_ms == 0:
        return "0s"
    unit = max((unit for unit in UNITS_MS if duration_ms % UNITS_MS[unit] == 0), key=UNITS_MS.__getitem__)
    return f"{duration_ms // UNITS_MS[unit]}{unit}"


def _validated(value: Any) -> int:
    # A bare number is refused: nobody can tell whether 60 in a configuration means seconds or milliseconds.
    if not isinstance(value, str):
        raise ValueError(_HINT)  # noqa: TRY004 - pydantic turns a ValueError into an error with key and value
    return parse(value)


Duration: TypeAlias = Annotated[
    int,
    BeforeValidator(_validated),
    PlainSerializer(text_of, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["90s", "7d"]}),
]
"""A field of a pydantic model, written as text and held as int milliseconds; dumped as text again."""
