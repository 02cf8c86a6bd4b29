"""What tests of single rooms start from: a reference and columns of events, with all that does not matter filled in."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import astuple

from stream.signals import extract
from stream.signals.outcomes import Met
from stream.wire.internal import Reference, SignalReference


def a_reference(signals: Mapping[str, SignalReference], **fields: Any) -> Reference:
    """A complete reference of these signals; `fields` replace the rest."""
    defaults: dict[str, Any] = {
        "reference_id": "0123456789abcdef",
        "model_id": "credit",
        "model_version": "3",
        "scope": "inputs",
        "origin": "built",
        "complete": True,
        "inherited_from": None,
        "n_rows": 1000,
        "data_from": "2026-01-01T00:00:00.000Z",
        "data_to": "2026-02-01T00:00:00.000Z",
        "effective_from": "2026-02-01T00:00:00.000Z",
        "segments": {},
        "window_size_ms": 60_000,
        "window_rows": None,
        "row": None,
        "slots": None,
    }
    return Reference(**defaults | fields, signals=dict(signals))


def columns(n: int, **given: Any) -> extract.Columns:
    """n events without any value but those given."""
    nowhere, absent = np.zeros(n, dtype=np.bool_), np.full(n, math.nan)
    numbers = given.get("numeric", np.zeros((n, 0)))
    defaults: dict[str, Any] = {
        "numeric": numbers,
        "numeric_invalid": np.zeros(numbers.shape, dtype=np.bool_),
        "categorical": [],
        "boolean": np.zeros((n, 0), dtype=np.int8),
        "score": absent,
        "score_invalid": nowhere,
        "value": absent,
        "value_invalid": nowhere,
        "latency": absent,
        "latency_invalid": nowhere,
        "label": [None] * n,
        "tags": [{}] * n,
        "prediction_ids": [f"p-{row}" for row in range(n)],
        "time_ms": np.arange(n, dtype=np.int64),
        "offsets": np.arange(n, dtype=np.int64),
    }
    return extract.Columns(**defaults | given)


def pairs(n: int, **given: Any) -> Met:
    """n pairs of one model version and window that say nothing but what is given."""
    nothing, zero, nan = np.full(n, -1), np.zeros(n, dtype=np.int64), np.full(n, math.nan)
    defaults: dict[str, Any] = {
        "model_id": "credit",
        "windows_ms": zero,
        "versions": ["3"],
        "version": zero,
        "classes": [],
        "predicted": nothing,
        "actual": nothing,
        "scores": nan,
        "score_of": zero,
        "outputs": nan,
        "truths": nan,
        "delays_ms": zero,
        "segments": [[]],
        "segment": zero,
        "topics": ["feedback"],
        "topic": zero,
        "partitions": zero,
        "offsets": np.arange(n),
    }
    return Met(**defaults | given)


def plain(value: Any) -> Any:
    """A value that compares by content: dtype, shape and every bit of its arrays."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Struct):
        return tuple(plain(one) for one in astuple(value))
    return [plain(one) for one in value] if isinstance(value, list) else value
