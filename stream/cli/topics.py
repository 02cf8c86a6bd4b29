"""`drift topics`: make the topics of the system, or say what is wrong with them."""

from typing import Annotated

import typer
from confluent_kafka import KafkaException

from stream.cli.clients import ANSWER_SECONDS
from stream.cli.options import ConfigFile, Properties, new_app, settings
from stream.config import worker_settings
from stream.worker import access, topics
from stream.worker.ends import EXIT_ACCESS, EXIT_CONFIGURATION, Stopped
from stream.worker.settings import Settings

app = new_app("Create or check the topics.")


@app.command()
def create(
    file: ConfigFile = None,
    properties: Properties = None,
    partitions: Annotated[int, typer.Option("--partitions", min=1, help="Of each topic.")] = topics.DEFAULT_PARTITIONS,
    replication: Annotated[int, typer.Option("--replication-factor", min=1, help="1 on a single broker.")] = 3,
    inputs: Annotated[
        int | None, typer.Option("--inputs", metavar="PARTITIONS", min=1, help="Make the input topics too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the broker, make nothing.")] = False,
) -> None:
    """Make what is missing. Doing it twice is harmless."""
    config = _connected(file, properties)
    made = topics.create(config, partitions=partitions, replication=replication, inputs=inputs, dry_run=dry_run)
    refused = {name: answer for name, answer in made.items() if answer not in {"created", "exists"}}
    for name in sorted(made.keys() - refused.keys()):
        typer.echo(f"{name} {'would be created' if dry_run and made[name] == 'created' else made[name]}")
    if refused:
        code = EXIT_ACCESS if any("AUTHORIZATION" in answer for answer in refused.values()) else EXIT_CONFIGURATION
        raise Stopped(code, "topics", "\n".join(f"{name}: {answer}" for name, answer in sorted(refused.items())))


@app.command()
def check(file: ConfigFile = None, properties: Properties = None) -> None:
    """Say what is wrong with the topics; exit code 3 if a worker would not start."""
    config = _connected(file, properties)
    try:
        findings = topics.check(config)
    except KafkaException as error:
        raise Stopped(EXIT_ACCESS, "topics", f"{config.kafka.bootstrap_servers}: {error.args[0].str()}") from None
    for finding in findings:
        if finding.level == "warning":
            typer.echo(f"warning: {finding}")
    if faults := [str(finding) for finding in findings if finding.level == "fault"]:
        raise Stopped(EXIT_CONFIGURATION, "topics", "\n".join(faults))
    typer.echo(f"{len(topics.specs(config)) + len(topics.inputs_of(config))} topics are as they should be")


def _connected(file: ConfigFile, properties: Properties) -> Settings:
    config = worker_settings(settings(file, properties, connects=True).config)
    access.wait_for_broker(config, lambda *_args, **_fields: None, lambda: False, ANSWER_SECONDS)
    return config
