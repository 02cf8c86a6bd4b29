"""What follows from a reference and the settings alone: laws, thresholds and groups. Made once, used every window.

A *column* is a member of a group: the distribution of a signal, or one of its rates. Those of the S signals of the
reference come first, in its order; then their rates; then the rates of rows. Matrices over segments and columns are
[G, C].
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from stream.detectors import Bools, Codes, Floats, Ints, Reason, budget, histogram, mean, page_hinkley, river
from stream.profiles import reference
from stream.profiles.reference import RATES, ROW_RATES, SMALL_ROWS, Tables, epsilon_ref
from stream.profiles.summaries import Dense
from stream.stages.detect.series import Distributions, Family, Means
from stream.stages.detect.settings import Settings

GroupKind: TypeAlias = Literal[
    "data_drift", "prediction_drift", "data_quality", "outlier", "performance", "concept_drift", "silence"
]
Group: TypeAlias = tuple[int, GroupKind]
"""Index of a segment, and a kind."""
KINDS: Final[tuple[GroupKind, ...]] = ("data_drift", "prediction_drift", "data_quality", "outlier")
"""Of inputs."""
OUTCOME_KINDS: Final[tuple[GroupKind, ...]] = ("data_quality", "concept_drift", "performance")
"""Of outcomes. Performance comes last: its alerts say whether the relation has moved."""
LABELS: Final = "labels"
"""What tells alerts on labels from those of the same kind on predictions."""
SHAPED: Final = frozenset({"data_drift", "prediction_drift", "outlier", "performance", "concept_drift"})
"""Kinds whose alerts name the type of the change (`contracts.md` 4)."""
MEASURES_OF_TESTS: Final = {"adwin": ("mean", "spread"), "page_hinkley": ("mean",)}
"""What the detectors without an e-value look at in every ordered signal; river's at the mean of u."""
ORDERED: Final = 0
UNORDERED: Final = 1
RATE: Final = 2
MEAN: Final = 3
"""Places of the families in everything that has one entry for each."""
DETECTORS: Final = ("histogram", "histogram", "mean", "mean")
"""What judges each family."""


class Serving(Struct, frozen=True, eq=False):
    """What a reference built from training rows cannot tell, measured on the first live windows."""

    phi: Floats
    """[G, C] overdispersion, at least 1; NaN where too few windows had events."""
    n_bar: Floats
    """[G, C] mean events of a non-empty window."""


class Column(Struct, frozen=True):
    """What one member of a group is, and where it stands."""

    signal: str
    measure: str
    family: int
    place: int
    """Among the columns of its family."""
    kind: GroupKind
    numeric: int | None = None
    """Of a distribution: place among the numeric signals."""


class Spending(Struct, frozen=True, eq=False):
    """How the budget is spent: fields as in `Plan`."""

    members: dict[GroupKind, Ints]
    ln_group: dict[GroupKind, Floats]
    shares: dict[GroupKind, Floats]
    ln_threshold: Floats


class Plan(Struct, frozen=True, eq=False, kw_only=True):
    """What all that judges windows of one model version needs: G segments, C columns in four families."""

    settings: Settings
    serving_known: bool
    """Whether overdispersion is known; without it nothing goes beyond a warning."""
    segments: list[str]
    ordered: Distributions
    unordered: Distributions
    rates: Means
    means: Means
    columns: list[Column]
    members: dict[GroupKind, Ints]
    """Columns of each kind whose detector is enabled."""
    ln_group: dict[GroupKind, Floats]
    """[G] ln A_g"""
    shares: dict[GroupKind, Floats]
    """[G] share of the budget"""
    ln_threshold: Floats
    """[G, C] ln A_s of every column as a member of its group"""
    tested: int
    """The family whose series detectors without an e-value look at."""
    hinkley: page_hinkley.Law
    """What is normal for the first measure of those series."""
    tests: dict[str, tuple[str, ...]]
    """Detectors without an e-value that are enabled, and the measures they look at."""

    @property
    def families(self) -> tuple[Family, Family, Family, Family]:
        """Ordered, unordered, rates, means."""
        return self.ordered, self.unordered, self.rates, self.means

    @property
    def tests_per_signal(self) -> int:
        """Their notices together cost one more budget (`statistics.md` 8.2)."""
        return sum(map(len, self.tests.values()))


class InputsPlan(Plan, frozen=True, eq=False, kw_only=True):
    """Of the signals of predictions, under a reference of inputs."""

    tables: Tables
    by_signal: dict[str, list[int]]
    """Columns of every signal that has a reading, in the order of the readings."""


