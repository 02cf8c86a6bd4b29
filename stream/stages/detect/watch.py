"""One closed window of one model version through all its detectors: profile in, levels and episodes out.

The e-detectors decide by groups (segment and kind): a quiet group alarms when its evidence reaches its threshold; that
opens an episode, in which the *open* detectors test against the new law until the old one is back (`statistics.md` 8.2,
10.3). ADWIN and Page-Hinkley are asked alongside; what they find is told, never decided on.
"""

from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import (
    Bools,
    Codes,
    Floats,
    Ints,
    Level,
    Reason,
    Sums,
    Verdicts,
    adwin,
    budget,
    episode,
    histogram,
    locate,
    page_hinkley,
)
from stream.profiles import describe, overdispersion, reference
from stream.profiles.summaries import Dense
from stream.stages.detect.plan import KINDS, TESTS_PER_SIGNAL, Group, Plan, Series, Serving
from stream.stages.detect.settings import Settings
from stream.stages.detect.state import Calibration, Episode, Laws, Pair, Watch

ORDERED: Final = 0
UNORDERED: Final = 1
"""Places of the two families in every pair."""

LISTING_WINDOWS: Final = 10
"""Windows after an alarm in which the evidence against the old law runs on, to complete the list (8.4)."""
CALIBRATION_WINDOWS: Final = 100
"""Live windows with events from which a reference built without serving times learns its overdispersion (2.8)."""


class Judged(Struct, frozen=True, eq=False):
    """What one window said, per segment and signal: [G, S], NaN and a reason where there is no verdict."""

    level: Codes
    statistic: Floats
    threshold: Floats
    reason: Codes
    adwin: Verdicts
    """[2 * G * O]: u of all series, then their spread."""
    page_hinkley: Verdicts
    """[G * O]"""
    alarms: frozenset[Group]
    """Groups that alarmed in this window."""
    returns: dict[Group, Episode]
    """Groups whose signals are back, with the episode that ended."""


class Window(Struct, frozen=True, eq=False):
    """A closed window as detectors see it."""

    start_ms: int
    end_ms: int
    counts: tuple[Ints, Ints]
    """Coarse counts of the ordered [G * O, 16] and the unordered [G * U, 32] series."""
    phi: tuple[Floats, Floats]
    """Overdispersion of each series at this number of events."""


def start(settings: Settings, plan: Plan, first_ms: int, began: dict[tuple[str, int], int]) -> Watch:
    """All detectors at rest, under a reference in force from the window `first_ms` on."""
    laws = Laws(plan.ordered.law, plan.unordered.law)
    series = len(plan.ordered.phi)
    return Watch(
        first_ms=first_ms,
        quiet=_at_rest(laws),
        adwin=adwin.start(2 * series, settings.adwin),
        page_hinkley=page_hinkley.start(series),
        ordered=locate.start(),
        unordered=locate.start(),
        moments=locate.start(),
        began=began,
        calibration=None if plan.serving_known else _calibration(plan),
    )


