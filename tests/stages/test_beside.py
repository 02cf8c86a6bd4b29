"""Outcomes ask what was open among the inputs of the same window, however much later they are closed."""

from typing import Any

import msgspec
import orjson
import pytest
from flows import MINUTE_MS, PER_WINDOW, START_MS, Flow, Json, Stream, built, detect_settings, view
from labelled import Labelled, Law
from outcomeflow import TOPICS, heard, reference

from stream.alerts.retrain import Settings as RetrainSettings
from stream.profiles import outcomes
from stream.profiles.learning import Settings as LearnSettings
from stream.profiles.reference import References
from stream.signals.outcomes import ModelSettings
from stream.stages import detect, ingest
from stream.wire import codec
from stream.wire.control import ControlEvent, Relearn
from stream.wire.internal import CONTROL, OUTCOMES, WATERMARKS, SourceMark, Watermarks
from stream.wire.record import Outgoing, Record

DRIFT, CONCEPT, END = 12, 15, 34


class Both(Flow):
    """Predictions through ingest, and windows of outcomes beside them."""

    def labelled(self, stream: Labelled, windows: range, *, upto: int | None = None) -> list[Outgoing]:
        """Some windows of outcomes, and how far feedback and join have come."""
        values = [codec.encode(part, OUTCOMES) for index in windows for part in outcomes.split(stream.window(index))]
        mark_ms = START_MS + (upto if upto is not None else windows.stop) * MINUTE_MS
        marks = Watermarks([SourceMark(topic, 0, 0, mark_ms) for topic in TOPICS], dict.fromkeys(TOPICS, 1), 0)
        told = []
        for value in [*values, codec.encode(marks, WATERMARKS)]:
            record = Record("drift.profiles", 0, len(self.log), 0, None, value)
            self.log.append(record)
            self.state, records = detect.step(self.of_detect, self.references, self.state, [record])
            told += records
        self.published += told
        return told


@pytest.fixture(scope="module")
def known() -> References:
    return view(built(), reference(Labelled(seed=99)))


def settings(**changes: Any) -> detect.Settings:
    return detect_settings(outcome_topics=TOPICS, **changes)


def run(known: References, later: int, *, step: int = 1, **changes: Any) -> Both:
    """A drift of the inputs from `DRIFT` on and of the relation from `CONCEPT` on; labels come `later` windows later.

    `step`: windows of labels that come at once.
    """
    of_ingest = ingest.Settings(feedback=("feedback",), models={"credit": ModelSettings(positive_label="approve")})
    flow = Both(known, of_ingest=of_ingest, of_detect=settings(**changes))
    stream = Labelled(seed=2, changes={CONCEPT: Law(flipped=True)})
    rows, done = Stream(drift_at=DRIFT * PER_WINDOW).records((END + later + 2) * PER_WINDOW), 0
    for index in range(END + later + 2):
        flow.read(rows[index * PER_WINDOW : (index + 1) * PER_WINDOW])
        flow.commit()
        due = min(index - later, END)
        if due - done >= step or (due == END and done < END):
            flow.labelled(stream, range(done, due))
            done = due
    return flow


def of_outcomes(flow: Flow) -> list[tuple[bytes | None, bytes | None]]:
    """What was published of outcomes, in order."""
    kinds = {"performance", "concept_drift", "retrain"}
    found = []
    for record in flow.of("alerts") + flow.of("windows"):
        one = orjson.loads(record.value or b"")
        data = one.get("data", one)
        if data.get("kind") in kinds or str(data.get("signal", "")).startswith("outcome:"):
            found.append((record.key, record.value))
    return found


def firing(flow: Flow, kind: str) -> Json:
    (found,) = [
        one
        for one in flow.alerts
        if (one["kind"], one["segment"], one["sequence"]) == (kind, "all", 0) and one["status"] == "firing"
    ]
    return found


def test_labels_that_come_an_hour_later_give_the_same_bytes(known: References) -> None:
    at_once, later, together = run(known, 1), run(known, 61), run(known, 20, step=7)
    assert of_outcomes(at_once) == of_outcomes(later) == of_outcomes(together)
    details = firing(later, "concept_drift")["details"]
    assert details["inputs_moved"]
    assert firing(later, "performance")["details"]["relation_moved"]


