"""A reference built from a sample of the traffic: what a window holds is learned from serving, not from the sample."""

import numpy as np
import pytest
from flows import MINUTE_MS, START_MS, detect_settings

from stream.detectors import Floats
from stream.profiles import building, cuts
from stream.profiles.cuts import Row
from stream.profiles.reference import Tables, compile_tables
from stream.stages.detect import inputs
from stream.stages.detect.plan import plan

SERVED, SAMPLED = 400, 4
"""Rows of a window, and those of it in a sample of 1 %."""
EFFECT = 0.1
"""Standard deviation of what all rows of a window share."""
QUIET, MOVED = 140, 40
"""Windows: the first hundred teach how serving spreads."""


def rows(values: Floats, first_ms: int) -> list[Row]:
    """[windows, n] values of one feature as rows, evenly over their windows."""
    step_ms = MINUTE_MS // values.shape[1]
    return [
        Row(f"{first_ms}-{w}-{i}", first_ms + w * MINUTE_MS + i * step_ms, {"x": float(x)})
        for w, own in enumerate(values)
        for i, x in enumerate(own)
    ]


def windows(count: int, n: int, seed: int, shift: float = 0.0) -> Floats:
    rng = np.random.default_rng(seed)
    return shift + rng.normal(0, EFFECT, (count, 1)) + rng.normal(0, 1, (count, n))


@pytest.fixture(scope="module")
def sampled() -> Tables:
    first_ms = START_MS - 1_250 * MINUTE_MS
    made = building.build(
        rows(windows(1_250, SAMPLED, 1), first_ms),
        cuts.Plan("credit", "3", MINUTE_MS, cuts.Declared()),
        serving=False,
        effective_from_ms=START_MS,
    )
    return compile_tables(made)


def test_half_a_deviation_is_found_under_a_reference_of_one_row_in_a_hundred(sampled: Tables) -> None:
    settings = detect_settings()
    serving = np.concatenate([windows(QUIET, SERVED, 2), windows(MOVED, SERVED, 3, shift=0.5)])
    starts = START_MS + np.repeat(np.arange(len(serving)), SERVED) * MINUTE_MS
    schema = cuts.Schema(["x"], [], [])
    watch = inputs.start(plan(settings, sampled, None), START_MS, {})
    alarms = []
    for start_ms, profile in building.folded(sampled, schema, rows(serving, START_MS), starts):
        watch, judged = inputs.update(plan(settings, sampled, watch.serving), watch, start_ms, profile)
        alarms += [(start_ms - START_MS) // MINUTE_MS for _ in judged.alarms]
    assert watch.serving is not None
    assert watch.serving.n_bar[0, 0] == pytest.approx(SERVED, abs=1)
    assert 1 < watch.serving.phi[0, 0] < 2 * (1 + EFFECT**2 * SERVED)
    assert QUIET < alarms[0] < QUIET + MOVED
