"""The doorway: one module per command, which parses, loads the Config, calls one function and prints.

Data goes to stdout, words to stderr. Exit codes are those of `contracts.md` 14; a `Stopped` on its way up brings its
own.
"""


def main() -> None:
    """Entry point of the program."""
    from stream.cli.app import app

    app(prog_name="drift")
