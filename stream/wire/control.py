"""Control events: a person's decisions as records, structured CloudEvents on `drift.control` (`contracts.md` 8).

    mute, relearn, resolve, retrained, marker

Ingest copies them into `drift.profiles`, and their place there is their time. A bad one is a value, `Malformed`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta, Struct, field

from stream.wire import codec, lenient
from stream.wire.codec import Malformed
from stream.wire.inbound import Limits
from stream.wire.internal import CONTROL
from stream.wire.outbound import Draft, Hex16, Hex32, Kind, as_draft7
from stream.wire.record import EVERY_PARTITION, Outgoing
from stream.wire.rows import json_object
from stream.wire.times import parse_time, rfc3339

Outcome: TypeAlias = Literal["succeeded", "failed", "skipped"]

TIMES: Final = ("effective_at", "until")
"""Milliseconds since 1970 here, texts on the wire."""
MOMENT: Final = {"type": "string", "format": "date-time", "description": "RFC 3339 with an offset"}
TYPE: Final = "io.driftstream.control.{}.v1"
TEXT_BYTES_MAX: Final = 1024
"""Of a reason, a text, an address: they are for people, and mutes are remembered with theirs."""

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=lenient.NAME_BYTES_MAX)]
Text: TypeAlias = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]


class _Decision(Struct, frozen=True, kw_only=True, tag_field="verb"):
    effective_at_ms: int = field(name="effective_at")
    """Applies to windows that start then or later, and close after the event. Absent in an event: its `time`."""


class Mute(_Decision, frozen=True, kw_only=True, tag="mute"):
    """No bets and no new alerts for a while, such as a holiday; readings go on."""

    until_ms: int = field(name="until")
    """Windows that start at it or later are not muted."""
    model_id: Name | None = None
    """None: all models."""
    kinds: list[Kind] = field(default_factory=list)
    """Empty: all kinds."""
    reason: Text | None = None


class Relearn(_Decision, frozen=True, kw_only=True, tag="relearn"):
    """What is normal for a model version is learned anew; its open drift alerts resolve as `new_reference`."""

    model_id: Name
    model_version: Name
    reason: Text | None = None


class Resolve(_Decision, frozen=True, kw_only=True, tag="resolve"):
    """The alert of a fingerprint resolves as `operator`."""

    fingerprint: Hex16
    reason: Text | None = None


class Retrained(_Decision, frozen=True, kw_only=True, tag="retrained"):
    """What came of a retrain request."""

    alert_id: Hex32
    outcome: Outcome
    model_version: Name | None = None
    """The version that was made."""


class Marker(_Decision, frozen=True, kw_only=True, tag="marker"):
    """A line in the dashboard, without influence on verdicts."""

    text: Text
    model_id: Name | None = None
    url: Text | None = None


Decision: TypeAlias = Mute | Relearn | Resolve | Retrained | Marker
DECISIONS: Final[dict[str, type[Decision]]] = {
    "mute": Mute,
    "relearn": Relearn,
    "resolve": Resolve,
    "retrained": Retrained,
    "marker": Marker,
}
"""By verb."""


class ControlEvent(Struct, frozen=True):
    """A decision, named by its source and id: the same name again is the same event."""

    source: str
    id: str
    decision: Decision


class _Refused(Exception):
    """A field that cannot be used. Stays inside this file."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.malformed = Malformed(code, detail)


def decode(value: bytes, limits: Limits) -> ControlEvent | Malformed:
    """The control event in a record. Never raises.

    Codes: `too_large`, `json_invalid`, `not_an_object`, `format_unknown` (no CloudEvent of ours), `schema_version`,
    `field_missing`, `field_type`, `name_invalid`, `timestamp_invalid`. Unknown fields are ignored.
    """
    if len(value) > limits.record_bytes:
        return Malformed("too_large", f"$: more than {limits.record_bytes} bytes")
    fields = json_object(value)
    if isinstance(fields, Malformed):
        return fields
    try:
        return _event(fields)
    except _Refused as refused:
        return refused.malformed


def cloud_event(event: ControlEvent, time_ms: int) -> bytes:
    """The event as a structured CloudEvent made at `time_ms`; `decode` finds the event in it again.

    Raises `ValueError` on text that JSON cannot hold.
    """
    data: dict[str, Any] = msgspec.to_builtins(event.decision)
    verb = data.pop("verb")
    times = {name: rfc3339(data[name]) for name in TIMES if name in data}
    return codec.to_json(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": event.source,
            "type": TYPE.format(verb),
            "time": rfc3339(time_ms),
            "datacontenttype": "application/json",
            "data": data | times,
        }
    )


def forwarded(event: ControlEvent) -> Outgoing:
    """The event as stages tell each other: one copy to every partition of drift.profiles."""
    headers = (("drift-format", CONTROL.encode()),)
    return Outgoing("profiles", None, codec.encode(event, CONTROL), headers, EVERY_PARTITION)


