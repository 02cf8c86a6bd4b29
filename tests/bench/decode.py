"""Cost of decoding, per record and core, beside bare `orjson.loads` of the same records.

The record is that of the published figures: about 860 bytes, 16 numeric and 4 categorical features, one tag. Run:
`OMP_NUM_THREADS=1 python tests/bench/decode.py`. Prints microseconds per record, best of 20.
"""

import sys
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from stream.wire import inbound
from stream.wire.adapters.native import Guess
from stream.wire.features import FeatureDecoder, feature_decoder
from stream.wire.record import Batch

NUMERIC = [f"numeric_{number:02d}" for number in range(16)]
CATEGORICAL = [f"category_{number}" for number in range(4)]
COUNTRIES = ["AT", "CH", "DE", "ES", "FR", "IT", "NL", "PL"]
BATCHES = (1, 100, 1_000, 5_000, 50_000)
START_MS = 1_795_226_743_715
MINUTE_MS = 60_000


def record(rng: np.random.Generator, number: int, more: dict[str, Any]) -> bytes:
    features: dict[str, Any] = dict(zip(NUMERIC, rng.normal(size=len(NUMERIC)).tolist(), strict=True))
    features |= {name: f"value-{rng.integers(12)}" for name in CATEGORICAL}
    return orjson.dumps(
        {
            "prediction_id": f"p-{number:08x}",
            "model_id": "credit",
            "model_version": "3",
            "timestamp": f"2026-11-21T02:05:{number % 60:02d}.{number % 1000:03d}Z",
            "features": features | more,
            "prediction": {"label": "approve", "score": float(rng.random())},
            "tags": {"country": COUNTRIES[rng.integers(8)]},
            "latency_ms": float(rng.lognormal()),
        }
    )


def batch(rng: np.random.Generator, n: int, **more: Any) -> Batch:
    values: list[bytes | None] = [record(rng, number, more) for number in range(n)]
    return Batch("predictions", 0, list(range(n)), [START_MS] * n, [None] * n, values, [None] * n)


def whole(decoder: FeatureDecoder, given: Batch, *, guessing: bool) -> None:
    guess = None
    if guessing and (first := inbound.guess_of(given)) is not None:
        guess = Guess(first.model_id, first.model_version, decoder.shape_like(first.features))
    events = inbound.decode(given, inbound.Limits(), MINUTE_MS, guess=guess)
    decoder.decode(events.features, events.values)


def best_us(work: Callable[[], object], n: int) -> float:
    number = max(1, 5_000 // n)
    return min(timeit.repeat(work, number=number, repeat=20)) / number / n * 1e6


def line(name: str, given: Batch) -> str:
    n = len(given)
    decoder = feature_decoder(NUMERIC, CATEGORICAL, [])
    values = [value for value in given.values if value is not None]
    bare = best_us(lambda: [orjson.loads(value) for value in values], n)
    plain = best_us(lambda: whole(decoder, given, guessing=False), n)
    guessed = best_us(lambda: whole(decoder, given, guessing=True), n)
    return f"{name:>24} {bare:8.3f} {plain:8.3f} {guessed:8.3f} {bare / guessed:8.2f}\n"


def main() -> None:
    rng = np.random.default_rng(42)
    write = sys.stdout.write
    size = np.mean([len(value or b"") for value in batch(rng, 1_000).values])
    write(f"Microseconds per record of {size:.0f} bytes: envelope, features and columns\n")
    write(f"{'records in a batch':>24} {'orjson':>8} {'plain':>8} {'guessed':>8} {'ratio':>8}\n")
    for n in BATCHES:
        write(line(f"{n}", batch(rng, n)))
    write(line("5000, an unknown feature", batch(rng, 5_000, unknown=1)))
    write(line("5000, not ASCII", batch(rng, 5_000, category_0="größer")))
    write(line("5000, all invalid", batch(rng, 5_000, numeric_00="1")))


if __name__ == "__main__":
    main()