@lru_cache(maxsize=1024)
def plan(settings: Settings, tables: Tables, serving: Serving | None) -> InputsPlan:
    """The plan of a model version; remembered, since its laws cost some 10 ms per 1,000 series."""
    columns = _columns(tables)
    spent = spending(settings, columns, KINDS, len(tables.segments), "inputs")
    phi, n_bar = filled_spread(*_known_spread(tables), serving)
    ordered, unordered = (
        _distributions(settings, tables, place, phi, n_bar, spent.ln_threshold) for place in (ORDERED, UNORDERED)
    )
    signals = len(tables.layout.names)
    return InputsPlan(
        settings=settings,
        tables=tables,
        segments=tables.segments,
        serving_known=serving is not None or bool(np.isfinite(_known_spread(tables)[0][0, :signals]).any()),
        ordered=ordered,
        unordered=unordered,
        rates=_rates(settings, tables, phi, n_bar, spent.ln_threshold),
        means=no_means(settings.mean),
        tested=ORDERED,
        hinkley=page_hinkley.Law(tables.u_mean.reshape(-1), tables.u_sd.reshape(-1), ordered.n_bar / ordered.phi),
        columns=columns,
        by_signal={
            name: [place for place, column in enumerate(columns) if column.signal == name]
            for name in (*tables.layout.names, *ROW_RATES)
        },
        members=spent.members,
        ln_group=spent.ln_group,
        shares=spent.shares,
        ln_threshold=spent.ln_threshold,
        tests={name: MEASURES_OF_TESTS.get(name, ("mean",)) for name in tests_enabled(settings)},
    )


def spending(
    settings: Settings, columns: Sequence[Column], kinds: Sequence[GroupKind], segments: int, scope: budget.Scope
) -> Spending:
    """How the budget is spent on the groups of some kinds and their members."""
    shares = {
        kind: np.array(
            [
                budget.share(settings.budget, kind, segment_values=segments - 1, whole=g == 0, scope=scope)
                for g in range(segments)
            ]
        )
        for kind in kinds
    }
    ln_group = {
        kind: np.array([budget.ln_threshold(settings.budget, settings.windows.size, share) for share in shares[kind]])
        for kind in kinds
    }
    ln_threshold, members = np.zeros((segments, len(columns))), dict[GroupKind, Ints]()
    judged = np.array([DETECTORS[column.family] in settings.enabled for column in columns], dtype=np.bool_)
    for kind in kinds:
        own = np.flatnonzero([column.kind == kind for column in columns])
        ln_threshold[:, own] = ln_group[kind][:, None] - budget.ln_weights(len(own))
        members[kind] = own[judged[own]]
    return Spending(members, ln_group, shares, ln_threshold)


def tests_enabled(settings: Settings) -> list[str]:
    """Detectors without an e-value that are at work."""
    return [name for name in settings.enabled if name in MEASURES_OF_TESTS or name.startswith(river.PREFIX)]


def counted(plan: InputsPlan, profile: Dense) -> tuple[Ints, Ints, Ints, Ints]:
    """What a window shows of each family: coarse counts [G * N, B] twice, events and hits [G * N, 2], no means."""
    tables = plan.tables
    ordered, unordered = reference.coarse(tables, profile.counts)
    hits = np.concatenate(
        [
            reference.hits(tables.layout, profile.counts)[:, tables.rates.watched],
            np.stack([profile.invalid_rows, profile.outlying_rows], axis=1),
        ],
        axis=1,
    )
    events = np.broadcast_to(profile.rows[:, None], hits.shape)
    return (
        ordered.reshape(-1, ordered.shape[2]),
        unordered.reshape(-1, unordered.shape[2]),
        np.stack([events, hits], axis=2).reshape(-1, 2),
        np.zeros((0, 3), np.int64),
    )


def no_means(settings: mean.Settings) -> Means:
    """A family without members."""
    nothing, none = np.zeros(0), np.zeros(0, np.int64)
    return Means(
        columns=none,
        phi=nothing,
        n_bar=nothing,
        rows=nothing,
        ln_threshold=nothing,
        reason=np.zeros(0, np.int8),
        enabled=False,
        law=mean.law(nothing, nothing, np.zeros(0, np.bool_)),
        sd=nothing,
        margins=nothing,
        settings=settings,
    )


def of_columns(tables: Tables, signals: Floats, rates: Floats, rows: Floats) -> Floats:
    """[G, C] from what is known of distributions [G, S], of their rates [G, S, 3] and of rows [G, 2]."""
    return np.concatenate([signals, rates[:, tables.rates.watched], rows], axis=1)


def _columns(tables: Tables) -> list[Column]:
    names, numeric = tables.layout.names, tables.layout.numeric
    families = {
        int(signal): (family, place)
        for family, own in enumerate((tables.ordered, tables.unordered))
        for place, signal in enumerate(own.signals.tolist())
    }
    found = [
        Column(
            name,
            "distribution",
            *families[signal],
            _kind_of(name),
            numeric.index(signal) if signal in numeric else None,
        )
        for signal, name in enumerate(names)
    ]
    rates = [(names[signal], RATES[rate]) for signal, rate in np.argwhere(tables.rates.watched).tolist()]
    rates += [(name, "rate") for name in ROW_RATES]
    for place, (name, measure) in enumerate(rates):
        found.append(Column(name, measure, RATE, place, "outlier" if name == "row:outlier" else "data_quality"))
    return found


