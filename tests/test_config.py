"""One Config, validated before anything starts: what is wrong is told with file, key, value and mend."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import config
from stream.cli import binding
from stream.config import Config, Invalid, Loaded
from stream.worker.ends import EXIT_CONFIGURATION


def load(
    tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, properties: tuple[str, ...] = ()
) -> Loaded:
    file = tmp_path / "drift.toml"
    file.write_text(text)
    return config.load(file, environ or {}, properties)


def problems(
    tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, properties: tuple[str, ...] = ()
) -> list[str]:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, text, environ, properties)
    assert caught.value.exit_code == EXIT_CONFIGURATION
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_without_a_file_the_defaults_hold() -> None:
    loaded = config.load(None, {})
    assert loaded.config == Config()
    assert loaded.origins == {}


def test_flags_are_stronger_than_the_environment_and_that_is_stronger_than_the_file(tmp_path: Path) -> None:
    text = '[kafka]\ncommit_interval = "1s"\nstart = "latest"\nproperties = { linger.ms = 1, sasl.username = "file" }\n'
    environ = {
        "DRIFT_KAFKA__START": "earliest",
        "DRIFT_KAFKA__PROPERTIES": '{"linger.ms": 2, "sasl.mechanisms": "PLAIN"}',
    }
    kafka = load(tmp_path, text, environ, ("linger.ms=3",)).config.kafka
    assert kafka.commit_interval == 1_000
    assert kafka.start == "earliest"
    assert kafka.properties == {"linger.ms": "3", "sasl.username": "file", "sasl.mechanisms": "PLAIN"}


def test_every_value_knows_where_it_comes_from(tmp_path: Path) -> None:
    text = '[windows]\n\nsize = "5m"\n[kafka]\nproperties = { linger.ms = 1 }\n'
    loaded = load(tmp_path, text, {"DRIFT_HTTP__PORT": "9000"}, ("linger.ms=3",))
    origins = {name: origin for name, _, origin in config.rows(loaded)}
    assert origins["windows.size"] == f"{tmp_path}/drift.toml:3"
    assert origins["windows.lateness"] == "default"
    assert origins["http.port"] == "DRIFT_HTTP__PORT"
    assert origins["kafka.properties.linger.ms"] == "-X"


def test_rows_write_every_setting_as_the_file_would(tmp_path: Path) -> None:
    loaded = load(tmp_path, '[windows]\nsize = "60s"\n[[models]]\nid = "credit"\nsegments = ["country"]\n')
    values = {name: value for name, value, _ in config.rows(loaded)}
    assert values["windows.size"] == "1m"
    assert values["models[0].id"] == "credit"
    assert values["models[0].segments"] == ["country"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[windows]\nsize = 60",
            (
                "drift.toml:2: windows.size = 60: "
                'write a whole number with its unit (ms, s, m, h or d), such as "90s" or "7d"'
            ),
        ),
        (
            '[windows]\nlatness = "3s"',
            (
                'drift.toml:2: windows.latness = "3s": unknown key; did you mean lateness? '
                "known here: idle_after, lateness, max_future, size"
            ),
        ),
        ("[budget]\nfalse_alarms = 0", "drift.toml:2: budget.false_alarms = 0: expected greater than 0"),
        ("[budget]\nfalse_alarms = inf", "drift.toml:2: budget.false_alarms = inf: expected a finite number"),
        ("[budget]\nmodel_versions = 3", "drift.toml:2: budget.model_versions = 3: must be a power of two"),
        (
            '[seasonality]\ntimezone = "Vienna"',
            (
                'drift.toml:2: seasonality.timezone = "Vienna": '
                "'Vienna' is not a time zone; use a name such as Europe/Vienna"
            ),
        ),
        ("budget = 3", "drift.toml:1: budget = 3: expected a table, such as [budget]"),
        ("[http]\nport = 70000", "drift.toml:2: http.port = 70000: expected less than or equal to 65535"),
        ("[[models]]\nsegments = []", "drift.toml: models[0].id: is required; add it"),
        (
            "[kafka.properties]\nenable.idempotence = false",
            (
                'drift.toml:2: kafka.properties = {"enable.idempotence": false}: '
                "enable.idempotence: exactly-once depends on it, it cannot be set"
            ),
        ),
        (
            '[[models]]\nid = "a"\n[[models]]\nid = "a"',
            """drift.toml: models = [{"id": "a"}, {"id": "a"}]: 'a' is listed twice; merge the entries into one""",
        ),
        (
            '[[models]]\nid = "a"\nchallengers = ["4"]',
            (
                'drift.toml:2: models[0] = {"id": "a", "challengers": ["4"]}: '
                "challengers are compared with a champion; name its version"
            ),
        ),
        (
            '[[models]]\nid = "a"\nchampion = "4"\nchallengers = ["4"]',
            (
                'drift.toml:2: models[0] = {"id": "a", "champion": "4", "challengers": ["4"]}: '
                "'4' is the champion, it cannot be one of the challengers"
            ),
        ),
        (
            '[topics]\nalerts = "predictions"',
            "drift.toml: topics: 'predictions' has two roles; give each its own topic",
        ),
        (
            '[alerts]\nannotations = { runbook_url = "https://example.org/{knd}" }',
            (
                'drift.toml:2: alerts.annotations = {"runbook_url": "https://example.org/{knd}"}: runbook_url: '
                "unknown placeholder {knd}; known are model_id, model_version, segment, kind, severity, fingerprint, "
                "alert_id"
            ),
        ),
        ('[kafka]\nstart = "middle"', """drift.toml:2: kafka.start = "middle": expected 'earliest' or 'latest'"""),
        (
            '[kafka.properties]\nsasl = { password = "${env:ABSENT}" }',
            "drift.toml:2: kafka.properties.sasl.password = ${env:ABSENT}: the variable is not set",
        ),
        (
            '[kafka.properties]\nsasl = { password = "${file:/absent/secret}" }',
            "drift.toml:2: kafka.properties.sasl.password = ${file:/absent/secret}: No such file or directory",
        ),
    ],
)
def test_an_error_names_file_key_value_and_mend(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [problem]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, '[windows]\nsize = "1 minute"\n[bugdet]\nperiod = "7d"\n')
    assert len(found) == 2
    assert found[1].startswith(
        'drift.toml:4: bugdet = {"period": "7d"}: unknown key; did you mean budget? known here: alerts,'
    )


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"DRIFT_HTTP__PORT": "x"}, 'DRIFT_HTTP__PORT: http.port = "x": expected a valid integer'),
        ({"DRIFT_HTTP__PROT": "1"}, 'DRIFT_HTTP__PROT: http.prot = "1": unknown key; did you mean port?'),
        ({"DRIFT_MODELS": "[{"}, 'DRIFT_MODELS = "[{": expected JSON, since models is a list or table'),
        ({"DRIFT_WINDOWS__": "1"}, "DRIFT_WINDOWS__: not a setting; expected DRIFT_SECTION__KEY"),
        (
            {"DRIFT_TOPICS__PREDICTIONS": '"p"'},
            'DRIFT_TOPICS__PREDICTIONS: topics.predictions = "p": expected a valid list',
        ),
    ],
)
def test_an_error_in_the_environment_names_the_variable(tmp_path: Path, environ: dict[str, str], problem: str) -> None:
    assert problems(tmp_path, "", environ)[0].startswith(problem)


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    environ = {
        "DRIFT_SERVICE_HOST": "10.0.0.1",
        "DRIFT_PORT": "tcp://10.0.0.1:8080",
        "DRIFT_SLOT": "3",
        "DRIFT_CONFIG": "x",
    }
    assert load(tmp_path, "", environ).config == Config()


def test_lists_and_tables_are_json_in_the_environment(tmp_path: Path) -> None:
    environ = {
        "DRIFT_TOPICS__PREDICTIONS": '["a", "b"]',
        "DRIFT_MODELS": '[{"id": "credit"}]',
        "DRIFT_ALERTS__LABELS__TEAM": "risk",
    }
    loaded = load(tmp_path, "", environ).config
    assert loaded.topics.predictions == ["a", "b"]
    assert loaded.models[0].id == "credit"
    assert loaded.alerts.labels == {"team": "risk"}


@pytest.mark.parametrize("text", ["security.protocol", "=SSL", ""])
def test_a_property_without_key_and_value_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, "", None, (text,)) == [
        f"-X {json.dumps(text)}: expected key=value, such as -X security.protocol=SSL"
    ]


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "drift.toml"
    file.write_bytes(content)
    with pytest.raises(Invalid, match=r"drift\.toml: (not valid TOML|cannot be read)"):
        config.load(file, {})


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nope\.toml: no such file; name another one with -c or DRIFT_CONFIG"):
        config.load(tmp_path / "nope.toml", {})


def test_secrets_are_read_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-1\n")
    text = f"""
