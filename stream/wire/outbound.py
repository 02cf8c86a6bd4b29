"""What we tell: alerts as CloudEvents, window readings, and the JSON Schemas of both (`contracts.md` 4, 6, 9).

A struct here is a promise to strangers: within `v1` fields are added, never removed, renamed, retyped or made nullable.
Fields without a default are always written; "not applicable" is null. Times are texts as on the wire.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import isfinite
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from stream.wire import codec
from stream.wire.internal import Origin, SignalType
from stream.wire.record import Outgoing

Kind: TypeAlias = Literal[
    "data_drift",
    "prediction_drift",
    "concept_drift",
    "performance",
    "data_quality",
    "outlier",
    "silence",
    "challenger",
    "retrain",
]
Severity: TypeAlias = Literal["info", "warning", "critical"]
Status: TypeAlias = Literal["firing", "resolved", "notice"]
EventName: TypeAlias = Literal["firing", "updated", "resolved", "notice"]
Level: TypeAlias = Literal["not_ready", "ok", "warning", "drift"]
Reason: TypeAlias = Literal[
    "no_reference", "learning", "reference_changed", "reference_small", "warming_up", "empty", "muted"
]
Direction: TypeAlias = Literal["up", "down", "changed"]
ChangeType: TypeAlias = Literal["sudden", "gradual", "temporary", "recurring"]
ResolveReason: TypeAlias = Literal["returned", "new_reference", "retired", "operator"]
Draft: TypeAlias = Literal["2020-12", "7"]

Time: TypeAlias = Annotated[
    str,
    Meta(
        description="RFC 3339, UTC, milliseconds",
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        extra_json_schema={"format": "date-time"},
    ),
]
Hex16: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Hex32: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Version1: TypeAlias = Annotated[int, Meta(ge=1, le=1)]

SEVERITIES: Final[dict[Severity, tuple[str, int]]] = {
    "info": ("INFO", 9),
    "warning": ("WARNING", 13),
    "critical": ("CRITICAL", 17),
}
"""`severitytext` and `severitynumber` of the CloudEvents severity extension, in rising order."""

_CONTENT_TYPE: Final = ("content-type", b"application/cloudevents+json; charset=UTF-8")
_PATH_SAFE: Final = "!$&'()*+,;=:@"  # the characters RFC 3986 lets stand in a path segment
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ChangePoint(Struct, frozen=True):
    """Since when: the most likely start of the change, with its 95 % interval, in event time."""

    at: Time
    earliest: Time
    latest: Time


class Effect(Struct, frozen=True):
    """How large a change is: Jensen-Shannon distance in nats; Wasserstein on the u scale, for ordered signals only."""

    psi: float | None
    jensen_shannon: float | None
    wasserstein: float | None


class Description(Struct, frozen=True, omit_defaults=True):
    """What applies of a signal's summary, in the signal's own unit; the rest is left out."""

    mean: float | None = None
    std: float | None = None
    p05: float | None = None
    p50: float | None = None
    p95: float | None = None
    rate: Share | None = None
    top: list[tuple[str, float]] | None = None
    """Category and its share, largest first."""


class Bin(Struct, frozen=True):
    """A bin of a distribution, named by its interval or category, with its share in the reference and now."""

    bin: str
    reference: Share
    current: Share


class SignalEntry(Struct, frozen=True, kw_only=True):
    """One signal that moved, as one detector saw it."""

    signal: str
    measure: str
    detector: str
    level: Level
    statistic: float | None
    threshold: float | None
    evidence: float | None
    n: Count
    direction: Direction | None
    effect: Effect
    before: Description
    after: Description
    bins: list[Bin]
    change_point: ChangePoint | None


class JudgedWindow(Struct, frozen=True):
    """The window that was judged; `n_reference` rows stand behind the reference."""

    start: Time
    end: Time
    n: Count
    n_reference: Count
    late: Count


class EvidenceOffsets(Struct, frozen=True):
    """Input offsets of the evidence, both ends included; `reset_offset`: where it last began from nothing."""

    topic: str
    partition: Count
    first_offset: Count
    last_offset: Count
    reset_offset: Count | None


class Budget(Struct, frozen=True):
    """What the thresholds were derived from: false alarms per period over the fleet, and this group's share."""

    false_alarms: float
    period_seconds: float
    share: float


class Generator(Struct, frozen=True):
    """Who says so; `config_id` changes with every setting that can change a result."""

    name: str
    version: str
    config_id: Hex16


