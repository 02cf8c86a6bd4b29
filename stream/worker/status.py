"""What the worker knows of itself: written by the loop, read by the HTTP thread, decided on by nobody.

Plain numbers in plain dictionaries: the loop pays an addition, and a scrape copies what it finds.
"""

from bisect import bisect_left
from collections import Counter
from typing import Final

from stream.worker.ends import Partition

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Durations:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class Detection:
    """What the states of detect say."""

    def __init__(self) -> None:
        self.verdicts: Counter[tuple[str, str]] = Counter()
        """(detector, level)"""
        self.suppressed: Counter[str] = Counter()
        """Alerts and notices kept back, by reason."""
        self.firing: dict[tuple[str, ...], int] = {}
        """(model, kind, severity)"""
        self.evidence: dict[tuple[str, str], float] = {}
        """(model, kind): 0 at rest, 1 at an alarm."""
        self.signal_evidence: dict[tuple[str, str], float] = {}
        """(model, signal)"""
        self.reference_to_ms: dict[tuple[str, str], int] = {}
        """The newest event behind the reference of (model, version)."""
        self.coverage: dict[tuple[str, str], float] = {}
        """(model, version): share of labelled predictions among those whose horizon ended last."""
        self.budget_alarms = 0
        """Episodes above `info` that began in the last period of the budget."""
        self.budget_shares = 0.0
        """Model versions over those the budget is cut for."""


class Status:
    """Counters since the start of the process, and where things stand now."""

    def __init__(self) -> None:
        self.records: Counter[tuple[str, str]] = Counter()
        """(topic, outcome)"""
        self.record_bytes: Counter[str] = Counter()
        self.dead_letters: Counter[tuple[str, str]] = Counter()
        """(topic, code)"""
        self.pairs: Counter[tuple[str, str]] = Counter()
        """(model, outcome)"""
        self.transactions: Counter[str] = Counter()
        self.snapshot_errors: Counter[tuple[str, str]] = Counter()
        """(stage, reason)"""
        self.broker_errors: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        """Records written, by role of their topic."""
        self.alerts: Counter[tuple[str, ...]] = Counter()
        """(model, kind, severity, status)"""
        self.models: set[str] = set()
        """Told apart in labels."""
        self.detection = Detection()
        self.windows_closed: Counter[str] = Counter()
        """By model."""
        self.rebalances = 0
        self.stage_seconds: dict[str, Durations] = {
            name: Durations() for name in ("poll", "ingest", "join", "detect", "commit")
        }
        self.transaction_seconds = Durations()
        self.close_delay_seconds = Durations()
        """From the end of a window to its commit."""
        self.assigned: dict[str, int] = {}
        self.restoring: dict[str, int] = {}
        self.restore_remaining: dict[str, int] = {}
        self.pairs_pending = 0
        """Halves of pairs that join holds, since they may still meet another."""
        self.state_bytes: dict[str, int] = {}
        self.lag_records: dict[Partition, int] = {}
        self.unstable_records: dict[Partition, int] = {}
        self.watermark_ms: dict[Partition, int] = {}
        self.snapshot_seconds: dict[Partition, float] = {}
        """Monotonic time of the last snapshot of a task."""
        self.holding: dict[Partition, str] = {}
        """Why a partition is paused."""
        self.last_commit_ms: int | None = None
        self.turned_seconds: float | None = None
        """Monotonic time of the loop's last turn."""
        self.uncommitted_since_seconds: float | None = None
        """Monotonic time since which something waits to be committed."""
        self.joined = False
        self.started = False
        """Every assigned task was restored once."""
        self.stopping = False
        self.stopped_for: str | None = None
