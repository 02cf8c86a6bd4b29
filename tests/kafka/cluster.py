"""A real Apache Kafka for the tests: one KRaft node, fetched with Maven, on free ports, killed and restarted at will.

    with running(folder) as cluster:
        cluster.create_topics({"predictions": 4})
        Producer({"bootstrap.servers": cluster.bootstrap})

Nothing here is needed by `make test-fast`. The settings are those of a laptop: few partitions of the internal topics
and short sessions, so that `kill -9` and a restart take seconds. `python -m kafka.cluster` only fetches.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent.parent / ".cache" / "kafka"
VERSION: Final = os.environ.get("DRIFT_KAFKA_VERSION", "4.2.1")
PORTS: Final = range(20_000, 32_000)
"""Below 32768, where the kernel begins to hand out ports to dialling clients: a restarted broker finds its own free."""
DEADLINE_S: Final = 120
HEAP: Final = ("-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
log.dirs={home}/node-1
listeners=PLAINTEXT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port}
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=16777216
"""


class UnavailableError(Exception):
    """No broker can be started here; the message is one sentence that says why and how to mend it."""


def required() -> bool:
    """Whether a broker that does not start fails the tests: in CI, and wherever somebody asked for it."""
    return os.environ.get("CI") == "true" or os.environ.get("DRIFT_REQUIRE_KAFKA") == "1"


