"""The reference's experiments on one dataset version: every fit once, resumable, then a table with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import delete

from femur_tasks.errors import FemurError
from femur_tasks.logs import naming
from femur_tasks.parameters import ReproduceParameters
from femur_tasks.registry.tables import DatasetVersion, ExperimentFit, ExperimentRow, FitEpoch, Run
from femur_tasks.search.experiments import BY_NAME, EXPERIMENTS, REPRODUCE_BUDGETS, Experiment, ReproduceBudget, spec_of
from femur_tasks.steps.context import Context
from femur_tasks.steps.experiment_table import by_case, fits_of, table_rows
from femur_tasks.steps.folds import Fold, FoldPictures, VersionPictures, folds_of
from femur_tasks.steps.progress import cost
from femur_tasks.steps.run import find_version, pinned_manifest, versions_in_use
from femur_tasks.steps.search import train_leased, work_apart
from femur_tasks.steps.train import seed_of, trained
from femur_tasks.training.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from femur_tasks.search.leases import Leases


def open_reproduction(context: Context, run_id: str, trigger: str, asked: ReproduceParameters) -> dict[str, Any]:
    """Start a reproduction, or go on with one as it was started: pins the dataset version.

    Returns:
        run_id, dataset (NAME@DIGEST), folds, and the experiments' names in the table's order.

    Raises:
        NotFound: no such dataset version.
        FemurError: it has too few patients for folds.
    """
    with context.registry.writing() as session:
        run = session.get(Run, run_id)
        if run is None:
            version = find_version(session, asked.dataset)
            pinned = asked.model_copy(update={"dataset": f"{version.name}@{version.digest}"})
            run = Run(
                run_id=run_id, trigger=trigger, model="", dataset_digest=version.digest, seed=asked.seed, deadline=None,
                parameters=pinned.model_dump(), versions=versions_in_use(), state="running", detail="",
                started_at=context.now(),
            )  # fmt: skip
            session.add(run)
        elif run.state == "failed":
            run.state, run.finished_at = "running", None
    opened = _opened(context, run_id)
    names = [experiment.name for experiment in EXPERIMENTS]
    return {"run_id": run_id, "dataset": opened.asked.dataset, "folds": len(opened.folds), "experiments": names}


@naming("run_id")
def run_experiment(context: Context, run_id: str, name: str, worker: str) -> dict[str, Any]:
    """Search where the experiment searches, then fit every seed and fold that was not fitted yet.

    Returns:
        The experiment's mean test Dice over cases and seeds, and how many fits it has.
    """
    from femur_tasks.steps.journal import forget

    opened, experiment = _opened(context, run_id), BY_NAME[name]
    with context.registry.reading() as session:
        done = {(fit.seed, fit.fold) for fit in fits_of(session, run_id, name)}
    wanted = [(seed, fold) for seed in range(opened.budget.seeds) for fold in range(len(opened.folds))]
    for one in done:  # a kill may have come between a fit's row and this
        forget(context.registry, context.store, run_id, _family(name, *one))
    if missing := [one for one in wanted if one not in done]:
        chosen = experiment.hyperparameters
        if experiment.strategy:
            chosen = _searched(context, opened, experiment, worker)
        for one in missing:
            context.apart(_fit, run_id, name, chosen, *one)
            forget(context.registry, context.store, run_id, _family(name, *one))
    forget(context.registry, context.store, run_id, name)
    with context.registry.reading() as session:
        fits = fits_of(session, run_id, name)
    return {"experiment": name, "fits": len(fits), "test_dice": float(np.mean(list(by_case(fits, "test").values())))}


def conclude_reproduction(context: Context, run_id: str) -> dict[str, Any]:
    """Write the table and the report of what is complete; again gives the same.

    Returns:
        run_id and the report's key.

    Raises:
        FemurError: an experiment has not all its fits, so that whoever scheduled it sees a failure. The table and the
            report of the others are there.
    """
    from femur_tasks.steps.reproduction_report import write_reproduction

    opened = _opened(context, run_id)
    with context.registry.writing() as session:
        session.execute(delete(ExperimentRow).where(ExperimentRow.run_id == run_id))
        rows = table_rows(session, run_id, opened.budget, len(opened.folds), opened.asked.seed)
        session.add_all(rows)
        there = {row.experiment for row in rows}
        missing = ", ".join(experiment.name for experiment in EXPERIMENTS if experiment.name not in there)
        run = session.get_one(Run, run_id)
        run.state, run.finished_at = "failed" if missing else "reproduced", run.finished_at or context.now()
        run.detail = f"not all fits of {missing}" if missing else f"{len(rows)} experiments"
    key = write_reproduction(context, run_id) if rows else None
    with context.registry.writing() as session:
        session.get_one(Run, run_id).report_key = key
    if missing:
        raise FemurError(
            f"Expected every experiment of {run_id} with all its fits. Received: {missing} without.",
            f"Go on with `femur reproduce --run-id {run_id}`, or clear the failed tasks.",
        )
    return {"run_id": run_id, "report": key}


@dataclass(frozen=True)
class _Reproduction:
    run_id: str
    asked: ReproduceParameters
    digest: str
    size: int
    budget: ReproduceBudget
    folds: list[Fold]


def _opened(context: Context, run_id: str) -> _Reproduction:
    with context.registry.reading() as session:
        run = session.get_one(Run, run_id)
        asked, digest = ReproduceParameters(**run.parameters), str(run.dataset_digest)
        size = training_size(asked, session.get_one(DatasetVersion, digest))
    folds = folds_of(pinned_manifest(context, digest), asked.seed)
    return _Reproduction(run_id, asked, digest, size, REPRODUCE_BUDGETS[asked.budget], folds)


def training_size(asked: ReproduceParameters, version: DatasetVersion) -> int:
    """The side of what is trained on, px: what was asked for, else the budget's, never more than the version's."""
    return min(asked.size or REPRODUCE_BUDGETS[asked.budget].size, version.size)


def _searched(context: Context, opened: _Reproduction, experiment: Experiment, worker: str) -> Hyperparameters:
    """The search's best hyperparameters; in folds it searches on the first one."""
    told = (opened.run_id, experiment.name, worker)
    work_apart(context, *told, _work_once, *told)
    winner = _leases(context, opened, experiment).winner()
    if winner is None:
        raise FemurError(f"Expected a completed trial of {experiment.name}. Received: none.", "See `femur runs watch`.")
    return experiment.hyperparameters.with_values(winner.hyperparameters)


