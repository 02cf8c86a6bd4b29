"""What follows from a reference and the settings alone: laws, thresholds and groups. Made once, used every window."""

from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from stream.detectors import Codes, Floats, Ints, Reason, budget, histogram, page_hinkley
from stream.profiles.reference import SMALL_ROWS, Family, Tables, epsilon_ref
from stream.stages.detect.settings import Settings

GroupKind: TypeAlias = Literal["data_drift", "prediction_drift"]
Group: TypeAlias = tuple[int, GroupKind]
"""Index of a segment, and a kind."""
KINDS: Final[tuple[GroupKind, ...]] = ("data_drift", "prediction_drift")
TESTS_PER_SIGNAL: Final = 3
"""ADWIN on u and its spread, Page-Hinkley on u: their notices cost one more budget together (`statistics.md` 8.2)."""
ORDERED: Final = 0
UNORDERED: Final = 1
"""Places of the two families in every pair."""


class Serving(Struct, frozen=True, eq=False):
    """What a reference built from training rows cannot tell, measured on the first live windows."""

    phi: Floats
    """[G, S] overdispersion, at least 1; NaN where too few windows had events."""
    n_bar: Floats
    """[G, S] mean valid events of a non-empty window."""


class Series(Struct, frozen=True, eq=False):
    """The series of one family of signals, N per segment: arrays over [G * N], segments outside."""

    signals: Ints
    """[N] index among the signals."""
    law: histogram.Law
    z: Floats | None
    """[G * N, B] normal scores of ordered bins."""
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
        return segment * len(self.signals) + np.flatnonzero(np.isin(self.signals, signals))


class Where(Struct, frozen=True):
    """Where a signal stands."""

    family: int
    place: int
    """Among the signals of its family."""
    numeric: int | None
    """Among the numeric signals."""
    kind: GroupKind


class Plan(Struct, frozen=True, eq=False):
    """One model version under one reference: G segments, S signals."""

    settings: Settings
    tables: Tables
    serving_known: bool
    """Whether overdispersion is known; without it nothing goes beyond a warning."""
    ordered: Series
    unordered: Series
    means: page_hinkley.Law
    members: dict[GroupKind, Ints]
    """Indices of the signals of each kind."""
    where: list[Where]
    """[S]"""
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


@lru_cache(maxsize=1024)
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
    ordered = _series(settings, tables, tables.ordered, serving, ln_threshold)
    known = np.concatenate([tables.ordered.phi[0], tables.unordered.phi[0]])
    return Plan(
        settings=settings,
        tables=tables,
        serving_known=serving is not None or bool(np.isfinite(known).any()),
        ordered=ordered,
        unordered=_series(settings, tables, tables.unordered, serving, ln_threshold),
        means=page_hinkley.Law(tables.u_mean.reshape(-1), tables.u_sd.reshape(-1), ordered.n_bar / ordered.phi),
        members=members,
        where=[_where(tables, signal) for signal in range(len(names))],
        ln_group=ln_group,
        shares=shares,
        ln_threshold=ln_threshold,
    )


def kind_of(signal: str) -> GroupKind:
    """Which group a signal belongs to: the inputs and the distance of the row, or what the model answers."""
    return "data_drift" if signal.startswith("feature:") or signal == "row:distance" else "prediction_drift"


def _where(tables: Tables, signal: int) -> Where:
    family = ORDERED if signal in tables.ordered.signals else UNORDERED
    numeric = tables.layout.numeric
    return Where(
        family=family,
        place=int(np.flatnonzero((tables.ordered, tables.unordered)[family].signals == signal)[0]),
        numeric=numeric.index(signal) if signal in numeric else None,
        kind=kind_of(tables.layout.names[signal]),
    )


def _shares(settings: Settings, kind: GroupKind, segments: int) -> Floats:
    return np.array(
        [budget.share(settings.budget, kind, segment_values=segments - 1, whole=g == 0) for g in range(segments)]
    )


def _series(
    settings: Settings, tables: Tables, family: Family, serving: Serving | None, ln_threshold: Floats
) -> Series:
    bins = family.p.shape[2]
    phi, n_bar = family.phi, family.n_bar
    if serving is not None:
        own_phi, own_n_bar = serving.phi[:, family.signals], serving.n_bar[:, family.signals]
        phi, n_bar = np.where(np.isnan(phi), own_phi, phi), np.where(np.isnan(n_bar), own_n_bar, n_bar)
    # A segment too thin to tell spreads like the whole model.
    phi = np.where(np.isnan(phi), phi[:1], phi)
    phi, n_bar = np.where(np.isnan(phi), 1.0, phi), np.where(np.isnan(n_bar), 1.0, n_bar)
    p = family.p.reshape(-1, bins)
    z = np.tile(family.z, (len(tables.segments), 1)) if family is tables.ordered else None
    epsilon = settings.budget.tolerance + epsilon_ref(p, (family.rows / phi).reshape(-1))
    return Series(
        signals=family.signals,
        law=histogram.law(p, epsilon, z=z),
        z=z,
        phi=phi.reshape(-1),
        n_bar=n_bar.reshape(-1),
        rows=family.rows.reshape(-1),
        ln_threshold=ln_threshold[:, family.signals].reshape(-1),
        reason=_reasons(tables, family.rows / phi),
    )


def _reasons(tables: Tables, effective_rows: Floats) -> Codes:
    """A segment with too few rows to compare with is not judged; the whole model is in any case."""
    if not tables.reference.complete:
        return np.full(effective_rows.size, Reason.LEARNING, dtype=np.int8)
    small = effective_rows < SMALL_ROWS
    small[0] = False
    return np.where(small, Reason.REFERENCE_SMALL, Reason.NONE).astype(np.int8).reshape(-1)