def fetch() -> Path:
    """Folder of the broker's jars; downloaded the first time (some 130 MB), complete or not there at all.

    Raises:
        UnavailableError: Java or Maven is missing, or Maven could not download.
    """
    _require("java", "Java 17", "apt-get install openjdk-17-jre-headless")
    libs = CACHE / VERSION / "libs"
    if libs.is_dir():
        return libs
    partial = CACHE / VERSION / f"partial-{os.getpid()}"
    goal = [
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={partial}",
        f"-Dkafka.version={VERSION}",
    ]
    try:
        _require("mvn", "Maven", "apt-get install maven")
        done = _run(["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), *goal])
        if done.returncode != 0:
            message = f"Maven could not fetch Apache Kafka {VERSION}: {_last_line(done.stdout)}"
            raise UnavailableError(message)
        with suppress(OSError):  # somebody else was faster, and theirs is as good
            partial.rename(libs)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return libs


class Cluster:
    """One node of Apache Kafka in a folder of its own.

    The folder keeps its data from `kill` or `stop` to the next `start`, and the address stays the same.
    """

    def __init__(self, home: Path) -> None:
        """Fetches the broker if need be and formats the storage in `home`.

        Raises:
            UnavailableError: Java or Maven is missing, or the broker cannot be fetched.
        """
        self._home = home
        self._libs = fetch()
        client_port, controller_port = _free_ports(2)
        self.bootstrap: Final = f"127.0.0.1:{client_port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = home / "broker.log"
        self._properties = home / "server.properties"
        home.mkdir(parents=True, exist_ok=True)
        text = PROPERTIES.format(home=home, client_port=client_port, controller_port=controller_port)
        self._properties.write_text(text, encoding="utf-8")
        self._format()

    @property
    def pid(self) -> int | None:
        """Process id of the broker, None while it is down."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the broker and waits until it answers.

        Raises:
            UnavailableError: it died, or did not answer within two minutes; with the last line it wrote.
        """
        if self._process is not None:
            message = "the broker is running already"
            raise RuntimeError(message)
        logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
        command = [
            *_leash(),
            *self._java(),
            *HEAP,
            logging,
            f"-Dkafka.logs.dir={self._home / 'logs'}",
            "kafka.Kafka",
            str(self._properties),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._await_answer()

    def kill(self) -> None:
        """`kill -9`: no goodbye to anybody, nothing flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """A clean stop, as SIGTERM asks for it; a broker that takes more than a minute is killed."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kills the broker if it runs, and starts it again on the same data and address."""
        if self._process is not None:
            self.kill()
        self.start()

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Creates topics, name to number of partitions, all of one configuration; returns when each can be written.

        Raises:
            KafkaException: as the broker answers, for instance when a topic is there already.
        """
        admin = self._admin()
        wanted = [NewTopic(name, n, 1, config=dict(config or {})) for name, n in partitions.items()]
        for future in admin.create_topics(wanted, operation_timeout=DEADLINE_S).values():
            future.result()

    def records(self, topic: str, *, committed: bool = True) -> list[Message]:
        """All records of a topic up to its end, partition after partition in offset order.

        `committed` leaves out what aborted or open transactions wrote, as a careful reader does; False shows all.
        """
        settings: dict[str, str | int | float | bool | None] = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "records-of-the-tests",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
        consumer = Consumer(settings)
        try:
            partitions = consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
            found: dict[int, list[Message]] = {partition: [] for partition in partitions}
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            _read_to_end(consumer, found)
        finally:
            consumer.close()
        return [message for partition in sorted(found) for message in found[partition]]

    def _java(self) -> list[str]:
        return ["java", "-cp", f"{self._libs}/*"]

    def _format(self) -> None:
        """Writes the identity of the cluster into its folder; a formatted folder stays as it is."""
        tool = [*self._java(), "kafka.tools.StorageTool"]
        # Any 16 bytes in URL-safe base 64 without padding are an identity; the folder is what tells clusters apart.
        identity = "ZHJpZnRzdHJlYW0tdGVzdA"
        arguments = ["format", "-t", identity, "-c", str(self._properties), "--ignore-formatted", "--standalone"]
        done = _run([*tool, *arguments])
        if done.returncode != 0:
            message = f"Apache Kafka {VERSION} could not format its storage: {_last_line(done.stdout)}"
            raise UnavailableError(message)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _await_answer(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        admin = self._admin()
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with suppress(KafkaException):
                if admin.list_topics(timeout=1).brokers:
                    return
        said = _last_line(self._log.read_text(encoding="utf-8", errors="replace"))
        self._end(signal.SIGKILL)
        message = f"Apache Kafka {VERSION} did not start within {DEADLINE_S} s; the last it said: {said}"
        raise UnavailableError(message)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(sign)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(home: Path) -> Iterator[Cluster]:
    """A started cluster in `home`, stopped at the end whatever happened.

    Raises:
        UnavailableError: none can be started here.
    """
    cluster = Cluster(home)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _read_to_end(consumer: Consumer, found: dict[int, list[Message]]) -> None:
    """Fills the lists of `found` until each partition has reported its end."""
    open_partitions = set(found)
    deadline = time.monotonic() + DEADLINE_S
    while open_partitions:
        if time.monotonic() > deadline:
            message = f"partitions {sorted(open_partitions)} did not come to their end within {DEADLINE_S} s"
            raise TimeoutError(message)
        for message_or_end in consumer.consume(10_000, timeout=0.2):
            error = message_or_end.error()
            partition = message_or_end.partition()
            if partition is None:
                raise KafkaException(error)
            if error is None:
                found[partition].append(message_or_end)
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(partition)
            else:
                raise KafkaException(error)


def _require(command: str, name: str, remedy: str) -> None:
    if shutil.which(command) is None:
        message = (
            f"{name} is missing, which the tests against a real Apache Kafka need: install it with `{remedy}` "
            "(or your system's package manager), or run `make test-fast`, which needs neither Java nor Maven"
        )
        raise UnavailableError(message)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def _leash() -> list[str]:
    """Words before a command that let it die with us, even if we are killed; none where the system has no such tool."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def _free_ports(count: int) -> list[int]:
    """Distinct ports nobody listens on, in random order so that two runs side by side rarely meet."""
    free: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    message = f"no {count} free ports in {PORTS}"
    raise UnavailableError(message)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(nothing)"


if __name__ == "__main__":
    try:
        fetch()
    except UnavailableError as error:
        sys.exit(f"{error}.")
