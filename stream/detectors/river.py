"""Any drift detector of river, by its name, on the mean of each window.

Statistic   none: river's detectors answer yes or no
Fires when  the river detector says so; its false-alarm rate is its own affair, so it never raises an alert alone
Cost        that of the river detector, plus taking it apart and putting it together once per series and window
Blind to    whatever the named detector is blind to; one value per window, however many events
Source      J. Montiel et al. (2021), River: machine learning for streaming data in Python, JMLR 22

The state is text, not a pickle: a detector is taken apart by its own copy protocol, and only classes of river, deques
and Python's generator of random numbers are ever put together again.
"""

import base64
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stream.detectors import Bools, Changes, Reason, Sums, Verdicts, judge_test

PREFIX: Final = "river:"
"""How a detector of river is told from ours: `river:KSWIN`."""
NAMES: Final = {
    "ADWIN": "river.drift",
    "KSWIN": "river.drift",
    "PageHinkley": "river.drift",
    "DDM": "river.drift.binary",
    "EDDM": "river.drift.binary",
    "FHDDM": "river.drift.binary",
    "HDDMA": "river.drift.binary",
    "HDDMW": "river.drift.binary",
}
"""Detectors that may be named. Those of `river.drift.binary` take the mean of a window for true from one half on."""
_TRUE_FROM: Final = 0.5
_PUBLIC: Final = {("collections", "deque"), ("random", "Random")}
"""Classes outside river that its detectors are made of."""
_PROTOCOL: Final = 2
"""Of `__reduce_ex__`: the oldest that names the class instead of a helper function."""


class Settings(BaseModel):
    """What a person may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A key of `NAMES`."""
    seed: int = Field(default=1, ge=0)
    """For detectors that draw, such as KSWIN: without a seed a replay would differ."""
    parameters: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Passed to the river detector by name."""

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NAMES:
            raise ValueError(f"river has no drift detector of this name; one of {', '.join(sorted(NAMES))}")
        return value


class State(Struct, frozen=True):
    """All a restart needs, for R series: the river detectors, taken apart, as JSON text."""

    detectors: list[str]


class Window(Struct, frozen=True, eq=False):
    """One closed window of R series."""

    sums: Sums


def start(series: int, settings: Settings) -> State:
    """At rest. Raises `ImportError` without river, `TypeError` on a parameter the detector does not have."""
    return State([_fresh(settings)] * series)


def update(state: State, settings: Settings, window: Window) -> tuple[State, Verdicts]:
    """One window further. Empty windows and series with a reason change nothing; `testing` is the detector's affair."""
    sums = window.sums
    reason = np.where((sums.reason == Reason.NONE) & (sums.n <= 0), Reason.EMPTY, sums.reason).astype(np.int8)
    detectors, fires = list(state.detectors), np.zeros(len(reason), np.bool_)
    binary = NAMES[settings.name] == "river.drift.binary"
    for r in np.flatnonzero(reason == Reason.NONE):
        detector = _built(detectors[r])
        mean = float(sums.s[r] / sums.n[r])
        detector.update(mean >= _TRUE_FROM if binary else mean)
        fires[r] = detector.drift_detected
        detectors[r] = _text(detector)
    blank = np.full(len(fires), np.nan)
    changes = Changes(at_ms=np.full(len(fires), sums.start_ms, np.int64), before=blank, after=blank)
    return State(detectors), judge_test(fires, blank, blank, reason, changes)


def reset(state: State, settings: Settings, series: Bools) -> State:
    """The chosen series ([R] mask) begin from nothing."""
    fresh = _fresh(settings)
    return State([fresh if chosen else text for chosen, text in zip(series, state.detectors, strict=True)])


def _fresh(settings: Settings) -> str:
    made = getattr(import_module(NAMES[settings.name]), settings.name)
    seeded = {"seed": settings.seed} if settings.name == "KSWIN" else {}
    return _text(made(**{**seeded, **settings.parameters}))


def _text(detector: Any) -> str:
    return msgspec.json.encode(_apart(detector, detector)).decode()


def _apart(value: Any, root: Any) -> Any:
    """JSON of a value: text, booleans, None and small integers as they are, all else an object with one key."""
    part: Any = value
    match value:
        case None | bool() | str():
            pass
        case int():
            # JSON readers agree on 53 bits.
            part = value if abs(value) < 2**53 else {"int": str(value)}
        case float():
            part = {"float": float(value).hex()}
        case np.generic():
            part = _apart(value.item(), root)
        case bytes():
            part = {"bytes": base64.b64encode(value).decode()}
        case list() | tuple():
            part = {type(value).__name__: [_apart(x, root) for x in value]}
        case dict():
            part = {"dict": [[_apart(k, root), _apart(v, root)] for k, v in value.items()]}
        case _:
            part = _object_apart(value, root)
    return part


def _object_apart(value: Any, root: Any) -> Any:
    if getattr(value, "__self__", None) is root:
        return {"method": value.__name__}
    reduced: list[Any] = [*value.__reduce_ex__(_PROTOCOL), None, None]
    made, arguments, state, items = reduced[:4]
    # A class given by `__newobj__` is made without its constructor, as copying would do.
    bare = made.__name__ == "__newobj__"
    if bare:
        made, *arguments = arguments
    return {
        "object": [made.__module__, made.__qualname__],
        "bare": bare,
        "arguments": _apart(list(arguments), root),
        "state": _apart(state, root),
        "items": _apart(None if items is None else list(items), root),
    }


def _built(text: str) -> Any:
    parts = msgspec.json.decode(text)
    detector = _class(*parts["object"]).__new__(_class(*parts["object"]))
    detector.__dict__.update(_together(parts["state"], detector))
    return detector


def _together(part: Any, root: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if "object" in part:
        return _object_together(part, root)
    ((kind, value),) = part.items()
    return _KINDS[kind](value, root)


_KINDS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "int": lambda value, _: int(value),
    "float": lambda value, _: float.fromhex(value),
    "bytes": lambda value, _: base64.b64decode(value),
    "list": lambda value, root: [_together(x, root) for x in value],
    "tuple": lambda value, root: tuple(_together(x, root) for x in value),
    "dict": lambda value, root: {_together(k, root): _together(v, root) for k, v in value},
    "method": lambda value, root: getattr(root, value),
}
"""How a part that JSON cannot hold is read; the inverse of `_apart`."""


def _object_together(part: Any, root: Any) -> Any:
    kind, arguments = _class(*part["object"]), _together(part["arguments"], root)
    made = kind.__new__(kind, *arguments) if part["bare"] else kind(*arguments)
    state, items = _together(part["state"], root), _together(part["items"], root)
    if state is not None and hasattr(made, "__setstate__"):
        made.__setstate__(state)
    elif state is not None:
        made.__dict__.update(state)
    if items is not None:
        made.extend(items)
    return made


def _class(module: str, name: str) -> Any:
    if (module, name) not in _PUBLIC and not module.startswith("river."):
        raise ValueError(f"a river detector is not made of {module}.{name}")
    # Classes of the compiled part name a module that cannot be imported by its name: walk to it instead.
    found: Any = import_module(module.partition(".")[0])
    for step in (*module.split(".")[1:], *name.split(".")):
        found = getattr(found, step)
    return found
