"""`drift`: the table of commands. A command's module, and all it imports, is loaded when the command is called."""

import importlib
import os
import sys
import traceback
from contextlib import suppress
from io import UnsupportedOperation
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from stream.worker.ends import EXIT_BUG, EXIT_OK, Stopped

COMMANDS: Final = {
    "run": "Run the service: read predictions, publish alerts.",
    "demo": "See it work in a minute: real data and a planted drift.",
    "replay": "Run the same stages over files, without Kafka.",
    "tail": "Show alerts, and follow them.",
    "status": "Show what is open, how far the workers have come, and what the budget buys.",
    "reference": "Build, show or publish what is normal for a model version.",
    "control": "Write a decision: mute, relearn, resolve, retrained or marker.",
    "topics": "Create or check the topics.",
    "validate": "Check a configuration, or files of records, without Kafka.",
    "config": "Show the settings in force and where each comes from.",
    "health": "Ask a running worker whether it is ready.",
    "evaluate": "Measure false alarms, delays and recall on streams whose changes are known.",
    "schema": "Print a JSON Schema: config, alert, window or control.",
}
"""Name and first line of help, here so that `drift --help` loads nothing else."""


class _Commands(TyperGroup):
    """Loads a command when it is called, and turns exceptions into one sentence and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the same whatever the context
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """A card with the name and the help: enough for lists and completion."""
        return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, card, rest = super().resolve_command(ctx, args)
        if name is None:
            return name, card, rest
        module = importlib.import_module(f"stream.cli.{name}")
        command = typer.main.get_command(module.app)
        command.name = name
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except Stopped as stopped:
            _complain(stopped.detail)
            raise typer.Exit(stopped.exit_code) from None
        except BrokenPipeError:  # whoever read our output has seen enough
            with suppress(UnsupportedOperation):  # not a file: nothing is left to be flushed into it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_OK) from None
        except (KeyboardInterrupt, typer.Exit, typer.Abort, typer.BadParameter.__base__):  # type: ignore[misc]
            raise
        except Exception as error:  # noqa: BLE001 - the last door: a bug ends with its code and a request
            traceback.print_exc()
            _complain(f"a bug, not your doing: {type(error).__name__}. Please report it with the lines above.")
            raise typer.Exit(EXIT_BUG) from None
        return result


app = typer.Typer(
    cls=_Commands,
    help="Know within minutes that your model's inputs or answers have changed. Reads Kafka, writes alerts to Kafka.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"driftstream {version('driftstream')}")
        raise typer.Exit


@app.callback()
def drift(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Know within minutes that your model's inputs or answers have changed. Reads Kafka, writes alerts to Kafka."""


def _complain(detail: str) -> None:
    for sentence in detail.splitlines() or [""]:
        typer.echo(f"drift: {sentence}", err=True)
