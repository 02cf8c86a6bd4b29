"""Ten million predictions wait for their labels in one process: memory, pairs per second, and how fast a restart is.

A thousand predictions come in each minute of a week, in four blocks. Once ten million wait, labels of a tenth of them
come in no order, twenty thousand a minute. What holding the predictions costs is what a restart costs: the same records
are read, and nothing is told. All of it runs in a process of its own. Run: `python tests/bench/join.py`.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec
import numpy as np
from msgspec import Struct

from stream.stages import join
from stream.stages.join import Feedback, Settings
from stream.wire import codec
from stream.wire.internal import HALVES, WATERMARKS, Halves, ScoreOf, SourceMark, Watermarks
from stream.wire.record import Record

WAITING: Final = 10_000_000
MINUTE_MS: Final = 60_000
WEEK_MS: Final = 7 * 1_440 * MINUTE_MS
START_MS: Final = 1_795_219_200_000
BLOCKS: Final = 4
"""Source partitions of either topic, each with a block of its own in every window."""
STEP_WINDOWS: Final = 10
"""Windows in one step: a restart reads as fast as it can."""
SEED: Final = 1
MIB: Final = 1024 * 1024
SETTINGS: Final = Settings(feedback=Feedback.model_construct(horizon=WEEK_MS, sample=1.0, max_pending=2 * WAITING))
_Ints = np.ndarray[Any, np.dtype[np.int64]]


class Costs(Struct, frozen=True):
    """What was measured."""

    waiting: int
    """Predictions without a label at the height."""
    resident_mib: float
    """Most of the process so far."""
    restored_per_second: float
    """Rows read again and held, their records decoded."""
    pairs_per_second: float
    """By processor time, with their labels decoded and their outcomes told."""
    resident_end_mib: float
    """Most of the process after the labels, too."""


def measured() -> Costs:
    """All of it, in a process of its own; half a minute."""
    command = [sys.executable, str(Path(__file__)), "measure"]
    found = subprocess.run(command, check=True, capture_output=True)
    return msgspec.json.decode(found.stdout, type=Costs)


def _measure() -> Costs:
    state, spent, rows, offsets = join.start(SETTINGS), 0.0, 0, count()
    per_window = WAITING // (WEEK_MS // MINUTE_MS)
    windows = WAITING // per_window
    for records in _steps(offsets, windows, lambda window: _predictions(window, per_window)):
        began = time.process_time()
        state, _ = join.step(SETTINGS, state, records)
        spent += time.process_time() - began
        rows += per_window * STEP_WINDOWS
    waiting, resident = join.waiting(state), _resident_mib()
    restored = rows / spent
    pairs, spent = 0, 0.0
    rng = np.random.default_rng(SEED)
    labels = rng.permutation(WAITING)[: WAITING // 10]
    batches = np.array_split(labels, len(labels) // (20 * per_window))
    for records in _steps(offsets, len(batches), lambda window: _labels(windows + window, batches[window]), at_once=1):
        began = time.process_time()
        state, outputs = join.step(SETTINGS, state, records)
        spent += time.process_time() - began
        pairs += outputs.counts.get(("credit", "matched"), 0)
    return Costs(waiting, resident, restored, pairs / spent, _resident_mib())


def _steps(
    offsets: Iterator[int], windows: int, blocks: Callable[[int], tuple[list[Halves], int]], at_once: int = STEP_WINDOWS
) -> Iterator[list[Record]]:
    """The log, some windows at a time, each closed by its watermarks."""
    for first in range(0, windows, at_once):
        records = []
        for window in range(first, min(first + at_once, windows)):
            some, end_ms = blocks(window)
            marks = [
                SourceMark(topic, partition, 0, end_ms)
                for topic in ("predictions", "feedback")
                for partition in range(BLOCKS)
            ]
            frames = [codec.encode(block, HALVES) for block in some]
            frames.append(codec.encode(Watermarks(marks, {"predictions": BLOCKS, "feedback": BLOCKS}, 0), WATERMARKS))
            records += [Record("drift.pairs", 0, next(offsets), 0, None, frame) for frame in frames]
        yield records


def _predictions(window: int, per_window: int) -> tuple[list[Halves], int]:
    start_ms = START_MS + window * MINUTE_MS
    ids = np.arange(window * per_window, (window + 1) * per_window)
    return [_block(part, start_ms, is_label=False) for part in np.array_split(ids, BLOCKS)], start_ms + MINUTE_MS


def _labels(window: int, ids: _Ints) -> tuple[list[Halves], int]:
    start_ms = START_MS + window * MINUTE_MS
    return [_block(part, start_ms, is_label=True) for part in np.array_split(ids, BLOCKS)], start_ms + MINUTE_MS


def _block(ids: _Ints, start_ms: int, *, is_label: bool) -> Halves:
    n = len(ids)
    keys = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys ^= keys >> np.uint64(29)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    draws = (keys >> np.uint64(11)).astype(np.float64) / 2**53
    times_ms = start_ms + np.arange(n) * MINUTE_MS // n
    none = np.full(n, -1)
    return Halves(
        model_id="credit",
        topic="feedback" if is_label else "predictions",
        partition=0,
        offsets=ids,
        keys=keys.view(np.int64),
        labels=np.full(n, is_label),
        times_ms=times_ms,
        own_times_ms=times_ms,
        versions=["3"],
        version=none if is_label else np.zeros(n, dtype=np.int64),
        classes=["0", "1"],
        label=(draws * 1_000 % 1 < draws).astype(np.int64) if is_label else (draws >= 0.5).astype(np.int64),
        scores=np.full(n, np.nan) if is_label else draws,
        score_of=np.full(n, int(ScoreOf.NOTHING if is_label else ScoreOf.POSITIVE)),
        values=np.full(n, np.nan),
        segments=[] if is_label else [[f"country={number}"] for number in range(8)],
        segment=none if is_label else ids % 8,
    )


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def main() -> None:
    """Print what was measured."""
    costs = measured()
    print(f"{costs.waiting:,} predictions waiting: {costs.resident_mib:,.0f} MiB resident")
    print(f"restored: {costs.restored_per_second:,.0f} rows/s")
    print(f"joined: {costs.pairs_per_second:,.0f} pairs/s, {costs.resident_end_mib:,.0f} MiB at most")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        sys.stdout.buffer.write(msgspec.json.encode(_measure()))
    else:
        main()
