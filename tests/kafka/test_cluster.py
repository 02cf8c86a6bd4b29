"""The broker of the tests does what the other tests of this folder take for granted."""

from confluent_kafka import Producer
from kafka.cluster import Cluster


def _transactional(cluster: Cluster, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "transactional.id": name})
    producer.init_transactions(60)
    return producer


def test_a_careful_reader_sees_committed_records_and_no_aborted_ones(cluster: Cluster) -> None:
    cluster.create_topics({"cluster-transactions": 2})
    producer = _transactional(cluster, "cluster-transactions")

    producer.begin_transaction()
    producer.produce("cluster-transactions", b"kept", partition=1)
    producer.commit_transaction(60)
    producer.begin_transaction()
    producer.produce("cluster-transactions", b"dropped", partition=0)
    producer.flush(60)
    producer.abort_transaction(60)

    assert [m.value() for m in cluster.records("cluster-transactions")] == [b"kept"]
    assert [m.value() for m in cluster.records("cluster-transactions", committed=False)] == [b"dropped", b"kept"]


def test_what_was_committed_survives_kill_9_of_the_broker(cluster: Cluster) -> None:
    cluster.create_topics({"cluster-kill": 1})
    producer = _transactional(cluster, "cluster-kill")
    producer.begin_transaction()
    producer.produce("cluster-kill", b"before")
    producer.commit_transaction(60)
    killed = cluster.pid

    cluster.restart()

    assert cluster.pid not in {None, killed}
    producer.begin_transaction()
    producer.produce("cluster-kill", b"after")
    producer.commit_transaction(60)
    assert [m.value() for m in cluster.records("cluster-kill")] == [b"before", b"after"]
