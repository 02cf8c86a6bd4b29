"""The metrics of a worker: one typed list with unit and meaning, read from `Status` when somebody scrapes."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, TypeAlias

from confluent_kafka import libversion
from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from stream.worker.status import SECONDS, Durations, Status

Series: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Family(Struct, frozen=True):
    """One metric: its name says the unit."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[Status], Any]


def _one(value: float | None) -> Series:
    return [] if value is None else [((), value)]


def _by_key(values: Mapping[str, float]) -> Series:
    return [((key,), value) for key, value in dict(values).items()]


def _by_keys(values: Mapping[tuple[str, str], float]) -> Series:
    return [(key, value) for key, value in dict(values).items()]


def _by_partition(values: Mapping[tuple[str, int], float]) -> Series:
    return [((topic, str(partition)), value) for (topic, partition), value in dict(values).items()]


def _since_ms(values: Mapping[tuple[str, int], int]) -> Series:
    now_ms = time.time_ns() // 1_000_000
    return [(labels, (now_ms - value) / 1_000) for labels, value in _by_partition(values)]


def _ages(values: Mapping[tuple[str, str], int]) -> Series:
    now_ms = time.time_ns() // 1_000_000
    return [(names, (now_ms - value) / 1_000) for names, value in dict(values).items()]


def _snapshot_age(status: Status) -> Series:
    oldest_seconds = min(dict(status.snapshot_seconds).values(), default=None)
    return [] if oldest_seconds is None else [(("detect",), time.monotonic() - oldest_seconds)]


def _build(_status: Status) -> Series:
    return [((package_version(), platform.python_version(), libversion()[0]), 1)]


