"""The command line as a person uses it: arguments in; exit code, stdout and stderr out."""

from collections.abc import Iterator
from pathlib import Path

import doorway
import pytest
from confluent_kafka import Producer
from doorway import Drift


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and no variable of ours is in the way."""
    monkeypatch.chdir(tmp_path)
    for name in ("DRIFT_CONFIG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def drift() -> Drift:
    """Calls the program."""
    return doorway.drift


@pytest.fixture(scope="session")
def broker() -> Iterator[Producer]:
    """A broker inside librdkafka; its address is `bootstrap`."""
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
    yield producer
    producer.flush(1)


@pytest.fixture
def bootstrap(broker: Producer) -> str:
    """Where the broker is."""
    return ",".join(str(one).partition("/")[0] for one in broker.list_topics(timeout=5).brokers.values())
