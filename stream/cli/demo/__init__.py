"""`drift demo`: real data, a planted drift and the real worker, in one process and about a minute."""

from typing import Annotated

import typer

from stream.cli.options import Color, Colors, ConfigFile, Properties, new_app, settings

app = new_app()


@app.command()
def demo(
    file: ConfigFile = None,
    properties: Properties = None,
    color: Colors = Color.AUTO,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as it goes, instead of in real time.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the shuffle and the draws. Same seed, same text.")] = 7,
    produce: Annotated[
        bool, typer.Option("--produce", help="Only the data, for ever, into the configured Kafka.")
    ] = False,
) -> None:
    """See it work in a minute: real data and a planted drift.

    No service is needed. Exit code 1 if the drift was not reported.
    """
    if produce:
        from stream.cli.demo.traffic import produce as produce_traffic

        produce_traffic(settings(file, properties, connects=True), seed)
        return
    from stream.cli.demo.stage import perform

    raise typer.Exit(perform(seed, color, fast=fast))
