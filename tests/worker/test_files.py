"""Files become the records their producers would have sent."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import counting
import pytest
from simulator import START_MS

from stream.wire.record import Record, Role
from stream.worker import files
from stream.worker.files import Progress, UnreadableFileError
from stream.worker.replay import Summary, replay
from stream.worker.settings import Settings, Topics


def read(path: Path, *, sort: bool = False) -> list[Record]:
    return list(files.records(str(path), "predictions", 2, Progress(), sort=sort))


def test_json_lines_keep_their_bytes_and_count_from_0(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"timestamp": 1000000000000, "x": 1}\n\n not json \n{"timestamp":"1970-01-01T00:00:01Z"}\n')
    found = read(path)
    assert [record.value for record in found] == [
        b'{"timestamp": 1000000000000, "x": 1}',
        b"not json",
        b'{"timestamp":"1970-01-01T00:00:01Z"}',
    ]
    assert [(record.topic, record.partition, record.offset) for record in found] == [
        ("predictions", 2, n) for n in range(3)
    ]
    assert [record.timestamp_ms for record in found] == [1_000_000_000_000, 1_000_000_000_000, 1_000]


def test_csv_cells_are_json_scalars_or_text_and_an_empty_one_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "\ufeffprediction_id,features.age,features.region,features.ok,features.odd,features.list,tags.country\n"
        'p1,41,eu,true,,"[1]",DE\np2,NaN,"7",x,1e999,"a, ""b""",\n',
        encoding="utf-8",
    )
    first, second = (json.loads(record.value or b"") for record in read(path))
    assert first == {
        "prediction_id": "p1",
        "features": {"age": 41, "region": "eu", "ok": True, "list": "[1]"},
        "tags": {"country": "DE"},
    }
    assert second["features"]["age"] != second["features"]["age"]
    assert second["features"]["region"] == 7
    assert second["features"]["list"] == 'a, "b"'
    assert "tags" not in second


def test_parquet_with_structs_or_dotted_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    time = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
    table = pa.table(
        {
            "prediction_id": ["p1", "p2"],
            "timestamp": pa.array([time, time.replace(tzinfo=None)], pa.timestamp("ms", "UTC")),
            "features": [{"age": 1.5, "region": None}, {"age": float("nan"), "region": "eu"}],
            "prediction.score": [0.5, None],
        }
    )
    parquet.write_table(table, path)
    found = read(path)
    first, second = (json.loads(record.value or b"") for record in found)
    assert first["features"] == {"age": 1.5, "region": None}
    assert first["prediction"] == {"score": 0.5}
    assert second["features"]["region"] == "eu"
    assert "prediction" not in second
    assert {record.timestamp_ms for record in found} == {1_795_226_400_000}


def test_rows_with_a_label_are_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":1}\n{"actual":{"label":"a"}}\n{"t":2}\n', encoding="utf-8")
    progress = Progress()
    assert [record.offset for record in files.records(str(path), "p", 0, progress)] == [0, 2]
    assert (progress.rows, progress.feedback) == (3, 1)
    assert [record.offset for record in files.records(str(path), "f", 0, Progress(), feedback=True)] == [1]


def test_sorting_is_by_time_and_keeps_the_order_of_equals(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"timestamp":{t},"n":{n}}}\n' for n, t in enumerate([3, 1, 2, 1])), encoding="utf-8")
    found = read(path, sort=True)
    assert [json.loads(record.value or b"")["n"] for record in found] == [1, 3, 2, 0]
    assert [record.offset for record in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["missing.jsonl", "table.xlsx"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFileError, match=name):
        list(files.rows(str(tmp_path / name), Progress()))


def replayed(
    paths: Sequence[Path | str], feedback: Sequence[str] = ()
) -> tuple[Summary, Counter[tuple[Role, bytes | None, bytes | None]]]:
    said: Counter[tuple[Role, bytes | None, bytes | None]] = Counter()
    summary = replay(
        [str(path) for path in paths],
        counting.stages(),
        Settings(topics=Topics(feedback=list(feedback))),
        on_record=lambda role, record: said.update([(role, record.key, record.value)]),
    )
    return summary, said


def write(path: Path, rows: range) -> Path:
    lines = [{"t": START_MS + row * 7, "k": f"k{row % 5}", "timestamp": START_MS + row * 7} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n", encoding="utf-8")
    return path


def test_a_replay_closes_every_window_at_the_end_of_the_files(tmp_path: Path) -> None:
    summary, said = replayed([write(tmp_path / "a.jsonl", range(3_000))])
    assert (summary.rows, summary.ok, summary.malformed, summary.late) == (3_001, 3_000, 1, 0)
    counted = sum(json.loads(value or b"")["n"] for role, _, value in said.elements() if role == "windows")
    assert counted == 3_000
    assert sum(role == "alerts" for role, *_ in said.elements()) == 30
    assert sum(role == "dead_letters" for role, *_ in said.elements()) == 1


def test_files_merge_by_time_whatever_their_number(tmp_path: Path) -> None:
    _, one = replayed([write(tmp_path / "all.jsonl", range(3_000))])
    parts = [write(tmp_path / f"{part}.jsonl", range(part, 3_000, 3)) for part in range(3)]
    _, three = replayed(parts)
    assert Counter({key: n for key, n in one.items() if key[0] != "dead_letters"}) == Counter(
        {key: n for key, n in three.items() if key[0] != "dead_letters"}
    )


def with_labels(path: Path, rows: range) -> Path:
    """Every second prediction has a label, all of them behind the predictions."""
    times = {row: START_MS + row * 7 for row in rows}
    lines: list[dict[str, Any]] = [
        {"t": time, "k": "a", "id": f"p{row}", "timestamp": time} for row, time in times.items()
    ]
    lines += [
        {"t": time + 700, "k": "a", "id": f"p{row}", "timestamp": time + 700, "actual": {"label": "x"}}
        for row, time in times.items()
        if row % 2 == 0
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def pairs_of(said: Counter[tuple[Role, bytes | None, bytes | None]]) -> int:
    return sum(
        json.loads(value or b"")["n"] for role, key, value in said.elements() if role == "windows" and key == b"pair:a"
    )


def test_rows_with_a_label_are_feedback_wherever_they_stand(tmp_path: Path) -> None:
    one = with_labels(tmp_path / "one.jsonl", range(1_000))
    summary, said = replayed([one], ["feedback"])
    assert (summary.rows, summary.feedback, summary.ok) == (1_500, 500, 1_500)
    assert pairs_of(said) == 500
    lines = one.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "two.jsonl").write_text("".join(lines[:1_000]), encoding="utf-8")
    (tmp_path / "labels.jsonl").write_text("".join(lines[1_000:]), encoding="utf-8")
    assert replayed([tmp_path / "labels.jsonl", tmp_path / "two.jsonl"], ["feedback"])[1] == said
    summary, said = replayed([one])
    assert (summary.feedback, summary.ok, pairs_of(said)) == (500, 1_000, 0)


def test_standard_input_may_bring_labels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_labels(tmp_path / "one.jsonl", range(200))
    with path.open("rb") as given:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(given))
        _, said = replayed(["-"], ["feedback"])
    assert pairs_of(said) == 100


def test_predictions_without_any_label_do_not_wait_for_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", range(1_000))
    assert replayed([path], ["feedback"]) == replayed([path])


def test_an_empty_file_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    summary, said = replayed([tmp_path / "empty.jsonl", write(tmp_path / "a.jsonl", range(100))])
    assert summary.ok == 100
    assert said
