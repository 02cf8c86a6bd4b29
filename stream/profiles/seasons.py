"""Seasonal slots: what is normal at this hour, as far as the reference has seen enough of it.

    hour_of_week (168 slots) -> hour_of_day_weekend (48) -> hour_of_day (24) -> global (1)

A rung of this ladder is used when each of its slots has enough independent rows; every slot is drawn to the one below
it, and a window between two slots is compared with both, weighted by time (`statistics.md` 9). Counts are kept by hour
of the week, 168 of them, from which every rung follows by addition.
"""

from datetime import date, datetime, tzinfo
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, field_validator

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Rung: TypeAlias = Literal["global", "hour_of_day", "hour_of_day_weekend", "hour_of_week"]

UTC: Final = "UTC"
HOURS: Final = 168
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
WEEKEND: Final = 5
"""Monday is day 0."""
ROWS_PER_SLOT: Final = 1_000
"""Independent rows every slot of a rung needs."""
ROWS_PER_HOUR_OF_WEEK: Final = 5_000
"""The same for the finest rung, where histograms need more."""
WEEKS_MIN: Final = 3
"""Of data behind the finest rung: fewer would take one odd week for a season."""
PULL: Final = 20
"""Rows per bin that the parent of a slot counts for."""
QUARTERS: Final = 4
"""A window lies between two slots in steps of a quarter, so that clips are solved for few laws."""