def json_schema(draft: Draft = "2020-12") -> dict[str, Any]:
    """The JSON Schema of a control event: the whole CloudEvent, since its `type` says what stands in `data`."""
    _, parts = msgspec.json.schema_components(tuple(DECISIONS.values()), ref_template="#/$defs/{name}")
    for part in parts.values():
        part["properties"].pop("verb")
        part["properties"] |= {name: dict(MOMENT) for name in TIMES if name in part["properties"]}
        # A field named effective_at may be left out: the event's own time then says it.
        part["required"] = [name for name in part["required"] if name not in ("verb", "effective_at")]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:driftstream:schema:control.v1",
        "title": "ControlEvent",
        "description": "A decision on drift.control: a structured CloudEvent, whose type names the verb.",
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1, "maxLength": lenient.NAME_BYTES_MAX},
            "source": {"type": "string", "minLength": 1, "maxLength": lenient.NAME_BYTES_MAX},
            "type": {"enum": [TYPE.format(verb) for verb in DECISIONS]},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "data": {"type": "object"},
        },
        "required": ["specversion", "id", "source", "type", "data"],
        "allOf": [
            {
                "if": {"properties": {"type": {"const": TYPE.format(verb)}}, "required": ["type"]},
                "then": {"properties": {"data": {"$ref": f"#/$defs/{decision.__name__}"}}},
            }
            for verb, decision in DECISIONS.items()
        ],
        "$defs": dict(sorted(parts.items())),
    }
    return schema if draft == "2020-12" else as_draft7(schema)


_TYPE: Final = re.compile(r"io\.driftstream\.control\.([a-z]+)\.v([0-9]+)")
_HEX16: Final = re.compile("[0-9a-f]{16}")
_HEX32: Final = re.compile("[0-9a-f]{32}")


def _event(fields: Mapping[str, Any]) -> ControlEvent:
    verb = _verb(fields)
    source, name = (_name(_required(fields, key, "$"), f"$.{key}") for key in ("source", "id"))
    data = _required(fields, "data", "$")
    if not isinstance(data, dict):
        raise _Refused("field_type", "$.data: must be an object")
    if data.get("effective_at") is None and fields.get("time") is not None:
        data = data | {"effective_at": _time(fields["time"], "$.time")}
    found: dict[str, Any] = {}
    for key, (required, read) in _FIELDS[verb].items():
        if required or data.get(key) is not None:
            found[_OWN_NAMES.get(key, key)] = read(_required(data, key, "$.data"), f"$.data.{key}")
    decision = DECISIONS[verb](**found)
    if isinstance(decision, Mute) and decision.until_ms <= decision.effective_at_ms:
        raise _Refused("timestamp_invalid", "$.data.until: must be later than effective_at")
    return ControlEvent(source, name, decision)


def _verb(fields: Mapping[str, Any]) -> str:
    if _required(fields, "specversion", "$") != "1.0":
        raise _Refused("schema_version", "$.specversion: this release reads 1.0")
    type_ = _required(fields, "type", "$")
    if not isinstance(type_, str):
        raise _Refused("field_type", "$.type: must be a string")
    told = _TYPE.fullmatch(type_)
    if told is None or told[1] not in DECISIONS:
        raise _Refused("format_unknown", f"$.type: must be {TYPE.format('VERB')}, VERB {' or '.join(DECISIONS)}")
    if told[2] != "1":
        raise _Refused("schema_version", "$.type: this release reads v1")
    return told[1]


def _required(fields: Mapping[str, Any], key: str, path: str) -> Any:
    value = fields.get(key)
    if value is None:
        raise _Refused("field_missing", f"{path}.{key}: required")
    return value


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _Refused("field_type", f"{path}: must be a string")
    return value


def _name(value: Any, path: str) -> str:
    if not lenient.is_name(name := _string(value, path)):
        detail = f"{path}: must have 1 to {lenient.NAME_BYTES_MAX} bytes and no control characters"
        raise _Refused("name_invalid", detail)
    return name


def _text(value: Any, path: str) -> str:
    if len((text := _string(value, path)).encode()) > TEXT_BYTES_MAX:
        raise _Refused("too_large", f"{path}: more than {TEXT_BYTES_MAX} bytes")
    return text


def _digits(form: re.Pattern[str], count: int) -> Callable[[Any, str], str]:
    def read(value: Any, path: str) -> str:
        if not form.fullmatch(digits := _string(value, path)):
            raise _Refused("name_invalid", f"{path}: must have {count} hex digits, lower case")
        return digits

    return read


def _time(value: Any, path: str) -> int:
    time_ms = parse_time(value)
    if time_ms is None:
        raise _Refused("timestamp_invalid", f"{path}: neither RFC 3339 with an offset nor a number of this age")
    return time_ms


def _kinds(value: Any, path: str) -> list[Kind]:
    known = get_args(Kind)
    if not isinstance(value, list) or not all(kind in known for kind in value):
        raise _Refused("field_type", f"{path}: must be a list of {', '.join(known)}")
    return sorted(set(value))


def _outcome(value: Any, path: str) -> Outcome:
    known = get_args(Outcome)
    if value not in known:
        raise _Refused("field_type", f"{path}: must be {' or '.join(known)}")
    outcome: Outcome = value
    return outcome


_OWN_NAMES: Final = {"effective_at": "effective_at_ms", "until": "until_ms"}
_AT: Final[dict[str, tuple[bool, Callable[[Any, str], Any]]]] = {"effective_at": (True, _time)}
_FIELDS: Final[dict[str, dict[str, tuple[bool, Callable[[Any, str], Any]]]]] = {
    "mute": _AT
    | {"until": (True, _time), "model_id": (False, _name), "kinds": (False, _kinds), "reason": (False, _text)},
    "relearn": _AT | {"model_id": (True, _name), "model_version": (True, _name), "reason": (False, _text)},
    "resolve": _AT | {"fingerprint": (True, _digits(_HEX16, 16)), "reason": (False, _text)},
    "retrained": _AT
    | {"alert_id": (True, _digits(_HEX32, 32)), "outcome": (True, _outcome), "model_version": (False, _name)},
    "marker": _AT | {"text": (True, _text), "model_id": (False, _name), "url": (False, _text)},
}
"""Of each verb its fields: whether they are required, and how they are read."""
