"""One closed window of one model version through all its detectors: profile in, levels and episodes out.

The e-detectors decide by groups (segment and kind): a quiet group alarms when its evidence reaches its threshold; that
opens an episode, in which the *open* detectors test against the new law until the old one is back (`statistics.md` 8.2,
10.3). ADWIN and Page-Hinkley are asked alongside; what they find is told, never decided on.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

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
    ln_sum,
    locate,
    page_hinkley,
)
from stream.profiles import describe, overdispersion, reference
from stream.profiles.summaries import Dense
from stream.stages.detect.plan import KINDS, ORDERED, TESTS_PER_SIGNAL, Group, Plan, Series, Serving
from stream.stages.detect.state import Calibration, Episode, Laws, OpenForm, Pair, Watch

LISTING_WINDOWS: Final = 10
"""Windows after an alarm in which the evidence against the old law runs on, to complete the list (8.4)."""
CALIBRATION_WINDOWS: Final = 100
"""Live windows with events from which a reference built without serving times learns its overdispersion (2.8)."""
SHAPED_WINDOWS: Final = 64
"""Windows of an episode in which its shape is looked at every time; then every `SHAPED_EVERY` of them."""
SHAPED_EVERY: Final = 16

Points: TypeAlias = Mapping[int, locate.ChangePoint]


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
    returns: frozenset[Group]
    """Groups whose signals are back."""


class Scene(Struct, frozen=True, eq=False):
    """A closed window as detectors see it, and what they know."""

    plan: Plan
    start_ms: int
    end_ms: int
    counts: tuple[Ints, Ints]
    """Coarse counts of the ordered [G * O, 16] and the unordered [G * U, 32] series."""
    phi: tuple[Floats, Floats]
    """Overdispersion of each series at this number of events."""


class Place(Struct, frozen=True, eq=False):
    """Where one signal of one segment stands."""

    family: int
    series: Series
    index: int
    """Among the series of its family."""

    @property
    def own(self) -> slice:
        """The series as a part of its arrays."""
        return slice(self.index, self.index + 1)


def start(plan: Plan, first_ms: int, began: dict[tuple[str, int], int]) -> Watch:
    """All detectors at rest, under a reference in force from the window `first_ms` on."""
    series = len(plan.ordered.phi)
    return Watch(
        first_ms=first_ms,
        quiet=_at_rest(Laws(plan.ordered.law, plan.unordered.law)),
        adwin=adwin.start(2 * series, plan.settings.adwin),
        page_hinkley=page_hinkley.start(series),
        ordered=locate.start(),
        unordered=locate.start(),
        moments=locate.start(),
        began=began,
        calibration=_calibration(plan) if plan.tables.reference.complete and not plan.serving_known else None,
    )


def update(plan: Plan, watch: Watch, start_ms: int, profile: Dense) -> tuple[Watch, Judged]:
    """One window further. Cost: O(series), whatever the traffic; about 10 us per series."""
    scene = _scene(plan, start_ms, profile)
    watch = _remember(scene, watch, profile)
    watch, quiet = _evidence(scene, watch)
    watch, adwins, hinkleys = _tests(scene, watch, profile)
    watch, open_form = _open_evidence(scene, watch)
    open_before = watch.episodes
    watch, alarms, returns = _groups(scene, watch)
    level, statistic, threshold, reason = _levels(plan, quiet, open_form, open_before)
    judged = Judged(
        level=level if plan.serving_known else np.minimum(level, Level.WARNING).astype(np.int8),
        statistic=statistic,
        threshold=threshold,
        reason=reason,
        adwin=adwins,
        page_hinkley=hinkleys,
        alarms=alarms,
        returns=returns,
    )
    return _calibrated(plan, watch, start_ms // plan.settings.windows.size, profile), judged


def since(plan: Plan, watch: Watch, segment: int, signal: int, from_ms: int) -> Ints:
    """[B] coarse counts of one series from a window on."""
    place = _place(plan, segment, signal)
    return locate.since(_histories(watch)[place.family], place.index, from_ms)


def moments_since(plan: Plan, watch: Watch, segment: int, signal: int, from_ms: int) -> tuple[Ints, Ints]:
    """Events [1, numeric signals] and moments [1, numeric signals, 4] of one numeric series from a window on."""
    numeric = plan.tables.layout.numeric
    place = numeric.index(signal)
    found = locate.since(watch.moments, segment * len(numeric) + place, from_ms)
    n, moments = np.zeros((1, len(numeric)), np.int64), np.zeros((1, len(numeric), len(found) - 1), np.int64)
    n[0, place], moments[0, place] = found[-1], found[:-1]
    return n, moments


def _scene(plan: Plan, start_ms: int, profile: Dense) -> Scene:
    ordered, unordered = (
        counts.reshape(-1, counts.shape[2]) for counts in reference.coarse(plan.tables, profile.counts)
    )
    phi = [
        reference.overdispersion(series.phi, counts.sum(1), series.n_bar)
        for series, counts in zip(plan.families, (ordered, unordered), strict=True)
    ]
    return Scene(plan, start_ms, start_ms + plan.settings.windows.size, (ordered, unordered), (phi[0], phi[1]))


def _remember(scene: Scene, watch: Watch, profile: Dense) -> Watch:
    ordered, unordered = (counts.astype(np.int32) for counts in scene.counts)
    n = describe.valid_events(scene.plan.tables.scale, profile.counts)
    moments = np.concatenate([profile.moments, n[:, :, None]], axis=2)
    return replace(
        watch,
        ordered=locate.remember(watch.ordered, scene.start_ms, ordered),
        unordered=locate.remember(watch.unordered, scene.start_ms, unordered),
        moments=locate.remember(watch.moments, scene.start_ms, moments.reshape(-1, moments.shape[2])),
    )


def _evidence(scene: Scene, watch: Watch) -> tuple[Watch, tuple[Verdicts, Verdicts]]:
    """The quiet detectors: all series but those of a group whose episode is older than the listing needs."""
    asleep = _mask(scene.plan, [group for group, one in watch.episodes.items() if one.windows >= LISTING_WINDOWS])
    laws = Laws(scene.plan.ordered.law, scene.plan.unordered.law)
    quiet, verdicts = _updated(scene, laws, watch.quiet, ~asleep)
    return replace(watch, quiet=quiet), verdicts


def _open_evidence(scene: Scene, watch: Watch) -> tuple[Watch, tuple[Verdicts, Verdicts] | None]:
    """The open detectors, of the series whose group has an episode; none of them, none."""
    if watch.open_form is None:
        return watch, None
    form = watch.open_form
    detectors, verdicts = _updated(scene, form.laws, form.detectors, _mask(scene.plan, watch.episodes))
    return replace(watch, open_form=OpenForm(form.laws, detectors)), verdicts


def _updated(scene: Scene, laws: Laws, pair: Pair, awake: Bools) -> tuple[Pair, tuple[Verdicts, Verdicts]]:
    """Both families one window further; series that are not awake keep their state."""
    plan, found = scene.plan, []
    for family, series in enumerate(plan.families):
        reason = np.where(series.spread(awake), series.reason, Reason.MUTED).astype(np.int8)
        counts, phi = scene.counts[family], scene.phi[family]
        window = histogram.Window(counts, _both(laws)[family], phi, series.ln_threshold, reason)
        found.append(histogram.update(_pair(pair)[family], plan.settings.histogram, window))
    (ordered, of_ordered), (unordered, of_unordered) = found
    return Pair(ordered, unordered), (of_ordered, of_unordered)


def _tests(scene: Scene, watch: Watch, profile: Dense) -> tuple[Watch, Verdicts, Verdicts]:
    """ADWIN on u and its spread, Page-Hinkley on u; they rest while the episode of their group is open.

    Without an overdispersion their thresholds mean nothing: they wait until it is known.
    """
    plan, series = scene.plan, scene.plan.ordered
    u, v = reference.scores(plan.tables, profile.counts)
    reason = series.reason
    if not plan.serving_known:
        reason = np.where(reason == Reason.NONE, Reason.WARMING_UP, reason).astype(np.int8)
    both = [
        Sums(
            start_ms=scene.start_ms,
            n=score.n.reshape(-1),
            s=score.s.reshape(-1),
            m2=score.m2.reshape(-1),
            phi=scene.phi[ORDERED],
            ln_threshold=series.ln_threshold + np.log(TESTS_PER_SIGNAL),
            reason=reason,
            testing=~series.spread(_mask(plan, watch.episodes)),
        )
        for score in (u, v)
    ]
    names = [name for name in Sums.__struct_fields__ if name != "start_ms"]
    joined = Sums(scene.start_ms, *(np.concatenate([getattr(one, name) for one in both]) for name in names))
    adwin_state, adwins = adwin.update(watch.adwin, plan.settings.adwin, adwin.Window(joined))
    hinkley_window = page_hinkley.Window(both[0], plan.means)
    hinkley_state, hinkleys = page_hinkley.update(watch.page_hinkley, plan.settings.page_hinkley, hinkley_window)
    return replace(watch, adwin=adwin_state, page_hinkley=hinkley_state), adwins, hinkleys


def _groups(scene: Scene, watch: Watch) -> tuple[Watch, frozenset[Group], frozenset[Group]]:
    """Alarms of quiet groups open episodes; open groups are judged by their own detectors."""
    plan, open_before = scene.plan, dict(watch.episodes)
    quiet_ln = _ln_evidence(plan, watch.quiet)
    open_ln = quiet_ln if watch.open_form is None else _ln_evidence(plan, watch.open_form.detectors)
    alarms: set[Group] = set()
    returns: set[Group] = set()
    if plan.serving_known:
        alarms = _alarming(plan, quiet_ln) - open_before.keys()
        for group in sorted(alarms):
            watch = _opened(scene, watch, group, quiet_ln)
    again = _alarming(plan, open_ln) if open_before else set()
    for group, before in sorted(open_before.items()):
        one = replace(before, windows=before.windows + 1)
        back_ms = _back_since(scene, watch, group, one) if group in again else None
        if back_ms is not None:
            returns.add(group)
            watch = _closed(plan, watch, group, one, back_ms)
        elif group in again:
            alarms.add(group)
            watch = _moved_on(scene, watch, group, one, open_ln)
        else:
            watch = _listed_more(scene, watch, group, one, quiet_ln)
    return watch, frozenset(alarms), frozenset(returns)


def _alarming(plan: Plan, ln_m: Floats) -> set[Group]:
    """Groups whose evidence reaches their threshold; `ln_m` [G, S]."""
    found: set[Group] = set()
    for kind in KINDS:
        members = plan.members[kind]
        if len(members):
            ln_g = ln_sum(ln_m[:, members] + budget.ln_weights(len(members)))
            found |= {(segment, kind) for segment in np.flatnonzero(ln_g >= plan.ln_group[kind]).tolist()}
    return found


def _listing(plan: Plan, group: Group, ln_m: Floats) -> tuple[list[int], bool]:
    """Signals of a group that moved, by falling evidence, and whether the evidence shows it."""
    segment, members = group[0], plan.members[group[1]]
    found, proven = budget.listed(ln_m[segment, members], plan.ln_threshold[segment, members])
    return members[found].tolist(), bool(proven.all())


def _opened(scene: Scene, watch: Watch, group: Group, quiet_ln: Floats) -> Watch:
    moved, proven = _listing(scene.plan, group, quiet_ln)
    points = {signal: _point(scene, watch, group, signal) for signal in moved}
    one = Episode(windows=0, moved=moved, proven=proven, points=points, begun=_starts(points), shape="sudden")
    return _under_new_laws(scene, watch, group, one)


def _moved_on(scene: Scene, watch: Watch, group: Group, one: Episode, open_ln: Floats) -> Watch:
    """The laws moved again, and not home: the episode goes on around yet others, also of signals not listed before."""
    found, proven = _listing(scene.plan, group, open_ln)
    more = {s: _point(scene, watch, group, s) for s in found if s not in one.points} if proven else {}
    again = {s: _point_from(scene, watch, group, s, one).at_ms for s in found if s in one.points}
    one = replace(
        one,
        moved=[*one.moved, *more],
        points={**one.points, **more},
        begun={**one.begun, **again, **_starts(more)},
        shifts=one.shifts + 1,
    )
    return _under_new_laws(scene, watch, group, one)


def _listed_more(scene: Scene, watch: Watch, group: Group, one: Episode, quiet_ln: Floats) -> Watch:
    """Soon after the alarm: signals whose evidence came later join the list."""
    if one.windows <= LISTING_WINDOWS:
        found, proven = _listing(scene.plan, group, quiet_ln)
        if one.windows == LISTING_WINDOWS:
            watch = _reset_quiet(scene.plan, watch, group)
        kept = one.moved if one.proven else []
        more = [signal for signal in found if signal not in kept] if proven else []
        if more:
            points = {s: one.points.get(s) or _point(scene, watch, group, s) for s in [*kept, *more]}
            begun = {s: one.begun.get(s, point.at_ms) for s, point in points.items()}
            one = replace(one, moved=[*kept, *more], proven=True, points=points, begun=begun)
            return _under_new_laws(scene, watch, group, one)
    return _told(scene, watch, group, one)


def _under_new_laws(scene: Scene, watch: Watch, group: Group, one: Episode) -> Watch:
    """The open detectors of a group begin anew, around the laws since each listed signal's last change."""
    plan, (segment, kind) = scene.plan, group
    form = watch.open_form or _open_form(plan)
    laws, states = list(_both(form.laws)), list(_pair(form.detectors))
    for family, series in enumerate(plan.families):
        rows = series.of(segment, plan.members[kind])
        home, epsilon = series.law.p[rows], series.law.epsilon[rows].copy()
        p = home.copy()
        for row, index in enumerate(rows.tolist()):
            signal = int(series.signals[index % len(series.signals)])
            if signal in one.begun:
                own = slice(row, row + 1)
                counts = since(plan, watch, segment, signal, one.begun[signal])[None]
                p[own] = episode.new_law(counts, home[own])
                known = counts.sum(1) / series.phi[index]
                epsilon[own] = episode.radius(p[own], home[own], known, plan.settings.budget.tolerance)
        z = None if series.z is None else series.z[rows]
        laws[family] = _with_rows(laws[family], rows, histogram.law(p, epsilon, z=z, home=home))
        chosen = np.isin(np.arange(len(series.phi)), rows)
        states[family] = histogram.reset(states[family], chosen)
    watch = replace(watch, open_form=OpenForm(Laws(laws[0], laws[1]), Pair(states[0], states[1])))
    return _told(scene, watch, group, one)


