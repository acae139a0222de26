"""The reference's experiments on one dataset version: every fit once, resumable, then a table with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.dataset.resize import shrink_image, shrink_mask
from femur_tasks.dataset.shards import Shard, unpack
from femur_tasks.errors import FemurError
from femur_tasks.evaluation.intervals import Interval, bootstrap_mean
from femur_tasks.parameters import ReproduceParameters
from femur_tasks.registry.tables import DatasetVersion, ExperimentFit, ExperimentRow, FitEpoch, Run, TrialEpoch
from femur_tasks.search import space as spaces
from femur_tasks.search.brackets import schedule
from femur_tasks.search.strategies import Spec
from femur_tasks.steps.context import Context
from femur_tasks.steps.run import find_version, pinned_manifest, versions_in_use
from femur_tasks.steps.train import seed_of, trained
from femur_tasks.training.experiments import BY_NAME, EXPERIMENTS, REPRODUCE_BUDGETS, Experiment, ReproduceBudget
from femur_tasks.training.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from femur_tasks.search.leases import Lease
    from femur_tasks.training.pipeline import Batches

TEST_CASES, FOLDS, SEEDS_FOR_A_CLAIM = 20, 5, 3
_CONFIDENCE, _PICTURES = 0.95, 3


@dataclass(frozen=True)
class Fold:
    """Which cases train, choose the epoch, and are scored."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def folds_of(manifest: Manifest, seed: int) -> list[Fold]:
    """The version's own splits, or five folds over its patients where its test split has fewer than 20 cases."""
    by_split = {
        split: tuple(c.case_id for c in manifest.cases if c.split == split) for split in ("train", "val", "test")
    }
    if len(by_split["test"]) >= TEST_CASES:
        return [Fold(by_split["train"], by_split["val"], by_split["test"])]
    patients = sorted({case.patient for case in manifest.cases})
    if len(patients) < FOLDS:
        raise FemurError(
            f"Expected {TEST_CASES} test cases, or {FOLDS} patients for folds. Received: {len(patients)} patients.",
            "Ingest more cases.",
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    parts = [{patients[index] for index in part} for part in np.array_split(order, FOLDS)]
    ids = [tuple(case.case_id for case in manifest.cases if case.patient in part) for part in parts]
    return [
        Fold(
            train=tuple(i for n in range(FOLDS) if n not in (fold, (fold + 1) % FOLDS) for i in ids[n]),
            val=ids[(fold + 1) % FOLDS],
            test=ids[fold],
        )
        for fold in range(FOLDS)
    ]


class _Pictures:
    """Every case of a version, and the batches of one fold: what `trained` asks for."""

    def __init__(self, context: Context, manifest: Manifest, size: int) -> None:
        self.size = size
        keys = [key for split in ("train", "val", "test") for key in manifest.shard_keys(split)]
        shards = [unpack(context.store.get(key)) for key in keys]
        self._images = {
            case: image for shard in shards for case, image in zip(shard.case_ids, shard.images_bhw, strict=True)
        }
        self._masks = {
            case: mask for shard in shards for case, mask in zip(shard.case_ids, shard.masks_bhw, strict=True)
        }

    def shard(self, case_ids: Sequence[str]) -> Shard:
        """These cases, in this order."""
        images, masks = (np.stack([of[case] for case in case_ids]) for of in (self._images, self._masks))
        return Shard(tuple(case_ids), images, masks, ())

    def fold(self, fold: Fold) -> _FoldData:
        return _FoldData(self, fold)


class _FoldData:
    def __init__(self, pictures: _Pictures, fold: Fold) -> None:
        self.size = pictures.size
        self._pictures, self._fold = pictures, fold
        self.batches: Callable[[str, int], Batches] = cache(self._batches)

    def _batches(self, split: str, batch_size: int) -> Batches:
        from femur_tasks.training.pipeline import Batches

        case_ids: tuple[str, ...] = getattr(self._fold, split)
        return Batches([split], lambda _: self._pictures.shard(case_ids), len(case_ids), self.size, batch_size)


def open_reproduction(context: Context, run_id: str, trigger: str, asked: ReproduceParameters) -> dict[str, Any]:
    """Start a reproduction, or go on with one: pins the dataset version.

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
                parameters=pinned.model_dump(), versions=versions_in_use(), state="running",
                detail="reproduces the reference's experiments", started_at=context.now(),
            )  # fmt: skip
            session.add(run)
        dataset, digest = str(run.parameters["dataset"]), str(run.dataset_digest)
    folds = folds_of(pinned_manifest(context, digest), asked.seed)
    return {"run_id": run_id, "dataset": dataset, "folds": len(folds), "experiments": [one.name for one in EXPERIMENTS]}


def run_experiment(context: Context, run_id: str, name: str, worker: str) -> dict[str, Any]:
    """Search where the experiment searches, then fit every seed and fold that was not fitted yet.

    Returns:
        The experiment's mean test Dice over cases and seeds, and how many fits it has.
    """
    from femur_tasks.training.fit import Plan, hard_dice
    from femur_tasks.training.journal import FitJournal, forget

    opened = _opened(context, run_id)
    experiment, budget = BY_NAME[name], opened.budget
    chosen = _searched(context, opened, experiment, worker) if experiment.strategy else experiment.hyperparameters
    for seed in range(budget.seeds):
        for number, fold in enumerate(opened.folds):
            with context.registry.reading() as session:
                if session.get(ExperimentFit, (run_id, name, seed, number)):
                    continue
            family, data = f"{name}/{seed}/{number}", opened.pictures.fold(fold)
            fit_seed = seed_of(opened.asked.seed, family)
            plan = Plan(f"{run_id}/{family}", budget.epochs, budget.patience, fit_seed, 0, chosen.augmented)
            journal = FitJournal(context.registry, context.store, context.now, run_id, family)
            model, _ = trained(data, experiment.architecture, chosen, budget.epochs, plan, journal)
            dices = {
                split: dict(zip(ids, hard_dice(model, data.batches(split, chosen.batch_size)), strict=True))
                for split, ids in (("val", fold.val), ("test", fold.test))
            }
            key = _overlays(context, opened, model, fold, dices["test"]) if (seed, number) == (0, 0) else None
            with context.registry.writing() as session:
                epochs, seconds = _cost(session, FitEpoch, FitEpoch.family == family, run_id)
                session.add(
                    ExperimentFit(
                        run_id=run_id, experiment=name, seed=seed, fold=number, hyperparameters=chosen.as_dict(),
                        epochs=epochs, seconds=seconds, val_dice=dices["val"], test_dice=dices["test"],
                        overlays_key=key, created_at=context.now(),
                    )
                )  # fmt: skip
            forget(context.registry, context.store, run_id, family)
    with context.registry.reading() as session:
        fits = session.scalars(
            select(ExperimentFit).where(ExperimentFit.run_id == run_id, ExperimentFit.experiment == name)
        ).all()
        return {
            "experiment": name,
            "fits": len(fits),
            "test_dice": float(np.mean(list(_by_case(fits, "test").values()))),
        }


def conclude_reproduction(context: Context, run_id: str) -> dict[str, Any]:
    """Write the table's rows and the report; again gives the same.

    Returns:
        run_id and the report's key.

    Raises:
        FemurError: no experiment has all its fits yet.
    """
    from femur_tasks.steps.reproduction_report import write_reproduction

    opened = _opened(context, run_id)
    with context.registry.writing() as session:
        session.execute(delete(ExperimentRow).where(ExperimentRow.run_id == run_id))
        session.add_all(table_rows(session, run_id, opened.budget, len(opened.folds), opened.asked.seed))
    key = write_reproduction(context, run_id)
    with context.registry.writing() as session:
        run = session.get_one(Run, run_id)
        run.state, run.report_key, run.finished_at = "reproduced", key, run.finished_at or context.now()
    return {"run_id": run_id, "report": key}


def table_rows(session: Session, run_id: str, budget: ReproduceBudget, folds: int, seed: int) -> list[ExperimentRow]:
    """The table of what is complete: each row's mean Dice with a 95 % interval, and its difference to the row above."""
    rows: list[ExperimentRow] = []
    above: tuple[str, dict[str, float]] | None = None
    for position, experiment in enumerate(EXPERIMENTS):
        fits = session.scalars(
            select(ExperimentFit).where(ExperimentFit.run_id == run_id, ExperimentFit.experiment == experiment.name)
        ).all()
        if len(fits) < budget.seeds * folds:
            continue
        val, test = (_by_case(fits, split) for split in ("val", "test"))
        shown = {
            split: bootstrap_mean(list(of.values()), _CONFIDENCE, seed) for split, of in (("val", val), ("test", test))
        }
        gain = None
        if above:
            gain = bootstrap_mean([test[case] - above[1][case] for case in sorted(test)], _CONFIDENCE, seed)
        searched = _cost(session, TrialEpoch, TrialEpoch.search == experiment.name, run_id)
        rows.append(
            ExperimentRow(
                run_id=run_id, experiment=experiment.name, position=position, title=experiment.title,
                reference=experiment.reference, seeds=budget.seeds, cases=len(test),
                val_dice=shown["val"].mean, val_low=shown["val"].low, val_high=shown["val"].high,
                test_dice=shown["test"].mean, test_low=shown["test"].low, test_high=shown["test"].high,
                difference=gain and gain.mean, difference_low=gain and gain.low, difference_high=gain and gain.high,
                epochs=sum(fit.epochs for fit in fits) + searched[0],
                seconds=sum(fit.seconds for fit in fits) + searched[1],
                sentence=_sentence(above and above[0], gain, budget.seeds),
            )
        )  # fmt: skip
        above = (experiment.title, test)
    if not rows:
        raise FemurError(f"Expected an experiment of run {run_id} with all its fits. Received: none.")
    return rows


def _sentence(above: str | None, gain: Interval | None, seeds: int) -> str:
    if above is None or gain is None:
        return "The first row."
    span = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    if seeds < SEEDS_FOR_A_CLAIM:
        few = "one seed" if seeds == 1 else f"{seeds} seeds"
        return f"{span} against {above}; no claim from {few}."
    if gain.low > 0 or gain.high < 0:
        return f"Really {'better' if gain.low > 0 else 'worse'} than {above}: {span} over the same cases."
    return f"No difference to {above} is shown: {span}."


def _by_case(fits: Sequence[ExperimentFit], split: str) -> dict[str, float]:
    """Each case's Dice, the mean of its seeds; in folds a case is scored by the model that did not see it."""
    found: dict[str, list[float]] = {}
    for fit in fits:
        dices: Mapping[str, float] = getattr(fit, f"{split}_dice")
        for case, dice in dices.items():
            found.setdefault(case, []).append(dice)
    return {case: float(np.mean(dices)) for case, dices in found.items()}


@dataclass(frozen=True)
class _Reproduction:
    run_id: str
    asked: ReproduceParameters
    budget: ReproduceBudget
    folds: list[Fold]
    pictures: _Pictures


def _opened(context: Context, run_id: str) -> _Reproduction:
    with context.registry.reading() as session:
        run = session.get_one(Run, run_id)
        asked, digest = ReproduceParameters(**run.parameters), str(run.dataset_digest)
        stored = session.get_one(DatasetVersion, digest).size
    manifest, budget = pinned_manifest(context, digest), REPRODUCE_BUDGETS[asked.budget]
    size = min(asked.size or budget.size, stored)
    return _Reproduction(run_id, asked, budget, folds_of(manifest, asked.seed), _Pictures(context, manifest, size))


def _searched(context: Context, opened: _Reproduction, experiment: Experiment, worker: str) -> Hyperparameters:
    """The search's best hyperparameters; in folds it searches on the first one."""
    from femur_tasks.search.leases import Leases
    from femur_tasks.search.worker import work
    from femur_tasks.training.fit import Plan
    from femur_tasks.training.journal import TrialJournal

    leases = Leases(context.registry, opened.run_id, experiment.name, context.settings.lease_s, context.now)
    spec = spec_of(experiment, opened.budget, opened.asked.seed)
    leases.open(spec, experiment.hyperparameters.as_dict())
    data = opened.pictures.fold(opened.folds[0])

    def train(lease: Lease) -> None:
        chosen = experiment.hyperparameters.with_values(lease.hyperparameters)
        seed = seed_of(opened.asked.seed, f"{sorted(lease.hyperparameters.items())}")
        owner = f"{opened.run_id}/{experiment.name}/{lease.trial_id}"
        plan = Plan(owner, lease.to_epoch, None, seed, lease.from_epoch, chosen.augmented)
        journal = TrialJournal(context.registry, context.store, context.now, lease)
        trained(data, experiment.architecture, chosen, spec.max_epochs, plan, journal)

    work(leases, worker, train)
    winner = leases.winner()
    if winner is None:
        raise FemurError(f"Expected a completed trial of {experiment.name}. Received: none.", "See `femur runs watch`.")
    return experiment.hyperparameters.with_values(winner.hyperparameters)


def spec_of(experiment: Experiment, budget: ReproduceBudget, seed: int) -> Spec:
    """The experiment's search at a budget: a random search gets as many epochs as Hyperband spends.

    Raises:
        FemurError: the experiment searches nothing.
    """
    if experiment.strategy == "sweep":
        return Spec("sweep", spaces.SWEEP, budget.search_epochs, seed, samples=budget.sweep_samples)
    if experiment.strategy == "grid":
        return Spec("grid", spaces.GRID, budget.search_epochs, seed, samples=budget.grid_samples)
    if experiment.strategy == "hyperband":
        return Spec("hyperband", spaces.REFERENCE, budget.max_epochs, seed)
    if experiment.strategy == "random":
        rungs = schedule(budget.max_epochs, 3)
        spent = sum(rung.trials * (rung.to_epoch - rung.from_epoch) for rung in rungs)
        return Spec("random", spaces.REFERENCE, budget.max_epochs, seed, samples=spent // budget.max_epochs)
    raise FemurError(f"Expected an experiment that searches. Received: {experiment.name}.")


def _overlays(context: Context, opened: _Reproduction, model: Any, fold: Fold, dices: Mapping[str, float]) -> str:
    """A strip of the best, the middle and the worst test case with prediction and truth, as a stored PNG."""
    from femur_tasks.evaluation.overlays import overlay, png_bytes
    from femur_tasks.training.fit import probabilities

    order = sorted(fold.test, key=lambda case: -dices[case])
    shown = [order[index] for index in sorted({0, len(order) // 2, len(order) - 1})][:_PICTURES]
    shard = opened.pictures.shard(shown)
    images = np.stack([shrink_image(image, opened.pictures.size) for image in shard.images_bhw])
    masks = np.stack([shrink_mask(mask, opened.pictures.size) for mask in shard.masks_bhw])
    predicted = probabilities(model, images) > 0.5
    pictures = [overlay(*told) for told in zip(images, predicted, masks, strict=True)]
    return context.store.put(png_bytes(np.hstack(pictures)), "reports")


def _cost(session: Session, table: type[FitEpoch] | type[TrialEpoch], of: Any, run_id: str) -> tuple[int, float]:
    told = select(func.count(), func.coalesce(func.sum(table.seconds), 0.0)).where(table.run_id == run_id, of)
    epochs, seconds = session.execute(told).one()
    return int(epochs), float(seconds)
