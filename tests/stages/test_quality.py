"""What detect says of rates: missing, invalid and unseen values are one kind of alert, unusual rows another."""

import random
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import msgspec
import numpy as np
import orjson
import pytest
from flows import (
    DECLARED,
    MINUTE_MS,
    PER_WINDOW,
    START_MS,
    Flow,
    Json,
    Stream,
    built,
    detect_settings,
    same,
    view,
    window,
)

from stream.alerts.policy import Settings as AlertSettings
from stream.detectors.budget import Settings as BudgetSettings
from stream.detectors.histogram import Settings as HistogramSettings
from stream.detectors.mean import Settings as MeanSettings
from stream.detectors.river import Settings as RiverSettings
from stream.profiles.building import build
from stream.profiles.cuts import Plan
from stream.profiles.reference import References, Tables, compile_tables, reference_counts
from stream.profiles.summaries import Dense
from stream.stages import detect
from stream.stages.detect import inputs, watch
from stream.stages.detect import plan as planning
from stream.wire.codec import named
from stream.wire.internal import Reference
from stream.wire.outbound import Alert

Change: TypeAlias = Callable[[Json, random.Random], None]

BEGIN, BACK, END = 12, 24, 40
"""Windows in which something goes wrong, in which it is mended, and after which the stream ends."""


@pytest.fixture(scope="module")
def reference() -> Reference:
    return built()


@pytest.fixture(scope="module")
def known(reference: Reference) -> References:
    return view(reference)


def spoiled(change: Change, *, begin: int = BEGIN, back: int = BACK, end: int = END, seed: int = 3) -> list[bytes]:
    rng, rows = random.Random(1), Stream(seed=seed).rows(end * PER_WINDOW)
    for row in rows[begin * PER_WINDOW : back * PER_WINDOW]:
        change(row, rng)
    return [orjson.dumps(row) for row in rows]


def missing(row: Json, rng: random.Random) -> None:
    if rng.random() < 0.4:
        row["features"]["channel"] = None


def unseen(row: Json, rng: random.Random) -> None:
    if rng.random() < 0.1:
        row["features"]["channel"] = "fax"


def invalid(row: Json, rng: random.Random) -> None:
    if rng.random() < 0.3:
        row["features"]["ratio"] = "much"


def odd(row: Json, rng: random.Random) -> None:
    if rng.random() < 0.05:
        row["features"]["amount"] = 1e9


def told(flow: Flow, segment: str = "all") -> list[Json]:
    """Alerts with an end, of one segment."""
    return [one for one in flow.alerts if one["segment"] == segment and one["status"] != "notice"]


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (missing, [("missing", "feature:channel", 0.4)]),
        (unseen, [("unseen", "feature:channel", 0.1)]),
        (invalid, [("invalid", "feature:ratio", 0.3), ("rate", "row:quality", 0.3)]),
    ],
)
def test_a_rate_that_jumps_is_one_alert_of_data_quality_until_it_returns(
    change: Change, checks: list[tuple[str, str, float]], known: References
) -> None:
    flow = Flow(known).run(spoiled(change), poll=PER_WINDOW)
    assert {one["kind"] for one in told(flow)} <= {"data_quality", "outlier"}
    firing, resolved = (one for one in told(flow) if one["kind"] == "data_quality")
    assert (firing["status"], firing["severity"], resolved["status"]) == ("firing", "warning", "resolved")
    assert firing["alert_id"] == resolved["alert_id"]
    assert firing["starts_at"] <= window(BEGIN + 3)
    assert resolved["resolve_reason"] == "returned"
    assert window(BACK) < resolved["ends_at"] < window(BACK + 12)
    found = firing["details"]["checks"]
    assert [(one["check"], one["signal"], round(one["rate"], 1)) for one in found] == checks
    assert max(one["reference_rate"] for one in found) < 0.001
    assert firing["change_type"] is None
    assert firing["change_point"]["earliest"] <= window(BEGIN) <= firing["change_point"]["latest"]
    assert [(one["measure"], one["detector"], one["direction"]) for one in firing["signals"]] == [
        (check, "mean", "up") for check, *_ in checks
    ]
    feature = checks[0][1].removeprefix("feature:")
    assert firing["annotations"]["action"] == f"Check the producer of {feature}: fields, types and categories."
    for one in flow.alerts:
        assert msgspec.convert(one, Alert)


