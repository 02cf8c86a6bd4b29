"""Rows whose window is not over yet: they wait until every source has passed its end.

Fresh rows lie as they came; when they are many, or some are due, they are sorted by time and packed.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stream.stages.join import rows
from stream.stages.join.rows import Column, Names, Rows
from stream.stages.join.store import Run, added, pack
from stream.wire.internal import Ints

FRESH_MAX: Final = 1 << 16
"""Fresh rows that are many."""


class Queue(Struct, frozen=True, eq=False):
    """Rows sorted by time, of which the first are gone."""

    run: Run
    gone: int = 0

    def __len__(self) -> int:
        return len(self.run) - self.gone

    @property
    def names(self) -> Names:
        """What codes stand for."""
        return self.run.names

    def column(self, name: str) -> Column:
        """[n] of the rows that wait."""
        return self.run.columns[name].at(np.arange(self.gone, len(self.run)))

    def due(self, until_ms: int) -> int:
        """How many rows of the run lie before a time."""
        if self.run.last_ms < until_ms:
            return len(self.run)
        if self.run.first_ms >= until_ms:
            return 0
        return int(np.searchsorted(self.run.column("times_ms"), until_ms))


class Inbox(Struct, frozen=True, eq=False):
    """All rows that wait."""

    fresh: tuple[Rows, ...] = ()
    queues: tuple[Queue, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.fresh)) + sum(map(len, self.queues))


def put(inbox: Inbox, some: Rows) -> Inbox:
    """With more rows."""
    inbox = replace(inbox, fresh=(*inbox.fresh, some))
    return sorted_(inbox) if sum(map(len, inbox.fresh)) >= FRESH_MAX else inbox


def sorted_(inbox: Inbox) -> Inbox:
    """The same rows, none fresh."""
    if not sum(map(len, inbox.fresh)):
        return Inbox(queues=inbox.queues)
    return Inbox(queues=added(inbox.queues, Queue(pack([rows.gathered(inbox.fresh)], "times_ms")), _merged))


def due(inbox: Inbox, until_ms: int) -> int:
    """How many rows of an inbox without fresh ones lie before a time."""
    return sum(max(0, queue.due(until_ms) - queue.gone) for queue in inbox.queues)


def first_ms(inbox: Inbox) -> int | None:
    """The earliest time in an inbox without fresh rows."""
    starts = [int(queue.run.columns["times_ms"].at(np.array([queue.gone]))[0]) for queue in inbox.queues]
    return min(starts, default=None)


def taken(inbox: Inbox, until_ms: int) -> tuple[Inbox, Rows]:
    """An inbox without fresh rows, parted in the rows that stay and those before a time."""
    found, left = [], []
    for queue in inbox.queues:
        end = queue.due(until_ms)
        if end > queue.gone:
            found.append(queue.run.rows(np.arange(queue.gone, end)))
        if end < len(queue.run):
            left.append(replace(queue, gone=max(end, queue.gone)))
    return Inbox(queues=tuple(left)), rows.gathered(found)


def below(inbox: Inbox, key: int) -> tuple[Inbox, Rows]:
    """The rows with smaller keys, and the others."""
    everything = rows.gathered([rows.gathered([part.run.rows(_waiting(part)) for part in inbox.queues]), *inbox.fresh])
    stays = rows.below(everything, key)
    return put(Inbox(), rows.picked(everything, stays)), rows.picked(everything, ~stays)


def _waiting(queue: Queue) -> Ints:
    return np.arange(queue.gone, len(queue.run))


def _merged(queues: Sequence[Queue]) -> Queue:
    return Queue(pack(queues, "times_ms"))
