"""What every step works with: the registry, the object store, the settings and the clock."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import SecretStr
from sqlalchemy import select

from femur_tasks.errors import Unreachable
from femur_tasks.processes import apart
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Base, Dataset
from femur_tasks.settings import Settings, settings
from femur_tasks.storage import MemoryStore, ObjectStore, open_store

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)
_TRAINS = (
    "femur_tasks.training.left_out",
    "femur_tasks.training.artefact",
    "femur_tasks.training.fit",
    "femur_tasks.training.pipeline",
    "femur_tasks.search.hyperband",
    "femur_tasks.steps.search",
    "minio",
)


@dataclass(frozen=True)
class Context:
    """Handed to every step; tests hand over a memory store, a temporary database and a clock of their own."""

    registry: Registry
    store: ObjectStore
    settings: Settings
    now: Callable[[], datetime]

    def apart(self, step: Callable[Concatenate[Context, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The step's answer from a process that has loaded what trains, and has one card where there are any.

        When it ends it gives back all memory that it used.

        Raises:
            Crashed: the process ended without an answer.
        """
        told = (self.settings, step, *args)
        return apart(_TRAINS, _in_context, *told, **kwargs)  # type: ignore[arg-type]  # of two generic functions


def _in_context(chosen: Settings, step: Callable[Concatenate[Context, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    from femur_tasks.training import device

    device.claim()
    return step(open_context(chosen), *args, **kwargs)


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def open_context(chosen: Settings | None = None) -> Context:
    """The context that the settings describe; without any, those of this process.

    Raises:
        Unreachable: the store or the registry does not answer.
    """
    chosen = chosen or settings()
    return Context(Registry(chosen.database_url), open_store(chosen), chosen, utc_now)


def open_dry_context(path: str) -> Context:
    """A context for a dry run: it reads what there is, needs no running stack, and leaves nothing behind.

    Args:
        path: the source; for one in the object store that store must answer.
    """
    chosen = settings()
    if not chosen.patient_key.get_secret_value() and not (chosen.home / "patient.key").exists():
        chosen = chosen.model_copy(update={"patient_key": SecretStr(secrets.token_hex(32))})
    store = open_store(chosen) if path.startswith("s3://") else MemoryStore()
    return Context(_readable_registry(chosen), store, chosen, utc_now)


def _readable_registry(chosen: Settings) -> Registry:
    """The registry where it answers, else an empty one in memory."""
    if chosen.registry_url or (chosen.home / "registry.db").exists():
        registry = Registry(chosen.database_url)
        try:
            with registry.reading() as session:
                session.execute(select(Dataset.name).limit(1))
        except Unreachable as err:
            log.warning("splits and withdrawals of earlier versions are not looked at: %s", err.what)
        else:
            return registry
    empty = Registry("sqlite://")
    Base.metadata.create_all(empty.engine)
    return empty


def known_patient_key(chosen: Settings) -> bytes | None:
    """The key of patients' pseudonyms that these settings have; None where none was needed yet."""
    if given := chosen.patient_key.get_secret_value():
        return given.encode()
    path = chosen.home / "patient.key"
    return path.read_bytes() if path.exists() else None


def patient_key(chosen: Settings) -> bytes:
    """The key of patients' pseudonyms: the setting's, else the one in FEMUR_HOME, generated where there is none.

    Whoever loses it gives every patient a new pseudonym, and the splits of earlier versions are not carried.
    """
    if known := known_patient_key(chosen):
        return known
    path = chosen.home / "patient.key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    with suppress(FileExistsError):  # of two that generate one at once the first wins
        os.link(part, path)
    part.unlink()
    return path.read_bytes()
