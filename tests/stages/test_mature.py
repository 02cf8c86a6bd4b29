"""A learned reference matures: weekends and hours of the week become normal, a drift does not."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest
from diurnal import SETTINGS, Daily, Diurnal, Life, judged, learned
from msgspec.structs import replace as changed

from stream.detectors.budget import Settings as BudgetSettings
from stream.profiles import reference
from stream.profiles.learning import Settings as LearnSettings
from stream.stages import detect
from stream.stages.detect.plan import plan
from stream.stages.detect.state import State, Version

QUARTER_MS = 900_000
WEEKEND = Diurnal(n=600, season=0.3, weekend=0.25, series=3, size_ms=QUARTER_MS)
DAY = WEEKEND.per_day


@cache
def grown(stream: Diurnal, days: int, first_day: int = 0) -> Life:
    """The life of a stream, never to be led on: `led` copies it."""
    return Life(stream, first_day * stream.per_day).until((first_day + days) * stream.per_day)


def led(life: Life, last: int, stream: Diurnal | None = None) -> Life:
    """A copy of a life led on, with what was published from then on."""
    other = copy(life)
    other.references, other.alerts, other.readings = [], [], []
    return other.until(last, stream)


def alerts(life: Life) -> list[tuple[str, str]]:
    """Status and kind of those above `info`."""
    return [(one["data"]["status"], one["data"]["kind"]) for one in life.alerts if one["data"]["severity"] != "info"]


def levels(life: Life) -> list[tuple[str, str | None]]:
    """Of the histogram of the first series, window by window."""
    found = [msgspec.json.decode(one) for one in life.readings]
    first = [
        one["verdicts"][0] for one in found if one["signal"] == "feature:x000" or one["signal"] == "prediction:score"
    ]
    return [(one["level"], one["reason"]) for one in first]


@pytest.mark.parametrize(
    ("first_day", "season", "weekend"), [(0, 0.3, 0.25), (4, 0.3, 0.5), (5, 1.0, 0.25), (6, 0.3, 0.25)]
)
def test_a_weekend_after_learning_on_any_weekday_stays_within_the_budget(
    first_day: int, season: float, weekend: float
) -> None:
    stream = replace(WEEKEND, season=season, weekend=weekend, seed=first_day + 1)
    life = grown(stream, 9, first_day)

    assert not alerts(life)
    first, successor = (reference.compile_tables(one) for one in life.references[1:])
    assert first.season is not None
    assert successor.season is not None
    assert not (successor.season.seen_ms < 3_600_000).any()


def test_weeks_bring_weekends_and_then_hours_of_the_week_and_no_alarm() -> None:
    life = grown(WEEKEND, 24)

    learned_ones = [one for one in life.references if one.complete]
    assert [one.slots.rung for one in learned_ones if one.slots] == [
        "hour_of_day_weekend",
        "hour_of_day_weekend",
        "hour_of_week",
    ]
    assert not alerts(life)
    assert life.version.maturing is None
    said = levels(life)
    saturdays = [said[week * 7 * DAY + 5 * DAY + 8 : week * 7 * DAY + 7 * DAY - 8] for week in range(3)]
    assert [set(saturday) for saturday in saturdays] == [
        {("not_ready", "learning")},
        {("ok", None)},
        {("ok", None)},
    ]


@pytest.mark.parametrize("seed", [2, 3])
def test_a_quarter_of_a_deviation_is_found_after_it_has_matured(seed: int) -> None:
    at = 9 * DAY
    life = led(grown(WEEKEND, 9), at + DAY, replace(WEEKEND, seed=seed, shift_at=at, shift=0.25, shifted=1))

    assert alerts(life)[0] == ("firing", "data_drift")
    firing = next(one["data"] for one in life.alerts if one["data"]["status"] == "firing")
    assert {one["signal"] for one in firing["signals"]} == {"feature:x000"}
    assert firing["starts_at"] < "2026-11-25T06:00"
    assert firing["change_point"]["earliest"] <= "2026-11-25T00:00:00.000Z" <= firing["change_point"]["latest"]


def test_while_an_alert_is_open_nothing_is_counted_and_nothing_matures() -> None:
    moved = replace(WEEKEND, shift_at=3 * DAY, shift=0.5)
    life = grown(moved, 8)

    assert alerts(life)[0] == ("firing", "data_drift")
    assert len(life.references) == 2
    assert life.version.maturing is not None
    counted = life.version.maturing.counts.dense.rows[0]
    assert 3 * DAY * WEEKEND.n <= counted < (3 * DAY + 12) * WEEKEND.n


def test_a_reference_that_could_not_mature_does_so_in_the_first_quiet_window_after() -> None:
    gone = replace(WEEKEND, shift_at=4 * DAY + DAY // 2, shift=1.0)
    life = led(led(grown(WEEKEND, 4), 7 * DAY + 4, gone), 8 * DAY, WEEKEND)

    (successor,) = life.references
    assert alerts(life)[-1] == ("resolved", "data_drift")
    resolved_at = life.alerts[-1]["data"]["ends_at"]
    assert "2026-11-23T01" < resolved_at < successor.effective_from < "2026-11-24"


def test_a_drift_too_slow_for_an_alarm_is_not_learned_and_people_are_told() -> None:
    """As much as the first reference ignored may become normal, all successors together, and no more."""
    slow = replace(WEEKEND, series=1, weekend=0.0, slope=0.03)
    life = grown(slow, 22)

    assert [one.effective_from[:10] for one in life.references[1:]] == ["2026-11-17", "2026-11-23"]
    notices = [one["data"] for one in life.alerts if "may not take up" in one["data"]["annotations"]["summary"]]
    assert [(one["severity"], one["kind"], one["starts_at"][:13]) for one in notices] == [
        ("info", "prediction_drift", "2026-12-07T00")
    ]
    first, last = (reference.compile_tables(life.references[place]) for place in (1, -1))
    shift = (last.p * first.u).sum() - 0.5
    assert 0 < shift < plan(life.settings, first, None).ordered.law.epsilon[0]


def warned(life: Life) -> Life:
    """The same life with evidence between a warning and an alarm."""
    watch = life.version.watch
    assert watch is not None
    ordered = watch.quiet.ordered
    more = changed(ordered, ln_m=np.full_like(ordered.ln_m, 8.0))
    other = copy(life)
    other.version = changed(life.version, watch=changed(watch, quiet=changed(watch.quiet, ordered=more)))
    return other


def test_what_is_under_suspicion_is_not_learned_and_people_are_told_once() -> None:
    life = led(warned(led(grown(WEEKEND, 6), 7 * DAY - 1)), 7 * DAY + 3)

    assert not life.references
    (notice,) = (one["data"] for one in life.alerts)
    assert (notice["status"], notice["severity"], notice["kind"]) == ("notice", "info", "data_drift")
    assert "may not take up what was learned" in notice["annotations"]["summary"]
    assert life.version.maturing is not None
    assert life.version.maturing.told


def test_an_alert_that_opens_before_a_successor_is_in_force_stays_open_under_it() -> None:
    age = 7 * DAY
    life = led(grown(WEEKEND, 6), age + 12, replace(WEEKEND, shift_at=age, shift=2.0))
    (successor,) = life.references

    assert life.version.reference_id == successor.reference_id
    assert alerts(life)[0][0] == "firing"
    assert "resolved" not in {status for status, _ in alerts(life)}
    watch = life.version.watch
    assert watch is not None
    assert watch.episodes


def test_a_window_of_both_references_is_judged_as_one() -> None:
    life = led(grown(WEEKEND, 6), 7 * DAY + 6)
    first, successor = (one for one in [*grown(WEEKEND, 6).references, *life.references] if one.complete)
    life.readings.clear()
    life.window((first.reference_id, successor.reference_id))

    (said,) = levels(life)
    assert said == ("ok", None)
    assert msgspec.json.decode(life.readings[0])["n"] == WEEKEND.n


def test_the_past_is_expected_anew_by_the_successor() -> None:
    """A first reference without slots knows no season; its successor locates a change in one."""
    settings = changed(SETTINGS, learn=LearnSettings.model_validate({"min_duration": "100m", "mature": ["25h"]}))
    quick = Diurnal(n=200, season=0.02, size_ms=60_000)
    flat = Life(quick, settings=settings)
    while not flat.version.maturing:
        flat.window()
    assert flat.references[-1].slots is None
    life = flat.until(25 * 60 + 4)

    assert life.version.watch is not None
    history = life.version.watch.histories.ordered
    assert len(history.expected) == len(history.values)
    assert all(
        expected.sum() == pytest.approx(values.sum())
        for expected, values in zip(history.expected, history.values, strict=True)
    )


def restored(version: Version) -> Version:
    """A version after its snapshot was read back."""
    name = ("m", "1")
    back = detect.decode(detect.encode(State(versions={name: version})))
    assert isinstance(back, State)
    return back.versions[name]


@pytest.mark.parametrize("again", [lambda version: version, restored])
def test_a_restored_life_goes_on_exactly_like_the_original(again: Callable[[Version], Version]) -> None:
    one, other = (copy(grown(WEEKEND, 6)) for _ in range(2))
    for life in (one, other):
        life.references, life.alerts, life.readings = [], [], []
    one.until(7 * DAY + 6)
    while other.next < 7 * DAY + 6:
        other.window()
        if other.next % 16 == 0:
            other.version = again(other.version)

    assert other.references == one.references
    assert other.readings == one.readings
    assert detect.encode(State(versions={("m", "1"): other.version})) == detect.encode(
        State(versions={("m", "1"): one.version})
    )


# -- hours of the week -------------------------------------------------------------------------------------------------

TEN_MINUTES_MS = 600_000
PER_DAY = 144


@cache
def three_weeks() -> detect.Settings:
    """One false alarm in W windows is allowed, a tolerance of .01."""
    return changed(SETTINGS, budget=BudgetSettings(tolerance=0.01, model_versions=1, false_alarms=1 / 0.3))


def test_with_hours_of_the_week_a_twentieth_is_found_within_an_hour_and_nothing_before() -> None:
    daily = Daily(n=2_000, size_ms=TEN_MINUTES_MS)
    found = learned(daily, 0, 21 * PER_DAY)
    assert found.slots is not None
    assert found.slots.rung == "hour_of_week"
    shift_at, delays = 22 * PER_DAY, []
    for seed in range(2, 7):
        stream = replace(daily, seed=seed, shift_at=shift_at, shift=0.05)
        told = judged(found, stream, 21 * PER_DAY, shift_at + 12, three_weeks())
        alarms = [index for index, (_, one) in enumerate(told, start=21 * PER_DAY) if one.alarms]
        delays.append(alarms[0] + 1 - shift_at)

    assert min(delays) > 0
    assert sorted(delays)[2] <= 6
