"""Budget: from "one false alarm a week over the fleet" to the threshold of every detector, and back to who moved.

Statistic   G = sum of a group's wealths, weighted: one test per alert
Fires when  G >= A_g = windows of a period / (false alarms x share of the group)
Cost        O(members) per window, no state
Blind to    what no member sees; attribution is a ranking, not a second alarm
Source      linearity of expectation; R. Wang, A. Ramdas, e-BH, arXiv 2009.02824
"""

from math import ceil, log, log2
from typing import Final, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stream.detectors import Bools, Floats, Ints
from stream.wire.durations import Duration

Kind: TypeAlias = Literal[
    "data_drift", "prediction_drift", "concept_drift", "performance", "data_quality", "outlier", "silence"
]

Scope: TypeAlias = Literal["inputs", "outcomes"]

KIND_SHARES: Final[dict[Kind, float]] = {
    "data_drift": 0.30,
    "prediction_drift": 0.15,
    "concept_drift": 0.15,
    "performance": 0.15,
    "data_quality": 0.15,
    "outlier": 0.05,
    "silence": 0.05,
}
"""What each kind of alert may spend; they sum to 1. Inputs get most, because they are most."""
PARTS: Final[dict[Scope, dict[Kind, float]]] = {
    "inputs": {"data_quality": 2 / 3, "silence": 1 / 2},
    "outcomes": {"data_quality": 1 / 3, "silence": 1 / 2},
}
"""Outcomes close later than inputs, so a kind that both have is two groups: what labels are like, their delay and how
many come, takes a third of it, and silence is divided evenly. All of a kind that is not here."""
SEGMENT_VALUES_MIN: Final = 8
"""Segment shares are cut for at least this many values, so that the second and the eighth change no threshold."""
_LISTING_LEVEL: Final = 0.1
_CONTRIBUTING: Final = 3


class Settings(BaseModel):
    """What a person may choose: the promise, and to how many it is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    false_alarms: float = Field(default=1.0, gt=0, le=1e6)
    """False alarms per period over the whole fleet. 1: one in a week is what people still read."""
    period: Duration = Field(default=604_800_000, gt=0)
    """Milliseconds; a week."""
    model_versions: int = Field(default=64, ge=1, le=65_536)
    """Model versions the budget is cut for, a power of two: constant, so that a new version moves no threshold."""
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """Total variation below which a change is no drift."""

    @field_validator("model_versions")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value


def share(settings: Settings, kind: Kind, *, segment_values: int, whole: bool, scope: Scope = "inputs") -> float:
    """The part of the budget that one group may spend, in (0, 1].

    A group is (model version, segment, kind), of inputs or of outcomes. `segment_values` counts the values of all
    declared keys, `other` included; 0 without segments. `whole` marks the segment `all`. Over C versions the shares sum
    to at most 1.
    """
    part = KIND_SHARES[kind] * PARTS[scope].get(kind, 1.0) / settings.model_versions
    if segment_values == 0:
        return part
    if whole:
        return part / 2
    return part / 2 / 2.0 ** ceil(log2(max(SEGMENT_VALUES_MIN, segment_values)))


def ln_threshold(settings: Settings, window_ms: int, group_share: float) -> float:
    """ln A_g. Worked example: windows of a minute, one alarm a week, share 0.3/64: A = 10,080 * 64/0.3, ln A = 14.58.

    Where a period allows more alarms than it has windows the threshold stays at A = 1: every window may alarm.
    """
    windows = settings.period / window_ms
    return max(0.0, log(windows) - log(settings.false_alarms) - log(group_share))


def ln_weights(members: int) -> Floats:
    """Equal weights of a group's members, as logarithms: a member alone crosses at ln A_g - ln weight."""
    return np.full(members, -log(max(members, 1)))


def listed(ln_m: Floats, ln_threshold: Floats) -> tuple[Ints, Bools]:
    """Which members of a group moved, by falling evidence: their indices, and True where it shows.

    e-BH at level 0.1 among the members that are at least at `warning` (root of their own threshold, [S]). When no
    member passes, the first three are told as contributing (False). Ties keep the order of the members.
    """
    order = np.argsort(-ln_m, kind="stable")
    ranked = ln_m[order]
    rank = np.arange(1, len(ranked) + 1)
    passes = np.flatnonzero(ranked >= np.log(len(ranked) / (_LISTING_LEVEL * rank)))
    kept = order[: passes[-1] + 1] if len(passes) else order[:0]
    moved = kept[ln_m[kept] >= ln_threshold[kept] / 2]
    if len(moved):
        return moved, np.ones(len(moved), np.bool_)
    first = order[:_CONTRIBUTING]
    return first, np.zeros(len(first), np.bool_)
