"""Outcomes keep to the budget of false alarms, also where inputs move and the relation of score and label does not."""

from collections import Counter
from math import sqrt

import pytest
from labelled import Labelled, Law
from outcomeflow import Outcomed, heard, reference, settings

from stream.detectors.budget import KIND_SHARES, PARTS
from stream.detectors.budget import Settings as Budget

SEEDS, WINDOWS = (100, 101, 102), 100
ALARMS = 250
"""Allowed of one model version in 10,000 windows: so many that false ones can be counted."""
BUDGET = Budget.model_validate({"false_alarms": ALARMS, "period": "10000m", "model_versions": 1})


def alarms(law: Law) -> Counter[str]:
    """Alerts above `info` by kind, in all streams."""
    found: Counter[str] = Counter()
    for seed in SEEDS:
        known = heard(reference(Labelled(seed=800 + seed, n=200), windows=100))
        flow = Outcomed(references=known, of_detect=settings(budget=BUDGET))
        flow.run(Labelled(seed=seed, n=200, changes={0: law}), WINDOWS)
        found.update(
            one["kind"]
            for one in flow.alerts
            if (one["status"], one["sequence"]) == ("firing", 0) and one["severity"] != "info"
        )
    return found


@pytest.mark.parametrize("law", [Law(), Law(inputs=1.5)], ids=["nothing moves", "inputs move"])
def test_false_alarms_stay_within_the_budget(law: Law) -> None:
    found = alarms(law)
    for kind in ("performance", "concept_drift", "data_quality"):
        share = KIND_SHARES[kind] * PARTS["outcomes"].get(kind, 1.0)
        allowed = len(SEEDS) * WINDOWS * ALARMS / 10_000 * share
        assert found[kind] <= allowed + 3 * sqrt(allowed)
