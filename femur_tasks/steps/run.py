"""A run: opened with its dataset version pinned, concluded with its outcome."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.metadata import version as version_of
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

import femur_tasks
from femur_tasks.dataset.manifest import Manifest, canonical_digest
from femur_tasks.errors import FemurError, NotFound
from femur_tasks.logs import naming
from femur_tasks.parameters import BUDGETS, Budget, RetrainParameters
from femur_tasks.registry.tables import Dataset, DatasetVersion, Run
from femur_tasks.steps.context import Context
from femur_tasks.steps.deadline import deadline_of

DEFAULT_MODEL = "femur"
CONCLUDED = ("promoted", "refused", "declined", "stale_champion")
_WORTH_WAKING = timedelta(hours=1)
"""A new version wakes no retrain that the night would end sooner: a hasty one would count as its retrain."""
WOKEN = ("schedule", "asset")
"""What starts a run that no person started."""
_RECORDED = ("tensorflow-cpu", "tensorflow", "keras", "keras-tuner", "numpy", "scipy", "pillow", "nibabel")


@naming("run_id")
def open_run(context: Context, run_id: str, trigger: str, parameters: RetrainParameters) -> dict[str, Any]:
    """Start a run: pin the dataset's digest, or say that there is nothing new.

    Opening a run again, after a crash or a retry, returns what the first opening decided.

    Returns:
        run_id, news (False: end here), why, dataset (NAME@DIGEST), model.

    Raises:
        NotFound: the dataset or version that was asked for is not there.
    """
    with context.registry.writing() as session:
        run = session.get(Run, run_id)
        if run is None:
            run = _new_run(context, session, run_id, trigger, parameters)
            session.add(run)
        elif run.state == "failed":  # a person cleared the failed tasks: the run goes on from its checkpoints
            run.state, run.finished_at = "running", None
        return _opened(session, run)


def _new_run(context: Context, session: Session, run_id: str, trigger: str, parameters: RetrainParameters) -> Run:
    version, why = _choose_version(session, parameters)
    run = Run(
        run_id=run_id,
        trigger=trigger,
        model=parameters.model or DEFAULT_MODEL,
        dataset_digest=None,
        parameters=parameters.model_dump(),
        versions=versions_in_use(),
        seed=parameters.seed,
        deadline=None,
        state="running",
        detail=why,
        started_at=context.now(),
    )
    if version is None:
        run.state, run.finished_at = "nothing_new", context.now()
        return run
    resolved = _resolved(session, version, parameters)
    timezone = context.settings.timezone
    nightly = context.settings.retrain_until if trigger in WOKEN and not resolved.hours else ""
    run.deadline = deadline_of(run.started_at, resolved.hours, resolved.until or nightly or None, timezone)
    if trigger == "asset" and nightly and run.deadline and run.deadline - run.started_at < _WORTH_WAKING:
        run.state, run.finished_at = "nothing_new", context.now()
        run.detail = f"{version.name}@{version.digest[:12]} is left to the next night: this one ends at {nightly}"
        return run
    run.dataset_digest, run.parameters, run.model = version.digest, resolved.model_dump(), str(resolved.model)
    if not parameters.force and _retrained(session, version, resolved):
        run.state, run.finished_at = "nothing_new", context.now()
        run.detail = f"{version.name}@{version.digest[:12]} was retrained already for model {run.model}"
    return run


def _choose_version(session: Session, parameters: RetrainParameters) -> tuple[DatasetVersion | None, str]:
    if parameters.dataset:
        version = find_version(session, parameters.dataset)
        return version, f"asked for {version.name}@{version.digest[:12]}"
    waiting = _waiting(session, parameters)
    if not waiting:
        return None, "no dataset has a version that was not retrained yet"
    # one that always fails must not keep the others from their turn
    chosen = min(waiting, key=lambda version: (_failures(session, version), version.created_at))
    why = "forced" if parameters.force else "not retrained yet"
    return chosen, f"the ledger holds {chosen.name}@{chosen.digest[:12]}, {why}"


def _waiting(session: Session, parameters: RetrainParameters) -> list[DatasetVersion]:
    """The newest version of each dataset that was not retrained yet."""
    newest = [find_version(session, name) for name in session.scalars(select(Dataset.name))]
    return [
        version
        for version in newest
        if parameters.force or not _retrained(session, version, _resolved(session, version, parameters))
    ]


def _failures(session: Session, version: DatasetVersion) -> int:
    retrains = (Run.dataset_digest == version.digest, Run.model != "")  # a reproduction is for no model
    failed = select(func.count()).where(*retrains, Run.state == "failed")
    return session.scalar(failed) or 0


def _resolved(session: Session, version: DatasetVersion, parameters: RetrainParameters) -> RetrainParameters:
    """The parameters with everything that was left empty filled in from the dataset's standing order."""
    order = session.get_one(Dataset, version.name)
    budget = parameters.budget or order.budget
    size = min(parameters.size or BUDGETS[budget].size, version.size)
    filled = {
        "dataset": f"{version.name}@{version.digest}",
        "model": parameters.model or order.model,
        "budget": budget,
        "size": size,
    }
    return RetrainParameters(**{**parameters.model_dump(), **filled})


