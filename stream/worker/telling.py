"""What the metrics learn from stages, and from records on their way out: by keys and headers, never their content."""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from stream.wire.record import Outgoing
from stream.worker.status import Status

OTHER: Final = "other"
_KEY: Final = msgspec.json.Decoder(list[str])


def count(status: Status, outputs: Iterable[Outgoing], models_max: int, now_ms: int) -> None:
    """Add what was published to the counters; above `models_max` models the rest counts as "other"."""
    windows: set[tuple[str, int | None]] = set()
    for output in outputs:
        status.published[output.role] += 1
        if output.role == "windows":
            windows.add((_model_and_version(output.key), output.timestamp_ms))
        elif output.role == "alerts":
            _count_alert(status, output, models_max)
        elif output.role == "dead_letters":
            headers = dict(output.headers)
            status.dead_letters[_text(headers, "drift.error.topic"), _text(headers, "drift.error.code")] += 1
    for name, end_ms in windows:
        status.windows_closed[capped(status, _decoded(name)[0], models_max)] += 1
        if end_ms is not None:
            status.close_delay_seconds.add(max(0, now_ms - end_ms) / 1_000)


def count_pairs(status: Status, counts: Mapping[tuple[str, str], int], models_max: int) -> None:
    """Add what join says of halves to the counters, by model and outcome."""
    for (model_id, outcome), halves in counts.items():
        status.pairs[capped(status, model_id, models_max), outcome] += halves


def alerts(outputs: Iterable[Outgoing]) -> list[dict[str, str]]:
    """Of each alert what names it: fingerprint, id, model, version, segment, kind, severity, event."""
    return [_named(output) for output in outputs if output.role == "alerts"]


def _named(output: Outgoing) -> dict[str, str]:
    headers = dict(output.headers)
    subject = [unquote(part) for part in _text(headers, "ce_subject").split("/")]
    names = ("model_id", "model_version", "segment", "kind")
    return {
        "fingerprint": (output.key or b"").decode("utf-8", "replace"),
        "alert_id": _text(headers, "ce_correlationid"),
        "severity": _text(headers, "ce_severitytext").lower(),
        "status": _event(headers),
        **dict(zip(names, subject, strict=False)),
    }


def _count_alert(status: Status, output: Outgoing, models_max: int) -> None:
    headers = dict(output.headers)
    model_id, _, kind = _text(headers, "ce_subject").partition("/")
    model = capped(status, unquote(model_id), models_max)
    status.alerts[model, kind.rpartition("/")[2], _text(headers, "ce_severitytext").lower(), _event(headers)] += 1


def _event(headers: dict[str, bytes]) -> str:
    return _text(headers, "ce_type").removeprefix("io.driftstream.alert.").partition(".")[0]


def capped(status: Status, model_id: str, models_max: int) -> str:
    """The model as labels name it: itself, or "other" above `models_max` models."""
    if model_id not in status.models:
        if len(status.models) >= models_max:
            return OTHER
        status.models.add(model_id)
    return model_id


def _model_and_version(key: bytes | None) -> str:
    return msgspec.json.encode(_decoded(key)[:2]).decode()


def _decoded(key: bytes | str | None) -> list[str]:
    try:
        return _KEY.decode(key or b"[]") or [""]
    except msgspec.DecodeError:
        return [""]


def _text(headers: dict[str, bytes], name: str) -> str:
    return headers.get(name, b"").decode("utf-8", "replace")
