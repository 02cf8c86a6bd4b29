"""What follows from a reference and the settings alone: laws, thresholds and groups. Made once, used every window."""

from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from stream.detectors import Bools, Codes, Floats, Ints, Reason, budget, histogram, page_hinkley
from stream.profiles.reference import SMALL_ROWS, Family, Tables, epsilon_ref
from stream.stages.detect.settings import Settings

GroupKind: TypeAlias = Literal["data_drift", "prediction_drift"]
Group: TypeAlias = tuple[int, GroupKind]
"""Index of a segment, and a kind."""
KINDS: Final[tuple[GroupKind, ...]] = ("data_drift", "prediction_drift")
TESTS_PER_SIGNAL: Final = 3
"""ADWIN on u and its spread, Page-Hinkley on u: their notices cost one more budget together (`statistics.md` 8.2)."""


class Serving(Struct, frozen=True, eq=False):
    """What a reference built from training rows cannot tell, measured on the first live windows."""

    phi: Floats
    """[G, S] overdispersion, at least 1."""
    n_bar: Floats
    """[G, S] mean valid events of a non-empty window."""


class Series(Struct, frozen=True, eq=False):
    """The series of one family of signals, N per segment: arrays over [G * N], segments outside."""

    signals: Ints
    """[N] index among the signals."""
    law: histogram.Law
    phi: Floats
    n_bar: Floats
    rows: Floats
    """m: rows of the reference behind the law"""
    ln_threshold: Floats
    reason: Codes

    def spread(self, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """From [G, S] to [G * N]."""
        return matrix[:, self.signals].reshape(-1)

    def of(self, segment: int, signals: Ints) -> Ints:
        """Indices of some signals of one segment among the series, those of other families left out."""
        places = np.flatnonzero(np.isin(self.signals, signals))
        return segment * len(self.signals) + places


class Plan(Struct, frozen=True, eq=False):
    """One model version under one reference: G segments, S signals."""

    tables: Tables
    serving_known: bool
    """Whether phi is known; without it nothing goes beyond a warning."""
    ordered: Series
    unordered: Series
    means: page_hinkley.Law
    members: dict[GroupKind, Ints]
    """Indices of the signals of each kind."""
    ln_group: dict[GroupKind, Floats]
    """[G] ln A_g"""
    shares: dict[GroupKind, Floats]
    """[G] share of the budget"""
    ln_threshold: Floats
    """[G, S] ln A_s of every signal as a member of its group"""

    @property
    def families(self) -> tuple[Series, Series]:
        """Ordered, unordered."""
        return self.ordered, self.unordered


@lru_cache(maxsize=4096)
def plan(settings: Settings, tables: Tables, serving: Serving | None) -> Plan:
    """The plan of a model version; remembered, since its laws cost some 10 ms per 1,000 series."""
    names, segments = tables.layout.names, len(tables.segments)
    members = {kind: np.flatnonzero([kind_of(name) == kind for name in names]) for kind in KINDS}
    shares = {kind: _shares(settings, kind, segments) for kind in KINDS}
    ln_group = {
        kind: np.array([budget.ln_threshold(settings.budget, settings.windows.size, share) for share in shares[kind]])
        for kind in KINDS
    }
    ln_threshold = np.zeros((segments, len(names)))
    for kind in KINDS:
        ln_threshold[:, members[kind]] = ln_group[kind][:, None] - budget.ln_weights(len(members[kind]))
    ordered = _series(settings, tables, tables.ordered, serving, ln_threshold, has_order=True)
    return Plan(
        tables=tables,
        serving_known=serving is not None or not np.isnan(tables.ordered.phi[:1]).any(),
        ordered=ordered,
        unordered=_series(settings, tables, tables.unordered, serving, ln_threshold, has_order=False),
        means=page_hinkley.Law(tables.u_mean.reshape(-1), tables.u_sd.reshape(-1), ordered.n_bar / ordered.phi),
        members=members,
        ln_group=ln_group,
        shares=shares,
        ln_threshold=ln_threshold,
    )


def kind_of(signal: str) -> GroupKind:
    """Which group a signal belongs to: the inputs and the distance of the row, or what the model answers."""
    return "data_drift" if signal.startswith("feature:") or signal == "row:distance" else "prediction_drift"


def _shares(settings: Settings, kind: GroupKind, segments: int) -> Floats:
    return np.array(
        [budget.share(settings.budget, kind, segment_values=segments - 1, whole=g == 0) for g in range(segments)]
    )


def _series(  # noqa: PLR0913 - private, all that a series is made of
    settings: Settings,
    tables: Tables,
    family: Family,
    serving: Serving | None,
    ln_threshold: Floats,
    *,
    has_order: bool,
) -> Series:
    segments, bins = len(tables.segments), family.p.shape[2]
    phi, n_bar = family.phi, family.n_bar
    if serving is not None:
        own_phi, own_n_bar = serving.phi[:, family.signals], serving.n_bar[:, family.signals]
        phi, n_bar = np.where(np.isnan(phi), own_phi, phi), np.where(np.isnan(n_bar), own_n_bar, n_bar)
    phi, n_bar = np.where(np.isnan(phi), 1.0, phi), np.where(np.isnan(n_bar), 1.0, n_bar)
    p = family.p.reshape(-1, bins)
    epsilon = settings.budget.tolerance + epsilon_ref(p, (family.rows / phi).reshape(-1))
    z = np.tile(family.z, (segments, 1)) if has_order else None
    return Series(
        signals=family.signals,
        law=histogram.law(p, epsilon, z=z),
        phi=phi.reshape(-1),
        n_bar=n_bar.reshape(-1),
        rows=family.rows.reshape(-1),
        ln_threshold=ln_threshold[:, family.signals].reshape(-1),
        reason=_reasons(tables, _small(family, phi)),
    )


def _small(family: Family, phi: Floats) -> Bools:
    """Segments with too few rows to compare with; the whole model is judged in any case."""
    small = family.rows / phi < SMALL_ROWS
    small[0] = False
    return np.asarray(small)


def _reasons(tables: Tables, small: Bools) -> Codes:
    if not tables.reference.complete:
        return np.full(small.size, Reason.LEARNING, dtype=np.int8)
    return np.where(small, Reason.REFERENCE_SMALL, Reason.NONE).astype(np.int8).reshape(-1)
