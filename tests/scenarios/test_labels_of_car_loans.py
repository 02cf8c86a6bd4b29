"""The car-loan stream with its targets three days late: performance falls, the relation holds, the estimate knew.

`statistics.md` 13, figure 6: the first 50,000 rows, all labelled, make both references; the next 50,000 go through the
same loop and stages as everything else, and each is followed by its target.
"""

import numpy as np
import orjson
import pytest
from datasets import DRIFT_ROW, MODEL, car_loan, record, time_of, training_rows
from flows import Json, detect_settings, published, stages, windows

from stream.profiles import outcome_learning, outcomes
from stream.profiles.building import build
from stream.profiles.cuts import Plan
from stream.signals.outcomes import Met, ModelSettings
from stream.stages import ingest, join
from stream.wire.codec import parse_time
from stream.wire.internal import Outcomes, Reference, ScoreOf
from stream.wire.record import Record, Role
from stream.worker.replay import replay
from stream.worker.settings import Settings

DAY_MS = 86_400_000
DELAY_MS = 3 * DAY_MS


def label_of(row: dict[str, str]) -> str:
    return str(int(float(row["repaid"])))


def labelled_windows(size_ms: int) -> list[Outcomes]:
    """The windows of the reference, labels as of their predictions."""
    rows = car_loan("reference")
    n, times = len(rows), np.array([time_of(row) for row in rows])
    zero, nan = np.zeros(n, np.int64), np.full(n, np.nan)
    met = Met(
        model_id=MODEL,
        windows_ms=times - times % size_ms,
        versions=["1"],
        version=zero,
        classes=["0", "1"],
        predicted=np.array([int(row["y_pred"]) for row in rows]),
        actual=np.array([int(label_of(row)) for row in rows]),
        scores=np.array([float(row["y_pred_proba"]) for row in rows]),
        score_of=np.full(n, ScoreOf.POSITIVE),
        outputs=nan,
        truths=nan,
        delays_ms=zero,
        segments=[[]],
        segment=zero,
        topics=["feedback"],
        topic=zero,
        partitions=zero,
        offsets=np.arange(n),
    )
    return outcomes.of_pairs(met, ModelSettings())


def references(size_ms: int) -> list[Reference]:
    """Of inputs, and of outcomes."""
    start_ms = time_of(car_loan("analysis")[0])
    from_ms = start_ms - start_ms % size_ms
    inputs = build(training_rows(), Plan(MODEL, "1", size_ms), serving=True, effective_from_ms=from_ms)
    own = outcome_learning.built(
        labelled_windows(size_ms), serving=True, size_ms=size_ms, effective_from_ms=from_ms, data_ms=(0, from_ms - 1)
    )
    return [inputs, own]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The predictions, and their targets."""
    folder = tmp_path_factory.mktemp("car-loan")
    rows, targets = car_loan("analysis"), car_loan("analysis_target")
    labels = [
        {
            "prediction_id": f"a-{place}",
            "model_id": MODEL,
            "timestamp": time_of(row) + DELAY_MS,
            "actual": {"label": label_of(target)},
        }
        for place, (row, target) in enumerate(zip(rows, targets, strict=True))
    ]
    found = {"analysis": [record(place, row) for place, row in enumerate(rows)], "labels": labels}
    for name, lines in found.items():
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return [str(folder / f"{name}.jsonl") for name in found]


class Labelled:
    """What the stream tells of its outcomes with windows of a day."""

    def __init__(self, files: list[str], size: str) -> None:
        of_windows = windows(size=size, lateness="1h")
        settings = Settings()
        topics = (*settings.topics.predictions, *settings.topics.feedback)
        records: list[tuple[Role, Record]] = []
        self.summary = replay(
            files,
            stages(
                ingest.Settings(windows=of_windows, feedback=tuple(settings.topics.feedback)),
                detect_settings(
                    windows=of_windows,
                    declared={},
                    outcome_topics=(*settings.topics.feedback, settings.topics.of("pairs")),
                ),
                join.Settings(windows=of_windows, topics=topics),
            ),
            settings,
            references=[published(one) for one in references(of_windows.size)],
            on_record=lambda role, one: records.append((role, one)),
        )
        self.size_ms = of_windows.size
        told = [(role, orjson.loads(one.value or b"")) for role, one in records if role in ("alerts", "windows")]
        self.alerts: list[Json] = [{**one["data"], "type": one["type"]} for role, one in told if role == "alerts"]
        self.errors: list[Json] = [one for role, one in told if role == "windows" and one["signal"] == "outcome:error"]

    def window_of(self, time: str, delay_ms: int = DELAY_MS) -> int:
        """The window that ends at a time, counted from the one that holds the change of what came so much later."""
        changed_ms = time_of(car_loan("analysis")[DRIFT_ROW]) + delay_ms
        return ((parse_time(time) or 0) - changed_ms + changed_ms % self.size_ms) // self.size_ms - 1

    def firing(self, kind: str) -> list[Json]:
        return [one for one in self.alerts if one["kind"] == kind and one["type"].endswith(".firing.v1")]


@pytest.fixture(scope="module")
def found(files: list[str]) -> Labelled:
    return Labelled(files, "24h")


def test_every_target_meets_its_prediction(found: Labelled) -> None:
    assert (found.summary.rows, found.summary.feedback, found.summary.late) == (100_000, 50_000, 0)
    assert sum(one["n"] for one in found.errors) == 50_000


def test_performance_falls_when_the_figures_say_and_the_relation_holds(found: Labelled) -> None:
    (alert,) = found.firing("performance")
    assert found.window_of(alert["updated_at"]) == pytest.approx(26, abs=14)
    assert not found.firing("concept_drift")
    assert min(found.window_of(one["updated_at"], 0) for one in found.alerts if one["severity"] != "info") >= 0
    details = alert["details"]
    assert details["before"] == pytest.approx(0.056, abs=0.002)
    assert details["after"] == pytest.approx(0.084, abs=0.01)
    assert details["inputs_moved"]
    assert not details["relation_moved"]
    assert abs(found.window_of(alert["change_point"]["at"])) <= 8


def test_performance_is_estimated_before_labels_come_and_realised_as_it_was(found: Labelled) -> None:
    def mean(name: str, *, changed: bool) -> float:
        total = n = 0.0
        for one in found.errors:
            metrics = one["metrics"] if name == "realised" else one["metrics"]["estimated"]
            if metrics and metrics["accuracy"] and (found.window_of(one["window_end"], 0) > 3) is changed:
                own = metrics["n_labelled" if name == "realised" else "n"]
                total, n = total + own * metrics["accuracy"], n + own
        return total / n

    assert mean("estimated", changed=False) == pytest.approx(0.943, abs=0.002)
    assert mean("estimated", changed=True) == pytest.approx(0.910, abs=0.003)
    assert mean("realised", changed=False) == pytest.approx(0.944, abs=0.003)
    assert mean("realised", changed=True) == pytest.approx(0.916, abs=0.003)
