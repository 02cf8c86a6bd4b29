"""A closed window, and what all that is told of it shows: computed once."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec import Struct

from stream.alerts.evidence import Subject
from stream.detectors import Floats, Ints, Level, Reason, effects
from stream.profiles import describe, reference
from stream.profiles.reference import Tables
from stream.profiles.summaries import Dense
from stream.stages.detect import season
from stream.stages.detect.decisions import Orders
from stream.stages.detect.plan import RATE, Group, InputsPlan, counted
from stream.stages.detect.settings import Settings
from stream.stages.detect.watch import Judged
from stream.wire import outbound

LEVELS: Final[Mapping[int, outbound.Level]] = {
    Level.NOT_READY: "not_ready",
    Level.OK: "ok",
    Level.WARNING: "warning",
    Level.DRIFT: "drift",
}
REASONS: Final[Mapping[int, outbound.Reason | None]] = {
    Reason.NONE: None,
    Reason.NO_REFERENCE: "no_reference",
    Reason.LEARNING: "learning",
    Reason.REFERENCE_CHANGED: "reference_changed",
    Reason.REFERENCE_SMALL: "reference_small",
    Reason.WARMING_UP: "warming_up",
    Reason.EMPTY: "empty",
    Reason.MUTED: "muted",
}
QUANTILES: Final = (0.05, 0.5, 0.95)


class Shown(Struct, frozen=True, eq=False):
    """What readings and alerts show of all signals of a window."""

    counts: tuple[Ints, Ints]
    """Coarse counts [G, N, B] of the ordered and the unordered family."""
    effects: tuple[effects.Effects, effects.Effects]
    """[G * N] each."""
    hits: Ints
    """[G, S, 3] missing, invalid, unseen."""
    rates: Ints
    """[G, rates, 2] events and hits."""
    numbers: Floats
    """[G, numeric signals, 5] mean, deviation, three quantiles; NaN without events."""
    slot: str
    """What the whole model is compared with: `all` or a seasonal slot."""


class Closed(Struct, frozen=True, eq=False):
    """A closed window of one model version, by what it was judged, and what it shows. Made by `closed`."""

    model_id: str
    model_version: str
    plan: InputsPlan
    start_ms: int
    profile: Dense
    judged: Judged | None
    """None where a window mixes references."""
    shown: Shown
    orders: Orders = Orders()
    """What people have decided of it."""

    @property
    def settings(self) -> Settings:
        """Those of its plan."""
        return self.plan.settings

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.settings.windows.size

    @property
    def tables(self) -> Tables:
        """Of the reference."""
        return self.plan.tables

    @property
    def segments(self) -> list[str]:
        """`all` first."""
        return self.plan.segments

    def subject(self, group: Group) -> Subject:
        """What an alert of a group is about."""
        return Subject(self.model_id, self.model_version, self.segments[group[0]], group[1])


def closed(  # noqa: PLR0913 - all that a window is told by
    name: tuple[str, str],
    plan: InputsPlan,
    start_ms: int,
    profile: Dense,
    judged: Judged | None,
    orders: Orders | None = None,
) -> Closed:
    """A window ready to be told: what all readings and alerts of it share is computed once."""
    tables, normal = plan.tables, season.normal(plan, start_ms)
    laws = (plan.ordered.law, plan.unordered.law) if normal is None else (normal.ordered, normal.unordered)
    coarse_counts = reference.coarse(tables, profile.counts)
    sizes = [
        effects_of(
            counts.reshape(-1, counts.shape[2]),
            law.p,
            np.tile(family.bins, len(counts)),
            ordered=family is tables.ordered,
        )
        for family, counts, law in zip((tables.ordered, tables.unordered), coarse_counts, laws, strict=True)
    ]
    mean, std = describe.mean_and_std(tables.scale, profile.counts, profile.moments)
    quantiles = describe.quantiles(tables.scale, profile.counts, QUANTILES)
    shown = Shown(
        counts=coarse_counts,
        effects=(sizes[0], sizes[1]),
        hits=reference.hits(tables.layout, profile.counts),
        rates=counted(plan, profile)[RATE].reshape(len(tables.segments), -1, 2),
        numbers=np.concatenate([mean[:, :, None], std[:, :, None], quantiles], axis=2),
        slot=season.slot(plan, start_ms),
    )
    return Closed(*name, plan, start_ms, profile, judged, shown, orders or Orders())


def effects_of(counts: Ints, p: Floats, bins: Ints, *, ordered: bool) -> effects.Effects:
    """Effect sizes of R series: counts and reference laws [R, B], bins in use [R]."""
    return effects.effects(effects.smoothed(counts, bins), p, np.full(len(p), ordered))
