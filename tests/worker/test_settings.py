"""What a person may set, and what exactly-once depends on."""

import pytest
from pydantic import ValidationError

from stream.worker import clients
from stream.worker.settings import OURS, Kafka, Service, Settings, Topics


def kafka(**properties: object) -> Kafka:
    return Kafka.model_validate({"bootstrap_servers": "b:9092", "properties": properties})


def test_nested_properties_become_dotted_names() -> None:
    nested = kafka(sasl={"mechanisms": "PLAIN", "oauthbearer": {"scope": "x"}}, **{"security.protocol": "SSL"})
    assert nested.properties == {
        "sasl.mechanisms": "PLAIN",
        "sasl.oauthbearer.scope": "x",
        "security.protocol": "SSL",
    }


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_exactly_once_depends_on_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        kafka(**{name: "1"})


def test_every_client_carries_what_the_recipe_demands() -> None:
    settings = Settings(service=Service(id="svc"), kafka=kafka(**{"sasl.username": "drift", "linger.ms": 5}))
    producer = clients.producer(settings, "3")
    consumer = clients.consumer(settings, "3", mock=False)
    reader = clients.reader(settings, "3", mock=False)
    assert producer["transactional.id"] == consumer["client.id"] == "svc.3"
    assert producer["linger.ms"] == 5
    assert "linger.ms" not in consumer
    assert consumer["group.id"] == reader["group.id"] == "svc"
    assert consumer["isolation.level"] == reader["isolation.level"] == "read_committed"
    assert consumer["auto.offset.reset"] == reader["auto.offset.reset"] == "error"
    assert (consumer["enable.auto.commit"], consumer["enable.auto.offset.store"]) == (False, False)
    assert consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert {conf["metadata.recovery.strategy"] for conf in (producer, consumer, reader)} == {"none"}
    assert {conf["sasl.username"] for conf in (producer, consumer, reader)} == {"drift"}


def test_the_new_protocol_of_the_group_drops_what_it_refuses() -> None:
    settings = Settings(kafka=Kafka(bootstrap_servers="b", group_protocol="consumer"))
    consumer = clients.consumer(settings, "0", mock=False)
    assert consumer["group.protocol"] == "consumer"
    assert consumer.keys().isdisjoint({"partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"})


def test_topics_have_names_no_patterns_and_no_doubles() -> None:
    assert Topics(prefix="x.").of("dead_letters") == "x.dead-letters"
    assert Topics(alerts="a").of("alerts") == "a"
    for wrong in (["a", "a"], ["^a.*"], []):
        with pytest.raises(ValidationError):
            Topics(predictions=wrong)
