"""What is normal for the demo's model, built as `drift reference build --serving` does."""

from msgspec.structs import replace

from stream.cli.demo import shuttle
from stream.cli.demo.shuttle import World
from stream.cli.references import training_rows
from stream.config import Config
from stream.profiles import building
from stream.profiles.cuts import Declared, Plan
from stream.wire.codec import named
from stream.wire.internal import Reference
from stream.wire.record import Record
from stream.wire.times import rfc3339


def build(world: World, seed: int, end_ms: int, window_ms: int, *, effective_from_ms: int) -> Reference:
    """From the predictions of the windows before `end_ms`."""
    events = shuttle.reference_events(world, seed, end_ms, window_ms)
    records = (Record("", 0, offset, event.time_ms, event.key, event.value) for offset, event in enumerate(events))
    found, _ = training_rows(records, Config().limits, Config().windows.max_future)
    name = (shuttle.MODEL_ID, shuttle.MODEL_VERSION)
    plan = Plan(*name, window_ms, Declared(unwatched=frozenset(shuttle.UNWATCHED)))
    return building.build(found[name], plan, serving=True, effective_from_ms=effective_from_ms)


def in_force_from(reference: Reference, time_ms: int) -> Reference:
    """The same under the name it has when it comes into force at another time."""
    return named(replace(reference, effective_from=rfc3339(time_ms)))