def _told(scene: Scene, watch: Watch, group: Group, one: Episode) -> Watch:
    """The episode with its shape looked at again, if it is time."""
    if one.windows <= SHAPED_WINDOWS or one.windows % SHAPED_EVERY == 0:
        one = _shaped(scene.plan, watch, group, one)
    return replace(watch, episodes={**watch.episodes, group: one})


def _back_since(scene: Scene, watch: Watch, group: Group, one: Episode) -> int | None:
    """Since when all listed signals follow the law of the reference again; None when one does not.

    A signal that did not move again has its change point anywhere, with few events behind it: the law of the reference
    must also explain them better than that of the episode.
    """
    since_ms = scene.start_ms
    for signal in one.moved:
        place = _place(scene.plan, group[0], signal)
        point = _point_from(scene, watch, group, signal, one)
        counts = since(scene.plan, watch, group[0], signal, point.at_ms)
        law, q = place.series.law, _law_in(watch, place)
        p = law.p[place.index]
        likelier = float((counts * np.log(np.divide(p, q, out=np.ones_like(p), where=p > 0))).sum()) >= 0
        near = episode.returned(counts[None], law.p[place.own], law.epsilon[place.own], place.series.phi[place.own])[0]
        if not (likelier and near):
            return None
        since_ms = min(since_ms, point.at_ms)
    return since_ms


