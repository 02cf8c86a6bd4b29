"""How many events a window brings: the mean by hour, and how much wider numbers spread than Poisson's.

Windows are added up by hour on the clock, empty ones included. From these sums follow, for the highest rung of the
seasonal ladder that leaves enough hours to compare (`seasons`, `statistics.md` 8.5, 9): the mean of each slot; and the
dispersion, variance over mean, the larger one of windows around their own hour and of hours around their slot. A season
that is not known yet makes the dispersion large, and the detector slow instead of noisy.
"""

from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.profiles import seasons
from stream.profiles.seasons import DAY_MS, HOUR_MS, HOURS, LADDER, SLOTS, WEEKS_MIN, Rung
from stream.wire.internal import Volume

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

HOURS_FREE: Final = 20
"""Hours more than slots that a rung needs: with fewer its dispersion is mostly chance."""
GAP_MAX_MS: Final = 7 * DAY_MS
"""A longer pause is not silence but another time: what lies in it was not seen."""
HOURS_MAX: Final = 4 * HOURS
"""Hours remembered, four weeks: then the oldest go."""
SIGMAS: Final = 2.6
"""Standard errors by which the mean may have been overestimated: 99 % of both sides."""


class Sums(Struct, frozen=True, eq=False):
    """What the windows so far have added up to. `Sums()` has seen nothing."""

    hours: dict[int, tuple[int, int, int]] = {}
    """By hour on the clock, in order: windows, their events, and the squares of these numbers."""
    first_ms: int | None = None
    """Start of the first window."""
    end_ms: int = 0
    """End of the newest."""


class Expected(Struct, frozen=True):
    """What is expected of one window."""

    mean: float
    """Events, less what the mean may have been overestimated by; 0 where nothing is known of the hour."""
    dispersion: float
    falls: bool
    """Whether a day was seen: only then a fall can be told from a night."""


def add(sums: Sums, start_ms: int, size_ms: int, rows: int, timezone: str) -> Sums:
    """One closed window more, in order of time; windows left out in between were empty. O(hours of the pause)."""
    zone = seasons.zone_of(timezone)
    hours = dict(sums.hours)
    first_ms = sums.end_ms if sums.first_ms is not None and start_ms - sums.end_ms <= GAP_MAX_MS else start_ms
    for at_ms in range(first_ms, start_ms + size_ms, size_ms):
        hour = seasons.local_hour(at_ms + size_ms // 2, zone)
        n = rows if at_ms == start_ms else 0
        windows, total, squares = hours.get(hour, (0, 0, 0))
        hours[hour] = (windows + 1, total + n, squares + n * n)
    for hour in sorted(hours)[:-HOURS_MAX]:
        del hours[hour]
    return replace(
        sums,
        hours=hours,
        first_ms=start_ms if sums.first_ms is None else sums.first_ms,
        end_ms=start_ms + size_ms,
    )


def left_out(sums: Sums, end_ms: int) -> Sums:
    """A window that ended at `end_ms` is not looked at, whatever it held: it was not empty either."""
    return replace(sums, end_ms=end_ms)


def windows(sums: Sums) -> int:
    """How many are remembered."""
    return sum(count for count, _, _ in sums.hours.values())


def volume(sums: Sums, size_ms: int, timezone: str) -> Volume:
    """What a reference says of it. At least one window must have been seen. Longer ones than an hour have no season."""
    seen = np.array([[hour, *sums.hours[hour]] for hour in sorted(sums.hours)], dtype=np.int64)
    hour, (count, rows, squares) = seen[:, 0] % HOURS, seen[:, 1:].T
    lasted_ms = sums.end_ms - (sums.first_ms or 0)
    rung = _rung(hour, lasted_ms / (HOURS * HOUR_MS)) if size_ms <= HOUR_MS else "global"
    slots = int(SLOTS[rung].max()) + 1
    slot = SLOTS[rung][hour]
    by_slot = np.zeros((2, slots), dtype=np.int64)
    np.add.at(by_slot[0], slot, count)
    np.add.at(by_slot[1], slot, rows)
    mean = by_slot[1] / np.maximum(by_slot[0], 1)
    within = _ratio((squares - rows * rows / count).sum(), ((count - 1) * rows / count).sum())
    expected = count * mean[slot]
    around = np.divide((rows - expected) ** 2, expected, out=np.zeros(len(rows)), where=expected > 0)
    free = len(hour) - np.count_nonzero(by_slot[0])
    between = around.sum() / free if free >= HOURS_FREE else 0.0
    return Volume(
        rung=rung,
        timezone=timezone,
        windows=by_slot[0].tolist(),
        rows=by_slot[1].tolist(),
        dispersion=max(1.0, float(within), float(between)),
        whole_day=lasted_ms >= DAY_MS and bool(free >= HOURS_FREE),
    )


def expected(known: Volume, start_ms: int, size_ms: int) -> Expected:
    """Of the window that begins at `start_ms`: neighbouring slots weighed by time, one not seen says nothing."""
    count, rows = np.array(known.windows, dtype=np.float64), np.array(known.rows, dtype=np.float64)
    at = seasons.moment(start_ms + size_ms // 2, seasons.zone_of(known.timezone))
    slots, weights = SLOTS[known.rung][[at.hour, at.next_hour]], np.array([1 - at.weight, at.weight])
    used = weights > 0
    if (count[slots[used]] == 0).any():
        return Expected(0.0, known.dispersion, known.whole_day)
    mean = rows[slots[used]] / count[slots[used]]
    low = np.maximum(0.0, mean - SIGMAS * np.sqrt(known.dispersion * mean / count[slots[used]]))
    return Expected(float((weights[used] * low).sum()), known.dispersion, known.whole_day)


def _rung(hours: np.ndarray[Any, np.dtype[np.int64]], weeks: float) -> Rung:
    """The highest rung that leaves enough hours to compare; `hours` of the week, one for each hour that was seen."""
    for rung in reversed(LADDER):
        if len(hours) - len(np.unique(SLOTS[rung][hours])) >= HOURS_FREE and (
            rung != "hour_of_week" or weeks >= WEEKS_MIN
        ):
            return rung
    return "global"


def _ratio(above: Floats, below: Floats) -> float:
    return float(above / below) if below > 0 else 0.0
