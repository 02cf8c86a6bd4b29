"""ADWIN, Page-Hinkley and river's detectors, asked alongside: what they find is told, never decided on.

They look at the scores u = F_ref(x) and v = |2u - 1| of the ordered signals, while the evidence decides on whole
distributions and on rates (`statistics.md` 8.2).
"""

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import Bools, Reason, Sums, Verdicts, adwin, page_hinkley, river
from stream.profiles import reference
from stream.profiles.summaries import Dense
from stream.stages.detect.plan import Plan
from stream.stages.detect.series import Seen
from stream.stages.detect.state import Tests


class Asked(Struct, frozen=True, eq=False):
    """What one detector said of a window."""

    detector: str
    measures: tuple[str, ...]
    verdicts: Verdicts
    """[measures * G * O]: all series by their first measure, then by the next."""


def update(plan: Plan, tests: Tests, seen: Seen, profile: Dense, resting: Bools) -> tuple[Tests, tuple[Asked, ...]]:
    """One window further; `seen` of the ordered family. Series that are `resting` [G * O] have an episode open.

    Without an overdispersion their thresholds mean nothing: they wait until it is known.
    """
    u, v = (_sums(plan, seen, score, ~resting) for score in reference.scores(plan.tables, profile.counts))
    settings, series = plan.settings, len(resting)
    after, asked = Tests(), []
    for name, measures in plan.tests.items():
        if name == "adwin":
            adwins, verdicts = adwin.update(
                tests.adwin or adwin.start(2 * series, settings.adwin), settings.adwin, adwin.Window(_joined(u, v))
            )
            after = replace(after, adwin=adwins)
        elif name == "page_hinkley":
            window = page_hinkley.Window(u, plan.means)
            hinkleys, verdicts = page_hinkley.update(
                tests.page_hinkley or page_hinkley.start(series), settings.page_hinkley, window
            )
            after = replace(after, page_hinkley=hinkleys)
        else:
            own = _river_settings(plan, name)
            states, verdicts = river.update(tests.river.get(name) or river.start(series, own), own, river.Window(u))
            after = replace(after, river={**after.river, name: states})
        asked.append(Asked(name, measures, verdicts))
    return after, tuple(asked)


def reset(plan: Plan, tests: Tests, chosen: Bools) -> Tests:
    """The chosen series [G * O] begin from nothing."""
    return Tests(
        adwin=tests.adwin and adwin.reset(tests.adwin, np.tile(chosen, 2)),
        page_hinkley=tests.page_hinkley and page_hinkley.reset(tests.page_hinkley, chosen),
        river={name: river.reset(states, _river_settings(plan, name), chosen) for name, states in tests.river.items()},
    )


def _river_settings(plan: Plan, name: str) -> river.Settings:
    return plan.settings.river.get(name) or river.Settings(name=name.removeprefix(river.PREFIX))


def _sums(plan: Plan, seen: Seen, score: reference.Scores, testing: Bools) -> Sums:
    family = plan.ordered
    reason = family.reason
    if not plan.serving_known:
        reason = np.where(reason == Reason.NONE, Reason.WARMING_UP, reason).astype(np.int8)
    return Sums(
        start_ms=seen.start_ms,
        n=score.n.reshape(-1),
        s=score.s.reshape(-1),
        m2=score.m2.reshape(-1),
        phi=seen.phi,
        ln_threshold=family.ln_threshold + np.log(max(plan.tests_per_signal, 1)),
        reason=reason,
        testing=testing,
    )


def _joined(one: Sums, other: Sums) -> Sums:
    names = [name for name in Sums.__struct_fields__ if name != "start_ms"]
    return Sums(one.start_ms, *(np.concatenate([getattr(one, name), getattr(other, name)]) for name in names))
