"""One real Apache Kafka for all tests of this folder, and a loud word where there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from kafka.cluster import Cluster, UnavailableError, required, running

HERE: Final = Path(__file__).parent
REASON: Final = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this folder, so that `-m "not kafka"` leaves them out."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running broker, shared by all tests: each has topics and groups of its own names and leaves it running."""
    try:
        with running(tmp_path_factory.mktemp("kafka")) as started:
            yield started
    except UnavailableError as error:
        if required():
            pytest.fail(str(error), pytrace=False)
        request.config.stash[REASON] = str(error)
        pytest.skip(str(error))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says it loudly when nothing was tested against a real broker."""
    reason = config.stash.get(REASON, None)
    if reason is not None:
        terminalreporter.section("NOT TESTED AGAINST APACHE KAFKA", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True, bold=True)
