"""A reading per signal of a closed window of outcomes: how well the model does, and how its labels come."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Final

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from stream.detectors import Ints, Reason
from stream.profiles import coarse, outcome_tables, performance
from stream.profiles.outcome_reference import ERROR_EDGES
from stream.profiles.outcome_tables import COVERAGE, DELAY, ERROR, RESIDUAL, Measured
from stream.profiles.outcomes import UNIT
from stream.profiles.reference import ORDERED_BINS
from stream.stages.detect.labels.plan import OutcomesPlan, kind_of
from stream.stages.detect.labels.shown import Closed
from stream.stages.detect.plan import MEAN, ORDERED, RATE, Group
from stream.stages.detect.readings import verdicts, worst
from stream.stages.detect.shown import QUANTILES, REASONS, effects_of
from stream.wire import outbound
from stream.wire.codec import rfc3339
from stream.wire.internal import SignalType
from stream.wire.outbound import Reading, Verdict, significant
from stream.wire.record import Outgoing

CONFUSION: Final = "outcome:confusion"
GAIN: Final = "outcome:gain"
_RAW_DIGITS: Final = 9
"""Digits of a value in the signal's own unit."""
_WATCHED: Final = {
    ERROR: ("rate", "mean"),
    RESIDUAL: ("mean", "mean"),
    DELAY: ("distribution", "histogram"),
    COVERAGE: ("rate", "mean"),
}
"""Signals with alerts, and what of them is judged first, and by what."""
_ERROR_EDGES: Final = np.array(ERROR_EDGES)


class Gain(Struct, frozen=True):
    """What is known of the gain of a version in one segment."""

    interval: tuple[float, float]
    verdict: Verdict


def readings(window: Closed, alert_ids: Mapping[Group, str], gains: Mapping[str, Gain]) -> list[Outgoing]:
    """Per segment errors, residuals, confusion, delays, coverage and gains, in this order, as far as there are any."""
    own = None if window.plan is None else outcome_tables.measure(window.plan.tables, window.outcomes)
    return [
        outbound.reading_record(_reading(window, own, segment, alert_ids, **fields))
        for segment, name in enumerate(window.segments)
        for fields in (
            _error(window, own, segment),
            *_residual(window, own, segment),
            *_confusion(window, segment),
            _delay(window, own, segment),
            _coverage(window, segment),
            *([_gain(window, segment, gains[name])] if name in gains else []),
        )
    ]


def _error(window: Closed, own: Measured | None, segment: int) -> dict[str, Any]:
    metrics, outcomes = window.metrics[segment], window.outcomes
    if outcomes.errors[segment].any():
        mae, rmse = metrics.mae or 0.0, metrics.rmse or 0.0
        quantiles = coarse.quantiles(_ERROR_EDGES, outcomes.errors[segment], QUANTILES)
        return {
            "signal": ERROR,
            "type": "numeric",
            "n": int(outcomes.errors[segment].sum()),
            "mean": mae,
            "std": sqrt(max(rmse**2 - mae**2, 0.0)),
            "quantiles": quantiles,
            "counts": _by_rank(window.plan, outcomes.errors[segment]),
            "reference_mean": _mean_error(window.plan, segment),
            "metrics": metrics,
        }
    n, wrong = int(outcomes.confusion[segment].sum()), int(outcomes.wrong[segment])
    return {
        "signal": ERROR,
        "type": "numeric" if own is not None and not n and _mean_error(window.plan, segment) is not None else "boolean",
        "n": n,
        "mean": wrong / n if n else None,
        "counts": [n - wrong, wrong, 0, 0],
        "reference_mean": _reference_mean(window.plan, segment, ERROR, "rate"),
        "metrics": metrics,
    }


def _residual(window: Closed, own: Measured | None, segment: int) -> list[dict[str, Any]]:
    if own is None or window.plan is None or (place := window.plan.column(RESIDUAL, "mean")) is None:
        return []
    n, s, squares = own.means[segment, window.plan.columns[place].place].tolist()
    mean = 2 * s * outcome_tables.UNIT / n - 1 if n else None
    var = 0.0 if mean is None else 4 * squares * outcome_tables.UNIT / n - (mean + 1) ** 2
    return [
        {
            "signal": RESIDUAL,
            "type": "numeric",
            "n": n,
            "mean": mean,
            "std": None if mean is None else sqrt(max(var, 0.0)),
            "reference_mean": 0.0,
        }
    ]


def _confusion(window: Closed, segment: int) -> list[dict[str, Any]]:
    if not window.outcomes.classes:
        return []
    counts = window.outcomes.confusion[segment]
    return [{"signal": CONFUSION, "type": "categorical", "n": int(counts.sum()), "counts": counts.reshape(-1).tolist()}]


