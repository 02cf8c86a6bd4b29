"""`make bench`: every published number, measured again in one run and written to docs/performance.md.

`python tests/bench/__main__.py [EVENTS]` takes some five minutes on two cores. It needs what `make test` needs: the
whole way is measured on a real Apache Kafka.
"""

import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import decode, detectors, figures, fold, join, through, windows
from bench.through import Compared
from bench.windows import Costs
from kafka.cluster import VERSION, UnavailableError, running

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "performance.md"
EVENTS: Final = 400_000

TEXT: Final = """\
# Performance

Written by `make bench`: {machine}, Apache Kafka {kafka} on the same machine. What counts are the ratios: all loops of a
comparison run in turns, on the same broker and topic.

## The whole way, one process

Records of about 860 bytes with 16 numeric and 4 categorical features and one segment key of 8 values, a thousand of
them per second of event time, compressed with lz4, in 4 partitions; {events:,} events, median of {rounds} rounds. The
worker runs exactly once, from commit to commit in the middle of the run, windows judged and readings written on the
way: without a topic of feedback, and *with labels*, which is the default: every prediction is then held to be joined,
and one in {label_every} gets its label {label_seconds} seconds later. *River, by hand* is a loop with ADWIN and
Page-Hinkley of River for every numeric feature and a histogram of every feature, for the model as a whole; *bare* is
`consume` and `orjson.loads` and nothing else.

| loop | events/s | processor time per event |
|---|---:|---:|
| bare | {ceiling:,.0f} | {ceiling_us:.1f} us |
| driftstream | {worker:,.0f} | {worker_us:.1f} us |
| driftstream, with labels | {labelled:,.0f} | {labelled_us:.1f} us |
| River, by hand | {river:,.0f} | {river_us:.1f} us |

| driftstream against | by the clock | by processor time | goal |
|---|---:|---:|---:|
| bare | {of_ceiling:.2f} | {of_ceiling_cpu:.2f} | 0.5 |
| River, by hand | {of_river:.1f} | {of_river_cpu:.1f} | 4 |

Processor time counts all threads, those of the Kafka client too.

## A window

Detect judges sums: {series} series (9 segments of all signals), each with its reading.

| events per window | quiet | with open episodes |
|---:|---:|---:|
| {one:,} | {quiet_1:.1f} ms | {open_1:.1f} ms |
| {ten:,} | {quiet_10:.1f} ms | {open_10:.1f} ms |

Ten times the traffic costs {growth:.2f} times as much. The state of {versions} such model versions, {state_mb:.0f} MB
or {series_kb:.1f} KB a series, is encoded in {encode_ms:.0f} ms and read back in {decode_ms:.0f} ms.

## Labels

Ten million predictions of the last week wait for their labels in one process; a tenth of the labels come, in no order.
Then what a restart costs: their records decoded and their rows held again. Rates are by processor time, one core.

| | measured | goal |
|---|---:|---:|
| resident, ten million predictions waiting | {resident:,.0f} MiB | 1,024 MiB |
| the same, after the labels | {resident_end:,.0f} MiB | |
| pairs/s, from records of labels to records of outcomes | {pairs:,.0f} | 150,000 |
| rows/s of a restart | {restored:,.0f} | 300,000 |

## Detectors

A thousand series at once, one core.

| detector | series-windows/s |
|---|---:|
{detectors}
"""


def page(events: int, compared: Compared, costs: Costs, labels: join.Costs, rates: dict[str, float]) -> str:
    """The page of documentation."""
    worker = compared.cpu_us("worker")
    return TEXT.format(
        machine=f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}",
        kafka=VERSION,
        events=events,
        rounds=len(compared.loops["worker"]),
        label_every=through.LABEL_EVERY,
        label_seconds=through.LABEL_DELAY_MS // 1_000,
        **{name: compared.rate(name) for name in compared.loops},
        **{f"{name}_us": compared.cpu_us(name) for name in compared.loops},
        of_ceiling=compared.ratio("worker", "ceiling"),
        of_ceiling_cpu=compared.cpu_us("ceiling") / worker,
        of_river=compared.ratio("worker", "river"),
        of_river_cpu=compared.cpu_us("river") / worker,
        series=costs.series,
        one=windows.EVENTS,
        ten=10 * windows.EVENTS,
        quiet_1=costs.quiet_ms[1],
        quiet_10=costs.quiet_ms[10],
        open_1=costs.open_ms[1],
        open_10=costs.open_ms[10],
        growth=costs.growth,
        versions=windows.VERSIONS,
        state_mb=costs.state_bytes / 1e6,
        series_kb=costs.state_bytes / windows.VERSIONS / costs.series / 1e3,
        encode_ms=costs.encode_ms,
        decode_ms=costs.decode_ms,
        resident=labels.resident_mib,
        resident_end=labels.resident_end_mib,
        pairs=labels.pairs_per_second,
        restored=labels.restored_per_second,
        detectors="\n".join(f"| {name} | {rate:,.0f} |" for name, rate in rates.items()),
    )


def main(arguments: Sequence[str]) -> None:
    """Measure what the page shows, write it, then print the figures behind it."""
    events = int(arguments[0]) if arguments else EVENTS
    try:
        with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as cluster:
            compared = through.compare(cluster, events)
    except UnavailableError as error:
        sys.exit(f"{error}.")
    rates = {name: detectors.rate(turn) for name, turn in detectors.subjects().items()}
    text = page(events, compared, windows.measured(), join.measured(), rates)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    for title, more in (("Decoding", decode), ("Folding", fold), ("Detectors against what is published", figures)):
        print(f"== {title}")
        more.main()


if __name__ == "__main__":
    main(sys.argv[1:])
