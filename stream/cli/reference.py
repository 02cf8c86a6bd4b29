"""`drift reference`: build what is normal from a file, look at it, publish it."""

import time
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from msgspec.structs import replace

from stream.cli import labelled
from stream.cli.binding import declared
from stream.cli.clients import Log, tell, write
from stream.cli.columns import aligned
from stream.cli.options import Color, Colors, ConfigFile, FileFormats, Format, Properties, console, new_app, settings
from stream.cli.references import outgoing, read_references, records_of, training_rows
from stream.config import Config, worker_settings
from stream.profiles import building, outcome_learning
from stream.profiles.cuts import Plan, Row
from stream.wire import codec
from stream.wire.codec import Malformed
from stream.wire.internal import Reference, SignalReference
from stream.wire.times import parse_time, rfc3339
from stream.worker import files
from stream.worker.ends import Stopped
from stream.worker.settings import Settings

WINDOWS_AHEAD: Final = 2
"""A reference comes into force so many windows after its publication: by then every worker has heard of it."""
EXIT_CHECK_FAILED: Final = 1

app = new_app("Build, show or publish what is normal for a model version.")
EffectiveFrom = Annotated[
    str | None,
    typer.Option("--effective-from", metavar="TIME", help="In force from here, such as 2026-11-21T00:00:00Z."),
]


@app.command()
def build(
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="Training rows; - is standard input.")],
    file: ConfigFile = None,
    properties: Properties = None,
    given: FileFormats = Format.AUTO,
    model: Annotated[str | None, typer.Option("--model", help="Needed if the files hold several.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Needed if the files hold several.")] = None,
    serving: Annotated[
        bool, typer.Option("--serving", help="The files are a complete log of serving, with times.")
    ] = False,
    effective_from: EffectiveFrom = None,
    out: Annotated[Path | None, typer.Option("--out", help="Else standard output.")] = None,
) -> None:
    """Build a reference from rows of predictions. In force from the first row on, unless said otherwise.

    Rows with `actual` make a second one, of outcomes, in a line of its own.
    """
    config = settings(file, properties).config
    try:
        records = records_of(paths, given.value)
        found, refused = training_rows(records, config.limits, config.windows.max_future)
    except files.UnreadableFileError as error:
        raise typer.BadParameter(str(error)) from None
    (model_id, model_version), rows = _chosen(found, model, version)
    first_ms = min(row.time_ms for row in rows)
    in_force_ms = _time(effective_from) if effective_from else first_ms - first_ms % config.windows.size
    plan = Plan(model_id, model_version, config.windows.size, declared(config, model_id))
    try:
        built = building.build(
            rows,
            plan,
            serving=serving,
            effective_from_ms=in_force_ms,
            sample_rows=config.learn.rows,
            timezone=config.seasonality.timezone,
        )
    except ValueError as error:
        raise Stopped(EXIT_CHECK_FAILED, "reference", f"{', '.join(paths)}: {error}") from None
    of_outcomes = _of_outcomes(config, built, paths, given, serving=serving)
    _write(b"\n".join(codec.encode_reference(one) for one in (built, *of_outcomes)), out)
    bad = f"; refused {sum(refused.values())} records ({_by_code(refused)})" if refused else ""
    tell(f"{built.reference_id}: {model_id}/{model_version}, {len(rows)} rows, {len(built.signals)} signals{bad}")
    for one in of_outcomes:
        tell(f"{one.reference_id}: {model_id}/{model_version}, outcomes of {one.n_rows} labelled rows")


def _of_outcomes(
    config: Config, inputs: Reference, paths: list[str], given: Format, *, serving: bool
) -> list[Reference]:
    """The reference of outcomes, if there are enough labels for one."""
    windows = labelled.outcomes_of(config, inputs, paths, given.value) if config.topics.feedback else []
    if not windows:
        return []
    try:
        return [
            outcome_learning.built(
                windows,
                serving=serving,
                size_ms=config.windows.size,
                effective_from_ms=parse_time(inputs.effective_from) or 0,
                data_ms=(windows[0].window_start_ms, windows[-1].window_start_ms + config.windows.size - 1),
            )
        ]
    except ValueError as error:
        tell(str(error))
        return []


@app.command()
def show(
    reference: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Without one: what is published.")] = None,
    file: ConfigFile = None,
    properties: Properties = None,
    color: Colors = Color.AUTO,
) -> None:
    """Show the references in a file, or list those published."""
    if reference is not None:
        for one in read_references(reference):
            _show_one(one, color)
        return
    config = worker_settings(settings(file, properties, connects=True).config)
    found = published(config)
    if not found:
        tell(f"{config.topics.of('references')} holds no reference")
    _show_all(found, color)


