"""Severity, labels and annotations: what an operator may set, and what is refused with the mend."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.alerts import policy
from stream.alerts.policy import Impact, ModelSettings, Settings
from stream.wire.outbound import Kind

IDENTITY = {"model_id": "credit/eu", "model_version": "3", "segment": "all", "kind": "data_drift"}


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    minute, hour, day = 60_000, 3_600_000, 86_400_000
    assert settings.pending_for == 0
    assert settings.keep_firing_for == 5 * minute
    assert settings.update_interval == hour
    assert settings.refresh == day
    assert settings.retire_after == 7 * day
    assert settings.max_signals == 20
    assert settings.include_values is False


def test_every_kind_has_its_place_on_the_ladder() -> None:
    ladder = {kind: policy.severity(kind, Settings()) for kind in policy.SEVERITY}
    assert ladder["data_drift"] == ladder["prediction_drift"] == ladder["data_quality"] == "warning"
    assert ladder["concept_drift"] == ladder["performance"] == ladder["silence"] == "critical"
    assert ladder["outlier"] == ladder["challenger"] == ladder["retrain"] == "info"


def test_the_model_overrides_the_fleet_and_the_fleet_the_ladder() -> None:
    fleet = Settings(severity={"data_drift": "info", "performance": "warning"})
    model = ModelSettings(severity={"data_drift": "critical"})
    assert policy.severity("data_drift", fleet, model) == "critical"
    assert policy.severity("performance", fleet, model) == "warning"
    assert policy.severity("silence", fleet, model) == "critical"


def test_an_improvement_pages_nobody() -> None:
    assert policy.severity("performance", Settings(severity={"performance": "critical"}), improved=True) == "info"


def test_labels_of_the_operator_come_after_the_identifying_ones() -> None:
    labels = policy.labels(Settings(labels={"team": "risk"}), IDENTITY)
    assert list(labels.items()) == [*IDENTITY.items(), ("team", "risk")]


def test_placeholders_are_filled_and_encoded_inside_a_url() -> None:
    settings = Settings(
        annotations={"runbook_url": "https://example.org/{kind}?m={model_id}", "note": "{{ask}} about {model_id}"}
    )
    assert policy.annotations(settings, IDENTITY) == {
        "runbook_url": "https://example.org/data_drift?m=credit%2Feu",
        "note": "{ask} about credit/eu",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"labels": {"kind": "x"}}, "take another name"),
        ({"labels": {"a-b": "x"}}, "letters, digits and _ only"),
        ({"labels": {"a\n": "x"}}, "letters, digits and _ only"),
        ({"annotations": {"summary": "x"}}, "take another name"),
        ({"annotations": {"url": "https://x/{model}"}}, "unknown placeholder {model}"),
        ({"annotations": {"url": "{kind.__class__}"}}, "unknown placeholder"),
        ({"annotations": {"url": "{kind!r}"}}, "without a format"),
        ({"annotations": {"url": "{kind:>10}"}}, "without a format"),
        ({"annotations": {"url": "{kind"}}, "written twice"),
        ({"severity": {"data_drift": "page"}}, "info"),
        ({"refresh": "2d"}, "less than or equal"),
        ({"pending": "1m"}, "Extra inputs"),
    ],
)
def test_a_wrong_setting_is_refused_with_words_that_help(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate(given)
    assert words in str(refusal.value)


# -- severity by impact ------------------------------------------------------------------------------------------------

LARGE, SMALL = Impact(size=0.8), Impact(size=0.2, share=0.01)


def test_the_impact_is_the_size_weighed_with_the_importance_and_the_share_of_the_traffic() -> None:
    assert Impact(size=0.3).value == 0.3
    assert Impact(size=0.3, importance=2, share=0.5).value == pytest.approx(0.3)


@pytest.mark.parametrize("kind", policy.SEVERITY)
def test_a_large_impact_is_one_step_up_and_a_small_one_down_within_the_ladder(kind: Kind) -> None:
    rank = policy.LADDER.index(policy.SEVERITY[kind])
    assert policy.severity(kind, Settings(), impact=LARGE) == policy.LADDER[min(rank + 1, 2)]
    assert policy.severity(kind, Settings(), impact=SMALL) == policy.LADDER[max(rank - 1, 0)]
    assert policy.severity(kind, Settings(), impact=Impact(size=0.1)) == policy.SEVERITY[kind]


def test_what_the_owner_says_matters_more_or_nothing_moves_the_step() -> None:
    moved = 0.2
    assert policy.severity("data_drift", Settings(), impact=Impact(moved, importance=3)) == "critical"
    assert policy.severity("data_drift", Settings(), impact=Impact(moved, importance=0)) == "info"


def test_an_override_wins_over_the_impact() -> None:
    fleet, model = Settings(severity={"data_drift": "warning"}), ModelSettings(severity={"data_drift": "info"})
    assert policy.severity("data_drift", fleet, impact=LARGE) == "warning"
    assert policy.severity("data_drift", fleet, model, LARGE) == "info"


@given(st.floats(0, 1), st.floats(0, 100), st.floats(0, 1), st.floats(0, 1), st.sampled_from(sorted(policy.SEVERITY)))
def test_more_impact_is_never_less_urgent(
    size: float, importance: float, share: float, more: float, kind: Kind
) -> None:
    one = policy.severity(kind, Settings(), impact=Impact(size, importance, share))
    larger = policy.severity(kind, Settings(), impact=Impact(min(1.0, size + more), importance, share))
    assert policy.LADDER.index(larger) >= policy.LADDER.index(one)