def _closed(plan: Plan, watch: Watch, group: Group, one: Episode, back_ms: int) -> Watch:
    """After a return the group is quiet again, from nothing; the laws that went are remembered."""
    watch = _reset_quiet(plan, watch, group)
    earlier = dict(watch.earlier)
    for signal in one.moved:
        law = _law_in(watch, _place(plan, group[0], signal))[None]
        before = earlier.get((group[0], signal), law[:0])
        earlier[group[0], signal] = np.concatenate([before, law])[-locate.RECURRING_MAX :]
    tests = plan.ordered.spread(_mask(plan, [group]))
    episodes = {key: value for key, value in watch.episodes.items() if key != group}
    return replace(
        watch,
        adwin=adwin.reset(watch.adwin, np.tile(tests, 2)),
        page_hinkley=page_hinkley.reset(watch.page_hinkley, tests),
        episodes=episodes,
        open_form=watch.open_form if episodes else None,
        ended={**watch.ended, group: one},
        earlier=earlier,
        anew={**watch.anew, group: back_ms},
    )


def _shaped(plan: Plan, watch: Watch, group: Group, one: Episode) -> Episode:
    """The type of the change by the score that moved most."""
    if not one.moved:
        return one
    segment, signal = group[0], one.moved[0]
    place = _place(plan, segment, signal)
    at_ms = one.points[signal].at_ms
    counts = since(plan, watch, segment, signal, at_ms)
    p, law = place.series.law.p[place.index], _law_in(watch, place)
    score, sd = _most_moved(_scores(place, p, counts), p, counts)
    if sd <= 0:
        return one
    phi, epsilon = float(place.series.phi[place.index]), float(place.series.law.epsilon[place.index])
    way = locate.path(_histories(watch)[place.family], place.index, score, p, sd=sd, phi=phi, at_ms=at_ms)
    error = float(reference.epsilon_ref(law[None], np.array([counts.sum() / phi]))[0])
    recurs = locate.recurs_among(law, watch.earlier.get((segment, signal), law[None][:0]), epsilon + error)
    return replace(one, shape=locate.change_type(way, before=one.shape, recurs=recurs))