_FIRST_MONDAY: Final = date(1969, 12, 29).toordinal()
_HOUR: Final = np.arange(HOURS)
SLOTS: Final[dict[Rung, Ints]] = {
    "global": np.zeros(HOURS, dtype=np.int64),
    "hour_of_day": _HOUR % 24,
    "hour_of_day_weekend": _HOUR % 24 + 24 * (_HOUR // 24 >= WEEKEND),
    "hour_of_week": _HOUR,
}
"""The slot of each hour of the week (0: Monday, midnight to one), rung by rung from the bottom."""
LADDER: Final[tuple[Rung, ...]] = tuple(SLOTS)


class Settings(BaseModel):
    """Section `[seasonality]` of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: str = UTC
    """Whose clocks the hours follow, as named by IANA."""

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        zone_of(timezone)
        return timezone


class Moment(Struct, frozen=True):
    """Where a window lies between the middles of two hours of the week."""

    hour: int
    next_hour: int
    weight: float
    """Of the next hour: 0, 1/4, 1/2, 3/4 or 1."""


def zone_of(timezone: str) -> tzinfo:
    """The time zone of a name such as `Europe/Vienna`. Raises `ValueError` where there is none."""
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"{timezone!r} is not a time zone; use a name such as Europe/Vienna") from None


def local_hour(time_ms: int, zone: tzinfo) -> int:
    """Hours since Monday, 29 December 1969, on the clocks of a zone: modulo 168 it is the hour of the week."""
    local = datetime.fromtimestamp(time_ms // 1000, zone)
    return (local.toordinal() - _FIRST_MONDAY) * 24 + local.hour


def hour_of_week(time_ms: int, zone: tzinfo) -> float:
    """Hours since Monday midnight on the clocks of a zone, 0 to below 168."""
    local = datetime.fromtimestamp(time_ms // 1000, zone)
    return local.weekday() * 24 + local.hour + local.minute / 60 + local.second / 3600


def moment(centre_ms: int, zone: tzinfo) -> Moment:
    """The two hours between whose middles the centre of a window lies, neighbours in real time."""
    behind = hour_of_week(centre_ms - HOUR_MS // 2, zone)
    ahead = hour_of_week(centre_ms + HOUR_MS // 2, zone)
    return Moment(int(behind), int(ahead), round(behind % 1 * QUARTERS) / QUARTERS)


def rung_of(rows: Floats, weeks: float) -> Rung:
    """The highest rung that qualifies, given the independent rows m' of each hour of the week [168]."""
    enough: dict[Rung, bool] = {
        "hour_of_week": weeks >= WEEKS_MIN and bool(rows.min() >= ROWS_PER_HOUR_OF_WEEK),
        "hour_of_day_weekend": _all_seen_have_enough(rows),
        "hour_of_day": bool(by_slot(rows, "hour_of_day").min() >= ROWS_PER_SLOT),
    }
    return next((rung for rung, fits in enough.items() if fits), "global")


def laws(counts: Ints, bins: Ints, rung: Rung) -> Floats:
    """The law of every slot of a rung: [168, N, B] counts by hour of the week, `bins` [N] in use -> [slots, N, B].

    Each slot is drawn to its parent, the slot of the rung below, as if that counted 20 rows per bin.
    """
    used = np.arange(counts.shape[2]) < bins[:, None]
    total = counts.sum(0)
    whole = np.where(used, total + 0.5, 0.0)
    p = (whole / whole.sum(-1, keepdims=True))[None]
    for below, above in pairwise(LADDER[: LADDER.index(rung) + 1]):
        own = by_slot(counts, above)
        parent = np.empty(len(own), dtype=np.int64)
        parent[SLOTS[above]] = SLOTS[below]
        pull = PULL * bins[:, None]
        p = (own + pull * p[parent]) / (own.sum(-1, keepdims=True) + pull)
    return np.asarray(p)


def by_first_hour(counts: Ints, rung: Rung) -> Ints:
    """Counts by slot [slots, ...] as ones by hour of the week [168, ...]: all rungs up to this one follow from them."""
    hours = np.zeros((HOURS, *counts.shape[1:]), dtype=np.int64)
    hours[np.unique(SLOTS[rung], return_index=True)[1]] = counts
    return hours


def law_at(slots: Floats, rung: Rung, at: Moment) -> Floats:
    """The law of a window, [N, B], from the laws of all slots."""
    here, there = slots[SLOTS[rung][at.hour]], slots[SLOTS[rung][at.next_hour]]
    return np.asarray((1 - at.weight) * here + at.weight * there)


def rests_on(start_ms: int, size_ms: int, zone: tzinfo) -> list[int]:
    """The hours of the week a window is compared with: those its centre lies between, all it covers if it is longer."""
    if size_ms > HOUR_MS:
        return [local_hour(middle_ms, zone) % HOURS for middle_ms, _ in pieces(start_ms, size_ms)]
    at = moment(start_ms + size_ms // 2, zone)
    return [hour for hour, weight in ((at.hour, 1 - at.weight), (at.next_hour, at.weight)) if weight > 0]


def pieces(start_ms: int, size_ms: int) -> list[tuple[int, int]]:
    """The middle and the length of each hour of a window; one shorter than an hour is its own piece."""
    end_ms = start_ms + size_ms
    lengths = [(at_ms, min(HOUR_MS, end_ms - at_ms)) for at_ms in range(start_ms, end_ms, HOUR_MS)]
    return [(at_ms + lasted_ms // 2, lasted_ms) for at_ms, lasted_ms in lengths]


def is_unseen(seen_ms: Ints, start_ms: int, size_ms: int, zone: tzinfo) -> bool:
    """Whether a window rests on an hour of day, of work days or weekends, that was seen for less than an hour.

    `seen_ms` [48] is how long the hours of work days, then those of weekends, were seen. Such a window is not bet on.
    Windows of more than a day rest on all hours.
    """
    if size_ms > DAY_MS:
        return False
    seen = seen_ms[SLOTS["hour_of_day_weekend"]]
    return any(seen[hour] < HOUR_MS for hour in rests_on(start_ms, size_ms, zone))


def _all_seen_have_enough(rows: Floats) -> bool:
    of_slot = by_slot(rows, "hour_of_day_weekend")
    seen = of_slot[of_slot > 0]
    return bool(len(seen) and seen.min() >= ROWS_PER_SLOT)


def by_slot(values: np.ndarray[Any, Any], rung: Rung) -> np.ndarray[Any, Any]:
    """Sum hours of the week [168, ...] to slots [slots, ...]."""
    slots = SLOTS[rung]
    summed = np.zeros((slots.max() + 1, *values.shape[1:]), dtype=values.dtype)
    np.add.at(summed, slots, values)
    return summed
