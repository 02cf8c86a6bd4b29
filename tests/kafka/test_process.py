"""The worker as a process on a real broker: exit codes, health, topics."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka.cluster import Cluster
from kafka.workers import Scene, scene, wait_until
from prometheus_client.parser import text_string_to_metric_families

from stream.worker import topics
from stream.worker.settings import Kafka, Service, Settings, Topics


@pytest.fixture
def play(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene named after its test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    with scene(cluster.bootstrap, name, tmp_path, records=1_000) as made:
        yield made


def settings_of(cluster: Cluster, name: str) -> Settings:
    return Settings(
        service=Service(id=name),
        kafka=Kafka(bootstrap_servers=cluster.bootstrap),
        topics=Topics(feedback=[], predictions=[f"{name}-in"], alerts=f"{name}-alerts", prefix=f"{name}."),
    )


def lines(play: Scene, event: str) -> list[dict[str, object]]:
    """What a worker's log says of an event."""
    found = [json.loads(line) for line in play.said("0").splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def get(play: Scene, path: str) -> tuple[int, str]:
    port = lines(play, "starting")[-1]["http_port"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def counted(play: Scene, outcome: str) -> float | None:
    """Records of the input, by outcome."""
    families = text_string_to_metric_families(get(play, "/metrics")[1])
    samples = [sample for family in families if family.name == "drift_records" for sample in family.samples]
    return next((sample.value for sample in samples if sample.labels["outcome"] == outcome), None)


def test_health_and_metrics_of_a_running_worker(play: Scene) -> None:
    play.produce(play.inputs())
    play.start("0")
    wait_until(lambda: bool(lines(play, "starting")), play.report)
    assert get(play, "/livez")[0] == 200
    wait_until(lambda: get(play, "/readyz")[0] == 200 and get(play, "/startupz")[0] == 200, play.report)
    wait_until(lambda: counted(play, "ok") == 1_004, play.report)
    at_the_end = f'drift_consumer_lag_records{{partition="0",topic="{play.name}-in"}} 0.0'
    wait_until(lambda: at_the_end in get(play, "/metrics")[1], play.report)
    metrics = get(play, "/metrics")[1]
    assert 'drift_assigned_partitions{stage="ingest"} 5.0' in metrics  # four of the input, and drift.control
    assert 'drift_assigned_partitions{stage="detect"} 3.0' in metrics
    assert 'drift_restoring_tasks{stage="detect"} 0.0' in metrics
    assert 'drift_transactions_total{outcome="aborted"}' not in metrics
    assert play.stop() == {"0": 0}
    assert lines(play, "transaction")
    assert lines(play, "closed")


def test_a_bug_in_a_stage_ends_the_process_and_publishes_nothing(play: Scene, cluster: Cluster) -> None:
    play.produce(play.inputs())
    play.start("0", "step@ingest=raise")
    assert play.wait("0") == 70
    [stopped] = lines(play, "stopped")
    assert "ingest failed on" in str(stopped["detail"])
    assert cluster.records(f"{play.name}.profiles") == []


def test_input_deleted_above_the_offset_needs_a_decision(play: Scene, cluster: Cluster) -> None:
    inputs = play.inputs()
    play.produce(inputs[:400])
    play.start("0")
    wait_until(lambda: bool(lines(play, "transaction")), play.report)
    assert play.stop() == {"0": 0}
    play.produce(inputs[400:])
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    topic = play.settings.topics.predictions[0]
    for answer in admin.delete_records([TopicPartition(topic, 0, 200)]).values():
        answer.result()
    play.start("0")
    assert play.wait("0") == 5
    assert lines(play, "stopped")[-1]["code"] == "input_gone"


def test_a_missing_topic_is_named(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster.bootstrap, "missing", tmp_path, records=10) as play:
        play.settings = play.settings.model_copy(
            update={"topics": play.settings.topics.model_copy(update={"predictions": ["nowhere"]})}
        )
        play.start("0")
        assert play.wait("0") == 3
        assert "nowhere: topic is missing" in str(lines(play, "stopped")[-1]["detail"])


def test_topics_are_made_once_and_then_left_alone(cluster: Cluster) -> None:
    settings = settings_of(cluster, "made")
    first = topics.create(settings, partitions=3, replication=1, inputs=2)
    assert set(first.values()) == {"created"}
    assert set(topics.create(settings, partitions=5, replication=1, inputs=4).values()) == {"exists"}
    assert topics.check(settings) == []


def test_a_dry_run_makes_nothing(cluster: Cluster) -> None:
    settings = settings_of(cluster, "dry")
    assert set(topics.create(settings, partitions=3, replication=1, inputs=2, dry_run=True).values()) == {"created"}
    assert {finding.key for finding in topics.check(settings)} == {"topic"}


def test_what_exactly_once_depends_on_is_a_fault_and_the_rest_a_warning(cluster: Cluster) -> None:
    settings = settings_of(cluster, "odd")
    cluster.create_topics({"odd.profiles": 3}, {"retention.ms": "60000"})
    cluster.create_topics({"odd.snapshots": 2}, {"cleanup.policy": "delete"})
    topics.create(settings, partitions=3, replication=1, inputs=2)
    found = {(finding.topic, finding.key): finding.level for finding in topics.check(settings)}
    assert found["odd.profiles", "retention.ms"] == "fault"
    assert found["odd.profiles", "message.timestamp.type"] == "fault"
    assert found["odd.snapshots", "partitions"] == "fault"
    assert found["odd.snapshots", "cleanup.policy"] == "fault"
    assert found["odd.snapshots", "segment.ms"] == "warning"


def test_the_log_of_pairs_must_reach_back_over_two_horizons(cluster: Cluster) -> None:
    base = settings_of(cluster, "two")
    topics_ = base.topics.model_copy(update={"feedback": ["two-feedback"]})
    settings = base.model_copy(update={"topics": topics_, "horizon_ms": 3_600_000, "lateness_ms": 1_000})
    cluster.create_topics({"two.pairs": 2}, {"retention.ms": "7200000", "message.timestamp.type": "LogAppendTime"})
    topics.create(settings, partitions=3, replication=1, inputs=2)
    [found] = [finding for finding in topics.check(settings) if finding.level == "fault"]
    assert (found.topic, found.key, found.expected) == ("two.pairs", "retention.ms", str(7_201_000 + topics.DAY_MS))
    assert [finding for finding in topics.check(base) if finding.level == "fault"] == []


def test_what_a_producer_aborted_is_never_read(play: Scene, cluster: Cluster) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "transactional.id": f"{play.name}-other"})
    producer.init_transactions(60)
    topic = play.settings.topics.predictions[0]
    producer.begin_transaction()
    producer.produce(topic, b"never seen", partition=0)
    producer.flush(60)
    producer.abort_transaction(60)
    play.produce(play.inputs())
    play.start("0")
    wait_until(lambda: bool(lines(play, "starting")), play.report)
    wait_until(lambda: counted(play, "ok") == 1_004, play.report)
    assert counted(play, "malformed") == 0
