"""The ledger of what people drop under `incoming/`: each object is looked at once, by name and content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from pydantic import ValidationError
from sqlalchemy import select

from femur_tasks.dataset.problems import Problem, errors
from femur_tasks.errors import NotFound
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import IncomingObject
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import Ingested, ingest

INCOMING = "incoming/"


def look_for_incoming(context: Context) -> list[dict[str, str]]:
    """Enter what is new under `incoming/` into the ledger, and list what waits.

    An object is named `incoming/<dataset>/<archive>`; its name and content together are looked at once.

    Returns:
        For each waiting object its key, etag and dataset, oldest first.
    """
    found = list(context.store.list(INCOMING))
    with context.registry.writing() as session:
        for stored in found:
            if session.get(IncomingObject, (stored.key, stored.etag)) is None:
                session.add(
                    IncomingObject(
                        key=stored.key,
                        etag=stored.etag,
                        size_bytes=stored.size,
                        state="waiting",
                        digest=None,
                        detail="",
                        seen_at=context.now(),
                        settled_at=None,
                    )
                )
    with context.registry.reading() as session:
        waiting = session.scalars(
            select(IncomingObject)
            .where(IncomingObject.state == "waiting")
            .order_by(IncomingObject.seen_at, IncomingObject.key)
        )
        return [{"key": row.key, "etag": row.etag, "dataset": _dataset_of(row.key)} for row in waiting]


def _dataset_of(key: str) -> str:
    parts = PurePosixPath(key.removeprefix(INCOMING)).parts
    return parts[0] if len(parts) > 1 else "femur"


def ingest_incoming(context: Context, waiting: Mapping[str, str], given: IngestParameters) -> Ingested:
    """Ingest one waiting object and settle it in the ledger.

    Args:
        waiting: a row of `look_for_incoming`.
        given: what the form says beside the path; what it leaves empty is as in the dataset's last version.

    Raises:
        FemurError: this machine's fault, such as a full disk: the object goes on waiting.
    """
    path = f"s3://{context.settings.s3_bucket}/{waiting['key']}"
    try:
        parameters = IngestParameters(**{**given.model_dump(), "path": path, "dataset": waiting["dataset"]})
    except ValidationError as err:
        result = _not_ingestible(waiting, f"{err.errors()[0]['msg']}")
    else:
        try:
            result = ingest(context, parameters)
        except NotFound as err:
            result = _not_ingestible(waiting, err.what)
    found = errors(result.problems)
    with context.registry.writing() as session:
        row = session.get_one(IncomingObject, (waiting["key"], waiting["etag"]))
        row.state = "refused" if result.state == "refused" else "ingested"
        row.digest = result.digest
        row.detail = "; ".join(f"{problem.case_id}: {problem.code}, {problem.found}" for problem in found[:20])
        row.settled_at = context.now()
    return result


def _not_ingestible(waiting: Mapping[str, str], found: str) -> Ingested:
    problem = Problem("not_ingestible", waiting["key"], found, "incoming/<dataset>/<archive>")
    return Ingested("refused", waiting["dataset"], None, {}, (problem,))
