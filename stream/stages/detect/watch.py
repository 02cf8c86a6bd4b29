"""One closed window of one model version through all its detectors: counts in, levels and episodes out.

The e-detectors decide by groups (segment and kind): a quiet group alarms when its evidence reaches its threshold; that
opens an episode, in which the *open* detectors test against the new law until the old one is back (`statistics.md` 8.2,
10.3). Detectors without an e-value are asked alongside (`detections`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import astuple, replace

from stream.detectors import Bools, Codes, Floats, Ints, Level, Reason, Verdicts, budget, ln_sum, locate
from stream.profiles.reference import Scores
from stream.stages.detect import detections
from stream.stages.detect.detections import Asked
from stream.stages.detect.plan import SHAPED, Group, Plan
from stream.stages.detect.season import Normal
from stream.stages.detect.series import Distributions, Family, Past, Seen, past_of
from stream.stages.detect.state import Calibration, Detectors, Episode, Histories, Laws, OpenForm, Watch

LISTING_WINDOWS: Final = 10
"""Windows after an alarm in which the evidence against the old law runs on, to complete the list (8.4)."""
SHAPED_WINDOWS: Final = 64
"""Windows of an episode in which its shape is looked at every time; then every `SHAPED_EVERY` of them."""
SHAPED_EVERY: Final = 16

Points: TypeAlias = Mapping[int, locate.ChangePoint]
Each: TypeAlias = tuple[Verdicts, Verdicts, Verdicts, Verdicts]
"""Of each family."""


class Window(Struct, frozen=True, eq=False):
    """A closed window, as its model version and its kind of signals have it."""

    start_ms: int
    counts: tuple[Ints, Ints, Ints, Ints]
    """Of each family: what `Seen.counts` says."""
    moments: Ints
    """[M, k] sums that readers want since a change point."""
    scores: tuple[Scores, ...]
    """What detectors without an e-value look at: per measure, of all series of the family the plan names."""
    no_bet: Codes
    """[G, C] of `Reason`: members with one neither bet on this window nor remember it."""
    normal: Normal | None = None
    """What is normal in its season; None where the reference has no slots."""


class Judged(Struct, frozen=True, eq=False):
    """What one window said, per segment and column: [G, C], NaN and a reason where there is no verdict."""

    level: Codes
    statistic: Floats
    threshold: Floats
    reason: Codes
    asked: tuple[Asked, ...]
    """What the detectors without an e-value said."""
    alarms: frozenset[Group]
    """Groups that alarmed in this window."""
    returns: frozenset[Group]
    """Groups whose members are back."""


class Scene(Struct, frozen=True, eq=False):
    """A closed window as detectors see it, and what they know."""

    plan: Plan
    start_ms: int
    end_ms: int
    seen: tuple[Seen, Seen, Seen, Seen]
    """By each family."""
    no_bet: Codes
    """[G, C]"""
    normal: Normal | None

    @property
    def laws(self) -> Laws:
        """What is normal in this window."""
        home = _home(self.plan)
        return (
            home if self.normal is None else replace(home, ordered=self.normal.ordered, unordered=self.normal.unordered)
        )


class Place(Struct, frozen=True, eq=False):
    """Where one column of one segment stands."""

    family: int
    series: Family
    index: int
    """Among the series of its family."""


def start(
    plan: Plan, first_ms: int, began: dict[tuple[str, int], int], calibration: Calibration | None = None
) -> Watch:
    """All detectors at rest, under a reference in force from the window `first_ms` on."""
    nothing = locate.start()
    return Watch(
        first_ms=first_ms,
        quiet=at_rest(plan),
        histories=Histories(nothing, nothing, nothing, nothing),
        moments=nothing,
        began=began,
        calibration=calibration,
    )


def update(plan: Plan, watch: Watch, window: Window) -> tuple[Watch, Judged]:
    """One window further. Cost: O(series), whatever the traffic; about 10 us per series."""
    scene = _scene(plan, window)
    watch = _remember(scene, watch, window)
    watch, quiet = _evidence(scene, watch)
    tested = plan.families[plan.tested]
    resting = tested.spread(_mask(plan, watch.episodes))
    no_bet = tested.spread(window.no_bet)
    seen = detections.Tested(scene.seen[plan.tested], window.scores, resting, no_bet, window.normal)
    tests, asked = detections.update(plan, watch.tests, seen)
    watch = replace(watch, tests=tests)
    watch, open_form = _open_evidence(scene, watch)
    open_before = watch.episodes
    watch, alarms, returns = _groups(scene, watch)
    level, statistic, threshold, reason = _levels(plan, quiet, open_form, open_before)
    return watch, Judged(
        level=level if plan.serving_known else np.minimum(level, Level.WARNING).astype(np.int8),
        statistic=statistic,
        threshold=threshold,
        reason=reason,
        asked=asked,
        alarms=alarms,
        returns=returns,
    )


def since(plan: Plan, watch: Watch, segment: int, column: int, from_ms: int) -> Ints:
    """What is remembered of one series from a window on, as `Seen.counts` has it."""
    return past(plan, watch, segment, column, from_ms).counts


def past(plan: Plan, watch: Watch, segment: int, column: int, from_ms: int) -> Past:
    """What is remembered of one series from a window on, and what was expected of it."""
    place = _place(plan, segment, column)
    return past_of(astuple(watch.histories)[place.family], place.index, from_ms)


def law_since(plan: Plan, watch: Watch, segment: int, column: int, from_ms: int) -> Floats:
    """[B] what is normal for one distribution in all windows from one on."""
    place = _place(plan, segment, column)
    series = place.series
    if not isinstance(series, Distributions):
        raise TypeError("only distributions have a law of bins")
    return series.expected(place.index, past(plan, watch, segment, column, from_ms))


def ln_evidence(plan: Plan, watch: Watch) -> Floats:
    """[G, C] ln M of all members; of an open episode that of its open detectors."""
    quiet = _ln_evidence(plan, watch.quiet)
    if watch.open_form is None:
        return quiet
    return np.where(_mask(plan, watch.episodes), _ln_evidence(plan, watch.open_form.detectors), quiet)


def at_rest(plan: Plan) -> Detectors:
    """All e-detectors without evidence, around the laws of the reference."""
    return _at_rest(plan, _home(plan))


def _scene(plan: Plan, window: Window) -> Scene:
    ordered, unordered, rates, means = (
        series.seen(window.start_ms, counts) for series, counts in zip(plan.families, window.counts, strict=True)
    )
    end_ms = window.start_ms + plan.settings.windows.size
    return Scene(plan, window.start_ms, end_ms, (ordered, unordered, rates, means), window.no_bet, window.normal)


def _remember(scene: Scene, watch: Watch, window: Window) -> Watch:
    """The window in the past of every series; where nothing is bet on, it counts as empty."""
    betting = scene.no_bet == Reason.NONE
    histories = []
    for series, history, seen, law in zip(
        scene.plan.families, astuple(watch.histories), scene.seen, astuple(scene.laws), strict=True
    ):
        counts = series.compact(seen.counts * series.spread(betting)[:, None])
        seasonal = scene.normal is not None and isinstance(series, Distributions)
        expected = counts.sum(1, keepdims=True) * law.p if seasonal else None
        histories.append(locate.remember(history, scene.start_ms, counts, expected))
    return replace(
        watch,
        histories=Histories(*histories),
        moments=locate.remember(watch.moments, scene.start_ms, window.moments),
    )


def _evidence(scene: Scene, watch: Watch) -> tuple[Watch, Each]:
    """The quiet detectors: all series but those of a group whose episode is older than the listing needs."""
    asleep = _mask(scene.plan, [group for group, one in watch.episodes.items() if one.windows >= LISTING_WINDOWS])
    quiet, verdicts = _updated(scene, scene.laws, watch.quiet, ~asleep)
    return replace(watch, quiet=quiet), verdicts


def _open_evidence(scene: Scene, watch: Watch) -> tuple[Watch, Each | None]:
    """The open detectors, of the series whose group has an episode; none of them, none."""
    if watch.open_form is None:
        return watch, None
    form, awake = watch.open_form, _mask(scene.plan, watch.episodes)
    detectors, verdicts = _updated(scene, _in_season(scene, form.laws, awake), form.detectors, awake)
    return replace(watch, open_form=OpenForm(form.laws, detectors)), verdicts


def _in_season(scene: Scene, laws: Laws, awake: Bools) -> Laws:
    """The laws of episodes in this window, of the series that are awake."""
    if scene.normal is None:
        return laws
    found: list[Any] = [
        series.in_season(law, now, np.flatnonzero(series.spread(awake)))
        for series, law, now in zip(scene.plan.families, astuple(laws), astuple(scene.laws), strict=True)
    ]
    return Laws(*found)


def _updated(scene: Scene, laws: Laws, detectors: Detectors, awake: Bools) -> tuple[Detectors, Each]:
    """All families one window further; series that are not awake keep their state."""
    states: list[Any] = []
    found: list[Verdicts] = []
    for series, law, state, seen in zip(
        scene.plan.families, astuple(laws), astuple(detectors), scene.seen, strict=True
    ):
        silent = np.full(len(series.phi), Reason.MUTED, np.int8)
        own = np.where(series.reason == Reason.NONE, series.spread(scene.no_bet), series.reason)
        reason = np.where(series.spread(awake) & series.enabled, own, silent).astype(np.int8)
        after, verdicts = series.updated(state, law, seen, reason)
        states.append(after)
        found.append(verdicts)
    ordered, unordered, rates, means = found
    return Detectors(*states), (ordered, unordered, rates, means)


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


def warned(plan: Plan, watch: Watch, power: float) -> set[Group]:
    """Groups whose evidence reaches their threshold to some power, and those with an episode."""
    return _alarming(plan, _ln_evidence(plan, watch.quiet), power) | watch.episodes.keys()


def _alarming(plan: Plan, ln_m: Floats, power: float = 1.0) -> set[Group]:
    """Groups whose evidence reaches their threshold to some power; `ln_m` [G, S]."""
    found: set[Group] = set()
    for kind, members in plan.members.items():
        if len(members):
            ln_g = ln_sum(ln_m[:, members] + budget.ln_weights(len(members)))
            found |= {(segment, kind) for segment in np.flatnonzero(ln_g >= power * plan.ln_group[kind]).tolist()}
    return found


def _listing(plan: Plan, group: Group, ln_m: Floats) -> tuple[list[int], bool]:
    """Columns of a group that moved, by falling evidence, and whether the evidence shows it."""
    segment, members = group[0], plan.members[group[1]]
    found, proven = budget.listed(ln_m[segment, members], plan.ln_threshold[segment, members])
    return members[found].tolist(), bool(proven.all())


def _opened(scene: Scene, watch: Watch, group: Group, quiet_ln: Floats) -> Watch:
    moved, proven = _listing(scene.plan, group, quiet_ln)
    points = {column: _point(scene, watch, group, column) for column in moved}
    shape: locate.ChangeType | None = "sudden" if group[1] in SHAPED else None
    one = Episode(windows=0, moved=moved, proven=proven, points=points, begun=_starts(points), shape=shape)
    return _under_new_laws(scene, watch, group, one)


def _moved_on(scene: Scene, watch: Watch, group: Group, one: Episode, open_ln: Floats) -> Watch:
    """The laws moved again, and not home: the episode goes on around yet others, also of columns not listed before."""
    found, proven = _listing(scene.plan, group, open_ln)
    more = {c: _point(scene, watch, group, c) for c in found if c not in one.points} if proven else {}
    again = {c: _point_from(scene, watch, group, c, one).at_ms for c in found if c in one.points}
    one = replace(
        one,
        moved=[*one.moved, *more],
        points={**one.points, **more},
        begun={**one.begun, **again, **_starts(more)},
        shifts=one.shifts + 1,
    )
    return _under_new_laws(scene, watch, group, one)


def _listed_more(scene: Scene, watch: Watch, group: Group, one: Episode, quiet_ln: Floats) -> Watch:
    """Soon after the alarm: columns whose evidence came later join the list."""
    if one.windows <= LISTING_WINDOWS:
        found, proven = _listing(scene.plan, group, quiet_ln)
        if one.windows == LISTING_WINDOWS:
            watch = _reset_quiet(scene.plan, watch, group)
        kept = one.moved if one.proven else []
        more = [column for column in found if column not in kept] if proven else []
        if more:
            points = {c: one.points.get(c) or _point(scene, watch, group, c) for c in [*kept, *more]}
            begun = {c: one.begun.get(c, point.at_ms) for c, point in points.items()}
            one = replace(one, moved=[*kept, *more], proven=True, points=points, begun=begun)
            return _under_new_laws(scene, watch, group, one)
    return _told(scene, watch, group, one)


def _under_new_laws(scene: Scene, watch: Watch, group: Group, one: Episode) -> Watch:
    """The open detectors of a group begin anew, around the laws since each listed column's last change."""
    plan, (segment, kind) = scene.plan, group
    form = watch.open_form or _open_form(plan)
    laws: list[Any] = []
    states: list[Any] = []
    for place, (series, law, state) in enumerate(
        zip(plan.families, astuple(form.laws), astuple(form.detectors), strict=True)
    ):
        chosen = series.of(segment, plan.members[kind])
        moved = {
            _place(plan, segment, column).index: past(plan, watch, segment, column, from_ms)
            for column, from_ms in one.begun.items()
            if plan.columns[column].family == place
        }
        own: Any = series.open_law(chosen, moved)
        laws.append(series.with_rows(law, chosen, own))
        states.append(series.reset(state, np.isin(np.arange(len(series.phi)), chosen)))
    watch = replace(watch, open_form=OpenForm(Laws(*laws), Detectors(*states)))
    return _told(scene, watch, group, one)


