"""The stages of an ingest as tasks: small dicts in and out, everything else in the work folder that they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from femur_tasks.dataset.problems import Problem
from femur_tasks.dataset.work import Work, remove_forgotten
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import Ingest
from femur_tasks.steps import incoming, ingest
from femur_tasks.steps import publish as publishing
from femur_tasks.steps.context import Context


def plan(context: Context, source: Mapping[str, str], parameters: IngestParameters, run_id: str) -> dict[str, Any]:
    """Fetch, unpack and recognise one source. Tried again in the same run, it finds what it has done already.

    Args:
        source: `path` of the form, or a row of the ledger.
        run_id: of the Airflow run; with the source it names the ingest.

    Returns:
        ingest_id, source, parts: what `convert` is mapped over; none where the drop has changed meanwhile.
    """
    remove_forgotten(context.settings.work_folder, context.now())
    name = json.dumps([run_id, dict(source)], sort_keys=True)
    work = Work(context.settings.work_folder, hashlib.sha256(name.encode()).hexdigest()[:16])
    planned = {"ingest_id": work.ingest_id, "source": dict(source), "parts": [], "changed": False}
    if "key" not in source:
        ingest.make_plan(context, parameters, work)
    elif not incoming.plan_incoming(context, source, parameters, work):
        work.remove()
        return {**planned, "changed": True}
    made = work.plan()
    parts = [{"ingest_id": work.ingest_id, "start": start, "stop": stop} for start, stop in made.chunks] if made else []
    return {**planned, "parts": parts}


def convert(context: Context, part: Mapping[str, Any]) -> int:
    """Convert one part's cases; those that an earlier try has converted are not looked at again."""
    work = Work(context.settings.work_folder, part["ingest_id"])
    return ingest.convert_cases(context, work, slice(part["start"], part["stop"]))


def publish(context: Context, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Judge, store and record one source, settle it in the ledger, and remove its work folder.

    Returns:
        outcome: what later tasks need. log: a line a problem.
    """
    if planned["changed"]:
        return {"outcome": {"state": "changed"}, "log": ["changed while it was fetched: a later look enters it anew"]}
    work = Work(context.settings.work_folder, planned["ingest_id"])
    result = _recorded(context, work) or publishing.publish(context, work)
    if "key" in planned["source"]:
        incoming.settle(context, planned["source"], result)
    work.remove()
    log = [f"{one.code} {one.case_id}: {one.found} - expected {one.expected}" for one in result.problems]
    return {"outcome": result.outcome(), "log": log}


def _recorded(context: Context, work: Work) -> publishing.Ingested | None:
    """What an earlier try has recorded since the plan was made, before it was killed: its version is still news."""
    made = work.plan()
    with context.registry.reading() as session:
        row = session.get(Ingest, work.ingest_id)
        if row is None or (made and row.finished_at < made.started_at):
            return None
        problems = tuple(Problem.from_dict(problem) for problem in row.problems)
        state: Any = row.state
        return publishing.Ingested(row.ingest_id, state, row.dataset, row.digest, {}, problems, b"", row.report_key)
