"""One scenario, measured: the product, those beside it, and whether what is expected holds."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace
from pydantic import ValidationError

from stream.cli.evaluate import baselines, lives, product, recorded, score, streams
from stream.cli.evaluate.notation import Floats
from stream.cli.evaluate.product import Found, Outcome
from stream.cli.evaluate.scenario import Expect, Label, Scenario, UnusableError, labels, merged
from stream.cli.evaluate.score import Figures
from stream.config import Config
from stream.stages.detect.plan import InputsPlan

_CONFIDENCE: Final = 0.95
_NULL_WINDOWS: Final = 2_000
"""Per repetition, where false alarms are made equal before delays are compared."""
_EQUALS: Final[dict[tuple[bytes, int], tuple[float, float, float]]] = {}
"""Our false alarms per row, ADWIN's δ and its false alarms per row: the same for all changes of one law."""


class Check(Struct, frozen=True):
    """One expectation and what was found."""

    what: str
    measured: float
    limit: float
    holds: bool


class Result(Struct, frozen=True):
    """All that is shown of a scenario."""

    scenario: Scenario
    figures: list[Figures] = []
    """The product first."""
    checks: list[Check] = []
    allowed: float = 0.0
    """False alarms that the budget allows in all windows without a change."""
    quiet_alarms: int = 0
    """Those there were."""
    notices: dict[str, int] = field(default_factory=dict)
    """Detections of ADWIN and Page-Hinkley in the same windows."""
    windows: int = 0
    """Without a change, all repetitions."""
    window_ms: int = 0
    period_windows: float = 0.0
    episodes: list[Found] = []
    quiet_at: list[int] = []
    """Windows seen, all repetitions, at each false alarm."""

    @property
    def holds(self) -> bool:
        """Whether everything expected does."""
        return all(check.holds for check in self.checks)


