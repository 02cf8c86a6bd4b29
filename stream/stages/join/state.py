"""All that a join task remembers. None of it is saved: the log of pairs is (`reliability.md` 4)."""

from typing import Final

from msgspec import Struct

from stream.profiles.windows import Marks
from stream.stages.join.inbox import Inbox
from stream.stages.join.places import Places
from stream.stages.join.store import Run

STATE_VERSION: Final = 1
"""Raised with every change of what is decided of the same log: a state of another version is made anew."""


class Held(Struct, frozen=True, eq=False):
    """Rows whose window is over, as runs in order of time; a few of them are decided already."""

    predictions: tuple[Run, ...] = ()
    labels: tuple[Run, ...] = ()
    undecided: int = 0
    """Rows among them with time' + horizon >= the end of the last window."""


class State(Struct, frozen=True, eq=False):
    """One partition of drift.pairs."""

    marks: Marks
    places: Places
    inbox: Inbox
    held: Held
    total: int = 0
    """The hashes of all undecided rows, summed modulo 2^64."""
    halvings: int = 0
    committed: int = 0
    """Records below this offset are replayed."""
    is_replay: bool = False
    """Whether the newest record was one of them: then `halvings` is what it will be, and the sample stays."""
    watermark_ms: int | None = None
    reached_ms: int | None = None
    """Rows with time' before this are processed: the end of a window."""
