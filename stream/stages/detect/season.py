"""What is normal in one window: the law of the reference, in the season it lies in.

Slots are kept for the whole model alone; other segments have the law of all hours in every window. Laws and clips are
the same in all windows a quarter of an hour apart from the same two slots, and are kept.
"""

from functools import lru_cache

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import Floats, histogram, page_hinkley
from stream.profiles import seasons
from stream.profiles.reference import Season
from stream.profiles.seasons import SLOTS, Moment
from stream.stages.detect.plan import InputsPlan
from stream.stages.detect.series import Distributions


class Normal(Struct, frozen=True, eq=False):
    """What detectors compare a window with, where that depends on the hour."""

    ordered: histogram.Law
    unordered: histogram.Law
    centres: tuple[Floats, Floats]
    """[G * O] mean of u, and of v."""
    hinkley: page_hinkley.Law
    """Of u."""


def normal(plan: InputsPlan, start_ms: int) -> Normal | None:
    """What is normal in the window that begins at `start_ms`; None where it is the same at all hours."""
    known = _slots(plan)
    return None if known is None else _at(plan, _moment(plan, known, start_ms))


def law_of(plan: InputsPlan, family: int, start_ms: int) -> Floats:
    """[G * N, B] the law of the ordered or the unordered signals in a window, without what is bet on it."""
    p, known = (plan.ordered, plan.unordered)[family].law.p, _slots(plan)
    if known is None:
        return p
    own = seasons.law_at(known.p[family], known.rung, _moment(plan, known, start_ms))
    return np.concatenate([own, p[len(own) :]])


def is_unseen(plan: InputsPlan, start_ms: int) -> bool:
    """Whether the reference knows nothing of the hour of a window: it is not bet on (`statistics.md` 2.11)."""
    known = plan.tables.season
    return known is not None and seasons.is_unseen(known.seen_ms, start_ms, plan.settings.windows.size, known.zone)


def has_slots(plan: InputsPlan) -> bool:
    """Whether what is normal depends on the hour."""
    return _slots(plan) is not None


def slot(plan: InputsPlan, start_ms: int) -> str:
    """What the whole model is compared with in a window, as its readings say: `all`, or a slot of a rung."""
    known = _slots(plan)
    if known is None:
        return "all"
    hour = seasons.local_hour(start_ms + plan.settings.windows.size // 2, known.zone) % seasons.HOURS
    return f"{known.rung}={SLOTS[known.rung][hour]}"


def _slots(plan: InputsPlan) -> Season | None:
    """The slots of a plan; longer windows than an hour lie in many of them."""
    known = plan.tables.season
    fits = known is not None and known.rung != "global" and plan.settings.windows.size <= seasons.HOUR_MS
    return known if fits else None


def _moment(plan: InputsPlan, known: Season, start_ms: int) -> Moment:
    return seasons.moment(start_ms + plan.settings.windows.size // 2, known.zone)


@lru_cache(maxsize=256)
def _at(plan: InputsPlan, at: Moment) -> Normal:
    """Windows come in order, so a few moments of each model version are enough: one is 0.3 MB at 180 series."""
    known = plan.tables.season
    if known is None:
        raise ValueError("a reference without slots has no season")
    u, v = (
        np.concatenate([seasons.law_at(slots, known.rung, at), mean[1:].reshape(-1)])
        for slots, mean in ((known.u_mean, plan.tables.u_mean), (known.v_mean, plan.tables.v_mean))
    )
    return Normal(
        ordered=_law(plan.ordered, seasons.law_at(known.p[0], known.rung, at)),
        unordered=_law(plan.unordered, seasons.law_at(known.p[1], known.rung, at)),
        centres=(u, v),
        hinkley=replace(plan.hinkley, mean=u),
    )


def _law(series: Distributions, p: Floats) -> histogram.Law:
    """The law of all series of a family when `p` [N, B] is that of the whole model."""
    whole = np.arange(len(p))
    z = None if series.z is None else series.z[whole]
    own = histogram.law(p, series.law.epsilon[whole], z=z, p_mean=series.law.p[whole])
    return series.with_rows(series.law, whole, own)