@app.command()
def publish(
    reference: Annotated[Path, typer.Argument(metavar="FILE", help="Made by `drift reference build`.")],
    file: ConfigFile = None,
    properties: Properties = None,
    effective_from: EffectiveFrom = None,
) -> None:
    """Publish the references of a file to all workers, in force two windows from now unless said otherwise."""
    loaded = settings(file, properties, connects=True)
    now_ms, size_ms = time.time_ns() // 1_000_000, loaded.config.windows.size
    in_force_ms = _time(effective_from) if effective_from else now_ms - now_ms % size_ms + WINDOWS_AHEAD * size_ms
    for read in read_references(reference):
        if read.window_rows is not None and read.window_size_ms != size_ms:
            tell(f"{reference} was built with windows of {read.window_size_ms} ms; overdispersion will be off")
        dated = codec.named(replace(read, effective_from=rfc3339(in_force_ms)))
        send(worker_settings(loaded.config), dated)
        typer.echo(f"{dated.reference_id} {dated.model_id}/{dated.model_version} in force from {dated.effective_from}")


def send(config: Settings, reference: Reference) -> None:
    """Write a reference into its topic. `Stopped`, exit code 4, if the broker does not take it."""
    write(config, outgoing(reference))


def published(config: Settings) -> list[Reference]:
    """The references in the topic, retired ones left out, by model, version and time."""
    with Log(config, config.topics.of("references")) as log:
        latest = {record.key: record.value for record in sorted(log.history(None, None), key=lambda one: one.offset)}
    found = [codec.decode_reference(value) for value in latest.values() if value is not None]
    known = [reference for reference in found if not isinstance(reference, Malformed)]
    if len(known) < len(found):
        tell(f"{len(found) - len(known)} references cannot be read")
    return sorted(known, key=lambda one: (one.model_id, one.model_version, one.effective_from))


def _chosen(
    found: dict[tuple[str, str], list[Row]], model: str | None, version: str | None
) -> tuple[tuple[str, str], list[Row]]:
    matching = {name: rows for name, rows in found.items() if model in {None, name[0]} and version in {None, name[1]}}
    if len(matching) == 1:
        return next(iter(matching.items()))
    names = ", ".join(f"{model_id}/{model_version}" for model_id, model_version in sorted(found)[:10]) or "none"
    if not matching:
        raise typer.BadParameter(f"no good row of such a model; the files hold: {names}")
    raise typer.BadParameter(f"several models; choose one with --model and --version: {names}")


def _time(text: str) -> int:
    if (found := parse_time(text)) is None:
        raise typer.BadParameter(
            f"{text!r}: expected a time such as 2026-11-21T00:00:00Z", param_hint="--effective-from"
        )
    return found


def _by_code(refused: dict[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(refused.items()))


def _write(data: bytes, out: Path | None) -> None:
    if out is None:
        typer.echo(data)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise typer.BadParameter(f"{out}: {error.strerror}", param_hint="--out") from None


def _show_one(reference: Reference, color: Color) -> None:
    screen = console(color)
    screen.print(f"{reference.reference_id}  {reference.model_id}/{reference.model_version}", style="bold")
    rows_of = "labelled rows" if reference.scope == "outcomes" else "rows"
    screen.print(f"{reference.origin}{'' if reference.complete else ', incomplete'}, {reference.n_rows} {rows_of}")
    screen.print(f"data {reference.data_from} to {reference.data_to}, in force from {reference.effective_from}")
    if reference.window_rows is not None:
        screen.print(f"{reference.window_rows:.1f} rows per window of {reference.window_size_ms} ms")
    for key, values in reference.segments.items():
        screen.print(f"segments of {key}: {', '.join(values)}, other")
    rows = [["signal", "type", "bins", "missing", "invalid", "overdispersion", "normal"]]
    for name, signal in reference.signals.items():
        spread = _spread(reference, name)
        phi = "" if spread is None else f"{spread:.2f}"
        counted = [str(len(signal.counts)), str(signal.missing), str(signal.invalid)]
        rows.append([name, signal.type, *counted, phi, _normal(signal)])
    for line in aligned(rows):
        screen.print(line)


def _spread(reference: Reference, name: str) -> float | None:
    """Overdispersion of a signal, of outcomes that of its first member."""
    if reference.outcomes is None:
        return reference.signals[name].overdispersion
    members = reference.outcomes.serving.get("all", {})
    return next((phi for member, (phi, _) in members.items() if member.startswith(f"{name} ")), None)


def _normal(signal: SignalReference) -> str:
    if signal.edges is not None and signal.mean is None:
        return "" if not sum(signal.counts) else f"median {_median(signal):.6g}"
    if signal.mean is not None and signal.std is not None:
        return f"mean {signal.mean:.6g}, std {signal.std:.6g}"
    total = sum(signal.counts) or 1
    names = signal.categories if signal.categories is not None else ["false", "true"]
    ranked = sorted(zip(signal.counts, names, strict=False), reverse=True)[:3]
    return ", ".join(f"{name} {count / total:.0%}" for count, name in ranked)


def _median(signal: SignalReference) -> float:
    edges, counts = signal.edges or [0.0], np.cumsum(signal.counts)
    return edges[min(int(np.searchsorted(counts, counts[-1] / 2)), len(edges) - 1)]


def _show_all(references: list[Reference], color: Color) -> None:
    rows = [["reference", "model", "version", "of", "origin", "rows", "in force from"]]
    for one in references:
        origin = one.origin if one.complete else f"{one.origin}, incomplete"
        named = [one.reference_id, one.model_id, one.model_version, one.scope]
        rows.append([*named, origin, str(one.n_rows), one.effective_from])
    for line in aligned(rows) if references else []:
        console(color).print(line)