def _told(scene: Scene, watch: Watch, group: Group, one: Episode) -> Watch:
    """The episode with its shape looked at again, if it is time."""
    if one.windows <= SHAPED_WINDOWS or one.windows % SHAPED_EVERY == 0:
        one = _shaped(scene.plan, watch, group, one)
    return replace(watch, episodes={**watch.episodes, group: one})


def _back_since(scene: Scene, watch: Watch, group: Group, one: Episode) -> int | None:
    """Since when all listed columns follow the law of the reference again; None when one does not.

    A column that did not move again has its change point anywhere, with few events behind it: the law of the reference
    must also explain them better than that of the episode.
    """
    since_ms = scene.start_ms
    for column in one.moved:
        place = _place(scene.plan, group[0], column)
        point = _point_from(scene, watch, group, column, one)
        came = past(scene.plan, watch, group[0], column, point.at_ms)
        if not place.series.is_back(place.index, came, _law_in(scene.plan, watch, place)):
            return None
        since_ms = min(since_ms, point.at_ms)
    return since_ms


def _closed(plan: Plan, watch: Watch, group: Group, one: Episode, back_ms: int) -> Watch:
    """After a return the group is quiet again, from nothing; the laws that went are remembered."""
    watch = _reset_quiet(plan, watch, group)
    earlier = dict(watch.earlier)
    # What has no type told cannot be told to recur.
    for column in one.moved if one.shape is not None else ():
        place = _place(plan, group[0], column)
        law = place.series.shares(_law_in(plan, watch, place), place.index)[None]
        before = earlier.get((group[0], column), law[:0])
        earlier[group[0], column] = np.concatenate([before, law])[-locate.RECURRING_MAX :]
    tested = plan.families[plan.tested].spread(_mask(plan, [group]))
    episodes = {key: value for key, value in watch.episodes.items() if key != group}
    return replace(
        watch,
        tests=detections.reset(plan, watch.tests, tested),
        episodes=episodes,
        open_form=watch.open_form if episodes else None,
        ended={**watch.ended, group: one},
        earlier=earlier,
        anew={**watch.anew, group: back_ms},
    )


