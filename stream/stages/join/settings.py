"""What the stage is told once, at start."""

from collections.abc import Mapping

from msgspec import Struct, field
from pydantic import BaseModel, Field

from stream.profiles.windows import Settings as WindowSettings
from stream.signals.outcomes import ModelSettings
from stream.wire.durations import Duration


class Feedback(BaseModel, frozen=True, extra="forbid"):
    """Section `[feedback]` of the configuration: how labels find their predictions."""

    horizon: Duration = Field(default=604_800_000, gt=0)
    """The longest label delay that counts. A week: most labels are there, and the log of pairs stays of bounded length.
    What decides is the distance of event times, never what happens to be in memory."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """Share of prediction ids that are joined, chosen by hash, so that both halves are kept or neither. All of them:
    a performance of fewer pairs is known less well."""
    max_pending: int = Field(default=5_000_000, ge=1)
    """Rows within their horizon that a task holds; above it the task halves its sample. About 30 bytes each: 150 MB."""


class Settings(Struct, frozen=True, eq=False):
    """Bound once."""

    feedback: Feedback = field(default_factory=Feedback)
    windows: WindowSettings = field(default_factory=WindowSettings)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """By model id; defaults for those that are not here."""
    topics: tuple[str, ...] = ("predictions", "feedback")
    """Input topics whose partitions a window waits for."""
