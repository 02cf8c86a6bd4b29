"""`drift evaluate`: a configuration over streams whose changes are known, beside other detectors."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stream.cli.clients import tell
from stream.cli.evaluate import page
from stream.cli.evaluate.measure import Result, measure
from stream.cli.evaluate.scenario import Scenario, UnusableError, built_in, load
from stream.cli.options import ConfigFile, new_app, settings

app = new_app()


@app.command()
def evaluate(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[SCENARIO]...", help="Scenario files; else those of the project.")
    ] = None,
    file: ConfigFile = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all draws: the same seed, the same page.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For detection.md and its charts; else the page alone.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Processes; 0: one per core.")] = 0,
) -> None:
    """Measure false alarms, delays and recall on streams whose changes are known, beside other detectors."""
    try:
        scenarios = [one for path in paths for one in load(path)] if paths else built_in()
        base = settings(file).config.model_dump(mode="json", exclude_unset=True) if file is not None else {}
        results = _measured(scenarios, base, seed, jobs or os.cpu_count() or 1)
    except UnusableError as error:
        raise typer.BadParameter(str(error)) from None
    named = " ".join(["drift evaluate", *(path.name for path in paths or ()), f"--seed {seed}"])
    text = page.page(results, named, "detection")
    if out is None:
        sys.stdout.write(text)
    else:
        _written(out, text, results)
        holding = sum(result.holds and not result.scenario.missing for result in results)
        typer.echo(f"{out / 'detection.md'}: {holding} of {len(results)} rows hold")


def _measured(scenarios: Sequence[Scenario], base: dict[str, Any], seed: int, jobs: int) -> list[Result]:
    """In the order of the scenarios, whatever is ready first; every one that is ready is told on stderr."""
    if jobs == 1 or len(scenarios) == 1:
        return [measure(scenario, base, seed) for scenario in scenarios]
    found: dict[int, Result] = {}
    with ProcessPoolExecutor(min(jobs, len(scenarios)), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(measure, one, base, seed): place for place, one in enumerate(scenarios)}
        try:
            for done in as_completed(waiting):
                found[waiting[done]] = result = done.result()
                tell(f"{len(found)} of {len(scenarios)}: {result.scenario.name}, {result.scenario.title}")
        finally:
            pool.shutdown(cancel_futures=True)
    return [found[place] for place in range(len(scenarios))]


def _written(out: Path, text: str, results: Sequence[Result]) -> None:
    charts = out / "detection"
    charts.mkdir(parents=True, exist_ok=True)
    (out / "detection.md").write_text(text, encoding="utf-8")
    for name, svg in page.charts(results):
        (charts / f"{name}.svg").write_text(svg, encoding="utf-8")
    plain = msgspec.json.format(msgspec.json.encode(list(_plain(results))), indent=1)
    (charts / "figures.json").write_bytes(plain + b"\n")


def _plain(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """What other programs may want of the results."""
    for one in results:
        yield {
            "scenario": one.scenario.name,
            "title": one.scenario.title,
            "holds": one.holds if not one.scenario.missing else None,
            "checks": [msgspec.structs.asdict(check) for check in one.checks],
            "detectors": [
                {"name": f.detector, "changes": f.changes, "found": f.found, "delays_rows": sorted(f.delays)}
                | {"false_alarms": f.false_alarms, "rows": f.rows}
                for f in one.figures
            ],
        }
