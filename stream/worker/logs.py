"""One JSON object per line on stderr: transactions, alerts, changes of tasks. Never a feature value or a secret."""

import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from stream.worker.settings import Log
from stream.worker.task import Task

TEXT_MAX: Final = 256
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
LOUD: Final = {
    "client": "warning",
    "topic_warning": "warning",
    "topic_fault": "error",
    "waiting_for_broker": "warning",
    "aborted": "warning",
    "budget_exceeded": "warning",
    "lost": "warning",
    "snapshot_refused": "warning",
    "reset_accepted": "warning",
    "replay_differs": "error",
    "stopped": "error",
}
"""Events that are not of level info."""


def speaker(settings: Log, **always: str) -> Callable[..., None]:
    """A function `say(event, **fields)` that writes one line; a `task` field becomes stage, topic and partition."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _bounded,
            structlog.processors.ExceptionRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
    ).bind(**always)

    def say(event: str, *, task: Task | None = None, **fields: Any) -> None:
        if task is not None:
            fields |= {"stage": task.stage, "topic": task.partition[0], "partition": task.partition[1]}
        getattr(logger, LOUD.get(event, "info"))(event, **fields)

    return say


def _bounded(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Foreign text is cut and stays on its line."""
    for name, value in event.items():
        if isinstance(value, str):
            text = value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
            event[name] = text[:TEXT_MAX]
    return event
