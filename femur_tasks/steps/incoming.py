"""The ledger of what people drop under `incoming/`: each drop is looked at once, by name and content.

A drop is an archive, or a folder of loose files. It waits until an ingest has settled it; whoever is killed before
that leaves it waiting, and two that settle the same one come to the same version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import uuid4

from pydantic import ValidationError
from sqlalchemy import select

from femur_tasks.dataset.problems import Problem, errors
from femur_tasks.dataset.work import Work
from femur_tasks.errors import NotFound
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import IncomingObject
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import Progress, convert_cases, make_plan, refused_plan
from femur_tasks.steps.publish import Ingested, publish
from femur_tasks.storage import StoredObject

INCOMING = "incoming/"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_OF_A_LAYOUT = {"train", "valid", "val", "test", "images", "labels", "imgs", "targets"}


@dataclass(frozen=True)
class Drop:
    """One thing to ingest: an object, or all objects below a key that ends with `/`."""

    key: str
    etag: str
    size_bytes: int


def look_for_incoming(context: Context) -> list[dict[str, str]]:
    """Enter what is new under `incoming/` into the ledger, forget what went away unseen, and list what waits.

    A drop is named `incoming/<dataset>/<archive or folder>`; its name and content together are looked at once.

    Returns:
        For each waiting drop its key, etag and dataset, oldest first.
    """
    found = {(drop.key, drop.etag): drop for drop in _drops(context, INCOMING)}
    with context.registry.writing() as session:
        for row in session.scalars(select(IncomingObject).where(IncomingObject.state == "waiting")).all():
            if (row.key, row.etag) not in found:  # replaced or removed before its turn: there is nothing to settle
                session.delete(row)
        for drop in found.values():
            if session.get(IncomingObject, (drop.key, drop.etag)) is None:
                session.add(IncomingObject(**vars(drop), state="waiting", detail="", seen_at=context.now()))
    with context.registry.reading() as session:
        waiting = session.scalars(
            select(IncomingObject)
            .where(IncomingObject.state == "waiting")
            .order_by(IncomingObject.seen_at, IncomingObject.key)
        )
        return [{"key": row.key, "etag": row.etag, "dataset": _dataset_of(row.key)} for row in waiting]


def _drops(context: Context, prefix: str) -> list[Drop]:
    objects = list(context.store.list(prefix))
    loose = {_parts(stored.key)[0] for stored in objects if _lies_open(_parts(stored.key))}
    drops: dict[str, list[StoredObject]] = {}
    for stored in objects:
        drops.setdefault(_drop_key(stored.key, loose), []).append(stored)
    return [_drop(key, found) for key, found in drops.items()]


def _parts(key: str) -> tuple[str, ...]:
    return PurePosixPath(key.removeprefix(INCOMING)).parts or ("",)


def _lies_open(parts: tuple[str, ...]) -> bool:
    """Whether a dataset was uploaded straight into its folder: `incoming/hip/train/...`."""
    return len(parts) > 2 and parts[1] in _OF_A_LAYOUT


def _drop_key(key: str, loose: set[str]) -> str:
    """The drop that an object belongs to: itself, or the folder that a person uploaded."""
    parts = _parts(key)
    if key.lower().endswith(_ARCHIVES):
        return key
    if parts[0] in loose and (len(parts) == 2 or _lies_open(parts)):
        return f"{INCOMING}{parts[0]}/"
    return key if len(parts) < 3 else f"{INCOMING}{parts[0]}/{parts[1]}/"


def _drop(key: str, objects: list[StoredObject]) -> Drop:
    size = sum(stored.size for stored in objects)
    if not key.endswith("/"):
        return Drop(key, objects[0].etag, size)
    content = hashlib.sha256("".join(f"{stored.key}\n{stored.etag}\n" for stored in objects).encode())
    return Drop(key, content.hexdigest(), size)


def _dataset_of(key: str) -> str:
    parts = _parts(key)
    return parts[0] if len(parts) > 1 or key.endswith("/") else "femur"


def plan_incoming(
    context: Context,
    waiting: Mapping[str, str],
    given: IngestParameters,
    work: Work,
    progress: Progress | None = None,
) -> bool:
    """Plan the ingest of one waiting drop; False where its content has changed, and a later look enters it anew.

    Args:
        waiting: a row of `look_for_incoming`.
        given: what the form says beside the path; what it leaves empty is as in the dataset's last version.

    Raises:
        FemurError: this machine's fault, such as a full disk: the drop goes on waiting.
    """
    path = f"s3://{context.settings.s3_bucket}/{waiting['key']}"
    try:
        parameters = IngestParameters(**{**given.model_dump(), "path": path, "dataset": waiting["dataset"]})
    except ValidationError as err:
        found = err.errors()[0]["msg"]
        problem = Problem("not_ingestible", waiting["key"], found, "incoming/<dataset>/<archive or folder>")
        work.keep(refused_plan(waiting["dataset"], waiting["key"], (problem,), context.now()))
        return True
    with suppress(NotFound):  # it went away before its turn, as the next line finds
        make_plan(context, parameters, work, (progress or Progress()).on_bytes)
    return waiting["etag"] in {drop.etag for drop in _drops(context, waiting["key"])}


def ingest_incoming(
    context: Context, waiting: Mapping[str, str], given: IngestParameters, progress: Progress | None = None
) -> Ingested | None:
    """Ingest one waiting drop in this process and settle it; None where its content has changed meanwhile."""
    told = progress or Progress()
    work = Work(context.settings.work_folder, f"cli-{uuid4().hex[:12]}")
    try:
        if not plan_incoming(context, waiting, given, work, told):
            return None
        convert_cases(context, work, slice(None), told.on_cases)
        result = publish(context, work, on_stored=told.on_stored)
        settle(context, waiting, result)
        return result
    finally:
        work.remove()


def settle(context: Context, waiting: Mapping[str, str], result: Ingested) -> None:
    """Write what came of a drop into the ledger."""
    found = errors(result.problems)
    with context.registry.writing() as session:
        row = session.get(IncomingObject, (waiting["key"], waiting["etag"]))
        if row is None:  # forgotten by a look that ran beside, after the object had gone
            return
        row.state = "refused" if result.state == "refused" else "ingested"
        row.ingest_id, row.digest = result.ingest_id, result.digest
        row.detail = "; ".join(f"{problem.case_id}: {problem.code}, {problem.found}" for problem in found[:20])
        row.settled_at = context.now()
