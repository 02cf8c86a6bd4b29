"""What detect's states say, gathered over the tasks: sums and maxima, bounded labels, and one warning."""

from collections.abc import Mapping
from typing import Any

from counting import Nothing
from counting import stages as counting_stages
from msgspec import Struct
from msgspec.structs import replace

from stream.worker.overview import Overviews
from stream.worker.status import Status
from stream.worker.task import Phase, Task


class One(Struct, frozen=True):
    """A model version."""

    firing: Mapping[tuple[str, str], int] = {}
    evidence: Mapping[str, float] = {}
    signals: Mapping[str, float] = {}
    data_to_ms: int | None = None
    coverage: float | None = None


class Said:
    """Events that were logged."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, event: str, **_fields: Any) -> None:
        self.events.append(event)


def task(partition: int, overview: Any, phase: Phase = Phase.RUNNING, stage: Any = "detect") -> Task:
    found = Task(stage, ("drift.profiles", partition), 0.0)
    found.settle(overview, 0)
    found.phase = phase
    return found


def looks(models: int = 10, signals: int = 3, say: Said | None = None) -> Overviews:
    stages = replace(counting_stages(), detect_overview=lambda _references, state, _before, _signals: state)
    return Overviews(stages, models, signals, say or Said())


def test_verdicts_are_counted_from_the_first_look_on_and_never_twice() -> None:
    status, overviews = Status(), looks()
    for count in (5, 7, 7, 12):
        overviews.look(status, None, [task(0, Nothing(verdicts={("adwin", "ok"): count}, suppressed=count))])
    assert status.detection.verdicts == {("adwin", "ok"): 7}
    assert status.detection.suppressed == {"muted": 7}


def test_a_task_that_goes_and_comes_back_counts_nothing_of_what_others_did() -> None:
    status, overviews = Status(), looks()
    here, back = (task(0, Nothing(verdicts={("adwin", "ok"): count})) for count in (5, 50))
    for tasks in ([here], [], [back]):
        overviews.look(status, None, tasks)
    assert not status.detection.verdicts.total()


def test_what_labels_tell_stands_beside_what_inputs_tell() -> None:
    inputs = One({("data_drift", "warning"): 1}, {"data_drift": 0.5}, data_to_ms=1_000)
    labels = One({("performance", "critical"): 1}, {"performance": 1.0}, data_to_ms=500, coverage=0.8)
    status = Status()
    looks().look(status, None, [task(0, Nothing({("m", "1"): inputs}, {("m", "1"): labels}))])
    found = status.detection
    assert found.firing == {("m", "data_drift", "warning"): 1, ("m", "performance", "critical"): 1}
    assert found.evidence == {("m", "data_drift"): 0.5, ("m", "performance"): 1.0}
    assert (found.reference_to_ms, found.coverage) == ({("m", "1"): 1_000}, {("m", "1"): 0.8})


def test_alerts_add_up_and_of_evidence_the_most_counts() -> None:
    status = Status()
    one = One({("data_drift", "warning"): 2}, {"data_drift": 0.5}, {"feature:a": 0.4, "feature:b": 0.1}, 1_000)
    other = One({("data_drift", "warning"): 1}, {"data_drift": 0.7}, {"feature:a": 0.2, "feature:c": 0.3}, 2_000)
    looks(signals=2).look(
        status,
        None,
        [
            task(0, Nothing({("m", "1"): one}, alarms=2, share=0.25)),
            task(1, Nothing({("m", "2"): other}, alarms=1, share=0.5)),
        ],
    )
    found = status.detection
    assert found.firing == {("m", "data_drift", "warning"): 3}
    assert found.evidence == {("m", "data_drift"): 0.7}
    assert found.signal_evidence == {("m", "feature:a"): 0.4, ("m", "feature:c"): 0.3}
    assert found.reference_to_ms == {("m", "1"): 1_000, ("m", "2"): 2_000}
    assert (found.budget_alarms, found.budget_shares) == (3, 0.75)


def test_above_the_bound_of_labels_models_are_one() -> None:
    status = Status()
    one = One({("data_drift", "warning"): 1}, {"data_drift": 0.5}, {}, 1_000)
    looks(models=1).look(status, None, [task(0, Nothing({(name, "1"): one for name in "abc"}))])
    assert status.detection.firing == {("a", "data_drift", "warning"): 1, ("other", "data_drift", "warning"): 2}
    assert status.detection.reference_to_ms == {("a", "1"): 1_000}


def test_a_task_on_its_way_to_its_state_says_nothing_and_other_stages_neither() -> None:
    status = Status()
    loud = Nothing(alarms=9)
    looks().look(status, None, [task(0, loud, Phase.REPLAYING), task(1, loud, stage="ingest")])
    assert status.detection.budget_alarms == 0


def test_more_model_versions_than_the_budget_is_cut_for_are_warned_of_once() -> None:
    status, said = Status(), Said()
    overviews = looks(say=said)
    for share in (1.0, 1.5, 2.0, 0.5, 1.1):
        overviews.look(status, None, [task(0, Nothing(share=share))])
    assert said.events == ["budget_exceeded", "budget_exceeded"]
