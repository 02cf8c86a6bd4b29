"""The commands that talk to a broker, on a real one: topics, references, alerts, the demo's traffic."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import doorway
import pytest
from kafka.cluster import Cluster
from typer.testing import Result
from worlds import World

DEADLINE_S = 90


@pytest.fixture
def config(cluster: Cluster, tmp_path: Path) -> Path:
    """Topics and a group of its own."""
    name = uuid4().hex[:8]
    file = tmp_path / "drift.toml"
    file.write_text(
        f"""
service = {{ id = "cli-{name}" }}
topics = {{ predictions = ["p-{name}"], feedback = [], alerts = "alerts-{name}", prefix = "{name}." }}
windows = {{ size = "1s", lateness = "1s" }}
http = {{ port = 0 }}
kafka = {{ bootstrap_servers = "{cluster.bootstrap}" }}
"""
    )
    return file


def drift(config: Path, *arguments: object) -> Result:
    return doorway.drift(*arguments, "-c", config)


def test_topics_are_made_once_and_checked(config: Path) -> None:
    missing = drift(config, "topics", "check")
    make = ["topics", "create", "--inputs", 4, "--replication-factor", 1, "--partitions", 3]
    dry, made, again = drift(config, *make, "--dry-run"), drift(config, *make), drift(config, *make)
    fine = drift(config, "topics", "check")
    assert missing.exit_code == 3
    assert "topic is missing, expected there; run `drift topics create`" in missing.stderr
    assert all(line.endswith(" would be created") for line in dry.stdout.splitlines())
    assert all(line.endswith(" created") for line in made.stdout.splitlines())
    assert all(line.endswith(" exists") for line in again.stdout.splitlines())
    assert [len(one.stdout.splitlines()) for one in (dry, made, again)] == [8, 8, 8]
    assert (fine.exit_code, fine.stdout) == (0, "8 topics are as they should be\n")


def test_more_replicas_than_brokers_are_refused_with_the_brokers_words(config: Path) -> None:
    result = drift(config, "topics", "create", "--replication-factor", 3)
    assert result.exit_code == 3
    assert "INVALID_REPLICATION_FACTOR" in result.stderr


def test_a_published_reference_is_listed(config: Path) -> None:
    drift(config, "topics", "create", "--inputs", 1, "--replication-factor", 1, "--partitions", 1)
    rows, file = config.with_name("rows.jsonl"), config.with_name("reference.json")
    rows.write_bytes(b"\n".join(World(seed=5).records(700)))
    assert drift(config, "reference", "show").stdout == ""
    assert drift(config, "reference", "build", rows, "--out", file).exit_code == 0
    published = drift(config, "reference", "publish", file, "--effective-from", "2026-11-21T00:00:00Z")
    assert published.exit_code == 0
    reference_id = published.stdout.split()[0]
    listed = drift(config, "reference", "show").stdout.splitlines()[1].split()
    assert listed == [reference_id, "credit", "3", "inputs", "built", "525", "2026-11-21T00:00:00.000Z"]


def test_the_demo_traffic_raises_an_alert_that_tail_shows(config: Path) -> None:
    drift(config, "topics", "create", "--inputs", 4, "--replication-factor", 1, "--partitions", 3)
    assert drift(config, "run", "--check").exit_code == 0
    program = [sys.executable, "-m", "stream"]
    with (
        subprocess.Popen([*program, "run", "-c", config, "--workers", "2"], stderr=subprocess.DEVNULL) as worker,
        subprocess.Popen([*program, "demo", "--produce", "-c", config], stdout=subprocess.PIPE) as traffic,
    ):
        try:
            alert = _first_alert(config)
        finally:
            for process in (traffic, worker):
                process.send_signal(signal.SIGTERM)
        said, _ = traffic.communicate(timeout=30)
        assert (traffic.returncode, worker.wait(60)) == (0, 0)
    assert b"planted: from here on f3, f7, f8 read 4 too high" in said
    assert {"feature:f3", "feature:f7"} & {entry["signal"] for entry in alert["data"]["signals"]}


def _first_alert(config: Path) -> dict[str, dict[str, list[dict[str, str]]]]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        result = drift(config, "tail", "--severity", "warning", "-n", 1, "-o", "json")
        assert result.exit_code == 0, result.stderr
        if result.stdout:
            alert: dict[str, dict[str, list[dict[str, str]]]] = json.loads(result.stdout)
            return alert
        time.sleep(0.5)
    pytest.fail(f"no alert within {DEADLINE_S} s")
