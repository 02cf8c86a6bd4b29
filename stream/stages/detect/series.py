"""A family of series behind the same few functions: distributions are judged by `histogram`, means and rates by `mean`.

A family has N series per segment, G * N in all, segments outside. What a window shows of them stands in rows: counts of
coarse bins for a distribution, events and hits for a rate, events and two sums for a mean. A *law* is what is normal
for all of them; in an episode the law of a series is the one it has moved to (`statistics.md` 10.3). Nothing here
remembers: states go in and come out.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.detectors import Bools, Codes, Floats, Ints, Sums, Verdicts, effects, episode, histogram, locate, mean
from stream.profiles import reference

L = TypeVar("L", histogram.Law, mean.Law)


class Seen(Struct, frozen=True, eq=False):
    """One closed window of a family."""

    start_ms: int
    counts: Ints
    """[R, B] coarse counts, [R, 2] events and hits, or [R, 3] events and the sums of values and of their squares."""
    phi: Floats
    """[R] overdispersion at this number of events."""


class Past(Struct, frozen=True, eq=False):
    """What is remembered of one series since some window, or of several."""

    counts: Ints
    """As in `Seen.counts`."""
    expected: Floats | None = None
    """What the season made us expect of a distribution; None without slots."""


def past_of(history: locate.History, index: int | Ints, from_ms: int) -> Past:
    """What is remembered of one series, or of several, from a window on."""
    counts = locate.since(history, index, from_ms)
    if not history.expected:
        return Past(counts)
    return Past(counts, locate.since(replace(history, values=history.expected), index, from_ms))


class Series(Struct, frozen=True, eq=False):
    """What both kinds have: R = G * N series."""

    columns: Ints
    """[N] index among the columns of the plan."""
    phi: Floats
    """[R] of the reference, at least 1; the rest likewise [R]"""
    n_bar: Floats
    rows: Floats
    """m: rows of the reference behind the law"""
    ln_threshold: Floats
    reason: Codes
    enabled: bool
    """Whether its detector is."""

    def spread(self, matrix: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, Any]:
        """From [G, columns] to [R]."""
        return matrix[:, self.columns].reshape(-1)

    def compact(self, counts: Ints) -> np.ndarray[Any, np.dtype[Any]]:
        """Counts of a window in the type the past of the series is kept in."""
        return counts.astype(np.int32)

    def of(self, segment: int, columns: Ints) -> Ints:
        """Indices of some columns of one segment among the series, those of other families left out."""
        return segment * len(self.columns) + np.flatnonzero(np.isin(self.columns, columns))


class Distributions(Series, frozen=True, eq=False):
    """Distributions of signals over coarse bins."""

    law: histogram.Law
    z: Floats | None
    """[R, B] normal scores of ordered bins; None where bins have no order."""
    settings: histogram.Settings
    tolerance: float

    def at_rest(self, law: histogram.Law) -> histogram.State:
        """Detectors that have seen nothing."""
        return histogram.start(law.p.shape[0], law.p.shape[1], len(law.weights))

    def seen(self, start_ms: int, counts: Ints) -> Seen:
        """A window, with the overdispersion it must be judged by."""
        return Seen(start_ms, counts, reference.overdispersion(self.phi, counts.sum(1), self.n_bar))

    def updated(
        self, state: histogram.State, law: histogram.Law, seen: Seen, reason: Codes
    ) -> tuple[histogram.State, Verdicts]:
        """One window further; series with a reason keep their state."""
        window = histogram.Window(seen.counts, law, seen.phi, self.ln_threshold, reason)
        return histogram.update(state, self.settings, window)

    def ln_evidence(self, state: histogram.State) -> Floats:
        """[R] ln M."""
        return histogram.ln_evidence(state)

    def reset(self, state: histogram.State, chosen: Bools) -> histogram.State:
        """The chosen series begin from nothing."""
        return histogram.reset(state, chosen)

    def open_law(self, chosen: Ints, since: Mapping[int, Past]) -> histogram.Law:
        """The laws of the chosen series in an episode; those in `since` have moved, and this is what came since then.

        The others keep the law of the reference. Laws are free of season: they lie around the law of all hours.
        """
        home, epsilon = self.law.p[chosen], self.law.epsilon[chosen]
        p = home.copy()
        for row, index in enumerate(chosen.tolist()):
            if index in since:
                own, past = slice(row, row + 1), since[index]
                counts, expected = past.counts[None], None if past.expected is None else past.expected[None]
                p[own] = episode.new_law(counts, home[own], expected)
                known = counts.sum(1) / self.phi[index]
                epsilon[own] = episode.radius(p[own], home[own], known, self.tolerance)
        return histogram.law(p, epsilon, z=None if self.z is None else self.z[chosen], home=home)

    def in_season(self, law: histogram.Law, now: histogram.Law, chosen: Ints) -> histogram.Law:
        """The laws of episodes in a window in which `now` is normal: of the chosen series moved from there as far."""
        p, home = now.p[chosen], self.law.p[chosen]
        moved = episode.tilted(p, episode.growth(law.p[chosen], home))
        z = None if self.z is None else self.z[chosen]
        own = histogram.law(moved, law.epsilon[chosen], z=z, p_mean=law.p[chosen], home=p)
        return self.with_rows(law, chosen, own)

    def with_rows(self, law: histogram.Law, chosen: Ints, own: histogram.Law) -> histogram.Law:
        """A law in which the chosen series have another one."""
        return _with_rows(law, chosen, own, shared=("weights",))

    def shares(self, law: histogram.Law, index: int) -> Floats:
        """[B] probabilities of the bins of one series."""
        return np.asarray(law.p[index])

    def change_point(  # noqa: PLR0913 - a question with all it depends on
        self, history: locate.History, index: int, law: histogram.Law, *, rows: float, from_ms: int, end_ms: int
    ) -> locate.ChangePoint | None:
        """Since when a series has left a law that is known from `rows` events."""
        p, phi = law.p[index], float(self.phi[index])
        if history.expected:
            growth = episode.growth(p, self.law.p[index])
            history, index = _grown(history, index, growth), 0
        return locate.change_point(history, index, p, rows=rows, phi=phi, from_ms=from_ms, end_ms=end_ms)

    def expected(self, index: int | Ints, past: Past) -> Floats:
        """[B] what is normal for one series in the windows of its past, or [S, B] for several."""
        p = np.asarray(self.law.p[index])
        if past.expected is None:
            return p
        total = past.expected.sum(-1, keepdims=True)
        return np.asarray(np.divide(past.expected, total, out=p.copy(), where=total > 0))

    def events(self, counts: Ints) -> Floats:
        """[S] events of counts [S, B]."""
        return np.asarray(counts.sum(1, dtype=np.float64))

    def distance(self, chosen: Ints, past: Past) -> Floats:
        """[S] total variation between what is normal and what came of the chosen series."""
        p = self.expected(chosen, past)
        return np.asarray(0.5 * np.abs(effects.smoothed(past.counts, np.count_nonzero(p, axis=1)) - p).sum(1))

    def is_back(self, index: int, past: Past, law: histogram.Law) -> bool:
        """Whether a series follows the law of the reference again, and more likely it than that of the episode."""
        own, p = slice(index, index + 1), self.expected(index, past)
        q = episode.tilted(p, episode.growth(law.p[index], self.law.p[index]))
        ratio = np.divide(p, q, out=np.ones_like(p), where=q > 0)
        near = episode.returned(past.counts[None], p[None], self.law.epsilon[own], self.phi[own])
        return bool(near[0]) and float((past.counts * np.log(ratio)).sum()) >= 0

    def score(self, index: int, past: Past) -> tuple[Floats, Floats, float]:
        """The score whose mean moved most, the law it is compared with, and its standard deviation under that law.

        Of ordered bins u or v, else which categories became more.
        """
        p, counts = self.expected(index, past), past.counts
        if self.z is None:
            scores = np.asarray(counts > p * counts.sum(), dtype=np.float64)[None]
        else:
            u = reference.mid_cdf(self.law.p[index])
            scores = np.stack([u, np.abs(2 * u - 1)])
        means = (scores * p).sum(-1)
        sds = np.sqrt(np.maximum((scores**2 * p).sum(-1) - means**2, 0.0))
        shifts = np.abs((scores * counts).sum(-1) / max(int(counts.sum()), 1) - means)
        best = int(np.argmax(np.divide(shifts, sds, out=np.zeros_like(shifts), where=sds > 0)))
        return np.asarray(scores[best], dtype=np.float64), p, float(sds[best])

    def radius(self, index: int, counts: Ints, law: histogram.Law) -> float:
        """How far apart in total variation two laws may seem that are one: that of these counts, and an earlier one."""
        error = reference.epsilon_ref(law.p[index : index + 1], np.array([counts.sum() / self.phi[index]]))
        return float(self.law.epsilon[index] + error[0])


class Means(Series, frozen=True, eq=False):
    """Means of signals in [0, 1], each given by events, the sum of values and that of their squares; or rates.

    Values of a rate are 0 or 1, so its hits are both sums: it does without the last.
    """

    law: mean.Law
    sd: Floats
    """[R] of a value in the reference"""
    margins: Floats
    """[R] how far a mean may lie from that of the reference."""
    settings: mean.Settings
    unit: float = 1.0
    """What one stands for in the integers of both sums; 1 says that these are rates."""

    def at_rest(self, law: mean.Law) -> mean.State:
        """Detectors that have seen nothing."""
        return mean.start(len(law.mean))

    def seen(self, start_ms: int, counts: Ints) -> Seen:
        """A window, with the overdispersion it must be judged by."""
        return Seen(start_ms, counts, reference.overdispersion(self.phi, counts[:, 0].astype(np.float64), self.n_bar))

    def updated(self, state: mean.State, law: mean.Law, seen: Seen, reason: Codes) -> tuple[mean.State, Verdicts]:
        """One window further; series with a reason keep their state."""
        n, s, squares = self.sums(seen.counts)
        sums = Sums(
            start_ms=seen.start_ms,
            n=n,
            s=s,
            m2=np.maximum(squares - np.divide(s * s, n, out=np.zeros_like(s), where=n > 0), 0.0),
            phi=seen.phi,
            ln_threshold=self.ln_threshold,
            reason=reason,
            testing=np.ones(len(n), np.bool_),
        )
        return mean.update(state, self.settings, mean.Window(sums, law))

    def compact(self, counts: Ints) -> np.ndarray[Any, np.dtype[Any]]:
        """Sums in small units need more than 32 bits."""
        return counts.astype(np.int32 if self.binary else np.int64)

    def sums(self, counts: Ints) -> tuple[Floats, Floats, Floats]:
        """[...] events, sum of values and sum of their squares of counts [..., 2 or 3]."""
        n, s, squares = (counts[..., place].astype(np.float64) for place in (0, 1, -1))
        return n, np.asarray(s * self.unit), np.asarray(squares * self.unit)

    def ln_evidence(self, state: mean.State) -> Floats:
        """[R] ln M."""
        return mean.ln_evidence(state)

    def reset(self, state: mean.State, chosen: Bools) -> mean.State:
        """The chosen series begin from nothing."""
        return mean.reset(state, chosen)

    def open_law(self, chosen: Ints, since: Mapping[int, Past]) -> mean.Law:
        """The laws of the chosen series in an episode; those in `since` have moved, and this is what came since then.

        The others keep the law of the reference, and so does a mean that lies within its margin around it.
        """
        means, margins = self.law.mean[chosen], self.margins[chosen]
        for row, index in enumerate(chosen.tolist()):
            if index in since:
                own, (n, s, _) = slice(row, row + 1), self.sums(since[index].counts)
                now = (s + means[own]) / (n + 1)
                if np.abs(now - means[own])[0] > margins[row]:
                    rows, tolerance = np.array([n / self.phi[index]]), self.settings.tolerance
                    sd = self._sd(index, float(now[0]), since[index].counts)
                    margins[own] = episode.mean_radius(now, means[own], np.array([sd]), rows, tolerance)
                    means[own] = now
        return mean.law(means, margins, np.full(len(chosen), self.binary))

    def in_season(self, law: mean.Law, now: mean.Law, chosen: Ints) -> mean.Law:
        """The same laws: means have no season."""
        del now, chosen
        return law

    def with_rows(self, law: mean.Law, chosen: Ints, own: mean.Law) -> mean.Law:
        """A law in which the chosen series have another one."""
        return _with_rows(law, chosen, own)

    @property
    def binary(self) -> bool:
        """Whether these are rates."""
        return self.unit == 1.0

    def shares(self, law: mean.Law, index: int) -> Floats:
        """[2] of misses and of hits of one series."""
        return np.array([1 - law.mean[index], law.mean[index]])

    def change_point(  # noqa: PLR0913 - a question with all it depends on
        self, history: locate.History, index: int, law: mean.Law, *, rows: float, from_ms: int, end_ms: int
    ) -> locate.ChangePoint | None:
        """Since when a series has left a mean that is known from `rows` events.

        The place does not depend on the deviation, its interval does: a rate that has risen from nothing spreads by
        what it is now.
        """
        own, phi = float(law.mean[index]), float(self.phi[index])

        def located(sd: float) -> locate.ChangePoint | None:
            return locate.mean_change_point(
                history, index, own / self.unit, sd / self.unit, rows=rows, phi=phi, from_ms=from_ms, end_ms=end_ms
            )

        found = located(self._sd_around(index, own))
        if found is None:
            return None
        return located(self._widest(index, own, locate.since(history, index, found.at_ms)))

    def is_back(self, index: int, past: Past, law: mean.Law) -> bool:
        """Whether a series follows the mean of the reference again, and more likely it than that now normal."""
        own, (n, s, _) = slice(index, index + 1), (float(one) for one in self.sums(past.counts))
        near = episode.mean_returned(
            np.array([s / max(n, 1)]),
            self.law.mean[own],
            self.sd[own],
            rows=n / self.phi[own],
            reference_rows=self.rows[own] / self.phi[own],
            tolerance=self.settings.tolerance,
        )
        ratio = np.log(self.shares(self.law, index)) - np.log(self.shares(law, index))
        return bool(near[0]) and float((np.array([n - s, s]) * ratio).sum()) >= 0

    def events(self, counts: Ints) -> Floats:
        """[S] events of counts [S, 2 or 3]."""
        return counts[:, 0].astype(np.float64)

    def distance(self, chosen: Ints, past: Past) -> Floats:
        """[S] how far the means of the chosen series lie from those of the reference, one event of it added."""
        own, (n, s, _) = self.law.mean[chosen], self.sums(past.counts)
        return np.asarray(np.abs((s + own) / (n + 1) - own))

    def score(self, index: int, past: Past) -> tuple[Floats, Floats, float]:
        """The value itself, its mean in the reference, and its standard deviation there or now, the larger one.

        In units of the integer sums, as the history has them.
        """
        own = self.law.mean[index : index + 1]
        return np.ones(1), own / self.unit, self._widest(index, float(own[0]), past.counts) / self.unit

    def radius(self, index: int, counts: Ints, law: mean.Law) -> float:
        """How far apart two means may seem that are one: that of these counts, and an earlier one."""
        error = reference.epsilon_ref(self.shares(law, index)[None], np.array([counts[0] / self.phi[index]]))
        return float(self.margins[index] + error[0])

    def _sd(self, index: int, now: float, counts: Ints) -> float:
        """Standard deviation of a value since some window, when its mean has become `now`."""
        if self.binary:
            return self._sd_around(index, now)
        n, s, squares = (float(one) for one in self.sums(counts))
        return float(np.sqrt(max(squares - s * s / n, 0.0) / n)) if n else float(self.sd[index])

    def _widest(self, index: int, own: float, counts: Ints) -> float:
        """The larger standard deviation: around this mean in the reference, or in these counts."""
        n, s, _ = (float(one) for one in self.sums(counts))
        return max(self._sd_around(index, own), self._sd(index, (s + own) / (n + 1), counts))

    def _sd_around(self, index: int, own: float) -> float:
        """Standard deviation of a value under a law with this mean."""
        return float(np.sqrt(own * (1 - own))) if self.binary else float(self.sd[index])


Family: TypeAlias = Distributions | Means


def _grown(history: locate.History, index: int, growth: Floats) -> locate.History:
    """The past of one series alone, with what was expected of it grown by a factor [B], as many events in all."""
    values = [entry[index : index + 1] for entry in history.values]
    expected = [episode.tilted(entry[index : index + 1], growth) * entry[index].sum() for entry in history.expected]
    return replace(history, values=values, expected=expected)


def _with_rows(law: L, chosen: Ints, own: L, shared: tuple[str, ...] = ()) -> L:
    """`own` in the rows of the chosen series; what is shared by all series stays."""
    arrays = {}
    for name in law.__struct_fields__:
        whole = getattr(law, name)
        if name not in shared:
            whole = whole.copy()
            whole[chosen] = getattr(own, name)
        arrays[name] = whole
    return type(law)(**arrays)
