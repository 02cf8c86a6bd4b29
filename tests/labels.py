"""A stream whose rows have labels: late, early, twice, missing, wrong; and the outcomes a log of profiles holds."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import orjson
from flows import MINUTE_MS, PER_WINDOW, START_MS, Json, Stream, moved, published, stages_of
from simulator import World

from stream.profiles import outcome_learning, outcomes
from stream.wire import codec
from stream.wire.internal import OUTCOMES, Outcomes
from stream.wire.record import Outgoing, Record

WINDOWS: Final = 10
LAST_MS: Final = START_MS + (WINDOWS + 10) * MINUTE_MS
OPPOSITE: Final = {"approve": "deny", "deny": "approve"}


def labels(rows: Sequence[Json], *, seed: int = 5, wrong: float = 0.1, delay_ms: int = 120_000) -> list[Json]:
    """A label for two of three rows, by event time: after up to `delay_ms`, some before, some twice, some wrong."""
    rng = random.Random(seed)
    found = []
    for row in rows:
        predicted = row["prediction"]["label"]
        actual = OPPOSITE[predicted] if rng.random() < wrong else predicted
        found += [
            {
                "prediction_id": row["prediction_id"],
                "model_id": row["model_id"],
                "timestamp": row["timestamp"] + rng.randrange(-20_000, delay_ms),
                "actual": {"label": actual},
            }
            for _ in range(rng.choice([0, 0, 1, 1, 1, 2]))
        ]
    return sorted(found, key=lambda label: (label["timestamp"], label["prediction_id"]))


ROWS: Final = Stream(drift_at=6 * PER_WINDOW).rows(WINDOWS * PER_WINDOW)
WRONG_FROM: Final = 5 * PER_WINDOW
LABELS: Final = labels(ROWS[:WRONG_FROM]) + labels(ROWS[WRONG_FROM:], wrong=0.4)
"""From the sixth window on the model is wrong four times as often."""


def traffic(predictions: int, feedback: int) -> Iterator[tuple[str, int, bytes]]:
    """(topic, partition, value): rows and labels by event time, some rows twice; then what closes all windows."""
    again = [row for place, row in enumerate(ROWS) if place % 50 == 0]
    dealt: list[tuple[int, str, int, Json]] = [
        (row["timestamp"], "predictions", place % predictions, row) for place, row in enumerate([*ROWS, *again])
    ]
    dealt += [(row["timestamp"], "feedback", place % feedback, row) for place, row in enumerate(LABELS)]
    for _, topic, partition, row in sorted(dealt, key=lambda item: item[:2]):
        yield topic, partition, orjson.dumps(row)
    for partition, row in enumerate(Stream(model_id="end", prefix="end").rows(predictions)):
        yield "predictions", partition, moved(row, LAST_MS - row["timestamp"])
    for partition in range(feedback):
        label = {"prediction_id": "end", "model_id": "end", "timestamp": LAST_MS, "actual": {"label": "deny"}}
        yield "feedback", partition, orjson.dumps(label)


@cache
def normal() -> Outgoing:
    """The record of a reference of outcomes: those of the two hours before, as the stages themselves find them."""
    before = replace(Stream(seed=99), start_ms=START_MS - 120 * MINUTE_MS, prefix="t").rows(120 * PER_WINDOW)
    end = [{**row, "timestamp": START_MS + MINUTE_MS} for row in (before[-1], labels(before)[-1])]
    world = World(inputs=1, feedback=1, internal=1)
    for topic, rows in (("predictions", [*before, end[0]]), ("feedback", [*labels(before), end[1]])):
        for row in rows:
            world.cluster.write((topic, 0), orjson.dumps(row), timestamp_ms=START_MS + 120 * MINUTE_MS)
    world.worker(stages=stages_of(world.settings))
    world.settle()
    found = told(world.cluster.records("drift.profiles"))
    windows = [opened(found[name]) for name in sorted(found) if name[2] < START_MS]
    span = (START_MS - 120 * MINUTE_MS, START_MS - 1)
    reference = outcome_learning.built(
        windows, serving=True, size_ms=MINUTE_MS, effective_from_ms=START_MS, data_ms=span
    )
    return published(reference)


def opened(value: bytes) -> Outcomes:
    """From their bytes."""
    found = codec.decode(value, Outcomes, OUTCOMES)
    assert isinstance(found, Outcomes)
    return found


def told(profiles: Iterable[Record]) -> Mapping[tuple[str, str, int], bytes]:
    """The outcomes in `drift.profiles`, merged: by model, version and window, as bytes."""
    parts: dict[tuple[str, str, int], list[Outcomes]] = {}
    for record in profiles:
        if record.value is not None and codec.kind_of(record.value) == OUTCOMES:
            part = codec.decode(record.value, Outcomes, OUTCOMES)
            assert isinstance(part, Outcomes)
            parts.setdefault((part.model_id, part.model_version, part.window_start_ms), []).append(part)
    return {name: codec.encode(outcomes.merge(same), OUTCOMES) for name, same in parts.items()}