def _shaped(plan: Plan, watch: Watch, group: Group, one: Episode) -> Episode:
    """The type of the change by the score that moved most."""
    if not one.moved or one.shape is None:
        return one
    segment, column = group[0], one.moved[0]
    place = _place(plan, segment, column)
    series, at_ms = place.series, one.points[column].at_ms
    came = past(plan, watch, segment, column, at_ms)
    score, home, sd = series.score(place.index, came)
    if sd <= 0:
        return one
    history, phi = astuple(watch.histories)[place.family], float(series.phi[place.index])
    way = locate.path(history, place.index, score, home, sd=sd, phi=phi, at_ms=at_ms)
    law = _law_in(plan, watch, place)
    shares, radius = series.shares(law, place.index), series.radius(place.index, came.counts, law)
    recurs = locate.recurs_among(shares, watch.earlier.get((segment, column), shares[None][:0]), radius)
    return replace(one, shape=locate.change_type(way, before=one.shape, recurs=recurs))


def _point(scene: Scene, watch: Watch, group: Group, column: int) -> locate.ChangePoint:
    """Since when a series has left the law of the reference."""
    place = _place(scene.plan, group[0], column)
    rows = float(place.series.rows[place.index] / place.series.phi[place.index])
    from_ms = watch.anew.get(group, watch.first_ms)
    return _located(scene, watch, place, place.series.law, (rows, from_ms))


