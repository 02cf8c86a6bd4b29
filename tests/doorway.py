"""The command line as tests call it."""

from collections.abc import Callable
from typing import TypeAlias

from typer.testing import CliRunner, Result

from stream.cli.app import app

Drift: TypeAlias = Callable[..., Result]


def drift(*arguments: object, **options: object) -> Result:
    """Arguments in; exit code, stdout and stderr out."""
    return CliRunner().invoke(app, [str(one) for one in arguments], prog_name="drift", **options)  # type: ignore[arg-type]
