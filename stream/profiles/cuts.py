"""How the world of one model version is cut: the first phase of every reference, trained or learned.

The *sample*, the rows of smallest id hash, decides types of features, bin edges, categories, centre and scale, tails,
segment values, the normal scores and the covariance of the row (`statistics.md` 2.1 to 2.8, 11). All other rows are
then counted against these cuts (`profiles.learning`): no row is in both phases, so that given the cuts the counts are
multinomial.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from stream.profiles import reference as tables_of
from stream.signals import extract
from stream.signals.extract import DISTANCE, FEATURE, LABEL, LATENCY, SCORE, VALUE, Columns
from stream.signals.outliers import HIGHEST, LOWEST
from stream.wire.codec import hash64, named, rfc3339
from stream.wire.features import values_of
from stream.wire.inbound import Events
from stream.wire.internal import Origin, Reference, RowReference, SignalReference, SignalType
from stream.wire.lenient import INVALID, Text, category, is_name, label, number

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

FINE_BINS: Final = 64
FEW_BINS: Final = 16
"""Fine bins of a small sample."""
ROWS_FOR_FINE: Final = 640
"""Sample rows that 64 bins need: ten in each."""
ROWS_MIN: Final = 160
"""Sample rows without which there is no reference: ten in each of 16 bins."""
CATEGORIES_MAX: Final = 255
"""Categories with a bin of their own."""
OTHERS_MAX: Final = 65_536
"""Categories known by hash that share one bin: half a megabyte."""
DISTANCE_SIGNALS_MAX: Final = 128
"""Signals in the distance of a row: up to here its integer arithmetic is exact in float64."""
SHRINKAGE_MIN: Final = 0.02
"""Weight of the identity in the covariance at least: two equal columns then still have a distance."""
TAIL_DISTINCT_MIN: Final = 20
"""Different exceedances below which no shape is fitted to a tail."""
SHAPE_MAX: Final = 0.5
"""Heaviest tail index: beyond it the variance does not exist and the fit is noise."""

_LARGEST: Final = float(np.finfo(np.float64).max)
_SQUARABLE: Final = 1e150
"""Squares of larger numbers overflow."""
_QUARTILES_PER_SIGMA: Final = 1.349


class Row(Struct, frozen=True):
    """One prediction, as training rows and samples hold it; absent is None; `INVALID` or a list is of a wrong type."""

    prediction_id: str
    time_ms: int
    features: Mapping[str, Any]
    """Name to number, text, boolean or None; anything else is invalid."""
    label: Any = None
    score: Any = None
    value: Any = None
    latency_ms: Any = None
    tags: Mapping[str, Any] | None = None


class Declared(Struct, frozen=True):
    """What the owner of a model says of it."""

    segments: Sequence[str] = ()
    """Tag keys that make segments."""
    types: Mapping[str, SignalType] = field(default_factory=dict)
    """Features whose type is declared; others are inferred."""
    unwatched: frozenset[str] = frozenset()
    """Features to leave out."""
    features_max: int = 5_000
    """`limits.features`: of more, those of smallest name hash are watched."""
    segment_values_max: int = 50
    """`limits.segment_values` per key: the most frequent ones; the rest is `other`."""


class Plan(Struct, frozen=True):
    """Whose reference it is to be."""

    model_id: str
    model_version: str
    window_size_ms: int
    declared: Declared = field(default_factory=Declared)


class Schema(Struct, frozen=True):
    """Which features a reference watches, each list sorted: the order of `extract.Columns`."""

    numeric: list[str]
    categorical: list[str]
    boolean: list[str]


def infer_schema(rows: Sequence[Row], declared: Declared) -> Schema:
    """Types of all features with at least one value in the rows.

    A declared type wins. Else a feature is boolean or numeric if at least half of its values are, else categorical.
    """
    seen: dict[str, Counter[SignalType]] = {}
    for row in rows:
        for name, value in row.features.items():
            if (kind := _kind(value)) is not None:
                seen.setdefault(name, Counter())[kind] += 1
    watched = sorted((name for name in seen if name not in declared.unwatched), key=hash64)[: declared.features_max]
    kinds = {name: declared.types.get(name) or _majority(seen[name]) for name in watched}
    return Schema(
        *(
            sorted((name for name, kind in kinds.items() if kind == wanted), key=_signal_order)
            for wanted in ("numeric", "categorical", "boolean")
        )
    )


def columns_of(rows: Sequence[Row], schema: Schema) -> Columns:
    """The rows as columns for `extract.rows`: what is of a wrong type is invalid, never coerced.

    Values mean what they mean in a record (`wire.lenient`). About 5 us per row of 20 features.
    """
    numeric = [_numbers([row.features.get(name) for row in rows]) for name in schema.numeric]
    boolean = [_codes([row.features.get(name) for row in rows]) for name in schema.boolean]
    score, value, latency = (
        _numbers(values)
        for values in (
            [row.score for row in rows],
            [row.value for row in rows],
            [row.latency_ms for row in rows],
        )
    )
    n = len(rows)
    return Columns(
        numeric=np.stack([values for values, _ in numeric], axis=1) if numeric else np.zeros((n, 0)),
        numeric_invalid=np.stack([mask for _, mask in numeric], axis=1)
        if numeric
        else np.zeros((n, 0), dtype=np.bool_),
        categorical=[[text_of(row.features.get(name)) for row in rows] for name in schema.categorical],
        boolean=np.stack(boolean, axis=1) if boolean else np.zeros((n, 0), dtype=np.int8),
        score=score[0],
        score_invalid=score[1],
        value=value[0],
        value_invalid=value[1],
        latency=latency[0],
        latency_invalid=latency[1],
        label=[label(row.label) for row in rows],
        tags=[None if row.tags is None else dict(row.tags) for row in rows],
        prediction_ids=[row.prediction_id for row in rows],
        time_ms=np.array([row.time_ms for row in rows], dtype=np.int64),
        offsets=np.arange(n, dtype=np.int64),
    )


def provisional(  # noqa: PLR0913 - a sample, what is known of it, and three ways to be told more
    columns: Columns,
    schema: Schema,
    plan: Plan,
    *,
    effective_from_ms: int,
    origin: Origin = "learned",
    also_known: Mapping[str, Iterable[str]] | None = None,
    segments: Mapping[str, list[str]] | None = None,
) -> Reference:
    """The reference of the first phase (`complete` is False), named by its content: cuts and counts of the sample.

    `also_known` names categories met outside the sample, by signal; they join the bin `other`. `segments` replaces the
    values of the sample. Raises `ValueError` with fewer than 160 rows, or when nothing in them has a value.
    """
    if len(columns) < ROWS_MIN:
        raise ValueError(f"a reference needs {ROWS_MIN} sample rows, not {len(columns)}")
    signals = _signals(columns, schema, also_known or {})
    if not signals:
        raise ValueError("no feature, score, label or latency has a value")
    cut = Reference(
        reference_id="",
        model_id=plan.model_id,
        model_version=plan.model_version,
        scope="inputs",
        origin=origin,
        complete=False,
        inherited_from=None,
        n_rows=len(columns),
        data_from=rfc3339(int(columns.time_ms.min())),
        data_to=rfc3339(int(columns.time_ms.max())),
        effective_from=rfc3339(effective_from_ms),
        segments=segment_values(columns.tags, plan.declared) if segments is None else dict(segments),
        window_size_ms=plan.window_size_ms,
        window_rows=None,
        signals=dict(sorted(signals.items(), key=lambda item: _signal_order(item[0]))),
        row=None,
        slots=None,
    )
    return named(_with_distance(cut, columns))


def edges(values: Floats, bins: int) -> Floats:
    """Upper borders of all bins but the last, rising: the quantiles of the sample, a bin of its own for a heavy value.

    The i-th of `bins - 1` borders is the value of rank ceil(i k/bins); one that occurs at least twice among them gets
    its float64 predecessor as a border too (`statistics.md` 2.1). `values` [k >= 1] are finite.
    """
    ordered = np.sort(values + 0.0)
    ranks = -(-np.arange(1, bins) * len(ordered) // bins)
    borders, repeats = np.unique(ordered[ranks - 1], return_counts=True)
    atoms = borders[repeats > 1]
    with np.errstate(over="ignore"):
        before = np.nextafter(atoms, -np.inf)
    found = np.unique(np.concatenate([borders, before]))
    return np.asarray(found[np.isfinite(found)])


def tail(exceedances: Floats, scale: float, bins: int) -> Floats:
    """How far beyond its outer edge a value lies with probability 10^(-s/2)/2, for s = 4 .. 24: [21], rising.

    A generalised Pareto law fitted to the exceedances by probability-weighted moments (Hosking & Wallis 1987); beyond
    the edge lies 1/bins of the mass.
    """
    y = np.sort(exceedances)
    shape, spread = 0.0, float(max(y.mean() if len(y) else 0.0, scale))
    if len(np.unique(y)) >= TAIL_DISTINCT_MIN:
        weights = np.arange(len(y) - 1, -1, -1) / (len(y) - 1)
        a0, a1 = float(y.mean()), float((weights * y).mean())
        fitted = 2 - a0 / (a0 - 2 * a1)
        shape = min(max(fitted, 0.0), SHAPE_MAX)
        spread = 2 * a0 * a1 / (a0 - 2 * a1) if shape == fitted else a0 * (1 - shape)
    rare = bins * 10.0 ** (-np.arange(LOWEST, HIGHEST + 1) / 2) / 2
    return np.asarray(spread * (-np.log(rare) if shape == 0 else (rare**-shape - 1) / shape))


def shrunk_covariance(z: Floats) -> tuple[Floats, Floats, float]:
    """Mean [d], covariance [d, d] drawn to the identity, and by how much, of rows z [k, d] (Ledoit & Wolf 2004).

    `(1 - l) S + l I` with l = min(1, max(.02, sum |(z - mean)(z - mean)' - S|^2 / k^2 / |S - I|^2)).
    """
    k, d = z.shape
    mean = z.mean(axis=0)
    centred = z - mean
    covariance = centred.T @ centred / k
    noise = float(((centred**2).sum(axis=1) ** 2).sum() - k * (covariance**2).sum()) / k**2
    distance = float(((covariance - np.eye(d)) ** 2).sum())
    weight = min(1.0, max(SHRINKAGE_MIN, noise / distance)) if distance > 0 else 1.0
    return mean, (1 - weight) * covariance + weight * np.eye(d), weight


def text_of(value: object) -> Text:
    """A category as text, None for missing, `INVALID` for what is none, such as NaN."""
    return INVALID if isinstance(value, float) and not math.isfinite(value) else category(value)


def row_of(events: Events, place: int) -> Row:
    """One event as a row; what is invalid stays invalid."""

    def measured(values: Floats, invalid: Mask) -> object:
        return INVALID if invalid[place] else None if math.isnan(values[place]) else float(values[place])

    return Row(
        prediction_id=events.prediction_ids[place],
        time_ms=int(events.time_ms[place]),
        features=values_of(events.features[place], events.values[place]),
        label=events.label[place],
        score=measured(events.score, events.score_invalid),
        value=measured(events.value, events.value_invalid),
        latency_ms=measured(events.latency, events.latency_invalid),
        tags=events.tags[place] or None,
    )


def encode_row(row: Row) -> bytes:
    """The canonical bytes of a row, keys sorted; what JSON cannot hold becomes a list, which is invalid too."""
    return _ROW_ENCODER.encode(_plain(msgspec.structs.asdict(row)))


def decode_row(data: bytes) -> Row:
    """The row of `encode_row`. Raises `msgspec.DecodeError` on other bytes."""
    return msgspec.json.decode(data, type=Row)


_ROW_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_SCALARS: Final = (str, bool)
"""A tuple is looked through in half the time of a union, and rows have many values."""
_INTEGERS: Final = (-(2**63), 2**64 - 1)
"""What JSON readers take for an integer; beyond it they read a float."""


def _plain(value: object) -> object:
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else []
    if isinstance(value, int):
        return value if _INTEGERS[0] <= value <= _INTEGERS[1] else _plain(number(value))
    return {str(key): _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else []


def _kind(value: object) -> SignalType | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "categorical"
    return "numeric" if isinstance(value, int | float) and math.isfinite(value) else None


def _majority(seen: Counter[SignalType]) -> SignalType:
    total = seen.total()
    for kind in ("boolean", "numeric"):
        if 2 * seen[kind] >= total:
            return kind
    return "categorical"


def _numbers(values: Sequence[object]) -> tuple[Floats, Mask]:
    """Values with NaN for missing and invalid, and the mask of the invalid."""
    numbers = [number(value) for value in values]
    found = np.array([math.nan if one is None or one is INVALID else one for one in numbers], dtype=np.float64)
    missing = np.array([one is None for one in numbers], dtype=np.bool_)
    invalid = ~np.isfinite(found) & ~missing
    found[invalid] = np.nan
    return found, invalid


def _codes(values: list[Any]) -> np.ndarray[Any, np.dtype[np.int8]]:
    codes = [int(value) if isinstance(value, bool) else 2 if value is None else 3 for value in values]
    return np.array(codes, dtype=np.int8)


def _signal_order(name: str) -> bytes:
    """The order of canonical JSON, so that a reference reads its signals back in the order it was made with."""
    return name.encode("utf-16-be", "surrogatepass")


def _signals(columns: Columns, schema: Schema, also_known: Mapping[str, Iterable[str]]) -> dict[str, SignalReference]:
    """All signals but the distance, without counts of segments."""
    signals: dict[str, SignalReference] = {}
    for index, name in enumerate(schema.numeric):
        _put_numeric(signals, FEATURE + name, columns.numeric[:, index], columns.numeric_invalid[:, index])
    for name, values, invalid in (
        (SCORE, columns.score, columns.score_invalid),
        (VALUE, columns.value, columns.value_invalid),
        (LATENCY, columns.latency, columns.latency_invalid),
    ):
        _put_numeric(signals, name, values, invalid)
    for name, texts in zip((FEATURE + own for own in schema.categorical), columns.categorical, strict=True):
        _put_categorical(signals, name, texts, also_known.get(name, ()))
    _put_categorical(signals, LABEL, columns.label, also_known.get(LABEL, ()))
    for index, name in enumerate(schema.boolean):
        false, true, missing, invalid = np.bincount(columns.boolean[:, index], minlength=4).tolist()
        signals[FEATURE + name] = SignalReference("boolean", [false, true], missing, invalid)
    return signals


def _put_numeric(signals: dict[str, SignalReference], name: str, values: Floats, invalid: Mask) -> None:
    """A numeric signal, unless the sample has no value of it."""
    valid = values[~np.isnan(values)]
    if not len(valid):
        return
    borders = edges(valid, FINE_BINS if len(valid) >= ROWS_FOR_FINE else FEW_BINS)
    counts = np.bincount(np.searchsorted(borders, valid), minlength=len(borders) + 1)
    missing = len(values) - len(valid) - int(invalid.sum())
    centre, scale = _centre_and_scale(valid)
    mean, std = _mean_and_std(valid)
    low, high = _tails(valid, borders, scale)
    signals[name] = SignalReference(
        type="numeric",
        counts=counts.tolist(),
        missing=missing,
        invalid=int(invalid.sum()),
        edges=borders.tolist(),
        mean=mean,
        std=std,
        centre=centre,
        scale=scale,
        low=low.tolist(),
        high=high.tolist(),
    )


def _put_categorical(
    signals: dict[str, SignalReference], name: str, texts: Sequence[Any], also_known: Iterable[str]
) -> None:
    """A categorical signal, unless the sample has no value of it."""
    seen = Counter(texts)
    missing, invalid = seen.pop(None, 0), seen.pop(INVALID, 0)
    if not seen:
        return
    ranked = sorted(seen, key=lambda text: (-seen[text], text.encode("utf-8", "surrogatepass")))
    own, rest = ranked[:CATEGORIES_MAX], ranked[CATEGORIES_MAX:]
    others = sorted({hash64(text) for text in {*rest, *also_known} - set(own)})[:OTHERS_MAX]
    signals[name] = SignalReference(
        type="categorical",
        counts=[seen[text] for text in own] + ([sum(seen[text] for text in rest)] if others else []),
        missing=missing,
        invalid=invalid,
        categories=own,
        others=others,
        singletons=sum(count == 1 for count in seen.values()),
    )


def _centre_and_scale(valid: Floats) -> tuple[float, float]:
    """Median, and the standard deviation a normal law with this interquartile range has."""
    lower, centre, upper = (float(quantile) for quantile in np.quantile(valid, (0.25, 0.5, 0.75), method="lower"))
    _, std = _mean_and_std(valid)
    scale = upper / _QUARTILES_PER_SIGMA - lower / _QUARTILES_PER_SIGMA
    for found in (scale, std):
        if 0 < found < math.inf:
            return centre, found
    return centre, 1.0


def _mean_and_std(valid: Floats) -> tuple[float, float]:
    """Mean and standard deviation, cut off at the largest float."""
    largest = float(np.abs(valid).max())
    unit = largest if largest > _SQUARABLE else 1.0
    mean, std = float((valid / unit).mean()) * unit, float((valid / unit).std()) * unit
    return max(-_LARGEST, min(mean, _LARGEST)), min(std, _LARGEST)


def _tails(valid: Floats, borders: Floats, scale: float) -> tuple[Floats, Floats]:
    """Limits below and above which a value is as rare as 10^(-s/2), s = 4 .. 24."""
    bins = FINE_BINS if len(valid) >= ROWS_FOR_FINE else FEW_BINS
    with np.errstate(over="ignore"):
        below, above = borders[0] - valid[valid < borders[0]], valid[valid > borders[-1]] - borders[-1]
        low = borders[0] - tail(np.minimum(below, _LARGEST), scale, bins)
        high = borders[-1] + tail(np.minimum(above, _LARGEST), scale, bins)
    return np.maximum(low, -_LARGEST), np.minimum(high, _LARGEST)


def segment_values(tags: Iterable[Mapping[str, Any] | None], declared: Declared) -> dict[str, list[str]]:
    """The most frequent values of each declared tag key, sorted."""
    seen: dict[str, Counter[str]] = {key: Counter() for key in sorted(declared.segments)}
    for one in tags:
        for key, counter in seen.items():
            if isinstance(text := text_of((one or {}).get(key)), str) and is_name(text):
                counter[text] += 1
    return {
        key: sorted(sorted(counter, key=lambda text: (-counter[text], text))[: declared.segment_values_max])
        for key, counter in seen.items()
    }


def _with_distance(cut: Reference, columns: Columns) -> Reference:
    """The reference with normal scores, the law of the row, and the distance as one more numeric signal."""
    in_row = [
        name for name in cut.signals if cut.signals[name].type == "boolean" or name == SCORE or _is_number(cut, name)
    ]
    names = in_row[:DISTANCE_SIGNALS_MAX]
    signals = dict(cut.signals)
    for name in in_row:
        counts = np.array(signals[name].counts)
        z = tables_of.normal_scores(tables_of.mid_cdf(tables_of.law(counts)))
        signals[name] = replace(signals[name], z=_fixed(z, extract.Z_BITS))
    if not names:
        return replace(cut, signals=signals)
    scored = replace(cut, signals=signals)
    z = _scores_of(scored, names, columns)
    mean, covariance, _ = shrunk_covariance(z.T * 2.0**-extract.Z_BITS)
    factor = np.linalg.cholesky(np.linalg.inv(covariance))
    row = RowReference(
        names=names,
        mean=_fixed(mean, extract.Z_BITS),
        factor=[_fixed(line, extract.FACTOR_BITS) for line in factor],
    )
    distances = extract.distances(z, *extract.row_integers(row))
    _put_numeric(signals, DISTANCE, distances, np.zeros(len(distances), dtype=np.bool_))
    signals[DISTANCE] = replace(signals[DISTANCE], low=[])
    ordered = dict(sorted(signals.items(), key=lambda item: _signal_order(item[0])))
    return replace(cut, signals=ordered, row=row)


def _is_number(cut: Reference, name: str) -> bool:
    return name.startswith(FEATURE) and cut.signals[name].type == "numeric"


def _scores_of(scored: Reference, names: list[str], columns: Columns) -> Floats:
    """[d, n] normal scores of the rows in units of 2^-10, 0 for missing and invalid."""
    layout = extract.compile_layout(scored)
    cells = extract.rows(layout, columns).cells
    by_column = np.zeros(layout.columns)
    places = {name: index for index, name in enumerate(layout.names)}
    for name in names:
        by_column[tables_of.valid(layout, places[name])] = scored.signals[name].z
    return by_column.take(cells.take([places[name] for name in names], axis=0))


def _fixed(values: Floats, bits: int) -> list[int]:
    fixed: list[int] = np.rint(values * 2.0**bits).astype(np.int64).tolist()
    return fixed