def _retrained(session: Session, version: DatasetVersion, resolved: RetrainParameters) -> bool:
    """Whether a concluded run trained this version for this model with the same budget, size, seed and families."""
    asked = _identity(resolved.model_dump())
    runs = session.scalars(
        select(Run).where(Run.model == resolved.model, Run.dataset_digest == version.digest, Run.state.in_(CONCLUDED))
    )
    return any(_identity(run.parameters) == asked for run in runs)


def _identity(parameters: Mapping[str, Any]) -> str:
    return canonical_digest(
        [sorted(set(parameters["families"])), *(parameters[name] for name in ("budget", "size", "seed"))]
    )


def _opened(session: Session, run: Run) -> dict[str, Any]:
    version = session.get(DatasetVersion, run.dataset_digest) if run.dataset_digest else None
    return {
        "run_id": run.run_id,
        "news": run.state != "nothing_new",
        "why": run.detail,
        "dataset": f"{version.name}@{version.digest}" if version else "",
        "model": run.model,
        "families": list(run.parameters.get("families", [])),
        "require_approval": bool(run.parameters.get("require_approval")),
    }


@naming("run_id")
def untried(context: Context, run_id: str) -> list[str]:
    """What a run that ends should wake another run for: versions that wait in the ledger and that no run has tried.

    One new dataset version or one night wakes one run, and one run retrains one version: where several came in, each
    run wakes the next. Nothing is named where a person started the run, where it trained nothing, and where less time
    is left until its deadline than the run took.

    Returns:
        NAME@DIGEST of each, in the order of their coming.
    """
    now = context.now()
    with context.registry.reading() as session:
        run = session.get(Run, run_id)
        if run is None or run.dataset_digest is None or run.trigger not in WOKEN:
            return []
        if run.deadline and run.deadline - now < now - run.started_at:
            return []
        # a reproduction is for no model
        tried = set(session.scalars(select(Run.dataset_digest).where(Run.model != "")))
        waiting = [version for version in _waiting(session, RetrainParameters()) if version.digest not in tried]
        waiting.sort(key=lambda version: version.created_at)
        return [f"{version.name}@{version.digest}" for version in waiting]


def versions_in_use() -> dict[str, Any]:
    """What a result depends on beside data and seed, so that it can be reproduced."""
    packages = {}
    for name in _RECORDED:
        try:
            packages[name] = version_of(name)
        except ModuleNotFoundError:
            continue
    return {
        "femur_tasks": femur_tasks.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        **packages,
    }


def run_facts(session: Session, run_id: str) -> tuple[Run, RetrainParameters, Budget]:
    """A run with its resolved parameters and the budget that they name.

    Raises:
        NotFound: there is no such run.
    """
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"Expected a run. Received: {run_id}, which the registry does not hold.")
    parameters = RetrainParameters(**run.parameters)
    return run, parameters, BUDGETS[parameters.budget or "nightly"]


def conclude(session: Session, run_id: str, state: str, detail: str, now: datetime) -> None:
    """Write the outcome of a run; a verdict's stays, and goes before a failure that was mended since."""
    run = session.get_one(Run, run_id)
    if run.state == "running" or (run.state == "failed" and state in (*CONCLUDED, "failed")):
        run.state, run.detail, run.finished_at = state, detail, now


def pinned_manifest(context: Context, digest: str) -> Manifest:
    """The manifest of a dataset version."""
    with context.registry.reading() as session:
        key = session.get_one(DatasetVersion, digest).manifest_key
    return Manifest.from_json(context.store.get(key))


def find_version(session: Session, name: str) -> DatasetVersion:
    """The dataset version that `NAME` (its newest) or `NAME@DIGEST` (from 4 digits) means.

    Raises:
        NotFound: no such dataset or version.
        FemurError: the digits fit more than one version.
    """
    dataset, _, digits = name.partition("@")
    rows = session.scalars(
        select(DatasetVersion)
        .where(DatasetVersion.name == dataset, DatasetVersion.digest.startswith(digits))
        .order_by(DatasetVersion.created_at.desc())
    ).all()
    if not rows:
        known = ", ".join(session.scalars(select(Dataset.name).order_by(Dataset.name))) or "none"
        raise NotFound(f"Expected a dataset version. Received: {name}.", f"Datasets there are: {known}.")
    if digits and len(rows) > 1:
        raise FemurError(f"Expected digits of one version. Received: {digits}, which fit {len(rows)}.")
    return rows[0]
