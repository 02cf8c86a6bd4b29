"""Streams that others published, and windows made of single events."""

from collections.abc import Iterator

import numpy as np

from stream.detectors import Bools, Floats, Sums

_MASK = 2**48 - 1


def java_random(seed: int) -> Iterator[float]:
    """`nextDouble` of java.util.Random, for ever."""
    x = (seed ^ 0x5DEECE66D) & _MASK
    while True:
        x = (x * 0x5DEECE66D + 0xB) & _MASK
        high = x >> 22
        x = (x * 0x5DEECE66D + 0xB) & _MASK
        yield ((high << 27) + (x >> 21)) * 2.0**-53


def bits(seed: int, probabilities: Floats) -> Floats:
    """The MOA stream: bit i is [nextDouble <= p_i]."""
    draws = np.fromiter(java_random(seed), np.float64, len(probabilities))
    return (draws <= probabilities).astype(np.float64)


def abrupt() -> Floats:
    i = np.arange(1, 10_001)
    return np.where(i % 2000 < 1000, 0.2, 0.8)


def gradual() -> Floats:
    i = np.arange(1, 10_001)
    return np.where(i < 2000, 0.2, np.minimum(1.0, 0.2 + 0.001 * (i - 2000)))


def single(values: Floats, t: int = 0, ln_threshold: float = 13.8, testing: Bools | None = None) -> Sums:
    """A window with one event per series."""
    return whole(np.ones(len(values)), values, np.zeros(len(values)), t, ln_threshold, testing)


def whole(
    n: Floats, s: Floats, m2: Floats, t: int = 0, ln_threshold: float = 13.8, testing: Bools | None = None
) -> Sums:
    """Window t (a minute each) of R series without overdispersion."""
    r = len(n)
    return Sums(
        start_ms=t * 60_000,
        n=np.asarray(n, np.float64),
        s=s,
        m2=m2,
        phi=np.ones(r),
        ln_threshold=np.full(r, ln_threshold),
        reason=np.zeros(r, np.int8),
        testing=np.ones(r, np.bool_) if testing is None else testing,
    )


def scored(alarms: list[list[int]], labels: list[int]) -> tuple[int, int, float]:
    """TP, FP and mean delay: the first alarm after a label and before the next is its own, every other is false."""
    delays = []
    for run in alarms:
        for label, following in zip(labels, [*labels[1:], 10**9], strict=True):
            own = [a for a in run if label <= a < following]
            delays += [own[0] - label] if own else []
    return len(delays), sum(map(len, alarms)) - len(delays), float(np.mean(delays))
