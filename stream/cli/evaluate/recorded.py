"""Files of predictions whose changes are known: the same product, on one repetition and its own times."""

from bisect import bisect_left
from pathlib import Path

import numpy as np
from msgspec import Struct

from stream.cli.binding import declared, detect_settings
from stream.cli.evaluate import baselines, product, score
from stream.cli.evaluate.notation import Floats
from stream.cli.evaluate.scenario import Label, Scenario, UnusableError
from stream.cli.evaluate.score import Figures
from stream.cli.evaluate.streams import Ints
from stream.cli.references import records_of, training_rows
from stream.config import Config, Loaded
from stream.profiles import building, cuts, learning
from stream.profiles.cuts import Row
from stream.profiles.reference import Tables, compile_tables
from stream.profiles.windows import start_of
from stream.signals.extract import feature_names
from stream.stages.detect import inputs
from stream.stages.detect.plan import plan
from stream.wire.times import parse_time
from stream.worker.files import UnreadableFileError


class Recorded(Struct, frozen=True):
    """What was found in a file."""

    figures: list[Figures]
    rows_per_window: int


def run(scenario: Scenario, config: Config) -> Recorded:
    """Reference from the first rows, then every window of the rest. Raises `UnusableError` if the file does not fit."""
    (model_id, version), rows = _rows(scenario, config)
    size_ms, first = config.windows.size, scenario.reference_rows
    whose = cuts.Plan(model_id, version, size_ms, declared(config, model_id))
    made = building.build(rows[:first], whose, serving=True, effective_from_ms=rows[first].time_ms)
    tables = compile_tables(made)
    judged = rows[first:]
    times = [row.time_ms for row in judged]
    labels = [Label(bisect_left(times, _time(change)), back=False) for change in scenario.changes or ()]
    starts = start_of(np.array(times), size_ms)
    windows = (int(starts[-1]) - int(starts[0])) // size_ms + 1
    found = _alarms(config, tables, judged, starts)
    ends = {name: [[bisect_left(times, at + size_ms) for at in run]] for name, run in found.items()}
    figures = [score.judge(name, run, labels, len(judged)) for name, run in ends.items()]
    for name in scenario.baselines:
        run = _others(name, tables, judged, max(1, len(judged) // windows))
        figures.append(score.judge(name, [run], labels, len(judged)))
    return Recorded(figures, max(1, len(judged) // windows))


def _rows(scenario: Scenario, config: Config) -> tuple[tuple[str, str], list[Row]]:
    """The rows of the one model version in the file, by time."""
    try:
        found, _ = training_rows(records_of([scenario.rows], "auto"), config.limits, config.windows.max_future)
    except UnreadableFileError as error:
        raise UnusableError(str(error)) from None
    if len(found) != 1:
        raise UnusableError(
            f"{Path(scenario.rows).name}: holds {len(found)} model versions; one is evaluated at a time"
        )
    ((name, rows),) = found.items()
    if len(rows) <= scenario.reference_rows:
        raise UnusableError(f"{Path(scenario.rows).name}: {len(rows)} rows, all of them the reference")
    return name, sorted(rows, key=lambda row: row.time_ms)


def _time(change: int | str) -> int:
    at = parse_time(str(change)) if isinstance(change, str) else change
    if at is None:
        raise UnusableError(f"changes: {change!r} is not a time such as 2026-11-21T00:00:00Z")
    return at


def _alarms(config: Config, tables: Tables, rows: list[Row], starts: Ints) -> dict[str, list[int]]:
    """Starts of the windows in which anything new was told, empty windows included, by who told it."""
    own = plan(detect_settings(Loaded(config, {}, frozenset())), tables, None)
    schema = cuts.Schema(*(feature_names(tables.reference, kind) for kind in ("numeric", "categorical", "boolean")))
    size_ms, state = config.windows.size, inputs.start(own, int(starts[0]), {})
    empty = learning.no_counts(tables).dense
    profiles = dict(building.folded(tables, schema, rows, starts))
    found: dict[str, list[int]] = {name: [] for name in (product.SUBJECT, *product.NOTICES)}
    for at in range(int(starts[0]), int(starts[-1]) + 1, size_ms):
        before = state.episodes
        state, judged = inputs.update(own, state, at, profiles.get(at, empty))
        told = {product.SUBJECT: bool(judged.alarms - before.keys())}
        told |= {name: bool(fired.any()) for name, fired in product.detections(own, judged).items()}
        for name in (name for name, fired in told.items() if fired):
            found[name].append(at)
    return found


def _others(name: str, tables: Tables, rows: list[Row], window: int) -> list[int]:
    """Alarms of one detector per numeric feature, all together."""
    found: set[int] = set()
    for feature in feature_names(tables.reference, "numeric"):
        values = _values(rows, feature)
        found |= set(baselines.alarms(name, values, float(np.median(values)), window))
    return sorted(found)


def _values(rows: list[Row], feature: str) -> Floats:
    """Values of one feature; what is missing is left out by telling the last value again."""
    numbers = cuts.columns_of(rows, cuts.Schema([feature], [], [])).numeric[:, 0]
    known = np.maximum.accumulate(np.where(np.isnan(numbers), 0, np.arange(len(numbers))))
    return np.nan_to_num(numbers[known])