def _point_from(scene: Scene, watch: Watch, group: Group, column: int, one: Episode) -> locate.ChangePoint:
    """Since when a listed series has left the law it has in its episode."""
    place = _place(scene.plan, group[0], column)
    return _located(scene, watch, place, _law_in(scene.plan, watch, place), (0.0, one.begun[column]))


def _located(scene: Scene, watch: Watch, place: Place, law: Any, known: tuple[float, int]) -> locate.ChangePoint:
    """`known`: rows behind the law, and from when on to look."""
    history, (rows, from_ms) = astuple(watch.histories)[place.family], known
    point = place.series.change_point(history, place.index, law, rows=rows, from_ms=from_ms, end_ms=scene.end_ms)
    return point or locate.ChangePoint(scene.start_ms, scene.start_ms, scene.end_ms)


def _reset_quiet(plan: Plan, watch: Watch, group: Group) -> Watch:
    """The evidence of a group begins from nothing."""
    mask = _mask(plan, [group])
    states: list[Any] = [
        series.reset(state, series.spread(mask))
        for state, series in zip(astuple(watch.quiet), plan.families, strict=True)
    ]
    return replace(watch, quiet=Detectors(*states))


def _levels(
    plan: Plan,
    quiet: Each,
    open_form: Each | None,
    open_before: Mapping[Group, Episode],
) -> tuple[Codes, Floats, Floats, Codes]:
    """[G, C] level, statistic, threshold and reason.

    A group with an episode shows its open detectors; what it lists reads drift.
    """
    shape = plan.ln_threshold.shape
    names = ("level", "statistic", "threshold", "reason")
    found = [np.zeros(shape, np.int8), np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int8)]
    opened = _mask(plan, open_before)
    for family, series in enumerate(plan.families):
        own = opened[:, series.columns]
        for matrix, name in zip(found, names, strict=True):
            shown = getattr(quiet[family], name).reshape(own.shape)
            if open_form is not None:
                shown = np.where(own, getattr(open_form[family], name).reshape(own.shape), shown)
            matrix[:, series.columns] = shown
    level, statistic, threshold, reason = found
    for (segment, _), one in open_before.items():
        judged = [column for column in one.moved if reason[segment, column] == Reason.NONE]
        level[segment, judged] = Level.DRIFT
    return level, statistic, threshold, reason


