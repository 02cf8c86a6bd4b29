"""What follows from a reference of outcomes and the settings alone, and a window of outcomes as detectors see it."""

from functools import lru_cache
from typing import Final

import numpy as np
from msgspec import Struct

from stream.detectors import Codes, Floats, Ints, Reason, histogram, mean, page_hinkley
from stream.profiles import exact, outcome_reference, outcome_tables
from stream.profiles.outcome_tables import ALL, ERROR, RESIDUAL, Form, Measured, Member, OutcomeTables
from stream.profiles.reference import ORDERED_BINS, SMALL_ROWS, UNORDERED_BINS, Scores, epsilon_ref, mid_cdf
from stream.profiles.reference import normal_scores as normal
from stream.stages.detect.plan import (
    DETECTORS,
    MEAN,
    ORDERED,
    OUTCOME_KINDS,
    RATE,
    Column,
    GroupKind,
    Plan,
    Serving,
    Spending,
    filled_spread,
    no_means,
    spending,
    tests_enabled,
)
from stream.stages.detect.series import Distributions, Means
from stream.stages.detect.settings import Settings
from stream.stages.detect.watch import Window
from stream.wire.internal import Outcomes, Reference

FAMILIES: Final[dict[Form, int]] = {"distribution": ORDERED, "rate": RATE, "mean": MEAN}
PREDICTIONS, ENDED, LABELLED, ERROR_SUM, ERROR_SQUARES = range(5)
"""First columns of the moments of a window: predictions of the same window, those whose horizon ended, those of them
with a label; of a regression sums of the size of errors and of its square, in units of `OutcomesPlan.error_unit`."""
FIRST_RANGE: Final = 5
"""Then pairs of each range of scores and the wrong ones among them, then pairs by actual class."""
_SUMS_MAX: Final = 2.0**62


class Known(Struct, frozen=True, eq=False):
    """A reference of outcomes that can be read."""

    reference: Reference
    tables: OutcomeTables

    @property
    def segments(self) -> list[str]:
        """`all` first."""
        return self.tables.segments

    @property
    def rows(self) -> Floats:
        """[G] pairs behind it."""
        return np.asarray(self.tables.rows.max(1, initial=0))


class OutcomesPlan(Plan, frozen=True, eq=False, kw_only=True):
    """Of the outcomes of a model version, under a reference of outcomes."""

    known: Known
    error_unit: float
    """Of a regression: what one stands for in the sums of errors, a small part of the mean error of the reference."""

    @property
    def tables(self) -> OutcomeTables:
        """Of the reference."""
        return self.known.tables

    def column(self, signal: str, measure: str) -> int | None:
        """Index of a member; None where the reference does not have it."""
        found = [place for place, own in enumerate(self.columns) if (own.signal, own.measure) == (signal, measure)]
        return found[0] if found else None


def read(reference: Reference) -> Known:
    """A reference ready to be planned with. Raises `ValueError` on one that contradicts itself."""
    return Known(reference, outcome_reference.read(reference))


@lru_cache(maxsize=1024)
def plan(settings: Settings, known: Known, serving: Serving | None) -> OutcomesPlan:
    """The plan of the outcomes of a model version; remembered, as it is asked for in every window."""
    tables = known.tables
    columns = _columns(tables.members)
    spent = spending(settings, columns, OUTCOME_KINDS, len(tables.segments), "outcomes")
    phi, n_bar = filled_spread(tables.phi, tables.n_bar, serving)
    rates, means = (_means(settings, tables, form, phi, n_bar, spent) for form in ("rate", "mean"))
    tested = RATE if any((own.signal, own.form) == (ERROR, "rate") for own in tables.members) else MEAN
    series = rates if tested == RATE else means
    error = known.reference.outcomes
    return OutcomesPlan(
        settings=settings,
        known=known,
        error_unit=(error.mean_error.get(ALL, 0.0) if error is not None else 0.0) * 2.0**-20 or 2.0**-20,
        segments=tables.segments,
        serving_known=serving is not None or bool(np.isfinite(tables.phi[0]).any()),
        ordered=_delays(settings, tables, phi, n_bar, spent),
        unordered=_nothing(settings),
        rates=rates,
        means=means,
        tested=tested,
        hinkley=page_hinkley.Law(series.law.mean, series.sd, series.n_bar / series.phi),
        columns=columns,
        members=spent.members,
        ln_group=spent.ln_group,
        shares=spent.shares,
        ln_threshold=spent.ln_threshold,
        tests=dict.fromkeys(tests_enabled(settings), ("rate" if tested == RATE else "mean",)),
    )


def window(plan: OutcomesPlan, start_ms: int, outcomes: Outcomes, predictions: int, no_bet: Codes) -> Window:
    """A window of outcomes; `predictions` of the same window, `no_bet` [G, C] as in `Window`."""
    tables = plan.tables
    own = outcome_tables.measure(tables, outcomes)
    nothing = np.zeros((0, UNORDERED_BINS), np.int64)
    delays = own.delays if tables.of("distribution") else nothing
    rates, means = own.rates.reshape(-1, 2), own.means.reshape(-1, 3)
    return Window(
        start_ms=start_ms,
        counts=(delays, nothing, rates, means),
        moments=_moments(plan, outcomes, own, predictions),
        scores=(_tested(plan, own),),
        no_bet=no_bet,
    )


