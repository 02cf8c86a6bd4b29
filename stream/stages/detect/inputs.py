"""The watch over inputs: a closed window goes through the detectors as a profile of its reference.

Under a reference that does not know serving, how serving spreads is learned from the first live windows (2.8).
"""

from collections.abc import Collection
from typing import Final

import numpy as np
from msgspec.structs import replace

from stream.detectors import Ints, Reason, locate
from stream.profiles import describe, overdispersion, reference
from stream.profiles.summaries import Dense
from stream.stages.detect import season
from stream.stages.detect import watch as watching
from stream.stages.detect.plan import InputsPlan, Serving, counted, of_columns
from stream.stages.detect.state import Calibration, Tests, Watch
from stream.stages.detect.watch import Judged, Window
from stream.wire.outbound import Kind

CALIBRATION_WINDOWS: Final = 100
"""Live windows with events that are learned from; verdicts stop at a warning until then."""


def start(plan: InputsPlan, first_ms: int, began: dict[tuple[str, int], int]) -> Watch:
    """All detectors at rest, under a reference in force from the window `first_ms` on."""
    return watching.start(plan, first_ms, began, _calibration(plan))


def update(
    plan: InputsPlan, watch: Watch, start_ms: int, profile: Dense, muted: Collection[Kind] = ()
) -> tuple[Watch, Judged]:
    """One window further. Nothing is learned of one that is muted."""
    after, judged = watching.update(plan, watch, window(plan, start_ms, profile, muted))
    return after if muted else _calibrated(plan, after, start_ms, profile), judged


def under(new: InputsPlan, watch: Watch) -> Watch:
    """The watch under a reference that has matured: evidence, episodes and the past go on, in the same coarse bins.

    What was to be expected in the past is what the new reference says. Detectors without an e-value begin anew, since
    the scores they look at have moved a little.
    """
    known = watch.histories
    ordered, unordered = (
        _expected_anew(new, family, history) for family, history in enumerate((known.ordered, known.unordered))
    )
    return replace(watch, tests=Tests(), histories=replace(known, ordered=ordered, unordered=unordered))


def window(plan: InputsPlan, start_ms: int, profile: Dense, muted: Collection[Kind] = ()) -> Window:
    """The window of a profile of inputs: its scores are u and v of the ordered signals.

    Members of the kinds in `muted` do not bet on it.
    """
    unseen = season.is_unseen(plan, start_ms)
    no_bet = np.full(plan.ln_threshold.shape, Reason.LEARNING if unseen else Reason.NONE, np.int8)
    no_bet[:, [column.kind in muted for column in plan.columns]] = Reason.MUTED
    numeric = [place for place, column in enumerate(plan.columns) if column.numeric is not None]
    n = describe.valid_events(plan.tables.scale, profile.counts)
    moments = np.concatenate([profile.moments, n[:, :, None]], axis=2)
    return Window(
        start_ms=start_ms,
        counts=counted(plan, profile),
        moments=(moments * (no_bet[:, numeric, None] == Reason.NONE)).reshape(-1, moments.shape[2]),
        scores=reference.scores(plan.tables, profile.counts),
        no_bet=no_bet,
        normal=season.normal(plan, start_ms),
    )


def moments_since(
    plan: InputsPlan, history: locate.History, segment: int, signal: int, from_ms: int
) -> tuple[Ints, Ints]:
    """Events [1, numeric signals] and moments [1, numeric signals, 4] of one numeric series from a window on."""
    numeric = plan.tables.layout.numeric
    place = numeric.index(signal)
    found = locate.since(history, segment * len(numeric) + place, from_ms)
    n, moments = np.zeros((1, len(numeric)), np.int64), np.zeros((1, len(numeric), len(found) - 1), np.int64)
    n[0, place], moments[0, place] = found[-1], found[:-1]
    return n, moments


def _expected_anew(plan: InputsPlan, family: int, history: locate.History) -> locate.History:
    """The past with what the reference makes us expect; events of an entry are spread evenly over its windows."""
    if not season.has_slots(plan):
        return history
    size_ms, expected = plan.settings.windows.size, []
    for row, start_ms, values in zip(history.row, history.start_ms, history.values, strict=True):
        laws = [season.law_of(plan, family, start_ms + window * size_ms) for window in range(2**row)]
        expected.append(values.sum(1, keepdims=True) * np.mean(laws, axis=0))
    return replace(history, expected=expected)


def _calibration(plan: InputsPlan) -> Calibration | None:
    """Nothing seen yet; None where the reference knows serving, or is not complete."""
    if plan.serving_known or not plan.tables.reference.complete:
        return None
    segments, columns = len(plan.tables.segments), plan.tables.layout.columns
    counts, none = np.zeros((segments, columns), np.int64), np.zeros(segments, np.int64)
    return Calibration(overdispersion.start(plan.tables), counts, none, none)


def _calibrated(plan: InputsPlan, watch: Watch, start_ms: int, profile: Dense) -> Watch:
    """One window further; empty ones tell nothing."""
    learning = watch.calibration
    if learning is None or not profile.rows[0]:
        return watch
    index = start_ms // plan.settings.windows.size
    windows, counts = learning.windows + (profile.rows > 0), learning.counts + profile.counts
    sums = overdispersion.add(learning.sums, plan.tables, index, profile)
    rows = learning.rows + profile.rows
    if windows[0] < CALIBRATION_WINDOWS:
        return replace(watch, calibration=Calibration(sums, counts, rows, windows))
    phi = overdispersion.phi(sums, plan.tables, counts)
    layout = plan.tables.layout
    valid = np.stack([counts[:, reference.valid(layout, s)].sum(1) for s in range(len(layout.names))], axis=1)
    events = np.repeat(rows[:, None], len(plan.columns), axis=1)
    events[:, : valid.shape[1]] = valid
    serving = Serving(
        phi=of_columns(plan.tables, phi.signals, phi.rates, phi.rows),
        n_bar=np.maximum(1.0, events / np.maximum(windows, 1)[:, None]),
    )
    # Evidence that was gathered as if events were independent does not count.
    return replace(watch, calibration=None, serving=serving, quiet=watching.at_rest(plan))
