"""What the budget buys: who has which share, what the thresholds are, and the smallest change that is found in time.

Nothing is judged here. A change is found in time when its median delay, 1.25 ln A_s phi/(n D) + 2 windows by the
promise of `statistics.md` 5.5, fits: n events per window, overdispersion phi, and D what an event of the new law adds
to the evidence. Solved for the size of the change, in either direction the larger one. Measured against the detector,
60 windows told and A = 10^7.3: medians of 49 to 81 windows at 30 to 3,000 events, the largest where the change is
little more than the tolerance.

ordered signals   a shift of the mean of a normal variable behind the bins, in its standard deviations
others            the share of the events that the most frequent category gains or loses, or by which a rate rises
"""

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import Bools, Floats, Reason, histogram, mean, page_hinkley
from stream.profiles import reference
from stream.stages.detect import silence
from stream.stages.detect.plan import DETECTORS, MEAN, ORDERED, RATE, GroupKind, Plan
from stream.stages.detect.series import Distributions

Traffic: TypeAlias = Mapping[tuple[str, str], tuple[float, float]]
"""By segment and signal: valid events and rows in a window, on average."""
Unit: TypeAlias = Literal["sd", "share"]

SHIFT_MAX: Final = 8.0
"""Standard deviations: what is not found at this shift is not found at all."""
_FACTOR: Final = 1.25
_LEAST: Final = 2.0
"""The promise: median windows <= 1.25 ln A/(n D) + 2."""
_STEPS: Final = 30
"""Halvings: to a billionth of the range."""
_TWO: Final = 2
_NORMAL: Final = NormalDist()


class Share(Struct, frozen=True):
    """What one group may spend."""

    segment: str
    kind: GroupKind
    share: float
    """Of the budget of the fleet."""
    windows: float
    """A_g: one false alarm in so many windows at most."""
    members: int


class Power(Struct, frozen=True):
    """One signal and one detector."""

    segment: str
    signal: str
    measure: str
    kind: GroupKind
    detector: str
    threshold: float
    """log10 of the e-value; of `adwin` delta, of `page_hinkley` lambda."""
    events: float | None
    """Per window; None where nothing is known of the traffic."""
    overdispersion: float | None
    """At so many events; None where it is not known yet."""
    smallest: float | None = None
    """The smallest change found in time; None where none is, and for detectors without a promise."""
    unit: Unit | None = None


def shares(plan: Plan) -> list[Share]:
    """Where the part of one model version goes, by segment and kind; kinds without members are left out."""
    return [
        Share(name, kind, float(plan.shares[kind][segment]), _windows(plan, kind, segment), len(plan.members[kind]))
        for segment, name in enumerate(plan.segments)
        for kind, members in plan.members.items()
        if len(members)
    ]


def powers(plan: Plan, traffic: Traffic, within_ms: int) -> list[Power]:
    """Thresholds of all signals and detectors, and what they find within a time at the present traffic.

    Where the traffic is not known that of the reference is taken, if it tells. At least three windows are granted: a
    detector that needs two of them to confirm cannot do with less.
    """
    windows = max(within_ms / plan.settings.windows.size, _LEAST + 1)
    events, phi = _present(plan, traffic)
    found: list[Power] = []
    smallest, shifts = _smallest(plan, events, phi, windows), _shifts(plan.ordered.law)
    for segment, name in enumerate(plan.segments):
        for place, column in enumerate(plan.columns):
            known = float(events[segment, place])
            own = Power(
                segment=name,
                signal=column.signal,
                measure=column.measure,
                kind=column.kind,
                detector=DETECTORS[column.family],
                threshold=float(plan.ln_threshold[segment, place] / np.log(10)),
                events=None if np.isnan(known) else known,
                overdispersion=float(phi[segment, place]) if plan.serving_known else None,
            )
            size = float(smallest[segment, place])
            if place in plan.members[column.kind]:
                unit: Unit = "sd" if column.family == ORDERED and shifts[column.place] else "share"
                found.append(replace(own, smallest=size if np.isfinite(size) else None, unit=unit))
            if column.family == plan.tested:
                found += [
                    replace(own, measure=measure, detector=detector, threshold=limit)
                    for detector, measure, limit in _tests(plan, segment, place)
                ]
    return found


def of_volume(plan: Plan, traffic: Traffic, signal: str = silence.SIGNAL) -> tuple[Share, Power]:
    """Of the number of predictions, or labels: how soon its end is told depends on what is expected."""
    seen = traffic.get((silence.ALL, signal))
    spent, ln_a = silence.share(plan.settings, plan.segments), silence.ln_threshold(plan.settings, plan.segments)
    one = Power(
        segment=silence.ALL,
        signal=signal,
        measure=silence.MEASURE,
        kind=silence.KIND,
        detector=silence.DETECTOR,
        threshold=float(ln_a / np.log(10)),
        events=None if seen is None else seen[0],
        overdispersion=None,
    )
    return Share(silence.ALL, silence.KIND, spent, float(np.exp(ln_a)), members=1), one


def _windows(plan: Plan, kind: GroupKind, segment: int) -> float:
    return float(np.exp(plan.ln_group[kind][segment]))


def _shifts(law: histogram.Law) -> Bools:
    """[R] whether a distribution of ordered bins has a mean that can shift: two bins have a share alone."""
    return np.asarray(np.count_nonzero(law.p, axis=1) > _TWO)