def _kind_of(signal: str) -> GroupKind:
    """The group of a distribution: the inputs and the distance of the row, or what the model answers."""
    return "data_drift" if signal.startswith("feature:") or signal == "row:distance" else "prediction_drift"


def _known_spread(tables: Tables) -> tuple[Floats, Floats]:
    """[G, C] overdispersion and mean events of a window that the reference tells; NaN where it does not."""
    shape = (len(tables.segments), len(tables.layout.names))
    phi, n_bar = np.full((2, *shape), np.nan)
    for family in (tables.ordered, tables.unordered):
        phi[:, family.signals], n_bar[:, family.signals] = family.phi, family.n_bar
    rows = np.repeat(tables.window_rows[:, None], np.count_nonzero(tables.rates.watched) + len(ROW_RATES), axis=1)
    return (
        of_columns(tables, phi, tables.rates.phi, tables.rates.row_phi),
        np.concatenate([n_bar, rows], axis=1),
    )


def filled_spread(phi: Floats, n_bar: Floats, serving: Serving | None) -> tuple[Floats, Floats]:
    """[G, C] overdispersion and mean events of a window to work with; NaN where a reference does not know them."""
    if serving is not None:
        phi, n_bar = np.where(np.isnan(phi), serving.phi, phi), np.where(np.isnan(n_bar), serving.n_bar, n_bar)
    # A segment too thin to tell spreads like the whole model.
    phi = np.where(np.isnan(phi), phi[:1], phi)
    return np.where(np.isnan(phi), 1.0, phi), np.where(np.isnan(n_bar), 1.0, n_bar)


def _distributions(  # noqa: PLR0913 - private, all that a family is made of
    settings: Settings, tables: Tables, place: int, phi: Floats, n_bar: Floats, ln_threshold: Floats
) -> Distributions:
    family = (tables.ordered, tables.unordered)[place]
    own = family.signals
    p = family.p.reshape(-1, family.p.shape[2])
    z = np.tile(family.z, (len(tables.segments), 1)) if place == ORDERED else None
    effective = family.rows / phi[:, own]
    epsilon = settings.budget.tolerance + epsilon_ref(p, effective.reshape(-1))
    epsilon[: len(own)] = settings.budget.tolerance + reference.error(tables, place, phi[0, own])
    return Distributions(
        columns=own,
        phi=phi[:, own].reshape(-1),
        n_bar=n_bar[:, own].reshape(-1),
        rows=family.rows.reshape(-1),
        ln_threshold=ln_threshold[:, own].reshape(-1),
        reason=_reasons(tables, effective, np.ones_like(effective, dtype=np.bool_)),
        enabled=DETECTORS[place] in settings.enabled,
        law=histogram.law(p, epsilon, z=z),
        z=z,
        settings=settings.histogram,
        tolerance=settings.budget.tolerance,
    )


def _rates(settings: Settings, tables: Tables, phi: Floats, n_bar: Floats, ln_threshold: Floats) -> Means:
    first, known = len(tables.layout.names), tables.rates
    own = np.arange(first, ln_threshold.shape[1])
    means = np.concatenate([known.mean[:, known.watched], known.row_mean], axis=1)
    rows = np.repeat(tables.rows[:, None], len(own), axis=1)
    effective, told = rows / phi[:, own], ~np.isnan(means)
    # Any mean does for a rate that is not judged.
    flat = np.where(told, means, 0.5).reshape(-1)
    sd = np.sqrt(flat * (1 - flat))
    margins = mean.margin(settings.mean, sd, effective.reshape(-1))
    return Means(
        columns=own,
        phi=phi[:, own].reshape(-1),
        n_bar=n_bar[:, own].reshape(-1),
        rows=rows.reshape(-1),
        ln_threshold=ln_threshold[:, own].reshape(-1),
        reason=_reasons(tables, effective, told),
        enabled=DETECTORS[RATE] in settings.enabled,
        law=mean.law(flat, margins, np.ones(len(flat), np.bool_)),
        sd=sd,
        margins=margins,
        settings=settings.mean,
    )


def _reasons(tables: Tables, effective_rows: Floats, told: Bools) -> Codes:
    """A segment with too few rows to compare with is not judged; the whole model is in any case."""
    if not tables.reference.complete:
        return np.full(effective_rows.size, Reason.LEARNING, dtype=np.int8)
    small = effective_rows < SMALL_ROWS
    small[0] = False
    reason = np.where(told, np.where(small, Reason.REFERENCE_SMALL, Reason.NONE), Reason.NO_REFERENCE)
    return reason.astype(np.int8).reshape(-1)