def _delay(window: Closed, own: Measured | None, segment: int) -> dict[str, Any]:
    delays = window.outcomes.delays[segment]
    n = int(delays.sum())
    fields: dict[str, Any] = {
        "signal": DELAY,
        "type": "numeric",
        "n": n,
        "quantiles": performance.delay_quantiles(delays, QUANTILES),
    }
    if own is not None and window.plan is not None and window.plan.column(DELAY, "distribution") is not None:
        counts, p = own.delays[segment], window.plan.tables.delay_p[segment]
        fields["counts"] = [*counts.tolist(), 0, 0]
        if n:
            sizes = effects_of(counts[None], p[None], np.array([np.count_nonzero(p)]), ordered=True)
            names = ("psi", "jensen_shannon", "wasserstein")
            fields |= {name: significant(float(getattr(sizes, name)[0])) for name in names}
    return fields


def _coverage(window: Closed, segment: int) -> dict[str, Any]:
    n, labelled = int(window.outcomes.ended[segment]), int(window.outcomes.labelled[segment])
    return {
        "signal": COVERAGE,
        "type": "boolean",
        "n": n,
        "mean": labelled / n if n else None,
        "counts": [n - labelled, labelled, 0, 0],
        "reference_mean": _reference_mean(window.plan, segment, COVERAGE, "rate"),
    }


def _gain(window: Closed, segment: int, known: Gain) -> dict[str, Any]:
    n, gains, squares = window.outcomes.gains[segment].tolist()
    mean = gains / UNIT / n if n else None
    return {
        "signal": GAIN,
        "type": "numeric",
        "n": n,
        "mean": mean,
        "std": None if mean is None else sqrt(max(squares / UNIT / n - mean**2, 0.0)),
        "reference_mean": 0.0,
        "interval": known.interval,
        "verdict": known.verdict,
    }


def _reading(  # noqa: PLR0913 - as many as signals differ by
    window: Closed,
    own: Measured | None,
    segment: int,
    alert_ids: Mapping[Group, str],
    *,
    signal: str,
    type: SignalType,  # noqa: A002 - the name of the field
    n: int,
    mean: float | None = None,
    std: float | None = None,
    quantiles: Sequence[float | None] = (None, None, None),
    counts: list[int] | None = None,
    reference_mean: float | None = None,
    metrics: outbound.Metrics | None = None,
    interval: tuple[float, float] | UnsetType = UNSET,
    verdict: Verdict | None = None,
    psi: float | None = None,
    jensen_shannon: float | None = None,
    wasserstein: float | None = None,
) -> Reading:
    plan = window.plan
    found = _verdicts(window, own, segment, signal) if verdict is None else [verdict]
    p05, p50, p95 = (significant(value, _RAW_DIGITS) for value in quantiles)
    group = (segment, kind_of(signal))
    return Reading(
        model_id=window.model_id,
        model_version=window.model_version,
        segment=window.segments[segment],
        signal=signal,
        type=type,
        window_start=rfc3339(window.start_ms),
        window_end=rfc3339(window.end_ms),
        n=n,
        n_missing=None,
        n_invalid=None,
        n_unseen=None,
        n_late=0,
        mean=significant(mean, _RAW_DIGITS),
        std=significant(std, _RAW_DIGITS),
        p05=p05,
        p50=p50,
        p95=p95,
        reference_id=None if plan is None else plan.known.reference.reference_id,
        reference_slot=None if plan is None else "all",
        reference_mean=significant(reference_mean, _RAW_DIGITS),
        psi=psi,
        jensen_shannon=jensen_shannon,
        wasserstein=wasserstein,
        counts=counts,
        metrics=metrics,
        level=worst(found),
        alert_id=alert_ids.get(group) if signal in _WATCHED else None,
        verdicts=found,
        interval=interval,
    )


def _verdicts(window: Closed, own: Measured | None, segment: int, signal: str) -> list[Verdict]:
    plan = window.plan
    columns = [] if plan is None else [place for place, one in enumerate(plan.columns) if one.signal == signal]
    if plan is None or own is None or not columns:
        measure, detector = _WATCHED.get(signal, ("", ""))
        reason = REASONS[window.reason if plan is None else Reason.NO_REFERENCE]
        return [Verdict(measure, detector, "not_ready", None, None, None, 0, reason)] if measure else []
    events = {ORDERED: own.delays[:, None].sum(-1), RATE: own.rates[:, :, 0], MEAN: own.means[:, :, 0]}
    places = [(column, plan.columns[column]) for column in columns]
    return verdicts(
        plan,
        window.judged,
        segment,
        {column: int(events[one.family][segment, one.place]) for column, one in places},
    )


def _reference_mean(plan: OutcomesPlan | None, segment: int, signal: str, measure: str) -> float | None:
    place = None if plan is None else plan.column(signal, measure)
    return None if plan is None or place is None else float(plan.tables.mean[segment, place])


def _mean_error(plan: OutcomesPlan | None, segment: int) -> float | None:
    known = None if plan is None else plan.known.reference.outcomes
    return None if plan is None or known is None else known.mean_error.get(plan.segments[segment])


def _by_rank(plan: OutcomesPlan | None, errors: Ints) -> list[int] | None:
    """Errors of a regression in 16 parts of the reference by size."""
    if plan is None or not plan.tables.loss.any():
        return None
    ranks = np.minimum((plan.tables.loss * ORDERED_BINS).astype(np.int64), ORDERED_BINS - 1)
    return [*np.bincount(ranks, errors, ORDERED_BINS).astype(np.int64).tolist(), 0, 0]