def test_readings_carry_the_verdicts_of_rates_and_the_alert_they_stand_in(known: References) -> None:
    flow = Flow(known).run(spoiled(invalid), poll=PER_WINDOW)
    firing, resolved = (one for one in told(flow) if one["kind"] == "data_quality")
    for one in flow.reading("feature:ratio"):
        measures = [(verdict["measure"], verdict["detector"]) for verdict in one["verdicts"]]
        assert measures == [
            ("distribution", "histogram"),
            ("mean", "adwin"),
            ("spread", "adwin"),
            ("mean", "page_hinkley"),
            ("missing", "mean"),
            ("invalid", "mean"),
        ]
        is_open = firing["starts_at"] <= one["window_end"] < resolved["ends_at"]
        assert one["alert_id"] == (firing["alert_id"] if is_open else None)
        if firing["starts_at"] <= one["window_end"] <= window(BACK):
            assert (one["level"], one["verdicts"][-1]["level"]) == ("drift", "drift")
            assert one["verdicts"][-1]["n"] == PER_WINDOW
    assert [verdict["measure"] for verdict in flow.reading("feature:channel")[0]["verdicts"]] == [
        "distribution",
        "missing",
        "invalid",
        "unseen",
    ]
    rates = [one["mean"] for one in flow.reading("row:quality")]
    assert rates[BEGIN - 1] == 0.0
    assert rates[BEGIN] == pytest.approx(0.3, abs=0.1)
    row = flow.reading("row:quality")[BEGIN]
    assert (row["n"], row["counts"]) == (PER_WINDOW, [PER_WINDOW - row["counts"][1], row["counts"][1], 0, 0])
    assert row["counts"][1] == flow.reading("feature:ratio")[BEGIN]["n_invalid"]


def test_a_burst_of_unusual_rows_is_one_condition_beside_the_notices_of_the_rows(known: References) -> None:
    flow = Flow(known).run(spoiled(odd), poll=PER_WINDOW)
    firing, resolved = told(flow)
    assert [(one["kind"], one["status"]) for one in (firing, resolved)] == [
        ("outlier", "firing"),
        ("outlier", "resolved"),
    ]
    assert firing["severity"] == "info"
    assert firing["details"]["rate"] == pytest.approx(0.05, abs=0.02)
    assert firing["details"]["reference_rate"] < 0.001
    assert firing["details"]["n"] >= 2 * PER_WINDOW
    assert (firing["change_type"], resolved["change_type"]) == ("sudden", "temporary")
    assert resolved["resolve_reason"] == "returned"
    assert Counter(one["status"] for one in flow.alerts)["notice"] > 100
    assert flow.reading("row:outlier")[BEGIN]["mean"] == pytest.approx(0.05, abs=0.04)
    for one in flow.alerts:
        assert msgspec.convert(one, Alert)


def test_a_rate_that_vanishes_moves_down() -> None:
    rng = random.Random(2)
    training = [
        msgspec.structs.replace(row, features={**row.features, "channel": None}) if rng.random() < 0.3 else row
        for row in Stream(seed=99, start_ms=START_MS - 24_000 * 200, prefix="t").training(24_000)
    ]
    found = build(training, Plan("credit", "3", MINUTE_MS, DECLARED), serving=True, effective_from_ms=START_MS)

    def often(row: Json, rng: random.Random) -> None:
        if rng.random() < 0.3:
            row["features"]["channel"] = None

    flow = Flow(view(found)).run(spoiled(often, begin=0, back=10, end=25), poll=PER_WINDOW)
    (firing,) = told(flow)
    assert (firing["kind"], firing["status"], firing["signals"][0]["direction"]) == ("data_quality", "firing", "down")
    assert firing["change_point"]["earliest"] <= window(10) <= firing["change_point"]["latest"]


