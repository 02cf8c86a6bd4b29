"""Scenarios: a labelled stream, the configuration to run over it, and what to expect. Small files people can write.

    title = "The mean moves by a quarter of a standard deviation"
    stream = "normal(0,1)x2500, normal(0.25,1)x2500"
    window = 50
    repetitions = 40
    config.budget.tolerance = 0.0
    expect.delay = "promise"

`[[case]]` tables change single keys: each makes a row of the same table; `[[also]]` tables vary every case. Changes
are where the law changes, unless `changes` lists the rows at which they are to be found. `rows` names a file of
predictions instead of a stream; its first `reference_rows` are the reference, and `changes` are times. With `learned`
nobody publishes a reference: the stream itself teaches one.
"""

import tomllib
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from stream.cli.evaluate import baselines, notation
from stream.cli.evaluate.notation import Law, Piece
from stream.detectors.locate import ChangeType

BUILT_IN: Final = Path(__file__).parent / "scenarios"
"""What the project promises, as files."""

Chapter: TypeAlias = Literal["false_alarms", "delays", "after", "beside", "equal"]


class UnusableError(ValueError):
    """A scenario, or its configuration, cannot be run; the message is for people."""


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold. Nothing is expected of what is not named."""

    budget: bool = False
    """False alarms while nothing changes are within the budget, with 95 % confidence."""
    delay: float | Literal["promise"] | None = None
    """Median windows to the alarm at most; `promise`: 1.25 ln A/(n D) + 2 (`statistics.md` 5.5)."""
    recall: float = 0.0
    """Share of the changes found, at least."""
    silence: bool = False
    """No alarm at all."""
    shape: ChangeType | None = None
    """The type the change has in the end."""
    shape_share: float = 0.9
    """Share of the episodes that must have it."""
    returned: bool = False
    """Every episode ends when the old law is back."""
    interval: float | None = None
    """Share of the change points that must lie in their 95 % interval."""
    unscaled: bool = False
    """The same alarms in the same windows as at scale 1."""
    behind: float | None = None
    """Windows that the median delay may be behind River's ADWIN at most, at equal false alarms."""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a table."""

    title: str
    chapter: Chapter = "beside"
    stream: str = ""
    reference: str = "normal(0,1)x20000"
    """What is counted for the reference; a third as many rows, at most 4,096, are drawn before to cut the bins."""
    learned: bool = False
    """Whether every repetition learns its reference from its stream and lets it mature; `reference` cuts the bins."""
    shared: bool = False
    """Whether all repetitions have one reference; else each has its own rows, so its own error."""
    window: int = 50
    """Rows per window."""
    window_size: str = "1m"
    repetitions: int = 20
    windows_per_false_alarm: float | None = None
    """A of the group, instead of what the budget of the configuration gives."""
    changes: list[int | str] | None = None
    scale: float = 1.0
    """Every value is multiplied by it."""
    baselines: list[str] = []
    baseline_repetitions: int = 4
    rows: str = ""
    """A file of predictions, relative to the scenario."""
    reference_rows: int = 0
    missing: str = ""
    """Why nothing is measured here yet; shown in place of a result."""
    config: dict[str, Any] = {}
    expect: Expect = field(default_factory=Expect)
    name: str = ""
    """Of its file, and the number of the case."""

    @property
    def pieces(self) -> list[Piece]:
        """Of the stream."""
        return notation.parse(self.stream)

    @property
    def reference_law(self) -> Law:
        """What counts as normal."""
        return notation.parse(self.reference)[0].law

    @property
    def reference_rows_counted(self) -> int:
        """Rows behind the law of the reference: m."""
        return notation.parse(self.reference)[0].rows


class Label(Struct, frozen=True):
    """A known change."""

    row: int
    """First row of the new law."""
    back: bool
    """Whether the law of the reference is back."""


def load(path: Path) -> list[Scenario]:
    """All cases of a file. Raises `UnusableError` with what is wrong."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableError(f"{path}: {error}") from None
    cases = [merged(case, also) for case, also in product(tree.pop("case", [{}]), tree.pop("also", [{}]))]
    found = []
    for number, case in enumerate(cases, 1):
        whole = merged(tree, case) | {"name": path.stem + (f"-{number}" if len(cases) > 1 else "")}
        if whole.get("rows"):
            whole["rows"] = str(path.parent / whole["rows"])
        try:
            scenario = msgspec.convert(whole, Scenario)
            _check(scenario)
        except ValueError as error:
            raise UnusableError(f"{path}: case {number}: {error}") from None
        found.append(scenario)
    return found


def built_in() -> list[Scenario]:
    """What `drift evaluate` runs when it is given no file."""
    return [scenario for path in sorted(BUILT_IN.glob("*.toml")) for scenario in load(path)]


def labels(scenario: Scenario) -> list[Label]:
    """The known changes of a stream."""
    if scenario.changes is not None:
        return [Label(int(row), back=False) for row in scenario.changes]
    found, row = [], 0
    before = scenario.reference_law
    for piece in scenario.pieces:
        if piece.law != before:
            found.append(Label(row, piece.law == scenario.reference_law))
        row, before = row + piece.rows, piece.law
    return found


def merged(tree: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """One tree of tables with the keys of another laid over it."""
    result = dict(tree)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _check(scenario: Scenario) -> None:
    if unknown := sorted(set(scenario.baselines) - set(baselines.NAMES)):
        raise ValueError(f"baselines: {unknown[0]!r} is none of {', '.join(baselines.NAMES)}")
    if scenario.missing or scenario.rows:
        return
    kinds = {piece.law.kind for piece in [*scenario.pieces, *notation.parse(scenario.reference)]}
    if len(kinds) > 1:
        raise ValueError(f"stream and reference mix {' and '.join(sorted(kinds))} laws")
    for piece in scenario.pieces:
        if piece.rows % scenario.window:
            raise ValueError(f"{piece.rows} rows are no whole number of windows of {scenario.window}")
    if scenario.window < 1 or scenario.repetitions < 1:
        raise ValueError("window and repetitions are at least 1")