def kind_of(signal: str) -> GroupKind:
    """The group of a member."""
    kinds: dict[str, GroupKind] = {ERROR: "performance", RESIDUAL: "concept_drift"}
    return kinds.get(signal, "data_quality")


def _columns(members: list[Member]) -> list[Column]:
    places = dict.fromkeys(FAMILIES.values(), 0)
    found = []
    for member in members:
        family = FAMILIES[member.form]
        found.append(Column(member.signal, member.measure, family, places[family], kind_of(member.signal)))
        places[family] += 1
    return found


def _delays(settings: Settings, tables: OutcomeTables, phi: Floats, n_bar: Floats, spent: Spending) -> Distributions:
    own = np.array(tables.of("distribution"), np.int64)
    if not len(own):
        return _nothing(settings)
    p = tables.delay_p
    used = p[0] > 0
    z = np.zeros(ORDERED_BINS)
    z[used] = normal(mid_cdf(p[0])[used])
    effective = (tables.rows / phi)[:, own]
    return Distributions(
        columns=own,
        phi=phi[:, own].reshape(-1),
        n_bar=n_bar[:, own].reshape(-1),
        rows=tables.rows[:, own].reshape(-1),
        ln_threshold=spent.ln_threshold[:, own].reshape(-1),
        reason=_reasons(effective),
        enabled=DETECTORS[ORDERED] in settings.enabled,
        law=histogram.law(
            p,
            settings.budget.tolerance + epsilon_ref(p, effective.reshape(-1)),
            z=np.tile(z, (len(tables.segments), 1)),
        ),
        z=np.tile(z, (len(tables.segments), 1)),
        settings=settings.histogram,
        tolerance=settings.budget.tolerance,
    )


def _means(  # noqa: PLR0913 - private, all that a family is made of
    settings: Settings, tables: OutcomeTables, form: Form, phi: Floats, n_bar: Floats, spent: Spending
) -> Means:
    own = np.array(tables.of(form), np.int64)
    if not len(own):
        return no_means(settings.mean)
    means, sd = tables.mean[:, own].reshape(-1), tables.sd[:, own].reshape(-1)
    effective = (tables.rows / phi)[:, own]
    margins = mean.margin(settings.mean, sd, effective.reshape(-1))
    return Means(
        columns=own,
        phi=phi[:, own].reshape(-1),
        n_bar=n_bar[:, own].reshape(-1),
        rows=tables.rows[:, own].reshape(-1),
        ln_threshold=spent.ln_threshold[:, own].reshape(-1),
        reason=_reasons(effective),
        enabled=DETECTORS[FAMILIES[form]] in settings.enabled,
        law=mean.law(means, margins, np.full(len(means), form == "rate")),
        sd=sd,
        margins=margins,
        settings=settings.mean,
        unit=1.0 if form == "rate" else outcome_tables.UNIT,
    )


def _reasons(effective_rows: Floats) -> Codes:
    """[G * N] of [G, N]: a segment with too few rows to compare with is not judged, nor what the reference lacks."""
    small = effective_rows < SMALL_ROWS
    small[0] = False
    reason = np.where(effective_rows > 0, np.where(small, Reason.REFERENCE_SMALL, Reason.NONE), Reason.NO_REFERENCE)
    return reason.astype(np.int8).reshape(-1)


def _nothing(settings: Settings) -> Distributions:
    """A family of distributions without members."""
    none, zero, bins = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, UNORDERED_BINS))
    return Distributions(
        columns=none,
        phi=zero,
        n_bar=zero,
        rows=zero,
        ln_threshold=zero,
        reason=np.zeros(0, np.int8),
        enabled=False,
        law=histogram.law(bins, zero, z=None),
        z=None,
        settings=settings.histogram,
        tolerance=settings.budget.tolerance,
    )


def _tested(plan: OutcomesPlan, own: Measured) -> Scores:
    """What detectors without an e-value look at: [G, N] of the family that the plan names."""
    counts = own.rates if plan.tested == RATE else own.means
    family = plan.families[plan.tested]
    n, s, squares = family.sums(counts) if isinstance(family, Means) else np.zeros((3, 0, 0))
    return Scores(n, s, np.maximum(squares - np.divide(s * s, n, out=np.zeros_like(s), where=n > 0), 0.0))


def _moments(plan: OutcomesPlan, outcomes: Outcomes, own: Measured, predictions: int) -> Ints:
    """[G, k] sums of a window that readers want since a change point, in the columns named above."""
    aligned = outcome_tables.aligned(outcomes, plan.segments)
    sums = np.zeros((len(plan.segments), 2), np.int64)
    for row, limbs in enumerate(aligned.sums if aligned.errors.any() else ()):
        rises, falls, squares = (float(exact.total(limbs[place])) for place in range(3))
        scaled = np.array([(rises + falls) / plan.error_unit, squares / plan.error_unit**2 * 2.0**-20])
        sums[row] = np.rint(np.minimum(scaled, _SUMS_MAX)).astype(np.int64)
    first = np.stack([np.full(len(sums), predictions), aligned.ended, aligned.labelled], axis=1)
    return np.concatenate([first, sums, own.ranges.reshape(len(sums), -1), own.actual], axis=1)
