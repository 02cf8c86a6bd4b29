"""The commands over files: `validate records`, `reference build` and `show`, `replay`."""

import csv
import json
from pathlib import Path
from typing import Any

import doorway
import numpy as np
import orjson
import pytest
from doorway import Drift
from worlds import START_MS, World

from stream.wire.times import rfc3339

ROWS = 4_000
WINDOW_MS = 10_000


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a quiet time: 100 a window, enough windows to know overdispersion."""
    file = tmp_path_factory.mktemp("training") / "training.jsonl"
    file.write_bytes(b"\n".join(World(seed=1, missing=0).records(3 * ROWS)) + b"\n")
    return file


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the time after, the inputs drift in the middle."""
    file = tmp_path_factory.mktemp("live") / "live.jsonl"
    world = World(seed=2, start_ms=START_MS + 3 * ROWS * 100, drift_at=ROWS // 2, missing=0)
    file.write_bytes(b"\n".join(world.records(ROWS)) + b"\n")
    return file


@pytest.fixture(scope="module")
def reference(training: Path) -> Path:
    """Built from the training rows by the program itself."""
    file = training.with_name("reference.json")
    config = training.with_name("drift.toml")
    config.write_text('[windows]\nsize = "10s"\n')
    result = doorway.drift("reference", "build", training, "--serving", "--out", file, "-c", config)
    assert result.exit_code == 0, result.output
    return file


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_bad_record_is_told_with_file_line_and_code(drift: Drift, live: Path) -> None:
    good = live.read_bytes().splitlines()[0]
    Path("some.jsonl").write_bytes(b"\n".join([good, b'{"a', b"", b'{"model_id": "m"}', good, b"[]", b"\xff"]))
    result = drift("validate", "records", "some.jsonl")
    assert result.exit_code == 1
    assert [line.split(" ")[:2] for line in result.stdout.splitlines()] == [
        ["some.jsonl:2", "json_invalid"],
        ["some.jsonl:4", "field_missing"],
        ["some.jsonl:6", "not_an_object"],
        ["some.jsonl:7", "json_invalid"],
    ]
    assert result.stderr == "drift: 6 records, 4 bad (field_missing 1, json_invalid 2, not_an_object 1)\n"


def test_good_records_are_exit_code_0(drift: Drift, live: Path) -> None:
    result = drift("validate", "records", live)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"drift: {ROWS} records, 0 bad\n"


def test_records_come_from_standard_input_too(drift: Drift, live: Path) -> None:
    result = drift("validate", "records", "-", input=live.read_bytes().splitlines()[0] + b"\n{}\n")
    assert result.exit_code == 1
    assert result.stdout.startswith("-:2 field_missing ")


def test_errors_are_counted_beyond_those_that_are_printed(drift: Drift) -> None:
    Path("some.jsonl").write_text("{}\n" * 5)
    result = drift("validate", "records", "some.jsonl", "--max-errors", "2", "-o", "json")
    assert [event["line"] for event in events(result.stdout)] == [1, 2]
    assert result.stderr == "drift: 5 records, 5 bad (field_missing 5)\n"


def test_labels_are_checked_too(drift: Drift) -> None:
    prediction = '{"prediction_id": "p", "model_id": "m", "features": {}}'
    label = '{"prediction_id": "p", "model_id": "m", "actual": {"label": "x"}}'
    useless = label.replace('"x"', "[1]")
    Path("both.jsonl").write_text("\n".join([label, "{}", useless, prediction, label, useless.replace('"p"', "1")]))
    result = drift("validate", "records", "both.jsonl")
    assert result.exit_code == 1
    assert [line.split(" $")[0] for line in result.stdout.splitlines()] == [
        "both.jsonl:2 field_missing",
        "both.jsonl:3 field_type",
        "both.jsonl:6 field_type",
    ]
    assert result.stderr == "drift: 6 records (4 with a label), 3 bad (field_missing 1, field_type 2)\n"


@pytest.mark.parametrize("command", [["validate", "records"], ["replay"], ["reference", "build"]])
def test_a_file_that_cannot_be_read_is_wrong_usage(drift: Drift, command: list[str]) -> None:
    Path("file.xyz").touch()
    absent, unknown = drift(*command, "absent.jsonl"), drift(*command, "file.xyz")
    assert (absent.exit_code, unknown.exit_code) == (2, 2)
    assert "absent.jsonl: No such file or directory" in absent.stderr
    assert "file.xyz: unknown kind of file; say --format jsonl, csv or parquet" in unknown.stderr


def test_a_reference_is_shown_signal_by_signal(drift: Drift, reference: Path) -> None:
    result = drift("reference", "show", reference)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("  credit/3")
    assert "100.0 rows per window of 10000 ms" in lines
    row = next(line.split() for line in lines if line.startswith("feature:channel "))
    assert row[:5] == ["feature:channel", "categorical", "3", "0", "0"]


def test_a_reference_of_the_same_rows_is_the_same(drift: Drift, training: Path, reference: Path) -> None:
    rows = training.read_bytes().splitlines()
    Path("other.jsonl").write_bytes(b"\n".join(reversed(rows)))
    drift(
        "reference", "build", "other.jsonl", "--serving", "--out", "other.json", "-c", training.with_name("drift.toml")
    )
    assert Path("other.json").read_bytes() == reference.read_bytes()


def test_a_model_must_be_chosen_among_several(drift: Drift) -> None:
    rows = [*World(seed=3).records(700), *World(seed=3, model_version="4", prefix="q").records(700)]
    Path("two.jsonl").write_bytes(b"\n".join(rows))
    both = drift("reference", "build", "two.jsonl")
    none = drift("reference", "build", "two.jsonl", "--version", "5")
    one = drift("reference", "build", "two.jsonl", "--version", "4")
    assert (both.exit_code, none.exit_code, one.exit_code) == (2, 2, 0)
    assert "choose one with --model and --version: credit/3, credit/4" in both.stderr
    assert "the files hold: credit/3, credit/4" in none.stderr
    assert json.loads(one.stdout)["model_version"] == "4"


def test_too_few_rows_are_no_reference(drift: Drift) -> None:
    Path("few.jsonl").write_bytes(b"\n".join(World().records(10)))
    result = drift("reference", "build", "few.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "drift: few.jsonl: a reference needs 640 rows, not 10\n"


def test_a_declared_model_decides_what_its_reference_watches(drift: Drift, training: Path) -> None:
    Path("drift.toml").write_text(
        '[[models]]\nid = "credit"\nsegments = ["country"]\n'
        'features = { channel = { watch = false }, number_of_items_0 = { type = "categorical" } }\n'
    )
    built = orjson.loads(drift("reference", "build", training).stdout)
    assert "feature:channel" not in built["signals"]
    assert built["signals"]["feature:number_of_items_0"]["type"] == "categorical"
    assert "DE" in built["segments"]["country"]


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1}', "\xff"])
def test_what_is_no_reference_is_refused_with_a_hint(drift: Drift, content: str) -> None:
    Path("no.json").write_text(content, encoding="latin-1")
    result = drift("reference", "show", "no.json")
    assert result.exit_code == 2
    assert "make one with `drift reference build`" in " ".join(result.stderr.split())


def test_a_replay_reports_the_drift_once(drift: Drift, live: Path, reference: Path) -> None:
    result = drift("replay", live, "--reference", reference, "-c", reference.with_name("drift.toml"))
    told = events(result.stdout)
    firing = [event["data"] for event in told if event["type"].endswith(".firing.v1")]
    assert result.exit_code == 0
    assert [data["kind"] for data in firing] == ["data_drift"]
    # The drift begins with the window of row 2,000; three windows are allowed.
    begins_ms = START_MS + 3 * ROWS * 100 + ROWS // 2 * 100
    assert firing[0]["starts_at"] <= rfc3339(begins_ms + 3 * WINDOW_MS)
    assert {"feature:transaction_amount_eur_0", "feature:channel"} & {one["signal"] for one in firing[0]["signals"]}
    assert result.stderr.startswith(f"drift: {ROWS} rows, {ROWS} in time, 0 late, 0 bad\n")


def test_a_replay_writes_what_it_is_asked_for(drift: Drift, live: Path, reference: Path) -> None:
    lines = live.read_bytes().splitlines()
    broken = [*lines[:1_000], b'{"a', *lines[1_000:1_500], lines[0], b"[]"]
    Path("broken.jsonl").write_bytes(b"\n".join(broken))
    outputs = ["--out", "alerts.jsonl", "--windows", "windows.jsonl", "--dead-letters", "dead.jsonl"]
    config = reference.with_name("drift.toml")
    result = drift("replay", "broken.jsonl", "--reference", reference, *outputs, "-c", config)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "1503 rows, 1500 in time, 1 late, 2 bad (json_invalid 1, not_an_object 1)" in result.stderr
    dead = events(Path("dead.jsonl").read_text())
    assert [(one["file"], one["row"], one["code"], one["value"]) for one in dead] == [
        ("broken.jsonl", 1_001, "json_invalid", '{"a'),
        ("broken.jsonl", 1_503, "not_an_object", "[]"),
    ]
    readings = events(Path("windows.jsonl").read_text())
    assert {reading["model_id"] for reading in readings} == {"credit"}
    assert Path("alerts.jsonl").exists()


def test_rows_out_of_order_are_late_unless_they_are_sorted(drift: Drift, live: Path, reference: Path) -> None:
    Path("reversed.jsonl").write_bytes(b"\n".join(reversed(live.read_bytes().splitlines()[:1_000])))
    config = reference.with_name("drift.toml")
    as_is = drift("replay", "reversed.jsonl", "--reference", reference, "-c", config)
    by_time = drift("replay", "reversed.jsonl", "--reference", reference, "-c", config, "--sort")
    assert "1000 rows, 301 in time, 699 late" in as_is.stderr
    assert "1000 rows, 1000 in time, 0 late" in by_time.stderr


def test_a_csv_is_the_same_as_json_lines(drift: Drift, live: Path, reference: Path) -> None:
    rows = [json.loads(line) for line in live.read_text().splitlines()]
    flat = [_flat(row) for row in rows]
    with Path("live.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows({name: json.dumps(value) for name, value in row.items()} for row in flat)
    config = reference.with_name("drift.toml")
    from_csv = drift("replay", "live.csv", "--reference", reference, "-c", config)
    from_json = drift("replay", live, "--reference", reference, "-c", config)
    assert from_csv.stdout == from_json.stdout
    assert from_csv.exit_code == 0


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat


# -- labels ------------------------------------------------------------------------------------------------------------


def labelled(world: World, rows: int, *, wrong: float, first: int = 0) -> list[bytes]:
    """Rows that say what was true: the answer of the model but for a share of them."""
    draws = np.random.default_rng([world.seed, rows]).random(rows)
    found = []
    for value, draw in zip(world.records(rows, first), draws, strict=True):
        row = orjson.loads(value)
        said = row["prediction"]["label"]
        other = "deny" if said == "approve" else "approve"
        found.append(orjson.dumps(row | {"actual": {"label": other if draw < wrong else said}}))
    return found


CONFIG = """
windows = { size = "10s" }
[[models]]
id = "credit"
positive_label = "approve"
segments = ["country"]
"""


def test_labelled_rows_make_a_second_reference_and_labels_are_judged_by_it(drift: Drift) -> None:
    Path("drift.toml").write_text(CONFIG)
    Path("training.jsonl").write_bytes(b"\n".join(labelled(World(seed=1, missing=0), 3 * ROWS, wrong=0.1)))
    result = drift("reference", "build", "training.jsonl", "--serving", "--out", "reference.json")
    assert result.exit_code == 0
    inputs, outcomes = events(Path("reference.json").read_text())
    assert (inputs["scope"], outcomes["scope"]) == ("inputs", "outcomes")
    right, wrong = outcomes["signals"]["outcome:error"]["counts"]
    assert (right + wrong, wrong / (right + wrong)) == (3 * ROWS, pytest.approx(0.1, abs=0.01))
    assert "outcome:delay" not in outcomes["signals"]
    assert "country=DE" in outcomes["outcomes"]["scores"]
    shown = drift("reference", "show", "reference.json").stdout
    assert "labelled rows" in shown
    assert "outcome:error" in shown

    world = World(seed=2, start_ms=START_MS + 3 * ROWS * 100, missing=0)
    live = labelled(world, ROWS // 2, wrong=0.1) + labelled(world, ROWS // 2, wrong=0.4, first=ROWS // 2)
    predictions = [orjson.dumps({k: v for k, v in orjson.loads(row).items() if k != "actual"}) for row in live]
    Path("live.jsonl").write_bytes(b"\n".join(predictions))
    Path("labels.jsonl").write_bytes(b"\n".join(map(_label_alone, live)))
    replay = ["live.jsonl", "labels.jsonl", "--reference", "reference.json"]
    result = drift("replay", *replay, "--windows", "windows.jsonl")
    assert result.exit_code == 0, result.stderr
    firing = [one["data"] for one in events(result.stdout) if one["type"].endswith(".firing.v1")]
    (alert,) = [one for one in firing if (one["kind"], one["segment"]) == ("performance", "all")]
    begins_ms = START_MS + 3 * ROWS * 100 + ROWS // 2 * 100
    assert rfc3339(begins_ms) < alert["starts_at"] <= rfc3339(begins_ms + 5 * WINDOW_MS)
    assert alert["details"]["before"] == pytest.approx(0.1, abs=0.01)
    readings = [one for one in events(Path("windows.jsonl").read_text()) if one["signal"] == "outcome:error"]
    whole = [one for one in readings if one["segment"] == "all"]
    assert sum(one["n"] for one in whole) == ROWS
    assert whole[0]["metrics"]["estimated"]["accuracy"] == pytest.approx(0.9, abs=0.05)


def _label_alone(value: bytes) -> bytes:
    row = orjson.loads(value)
    return orjson.dumps({name: row[name] for name in ("prediction_id", "model_id", "timestamp", "actual")})


def test_too_few_labels_make_no_second_reference(drift: Drift) -> None:
    Path("drift.toml").write_text(CONFIG)
    world = World(seed=1, missing=0)
    rows = labelled(world, 900, wrong=0.1) + world.records(ROWS, first=900)
    Path("training.jsonl").write_bytes(b"\n".join(rows))
    result = drift("reference", "build", "training.jsonl", "--serving")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert orjson.loads(result.stdout)["n_rows"] > ROWS // 2
    assert "1000 labelled rows, not 900" in result.stderr