TOPIC_PARTITION: Final = ("topic", "partition")
FAMILIES: Final = (
    Family("drift_records", "counter", "records read", ("topic", "outcome"), lambda s: _by_keys(s.records)),
    Family("drift_record_bytes", "counter", "bytes of values read", ("topic",), lambda s: _by_key(s.record_bytes)),
    Family(
        "drift_dead_letters",
        "counter",
        "records that could not be read",
        ("topic", "code"),
        lambda s: _by_keys(s.dead_letters),
    ),
    Family(
        "drift_pairs",
        "counter",
        "predictions and labels that met, or did not, as join tells them",
        ("model_id", "outcome"),
        lambda s: _by_keys(s.pairs),
    ),
    Family(
        "drift_pairs_pending",
        "gauge",
        "predictions and labels held because they may still meet another",
        (),
        lambda s: _one(s.pairs_pending),
    ),
    Family(
        "drift_stage_duration_seconds",
        "histogram",
        "time in a stage per call",
        ("stage",),
        lambda s: [((name,), durations) for name, durations in s.stage_seconds.items()],
    ),
    Family(
        "drift_transaction_duration_seconds",
        "histogram",
        "from the first record of a transaction to its commit",
        (),
        lambda s: [((), s.transaction_seconds)],
    ),
    Family(
        "drift_window_close_delay_seconds",
        "histogram",
        "from the end of a window to the commit of what it says",
        (),
        lambda s: [((), s.close_delay_seconds)],
    ),
    Family(
        "drift_consumer_lag_records",
        "gauge",
        "records behind the end of the log",
        TOPIC_PARTITION,
        lambda s: _by_partition(s.lag_records),
    ),
    Family(
        "drift_watermark_lag_seconds",
        "gauge",
        "clock minus watermark of an input partition, or of the outcomes of a partition of pairs",
        TOPIC_PARTITION,
        lambda s: _since_ms(s.watermark_ms),
    ),
    Family(
        "drift_unstable_records",
        "gauge",
        "high watermark minus last stable offset: records behind an open transaction",
        TOPIC_PARTITION,
        lambda s: _by_partition(s.unstable_records),
    ),
    Family("drift_assigned_partitions", "gauge", "tasks of this worker", ("stage",), lambda s: _by_key(s.assigned)),
    Family(
        "drift_restoring_tasks",
        "gauge",
        "tasks on their way to their state",
        ("stage",),
        lambda s: _by_key(s.restoring),
    ),
    Family(
        "drift_restore_remaining_records",
        "gauge",
        "records still to be replayed",
        ("stage",),
        lambda s: _by_key(s.restore_remaining),
    ),
    Family(
        "drift_snapshot_age_seconds",
        "gauge",
        "age of the snapshot of the task that has waited longest",
        ("stage",),
        _snapshot_age,
    ),
    Family(
        "drift_state_bytes", "gauge", "encoded state at the last snapshot", ("stage",), lambda s: _by_key(s.state_bytes)
    ),
    Family(
        "drift_last_commit_timestamp_seconds",
        "gauge",
        "when the last transaction was committed",
        (),
        lambda s: _one(None if s.last_commit_ms is None else s.last_commit_ms / 1_000),
    ),
    Family(
        "drift_snapshot_errors",
        "counter",
        "snapshots that could not be used",
        ("stage", "reason"),
        lambda s: _by_keys(s.snapshot_errors),
    ),
    Family(
        "drift_broker_errors", "counter", "errors the clients reported", ("code",), lambda s: _by_key(s.broker_errors)
    ),
    Family("drift_transactions", "counter", "transactions", ("outcome",), lambda s: _by_key(s.transactions)),
    Family("drift_rebalances", "counter", "changes of the assignment", (), lambda s: _one(s.rebalances)),
    Family(
        "drift_alerts",
        "counter",
        "alerts published",
        ("model_id", "kind", "severity", "status"),
        lambda s: list(dict(s.alerts).items()),
    ),
    Family(
        "drift_alerts_firing",
        "gauge",
        "alerts that are open",
        ("model_id", "kind", "severity"),
        lambda s: list(dict(s.detection.firing).items()),
    ),
    Family(
        "drift_verdicts",
        "counter",
        "verdicts on signals, segments and windows",
        ("detector", "level"),
        lambda s: _by_keys(s.detection.verdicts),
    ),
    Family(
        "drift_suppressed_alerts",
        "counter",
        "alerts and notices that were kept back",
        ("reason",),
        lambda s: _by_key(s.detection.suppressed),
    ),
    Family(
        "drift_evidence_ratio",
        "gauge",
        "logarithm of the evidence over that of its threshold, of the segment with most: 1 is an alarm",
        ("model_id", "kind"),
        lambda s: _by_keys(s.detection.evidence),
    ),
    Family(
        "drift_signal_evidence_ratio",
        "gauge",
        "the same by signal, for the metrics.signal_series signals with most of it",
        ("model_id", "signal"),
        lambda s: _by_keys(s.detection.signal_evidence),
    ),
    Family(
        "drift_label_coverage_ratio",
        "gauge",
        "share with a label of the predictions whose horizon ended in the newest window that had any",
        ("model_id", "model_version"),
        lambda s: _by_keys(s.detection.coverage),
    ),
    Family(
        "drift_reference_age_seconds",
        "gauge",
        "clock minus the newest event behind the reference in force",
        ("model_id", "model_version"),
        lambda s: _ages(s.detection.reference_to_ms),
    ),
    Family(
        "drift_budget_false_alarms",
        "gauge",
        "episodes above info that began in the last budget.period of event time, of this worker's tasks: without "
        "drift the promise is that this is at most budget.false_alarms over the fleet; sum over the workers",
        (),
        lambda s: _one(s.detection.budget_alarms),
    ),
    Family(
        "drift_budget_shares",
        "gauge",
        "model versions of this worker's tasks over budget.model_versions; sum over the workers, above 1 the promise "
        "grows with it",
        (),
        lambda s: _one(s.detection.budget_shares),
    ),
    Family(
        "drift_windows_closed",
        "counter",
        "windows closed, by model",
        ("model_id",),
        lambda s: _by_key(s.windows_closed),
    ),
    Family("drift_build_info", "gauge", "what runs here", ("version", "python", "librdkafka"), _build),
)


class Collector:
    """Prometheus' view of a status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All families, as they stand now."""
        for family in FAMILIES:
            yield _MAKE[family.kind](family, family.read(self._status))


def page(status: Status) -> Callable[[], bytes]:
    """What `/metrics` answers, text exposition format."""
    registry = CollectorRegistry()
    registry.register(Collector(status))
    return lambda: generate_latest(registry)


def package_version() -> str:
    """Of the installed distribution."""
    try:
        return version("driftstream")
    except PackageNotFoundError:
        return "0+unknown"


def _counter(family: Family, series: Series) -> Metric:
    made = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, value in series:
        made.add_metric(labels, value)
    return made


def _gauge(family: Family, series: Series) -> Metric:
    made = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, value in series:
        made.add_metric(labels, value)
    return made


def _histogram(family: Family, series: Iterable[tuple[tuple[str, ...], Durations]]) -> Metric:
    made = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, durations in series:
        made.add_metric(labels, _cumulated(durations), durations.sum_seconds)
    return made


def _cumulated(durations: Durations) -> list[tuple[str, float]]:
    total, found = 0, []
    for limit, count in zip([*map(str, SECONDS), "+Inf"], list(durations.buckets), strict=True):
        total += count
        found.append((limit, float(total)))
    return found


_MAKE: Final[dict[Kind, Callable[[Family, Any], Metric]]] = {
    "counter": _counter,
    "gauge": _gauge,
    "histogram": _histogram,
}