class DriftDetails(Struct, frozen=True):
    """Details of `data_drift` and `prediction_drift`; `skew`: serving differed from training from its start on."""

    signals_watched: Count
    signals_moved: Count
    skew: bool


class QualityCheck(Struct, frozen=True):
    """One rate that moved: missing, invalid or unseen values of a signal, or invalid rows."""

    check: str
    signal: str
    rate: Share
    reference_rate: Share
    n: Count


class QualityDetails(Struct, frozen=True):
    """Details of `data_quality`."""

    checks: list[QualityCheck]


class Contribution(Struct, frozen=True):
    """What one signal adds to an outlier's score; the value only where the settings allow it."""

    signal: str
    score: int
    value: float | str | bool | None


class OutlierDetails(Struct, frozen=True):
    """Details of the notice of one outlier; scores count half decades of probability."""

    prediction_id: str
    score: int
    threshold: int
    p_value: float
    contributions: list[Contribution]


class BurstDetails(Struct, frozen=True):
    """Details of `outlier` as a condition: the rate of unusual rows changed."""

    rate: Share
    reference_rate: Share
    n: Count


class SilenceDetails(Struct, frozen=True):
    """Details of `silence`: records that stopped coming."""

    what: Literal["predictions", "feedback"]
    last_seen: Time | None
    expected_per_window: float
    windows: Count


class Damage(Struct, frozen=True):
    """Where the loss comes from: a segment, or a range of scores, with its share of what is lost beyond the reference.

    Shares of segments may add up to more than 1: keys overlap. `n` pairs have come there since the change.
    """

    segment: str | None
    scores: tuple[float, float] | None
    share: float
    n: Count


class PerformanceDetails(Struct, frozen=True):
    """Details of `performance`; `interval` holds the metric now with the given confidence.

    What moved beside it: the inputs (an alert of `data_drift` was open), the labels (how often each occurs), the
    relation of both (an alert of `concept_drift`). `damage` is ranked by share.
    """

    metric: str
    before: float
    after: float
    interval: tuple[float, float]
    confidence: Share
    n_pairs: Count
    coverage: Share | None
    label_delay_p50_seconds: float | None
    inputs_moved: bool = False
    labels_moved: bool = False
    relation_moved: bool = False
    damage: list[Damage] = field(default_factory=list)


class ConceptDetails(Struct, frozen=True):
    """Details of `concept_drift`: mean residual between label and calibrated probability.

    `labels_moved`: how often each label occurs has changed. `damage` tells where the residuals come from.
    """

    residual: float
    interval: tuple[float, float]
    confidence: Share
    n_pairs: Count
    inputs_moved: bool
    labels_moved: bool = False
    damage: list[Damage] = field(default_factory=list)


class ChallengerDetails(Struct, frozen=True):
    """Details of a verdict on a challenger; `gain` is the champion's loss minus the challenger's."""

    champion: str
    challenger: str
    metric: str
    gain: float
    interval: tuple[float, float]
    confidence: Share
    log10_e_value: float
    n_pairs: Count
    decision: Literal["challenger_better", "champion_better", "no_difference_found"]


class RetrainDetails(Struct, frozen=True):
    """Details of a retrain request: why, on which data, and when the next one may come at the earliest."""

    reason: str
    causes: list[Hex32]
    data_from: Time
    data_to: Time
    n_rows: Count
    n_labels: Count
    not_before: Time


Details: TypeAlias = (
    DriftDetails
    | QualityDetails
    | OutlierDetails
    | BurstDetails
    | SilenceDetails
    | PerformanceDetails
    | ConceptDetails
    | ChallengerDetails
    | RetrainDetails
)
DETAILS: Final[dict[Kind, tuple[type[Struct], ...]]] = {
    "data_drift": (DriftDetails,),
    "prediction_drift": (DriftDetails,),
    "concept_drift": (ConceptDetails,),
    "performance": (PerformanceDetails,),
    "data_quality": (QualityDetails,),
    "outlier": (OutlierDetails, BurstDetails),
    "silence": (SilenceDetails,),
    "challenger": (ChallengerDetails,),
    "retrain": (RetrainDetails,),
}
"""The form of `details` by kind; an outlier's is that of one row (notice) or of the rate of such rows."""


