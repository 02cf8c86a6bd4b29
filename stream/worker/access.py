"""Whether the broker is there and lets us in, asked before anything else: later calls only hang, without a cause."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.worker import clients
from stream.worker.ends import EXIT_ACCESS, Stopped
from stream.worker.settings import Settings

REFUSALS: Final = 3
"""Of the same kind, before it counts: one comes on healthy connections too."""
SAY_SECONDS: Final = 10.0


def wait_for_broker(
    settings: Settings,
    say: Callable[..., None],
    stopping: Callable[[], bool],
    patience_seconds: float | None = None,
) -> None:
    """Return when the broker answers. Stopped with exit code 4 when it refuses us, or at the end of the patience."""
    errors = clients.Errors(Counter())
    client = AdminClient(clients.common(settings, "admin") | {"error_cb": errors}, logger=clients.ClientLog(say))
    started = said = time.monotonic()
    while not stopping():
        try:
            client.list_topics(timeout=1)
        except KafkaException as error:
            clients.raise_if_denied(error.args[0], "connect")
            client.poll(0)
            reason = error.args[0].str()
        else:
            return
        if errors.refusals >= REFUSALS:
            raise Stopped(EXIT_ACCESS, "authentication", errors.last_refusal)
        now = time.monotonic()
        if patience_seconds is not None and now - started > patience_seconds:
            raise Stopped(EXIT_ACCESS, "unreachable", f"{settings.kafka.bootstrap_servers}: {reason}")
        if now - said > SAY_SECONDS:
            said = now
            say(
                "waiting_for_broker",
                detail=f"{settings.kafka.bootstrap_servers}: {reason}; a TLS port needs security.protocol",
            )
