"""The same loop and the same stages over files, without Kafka: what `drift replay` does.

Each file is one partition of the topic of predictions and, where one of them has labels, of that of feedback; files
merge by event time. Transactions end with the turn instead of the clock, so the same files make the same transactions;
and the end of a file closes what it had opened.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice

from msgspec import Struct

from stream.wire.codec import partition_of
from stream.wire.record import Outgoing, Record, Role
from stream.worker import files
from stream.worker.cluster import Cluster, LazyPartition
from stream.worker.local import LocalEnds
from stream.worker.loop import Loop, Options
from stream.worker.settings import Settings
from stream.worker.stages import Stages
from stream.worker.status import Status

TURN_RECORDS = 5_000
PUBLIC: tuple[Role, ...] = ("alerts", "windows", "dead_letters", "references")


class Summary(Struct, frozen=True):
    """What a replay read."""

    rows: int
    feedback: int
    """Rows with a true outcome. Without a topic of feedback in the settings they are left out."""
    ok: int
    late: int
    malformed: int
    tombstones: int
    published: dict[str, int]
    """Records by role of their topic."""


def replay(  # noqa: PLR0913 - a command with its options
    paths: Sequence[str],
    stages: Stages,
    settings: Settings,
    *,
    references: Sequence[Outgoing] = (),
    controls: Iterable[bytes] = (),
    on_record: Callable[[Role, Record], None],
    on_progress: Callable[[files.Progress], None] = lambda _: None,
    given: files.FileFormat = "auto",
    sort: bool = False,
) -> Summary:
    """Run the stages over files. `on_record` hears every public record once, in order per key.

    `references` and control events stand in the log before the first row. Raises `files.UnreadableFileError` and, for a
    bug, Stopped.
    """
    topics = settings.topics
    with ExitStack() as stack:
        if topics.feedback:
            paths = [stack.enter_context(files.rereadable(path)) for path in paths]
        progress = files.Progress(bytes_total=sum(files.size_of(path) for path in paths))
        read = partial(files.records, given=given, sort=sort)
        status = replay_records(
            [read(path, topics.predictions[0], number, progress) for number, path in enumerate(paths)],
            stages,
            settings,
            feedback=_labels(paths, topics.feedback[0], read) if topics.feedback else (),
            references=references,
            controls=controls,
            on_record=on_record,
            on_turn=lambda: on_progress(progress),
        )
    outcome: Counter[str] = Counter()
    for (_, name), count in status.records.items():
        outcome[name] += count
    return Summary(
        progress.rows,
        progress.feedback,
        outcome["ok"],
        outcome["late"],
        outcome["malformed"],
        outcome["tombstone"],
        dict(status.published),
    )


def _labels(paths: Sequence[str], topic: str, read: Callable[..., Iterator[Record]]) -> list[Iterator[Record]]:
    """The feedback of each file; nothing if none has any, since then all predictions would wait in vain.

    Files are read once more for it, beside their predictions: labels may stand far behind these.
    """
    found = [read(path, topic, number, files.Progress(), feedback=True) for number, path in enumerate(paths)]
    first = [list(islice(records, 1)) for records in found]
    return [chain(head, records) for head, records in zip(first, found, strict=True)] if any(first) else []


def replay_records(  # noqa: PLR0913 - as replay
    inputs: Sequence[Iterator[Record]],
    stages: Stages,
    settings: Settings,
    *,
    feedback: Sequence[Iterator[Record]] = (),
    references: Sequence[Outgoing] = (),
    controls: Iterable[bytes] = (),
    on_record: Callable[[Role, Record], None],
    on_turn: Callable[[], None] = lambda: None,
    turn_records: int = TURN_RECORDS,
    internal_partitions: int = 1,
) -> Status:
    """The same over records, an iterator for each partition of predictions and of feedback, offsets from 0 and rising.

    Without any feedback nothing is joined.
    """
    topics = settings.topics
    roles = {topics.of(role): role for role in PUBLIC}

    def told(record: Record) -> None:
        if (role := roles.get(record.topic)) is not None:
            on_record(role, record)

    cluster = Cluster(on_record=told)
    for role in (*PUBLIC, "pairs", "profiles", "snapshots"):
        cluster.create(topics.of(role), 1 if role == "references" else internal_partitions)
    for reference in references:
        where = (topics.of("references"), partition_of(reference.key, 1))
        cluster.write(where, reference.value, reference.key, timestamp_ms=0, headers=reference.headers)
    joined = topics if feedback else topics.model_copy(update={"feedback": []})
    for names, partitions in ((joined.predictions, inputs), (joined.feedback, feedback)):
        # Of several topics the first has all there is, and nobody waits for a topic without partitions.
        cluster.logs |= {name: [] for name in names}
        cluster.logs |= {name: [LazyPartition(records) for records in partitions] for name in names[:1]}
    control = topics.of("control")
    events = (Record(control, 0, offset, 0, None, value) for offset, value in enumerate(controls))
    cluster.logs[control] = [LazyPartition(events)]
    alone = settings.model_copy(update={"topics": joined, "idle_after_ms": 0})
    loop = Loop(
        LocalEnds(cluster, settings.service.id, "replay", trims=True),
        stages,
        alone,
        options=Options(strict=True, timed=False, snapshots=False, poll_records=turn_records),
    )
    loop.open()
    while not loop.is_drained:
        loop.turn()
        on_turn()
    return loop.status
