"""What metrics say of detect: counted once, read off the state, the same after a restore."""

from collections import Counter

import pytest
from flows import PER_WINDOW, Flow, Stream, built, detect_settings, view
from labelled import START_MS, Labelled, Law
from outcomeflow import Outcomed, heard, reference

from stream.detectors.budget import Settings as BudgetSettings
from stream.profiles.reference import References
from stream.stages import detect
from stream.stages.detect import Overview
from stream.wire import codec
from stream.wire.codec import Malformed

DRIFT, END = 12, 30
SETTINGS = detect_settings()


@pytest.fixture(scope="module")
def known() -> References:
    return view(built())


@pytest.fixture(scope="module")
def drifted(known: References) -> Flow:
    """A drift of amount that stays."""
    flow = Flow(known, of_detect=SETTINGS)
    return flow.run(Stream(drift_at=DRIFT * PER_WINDOW).records(END * PER_WINDOW), poll=PER_WINDOW)


def looked(flow: Flow, before: Overview | None = None, signals: int = 0) -> Overview:
    return detect.overview(flow.of_detect, flow.references, flow.state, before, signals)


def test_every_verdict_of_every_reading_is_counted_once(drifted: Flow) -> None:
    published = Counter(
        (verdict["detector"], verdict["level"]) for reading in drifted.readings for verdict in reading["verdicts"]
    )
    assert looked(drifted).verdicts == published
    assert published["histogram", "drift"] > 0


def test_a_restored_state_has_counted_the_same(drifted: Flow) -> None:
    restored = detect.decode(detect.encode(drifted.state))
    assert not isinstance(restored, Malformed)
    assert restored.tally == drifted.state.tally


def test_open_alerts_are_those_that_were_told_and_not_resolved(drifted: Flow) -> None:
    told = Counter((one["kind"], one["severity"]) for one in drifted.alerts if one["status"] == "firing")
    assert looked(drifted).versions["credit", "3"].firing == told
    assert told["data_drift", "critical"] + told["data_drift", "warning"] >= 3


def test_the_measured_rate_counts_episodes_above_info_and_forgets_after_a_period(known: References) -> None:
    settings = detect_settings(budget=BudgetSettings.model_validate({"period": "10m"}))
    flow = Flow(known, of_detect=settings)
    stream = Stream(drift_at=DRIFT * PER_WINDOW)
    flow.run(stream.records(END * PER_WINDOW), poll=PER_WINDOW)
    firing = [one for one in flow.alerts if one["status"] == "firing" and one["severity"] != "info"]
    end = codec.parse_time(flow.readings[-1]["window_end"]) or 0
    recent = [one for one in firing if (codec.parse_time(one["starts_at"]) or 0) > end - 600_000]
    assert len(firing) > len(recent)
    assert looked(flow).alarms == len(recent)


def test_evidence_is_told_as_part_of_what_an_alarm_needs(known: References, drifted: Flow) -> None:
    quiet = Flow(known, of_detect=SETTINGS).run(Stream().records(5 * PER_WINDOW), poll=PER_WINDOW)
    rest = looked(quiet).versions["credit", "3"].evidence
    assert all(0 <= ratio < 1 for ratio in rest.values())
    assert rest.keys() == {"data_drift", "prediction_drift", "data_quality", "outlier", "silence"}
    assert looked(drifted).versions["credit", "3"].evidence["data_drift"] >= 1


def test_evidence_grows_towards_the_alarm(known: References) -> None:
    flow = Flow(known, of_detect=SETTINGS)
    stream = Stream(drift_at=0, shift=0.25)
    ratios = []
    flow.run(stream.records(PER_WINDOW), poll=PER_WINDOW)
    for window in range(1, 4):
        flow.run(stream.records(PER_WINDOW, first=window * PER_WINDOW), poll=PER_WINDOW)
        ratios.append(looked(flow).versions["credit", "3"].evidence["data_drift"])
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0


def test_signals_are_told_by_falling_evidence_as_many_as_asked_for(known: References) -> None:
    flow = Flow(known, of_detect=SETTINGS)
    flow.run(Stream(drift_at=0, shift=0.6).records(2 * PER_WINDOW), poll=PER_WINDOW)
    assert looked(flow).versions["credit", "3"].signals == {}
    found = looked(flow, signals=2).versions["credit", "3"].signals
    assert next(iter(found)) == "feature:amount"
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert len(found) == 2


def test_only_versions_of_which_a_window_was_closed_are_looked_at_again(known: References) -> None:
    flow = Flow(known, of_detect=SETTINGS).run(Stream().records(3 * PER_WINDOW), poll=PER_WINDOW)
    first = looked(flow)
    flow.read(Stream().records(10, first=3 * PER_WINDOW))
    flow.commit()
    assert looked(flow, first).versions["credit", "3"] is first.versions["credit", "3"]
    flow.run(Stream().records(PER_WINDOW, first=3 * PER_WINDOW + 10), poll=PER_WINDOW)
    assert looked(flow, first).versions["credit", "3"] is not first.versions["credit", "3"]


def test_model_versions_are_measured_against_those_the_budget_is_cut_for(known: References) -> None:
    cut = detect_settings(budget=BudgetSettings(model_versions=2))
    flow = Flow(known, of_detect=cut)
    for version in ("3", "4", "5"):
        flow.read(Stream(model_version=version).records(200))
    flow.commit()
    assert looked(flow).share == 1.5


def test_the_reference_in_force_tells_the_age_of_its_data(drifted: Flow) -> None:
    (name,) = drifted.references.versions()
    tables = drifted.references.by_id(drifted.state.versions[name].reference_id or "")
    assert tables is not None
    assert looked(drifted).versions[name].data_to_ms == codec.parse_time(tables.reference.data_to)


def test_a_version_that_is_still_learned_has_nothing_to_tell() -> None:
    flow = Flow(of_detect=SETTINGS).run(Stream().records(3 * PER_WINDOW), poll=PER_WINDOW)
    one = looked(flow, signals=5).versions["credit", "3"]
    assert (dict(one.firing), dict(one.evidence), dict(one.signals), one.data_to_ms) == ({}, {}, {}, None)


def test_what_labels_tell_has_standings_of_its_own() -> None:
    stream = Labelled(changes={12: Law(relation=-1.0)})
    flow = Outcomed(heard(reference(Labelled(seed=2)))).run(stream, 24)
    found = detect.overview(flow.of_detect, flow.references, flow.state)
    standing = found.outcomes[stream.model_id, stream.model_version]
    told = Counter((one["kind"], one["severity"]) for one in flow.alerts if one["status"] == "firing")
    assert told
    assert standing.firing.keys() == told.keys()
    assert all(standing.evidence[kind] >= 1 for kind, _ in told)
    assert standing.data_to_ms == START_MS - 1
    assert standing.coverage is not None
    assert found.versions == {}
    assert detect.overview(flow.of_detect, flow.references, flow.state, found).outcomes == found.outcomes
