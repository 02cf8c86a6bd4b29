"""Options that several commands have, and what they are turned into."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from stream import config
from stream.config import Loaded
from stream.worker.ends import EXIT_CONFIGURATION, Stopped


class Color(StrEnum):
    """When to colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Severity(StrEnum):
    """The ladder, from the lowest."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Format(StrEnum):
    """Kinds of files."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


ConfigFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Configuration; else DRIFT_CONFIG, else ./drift.toml."),
]
Properties: TypeAlias = Annotated[
    list[str] | None, typer.Option("-X", metavar="KEY=VALUE", help="A property for librdkafka. Repeatable.")
]
Colors: TypeAlias = Annotated[Color, typer.Option("--color", help="Colour: auto is on a terminal only.")]

FileFormats: TypeAlias = Annotated[
    Format, typer.Option("--format", help="Kind of the files; by default their name tells.")
]


def new_app(help_text: str | None = None) -> typer.Typer:
    """The Typer of one command or one group of commands."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        no_args_is_help=help_text is not None,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def settings(file: Path | None, properties: Sequence[str] | None = None, *, connects: bool = False) -> Loaded:
    """The configuration in force; with `connects` it must name a cluster. Raises `Stopped`, exit code 3."""
    path = config.find(file, os.environ)
    loaded = config.load(path, os.environ, properties or ())
    if connects and not loaded.config.kafka.bootstrap_servers:
        place = "" if path is None else f"{path}: "
        sentence = (
            f"{place}kafka.bootstrap_servers is not set; set it in drift.toml or as "
            "DRIFT_KAFKA__BOOTSTRAP_SERVERS, such as localhost:9092"
        )
        raise Stopped(EXIT_CONFIGURATION, "configuration", sentence)
    return loaded


def console(color: Color, *, words: bool = False) -> Console:
    """Where to print: data to stdout, with `words` to stderr. Lines are as long as they are; NO_COLOR is obeyed."""
    file = sys.stderr if words else sys.stdout
    forced = {Color.AUTO: None, Color.ALWAYS: True, Color.NEVER: False}[color]
    plain = color is Color.NEVER or (color is Color.AUTO and bool(os.environ.get("NO_COLOR")))
    return Console(file=file, force_terminal=forced, no_color=plain, highlight=False, soft_wrap=True, markup=False)
