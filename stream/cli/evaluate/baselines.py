"""What others would have said: River's detectors with their published defaults, and one that always alarms.

Each sees every value of one signal, one after the other, as its users would feed it.
"""

from collections.abc import Callable
from typing import Any, Final

from stream.cli.evaluate.notation import Floats

ALWAYS: Final = "always alarm"


def alarms(name: str, values: Floats, median: float, window: int, **parameters: Any) -> list[int]:
    """Rows seen when the named detector alarms, on `values` [n]; the one that always does alarms once per window."""
    if name == ALWAYS:
        return list(range(window, len(values) + 1, window))
    detector = _MADE[name](**parameters)
    # A detector of rates is asked how often a value lies above what used to be the middle.
    fed = (values > median).tolist() if name == "HDDM_W" else values.tolist()
    found = []
    for row, value in enumerate(fed, 1):
        detector.update(value)
        if detector.drift_detected:
            found.append(row)
    return found


def null_rate(streams: list[Floats], delta: float) -> float:
    """Alarms per row of River's ADWIN where nothing changes."""
    found = sum(len(alarms("ADWIN", values, 0.0, 1, delta=delta)) for values in streams)
    return found / sum(map(len, streams))


def matched_delta(streams: list[Floats], rate: float) -> tuple[float, float]:
    """The most eager ADWIN whose false alarms per row stay within `rate`, and its own rate."""
    best = (_DELTAS[0], null_rate(streams, _DELTAS[0]))
    for delta in _DELTAS[1:]:
        own = null_rate(streams, delta)
        if own > rate:
            break
        best = (delta, own)
    return best


def _adwin(**parameters: Any) -> Any:
    from river.drift import ADWIN

    return ADWIN(**parameters)


def _page_hinkley(**parameters: Any) -> Any:
    from river.drift import PageHinkley

    return PageHinkley(**parameters)


def _kswin(**parameters: Any) -> Any:
    from river.drift import KSWIN

    return KSWIN(seed=1, **parameters)


def _hddm_w(**parameters: Any) -> Any:
    from river.drift.binary import HDDMW

    return HDDMW(two_sided_test=True, **parameters)


_MADE: Final[dict[str, Callable[..., Any]]] = {
    "ADWIN": _adwin,
    "PageHinkley": _page_hinkley,
    "KSWIN": _kswin,
    "HDDM_W": _hddm_w,
}
NAMES: Final = (*_MADE, ALWAYS)
_DELTAS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
