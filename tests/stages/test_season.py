"""A season is no drift, a drift in season is one, and hours never seen are not judged."""

from functools import cache

import numpy as np
import pytest
from diurnal import MONDAY_MS, PER_DAY, SETTINGS, Diurnal, judged, learned, start_of
from flows import PER_WINDOW, START_MS, Flow, Stream, built, detect_settings, view, windows
from msgspec.structs import replace

from stream.detectors import Level, Reason
from stream.profiles import reference, seasons
from stream.profiles.learning import Settings as LearnSettings
from stream.stages import detect, ingest
from stream.stages.detect import inputs, season
from stream.stages.detect.plan import plan
from stream.wire import codec
from stream.wire.codec import named
from stream.wire.internal import Reference, Slots

HOUR = PER_DAY // 24


@cache
def monday(**changes: float) -> Reference:
    """What a Monday teaches."""
    return learned(Diurnal(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_a_daily_season_stays_quiet(size: float) -> None:
    told = judged(monday(season=size), Diurnal(season=size, seed=2), PER_DAY, 2 * PER_DAY + PER_DAY // 2)

    for _, one in told:
        assert not one.alarms
        assert one.level[0, 0] == Level.OK
        assert not any((asked.verdicts.level == Level.DRIFT).any() for asked in one.asked)


def test_without_slots_the_same_season_is_told_or_hides_the_shift() -> None:
    blind = replace(monday(season=1.0), slots=None)
    signals = {name: replace(one, overdispersion=1.0) for name, one in blind.signals.items()}
    told = judged(replace(blind, signals=signals), Diurnal(season=1.0, seed=2), PER_DAY, PER_DAY + 8 * HOUR)

    assert any(one.alarms for _, one in told)


@pytest.mark.parametrize("at_hour", [0, 7, 16])
def test_a_shift_in_season_is_found_and_is_one_episode_until_its_end(at_hour: int) -> None:
    shift_at = 2 * PER_DAY + at_hour * HOUR
    stream = Diurnal(season=1.0, seed=2, shift_at=shift_at, shift=0.5)
    told = judged(monday(season=1.0), stream, shift_at - PER_DAY // 2, shift_at + PER_DAY)
    alarms = [index for index, (_, one) in enumerate(told, start=shift_at - PER_DAY // 2) if one.alarms]

    # The change is remembered as growth per bin, which a shift is not at all hours alike: the episode may be updated.
    assert len(alarms) <= 3
    assert 0 < alarms[0] - shift_at <= 20
    assert not any(one.returns for _, one in told)
    (episode,) = told[-1][0].episodes.values()
    point = episode.points[0]
    assert point.earliest_ms <= start_of(shift_at) <= point.latest_ms


def test_a_return_in_season_closes_the_episode() -> None:
    gone, back = 2 * PER_DAY, 2 * PER_DAY + 9 * HOUR
    found = monday(season=1.0)
    own = plan(SETTINGS, reference.compile_tables(found), None)
    moved, normal = Diurnal(season=1.0, seed=2, shift_at=gone, shift=0.5), Diurnal(season=1.0, seed=2)
    state = judged(found, moved, PER_DAY, back)[-1][0]
    assert state.episodes
    for index in range(back, back + 6 * HOUR):
        state, _ = inputs.update(own, state, start_of(index), normal.profile(own.tables, index))

    assert not state.episodes


def test_a_weekend_after_learning_on_a_work_day_is_not_judged() -> None:
    stream = Diurnal(season=0.3, weekend=0.5, seed=2)
    told = judged(monday(season=0.3), stream, 4 * PER_DAY, 8 * PER_DAY)

    reasons = np.array([one.reason[0, 0] for _, one in told])
    # From half past eleven on Friday evening windows lean on Saturday's first hour.
    lean = HOUR // 2 - 2
    weekend = slice(PER_DAY - lean, 3 * PER_DAY)
    assert (reasons[weekend][lean:-lean] == Reason.LEARNING).all()
    assert {one.level[0, 0] for _, one in told[weekend][lean:-lean]} == {Level.NOT_READY}
    assert (reasons[: PER_DAY - HOUR] == Reason.NONE).all()
    assert (reasons[3 * PER_DAY + HOUR :] == Reason.NONE).all()
    assert not any(one.alarms for _, one in told)


def test_windows_of_one_moment_share_their_law() -> None:
    own = plan(SETTINGS, reference.compile_tables(monday(season=1.0)), None)
    one, same, other = (season.normal(own, MONDAY_MS + day * 86_400_000) for day in (0, 7, 0))
    later = season.normal(own, MONDAY_MS + 6 * seasons.HOUR_MS)

    assert one is same is other
    assert one is not None
    assert later is not None
    assert later.ordered.p[0, 0] != one.ordered.p[0, 0]
    assert season.slot(own, MONDAY_MS + 6 * seasons.HOUR_MS) == "hour_of_day_weekend=6"


# -- the stage ---------------------------------------------------------------------------------------------------------


def in_slots(seen_ms: int) -> Reference:
    """A reference whose slots are all alike; weekends were seen for `seen_ms`."""
    found = built()
    tables = reference.compile_tables(found)
    ordered, unordered = reference.coarse(tables, reference.reference_counts(tables.layout)[:1])
    counts: dict[str, list[list[int]]] = {}
    for family, own in ((tables.ordered, ordered), (tables.unordered, unordered)):
        for place, signal in enumerate(family.signals.tolist()):
            row = own[0, place, : int(family.bins[place])].tolist()
            counts[tables.layout.names[signal]] = [row] * 48
    slots = Slots("hour_of_day_weekend", "UTC", counts, [seasons.HOUR_MS] * 24 + [seen_ms] * 24)
    return named(replace(found, reference_id="", slots=slots))


def drifted(found: Reference, *, again: bool = False) -> Flow:
    """A drift in window 12, on a Saturday; `again`: restored from a snapshot before every record."""
    flow = Flow(view(found))
    records = Stream(drift_at=12 * PER_WINDOW).records(20 * PER_WINDOW)
    for first in range(0, len(records), PER_WINDOW):
        flow.read(records[first : first + PER_WINDOW])
        flow.commit(restored if again else lambda state: state)
    return flow


def restored(state: detect.State) -> detect.State:
    back = detect.decode(detect.encode(state))
    assert isinstance(back, detect.State)
    return back


def test_readings_name_the_slot_of_the_whole_model() -> None:
    flow = drifted(in_slots(seasons.HOUR_MS))

    assert {one["reference_slot"] for one in flow.reading()} == {"hour_of_day_weekend=24"}
    assert {one["reference_slot"] for one in flow.reading(segment="country=AT")} <= {"all"}
    assert flow.alerts


def test_an_hour_not_seen_reads_learning_in_all_segments() -> None:
    flow = drifted(in_slots(0))

    verdicts = [verdict for one in flow.readings if one["n"] for verdict in one["verdicts"]]
    assert {verdict["reason"] for verdict in verdicts if verdict["detector"] == "histogram"} <= {
        "learning",
        "reference_small",
    }
    assert not flow.alerts


def test_a_season_restored_at_every_record_tells_the_same() -> None:
    found = in_slots(seasons.HOUR_MS)
    one, other = drifted(found), drifted(found, again=True)

    assert one.published == other.published
    assert detect.encode(one.state) == detect.encode(other.state)
    assert START_MS % 86_400_000 == 0


def test_a_stream_learned_for_a_day_has_slots_and_knows_the_hours_it_has_not_seen() -> None:
    """From Thursday, the hours of Friday are known; those of a Saturday are not."""
    settings = detect_settings(
        windows=windows(size="10m"), learn=LearnSettings.model_validate({"rows": 1_000, "min_duration": "1d"})
    )
    of_ingest = ingest.Settings(sample_rows=1_000, windows=settings.windows)
    flow = Flow(of_ingest=of_ingest, of_detect=settings)
    per_hour, day_ms = 1_800, 86_400_000
    thursday = Stream(start_ms=START_MS - 2 * day_ms, step_ms=2_000)
    flow.run(thursday.records(28 * per_hour), poll=300)
    saturday = Stream(start_ms=START_MS + 4 * seasons.HOUR_MS, step_ms=2_000, prefix="s", drift_at=0)
    flow.run(saturday.records(2 * per_hour), poll=300)

    learned = codec.decode_reference(flow.of("references")[-1].value or b"")
    assert isinstance(learned, Reference)
    assert learned.slots is not None
    assert (learned.slots.rung, learned.slots.timezone) == ("hour_of_day_weekend", "UTC")
    readings = [one for one in flow.reading() if one["reference_id"] == learned.reference_id and one["n"]]
    friday = [one for one in readings if one["window_start"] < "2026-11-21"]
    assert friday[0]["reference_slot"].startswith("hour_of_day_weekend=")
    assert {verdict["level"] for one in friday for verdict in one["verdicts"]} <= {"ok", "not_ready"}
    assert friday[-1]["verdicts"][0]["level"] == "ok"
    unseen = {(verdict["level"], verdict["reason"]) for one in readings[len(friday) :] for verdict in one["verdicts"]}
    assert unseen == {("not_ready", "learning")}
    assert not [one for one in flow.alerts if one["kind"] not in ("outlier", "silence")]