def test_readings_have_an_estimate_from_the_predictions_of_the_same_window(known: References) -> None:
    flow = run(known, 5)
    metrics = [one["metrics"]["estimated"] for one in flow.reading("outcome:error")]
    assert all(one["n"] == PER_WINDOW and one["calibrated"] for one in metrics[:END])
    assert 0.5 < metrics[0]["accuracy"] < 1
    assert metrics[0]["accuracy_sd"] < 0.05


def test_what_is_kept_for_outcomes_goes_when_they_are_closed(known: References) -> None:
    flow = run(known, 5)
    (version,) = flow.state.versions.values()
    assert len(version.answers) <= 8
    assert [one.kind for one in version.spells if one.segment == "all"] == ["data_drift"]


def test_where_no_feedback_is_read_nothing_is_kept(known: References) -> None:
    flow = Flow(known)
    flow.run(Stream().records(5 * PER_WINDOW))
    (version,) = flow.state.versions.values()
    assert version.answers == {}


def test_a_drift_of_the_inputs_may_ask_for_a_new_model_too(known: References) -> None:
    asking = RetrainSettings.model_validate({"on": ["data_drift"], "settle": "2m", "min_labels": 500})
    flows = [run(known, later, retrain=asking) for later in (1, 30)]
    requests = [[one for one in flow.alerts if one["kind"] == "retrain"] for flow in flows]
    assert requests[0] == requests[1]
    (request,) = requests[0]
    data = firing(flows[0], "data_drift")
    assert request["details"]["reason"] == "data_drift"
    assert data["alert_id"] in request["details"]["causes"]
    assert request["details"]["n_rows"] > request["details"]["n_labels"] // 2 > 0


def test_outcomes_do_not_run_ahead_of_their_inputs(known: References) -> None:
    flow = Both(known, of_detect=settings())
    flow.read(Stream().records(3 * PER_WINDOW))
    flow.commit()
    flow.labelled(Labelled(seed=2), range(6))
    assert [one["window_start"] for one in flow.reading("outcome:error")] == [
        one["window_start"] for one in flow.reading()
    ]


def test_a_relearn_of_the_inputs_is_one_of_their_outcomes_too(known: References) -> None:
    learn = LearnSettings.model_validate({"min_duration": "1m", "rows": 640})
    flow = Both(known, of_ingest=ingest.Settings(feedback=("feedback",)), of_detect=settings(learn=learn, horizon=0))
    at_ms = START_MS + 10 * MINUTE_MS
    event = ControlEvent(
        source="/test", id="1", decision=Relearn(effective_at_ms=at_ms, model_id="credit", model_version="3")
    )
    stream = Labelled(seed=2)
    for index in range(125):
        flow.read(Stream().records(PER_WINDOW, first=index * PER_WINDOW))
        flow.commit()
        if index == 9:
            record = Record("drift.profiles", 0, len(flow.log), 0, None, codec.encode(event, CONTROL))
            flow.log.append(record)
            flow.state, _ = detect.step(flow.of_detect, flow.references, flow.state, [record])
        flow.labelled(stream, range(index, index + 1))
    ids = [one["reference_id"] for one in flow.reading("outcome:error")]
    assert len(set(ids[:10])) == 1
    begins = ids.index(None)
    assert 10 <= begins <= 14
    assert ids[begins + 100] is not None
    assert ids[begins + 100] != ids[0]
    assert set(ids[begins : begins + 100]) == {None}


@pytest.mark.parametrize(
    ("drift_at", "origin", "skew"), [(0, "built", True), (20, "built", False), (0, "learned", False)]
)
def test_serving_that_differs_from_training_from_its_start_on_is_skew(
    drift_at: int, origin: Any, *, skew: bool
) -> None:
    reference = codec.named(msgspec.structs.replace(built(), origin=origin))
    flow = Flow(view(reference)).run(Stream(drift_at=drift_at * PER_WINDOW).records(26 * PER_WINDOW), poll=PER_WINDOW)
    alert = firing(flow, "data_drift")
    assert (alert["reference_origin"], alert["details"]["skew"]) == (origin, skew)


def test_a_view_without_references_of_outcomes_waits_for_none() -> None:
    assert heard().outcomes_at("credit", "3", START_MS, 9, lambda one: one) is None
