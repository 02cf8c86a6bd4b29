"""River's own detectors: they go on from text exactly as if they had never been taken apart."""

import json
from importlib import import_module

import numpy as np
import pytest
import streams
from pydantic import ValidationError

from stream.detectors import Level, river


@pytest.mark.parametrize("name", sorted(river.NAMES))
def test_it_alarms_where_the_live_object_does(name: str) -> None:
    rng = np.random.default_rng(1)
    settings = river.Settings(name=name, seed=3)
    binary = river.NAMES[name].endswith("binary")
    theirs = getattr(import_module(river.NAMES[name]), name)(**({"seed": 3} if name == "KSWIN" else {}))
    state, alarms = river.start(1, settings), 0
    for t in range(400):
        chance = 0.2 if t % 200 < 100 else 0.8
        x = float(rng.random() < chance) if binary else rng.normal(chance, 0.1)
        theirs.update(x >= 0.5 if binary else x)
        state, verdicts = river.update(state, settings, river.Window(streams.single(np.array([x]), t)))
        assert (verdicts.level[0] == Level.DRIFT) == theirs.drift_detected
        alarms += theirs.drift_detected
    assert alarms or name == "PageHinkley"


def test_the_state_is_json_and_names_only_known_classes() -> None:
    (text,) = river.start(1, river.Settings(name="KSWIN")).detectors
    assert json.loads(text)["object"][0] == "river.drift.kswin"
    (text,) = river.start(1, river.Settings(name="ADWIN")).detectors
    poisoned = text.replace('"river.drift.adwin","ADWIN"', '"subprocess","Popen"')
    assert poisoned != text
    window = river.Window(streams.single(np.array([0.5])))
    with pytest.raises(ValueError, match="not made of"):
        river.update(river.State([poisoned]), river.Settings(name="ADWIN"), window)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValidationError, match="KSWIN"):
        river.Settings(name="Oracle")


def test_parameters_reach_the_detector() -> None:
    settings = river.Settings(name="ADWIN", parameters={"clock": 1, "delta": 0.5})
    (text,) = river.start(1, settings).detectors
    assert '["clock",1]' in text