def _scores(place: Place, p: Floats, counts: Ints) -> Floats:
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


def _point(scene: Scene, watch: Watch, group: Group, signal: int) -> locate.ChangePoint:
    """Since when a series has left the law of the reference."""
    place = _place(scene.plan, group[0], signal)
    rows = float(place.series.rows[place.index] / place.series.phi[place.index])
    from_ms = watch.anew.get(group, watch.first_ms)
    return _located(scene, watch, place, place.series.law.p[place.index], (rows, from_ms))


def _point_from(scene: Scene, watch: Watch, group: Group, signal: int, one: Episode) -> locate.ChangePoint:
    """Since when a listed series has left the law it has in its episode."""
    place = _place(scene.plan, group[0], signal)
    return _located(scene, watch, place, _law_in(watch, place), (0.0, one.begun[signal]))


def _located(scene: Scene, watch: Watch, place: Place, p: Floats, known: tuple[float, int]) -> locate.ChangePoint:
    """`known`: rows behind the law, and from when on to look."""
    history, phi, (rows, from_ms) = _histories(watch)[place.family], float(place.series.phi[place.index]), known
    point = locate.change_point(history, place.index, p, rows=rows, phi=phi, from_ms=from_ms, end_ms=scene.end_ms)
    return point or locate.ChangePoint(scene.start_ms, scene.start_ms, scene.end_ms)


