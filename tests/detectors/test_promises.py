"""What the histogram e-detector promises of its delay, from the divergence of the new law; small, seeded, at A = 10^6.

`drift evaluate` asks the same of the whole product.
"""

from statistics import NormalDist

import numpy as np
import pytest

from stream.detectors import Floats, Level, histogram
from stream.profiles.reference import epsilon_ref

NORMAL = NormalDist()
EDGES = [NORMAL.inv_cdf(i / 16) for i in range(1, 16)]
P = np.full(16, 1 / 16)
Z = np.array([NORMAL.inv_cdf((i + 0.5) / 16) for i in range(16)])
LN_A = float(np.log(1e6))
QUIET = 20
SERIES = 100


def binned(*parts: tuple[float, float, float]) -> Floats:
    """Bins of a mixture of normal laws: (weight, mean, sd)."""
    laws = [w * np.diff([0.0, *(NormalDist(m, s).cdf(e) for e in EDGES), 1.0]) for w, m, s in parts]
    return np.asarray(np.sum(laws, axis=0))


BIMODAL = binned((0.5, -0.9, 0.19**0.5), (0.5, 0.9, 0.19**0.5))


def delays(p: Floats, q: Floats, n: int, epsilon: float, most: int) -> Floats:
    """Windows to the alarm per series, one more than `most` where there is none."""
    rng, ordered = np.random.default_rng(11), len(p) == len(Z)
    z = np.tile(Z, (SERIES, 1)) if ordered else None
    law = histogram.law(np.tile(p, (SERIES, 1)), np.full(SERIES, epsilon), z=z)
    state, found = histogram.start(SERIES, len(p), len(law.weights)), np.full(SERIES, most + 1.0)
    for t in range(-QUIET, most):
        counts = rng.multinomial(n, p if t < 0 else q, SERIES)
        ones, ln_a, code = np.ones(SERIES), np.full(SERIES, LN_A), np.zeros(SERIES, np.int8)
        state, verdicts = histogram.update(state, histogram.Settings(), histogram.Window(counts, law, ones, ln_a, code))
        found = np.where((verdicts.level == Level.DRIFT) & (found > most), t + 1, found)
        if (found <= most).all():
            break
    return found


def promised(p: Floats, q: Floats, n: int, epsilon: float) -> float:
    ln_r, _ = histogram.clip(q[None], p[None], np.array([epsilon]))
    return 1.25 * LN_A / (n * float((q * ln_r[0]).sum())) + 2


@pytest.mark.parametrize("n", [50, 500])
@pytest.mark.parametrize("epsilon", [0.0, 0.02])
@pytest.mark.parametrize(
    ("p", "q"),
    [
        (P, binned((1, 0.25, 1))),
        (P, binned((1, 0.5, 1))),
        (P, binned((1, 1, 1))),
        (P, binned((1, 0, 1.25))),
        (P, binned((1, 0, 4))),
    ],
    ids=["+.25", "+.5", "+1", "spread x 1.25", "spread x 4"],
)
def test_half_of_the_changes_are_found_within_the_promise(p: Floats, q: Floats, n: int, epsilon: float) -> None:
    limit = promised(p, q, n, epsilon)
    found = delays(p, q, n, epsilon, int(1.5 * limit) + 2)
    assert np.median(found) <= limit
    assert found.min() > 1


@pytest.mark.parametrize("n", [50, 500])
@pytest.mark.parametrize("epsilon", [0.0, 0.02])
@pytest.mark.parametrize(
    ("p", "q"), [(P, BIMODAL), (np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3]))], ids=["two humps", "shares"]
)
def test_a_law_that_no_fixed_bet_knows_takes_up_to_two_windows_more(
    p: Floats, q: Floats, n: int, epsilon: float
) -> None:
    """Short of the promise: the new law has to be learned before anyone can bet on it."""
    limit = promised(p, q, n, epsilon) + 2
    found = delays(p, q, n, epsilon, int(1.5 * limit) + 2)
    assert np.median(found) <= limit
    assert found.min() > 1


@pytest.mark.parametrize("n", [200, 1_000])
@pytest.mark.parametrize(("q", "windows"), [(binned((1, 0, 2)), 2), (BIMODAL, 3)], ids=["variance x 4", "two humps"])
def test_changes_to_which_a_mean_is_blind_are_found_at_once(q: Floats, windows: int, n: int) -> None:
    """Two humps take one window to learn, and two to be believed."""
    assert np.median(delays(P, q, n, 0.02, 8)) <= windows


@pytest.mark.parametrize("n", [50, 500, 5_000, 50_000])
def test_one_window_at_two_sd_is_no_drift_whatever_its_size(n: int) -> None:
    rng = np.random.default_rng(3)
    law = histogram.law(np.tile(P, (SERIES, 1)), np.full(SERIES, 0.02), z=np.tile(Z, (SERIES, 1)))
    state, far = histogram.start(SERIES, 16, 20), binned((1, 2, 1))
    for t in range(80):
        counts = rng.multinomial(n, far if t == QUIET else P, SERIES)
        ones, ln_a, code = np.ones(SERIES), np.full(SERIES, LN_A), np.zeros(SERIES, np.int8)
        state, verdicts = histogram.update(state, histogram.Settings(), histogram.Window(counts, law, ones, ln_a, code))
        assert (verdicts.level < Level.DRIFT).all()


@pytest.mark.parametrize("rows", [1_000, 10_000, 100_000])
def test_an_estimated_reference_costs_no_more_than_the_budget(rows: int) -> None:
    rng, ln_a, windows = np.random.default_rng(5), float(np.log(200.0)), 60
    p = (rng.multinomial(rows, P, SERIES) + 0.5) / (rows + 8)
    law = histogram.law(p, epsilon_ref(p, np.full(SERIES, float(rows))), z=np.tile(Z, (SERIES, 1)))
    state, alarms = histogram.start(SERIES, 16, 20), 0
    for _ in range(windows):
        window = histogram.Window(
            rng.multinomial(500, P, SERIES), law, np.ones(SERIES), np.full(SERIES, ln_a), np.zeros(SERIES, np.int8)
        )
        state, verdicts = histogram.update(state, histogram.Settings(), window)
        fired = verdicts.level == Level.DRIFT
        alarms, state = alarms + int(fired.sum()), histogram.reset(state, fired)
    assert alarms <= SERIES * windows / 200
