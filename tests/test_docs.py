"""What the documents say of settings and commands is what the program says."""

import json
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from doorway import drift
from typer.main import get_command

from stream import config
from stream.cli.app import COMMANDS
from stream.config import Config, Loaded
from stream.wire import feedback
from stream.wire.inbound import Limits
from stream.wire.record import Batch
from stream.wire.times import parse_time

DOCS: Final = Path(__file__).parent.parent / "docs"
TABLE: Final = re.compile(r"^\| `([\w.]+)` \| (.+?) \|", re.MULTILINE)
DEFAULTS: Final = {
    name: value for name, value, _ in config.rows(Loaded(Config(), {}, frozenset())) if not name.startswith("models")
}
OF_MODELS: Final = {
    "id",
    "task",
    "positive_label",
    "champion",
    "challengers",
    "segments",
    "features.NAME.type",
    "features.NAME.watch",
    "features.NAME.importance",
    "alerts.severity",
}


def documented() -> dict[str, str]:
    return dict(TABLE.findall((DOCS / "configuration.md").read_text()))


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_setting_is_documented_with_its_default(key: str) -> None:
    assert documented()[key] == f"`{json.dumps(DEFAULTS[key])}`"


def test_nothing_is_documented_that_does_not_exist() -> None:
    assert documented().keys() == {*DEFAULTS, *(f"models.{key}" for key in OF_MODELS)}


def test_every_setting_of_a_model_is_documented() -> None:
    model: dict[str, Any] = {"id": "m", "features": {"NAME": {"type": "numeric"}}}
    loaded = Loaded(Config.model_validate({"models": [model]}), {}, frozenset())
    names = {name for name, _, _ in config.rows(loaded) if name.startswith("models")}
    assert names == {f"models[0].{key}" for key in OF_MODELS}


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL))
def test_every_example_of_a_configuration_is_valid(block: str, tmp_path: Path) -> None:
    file = tmp_path / "drift.toml"
    file.write_text(block.replace("${file:/run/secrets/kafka}", "x"))
    config.load(file, {})


def test_every_label_that_the_guide_shows_can_be_read() -> None:
    (block,) = re.findall(r"```jsonl\n(.*?)```", (DOCS / "guides/labels.md").read_text(), re.DOTALL)
    shown: list[bytes | None] = block.encode().splitlines()
    n, now_ms = len(shown), parse_time("2026-11-25T00:00:00Z") or 0
    batch = Batch("feedback", 0, list(range(n)), [now_ms] * n, [None] * n, shown, [None] * n)
    labels = feedback.decode(batch, Limits(), 0)
    assert (len(labels), labels.malformed, labels.unknown_fields) == (3, [], 0)


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", (DOCS / "guides/labels.md").read_text(), re.DOTALL))
def test_every_setting_that_a_guide_shows_is_valid(block: str, tmp_path: Path) -> None:
    file = tmp_path / "drift.toml"
    file.write_text(block)
    config.load(file, {})


def commands() -> Iterator[list[str]]:
    """The words of every command, those of groups one by one."""
    yield []
    for name in COMMANDS:
        command: Any = get_command(import_module(f"stream.cli.{name}").app)
        yield from ([name, inner] for inner in command.commands) if hasattr(command, "commands") else [[name]]


def helped(words: list[str]) -> str:
    title = f"## drift {' '.join(words)}\n\n" if words else ""
    shown = drift(*words, "--help", env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    return f"{title}```console\n$ {' '.join(['drift', *words, '--help'])}\n{shown}```\n"


def test_the_help_in_the_documents_is_the_help_of_the_program() -> None:
    """With DRIFT_REWRITE=1 the page is brought up to date."""
    page = DOCS / "command-line.md"
    text = page.read_text()
    introduction = text[: text.index("```console")]
    generated = introduction + "\n".join(map(helped, commands()))
    if os.environ.get("DRIFT_REWRITE") == "1":
        page.write_text(generated)
    assert page.read_text() == generated