def _reset_quiet(plan: Plan, watch: Watch, group: Group) -> Watch:
    """The evidence of a group begins from nothing."""
    mask = _mask(plan, [group])
    states = [
        histogram.reset(state, series.spread(mask))
        for state, series in zip(_pair(watch.quiet), plan.families, strict=True)
    ]
    return replace(watch, quiet=Pair(*states))


def _levels(
    plan: Plan,
    quiet: tuple[Verdicts, Verdicts],
    open_form: tuple[Verdicts, Verdicts] | None,
    open_before: Mapping[Group, Episode],
) -> tuple[Codes, Floats, Floats, Codes]:
    """[G, S] level, statistic, threshold and reason.

    A group with an episode shows its open detectors; what it lists reads drift.
    """
    shape = plan.ln_threshold.shape
    names = ("level", "statistic", "threshold", "reason")
    found = [np.zeros(shape, np.int8), np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int8)]
    opened = _mask(plan, open_before)
    for family, series in enumerate(plan.families):
        own = opened[:, series.signals]
        for matrix, name in zip(found, names, strict=True):
            shown = getattr(quiet[family], name).reshape(own.shape)
            if open_form is not None:
                shown = np.where(own, getattr(open_form[family], name).reshape(own.shape), shown)
            matrix[:, series.signals] = shown
    level, statistic, threshold, reason = found
    for (segment, _), one in open_before.items():
        judged = [signal for signal in one.moved if reason[segment, signal] == Reason.NONE]
        level[segment, judged] = Level.DRIFT
    return level, statistic, threshold, reason


