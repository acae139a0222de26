"""Logs: lines that carry the ids of what is worked on, for people or as JSON, without secrets.

Under Airflow its own structlog writes them, ids included; this is for the CLI and for processes of our own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, MutableMapping
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def naming(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have what a function logs, and all that it calls, carry its arguments of these names."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            from structlog.contextvars import bound_contextvars

            given = signature.bind(*args, **kwargs).arguments
            with bound_contextvars(**{name: given[name] for name in names if name in given}):
                return function(*args, **kwargs)

        return named

    return decorate


def ids() -> dict[str, Any]:
    """What lines of this moment carry, to be handed to another process."""
    from structlog.contextvars import get_contextvars

    return get_contextvars()


class Lines(logging.StreamHandler[Any]):
    """Writes to stderr as `FEMUR_LOG_FORMAT` says; what that needs is loaded with the first line."""

    @cached_property
    def _formatter(self) -> logging.Formatter:
        import structlog
        from structlog.processors import JSONRenderer, TimeStamper, add_log_level, format_exc_info

        from femur_tasks.settings import settings

        steps: list[Any] = [structlog.contextvars.merge_contextvars]
        if settings().log_format == "json":
            last: Any = JSONRenderer(ensure_ascii=False)
            steps += [add_log_level, TimeStamper(fmt="iso"), structlog.stdlib.add_logger_name]
        else:
            last = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
        remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps, processors=[remove, format_exc_info, _without_secrets, last]
        )

    def format(self, record: logging.LogRecord) -> str:
        return self._formatter.format(record)


def _without_secrets(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    from femur_tasks.redaction import redacted
    from femur_tasks.settings import settings

    return {name: redacted(value, settings()) if isinstance(value, str) else value for name, value in line.items()}
