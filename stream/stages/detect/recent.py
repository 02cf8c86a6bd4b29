"""What inputs leave behind for the outcomes of the same windows, which are closed later.

Labels come after predictions: when a window of outcomes is closed, its inputs are history, and how much later that is
depends on when records arrived. So whatever outcomes ask of inputs is kept by window, and asked as of its end.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.alerts.lifecycle import Row
from stream.alerts.lifecycle import State as Life
from stream.wire.internal import Partial
from stream.wire.outbound import Kind

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

WINDOWS_MAX: Final = 1440
"""Windows kept while their outcomes wait: a day of minutes. Outcomes that come later have no estimate beside them."""
SPELLS_MAX: Final = 64
"""Alerts kept after their end."""


class Answers(Struct, frozen=True, eq=False):
    """What the predictions of one window leave."""

    rows: int
    segments: list[str]
    scores: Ints
    """[g, score cells] predictions by score; width 0 where none has one."""


class Spell(Struct, frozen=True):
    """An alert on inputs while it was firing, in event time."""

    segment: str
    kind: Kind
    alert_id: str
    since_ms: int
    """When its change began."""
    firing_ms: int
    ended_ms: int | None = None

    def holds(self, at_ms: int) -> bool:
        """Whether it was firing at the end of a window."""
        return self.firing_ms <= at_ms and (self.ended_ms is None or self.ended_ms > at_ms)


def answers(partials: Iterable[Partial], segments: Mapping[str, Sequence[str]]) -> Answers:
    """What the profiles of one window say; `segments` names those of every reference."""
    found = [(partial, [segments[partial.reference_id][row] for row in partial.segments]) for partial in partials]
    names = sorted({name for _, own in found for name in own})
    width = max((partial.scores.shape[1] for partial, _ in found), default=0)
    scores, rows = np.zeros((len(names), width), np.int64), 0
    for partial, own in found:
        if partial.scores.size:
            scores[[names.index(name) for name in own]] += partial.scores
        rows += int(partial.rows[partial.segments == 0].sum())
    return Answers(rows, names, scores)


def kept(before: Mapping[int, Answers], end_ms: int, found: Answers) -> dict[int, Answers]:
    """With the answers of one window more, by its end; only so many."""
    return dict(sorted({**before, end_ms: found}.items())[-WINDOWS_MAX:])


def spells(
    before: Sequence[Spell], rows: Mapping[tuple[str, str], Row], firing: Iterable[Spell], end_ms: int
) -> tuple[Spell, ...]:
    """The alerts after a window that ends at `end_ms`; `firing` are those that have begun by then."""
    open_now = {(segment, kind, row.starts_at_ms) for (segment, kind), row in rows.items() if row.state is Life.FIRING}
    old = [
        one
        if one.ended_ms is not None or (one.segment, one.kind, one.firing_ms) in open_now
        else replace(one, ended_ms=end_ms)
        for one in before
    ]
    known = {(one.segment, one.kind, one.firing_ms) for one in old}
    found = [*old, *(one for one in firing if (one.segment, one.kind, one.firing_ms) not in known)]
    over = [one for one in found if one.ended_ms is not None]
    return tuple(one for one in found if one.ended_ms is None or one in over[-SPELLS_MAX:])