def measure(scenario: Scenario, base: dict[str, Any], seed: int) -> Result:
    """Run one scenario under a configuration. Raises `UnusableError` when the configuration is wrong."""
    if scenario.missing:
        return Result(scenario)
    config = _config(scenario, base)
    if scenario.rows:
        return _recorded(scenario, config)
    settings = product.settings_of(scenario, config)
    own = product.planned(settings, streams.tables_of(scenario, config.windows.size, seed))
    known = labels(scenario)
    if scenario.learned:
        outcome = lives.run(scenario, lives.settings_of(scenario, config), seed)
    else:
        outcome = product.run(scenario, own, seed)
    figures = [
        _figures(product.SUBJECT, _starts(outcome.episodes, scenario.repetitions), scenario, known, outcome),
        *(_figures(name, found, scenario, known, outcome) for name, found in outcome.notices.items()),
        *_beside(scenario, own, known, outcome, seed),
    ]
    quiet = min([label.row // scenario.window for label in known] + [outcome.windows])
    early = sorted(one.window for one in outcome.episodes if one.window < quiet)
    notices = {name: sum(w < quiet for run in found for w in run) for name, found in outcome.notices.items()}
    quiet = max(0, quiet - outcome.unjudged)
    result = Result(
        scenario,
        figures=figures,
        allowed=quiet * scenario.repetitions / outcome.a,
        quiet_alarms=len(early),
        notices=notices,
        windows=quiet * scenario.repetitions,
        window_ms=config.windows.size,
        period_windows=config.budget.period / config.windows.size,
        episodes=outcome.episodes,
        quiet_at=[(window + 1) * scenario.repetitions for window in early],
    )
    checks = [check for expected in _EXPECTED for check in expected(result, own, outcome, known, seed)]
    return replace(result, checks=checks)


def _recorded(scenario: Scenario, config: Config) -> Result:
    """A file: one run, in its own windows."""
    found = recorded.run(scenario, config)
    result = Result(
        replace(scenario, window=found.rows_per_window, chapter="beside", repetitions=1),
        figures=found.figures,
        window_ms=config.windows.size,
        period_windows=config.budget.period / config.windows.size,
    )
    recall, least = found.figures[0].recall, scenario.expect.recall
    return replace(result, checks=[Check("recall", recall, least, recall >= least)] if least else [])


def _config(scenario: Scenario, base: dict[str, Any]) -> Config:
    tree = merged(base, scenario.config)
    tree["windows"] = {**tree.get("windows", {}), "size": scenario.window_size}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnusableError(f"{scenario.name}: config.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _starts(episodes: Sequence[Found], repetitions: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(repetitions)]
    for one in episodes:
        found[one.repetition].append(one.window)
    return found


def _figures(
    name: str, alarms: Sequence[Sequence[int]], scenario: Scenario, known: list[Label], outcome: Outcome
) -> Figures:
    """Of a detector that judges closed windows."""
    rows = [[(window + 1) * scenario.window for window in run] for run in alarms]
    return score.judge(name, rows, known, outcome.windows * scenario.window)


def _beside(scenario: Scenario, own: InputsPlan, known: list[Label], outcome: Outcome, seed: int) -> list[Figures]:
    """Those that are asked beside the product, on the same values."""
    if not scenario.baselines:
        return []
    values = _values(scenario, own, seed)[: scenario.baseline_repetitions]
    rows, median = outcome.windows * scenario.window, float(np.median(values[:, : scenario.window]))
    return [
        score.judge(name, [baselines.alarms(name, run[:rows], median, scenario.window) for run in values], known, rows)
        for name in scenario.baselines
    ]


def _values(scenario: Scenario, own: InputsPlan, seed: int) -> Floats:
    """[repetitions, rows] of the first signal."""
    parts = [part.values[..., 0] for part in streams.windows(scenario, own.tables, seed, binned=False)]
    return np.concatenate(parts, axis=1).reshape(scenario.repetitions, -1)


def _budget(result: Result, own: InputsPlan, outcome: Outcome, known: list[Label], seed: int) -> list[Check]:
    del own, outcome, known, seed
    if not result.scenario.expect.budget:
        return []
    limit = score.poisson_limit(result.quiet_alarms, _CONFIDENCE)
    told, most = sum(result.notices.values()), result.allowed + 3 * math.sqrt(result.allowed)
    return [
        Check("false alarms, upper 95 % limit", limit, result.allowed, limit <= result.allowed),
        Check("notices of ADWIN and Page-Hinkley", told, most, told <= most),
    ]


def _delay(result: Result, own: InputsPlan, outcome: Outcome, known: list[Label], seed: int) -> list[Check]:
    del outcome
    expect, scenario = result.scenario.expect, result.scenario
    checks = []
    if expect.delay is not None:
        law = next(p.law for p in scenario.pieces if p.law != scenario.reference_law)
        limit = product.promise(scenario, own, law, seed) if expect.delay == "promise" else float(expect.delay)
        measured = result.figures[0].delay() / scenario.window
        checks.append(Check("median delay in windows", measured, limit, measured <= limit))
        if known and result.figures[0].delays:
            first = min(result.figures[0].delays) / scenario.window
            checks.append(Check("none from one window alone", first, 2, first > 1))
    if expect.recall:
        recall = result.figures[0].recall
        checks.append(Check("recall", recall, expect.recall, recall >= expect.recall))
    return checks


def _silence(result: Result, own: InputsPlan, outcome: Outcome, known: list[Label], seed: int) -> list[Check]:
    del own, known, seed
    if not result.scenario.expect.silence:
        return []
    return [Check("alarms", len(outcome.episodes), 0, not outcome.episodes)]


def _after(result: Result, own: InputsPlan, outcome: Outcome, known: list[Label], seed: int) -> list[Check]:
    del own, seed
    expect, scenario, checks = result.scenario.expect, result.scenario, []
    begun = known[0].row // scenario.window if known else 0
    due = [one for one in outcome.episodes if one.window >= begun]
    if expect.shape is not None:
        checks.append(_share(f"type {expect.shape}", [one.shape == expect.shape for one in due], expect.shape_share))
    if expect.returned:
        checks.append(_share("resolved after the return", [one.returned is not None for one in due], 1.0))
        per_change = len(due) / scenario.repetitions
        checks.append(Check("episodes per change", per_change, 1, per_change == 1))
    if expect.interval is not None:
        inside = [one.earliest <= begun <= one.latest for one in due]
        checks.append(_share("change points inside their 95 % interval", inside, expect.interval))
    return checks


def _scaled(result: Result, own: InputsPlan, outcome: Outcome, known: list[Label], seed: int) -> list[Check]:
    """The same draws in another unit."""
    del known
    scenario = result.scenario
    if not scenario.expect.unscaled:
        return []
    plain = replace(scenario, scale=1.0)
    tables = streams.tables_of(plain, own.settings.windows.size, seed)
    other = product.run(plain, product.planned(own.settings, tables), seed)
    differing = sum(a != b for a, b in zip(outcome.episodes, other.episodes, strict=False))
    differing += abs(len(outcome.episodes) - len(other.episodes))
    return [Check(f"alarms that differ at scale {scenario.scale:g}", differing, 0, differing == 0)]


def _equal(result: Result, own: InputsPlan, outcome: Outcome, known: list[Label], seed: int) -> list[Check]:
    """Against the most eager ADWIN whose measured false alarms are no more than ours."""
    del outcome
    scenario = result.scenario
    if scenario.expect.behind is None:
        return []
    law = scenario.reference.rpartition("x")[0]
    null = replace(scenario, stream=f"{law}x{_NULL_WINDOWS * scenario.window}", changes=None, title="", name="")
    key = (msgspec.json.encode(replace(null, expect=Expect())), seed)
    if key not in _EQUALS:
        ours = product.run(null, own, seed + 1)
        rate = len(ours.episodes) / (ours.windows * null.repetitions * null.window)
        _EQUALS[key] = (rate, *baselines.matched_delta(list(_values(null, own, seed + 1)), rate))
    rate, delta, theirs = _EQUALS[key]
    values = _values(scenario, own, seed)
    found = [baselines.alarms("ADWIN", run, 0.0, 1, delta=delta) for run in values]
    name = f"ADWIN, δ = {delta:g}"
    figures = score.judge(name, found, known, values.shape[1])
    result.figures.append(figures)
    delay = figures.delay() / scenario.window
    behind = result.figures[0].delay() / scenario.window - (math.ceil(delay) if math.isfinite(delay) else delay)
    periods = 1_000 * scenario.window
    return [
        Check("our false alarms in 1,000 windows", rate * periods, math.nan, holds=True),
        Check(f"those of {name}", theirs * periods, math.nan, holds=True),
        Check("windows behind ADWIN", behind, scenario.expect.behind, behind <= scenario.expect.behind),
    ]


def _share(what: str, hits: Sequence[bool], least: float) -> Check:
    share = sum(hits) / len(hits) if hits else math.nan
    return Check(what, share, least, share >= least)


_EXPECTED: Final[tuple[Callable[[Result, InputsPlan, Outcome, list[Label], int], list[Check]], ...]] = (
    _budget,
    _delay,
    _silence,
    _after,
    _scaled,
    _equal,
)
