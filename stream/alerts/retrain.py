"""Retrain requests: when open alerts ask for a new model, on which data, and not again too soon.

A request is made of *causes*: open alerts of the kinds chosen that have stood for `settle`, so that a blip is none, and
whose change is not told to be temporary. It waits until enough labels have come since the change, and for `min_gap`
after the request before. A cause that was named asks no second time, unless the retraining it asked for has failed.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field

from stream.wire.durations import Duration
from stream.wire.outbound import Kind, RetrainDetails
from stream.wire.times import rfc3339

CauseKind: TypeAlias = Literal[
    "data_drift", "prediction_drift", "concept_drift", "performance", "data_quality", "outlier"
]
NAMED_MAX = 256
"""Causes remembered as named, newest first to stay: episodes of a model version within its alerts' memory."""


class Settings(BaseModel):
    """Section `[retrain]` of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: tuple[CauseKind, ...] = ("concept_drift", "performance")
    """Kinds of alerts that ask for a new model. Inputs that moved alone are no reason: the model may still hold."""
    settle: Duration = 600_000
    """How long an alert must stand: is it temporary? 10 minutes."""
    min_gap: Duration = 86_400_000
    """At most one request of a model version in this time. A day."""
    min_labels: int = Field(default=1_000, ge=0)
    """Labels since the change without which there is little to train on."""


class Cause(Struct, frozen=True):
    """An open alert, as of the end of a window."""

    alert_id: str
    kind: Kind
    since_ms: int
    """When its change began."""
    firing_ms: int
    """When it was first told."""
    temporary: bool = False
    """Whether the change is told to be one of a short time."""
    n_rows: int = 0
    """Predictions since the change."""
    n_labels: int = 0
    """Labels since the change."""


class State(Struct, frozen=True):
    """What one model version has asked for."""

    requested_ms: int | None = None
    """When the last request was made."""
    named: tuple[str, ...] = ()
    """Alerts that requests have named."""
    alert_id: str | None = None
    """Of the last request."""


def request(
    state: State, settings: Settings, causes: Sequence[Cause], now_ms: int
) -> tuple[State, RetrainDetails | None]:
    """The state after a window that ends at `now_ms`, and the details of a request, if one is due.

    The change that began first decides from when on data counts; ties in the order of the alerts' names.
    """
    standing = sorted(
        (one for one in causes if _asks(one, settings, now_ms)), key=lambda one: (one.since_ms, one.alert_id)
    )
    fresh = [one for one in standing if one.alert_id not in state.named]
    rested = state.requested_ms is None or now_ms - state.requested_ms >= settings.min_gap
    if not (fresh and rested) or standing[0].n_labels < settings.min_labels:
        return state, None
    first = standing[0]
    named = tuple([*state.named, *(one.alert_id for one in fresh)][-NAMED_MAX:])
    details = RetrainDetails(
        reason=fresh[0].kind,
        causes=[one.alert_id for one in standing],
        data_from=rfc3339(first.since_ms),
        data_to=rfc3339(now_ms),
        n_rows=first.n_rows,
        n_labels=first.n_labels,
        not_before=rfc3339(now_ms + settings.min_gap),
    )
    return State(now_ms, named), details


def failed(state: State) -> State:
    """After a retraining that failed or was skipped its causes may ask again, once `min_gap` has passed."""
    return replace(state, named=())


def _asks(cause: Cause, settings: Settings, now_ms: int) -> bool:
    return cause.kind in settings.on and not cause.temporary and now_ms - cause.firing_ms >= settings.settle