def test_a_reference_that_does_not_know_serving_learns_the_spread_of_rates_first() -> None:
    blind = view(built(serving=False))
    flow = Flow(blind).run(spoiled(missing, begin=102, back=108, end=108), poll=PER_WINDOW)
    assert {one["kind"] for one in told(flow)} == {"data_quality"}
    assert window(103) <= told(flow)[0]["starts_at"] <= window(106)
    early = Flow(blind).run(spoiled(missing, begin=5, back=30, end=30), poll=PER_WINDOW)
    assert told(early) == []
    assert "warning" in {one["level"] for one in early.reading("feature:channel")}


def test_a_rate_the_reference_does_not_tell_is_not_judged(reference: Reference) -> None:
    without = named(msgspec.structs.replace(reference, reference_id="", rates={}))
    flow = Flow(view(without)).run(spoiled(invalid, begin=2, end=8, back=8), poll=PER_WINDOW)
    verdicts = [one["verdicts"] for one in flow.reading("row:quality")]
    assert {(verdict["level"], verdict["reason"]) for (verdict,) in verdicts} == {("not_ready", "no_reference")}
    assert {one["reference_mean"] for one in flow.reading("row:quality")} == {None}
    assert [one["kind"] for one in told(flow)] == ["data_quality"]


# -- the budget --------------------------------------------------------------------------------------------------------


def profiles(tables: Tables, windows: int, rows: int, seed: int) -> list[Dense]:
    """Windows of independent rows that follow the reference exactly, special values included."""
    rng, layout = np.random.default_rng(seed), tables.layout
    law = reference_counts(layout).astype(np.float64)
    segments, none = len(tables.segments), np.zeros(len(tables.segments), np.int64)
    found = []
    for _ in range(windows):
        counts = np.zeros(law.shape, np.int64)
        for first, width in zip(layout.first.tolist(), layout.width.tolist(), strict=True):
            for segment in range(segments):
                own = law[segment, first : first + width]
                if own.sum() > 0:
                    counts[segment, first : first + width] = rng.multinomial(rows, own / own.sum())
        rare = [rng.binomial(rows, tables.rates.row_mean[:, place]) for place in (0, 1)]
        moments = np.zeros((segments, len(layout.numeric), 4), np.int64)
        found.append(Dense(none + rows, none, rare[0], rare[1], counts, moments))
    return found


def test_false_alarms_of_rates_stay_within_the_budget_at_no_tolerance(reference: Reference) -> None:
    tables = compile_tables(reference)
    settings = detect_settings(
        budget=BudgetSettings.model_validate({"false_alarms": 16, "period": "1h", "model_versions": 1}),
        mean=MeanSettings(tolerance=0.0, confirm=1),
        histogram=HistogramSettings(confirm=1),
    )
    own, windows = planning.plan(settings, tables, None), 500
    state, alarms = inputs.start(own, 0, {}), Counter[str]()
    for index, profile in enumerate(profiles(tables, windows, 200, seed=7)):
        state, judged = inputs.update(own, state, index * MINUTE_MS, profile)
        alarms.update(kind for _, kind in judged.alarms)
        for group in judged.alarms:
            state = watch._reset_quiet(own, state, group)
        state = msgspec.structs.replace(state, episodes={}, open_form=None)
    for kind in ("data_quality", "outlier"):
        allowed = float((windows / np.exp(own.ln_group[kind])).sum())
        assert allowed > 4
        assert alarms[kind] <= allowed + 3 * allowed**0.5


