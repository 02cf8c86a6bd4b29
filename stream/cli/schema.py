"""`drift schema NAME`: the JSON Schemas of what we publish, of what we are told, and of the configuration."""

import json
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from stream.cli.options import new_app
from stream.config import Config
from stream.wire import control, outbound

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

app = new_app()


class Name(StrEnum):
    """What has a schema."""

    CONFIG = "config"
    ALERT = "alert"
    WINDOW = "window"
    CONTROL = "control"


class Draft(StrEnum):
    """Dialects of JSON Schema."""

    D2020 = "2020-12"
    D7 = "7"


@app.command()
def schema(
    name: Annotated[Name, typer.Argument(metavar="|".join(Name), help="What to describe.")],
    draft: Annotated[
        Draft, typer.Option("--draft", help="JSON Schema 2020-12, or draft 7 for older tools.")
    ] = Draft.D2020,
) -> None:
    """Print a JSON Schema: config, alert, window or control."""
    typer.echo(json.dumps(_schema(name, draft), indent=2, ensure_ascii=False))


def _schema(name: Name, draft: Draft) -> dict[str, Any]:
    dialect: outbound.Draft = "7" if draft is Draft.D7 else "2020-12"
    if name is Name.CONTROL:
        return control.json_schema(dialect)
    if name is not Name.CONFIG:
        return outbound.json_schema(name.value, dialect)
    if draft is Draft.D7:
        raise typer.BadParameter("the schema of the configuration exists as 2020-12 only", param_hint="--draft")
    return {"$schema": DIALECT, **Config.model_json_schema(), "title": "drift.toml"}