def _calibration(plan: Plan) -> Calibration:
    segments, columns = len(plan.tables.segments), plan.tables.layout.columns
    counts = np.zeros((segments, columns), np.int64)
    return Calibration(overdispersion.start(plan.tables), counts, np.zeros(segments, np.int64))


def _calibrated(plan: Plan, watch: Watch, index: int, profile: Dense) -> Watch:
    """Under a reference that does not know how serving spreads: learn it from the first windows with events."""
    learning = watch.calibration
    if learning is None or not profile.rows[0]:
        return watch
    windows, counts = learning.windows + (profile.rows > 0), learning.counts + profile.counts
    sums = overdispersion.add(learning.sums, plan.tables, index, profile)
    if windows[0] < CALIBRATION_WINDOWS:
        return replace(watch, calibration=Calibration(sums, counts, windows))
    phi = overdispersion.phi(sums, plan.tables, counts).signals
    layout = plan.tables.layout
    events = np.stack([counts[:, reference.valid(layout, s)].sum(1) for s in range(len(layout.names))], axis=1)
    serving = Serving(phi, np.maximum(1.0, events / np.maximum(windows, 1)[:, None]))
    # Evidence that was gathered as if events were independent does not count.
    quiet = _at_rest(Laws(plan.ordered.law, plan.unordered.law))
    return replace(watch, calibration=None, serving=serving, quiet=quiet)


def _at_rest(laws: Laws) -> Pair:
    return Pair(*(histogram.start(law.p.shape[0], law.p.shape[1], len(law.weights)) for law in _both(laws)))


def _open_form(plan: Plan) -> OpenForm:
    """The open detectors of all series at rest, around the laws of the reference."""
    ordered, unordered = (
        histogram.law(series.law.p, series.law.epsilon, z=series.z, home=series.law.p) for series in plan.families
    )
    laws = Laws(ordered, unordered)
    return OpenForm(laws, _at_rest(laws))


def _with_rows(law: histogram.Law, rows: Ints, own: histogram.Law) -> histogram.Law:
    """A law in which some series have another one."""
    arrays = {}
    for name in law.__struct_fields__:
        whole = getattr(law, name)
        if name != "weights":
            whole = whole.copy()
            whole[rows] = getattr(own, name)
        arrays[name] = whole
    return histogram.Law(**arrays)


def _ln_evidence(plan: Plan, pair: Pair) -> Floats:
    """[G, S] ln M."""
    found = np.full(plan.ln_threshold.shape, -np.inf)
    for series, state in zip(plan.families, _pair(pair), strict=True):
        found[:, series.signals] = histogram.ln_evidence(state).reshape(len(found), -1)
    return found


def _mask(plan: Plan, groups: Iterable[Group]) -> Bools:
    """[G, S] True for the signals of some groups."""
    mask = np.zeros(plan.ln_threshold.shape, np.bool_)
    for segment, kind in groups:
        mask[segment, plan.members[kind]] = True
    return mask


def _starts(points: Points) -> dict[int, int]:
    return {signal: point.at_ms for signal, point in points.items()}


def _place(plan: Plan, segment: int, signal: int) -> Place:
    where = plan.where[signal]
    series = plan.families[where.family]
    return Place(where.family, series, segment * len(series.signals) + where.place)


def _law_in(watch: Watch, place: Place) -> Floats:
    """[B] the law of a series in its episode."""
    if watch.open_form is None:
        return np.asarray(place.series.law.p[place.index])
    return np.asarray(_both(watch.open_form.laws)[place.family].p[place.index])


def _histories(watch: Watch) -> tuple[locate.History, locate.History]:
    return watch.ordered, watch.unordered


def _pair(pair: Pair) -> tuple[histogram.State, histogram.State]:
    return pair.ordered, pair.unordered


def _both(laws: Laws) -> tuple[histogram.Law, histogram.Law]:
    return laws.ordered, laws.unordered
