"""An installation's history and objects elsewhere: in a folder as a backup, and in another registry and store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.folder_store import FolderStore
from femur_tasks.registry import database
from femur_tasks.registry.copying import copy_rows, refuse_unless_empty
from femur_tasks.registry.tables import Run
from femur_tasks.settings import Settings
from femur_tasks.steps.context import Context, known_patient_key
from femur_tasks.storage import ObjectStore, StoredObject, digest_in

Told = Callable[[str, int, int], None]
"""Told what is copied, how many since the last call, and of how many."""


@dataclass(frozen=True)
class Migrated:
    """What was copied: rows by table, and the objects that were sent, and their bytes."""

    rows: dict[str, int]
    objects: int
    bytes: int


def back_up(context: Context, folder: Path, on_progress: Told = lambda what, number, total: None) -> Migrated:
    """Write every row to `registry.db` (SQLite) and every object into `objects/`; objects that are there stay.

    Work may go on meanwhile. The backup of before is whole until this one is.

    Args:
        folder: made where it is missing, for its owner alone: it holds patients' pictures, but no key.

    Raises:
        FemurError: an object is damaged, or its name would lead out of the folder.
        Unreachable: the store or the registry does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    part = folder / "registry.part"
    for path in folder.glob("registry.part*"):
        path.unlink()
    with _in_folder(context, part, folder) as target:
        copied = _copied(context, target, f"sqlite:///{part}", on_progress)
    part.replace(folder / "registry.db")
    return copied


def restore(context: Context, folder: Path, on_progress: Told = lambda what, number, total: None) -> Migrated:
    """Put a backup, also an older version's, into an empty registry and its store; what was stopped goes on.

    Raises:
        NotFound: the folder holds no backup.
        FemurError: the registry is not empty, or an object of the backup is damaged. No row was written.
        Unreachable: the store or the registry does not answer.
    """
    kept = folder / "registry.db"
    if not kept.exists():
        raise NotFound(f"Expected a backup in {folder}. Received: no registry.db.", "Make one with `femur backup`.")
    with tempfile.TemporaryDirectory(prefix="femur-restore-") as scratch:
        now = Path(shutil.copy(kept, Path(scratch) / "registry.db"))
        database.migrate(f"sqlite:///{now}")
        with _in_folder(context, now, folder) as source:
            return _copied(source, context, context.settings.database_url, on_progress)


def migrate(source: Context, target: Context, on_progress: Told = lambda what, number, total: None) -> Migrated:
    """Copy everything; the source stays as it is, and work may go on in it.

    All rows arrive in one transaction, after the objects that they name. What was stopped goes on: objects that are
    there already are not sent again. Pseudonyms stay the same, because the target must have the same patient key.

    Raises:
        FemurError: the target holds rows already, has another patient key, or is the source; a run is at work, which
            could not go on there; an object of the source is damaged. No row was copied.
        Unreachable: a store or a database does not answer.
    """
    check(source, target)
    return _copied(source, target, target.settings.database_url, on_progress)


def _copied(source: Context, target: Context, url: str, on_progress: Told) -> Migrated:
    database.migrate(url)
    with target.registry.reading() as session:
        refuse_unless_empty(session)
    found = list(source.store.list(""))
    sent = _send(missing(found, target.store), source.store, target.store, on_progress)
    with source.registry.snapshot() as there, target.registry.writing() as here:
        refuse_unless_empty(here)
        rows = copy_rows(there, here, lambda number, total: on_progress("rows", number, total))
        before = {(one.key, one.etag) for one in found}
        late = [one for one in source.store.list("") if (one.key, one.etag) not in before]
        sent += _send(late, source.store, target.store, on_progress)  # a row may name what was made meanwhile
    return Migrated(rows, len(sent), sum(one.size for one in sent))


@contextmanager
def _in_folder(context: Context, file: Path, folder: Path) -> Iterator[Context]:
    """A backup as a step sees it; at the end the whole registry is in its file."""
    registry = database.Registry(f"sqlite:///{file}")
    try:
        yield replace(context, registry=registry, store=FolderStore(folder / "objects"))
    finally:
        registry.engine.dispose()


def check(source: Context, target: Context) -> None:
    """Raises `FemurError` where `migrate` would refuse whatever the target holds."""
    here, there = source.settings, target.settings
    if here.database_url == there.database_url or _place(here) == _place(there):
        raise FemurError(
            "Expected another registry and another store. Received: this installation's own.",
            "Name FEMUR_REGISTRY_URL, FEMUR_S3_ENDPOINT, FEMUR_S3_ACCESS_KEY and FEMUR_S3_SECRET_KEY in the file.",
        )
    key = known_patient_key(here)
    if key is not None and known_patient_key(there) != key:
        raise FemurError(
            "Expected the same patient key there. Received: another one, or none.",
            f"Give the file this installation's FEMUR_PATIENT_KEY ({here.home / 'patient.key'}): patients keep their "
            "pseudonyms by it.",
        )
    with source.registry.reading() as session:
        at_work = session.scalars(select(Run.run_id).where(Run.state == "running").order_by(Run.run_id)).all()
    if at_work:
        raise FemurError(
            f"Expected no run at work, which could not go on there. Received: {', '.join(at_work)}.",
            "Wait for its end, or end it in Airflow.",
        )


def missing(source: Iterable[StoredObject], target: ObjectStore) -> list[StoredObject]:
    """Which of a source's objects the target has not, or has with other bytes."""
    there = {found.key: found for found in target.list("")}

    def is_there(wanted: StoredObject) -> bool:
        found = there.get(wanted.key)
        if found is None or found.size != wanted.size:
            return False
        return digest_in(wanted.key) is not None or found.etag == wanted.etag

    return [found for found in source if not is_there(found)]


def _send(
    wanted: Sequence[StoredObject], source: ObjectStore, target: ObjectStore, on_progress: Told
) -> list[StoredObject]:
    sent = []
    with tempfile.TemporaryDirectory(prefix="femur-migrate-") as folder:
        file = Path(folder) / "object"
        for found in wanted:
            try:
                source.download(found.key, file)
            except NotFound:  # collected meanwhile: then no row names it
                pass
            else:
                if digest_in(found.key):
                    target.put(file, found.key.partition("/")[0])
                else:
                    target.put_named(file, found.key)
                sent.append(found)
            on_progress("objects", 1, len(wanted))
    return sent


def _place(chosen: Settings) -> tuple[str, str]:
    return chosen.s3_endpoint, chosen.s3_bucket
