"""`drift config show`, `drift validate config` and `drift schema`."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from doorway import Drift

from stream.config import Config


def test_every_setting_is_shown_with_its_origin(drift: Drift, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("drift.toml").write_text('[windows]\nsize = "5m"\n')
    monkeypatch.setenv("DRIFT_LOG__LEVEL", "debug")
    result = drift("config", "show", "-X", "linger.ms=5")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[0].startswith("# config_id ")
    assert 'windows.size = "5m" # drift.toml:2' in lines
    assert 'log.level = "debug" # DRIFT_LOG__LEVEL' in lines
    assert 'kafka.properties.linger.ms = "5" # -X' in lines
    assert "budget.false_alarms = 1.0 # default" in lines


def test_what_is_shown_is_a_file_that_says_the_same(drift: Drift) -> None:
    shown = drift("config", "show").stdout
    Path("drift.toml").write_text(shown)
    again = drift("config", "show").stdout
    assert tomllib.loads(again) == tomllib.loads(shown)
    assert again.splitlines()[0] == shown.splitlines()[0]


def test_secrets_are_not_shown(drift: Drift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "canary")
    Path("drift.toml").write_text('[kafka.properties]\nsasl.password = "${env:CANARY}"\nssl.key.password = "canary"\n')
    for output in ("toml", "json"):
        result = drift("config", "show", "-o", output)
        assert result.exit_code == 0
        assert "***" in result.stdout
        assert "canary" not in result.output


def test_json_names_value_and_origin(drift: Drift) -> None:
    shown = json.loads(drift("config", "show", "-o", "json").stdout)
    assert shown["settings"]["windows.size"] == {"value": "1m", "origin": "default"}
    assert len(shown["config_id"]) == 16


def test_a_configuration_that_cannot_be_used_is_exit_code_3_with_a_sentence(drift: Drift) -> None:
    Path("my.toml").write_text("[windows]\nsize = 60\n")
    result = drift("config", "show", "-c", "my.toml")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr == (
        "drift: my.toml:2: windows.size = 60: "
        'write a whole number with its unit (ms, s, m, h or d), such as "90s" or "7d"\n'
    )


def test_validate_config_is_exit_code_1_on_a_bad_one(drift: Drift) -> None:
    Path("bad.toml").write_text("[window]\n")
    result = drift("validate", "config", "bad.toml")
    assert result.exit_code == 1
    assert result.stderr.startswith("drift: bad.toml: window = {}: unknown key; did you mean windows?")


def test_validate_config_says_that_a_good_one_is_valid(drift: Drift) -> None:
    Path("good.toml").write_text('[windows]\nsize = "5m"\n')
    result = drift("validate", "config", "good.toml")
    assert result.exit_code == 0
    assert result.stdout.startswith("valid, config_id ")


def test_the_schema_of_the_configuration_accepts_a_file_and_refuses_an_unknown_key(drift: Drift) -> None:
    schema = json.loads(drift("schema", "config").stdout)
    jsonschema.validate(Config().model_dump(mode="json"), schema)
    jsonschema.validate({"windows": {"size": "5m"}, "models": [{"id": "credit"}]}, schema)
    wrongs: list[dict[str, object]] = [{"windows": {"size": 60}}, {"window": {}}, {"models": [{}]}]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("draft", ["2020-12", "7"])
@pytest.mark.parametrize("name", ["alert", "window", "control"])
def test_what_is_published_has_a_schema_in_both_drafts(drift: Drift, name: str, draft: str) -> None:
    schema = json.loads(drift("schema", name, "--draft", draft).stdout)
    assert schema["$id"] == f"urn:driftstream:schema:{name}.v1"
    jsonschema.validators.validator_for(schema).check_schema(schema)


def test_the_schema_of_the_configuration_has_one_draft(drift: Drift) -> None:
    assert drift("schema", "config", "--draft", "7").exit_code == 2
