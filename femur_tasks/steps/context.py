"""What every step works with: the registry, the object store, the settings and the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from femur_tasks.registry.database import Registry
from femur_tasks.settings import Settings, settings
from femur_tasks.storage import ObjectStore, open_store


@dataclass(frozen=True)
class Context:
    """Handed to every step; tests hand over a memory store, a temporary database and a clock of their own."""

    registry: Registry
    store: ObjectStore
    settings: Settings
    now: Callable[[], datetime]


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def open_context() -> Context:
    """The context that the settings of this process describe.

    Raises:
        Unreachable: the store or the registry does not answer.
    """
    chosen = settings()
    return Context(Registry(chosen.database_url), open_store(chosen), chosen, utc_now)
