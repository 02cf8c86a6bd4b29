"""Worlds: seeded streams of predictions whose law, and whose drift, are known.

A world makes native JSON records of about 860 bytes with 16 numeric and 4 categorical features, one tag, a score, a
label and a latency. Row i is the same in every call, however many rows are asked for. From row `drift_at` on, the
signals named in `drifting` follow another law; all others stay as they are.

    records = World(seed=7, drift_at=5_000).records(10_000)
    batch = batch_of(records, topic="predictions", partition=0)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import orjson
from scipy.special import expit, log_ndtr, ndtr, ndtri

from stream.profiles.cuts import Row
from stream.wire.record import Batch, Record

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

START_MS = 1_795_219_200_000
"""2026-11-21T00:00:00Z: the start of a minute, an hour and a day."""

NUMERIC = tuple(
    f"{kind}_{index}"
    for index in range(4)
    for kind in ("transaction_amount_eur", "ratio_of_income", "days_since_last_event", "number_of_items")
)
"""Four of each: log-normal, correlated normal, exponential, whole numbers with many ties."""
CATEGORICAL = ("channel", "product_line", "region_code", "device_kind")
CATEGORIES = (
    ("web", "app", "branch"),
    ("basic", "plus", "premium", "student", "senior"),
    tuple(f"r{i:02d}" for i in range(30)),
    ("phone", "tablet", "desktop", "kiosk"),
)
COUNTRIES = ("AT", "BE", "CH", "DE", "ES", "FR", "IT", "PL")

_BLOCK = 4096
"""Rows drawn from one generator."""


@dataclass(frozen=True)
class Columns:
    """The values behind n records: NaN and None are missing."""

    numeric: Floats
    """[n, 16] in the order of NUMERIC"""
    categorical: list[list[str | None]]
    """n values per name of CATEGORICAL"""
    country: list[str]
    score: Floats
    label: list[str]
    latency_ms: Floats
    time_ms: Ints
    prediction_ids: list[str]


@dataclass(frozen=True)
class World:
    """One model version and its traffic: a row every `step_ms`, in order of time."""

    seed: int = 0
    model_id: str = "credit"
    model_version: str = "3"
    start_ms: int = START_MS
    step_ms: int = 100
    drift_at: int | None = None
    """First row of the new law; None: never."""
    shift: float = 1.0
    """How far the drifting signals move, in standard deviations of the law behind them."""
    drifting: tuple[str, ...] = (NUMERIC[0], NUMERIC[1], CATEGORICAL[0])
    """Among NUMERIC, CATEGORICAL, "score" and "latency"."""
    missing: float = 0.01
    """Chance of a feature to be null."""
    prefix: str = "p"
    """Of the prediction ids: two worlds with one model need two."""

    def columns(self, n: int, first: int = 0) -> Columns:
        """Rows first .. first + n - 1."""
        blocks = range(first // _BLOCK, (first + n + _BLOCK - 1) // _BLOCK)
        draws = np.concatenate([_draws(self.seed, block) for block in blocks] or [np.zeros((0, _WIDTH))])
        normal = draws[first - blocks.start * _BLOCK :][:n]
        rows = np.arange(first, first + n)
        moved = np.zeros(n) if self.drift_at is None else np.where(rows >= self.drift_at, self.shift, 0.0)
        return _columns(self, normal, rows, moved)

    def records(self, n: int, first: int = 0) -> list[bytes]:
        """The same rows as native JSON records."""
        columns = self.columns(n, first)
        return [orjson.dumps(_record(self, columns, row)) for row in range(n)]

    def rows(self, n: int, first: int = 0) -> list[Row]:
        """The same rows as references are built from."""
        columns = self.columns(n, first)
        return [_row(_record(self, columns, row), int(columns.time_ms[row])) for row in range(n)]


def batch_of(
    values: Sequence[bytes | None],
    topic: str = "predictions",
    partition: int = 0,
    first_offset: int = 0,
    *,
    timestamp_ms: int = START_MS + 86_400_000,
) -> Batch:
    """Values as consecutive records of one partition, keyed by nothing, all written at one time."""
    n = len(values)
    return Batch(
        topic,
        partition,
        list(range(first_offset, first_offset + n)),
        [timestamp_ms] * n,
        [None] * n,
        list(values),
        [None] * n,
    )


def records_of(batch: Batch) -> list[Record]:
    """The same batch as single records."""
    columns = zip(batch.offsets, batch.timestamps_ms, batch.keys, batch.values, batch.headers, strict=True)
    return [
        Record(batch.topic, batch.partition, offset, at, key, value, headers or ())
        for offset, at, key, value, headers in columns
    ]


def spread(values: Sequence[bytes], partitions: int) -> list[list[bytes]]:
    """The values dealt to partitions in turn; each partition keeps their order."""
    return [list(values[partition::partitions]) for partition in range(partitions)]


_WIDTH = 2 * len(NUMERIC) + 2 * len(CATEGORICAL) + 3
"""Normal draws per row: one per feature, three for tag, score and latency, one per feature for its absence."""


def _draws(seed: int, block: int) -> Floats:
    return np.random.default_rng([seed, block]).standard_normal((_BLOCK, _WIDTH))


def _columns(world: World, draws: Floats, rows: Ints, moved: Floats) -> Columns:
    drift = {name: moved * (name in world.drifting) for name in (*NUMERIC, *CATEGORICAL, "score", "latency")}
    features, others, absence = np.split(
        draws, [len(NUMERIC) + len(CATEGORICAL), _WIDTH - len(NUMERIC) - len(CATEGORICAL)], 1
    )
    absent = absence < ndtri(world.missing)
    tag, noise, slow = others.T
    logit = 0.8 * features[:, 1] + 0.5 * features[:, 0] + 0.5 * noise - 0.5 + drift["score"]
    score = np.round(expit(logit), 6)
    return Columns(
        numeric=np.where(absent[:, : len(NUMERIC)], np.nan, _numeric(features[:, : len(NUMERIC)], drift)),
        categorical=[
            _choice(features[:, index] + drift[name], known, absent[:, index])
            for index, (name, known) in enumerate(zip(CATEGORICAL, CATEGORIES, strict=True), start=len(NUMERIC))
        ],
        country=_choice(tag, COUNTRIES),
        score=score,
        label=np.where(logit >= 0, "approve", "deny").tolist(),
        latency_ms=np.round(np.exp(2.5 + 0.4 * (slow + drift["latency"])), 3),
        time_ms=world.start_ms + rows * world.step_ms,
        prediction_ids=[f"{world.prefix}-{world.seed:04d}-{row:020d}" for row in rows.tolist()],
    )


def _numeric(normal: Floats, drift: dict[str, Floats]) -> Floats:
    latent = normal.copy()
    latent[:, 5::4] = 0.6 * normal[:, 1, None] + 0.8 * normal[:, 5::4]  # the ratios lean on the first of them
    latent += np.stack([drift[name] for name in NUMERIC], axis=1)
    latent[:, 0::4] = np.round(np.exp(6 + latent[:, 0::4]), 2)
    latent[:, 1::4] = np.round(0.3 + 0.1 * latent[:, 1::4], 12)
    latent[:, 2::4] = np.round(-30 * log_ndtr(-latent[:, 2::4]), 9)
    latent[:, 3::4] = np.floor(np.exp(0.8 + 0.7 * latent[:, 3::4]))
    return latent


def _choice(normal: Floats, known: Sequence[str], absent: Mask | None = None) -> list[Any]:
    """The first ones often, the last ones rarely: shares fall like those of a square."""
    place = np.floor(ndtr(normal) ** 2 * len(known)).astype(np.int64)
    chosen: np.ndarray[Any, np.dtype[np.object_]] = np.array(known, dtype=object)[np.minimum(place, len(known) - 1)]
    if absent is not None:
        chosen[absent] = None
    values: list[Any] = chosen.tolist()
    return values


def _row(record: dict[str, Any], time_ms: int) -> Row:
    return Row(
        prediction_id=record["prediction_id"],
        time_ms=time_ms,
        features=record["features"],
        label=record["prediction"]["label"],
        score=record["prediction"]["score"],
        latency_ms=record["latency_ms"],
        tags=record["tags"],
    )


def _record(world: World, columns: Columns, row: int) -> dict[str, Any]:
    numeric = [None if value != value else value for value in columns.numeric[row].tolist()]  # noqa: PLR0124 - NaN
    features = dict(zip(NUMERIC, numeric, strict=True))
    features |= {name: values[row] for name, values in zip(CATEGORICAL, columns.categorical, strict=True)}
    at = datetime.fromtimestamp(int(columns.time_ms[row]) / 1000, tz=UTC)
    return {
        "prediction_id": columns.prediction_ids[row],
        "model_id": world.model_id,
        "model_version": world.model_version,
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "features": features,
        "prediction": {"label": columns.label[row], "score": float(columns.score[row])},
        "tags": {"country": columns.country[row]},
        "latency_ms": float(columns.latency_ms[row]),
        "schema_version": 1,
    }