[kafka]
bootstrap_servers = "${{env:BROKERS}}"
[kafka.properties]
ssl.ca.location = "/etc/${{env:WHERE}}/ca.pem"
sasl = {{ username = "drift", password = "${{file:{secret}}}" }}
"ssl.key.password" = "canary-2"
"""
    loaded = load(tmp_path, text, {"BROKERS": "kafka:9092", "WHERE": "kafka"})
    assert loaded.config.kafka.bootstrap_servers == "kafka:9092"
    assert loaded.config.kafka.properties["sasl.password"] == "canary-1"
    assert loaded.config.kafka.properties["ssl.ca.location"] == "/etc/kafka/ca.pem"
    shown = {name: value for name, value, _ in config.rows(loaded)}
    assert shown["kafka.bootstrap_servers"] == "***"
    assert shown["kafka.properties.sasl.username"] == "drift"
    assert "canary" not in json.dumps(shown)


def test_an_error_does_not_show_a_secret(tmp_path: Path) -> None:
    text = (
        '[http]\nport = "${env:CANARY}"\n'
        '[kafka.properties]\nenable.idempotence = "x"\nsasl.password = "canary"\nssl.ca.location = "${env:CANARY}"\n'
    )
    found = "\n".join(problems(tmp_path, text, {"CANARY": "canary"}))
    assert "http.port = ***: expected a valid integer" in found
    assert '{"enable.idempotence": "x", "sasl.password": "***", "ssl.ca.location": "***"}' in found
    assert "canary" not in found


def test_the_file_is_the_one_given_else_the_one_in_the_environment_else_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.find(None, {}) is None
    (tmp_path / "drift.toml").touch()
    assert config.find(None, {}) == Path("drift.toml")
    assert config.find(None, {"DRIFT_CONFIG": "a.toml"}) == Path("a.toml")
    assert config.find(Path("b.toml"), {"DRIFT_CONFIG": "a.toml"}) == Path("b.toml")


@pytest.mark.parametrize(
    "text",
    [
        '[windows]\nsize = "2m"',
        "[budget]\ntolerance = 0.03",
        "[detectors.histogram]\nconfirm = 3",
        '[detectors]\nenabled = ["histogram"]',
        "[detectors.river.KSWIN]\nseed = 2",
        '[alerts]\nlabels = { team = "risk" }',
        '[[models]]\nid = "credit"',
        "[topics]\nfeedback = []",
        '[service]\nid = "fraud"',
        "[limits]\nrecord_bytes = 2048",
    ],
)
def test_config_id_changes_with_what_can_change_a_result(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).config_id != load(tmp_path).config_id


@pytest.mark.parametrize(
    "text",
    [
        '[kafka]\nbootstrap_servers = "a:1"\ncommit_interval = "1s"',
        "[http]\nport = 1",
        '[log]\nlevel = "debug"',
        "[metrics]\nmodels = 1",
        '[service]\nsnapshot_interval = "1s"',
        '[windows]\nidle_after = "1s"\nsize = "60s"',
        '[topics]\nalerts = "a"\nprefix = "x."',
        "[limits]\ndead_letter_ratio = 1",
    ],
)
def test_config_id_stays_with_what_cannot(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).config_id == load(tmp_path).config_id


def test_every_room_gets_its_settings(tmp_path: Path) -> None:
    text = '[windows]\nlateness = "7s"\nidle_after = "8s"\nmax_future = "9s"\n[limits]\ndead_letter_ratio = 0.25'
    worker = config.worker_settings(load(tmp_path, text).config)
    assert (worker.lateness_ms, worker.idle_after_ms, worker.max_future_ms) == (7_000, 8_000, 9_000)
    assert worker.dead_letter_ratio == 0.25


def test_ingest_is_told_where_labels_come_from_and_what_the_owner_of_a_model_says(tmp_path: Path) -> None:
    said = 'positive_label = "approve"\ntask = "classification"'
    text = f'[topics]\nfeedback = ["truths"]\n[[models]]\nid = "credit"\n{said}'
    bound = binding.ingest_settings(load(tmp_path, text).config)
    assert bound.feedback == ("truths",)
    assert (bound.models["credit"].positive_label, bound.models["credit"].task) == ("approve", "classification")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(section=st.sampled_from([*Config.model_fields, "other"]), key=st.text(max_size=6), value=_values)
def test_whatever_the_environment_holds_is_a_config_or_a_list_of_problems(
    section: str, key: str, value: object
) -> None:
    environ = {f"DRIFT_{section.upper()}__{key}": json.dumps(value), f"DRIFT_{section.upper()}": json.dumps(value)}
    try:
        loaded = config.load(None, environ)
    except Invalid as invalid:
        found = invalid.problems
    else:
        found = [name for name, _, _ in config.rows(loaded)]
    assert all(found)


def test_detectors_are_chosen_by_name_and_those_of_river_have_tables(tmp_path: Path) -> None:
    text = (
        '[detectors]\nenabled = ["histogram", "mean", "river:KSWIN"]\n'
        "[detectors.river.KSWIN]\nseed = 7\nparameters = { window_size = 50, stat_size = 10 }\n"
    )
    loaded = load(tmp_path, text)
    bound = binding.detect_settings(loaded)
    assert bound.enabled == ("histogram", "mean", "river:KSWIN")
    assert bound.river["river:KSWIN"].parameters == {"window_size": 50, "stat_size": 10}
    assert binding.detect_settings(load(tmp_path)).enabled == ("histogram", "mean", "adwin", "page_hinkley")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('enabled = ["histogramm"]', "no detector is called 'histogramm'; did you mean histogram? known: histogram, "),
        ('enabled = ["river:Oracle"]', "no detector is called 'river:Oracle'; "),
        ('enabled = ["mean", "mean"]', "'mean' is listed twice"),
        ("enabled = []", "at least 1 item"),
        ("river.Oracle.seed = 1", "river has no detector 'Oracle'; known: ADWIN, "),
        ("river.ADWIN.parameters = { colour = 1 }", "river.ADWIN cannot be made so: "),
    ],
)
def test_a_detector_nobody_knows_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (problem,) = problems(tmp_path, f"[detectors]\n{text}")
    assert why in problem
