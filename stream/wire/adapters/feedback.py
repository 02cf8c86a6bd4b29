"""Native JSON feedback (`contracts.md` 2): a true outcome, and perhaps the prediction it belongs to once more.

As with predictions the careful path is the meaning, and the fast one is taken where it is sure to say the same.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from msgspec import Struct

from stream.wire import lenient
from stream.wire.adapters import native
from stream.wire.codec import Malformed

names_fault = native.names_fault


class Actual(Struct, gc=False):
    """The truth, each None where it is absent. From the careful path values may be INVALID."""

    label: str | bool | int | float | None = None
    value: float | None = None


class Envelope(Struct, gc=False, forbid_unknown_fields=True):
    """A record of feedback."""

    prediction_id: native.Id
    model_id: native.Name
    actual: Actual
    model_version: native.Name | None = None
    timestamp: native.Time = None
    prediction: native.Prediction | None = None
    prediction_timestamp: native.Time = None
    tags: native.Tags = None
    source: str | None = None
    schema_version: Literal[1] = 1


FIELDS: Final = frozenset(Envelope.__struct_fields__)


@lru_cache(maxsize=256)
def fast_decoder(extras: tuple[str, ...] = (), guess: native.Guess | None = None) -> Callable[[bytes], Envelope]:
    """As `native.fast_decoder`. There is nothing to guess: feedback has no features."""
    if guess is not None:
        raise ValueError("feedback has no features to guess")
    return native.decoder_of(Envelope, (), extras)


def says_something(_: Envelope) -> bool:
    """Whether a record from the fast path needs no second look: what it says is looked at in columns."""
    return True


def envelope(fields: Mapping[str, Any], _: int) -> Envelope | Malformed:
    """A parsed JSON object as feedback, or the first thing that is wrong with it: the careful path."""
    if (wrong := native.head_fault(fields) or _body_fault(fields)) is not None:
        return wrong
    actual = fields["actual"]
    return Envelope(
        actual=Actual(lenient.label(actual.get("label")), lenient.number(actual.get("value"))),  # type: ignore[arg-type] # or INVALID
        prediction_timestamp=fields.get("prediction_timestamp"),
        **native.shared_values(fields),
    )


def _body_fault(fields: Mapping[str, Any]) -> Malformed | None:
    actual, prediction = fields.get("actual"), fields.get("prediction")
    if actual is None:
        return Malformed("field_missing", "$.actual: required")
    if not isinstance(actual, dict):
        return Malformed("field_type", "$.actual: must be an object")
    if not isinstance(prediction, dict | None):
        return Malformed("field_type", "$.prediction: must be an object")
    return None
