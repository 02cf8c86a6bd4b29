"""The demo's world: real rows of the Shuttle dataset that ships with River, and a small River model trained on some.

Nine sensor readings of a space shuttle, and whether they are an anomaly (UCI Statlog Shuttle as cast by ODDS, 49,097
rows). The first rows of a seeded shuffle train the model; what is predicted, for the reference as for the stream, is
drawn from the others. Every row is real; what is planted is planted here: a sensor that reads too high, a few records
that are broken, and a few that no sensor could have measured.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
from msgspec import Struct
from river import datasets, linear_model, preprocessing

from stream.wire.times import rfc3339

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

MODEL_ID: Final = "shuttle"
MODEL_VERSION: Final = "1"
FEATURES: Final = tuple(f"f{number}" for number in range(1, 10))
TRAINING_ROWS: Final = 9_000

ROWS_PER_WINDOW: Final = 500
WINDOWS: Final = 62
"""Of the stream: about a minute, if a window is a second."""
REFERENCE_WINDOWS: Final = 120
"""Overdispersion is known from a hundred on."""
DRIFT_FROM: Final = 20
DRIFT_TO: Final = 45
"""The windows in which the sensor reads too high, the last one excluded."""
DRIFTING: Final = ("f3", "f7", "f8")
"""The sensor, and the two readings that are differences with it (f7 = f3 - f1, f8 = f3 - f5)."""
DRIFT_BY: Final = 4
"""How much too high: less than half a standard deviation."""
UNWATCHED: Final = ("f2", "f4", "f6")
"""Sensors that are silent, and now and then jump by thousands: real outliers, of which the demo would tell too many."""
PLANTED: Final = {
    DRIFT_FROM: f"from here on {', '.join(DRIFTING)} read {DRIFT_BY} too high",
    DRIFT_TO: f"{', '.join(DRIFTING)} read right again",
}
"""What is told of the drift, by window."""
BROKEN: Final = (5, 12, 27, 33, 50)
"""Windows that begin with a record that cannot be read."""
OUTLYING: Final = (9, 52)
"""Windows that begin with a record that no sensor could have measured."""
IMPOSSIBLE: Final = 30_000
"""What it reads. The largest real value of this sensor, f5, is 436."""

_MOVED: Final = np.isin(FEATURES, DRIFTING) * DRIFT_BY


class Event(Struct, frozen=True):
    """A record on its way into the predictions topic; `time_ms` is its event time and its Kafka timestamp."""

    time_ms: int
    partition: int
    key: bytes
    value: bytes


class World(Struct, frozen=True):
    """A trained model, and real rows it has not seen. Made by `prepare`."""

    model: Any
    rows: Ints
    """[n, 9]"""
    anomalies: Ints
    """[n] 0 or 1: what was true."""

    def score(self, row: Ints) -> float:
        """Probability of an anomaly, by the model."""
        return float(self.model.predict_proba_one(dict(zip(FEATURES, row.tolist(), strict=True))).get(True, 0.0))

    def accuracy(self) -> float:
        """Share of the unseen rows the model is right about."""
        answers = [self.score(row) >= 1 / 2 for row in self.rows[:TRAINING_ROWS]]
        return float(np.mean(np.array(answers) == self.anomalies[:TRAINING_ROWS]))


def prepare(seed: int) -> World:
    """Shuffle the rows, train the model on the first of them, keep the others."""
    data = np.loadtxt(datasets.Shuttle().path, delimiter=",", skiprows=1, dtype=np.int64)
    data = data[np.random.default_rng(seed).permutation(len(data))]
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for row in data[:TRAINING_ROWS].tolist():
        model.learn_one(dict(zip(FEATURES, row, strict=False)), bool(row[-1]))
    return World(model, data[TRAINING_ROWS:, :-1], data[TRAINING_ROWS:, -1])


def reference_events(world: World, seed: int, end_ms: int, window_ms: int) -> Iterator[Event]:
    """Predictions of the time before `end_ms`, when all was well: what the reference is built from."""
    for window in range(REFERENCE_WINDOWS):
        start_ms = end_ms - (REFERENCE_WINDOWS - window) * window_ms
        yield from _window(world, seed, -1 - window, start_ms, window_ms, drifts=False)


def stream_events(
    world: World, seed: int, start_ms: int, window_ms: int, first: int, partitions: int
) -> Iterator[Event]:
    """Window after window from number `first` on, for ever, with everything that is planted; in order of time.

    The drift comes and goes every `WINDOWS` windows; every partition gets rows in every window.
    """
    window = first
    while True:
        place = window % WINDOWS
        begins_ms = start_ms + (window - first) * window_ms
        events = _window(world, seed, window, begins_ms, window_ms, drifts=DRIFT_FROM <= place < DRIFT_TO)
        for number, event in enumerate(events):
            value = event.value
            if number == 0 and place in BROKEN:
                value = _broken(BROKEN.index(place), value)
            elif number == 0 and place in OUTLYING:
                value = _impossible(value)
            yield Event(event.time_ms, number % partitions, event.key, value)
        window += 1


def is_impossible(prediction_id: str) -> bool:
    """Whether a prediction of the first round is one of the planted outliers."""
    return prediction_id in {_name("live", place, 0) for place in OUTLYING}


def _name(kind: str, window: int, place: int) -> str:
    return f"{kind}-{window:06d}-{place:03d}"


def _window(world: World, seed: int, number: int, start_ms: int, window_ms: int, *, drifts: bool) -> Iterator[Event]:
    """The rows of one window, evenly spread. They depend on the seed and the number alone."""
    draws = np.random.default_rng([seed, abs(number), number < 0]).integers(len(world.rows), size=ROWS_PER_WINDOW)
    rows = world.rows[draws] + (_MOVED if drifts else 0)
    kind = "reference" if number < 0 else "live"
    for place, row in enumerate(rows):
        time_ms = start_ms + place * window_ms // ROWS_PER_WINDOW
        name = _name(kind, abs(number), place)
        score = world.score(row)
        record = {
            "prediction_id": name,
            "model_id": MODEL_ID,
            "model_version": MODEL_VERSION,
            "timestamp": rfc3339(time_ms),
            "features": dict(zip(FEATURES, row.tolist(), strict=True)),
            "prediction": {"label": "anomaly" if score >= 1 / 2 else "normal", "score": round(score, 6)},
        }
        yield Event(time_ms, 0, name.encode(), orjson.dumps(record))


def _broken(which: int, value: bytes) -> bytes:
    """Five ways of going wrong: cut off, without its id, without a readable time, not UTF-8, far in the future."""
    record = orjson.loads(value)
    match which:
        case 0:
            return value[: len(value) // 2]
        case 1:
            del record["prediction_id"]
        case 2:
            record["timestamp"] = "yesterday"
        case 3:
            return value.replace(MODEL_ID.encode(), b"\xff\xfe")
        case _:
            record["timestamp"] = "2099-01-01T00:00:00Z"
    return orjson.dumps(record)


def _impossible(value: bytes) -> bytes:
    record = orjson.loads(value)
    record["features"]["f5"] = IMPOSSIBLE
    return orjson.dumps(record)
