"""Native JSON (`contracts.md` 2), one record at a time: a fast path for the usual, a careful one for all.

The careful path is the meaning. The fast path is taken where it is sure to say the same, and refuses the rest with an
exception of msgspec's: one typed parse in C, in which `features` stay bytes until their reference is known.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, defstruct

from stream.wire import lenient
from stream.wire.codec import Malformed
from stream.wire.lenient import INVALID, Invalid

DEFAULT_VERSION: Final = "default"
ABSENT: Final = Raw(b"{}")
"""The features of a record that has none."""

REFUSALS: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""What the fast path may raise; `msgspec.ValidationError` is a `DecodeError`, wrong UTF-8 a `ValueError`."""


Row = TypeVar("Row", bound=Struct)
Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=lenient.ID_BYTES_MAX)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=lenient.NAME_BYTES_MAX)]
Time: TypeAlias = str | int | float | None
Tags: TypeAlias = dict[str, str | bool | int | float | None] | None


class Prediction(Struct, gc=False):
    """What the model answered, each None where it is absent. From the careful path values may be INVALID."""

    label: str | bool | int | float | None = None
    score: float | None = None
    scores: dict[str, float | None] | None = None
    value: float | None = None


class _StrictPrediction(Prediction, gc=False, forbid_unknown_fields=True):
    """For a guess, which vouches for the depth of all it reads."""


class Envelope(Struct, gc=False, forbid_unknown_fields=True):
    """A prediction record, its features undecoded: `Raw`, or a dict from the careful path."""

    prediction_id: Id
    model_id: Name
    model_version: Name | None = None
    timestamp: Time = None
    features: Raw = ABSENT
    prediction: Prediction | None = None
    tags: Tags = None
    latency_ms: float | None = None
    source: str | None = None
    schema_version: Literal[1] = 1


FIELDS: Final = frozenset(Envelope.__struct_fields__)


class Guess(Struct, frozen=True):
    """What the records of a batch most likely are: one model version with the features of one reference."""

    model_id: str
    model_version: str
    features: type[Struct]
    """`features.FeatureDecoder.shape` of that reference."""


@lru_cache(maxsize=256)
def fast_decoder(extras: tuple[str, ...] = (), guess: Guess | None = None) -> Callable[[bytes], Envelope]:
    """The fast path, letting the unknown fields `extras` pass as `extra0`, `extra1`, … (None where absent).

    With a guess it decodes the features as well and refuses what the guess does not fit: another model, no features, an
    unknown feature, an invalid value. Raises one of `REFUSALS` on whatever it is not sure of. It does not look at the
    UTF-8 of what it passes over, at depth, nor at control characters in names: that is the caller's part.
    """
    fields: list[Any] = []
    if guess is not None:
        version: Any = Literal.__getitem__(guess.model_version)
        version = (version | None, None) if guess.model_version == DEFAULT_VERSION else (version,)
        fields += [("model_id", Literal.__getitem__(guess.model_id)), ("model_version", *version)]
        fields += [("features", guess.features), ("prediction", _StrictPrediction | None, None)]
    return decoder_of(Envelope, fields, extras)