def _work_once(context: Context, run_id: str, name: str, worker: str) -> bool | None:
    opened, experiment = _opened(context, run_id), BY_NAME[name]
    spec, leases = spec_of(experiment, opened.budget, opened.asked.seed), _leases(context, opened, experiment)
    leases.open(spec, experiment.hyperparameters.as_dict())
    pictures = FoldPictures(_pictures(context, opened), opened.folds[0])
    told = (leases, pictures, experiment.architecture, experiment.hyperparameters)
    return train_leased(context, worker, *told, spec.max_epochs, opened.asked.seed)


def _leases(context: Context, opened: _Reproduction, experiment: Experiment) -> Leases:
    from femur_tasks.search.leases import Leases

    return Leases(context.registry, opened.run_id, experiment.name, context.settings.lease_s, context.now)


def _pictures(context: Context, opened: _Reproduction) -> VersionPictures:
    return VersionPictures(context.store, pinned_manifest(context, opened.digest), opened.size)


def _family(experiment: str, seed: int, fold: int) -> str:
    """Under which name a fit keeps its checkpoint and curve."""
    return f"{experiment}/{seed}/{fold}"


def _fit(context: Context, run_id: str, name: str, chosen: Hyperparameters, seed: int, number: int) -> None:
    from femur_tasks.steps.journal import FitJournal
    from femur_tasks.training.fit import Plan, hard_dice

    opened, experiment = _opened(context, run_id), BY_NAME[name]
    pictures = _pictures(context, opened)
    fold, family, budget = opened.folds[number], _family(experiment.name, seed, number), opened.budget
    data = FoldPictures(pictures, fold)
    fit_seed = seed_of(opened.asked.seed, family)
    plan = Plan(f"{opened.run_id}/{family}", budget.epochs, budget.patience, fit_seed, 0, chosen.augmented)
    journal = FitJournal(context.registry, context.store, context.now, opened.run_id, family)
    model, _, chosen = trained(data, experiment.architecture, chosen, budget.epochs, plan, journal)
    val, test = (
        dict(zip(ids, hard_dice(model, data.batches(split, chosen.batch_size)), strict=True))
        for split, ids in (("val", fold.val), ("test", fold.test))
    )
    key = _overlays(context, model, pictures, test) if (seed, number) == (0, 0) else None
    with context.registry.writing() as session:
        epochs, seconds = cost(session, FitEpoch, opened.run_id, FitEpoch.family == family)
        session.merge(
            ExperimentFit(
                run_id=opened.run_id, experiment=experiment.name, seed=seed, fold=number,
                hyperparameters=chosen.as_dict(), epochs=epochs, seconds=seconds, val_dice=val, test_dice=test,
                overlays_key=key, created_at=context.now(),
            )
        )  # fmt: skip


def _overlays(context: Context, model: Any, pictures: VersionPictures, dices: Mapping[str, float]) -> str:
    """A strip of the best, the middle and the worst test case with prediction and truth, as a stored PNG."""
    from femur_tasks.evaluation.overlays import overlay, png_bytes
    from femur_tasks.training.fit import probabilities

    order = sorted(dices, key=lambda case: -dices[case])
    shard = pictures.shard([order[index] for index in sorted({0, len(order) // 2, len(order) - 1})])
    predicted = probabilities(model, shard.images_bhw) > 0.5
    strip = [overlay(*told) for told in zip(shard.images_bhw, predicted, shard.masks_bhw, strict=True)]
    return context.store.put(png_bytes(np.hstack(strip)), "reports")