def _tests(plan: Plan, segment: int, place: int) -> list[tuple[str, str, float]]:
    """Detector, measure and threshold of those without an e-value, by the shares of `detections`."""
    settings, column = plan.settings, plan.columns[place]
    series = segment * len(plan.families[plan.tested].columns) + column.place
    ln_a = plan.ln_threshold[segment, place] + np.log(max(plan.tests_per_signal, 1))
    limits = {
        "adwin": settings.adwin.delta if settings.adwin.form == "textbook" else float(np.exp(-ln_a) / 2),
        "page_hinkley": settings.page_hinkley.threshold
        if settings.page_hinkley.form == "textbook"
        else float(page_hinkley.limit(settings.page_hinkley, ln_a, plan.hinkley.nu[series])),
    }
    return [(name, measure, limits[name]) for name, own in plan.tests.items() if name in limits for measure in own]


def _present(plan: Plan, traffic: Traffic) -> tuple[Floats, Floats]:
    """[G, C] events per window at present, NaN where unknown, and the overdispersion they have."""
    shape = plan.ln_threshold.shape
    usual, phi, n_bar = np.full(shape, np.nan), np.ones(shape), np.ones(shape)
    for series in plan.families:
        own = (shape[0], len(series.columns))
        phi[:, series.columns], n_bar[:, series.columns] = series.phi.reshape(own), series.n_bar.reshape(own)
    if plan.serving_known:
        usual = n_bar.copy()
    for segment, name in enumerate(plan.segments):
        for place, column in enumerate(plan.columns):
            if (seen := traffic.get((name, column.signal))) is not None:
                usual[segment, place] = seen[column.family in (RATE, MEAN)]
    return usual, reference.overdispersion(phi, np.nan_to_num(usual), n_bar)


def _smallest(plan: Plan, events: Floats, phi: Floats, windows: float) -> Floats:
    """[G, C] the smallest change found within so many windows; inf where none is."""
    ln_a = plan.ln_threshold
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = _FACTOR * ln_a * phi / (events * (windows - _LEAST))
    needed = np.where(np.isnan(needed), np.inf, needed)
    found = np.full(ln_a.shape, np.inf)
    for place, series in enumerate(plan.families):
        own = needed[:, series.columns].reshape(-1)
        if isinstance(series, Distributions):
            sizes = _of_laws(series.law, own, ordered=place == ORDERED)
        else:
            sizes = _of_means(series.law, own)
        silent = series.reason != Reason.NONE
        found[:, series.columns] = np.where(silent, np.inf, sizes).reshape(len(found), -1)
    return found


def _of_laws(law: histogram.Law, needed: Floats, *, ordered: bool) -> Floats:
    """[R] the smallest change of each distribution whose events add `needed` [R] each."""
    p = law.p
    shifts = ordered & _shifts(law)
    top = p.max(1)

    def grown(sizes: Floats) -> Floats:
        q = np.where(shifts[:, None], shifted(p, sizes), gained(p, sizes))
        return histogram.growth(q, p, law.epsilon)

    up = _solved(grown, needed, np.where(shifts, SHIFT_MAX, 1 - top))
    down = _solved(lambda sizes: grown(-sizes), needed, np.where(shifts, SHIFT_MAX, top))
    # A side that ends before it is found, such as a share of 2 % that falls, is not held against the other.
    return np.where(np.isinf(up), down, np.where(np.isinf(down), up, np.maximum(up, down)))


def _of_means(law: mean.Law, needed: Floats) -> Floats:
    """[R] the smallest rise of each mean or rate."""
    return _solved(lambda sizes: mean.growth(law, law.mean + sizes), needed, 1 - law.mean)


def _solved(growth: Callable[[Floats], Floats], needed: Floats, limits: Floats) -> Floats:
    """[R] the smallest size up to its limit at which the growth reaches what is needed; inf where it does not."""
    low, high = np.zeros_like(limits), limits * (1 - 1e-9)
    reached = growth(high) >= needed
    for _ in range(_STEPS):
        middle = (low + high) / 2
        enough = growth(middle) >= needed
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, high, np.inf)


def shifted(p: Floats, sizes: Floats) -> Floats:
    """[R, B] shares of the bins after a normal variable behind them has shifted by so many standard deviations."""
    edges = np.clip(p.cumsum(1)[:, :-1], 1e-12, 1 - 1e-12)
    moved = np.array([_NORMAL.inv_cdf(edge) for edge in edges.flat]).reshape(edges.shape) - sizes[:, None]
    below = np.array([_NORMAL.cdf(edge) for edge in moved.flat]).reshape(edges.shape)
    ends = np.ones((len(p), 1))
    q = np.diff(np.concatenate([0 * ends, below, ends], axis=1), axis=1)
    return _positive(q, p)


def gained(p: Floats, sizes: Floats) -> Floats:
    """[R, B] shares after the most frequent bin has gained so much from all others, in proportion."""
    rows, top = np.arange(len(p)), p.argmax(1)
    most = p[rows, top]
    q = p * np.divide(1 - most - sizes, 1 - most, out=np.ones_like(most), where=most < 1)[:, None]
    q[rows, top] = most + sizes
    return _positive(q, p)


def _positive(q: Floats, p: Floats) -> Floats:
    """Nothing is impossible where p is possible: the logarithm of 0 would be neither more nor less than enough."""
    return np.asarray(np.where(p > 0, np.maximum(q, 1e-12), 0.0))
