"""What a window costs detect at one and at ten times the traffic, and what it costs to save and restore its state.

Profiles are sums, so a window of 6,000 events is judged like one of 600. A stream is quiet for 25 windows; then three
signals drift, and the groups of all segments have open episodes. Run: `python tests/bench/windows.py`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from msgspec import Struct
from msgspec.structs import replace
from worlds import START_MS, World, batch_of

from stream.alerts.evidence import Sender
from stream.profiles import building, cuts
from stream.profiles.reference import reference_key
from stream.stages import References, detect, ingest
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import WATERMARKS, SourceMark, Watermarks
from stream.wire.record import Record

WINDOW_MS: Final = 60_000
EVENTS: Final = 600
"""Of a window at ordinary traffic."""
WARM: Final = 5
"""Windows before the first is closed, or before all episodes are open."""
QUIET: Final = 25
WINDOWS: Final = 50
TRAINING_ROWS: Final = 20_000
TRAINED_BEFORE_MS: Final = 7 * 86_400_000
VERSIONS: Final = 50
"""Model versions in the state that is saved."""


class Costs(Struct, frozen=True):
    """Medians of processor time."""

    series: int
    """Segments times signals, each with a reading in every window."""
    quiet_ms: dict[int, float]
    """Per window, by traffic (1, 10)."""
    open_ms: dict[int, float]
    """The same with open episodes."""
    state_bytes: int
    """Of `VERSIONS` model versions."""
    encode_ms: float
    decode_ms: float

    @property
    def growth(self) -> float:
        """How many times as much a window costs at ten times the traffic."""
        return self.quiet_ms[10] / self.quiet_ms[1]


def measured() -> Costs:
    """All of it; about half a minute."""
    references = _references()
    settings = detect.Settings(sender=Sender("drift", "bench", "0" * 16))
    streams = {traffic: list(_profiles(references, EVENTS * traffic)) for traffic in (1, 10)}
    states = dict.fromkeys(streams, detect.start(settings))
    spent_ms: dict[int, list[float]] = {traffic: [] for traffic in streams}
    for window in range(WINDOWS):  # in turns, so that both have the same neighbours
        for traffic, records in streams.items():
            began = time.process_time()
            states[traffic], _ = detect.step(settings, references, states[traffic], records[window])
            spent_ms[traffic].append((time.process_time() - began) * 1_000)
    state = states[1]
    [version] = state.versions.values()
    tables = references.at("credit", "3", START_MS)
    assert tables is not None
    many = replace(state, versions={("credit", str(number)): version for number in range(VERSIONS)})
    frame = detect.encode(many)
    assert not isinstance(detect.decode(frame), Malformed)
    return Costs(
        series=len(tables.segments) * len(tables.layout.names),
        quiet_ms={traffic: median(spent[WARM:QUIET]) for traffic, spent in spent_ms.items()},
        open_ms={traffic: median(spent[QUIET + WARM :]) for traffic, spent in spent_ms.items()},
        state_bytes=len(frame),
        encode_ms=_best_ms(lambda: detect.encode(many)),
        decode_ms=_best_ms(lambda: detect.decode(frame)),
    )


def _references() -> References:
    world = World(seed=3, prefix="t", start_ms=START_MS - TRAINED_BEFORE_MS, step_ms=WINDOW_MS // EVENTS)
    plan = cuts.Plan("credit", "3", WINDOW_MS, cuts.Declared(segments=["country"]))
    built = building.build(world.rows(TRAINING_ROWS), plan, serving=True, effective_from_ms=world.start_ms)
    record = Record("drift.references", 0, 0, 0, reference_key(built), codec.encode_reference(built))
    return References.empty().apply(record)


def _profiles(references: References, events: int) -> Iterator[list[Record]]:
    """The records of drift.profiles, a transaction for each window of events."""
    world = World(seed=5, step_ms=WINDOW_MS // events, drift_at=events * QUIET)
    settings, state, offset = ingest.Settings(), ingest.start(None), 0
    for first in range(0, events * WINDOWS, events):
        state, _ = ingest.step(settings, references, state, batch_of(world.records(events, first), first_offset=first))
        states, outgoing = ingest.flush(settings, references, {("predictions", 0): state})
        state = states["predictions", 0]
        mark = SourceMark("predictions", 0, first + events, state.watermark_ms)
        values = [one.value for one in outgoing] + [codec.encode(Watermarks([mark], {"predictions": 1}, 1), WATERMARKS)]
        yield [
            Record("drift.profiles", 0, place, 0, b"credit", value) for place, value in enumerate(values, start=offset)
        ]
        offset += len(values)


def _best_ms(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(5):
        began = time.process_time()
        work()
        spent.append((time.process_time() - began) * 1_000)
    return min(spent)


def main() -> None:
    """Print what was measured."""
    costs = measured()
    for traffic in (1, 10):
        print(
            f"{EVENTS * traffic:>6} events a window, {costs.series} series: {costs.quiet_ms[traffic]:.1f} ms quiet, "
            f"{costs.open_ms[traffic]:.1f} ms with open episodes"
        )
    print(f"ten times the traffic costs {costs.growth:.2f} times as much")
    print(
        f"state of {VERSIONS} model versions: {costs.state_bytes / 1e6:.1f} MB, {costs.encode_ms:.0f} ms to save, "
        f"{costs.decode_ms:.0f} ms to restore"
    )


if __name__ == "__main__":
    main()