class Alert(Struct, frozen=True, kw_only=True):
    """A condition people should know, or a point event (status notice). Readers tolerate kinds they do not know."""

    schema_version: Version1 = field(default=1)
    alert_id: Hex32
    fingerprint: Hex16
    sequence: Count
    status: Status
    kind: Kind
    severity: Severity
    model_id: str
    model_version: str
    segment: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: Time
    ends_at: Time | None
    updated_at: Time
    window: JudgedWindow | None
    reference_id: Hex16 | None
    reference_origin: Origin | None
    signals: list[SignalEntry]
    signals_total: Count
    change_type: ChangeType | None
    change_point: ChangePoint | None
    evidence_offsets: Annotated[list[EvidenceOffsets], Meta(max_length=64)]
    budget: Budget | None
    resolve_reason: ResolveReason | None
    details: dict[str, Any]
    """Made from one of `Details`."""
    generator: Generator


class CloudEvent(Struct, frozen=True, kw_only=True):
    """The CloudEvents 1.0 envelope of an alert. `id` is the idempotency key, `correlationid` the episode."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    time: Time
    subject: str
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str = "urn:driftstream:schema:alert.v1"
    severitytext: str
    severitynumber: int
    partitionkey: str
    correlationid: str
    traceparent: str | UnsetType = UNSET
    data: Alert


class Verdict(Struct, frozen=True):
    """What one detector says about one measure of a signal; a reason stands where it has no verdict."""

    measure: str
    detector: str
    level: Level
    statistic: float | None
    threshold: float | None
    evidence: float | None
    n: Count
    reason: Reason | None


class Estimate(Struct, frozen=True):
    """Performance estimated without labels (CBPE) over the predictions of a window."""

    n: Count
    accuracy: float | None
    accuracy_sd: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None
    calibrated: bool


class Metrics(Struct, frozen=True):
    """Realised performance over the pairs of a window; null what does not apply to the task."""

    n_labelled: Count
    coverage: float | None
    delay_p50_seconds: float | None
    delay_p95_seconds: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    log_loss: float | None
    brier: float | None
    roc_auc: float | None
    ece: float | None
    mae: float | None
    rmse: float | None
    bias: float | None
    r2: float | None
    estimated: Estimate | None


class Reading(Struct, frozen=True, kw_only=True):
    """One signal in one closed window: summary, effect sizes and verdicts. An empty window has n 0 and nulls."""

    schema_version: Version1 = field(default=1)
    model_id: str
    model_version: str
    segment: str
    signal: str
    type: SignalType
    window_start: Time
    window_end: Time
    n: Count
    n_missing: Count | None
    n_invalid: Count | None
    n_unseen: Count | None
    n_late: Count
    mean: float | None
    std: float | None
    p05: float | None
    p50: float | None
    p95: float | None
    reference_id: Hex16 | None
    reference_slot: str | None
    reference_mean: float | None
    psi: float | None
    jensen_shannon: float | None
    wasserstein: float | None
    counts: list[Count] | None
    """The 16 coarse bins, then missing, invalid; or the categories, then unseen, missing, invalid."""
    metrics: Metrics | None
    level: Level
    alert_id: Hex32 | None
    verdicts: list[Verdict]
    interval: tuple[float, float] | UnsetType = UNSET
    """Of a gain alone: where its mean since the start lies, with `challenger.confidence` at every look."""


def fingerprint(model_id: str, model_version: str, segment: str, kind: Kind, scope: str = "") -> str:
    """Names an alert by what it is about, never by values: 16 hex digits, the same for every episode.

    `scope` stands behind the other four where one kind has two alerts.
    """
    return _digest([model_id, model_version, segment, kind, *([scope] if scope else [])])[:16]


def alert_id(fingerprint: str, starts_at_ms: int, discriminator: str = "") -> str:
    """Names one episode: 32 hex digits, the same from firing to resolved.

    `discriminator` tells point events of one moment apart: the prediction id of an outlier, a challenger's version.
    """
    return _digest([fingerprint, starts_at_ms, discriminator])[:32]


def _digest(parts: list[str | int]) -> str:
    # msgspec writes compact JSON and leaves non-ASCII as UTF-8, which is the form the contract hashes.
    return sha256(msgspec.json.encode(parts)).hexdigest()


def significant(value: float | None, digits: int = 6) -> float | None:
    """A number as it is published: at most `digits` significant digits; NaN and the infinities become None.

    Rounding is monotone, so a statistic at or above its threshold is still so in print.
    """
    if value is None or not isfinite(value):
        return None
    return float(f"{value:.{digits}g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def envelope(alert: Alert, event: EventName, service_id: str, traceparent: str | None = None) -> CloudEvent:
    """The CloudEvent around an alert. Ids inside `source` and `subject` are percent-encoded, so both split at "/"."""
    severity_text, severity_number = SEVERITIES[alert.severity]
    subject = (alert.model_id, alert.model_version, alert.segment, alert.kind)
    return CloudEvent(
        id=f"{alert.alert_id}-{alert.sequence}",
        source="/drift/" + quote(service_id, _PATH_SAFE),
        type=f"io.driftstream.alert.{event}.v1",
        time=alert.updated_at,
        subject="/".join(quote(part, _PATH_SAFE) for part in subject),
        severitytext=severity_text,
        severitynumber=severity_number,
        partitionkey=alert.fingerprint,
        correlationid=alert.alert_id,
        traceparent=traceparent or UNSET,
        data=alert,
    )


def alert_record(event: CloudEvent) -> Outgoing:
    """The record of an alert: structured CloudEvent, its attributes repeated as `ce_` headers, keyed by fingerprint.

    The Kafka timestamp is the event time. Raises `ValueError` when a number is NaN or infinite.
    """
    fields = msgspec.to_builtins(event)
    attributes = {name: value for name, value in fields.items() if name not in ("data", "datacontenttype")}
    return Outgoing(
        role="alerts",
        key=event.partitionkey.encode(),
        value=codec.to_json(fields),
        headers=[_CONTENT_TYPE, *((f"ce_{name}", str(value).encode()) for name, value in attributes.items())],
        timestamp_ms=_milliseconds(event.time),
    )


def reading_record(reading: Reading) -> Outgoing:
    """The record of a reading, keyed by model, version, segment and signal; its Kafka timestamp is the window's end.

    Raises `ValueError` when a number is NaN or infinite.
    """
    return Outgoing(
        role="windows",
        key=msgspec.json.encode([reading.model_id, reading.model_version, reading.segment, reading.signal]),
        value=codec.to_json(reading),
        timestamp_ms=_milliseconds(reading.window_end),
    )


def _milliseconds(time: str) -> int:
    return (datetime.fromisoformat(time) - _EPOCH) // timedelta(milliseconds=1)


SCHEMAS: Final[dict[str, type[Struct]]] = {"alert": Alert, "window": Reading}
"""The published names of what we tell; an alert's schema is that of the CloudEvent's `data`."""


def json_schema(name: str, draft: Draft = "2020-12") -> dict[str, Any]:
    """The JSON Schema of `SCHEMAS[name]`: all fields required, further ones allowed, because `v1` may grow.

    Raises `KeyError` for a name that is not published.
    """
    model = SCHEMAS[name]
    details = {struct: None for structs in DETAILS.values() for struct in structs} if model is Alert else {}
    _, parts = msgspec.json.schema_components((model, *details), ref_template="#/$defs/{name}")
    root = parts.pop(model.__name__)
    # A default is for our own convenience: on the wire the field is always there, unless it may be left out.
    optional = {one.name for one in msgspec.structs.fields(model) if one.default is UNSET}
    root["required"] = [name for name in root["properties"] if name not in optional]
    root["properties"]["schema_version"].pop("default", None)
    if model is Alert:
        root["allOf"] = [_details_rule(kind, structs) for kind, structs in DETAILS.items()]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:driftstream:schema:{name}.v1",
        **root,
        "$defs": dict(sorted(parts.items())),
    }
    return schema if draft == "2020-12" else as_draft7(schema)


def _details_rule(kind: str, structs: tuple[type[Struct], ...]) -> dict[str, Any]:
    forms = [{"$ref": f"#/$defs/{struct.__name__}"} for struct in structs]
    form = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return {
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
        "then": {"properties": {"details": form}},
    }


def as_draft7(node: Any) -> Any:
    """The same schema in the older words: what differs, of all we use, is where parts stand and how tuples are said."""
    if isinstance(node, list):
        return [as_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    older = {key: as_draft7(value) for key, value in node.items()}
    if "$schema" in older:
        older["$schema"] = "http://json-schema.org/draft-07/schema#"
        older["definitions"] = older.pop("$defs")
    if "$ref" in older:
        older["$ref"] = older["$ref"].replace("#/$defs/", "#/definitions/")
    if "prefixItems" in older:
        older["additionalItems"] = older.pop("items")
        older["items"] = older.pop("prefixItems")
    return older
