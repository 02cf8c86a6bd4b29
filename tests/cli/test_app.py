"""The doorway itself: the table of commands, help, version, exit codes and the style of messages."""

import subprocess
import sys

import pytest
from doorway import Drift

from stream.cli import app as commands
from stream.worker.ends import EXIT_BUG, EXIT_CONFIGURATION, EXIT_DECISION, Stopped


def test_help_names_every_command(drift: Drift) -> None:
    result = drift("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.stdout for name in commands.COMMANDS)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help_of_its_own(drift: Drift, name: str) -> None:
    result = drift(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: drift {name}" in result.stdout
    assert commands.COMMANDS[name].rstrip(".") in " ".join(result.stdout.split())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['drift', '--help']\n"
        "from stream.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'river', 'confluent_kafka', 'pydantic', 'structlog', 'rich', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version_is_told(drift: Drift) -> None:
    result = drift("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("driftstream ")


@pytest.mark.parametrize("arguments", [["bogus"], ["config", "show", "--bogus"], ["schema"], ["schema", "bogus"], []])
def test_wrong_usage_is_exit_code_2(drift: Drift, arguments: list[str]) -> None:
    result = drift(*arguments)
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (Stopped(EXIT_CONFIGURATION, "x", "a: one\nb: two"), EXIT_CONFIGURATION, "drift: a: one\ndrift: b: two\n"),
        (Stopped(EXIT_DECISION, "x", "decide"), EXIT_DECISION, "drift: decide\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_whatever_stops_a_command_is_one_sentence_and_a_code(
    drift: Drift, monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int, said: str
) -> None:
    monkeypatch.setattr("stream.cli.schema._schema", _raising(error))
    result = drift("schema", "alert")
    assert result.exit_code == exit_code
    assert result.stderr == said


def test_a_bug_is_exit_code_70_with_what_a_report_needs(drift: Drift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cli.schema._schema", _raising(KeyError("x")))
    result = drift("schema", "alert")
    assert result.exit_code == EXIT_BUG
    assert "Traceback" in result.stderr
    assert "drift: a bug, not your doing: KeyError. Please report it with the lines above." in result.stderr


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -c 'from stream.cli import main; main()' schema alert | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def _raising(error: Exception) -> object:
    def raises(*_: object) -> None:
        raise error

    return raises