def test_a_stream_with_missing_values_like_the_reference_is_quiet(known: References) -> None:
    flow = Flow(known).run(Stream(seed=8).records(60 * PER_WINDOW), poll=PER_WINDOW)
    assert sum(one["n_missing"] for one in flow.reading("feature:amount")) > 100
    assert told(flow) == []
    for name in ("row:quality", "row:outlier"):
        assert {one["level"] for one in flow.reading(name)} == {"ok"}


# -- which detectors ---------------------------------------------------------------------------------------------------


def more(row: Json, rng: random.Random) -> None:
    del rng
    row["features"]["ratio"] += 0.05


def test_detectors_that_are_not_enabled_say_nothing_and_cost_no_threshold(known: References) -> None:
    quiet = Flow(known, of_detect=detect_settings(enabled=("histogram",)))
    quiet.run(spoiled(missing), poll=PER_WINDOW)
    assert told(quiet) == []
    verdicts = [verdict for one in quiet.readings for verdict in one["verdicts"]]
    assert {verdict["detector"] for verdict in verdicts} == {"histogram", "silence"}
    assert {one["level"] for one in quiet.reading("row:quality")} == {"not_ready"}
    alone = Flow(known, of_detect=detect_settings(enabled=("adwin",))).run(spoiled(more), poll=PER_WINDOW)
    assert told(alone) == []
    assert {entry["detector"] for one in alone.alerts for entry in one["signals"]} == {"adwin"}
    assert alone.alerts


def test_the_notices_of_all_enabled_tests_share_one_budget(reference: Reference) -> None:
    tables = compile_tables(reference)
    for enabled, count in [
        (("histogram", "mean", "adwin", "page_hinkley"), 3),
        (("histogram", "adwin"), 2),
        (("histogram", "page_hinkley", "river:KSWIN", "river:ADWIN"), 3),
        (("mean",), 0),
    ]:
        assert planning.plan(detect_settings(enabled=enabled), tables, None).tests_per_signal == count


RIVER = {"river:PageHinkley": RiverSettings(name="PageHinkley", parameters={"threshold": 0.5, "min_instances": 5})}


def test_a_detector_of_river_is_told_like_those_of_our_own(known: References) -> None:
    settings = detect_settings(
        enabled=("histogram", "river:PageHinkley"),
        river=RIVER,
        alerts=AlertSettings.model_validate({"update_interval": "1m"}),
    )
    flow = Flow(known, of_detect=settings).run(spoiled(more), poll=PER_WINDOW)
    fired = {
        (one["segment"], one["signal"])
        for one in flow.readings
        for verdict in one["verdicts"]
        if (verdict["detector"], verdict["measure"], verdict["level"]) == ("river:PageHinkley", "mean", "drift")
    }
    listed = {
        (one["segment"], entry["signal"])
        for one in flow.alerts
        for entry in one["signals"]
        if entry["detector"] == "river:PageHinkley"
    }
    assert ("all", "feature:ratio") in fired
    assert fired <= listed
    assert told(flow)[0]["kind"] == "data_drift"


def test_a_restored_state_of_all_detectors_goes_on_exactly_like_the_original(known: References) -> None:
    settings = detect_settings(enabled=("histogram", "mean", "adwin", "page_hinkley", "river:PageHinkley"), river=RIVER)

    def restored(state: detect.State) -> detect.State:
        found = detect.decode(detect.encode(state))
        assert isinstance(found, detect.State)
        assert same(found, state)
        return found

    def both(row: Json, rng: random.Random) -> None:
        invalid(row, rng)
        odd(row, rng)

    values = spoiled(both, begin=4, back=10, end=20)
    one = Flow(known, of_detect=settings).run(values, poll=PER_WINDOW)
    other = Flow(known, of_detect=settings)
    for first in range(0, len(values), PER_WINDOW):
        other.read(values[first : first + PER_WINDOW])
        before, old = detect.encode(other.state), other.state
        other.commit(restored)
        assert detect.encode(old) == before
    other.commit(restored)
    assert other.published == one.published
    assert same(other.state, one.state)