def update(settings: Settings, plan: Plan, watch: Watch, start_ms: int, profile: Dense) -> tuple[Watch, Judged]:
    """One window further. Cost: O(series), whatever the traffic; about 10 us per series."""
    counts = reference.coarse(plan.tables, profile.counts)
    flat = (counts[0].reshape(-1, counts[0].shape[2]), counts[1].reshape(-1, counts[1].shape[2]))
    window = Window(
        start_ms=start_ms,
        end_ms=start_ms + settings.windows.size,
        counts=flat,
        phi=tuple(  # type: ignore[arg-type] # two families
            reference.overdispersion(series.phi, own.sum(1), series.n_bar)
            for series, own in zip(plan.families, flat, strict=True)
        ),
    )
    watch = _remember(watch, window, plan, profile)
    watch, levels = _evidence(settings, plan, watch, window)
    watch, adwins, hinkleys = _tests(settings, plan, watch, window, profile)
    watch, alarms, returns, levels = _groups(settings, plan, watch, window, levels)
    level, statistic, threshold, reason = levels
    judged = Judged(
        level=np.minimum(level, Level.WARNING).astype(np.int8) if not plan.serving_known else level,
        statistic=statistic,
        threshold=threshold,
        reason=reason,
        adwin=adwins,
        page_hinkley=hinkleys,
        alarms=alarms,
        returns=returns,
    )
    return _calibrated(plan, watch, start_ms // settings.windows.size, profile), judged


def listing(plan: Plan, watch: Watch, group: Group) -> tuple[list[int], bool]:
    """Signals of a quiet group that moved, by falling evidence, and whether the evidence shows it."""
    segment, kind = group
    members = plan.members[kind]
    ln_m = _ln_evidence(plan, watch.quiet)[segment, members]
    found, proven = budget.listed(ln_m, plan.ln_threshold[segment, members])
    return members[found].tolist(), bool(proven.all())


def since(plan: Plan, watch: Watch, group: Group, signal: int, from_ms: int) -> Ints:
    """[B] coarse counts of one series from a window on."""
    place = _place(plan, group, signal)
    return locate.since(_histories(watch)[place.family], place.index, from_ms)


def _at_rest(laws: Laws) -> Pair:
    return Pair(
        *(histogram.start(law.p.shape[0], law.p.shape[1], len(law.weights)) for law in (laws.ordered, laws.unordered))
    )


def _remember(watch: Watch, window: Window, plan: Plan, profile: Dense) -> Watch:
    ordered, unordered = (counts.astype(np.int32) for counts in window.counts)
    return replace(
        watch,
        ordered=locate.remember(watch.ordered, window.start_ms, ordered),
        unordered=locate.remember(watch.unordered, window.start_ms, unordered),
        moments=locate.remember(watch.moments, window.start_ms, moments(plan, profile)),
    )


def moments(plan: Plan, profile: Dense) -> Ints:
    """[G * numeric signals, 5] the fixed-point moments of a window, and the valid events behind them."""
    n = describe.valid_events(plan.tables.scale, profile.counts)
    width = profile.moments.shape[2] + 1
    return np.concatenate([profile.moments, n[:, :, None]], axis=2).reshape(-1, width)


Levels: TypeAlias = tuple[Codes, Floats, Floats, Codes]


def _evidence(settings: Settings, plan: Plan, watch: Watch, window: Window) -> tuple[Watch, Levels]:
    """The quiet detectors: all series but those of a group whose episode is older than the listing needs."""
    asleep = _mask(plan, [group for group, one in watch.episodes.items() if one.windows >= LISTING_WINDOWS])
    states, parts = [], []
    for index, series in enumerate(plan.families):
        reason = np.where(series.spread(asleep), Reason.MUTED, series.reason).astype(np.int8)
        seen = histogram.Window(window.counts[index], series.law, window.phi[index], series.ln_threshold, reason)
        state, verdicts = histogram.update(_pair(watch.quiet)[index], settings.histogram, seen)
        states.append(state)
        parts.append(verdicts)
    return replace(watch, quiet=Pair(*states)), _matrices(plan, parts[0], parts[1])


def _tests(
    settings: Settings, plan: Plan, watch: Watch, window: Window, profile: Dense
) -> tuple[Watch, Verdicts, Verdicts]:
    """ADWIN on u and its spread, Page-Hinkley on u; they rest while the episode of their group is open."""
    series = plan.ordered
    u, v = reference.scores(plan.tables, profile.counts)
    testing = ~series.spread(_mask(plan, watch.episodes))
    ln_threshold = series.ln_threshold + np.log(TESTS_PER_SIGNAL)
    both = [
        Sums(
            start_ms=window.start_ms,
            n=score.n.reshape(-1),
            s=score.s.reshape(-1),
            m2=score.m2.reshape(-1),
            phi=window.phi[0],
            ln_threshold=ln_threshold,
            reason=series.reason,
            testing=testing,
        )
        for score in (u, v)
    ]
    adwin_state, adwins = adwin.update(watch.adwin, settings.adwin, adwin.Window(_joined(*both)))
    hinkley_state, hinkleys = page_hinkley.update(
        watch.page_hinkley, settings.page_hinkley, page_hinkley.Window(both[0], plan.means)
    )
    return replace(watch, adwin=adwin_state, page_hinkley=hinkley_state), adwins, hinkleys


def _groups(
    settings: Settings, plan: Plan, watch: Watch, window: Window, levels: Levels
) -> tuple[Watch, frozenset[Group], dict[Group, Episode], Levels]:
    """Alarms of quiet groups open episodes; open groups are judged by their own detectors."""
    alarms: set[Group] = set()
    returns: dict[Group, Episode] = {}
    was_open = dict(watch.episodes)
    ln_m = _ln_evidence(plan, watch.quiet)
    for kind in KINDS:
        members = plan.members[kind]
        if not len(members) or not plan.serving_known:
            continue
        weights = budget.ln_weights(len(members))
        for segment in range(len(ln_m)):
            if (segment, kind) in was_open:
                continue
            if budget.ln_group(ln_m[segment, members], weights) >= plan.ln_group[kind][segment]:
                alarms.add((segment, kind))
                watch = _opened(settings, plan, watch, window, (segment, kind))
    for group, before in was_open.items():
        now, verdicts, alarm = _open_step(settings, plan, before, window, group)
        _overlay(plan, levels, group, now, verdicts)
        back_ms = _back_since(plan, watch, window, group, now) if alarm else None
        if back_ms is not None:
            returns[group] = now
            watch = _closed(plan, watch, group, now, back_ms)
            continue
        if alarm:
            alarms.add(group)
        watch = _gone_on(settings, plan, watch, window, group, now, alarm=alarm)
    return watch, frozenset(alarms), returns, levels


def _gone_on(  # noqa: PLR0913 - private, an episode and its window
    settings: Settings, plan: Plan, watch: Watch, window: Window, group: Group, one: Episode, *, alarm: bool
) -> Watch:
    """An episode that stays open: around yet another law, or with more signals listed."""
    if alarm:
        one = _moved_on(settings, plan, watch, window, group, one)
    elif one.windows <= LISTING_WINDOWS:
        one = _listed_more(settings, plan, watch, window, group, one)
        if one.windows == LISTING_WINDOWS:
            watch = _reset_quiet(plan, watch, group)
    return replace(watch, episodes={**watch.episodes, group: _shaped(plan, watch, group, one)})


def _opened(settings: Settings, plan: Plan, watch: Watch, window: Window, group: Group) -> Watch:
    moved, proven = listing(plan, watch, group)
    points = {signal: _point(plan, watch, window, group, signal) for signal in moved}
    one = _anew(settings, plan, watch, window, group, moved, points)
    one = _shaped(plan, watch, group, replace(one, proven=proven))
    return replace(watch, episodes={**watch.episodes, group: one})


def _anew(  # noqa: PLR0913 - private, an episode and its window
    settings: Settings,
    plan: Plan,
    watch: Watch,
    window: Window,
    group: Group,
    moved: list[int],
    points: dict[int, locate.ChangePoint],
) -> Episode:
    """An episode whose new laws are estimated from the windows since each signal's change point."""
    segment, kind = group
    laws = []
    for series in plan.families:
        places = series.of(segment, plan.members[kind])
        p, epsilon = series.law.p[places].copy(), series.law.epsilon[places].copy()
        home = p.copy()
        signals = series.signals[places - segment * len(series.signals)]
        for row, signal in enumerate(signals.tolist()):
            if signal not in points:
                continue
            counts = since(plan, watch, group, signal, points[signal].at_ms)[None]
            q = episode.new_law(counts, home[row : row + 1])
            rows = counts.sum(1) / series.phi[places[row]]
            p[row], epsilon[row] = q[0], episode.radius(q, home[row : row + 1], rows, settings.budget.tolerance)[0]
        z = plan.tables.ordered.z[np.isin(plan.ordered.signals, signals)] if series is plan.ordered else None
        laws.append(histogram.law(p, epsilon, z=z, home=home))
    both = Laws(*laws)
    return Episode(
        windows=0,
        moved=moved,
        proven=True,
        points=points,
        laws=both,
        detectors=_at_rest(both),
        since_ms=min((point.at_ms for point in points.values()), default=window.start_ms),
        shape="sudden",
    )


def _open_step(
    settings: Settings, plan: Plan, one: Episode, window: Window, group: Group
) -> tuple[Episode, tuple[Verdicts, Verdicts], bool]:
    """The open detectors of a group, one window further, and whether they alarm."""
    segment, kind = group
    states, verdicts, evidence = [], [], []
    for index, series in enumerate(plan.families):
        places = series.of(segment, plan.members[kind])
        seen = histogram.Window(
            window.counts[index][places],
            _laws(one.laws)[index],
            window.phi[index][places],
            series.ln_threshold[places],
            series.reason[places],
        )
        state, own = histogram.update(_pair(one.detectors)[index], settings.histogram, seen)
        states.append(state)
        verdicts.append(own)
        evidence.append(histogram.ln_evidence(state))
    ln_m = np.concatenate(evidence)
    alarm = budget.ln_group(ln_m, budget.ln_weights(len(ln_m))) >= plan.ln_group[kind][segment]
    one = replace(one, windows=one.windows + 1, detectors=Pair(*states))
    return one, (verdicts[0], verdicts[1]), bool(alarm)


def _back_since(plan: Plan, watch: Watch, window: Window, group: Group, one: Episode) -> int | None:
    """Since when all listed signals follow the law of the reference again; None when one does not."""
    since_ms = window.start_ms
    for signal in one.moved:
        place = _place(plan, group, signal)
        point = _point_from(plan, watch, window, group, signal, one)
        counts = since(plan, watch, group, signal, point.at_ms)[None]
        law, phi, at = place.series.law, place.series.phi, slice(place.index, place.index + 1)
        if not episode.returned(counts, law.p[at], law.epsilon[at], phi[at])[0]:
            return None
        since_ms = min(since_ms, point.at_ms)
    return since_ms


def _moved_on(  # noqa: PLR0913 - private, an episode and its window
    settings: Settings, plan: Plan, watch: Watch, window: Window, group: Group, one: Episode
) -> Episode:
    """The law moved again, and not home: the episode goes on around yet another one."""
    points = {signal: _point_from(plan, watch, window, group, signal, one) for signal in one.moved}
    again = _anew(settings, plan, watch, window, group, one.moved, points)
    return replace(
        again, windows=one.windows, points=one.points, shape=one.shape, proven=one.proven, shifts=one.shifts + 1
    )


def _listed_more(  # noqa: PLR0913 - private, an episode and its window
    settings: Settings, plan: Plan, watch: Watch, window: Window, group: Group, one: Episode
) -> Episode:
    """Signals whose evidence came after the alarm; their laws are estimated like those of the others."""
    found, proven = listing(plan, watch, group)
    if not proven or (one.proven and not set(found) - set(one.moved)):
        return one
    moved = found if not one.proven else [*one.moved, *(signal for signal in found if signal not in one.moved)]
    points = {signal: one.points.get(signal) or _point(plan, watch, window, group, signal) for signal in moved}
    again = _anew(settings, plan, watch, window, group, moved, points)
    return replace(again, windows=one.windows, shape=one.shape, shifts=one.shifts)


def _closed(plan: Plan, watch: Watch, group: Group, one: Episode, back_ms: int) -> Watch:
    """After a return the group is quiet again, from nothing; the laws that went are remembered."""
    watch = _reset_quiet(plan, watch, group)
    earlier = dict(watch.earlier)
    for signal in one.moved:
        law = _law_in(plan, group, signal, one)
        before = earlier.get((group[0], signal), np.empty((0, len(law))))
        earlier[group[0], signal] = np.concatenate([before, law[None]])[-locate.RECURRING_MAX :]
    tests = plan.ordered.spread(_mask(plan, [group]))
    return replace(
        watch,
        adwin=adwin.reset(watch.adwin, np.tile(tests, 2)),
        page_hinkley=page_hinkley.reset(watch.page_hinkley, tests),
        episodes={key: value for key, value in watch.episodes.items() if key != group},
        earlier=earlier,
        anew={**watch.anew, group: back_ms},
    )


def _shaped(plan: Plan, watch: Watch, group: Group, one: Episode) -> Episode:
    """The type of the change by the score that moved most, revised window by window."""
    if not one.moved:
        return one
    signal = one.moved[0]
    place = _place(plan, group, signal)
    at_ms = one.points[signal].at_ms
    counts = since(plan, watch, group, signal, at_ms)
    p, law = place.series.law.p[place.index], _law_in(plan, group, signal, one)
    score, sd = _most_moved(_scores(place, p, counts), p, counts)
    if sd <= 0:
        return one
    phi, epsilon = float(place.series.phi[place.index]), float(place.series.law.epsilon[place.index])
    way = locate.path(_histories(watch)[place.family], place.index, score, p, sd=sd, phi=phi, at_ms=at_ms)
    rows = np.array([counts.sum() / phi])
    earlier = watch.earlier.get((group[0], signal), np.empty((0, len(law))))
    recurs = locate.recurs_among(law, earlier, epsilon + float(reference.epsilon_ref(law[None], rows)[0]))
    return replace(one, shape=locate.change_type(way, before=one.shape, recurs=recurs))


def _scores(place: "Place", p: Floats, counts: Ints) -> Floats:
    """[J, B] scores of bins whose mean can show the shape of a change: u and v, or which categories became more."""
    if place.family == ORDERED:
        u = reference.mid_cdf(p)
        return np.stack([u, np.abs(2 * u - 1)])
    return np.asarray(counts > p * counts.sum(), dtype=np.float64)[None]


def _most_moved(scores: Floats, p: Floats, counts: Ints) -> tuple[Floats, float]:
    """The score whose mean moved by most of its standard deviations under p, and that deviation."""
    means = (scores * p).sum(-1)
    sds = np.sqrt(np.maximum((scores**2 * p).sum(-1) - means**2, 0.0))
    shifts = np.abs((scores * counts).sum(-1) / max(int(counts.sum()), 1) - means)
    best = int(np.argmax(np.divide(shifts, sds, out=np.zeros_like(shifts), where=sds > 0)))
    return np.asarray(scores[best], dtype=np.float64), float(sds[best])


def _point(plan: Plan, watch: Watch, window: Window, group: Group, signal: int) -> locate.ChangePoint:
    """Since when a series has left the law of the reference."""
    place = _place(plan, group, signal)
    rows = float(place.series.rows[place.index] / place.series.phi[place.index])
    from_ms = watch.anew.get(group, watch.first_ms)
    return _located(watch, window, place, place.series.law.p[place.index], rows=rows, from_ms=from_ms)


def _point_from(  # noqa: PLR0913 - private, an episode and its window
    plan: Plan, watch: Watch, window: Window, group: Group, signal: int, one: Episode
) -> locate.ChangePoint:
    """Since when a listed series has left the law of its episode."""
    law = _law_in(plan, group, signal, one)
    return _located(watch, window, _place(plan, group, signal), law, rows=0.0, from_ms=one.points[signal].at_ms)


def _located(  # noqa: PLR0913 - private, an episode and its window
    watch: Watch, window: Window, place: "Place", p: Floats, *, rows: float, from_ms: int
) -> locate.ChangePoint:
    history, phi = _histories(watch)[place.family], float(place.series.phi[place.index])
    point = locate.change_point(history, place.index, p, rows=rows, phi=phi, from_ms=from_ms, end_ms=window.end_ms)
    return point or locate.ChangePoint(window.start_ms, window.start_ms, window.end_ms)


def _reset_quiet(plan: Plan, watch: Watch, group: Group) -> Watch:
    """The evidence of a group begins from nothing."""
    mask = _mask(plan, [group])
    states = [
        histogram.reset(state, series.spread(mask))
        for state, series in zip(_pair(watch.quiet), plan.families, strict=True)
    ]
    return replace(watch, quiet=Pair(*states))


def _overlay(plan: Plan, levels: Levels, group: Group, one: Episode, verdicts: tuple[Verdicts, Verdicts]) -> None:
    """Readings of an open group show its open detectors; a listed signal reads drift."""
    segment, kind = group
    level, statistic, threshold, reason = levels
    for series, own in zip(plan.families, verdicts, strict=True):
        signals = series.signals[np.isin(series.signals, plan.members[kind])]
        level[segment, signals] = own.level
        statistic[segment, signals] = own.statistic
        threshold[segment, signals] = own.threshold
        reason[segment, signals] = own.reason
    listed = [signal for signal in one.moved if reason[segment, signal] in (Reason.NONE, Reason.EMPTY)]
    level[segment, listed] = np.where(reason[segment, listed] == Reason.NONE, Level.DRIFT, level[segment, listed])


def _calibration(plan: Plan) -> Calibration:
    segments, columns = len(plan.tables.segments), plan.tables.layout.columns
    counts = np.zeros((segments, columns), np.int64)
    return Calibration(overdispersion.start(plan.tables), counts, np.zeros(segments, np.int64))


def _calibrated(plan: Plan, watch: Watch, index: int, profile: Dense) -> Watch:
    """Under a reference that does not know how serving spreads: learn it from the first windows with events."""
    learning = watch.calibration
    if learning is None or not profile.rows[0] or plan.serving_known:
        return watch
    windows = learning.windows + (profile.rows > 0)
    counts = learning.counts + profile.counts
    sums = overdispersion.add(learning.sums, plan.tables, index, profile)
    if windows[0] < CALIBRATION_WINDOWS:
        return replace(watch, calibration=Calibration(sums, counts, windows))
    phi = overdispersion.phi(sums, plan.tables, counts).signals
    layout = plan.tables.layout
    events = np.stack([counts[:, reference.valid(layout, s)].sum(1) for s in range(len(layout.names))], axis=1)
    serving = Serving(np.where(np.isnan(phi), 1.0, phi), np.maximum(1.0, events / np.maximum(windows, 1)[:, None]))
    # Evidence that was gathered as if events were independent does not count.
    quiet = _at_rest(Laws(plan.ordered.law, plan.unordered.law))
    return replace(watch, calibration=None, serving=serving, quiet=quiet)


def _ln_evidence(plan: Plan, pair: Pair) -> Floats:
    """[G, S] ln M of the quiet detectors."""
    found = np.full(plan.ln_threshold.shape, -np.inf)
    for series, state in zip(plan.families, _pair(pair), strict=True):
        found[:, series.signals] = histogram.ln_evidence(state).reshape(len(found), -1)
    return found


def _matrices(plan: Plan, ordered: Verdicts, unordered: Verdicts) -> Levels:
    shape = plan.ln_threshold.shape
    level, reason = np.zeros(shape, np.int8), np.zeros(shape, np.int8)
    statistic, threshold = np.full(shape, np.nan), np.full(shape, np.nan)
    for series, verdicts in zip(plan.families, (ordered, unordered), strict=True):
        level[:, series.signals] = verdicts.level.reshape(shape[0], -1)
        statistic[:, series.signals] = verdicts.statistic.reshape(shape[0], -1)
        threshold[:, series.signals] = verdicts.threshold.reshape(shape[0], -1)
        reason[:, series.signals] = verdicts.reason.reshape(shape[0], -1)
    return level, statistic, threshold, reason


def _mask(plan: Plan, groups: Any) -> Bools:
    """[G, S] True for the signals of some groups."""
    mask = np.zeros(plan.ln_threshold.shape, np.bool_)
    for segment, kind in groups:
        mask[segment, plan.members[kind]] = True
    return mask


def _joined(first: Sums, second: Sums) -> Sums:
    """Two sets of series of one window, one behind the other."""
    names = [name for name in first.__struct_fields__ if name != "start_ms"]
    return Sums(first.start_ms, *(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


class Place(Struct, frozen=True, eq=False):
    """Where one signal of one group stands."""

    family: int
    series: Series
    index: int
    """Among the series of its family."""
    member: int
    """Among the members of its group in that family."""


def _place(plan: Plan, group: Group, signal: int) -> Place:
    segment, kind = group
    family = ORDERED if signal in plan.ordered.signals else UNORDERED
    series = plan.families[family]
    members = series.signals[np.isin(series.signals, plan.members[kind])]
    index = segment * len(series.signals) + int(np.flatnonzero(series.signals == signal)[0])
    return Place(family, series, index, int(np.flatnonzero(members == signal)[0]))


def _law_in(plan: Plan, group: Group, signal: int, one: Episode) -> Floats:
    """[B] the law of a signal in an episode."""
    place = _place(plan, group, signal)
    return np.asarray(_laws(one.laws)[place.family].p[place.member])


def _histories(watch: Watch) -> tuple[locate.History, locate.History]:
    return watch.ordered, watch.unordered


def _pair(pair: Pair) -> tuple[histogram.State, histogram.State]:
    return pair.ordered, pair.unordered


def _laws(laws: Laws) -> tuple[histogram.Law, histogram.Law]:
    return laws.ordered, laws.unordered
