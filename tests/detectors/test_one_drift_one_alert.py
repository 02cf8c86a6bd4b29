"""The pages together, as the stage calls them: a drift is one episode, located, and over when the old law is back."""

from statistics import NormalDist

import numpy as np
import pytest
from msgspec import Struct

from stream.detectors import Floats, Level, episode, histogram, locate
from stream.profiles.reference import epsilon_ref

EDGES = [NormalDist().inv_cdf(i / 16) for i in range(1, 16)]
P = np.full((1, 16), 1 / 16)
Z = np.array([[NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)]])
TOLERANCE, LN_A, ROWS = 0.02, np.log(1e6), 1e5
SETTINGS = histogram.Settings()
HOME = histogram.law(P, TOLERANCE + epsilon_ref(P, np.array([ROWS])), z=Z)


class Watch(Struct):
    """One series with its memory, quiet or in an episode."""

    state: histogram.State
    law: histogram.Law
    history: locate.History
    firing: bool = False
    from_ms: int = 0


def at_rest(law: histogram.Law) -> histogram.State:
    return histogram.start(1, 16, len(law.weights))


def opened(watch: Watch, at_ms: int) -> None:
    """The episode goes on from the law since `at_ms`."""
    counts = locate.since(watch.history, 0, at_ms)[None]
    new = episode.new_law(counts, P)
    radius = episode.radius(new, P, counts.sum(-1).astype(np.float64), TOLERANCE)
    watch.law, watch.firing, watch.from_ms = histogram.law(new, radius, z=Z, home=P), True, at_ms
    watch.state = at_rest(watch.law)


def step(watch: Watch, counts: np.ndarray[tuple[int, int], np.dtype[np.int64]], t: int) -> str:
    watch.history = locate.remember(watch.history, t, counts)
    window = histogram.Window(counts, watch.law, np.ones(1), np.array([LN_A]), np.zeros(1, np.int8))
    watch.state, verdicts = histogram.update(watch.state, SETTINGS, window)
    if verdicts.level[0] != Level.DRIFT:
        return ""
    rows = 0.0 if watch.firing else ROWS
    point = locate.change_point(
        watch.history, 0, watch.law.p[0], rows=rows, phi=1.0, from_ms=watch.from_ms, end_ms=t + 1
    )
    assert point is not None
    since = locate.since(watch.history, 0, point.at_ms)[None]
    if watch.firing and episode.returned(since, P, HOME.epsilon, np.ones(1))[0]:
        watch.law, watch.firing, watch.from_ms, watch.state = HOME, False, point.at_ms, at_rest(HOME)
        return "resolved"
    told = "updated" if watch.firing else "firing"
    opened(watch, point.at_ms)
    return told


def moved(shift: float) -> Floats:
    return np.diff(np.array([0.0, *(NormalDist(shift).cdf(e) for e in EDGES), 1.0]))


@pytest.mark.parametrize(("shift", "n", "drift"), [(0.25, 50, 60), (0.25, 500, 60), (0.5, 50, 300)])
def test_a_drift_is_one_episode_and_ends_after_the_return(shift: float, n: int, drift: int) -> None:
    rng, quiet, runs, late = np.random.default_rng(1), 50, 12, []
    for _ in range(runs):
        watch, events = Watch(at_rest(HOME), HOME, locate.start()), []
        for t in range(quiet + drift + 120):
            law = moved(shift if quiet <= t < quiet + drift else 0.0)
            if told := step(watch, rng.multinomial(n, law, 1), t):
                events.append((told, t))
        kinds = [kind for kind, _ in events if kind != "updated"]
        assert kinds == ["firing", "resolved"]
        assert events[0][1] >= quiet
        assert events[-1][1] >= quiet + drift
        late.append(events[-1][1] - quiet - drift)
    assert np.median(late) <= 45
