"""The histogram e-detector: its clip, its recursion, its promise."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.detectors import Floats, Ints, Level, Reason
from stream.detectors import histogram as h

NORMAL = NormalDist()
EDGES = [NORMAL.inv_cdf(i / 16) for i in range(1, 16)]
UNIFORM = np.full(16, 1 / 16)
Z = np.array([NORMAL.inv_cdf((i + 0.5) / 16) for i in range(16)])
LN_A = np.log(1e6)


def moved(mean: float, spread: float = 1.0) -> Floats:
    """Probabilities of 16 bins, equal under N(0, 1), under another normal law."""
    cdf = [0.0, *(NormalDist(mean, spread).cdf(e) for e in EDGES), 1.0]
    return np.diff(np.array(cdf))


def law_of(series: int, epsilon: float = 0.02, p: Floats = UNIFORM) -> h.Law:
    return h.law(np.tile(p, (series, 1)), np.full(series, epsilon), z=np.tile(Z, (series, 1)))


def window(counts: Ints, law: h.Law, ln_a: float = LN_A, phi: float = 1.0) -> h.Window:
    r = len(counts)
    return h.Window(counts, law, np.full(r, phi), np.full(r, ln_a), np.zeros(r, np.int8))


def delays(after: Floats, n: int, epsilon: float, series: int = 200, most: int = 400, ln_a: float = LN_A) -> Floats:
    """Windows until the alarm after 20 quiet ones, per series."""
    rng = np.random.default_rng(7)
    law, settings_ = law_of(series, epsilon), h.Settings()
    state = h.start(series, 16, 20)
    for _ in range(20):
        state, _ = h.update(state, settings_, window(rng.multinomial(n, UNIFORM, series), law, ln_a))
    found = np.full(series, np.nan)
    for t in range(most):
        state, verdicts = h.update(state, settings_, window(rng.multinomial(n, after, series), law, ln_a))
        found[np.isnan(found) & (verdicts.level == Level.DRIFT)] = t + 1
        if not np.isnan(found).any():
            break
    return found


laws = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4).map(lambda x: np.array(x) / np.sum(x))


@settings(max_examples=200, deadline=None)
@given(laws, laws, st.floats(0.0, 0.5), st.integers(0, 2**32 - 1))
def test_no_law_in_the_ball_gains_by_a_clipped_ratio(q: Floats, p: Floats, epsilon: float, seed: int) -> None:
    ln_r, bets = h.clip(q, p, np.asarray(epsilon))
    r = np.exp(ln_r)
    assert (p * r).sum() + epsilon * (r.max() - r.min()) <= 1 + 1e-12
    if not bets:
        assert (r == 1).all()
    other = np.random.default_rng(seed).dirichlet(np.full(4, 0.3))
    distance = 0.5 * np.abs(other - p).sum()
    inside = p + (other - p) * min(1.0, epsilon / distance if distance else 1.0)
    assert (inside * r).sum() <= 1 + 1e-12


def test_a_clip_solves_both_equations_of_huber() -> None:
    rng = np.random.default_rng(1)
    q, p = rng.dirichlet(np.ones(16), 2_000), rng.dirichlet(np.ones(16), 2_000)
    epsilon = rng.uniform(0, 0.2, 2_000)
    ln_r, bets = h.clip(q, p, epsilon)
    r = np.exp(ln_r[bets])
    high, low = r.max(-1, keepdims=True), r.min(-1, keepdims=True)
    above = np.maximum(q[bets] / high - p[bets], 0).sum(-1)
    below = np.maximum(p[bets] - q[bets] / low, 0).sum(-1)
    np.testing.assert_allclose(above, epsilon[bets], atol=1e-12)
    np.testing.assert_allclose(below, epsilon[bets], atol=1e-12)


def test_without_tolerance_the_clip_is_the_likelihood_ratio() -> None:
    q, p = moved(0.3), UNIFORM
    ln_r, _ = h.clip(q, p, np.asarray(0.0))
    np.testing.assert_allclose(ln_r, np.log(q / p), atol=1e-12)


def test_scores_of_padding_bins_are_not_looked_at() -> None:
    p = np.array([[0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]])
    law = h.law(p, np.full(2, 0.02), z=np.array([[-1.0, 0.2, 1.0, np.nan], [np.nan] * 4]))
    assert np.isfinite(law.ln_r).all()
    assert not law.bets[1].any()


def test_padding_bins_change_nothing() -> None:
    p = moved(0.2)[:5] / moved(0.2)[:5].sum()
    wide = np.concatenate([p, np.zeros(11)])
    rng = np.random.default_rng(2)
    narrow_law = h.law(p[None], np.array([0.02]))
    wide_law = h.law(wide[None], np.array([0.02]))
    narrow, padded = h.start(1, 5, 12), h.start(1, 16, 12)
    for _ in range(30):
        counts = rng.multinomial(200, np.roll(p, 1))[None]
        narrow, _ = h.update(narrow, h.Settings(), window(counts, narrow_law))
        padded, _ = h.update(padded, h.Settings(), window(np.pad(counts, ((0, 0), (0, 11))), wide_law))
    np.testing.assert_allclose(narrow.ln_m, padded.ln_m, rtol=1e-9)


@pytest.mark.parametrize(
    ("after", "n", "epsilon", "published"),
    [
        (moved(0.25), 50, 0.02, 19),
        (moved(0.25), 500, 0.02, 3),
        (moved(0.25), 50, 0.0, 11),
        (moved(0.5), 50, 0.02, 5),
        (moved(1.0), 50, 0.02, 2),
        (moved(0.1), 500, 0.02, 34),
        (moved(0.0, 1.25), 50, 0.02, 15),
    ],
)
def test_a_change_is_found_as_fast_as_published(after: Floats, n: int, epsilon: float, published: int) -> None:
    assert np.median(delays(after, n, epsilon)) <= 1.5 * published + 1


def test_one_window_alone_is_no_drift() -> None:
    assert np.nanmin(delays(moved(2.0), 50_000, 0.02, most=5)) == 2


@pytest.mark.parametrize(("n", "epsilon"), [(5, 0.0), (50, 0.0), (50, 0.02)])
def test_false_alarms_stay_within_the_budget(n: int, epsilon: float) -> None:
    rng = np.random.default_rng(3)
    series, windows, ln_a = 500, 120, np.log(1000)
    law, state, alarms = law_of(series, epsilon), h.start(series, 16, 20), 0
    for _ in range(windows):
        state, verdicts = h.update(state, h.Settings(), window(rng.multinomial(n, UNIFORM, series), law, ln_a))
        fired = verdicts.level == Level.DRIFT
        alarms += int(fired.sum())
        state = h.reset(state, fired)
    allowed = series * windows / 1000
    assert alarms <= allowed


def test_a_silent_stream_gathers_no_evidence() -> None:
    law, state = law_of(1), h.start(1, 16, 20)
    for _ in range(100):
        state, verdicts = h.update(state, h.Settings(), window(np.zeros((1, 16), np.int64), law))
        assert verdicts.reason[0] == Reason.EMPTY
    assert np.isneginf(h.ln_evidence(state)).all()


def test_the_open_form_notices_the_return() -> None:
    rng = np.random.default_rng(4)
    after = moved(0.5)
    law = h.law(after[None], np.array([0.05]), z=Z[None], home=UNIFORM[None])
    state = h.start(1, 16, len(law.weights))
    for _ in range(50):
        state, verdicts = h.update(state, h.Settings(), window(rng.multinomial(500, after)[None], law))
        assert verdicts.level[0] != Level.DRIFT
    for _ in range(3):
        state, verdicts = h.update(state, h.Settings(), window(rng.multinomial(500, UNIFORM)[None], law))
        if verdicts.level[0] == Level.DRIFT:
            break
    assert verdicts.level[0] == Level.DRIFT


def by_hand(p: list[float], mean: list[float], z: list[float], epsilon: float, stream: list[list[int]]) -> list[float]:
    """The recursion of 5.3, with the bets on humps, one number at a time, with overdispersion 1 + n/1000."""
    size, bins = 20, range(len(p))
    weights = [1 / 17] * 16 + [1 / 68] * 4
    ln_m, faded, hoped = [-math.inf] * size, [[0.0] * len(p) for _ in range(4)], [[0.0] * len(p) for _ in range(4)]
    n_prev, phi_prev = 0, 1.0
    for c in stream:
        n = sum(c)
        phi = 1 + n / 1000
        lean = [len(p) * x for x in mean]
        laws = [[p[b] * (lean[b] + x[b]) / (lean[b] + y[b]) for b in bins] for x, y in zip(faded, hoped, strict=True)]
        laws += [
            [p[b] * math.exp(max(-8, min(8, s * theta * z[b] ** power))) for b in bins]
            for power in (1, 2)
            for theta in (0.1, 0.3, 0.8)
            for s in (1, -1)
        ]
        laws += [
            [p[b] * math.exp(s * theta * math.cos(math.pi * z[b])) for b in bins]
            for theta in (0.3, 0.8)
            for s in (1, -1)
        ]
        for k, raw in enumerate(laws):
            q = [x / sum(raw) for x in raw]
            idle = 0.5 * sum(abs(q[b] - p[b]) for b in bins) <= epsilon
            r = [1.0] * len(p) if idle else clip_by_hand(q, p, epsilon)
            pay = 0.0 if idle or n_prev < 1 else weights[k] / phi_prev
            gain = min(sum(c[b] * math.log(r[b]) for b in bins) / phi, (LN_A - math.log(weights[k] / phi_prev)) / 2)
            wealth = math.exp(ln_m[k]) + pay
            ln_m[k] = math.log(wealth) + gain if wealth > 0 else -math.inf
        for k, horizon in enumerate((1, 4, 16, 64)):
            faded[k] = [(1 - 1 / horizon) * x + y for x, y in zip(faded[k], c, strict=True)]
            hoped[k] = [(1 - 1 / horizon) * x + n * y for x, y in zip(hoped[k], p, strict=True)]
        n_prev, phi_prev = n, phi
    return ln_m


def clip_by_hand(q: list[float], p: list[float], epsilon: float) -> list[float]:
    order = sorted(range(len(p)), key=lambda b: q[b] / p[b], reverse=True)
    high = max(sum(q[b] for b in order[:j]) / (sum(p[b] for b in order[:j]) + epsilon) for j in range(1, len(p) + 1))
    low = min(
        sum(q[b] for b in order[j:]) / (sum(p[b] for b in order[j:]) - epsilon)
        for j in range(len(p))
        if sum(p[b] for b in order[j:]) > epsilon
    )
    return [min(max(q[b] / p[b], low), high) for b in range(len(p))]


@pytest.mark.parametrize("seed", range(5))
def test_it_computes_what_the_page_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, mean, z = rng.dirichlet(np.full(8, 5.0)), rng.dirichlet(np.full(8, 5.0)), np.sort(rng.standard_normal(8))
    true = rng.dirichlet(np.full(8, 50.0))
    stream = [rng.multinomial(rng.integers(0, 60), true) for _ in range(25)]
    law = h.law(p[None], np.array([0.03]), z=z[None], p_mean=mean[None])
    state = h.start(1, 8, 20)
    for c in stream:
        state, _ = h.update(state, h.Settings(), window(c[None], law, phi=1 + c.sum() / 1000))
    expected = by_hand(p.tolist(), mean.tolist(), z.tolist(), 0.03, [c.tolist() for c in stream])
    np.testing.assert_allclose(state.ln_m[0], expected, rtol=1e-9, atol=1e-9)
