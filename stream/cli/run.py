"""`drift run`: the service, as one process or as several."""

import os
import sys
from typing import Annotated

import typer

from stream.cli.binding import bound
from stream.cli.options import ConfigFile, Properties, new_app, settings
from stream.config import worker_settings
from stream.worker.run import run as run_worker
from stream.worker.run import supervise

app = new_app()


@app.command()
def run(
    file: ConfigFile = None,
    properties: Properties = None,
    slot: Annotated[str | None, typer.Option("--slot", help="Stable number of this worker; else DRIFT_SLOT.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; slots and HTTP ports count up.")] = 1,
    check: Annotated[bool, typer.Option("--check", help="Validate, connect, look at the topics, and exit.")] = False,
    accept_reset: Annotated[
        list[str] | None, typer.Option("--accept-reset", metavar="REASON", help="Go on after exit code 5. Repeatable.")
    ] = None,
) -> None:
    """Run the service: read predictions, publish alerts. Ends on SIGTERM with exit code 0."""
    loaded = settings(file, properties, connects=True)
    if workers > 1 and not check:
        command = [sys.executable, "-m", "stream", "run"]
        command += ["--config", str(file)] if file is not None else []
        command += [part for text in properties or () for part in ("-X", text)]
        command += [part for reason in accept_reset or () for part in ("--accept-reset", reason)]
        raise typer.Exit(supervise(command, workers, first_slot=_first(slot), http_port=loaded.config.http.port))
    code = run_worker(
        worker_settings(loaded.config), bound(loaded), slot=slot, accepted=accept_reset or (), check_only=check
    )
    raise typer.Exit(code)


def _first(slot: str | None) -> int:
    """Slots of several workers count up from a number."""
    given = slot or os.environ.get("DRIFT_SLOT") or "0"
    if not given.isdecimal():
        raise typer.BadParameter(f"{given!r}: with --workers the first slot must be a number", param_hint="--slot")
    return int(given)