def _home(plan: Plan) -> Laws:
    """The laws of the reference."""
    return Laws(plan.ordered.law, plan.unordered.law, plan.rates.law, plan.means.law)


def _at_rest(plan: Plan, laws: Laws) -> Detectors:
    states: list[Any] = [series.at_rest(law) for series, law in zip(plan.families, astuple(laws), strict=True)]
    return Detectors(*states)


def _open_form(plan: Plan) -> OpenForm:
    """The open detectors of all series at rest, around the laws of the reference."""
    found: list[Any] = [series.open_law(np.arange(len(series.phi)), {}) for series in plan.families]
    laws = Laws(*found)
    return OpenForm(laws, _at_rest(plan, laws))


def _ln_evidence(plan: Plan, detectors: Detectors) -> Floats:
    """[G, C] ln M."""
    found = np.full(plan.ln_threshold.shape, -np.inf)
    for series, state in zip(plan.families, astuple(detectors), strict=True):
        found[:, series.columns] = series.ln_evidence(state).reshape(len(found), -1)
    return found


def _mask(plan: Plan, groups: Iterable[Group]) -> Bools:
    """[G, C] True for the members of some groups."""
    mask = np.zeros(plan.ln_threshold.shape, np.bool_)
    for segment, kind in groups:
        mask[segment, plan.members[kind]] = True
    return mask


def _starts(points: Points) -> dict[int, int]:
    return {column: point.at_ms for column, point in points.items()}


def _place(plan: Plan, segment: int, column: int) -> Place:
    where = plan.columns[column]
    series = plan.families[where.family]
    return Place(where.family, series, segment * len(series.columns) + where.place)


def _law_in(plan: Plan, watch: Watch, place: Place) -> Any:
    """The laws of a family in its episodes."""
    laws = _home(plan) if watch.open_form is None else watch.open_form.laws
    return astuple(laws)[place.family]
