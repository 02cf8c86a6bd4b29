"""`drift config show`: the settings in force, as a file, with the origin of each."""

import json
import re
from enum import StrEnum
from typing import Annotated, Any

import typer

from stream.cli.options import ConfigFile, Properties, new_app, settings
from stream.config import rows

app = new_app("Show the settings in force and where each comes from.")


class Form(StrEnum):
    """How to print."""

    TOML = "toml"
    JSON = "json"


@app.callback()
def group() -> None:
    """Show the settings in force and where each comes from."""


@app.command()
def show(
    file: ConfigFile = None,
    properties: Properties = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="toml, or json with an origin per key.")] = Form.TOML,
) -> None:
    """Print every setting with its origin; secrets as ***."""
    loaded = settings(file, properties)
    found = list(rows(loaded))
    if output is Form.JSON:
        table = {name: {"value": value, "origin": origin} for name, value, origin in found}
        typer.echo(json.dumps({"config_id": loaded.config_id, "settings": table}, indent=2, ensure_ascii=False))
        return
    typer.echo(f"# config_id {loaded.config_id}")
    lines = [(f"{_key(name)} = {_written(value)}", origin) for name, value, origin in found]
    width = max(len(line) for line, _ in lines if len(line) < _WIDE)
    for line, origin in lines:
        typer.echo(f"{line:<{width}}  # {origin}")


_WIDE = 60


def _key(name: str) -> str:
    """Of a list entry its index stays visible: such lines are for reading."""
    return ".".join(part if re.fullmatch(r"[\w-]+(\[\d+\])?", part) else json.dumps(part) for part in name.split("."))


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    return json.dumps(value, ensure_ascii=False)
