"""What every detector keeps, whatever its method."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import pytest
import streams
from msgspec import structs

from stream.detectors import Floats, Level, Reason, Sums, Verdicts, adwin, histogram, mean, page_hinkley, river
from stream.wire import codec

N = 100
SERIES = 20
LN_A = float(np.log(200.0))
NORMAL = NormalDist()
REFERENCE = np.array([NORMAL.inv_cdf((i + 0.5) / 1600) for i in range(1600)])
U = (np.arange(16) + 0.5) / 16


@dataclass(frozen=True)
class Binned:
    """A window of R series as counts of 16 bins, from which every detector takes what it needs."""

    counts: np.ndarray[Any, np.dtype[np.int64]]
    t: int
    reason: np.ndarray[Any, np.dtype[np.int8]]

    def sums(self) -> Sums:
        n, s = self.counts.sum(-1).astype(np.float64), self.counts @ U
        average = np.divide(s, n, out=np.zeros_like(s), where=n > 0)
        m2 = (self.counts * (U - average[:, None]) ** 2).sum(-1)
        return structs.replace(streams.whole(n, s, m2, self.t, LN_A), reason=self.reason)

    def rows(self, series: slice) -> "Binned":
        return Binned(self.counts[series], self.t, self.reason[series])


@dataclass(frozen=True)
class Subject:
    """A detector behind one face."""

    name: str
    start: Callable[[int], Any]
    update: Callable[[Any, Binned], tuple[Any, Verdicts]]
    promises: bool = True
    """Whether a budget holds for it."""


def _histogram(state: Any, window: Binned) -> tuple[Any, Verdicts]:
    r = len(window.reason)
    z = np.array([NORMAL.inv_cdf(u) for u in U])
    law = histogram.law(np.full((r, 16), 1 / 16), np.full(r, 0.02), z=np.tile(z, (r, 1)))
    ln_a = np.full(r, LN_A)
    return histogram.update(
        state, histogram.Settings(), histogram.Window(window.counts, law, np.ones(r), ln_a, window.reason)
    )


def _mean(state: Any, window: Binned) -> tuple[Any, Verdicts]:
    r = len(window.reason)
    law = mean.law(np.full(r, 0.5), np.full(r, 0.01), np.zeros(r, np.bool_))
    return mean.update(state, mean.Settings(), mean.Window(window.sums(), law))


def _adwin(settings: adwin.Settings) -> Callable[[Any, Binned], tuple[Any, Verdicts]]:
    return lambda state, window: adwin.update(state, settings, adwin.Window(window.sums()))


def _page_hinkley(settings: page_hinkley.Settings) -> Callable[[Any, Binned], tuple[Any, Verdicts]]:
    def update(state: Any, window: Binned) -> tuple[Any, Verdicts]:
        r = len(window.reason)
        law = page_hinkley.Law(np.full(r, 0.5), np.full(r, float(U.std())), np.full(r, float(N)))
        return page_hinkley.update(state, settings, page_hinkley.Window(window.sums(), law))

    return update


def _river(settings: river.Settings) -> Callable[[Any, Binned], tuple[Any, Verdicts]]:
    return lambda state, window: river.update(state, settings, river.Window(window.sums()))


ADWIN, ADWIN_TEXTBOOK = adwin.Settings(), adwin.Settings(form="textbook", clock=4)
PH, PH_TEXTBOOK = page_hinkley.Settings(), page_hinkley.Settings(form="textbook", threshold=200)
RIVER = river.Settings(name="PageHinkley", parameters={"threshold": 0.5, "delta": 0.02, "min_instances": 10})
SUBJECTS = [
    Subject("histogram", lambda r: histogram.start(r, 16, 20), _histogram),
    Subject("mean", mean.start, _mean),
    Subject("adwin", lambda r: adwin.start(r, ADWIN), _adwin(ADWIN)),
    Subject("adwin textbook", lambda r: adwin.start(r, ADWIN_TEXTBOOK), _adwin(ADWIN_TEXTBOOK), promises=False),
    Subject("page_hinkley", page_hinkley.start, _page_hinkley(PH)),
    Subject("page_hinkley textbook", page_hinkley.start, _page_hinkley(PH_TEXTBOOK), promises=False),
    Subject("river:PageHinkley", lambda r: river.start(r, RIVER), _river(RIVER), promises=False),
]
every = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
promising = pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.promises], ids=lambda s: s.name)


def windows(seed: int, quiet: int, moved: int, scale: float = 1.0, series: int = SERIES) -> Iterator[Binned]:
    """Normal values against the quantiles of a reference on the same scale; they rise by .7 sigma when it is over."""
    rng = np.random.default_rng(seed)
    edges = np.sort(REFERENCE * scale)[99::100][:15]
    for t in range(quiet + moved):
        values = (rng.standard_normal((series, N)) + 0.7 * (t >= quiet)) * scale
        bins = np.searchsorted(edges, values)
        counts = np.stack([np.bincount(row, minlength=16) for row in bins])
        yield Binned(counts, t, np.zeros(series, np.int8))


def run(subject: Subject, stream: Iterator[Binned], state: Any = None) -> tuple[Any, list[Verdicts]]:
    told = []
    for window in stream:
        state = subject.start(len(window.reason)) if state is None else state
        state, verdicts = subject.update(state, window)
        told.append(verdicts)
    return state, told


def bits(value: Any) -> bytes:
    """Everything a struct of arrays holds, to the bit."""
    return msgspec.msgpack.encode(value, enc_hook=_plain)


def restored(state: Any) -> Any:
    return codec.decode(codec.encode(state, "snapshot"), type(state))


def _plain(value: Any) -> Any:
    return [value.dtype.str, list(value.shape), value.tobytes()]


@promising
def test_false_alarms_stay_within_the_budget(subject: Subject) -> None:
    _, told = run(subject, windows(1, 200, 0))
    alarms = sum(int((verdicts.level == Level.DRIFT).sum()) for verdicts in told)
    assert alarms <= SERIES * 200 / np.exp(LN_A)


@every
def test_a_planted_change_is_found_in_every_series_and_not_before(subject: Subject) -> None:
    _, told = run(subject, windows(2, 60, 60))
    levels = np.stack([verdicts.level for verdicts in told])
    assert (levels[:60] != Level.DRIFT).mean() > 0.99
    assert (levels[60:] == Level.DRIFT).any(axis=0).all()


@every
def test_the_same_windows_give_the_same_bits(subject: Subject) -> None:
    first, second = (run(subject, windows(3, 20, 20)) for _ in range(2))
    assert bits(first) == bits(second)


@every
def test_a_restored_one_goes_on_exactly_like_the_original(subject: Subject) -> None:
    stream = list(windows(4, 40, 40))
    state, _ = run(subject, iter(stream[:50]))
    assert bits(run(subject, iter(stream[50:]), state)) == bits(run(subject, iter(stream[50:]), restored(state)))


@every
def test_its_arguments_stay_untouched(subject: Subject) -> None:
    stream = list(windows(5, 45, 10))
    state, _ = run(subject, iter(stream[:50]))
    for window in stream[50:]:
        before, counts = bits(state), window.counts.copy()
        after, _ = subject.update(state, window)
        assert bits(state) == before
        assert (window.counts == counts).all()
        state = after


@every
def test_empty_windows_are_survived_and_said_to_be_empty(subject: Subject) -> None:
    state, _ = run(subject, windows(6, 40, 0))
    for t in range(30):
        empty = Binned(np.zeros((SERIES, 16), np.int64), 40 + t, np.zeros(SERIES, np.int8))
        state, verdicts = subject.update(state, empty)
        assert (verdicts.level == Level.NOT_READY).all()
        assert (verdicts.reason == Reason.EMPTY).all()
        assert np.isnan(verdicts.statistic).all()
    _, told = run(subject, windows(7, 0, 60), state)
    assert all(np.stack([v.level for v in told]).max(axis=0) == Level.DRIFT)


@every
def test_a_series_with_a_reason_keeps_its_state_and_says_so(subject: Subject) -> None:
    state, _ = run(subject, windows(8, 40, 0))
    (window,) = windows(9, 0, 1)
    muted = Binned(window.counts, 40, np.where(np.arange(SERIES) < 3, Reason.MUTED, 0).astype(np.int8))
    after, verdicts = subject.update(state, muted)
    assert (verdicts.level[:3] == Level.NOT_READY).all()
    assert (verdicts.reason[:3] == Reason.MUTED).all()
    assert bits(_first(after, 3)) == bits(_first(state, 3))


@every
def test_a_series_alone_equals_the_same_one_among_others_to_the_bit(subject: Subject) -> None:
    stream = list(windows(10, 30, 15))
    _, together = run(subject, iter(stream))
    _, alone = run(subject, (window.rows(slice(5, 6)) for window in stream))
    for one, all_of_them in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.statistic, all_of_them.statistic[5:6])
        np.testing.assert_array_equal(one.level, all_of_them.level[5:6])


@every
def test_no_series_at_all_are_no_error(subject: Subject) -> None:
    state = subject.start(0)
    for t in range(10):
        state, verdicts = subject.update(state, Binned(np.zeros((0, 16), np.int64), t, np.zeros(0, np.int8)))
        assert len(verdicts.level) == 0


@every
def test_another_unit_of_the_signal_changes_nothing(subject: Subject) -> None:
    assert bits(run(subject, windows(11, 20, 20))) == bits(run(subject, windows(11, 20, 20, scale=1024.0)))


@every
def test_what_is_told_can_be_written_as_json(subject: Subject) -> None:
    _, told = run(subject, windows(12, 40, 40))
    for verdicts in told:
        for column in (verdicts.statistic, verdicts.threshold, verdicts.evidence):
            assert not np.isinf(column).any()
        assert (verdicts.reason[verdicts.level == Level.NOT_READY] != Reason.NONE).all()


def test_what_is_bet_on_a_distribution_never_depends_on_the_window_judged() -> None:
    state, _ = run(SUBJECTS[0], windows(13, 25, 5, series=1))
    assert isinstance(state, histogram.State)
    z = np.array([[NORMAL.inv_cdf(u) for u in U]])
    law = histogram.law(np.full((1, 16), 1 / 16), np.array([0.02]), z=z)
    ln_r, pay = histogram.stakes(state, law)
    ln_r = np.concatenate([ln_r, law.ln_r], axis=1)
    with np.errstate(divide="ignore"):
        staked = np.logaddexp(state.ln_m, np.log(pay))
    rng = np.random.default_rng(14)
    for _ in range(20):
        counts = rng.permutation(np.arange(16))[None]
        window = histogram.Window(counts, law, np.ones(1), np.array([1e6]), np.zeros(1, np.int8))
        after, _ = histogram.update(state, histogram.Settings(), window)
        np.testing.assert_allclose(after.ln_m - (counts[:, None, :] * ln_r).sum(-1), staked, atol=1e-9)


def test_what_is_bet_on_a_mean_never_depends_on_the_window_judged() -> None:
    state, _ = run(SUBJECTS[1], windows(15, 25, 5, series=1))
    law = mean.law(np.array([0.5]), np.array([0.01]), np.array([True]))
    with np.errstate(divide="ignore"):
        staked = np.logaddexp(state.ln_m, np.log(mean.stakes(state, law)))[:, :12]
    for ones in range(0, 101, 10):
        sums = streams.whole(np.array([100.0]), np.array([float(ones)]), np.zeros(1), ln_threshold=1e6)
        after, _ = mean.update(state, mean.Settings(), mean.Window(sums, law))
        evidence = ones * law.ln_one + (100 - ones) * law.ln_zero
        np.testing.assert_allclose(after.ln_m[:, :12] - evidence, staked, atol=1e-9)


def _first(state: Any, count: int) -> list[Floats]:
    return [value[:count] for value in structs.astuple(state)]