def decoder_of(base: type[Row], fields: Sequence[Any], extras: tuple[str, ...]) -> Callable[[bytes], Row]:
    """A parser of JSON objects into a struct; `fields` replace some of its own, `extras` are let pass by number."""
    fields = [*fields, *((f"extra{place}", Raw, None) for place in range(len(extras)))]
    rename = {f"extra{place}": extra for place, extra in enumerate(extras)}
    if not fields:
        return msgspec.json.Decoder(base).decode
    shape: type[Row] = defstruct(  # type: ignore[assignment] # as its base
        "Envelope", fields, bases=(base,), rename=rename, gc=False, kw_only=True, forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(shape).decode


def is_plain_name(name: str) -> bool:
    """Whether a field name can be written in JSON without an escape: those that msgspec takes in a struct."""
    return _ESCAPED.search(name) is None


_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')


def lets_pass(shape: type[Struct]) -> bool:
    """Whether a shape of features lets something pass without looking at it."""
    return any(field.type is Raw for field in msgspec.structs.fields(shape))


def raw_features(value: bytes) -> Raw | Mapping[str, Any]:
    """The features of a record that is known to be good, undecoded."""
    try:
        return _FEATURES_ONLY.decode(value).features
    except REFUSALS:
        features: Mapping[str, Any] = lenient.loads(value).get("features") or {}
        return features


class _FeaturesOnly(Struct, gc=False):
    features: Raw = ABSENT


_FEATURES_ONLY: Final = msgspec.json.Decoder(_FeaturesOnly)


def envelope(fields: Mapping[str, Any], features_max: int) -> Envelope | Malformed:
    """A parsed JSON object as a prediction, or the first thing that is wrong with it: the careful path."""
    prediction, features = fields.get("prediction"), fields.get("features")
    return head_fault(fields) or _body_fault(prediction, features, features_max) or Envelope(**_values(fields))


def head_fault(fields: Mapping[str, Any]) -> Malformed | None:
    """What is wrong with the schema, the ids and the version of a parsed record, if anything."""
    version = fields.get("schema_version")
    if version is not None and (isinstance(version, bool) or version != 1):
        return Malformed("schema_version", "$.schema_version: this release reads 1")
    return (
        name_fault(fields.get("prediction_id"), "prediction_id", lenient.ID_BYTES_MAX)
        or name_fault(fields.get("model_id"), "model_id", lenient.NAME_BYTES_MAX)
        or name_fault(fields.get("model_version"), "model_version", lenient.NAME_BYTES_MAX, required=False)
    )


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    features = fields.get("features")
    return shared_values(fields) | {
        "features": ABSENT if features is None else features,
        "latency_ms": lenient.number(fields.get("latency_ms")),
    }


def shared_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields that predictions and feedback both may have."""
    prediction, tags = fields.get("prediction"), fields.get("tags")
    return {
        "prediction_id": fields["prediction_id"],
        "model_id": fields["model_id"],
        "model_version": fields.get("model_version"),
        "timestamp": fields.get("timestamp"),
        "prediction": None if prediction is None else Prediction(**_answers(prediction)),
        "tags": {key: value for key, value in tags.items() if _is_plain(value)} if isinstance(tags, dict) else None,
    }


def _answers(fields: Mapping[str, Any]) -> dict[str, Any]:
    scores = fields.get("scores")
    if scores is not None:
        scores = {key: lenient.number(score) for key, score in scores.items()} if isinstance(scores, dict) else INVALID
    return {
        "label": lenient.label(fields.get("label")),
        "score": lenient.number(fields.get("score")),
        "scores": scores,
        "value": lenient.number(fields.get("value")),
    }


def names_fault(row: Envelope) -> Malformed | None:
    """What is wrong with the names of a record from the fast path, if anything. Their letters have been counted."""
    if (names := f"{row.prediction_id}{row.model_id}{row.model_version}").isascii() and names.isprintable():
        return None
    return (
        name_fault(row.prediction_id, "prediction_id", lenient.ID_BYTES_MAX)
        or name_fault(row.model_id, "model_id", lenient.NAME_BYTES_MAX)
        or name_fault(row.model_version, "model_version", lenient.NAME_BYTES_MAX, required=False)
    )


def says_something(row: Envelope) -> bool:
    """Whether a record from the fast path has features that are an object, or a prediction and no features."""
    if row.features is ABSENT:
        return row.prediction is not None
    return memoryview(row.features)[0] == _OPEN


_OPEN: Final = ord("{")


def name_fault(value: object, name: str, bytes_max: int, *, required: bool = True) -> Malformed | None:
    """What is wrong with the field `name`, if anything."""
    if value is None:
        return Malformed("field_missing", f"$.{name}: required") if required else None
    if not isinstance(value, str):
        return Malformed("field_type", f"$.{name}: must be a string")
    if not lenient.is_name(value, bytes_max):
        return Malformed("name_invalid", f"$.{name}: must have 1 to {bytes_max} bytes and no control characters")
    return None


def _body_fault(prediction: object, features: object, features_max: int) -> Malformed | None:
    if prediction is None and features is None:
        return Malformed("field_missing", "$.features: this or prediction is required")
    if not isinstance(features, dict | None):
        return Malformed("field_type", "$.features: must be an object")
    if not isinstance(prediction, dict | None):
        return Malformed("field_type", "$.prediction: must be an object")
    if features is not None and len(features) > features_max:
        return Malformed("too_many_features", f"$.features: more than {features_max}")
    return None


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict | list | Invalid)
