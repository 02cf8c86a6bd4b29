"""ADWIN, Page-Hinkley and river's detectors, asked alongside: what they find is told, never decided on.

They look at bounded scores: of inputs at u = F_ref(x) and v = |2u - 1| of the ordered signals, of outcomes at the means
themselves, while the evidence decides on whole distributions, rates and means (`statistics.md` 8.2).
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import Bools, Codes, Reason, Sums, Verdicts, adwin, page_hinkley, river
from stream.profiles.reference import Scores
from stream.stages.detect.plan import Plan
from stream.stages.detect.season import Normal
from stream.stages.detect.series import Seen
from stream.stages.detect.state import Tests


class Asked(Struct, frozen=True, eq=False):
    """What one detector said of a window."""

    detector: str
    measures: tuple[str, ...]
    verdicts: Verdicts
    """[measures * R]: all series by their first measure, then by the next."""


class Tested(Struct, frozen=True, eq=False):
    """A window as these detectors see it: R = G * N series of the family the plan names."""

    seen: Seen
    scores: tuple[Scores, ...]
    """By measure."""
    resting: Bools
    """[R] series with an episode open."""
    no_bet: Codes
    """[R] of `Reason`"""
    normal: Normal | None


def update(plan: Plan, tests: Tests, tested: Tested) -> tuple[Tests, tuple[Asked, ...]]:
    """One window further. Without an overdispersion their thresholds mean nothing: they wait until it is known."""
    sums = [_sums(plan, tested, score) for score in tested.scores]
    settings, series, normal = plan.settings, len(tested.resting), tested.normal
    centre, hinkley = (None, plan.hinkley) if normal is None else (np.concatenate(normal.centres), normal.hinkley)
    after, asked = Tests(), []
    for name, measures in plan.tests.items():
        if name == "adwin":
            adwins, verdicts = adwin.update(
                tests.adwin or adwin.start(len(measures) * series, settings.adwin),
                settings.adwin,
                adwin.Window(_joined(sums[: len(measures)]), centre),
            )
            after = replace(after, adwin=adwins)
        elif name == "page_hinkley":
            window = page_hinkley.Window(sums[0], hinkley)
            hinkleys, verdicts = page_hinkley.update(
                tests.page_hinkley or page_hinkley.start(series), settings.page_hinkley, window
            )
            after = replace(after, page_hinkley=hinkleys)
        else:
            own = _river_settings(plan, name)
            states, verdicts = river.update(
                tests.river.get(name) or river.start(series, own), own, river.Window(sums[0])
            )
            after = replace(after, river={**after.river, name: states})
        asked.append(Asked(name, measures, verdicts))
    return after, tuple(asked)


def reset(plan: Plan, tests: Tests, chosen: Bools) -> Tests:
    """The chosen series [R] begin from nothing."""
    return Tests(
        adwin=tests.adwin and adwin.reset(tests.adwin, np.tile(chosen, len(plan.tests["adwin"]))),
        page_hinkley=tests.page_hinkley and page_hinkley.reset(tests.page_hinkley, chosen),
        river={name: river.reset(states, _river_settings(plan, name), chosen) for name, states in tests.river.items()},
    )


def _river_settings(plan: Plan, name: str) -> river.Settings:
    return plan.settings.river.get(name) or river.Settings(name=name.removeprefix(river.PREFIX))


def _sums(plan: Plan, tested: Tested, score: Scores) -> Sums:
    family = plan.families[plan.tested]
    reason = np.where(family.reason == Reason.NONE, tested.no_bet, family.reason)
    if not plan.serving_known:
        reason = np.where(reason == Reason.NONE, Reason.WARMING_UP, reason)
    return Sums(
        start_ms=tested.seen.start_ms,
        n=score.n.reshape(-1),
        s=score.s.reshape(-1),
        m2=score.m2.reshape(-1),
        phi=tested.seen.phi,
        ln_threshold=family.ln_threshold + np.log(max(plan.tests_per_signal, 1)),
        reason=reason.astype(np.int8),
        testing=~tested.resting,
    )


def _joined(sums: Sequence[Sums]) -> Sums:
    names = [name for name in Sums.__struct_fields__ if name != "start_ms"]
    return Sums(sums[0].start_ms, *(np.concatenate([getattr(one, name) for one in sums]) for name in names))
