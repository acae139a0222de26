"""Training steps: baseline, U-Net, the search's workers and its winner, each ending in a model version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.dataset.shards import unpack
from femur_tasks.errors import DigestMismatch
from femur_tasks.registry.tables import ModelVersion
from femur_tasks.steps.context import Context
from femur_tasks.steps.run import pinned_manifest, run_facts
from femur_tasks.storage import digest_in
from femur_tasks.training.hyperparameters import (
    ARCHITECTURE_OF_FAMILY,
    REFERENCE_BASELINE,
    REFERENCE_UNET,
    TUNED,
    Hyperparameters,
)

if TYPE_CHECKING:
    from femur_tasks.search.leases import Leases

_PROBES = 4
_PROBE_TOLERANCE = 1e-5


def train_family(context: Context, run_id: str, family: str) -> dict[str, Any]:
    """Fit the baseline or the U-Net with the reference's best hyperparameters.

    Returns:
        The model version as NAME:VERSION, with its validation Dice.
    """
    with context.registry.reading() as session:
        _, parameters, budget = run_facts(session, run_id)
    chosen = REFERENCE_BASELINE if family == "baseline" else REFERENCE_UNET
    epochs = budget.baseline_epochs if family == "baseline" else budget.unet_epochs
    chosen = chosen.with_values({"batch_size": budget.batch_size})
    return _fit(context, run_id, family, chosen, epochs, _seed(parameters.seed, family))


def work_on_search(context: Context, run_id: str, worker: str) -> dict[str, Any]:
    """Lease and train trials until the search is done; the first worker opens it.

    Returns:
        How many trials this worker finished.
    """
    import keras

    from femur_tasks.search.leases import Lease
    from femur_tasks.search.worker import work
    from femur_tasks.training import networks
    from femur_tasks.training.fit import Plan, fit
    from femur_tasks.training.journal import TrialJournal

    search = _opened_search(context, run_id)
    train, val = _batches(context, run_id, search.shared.batch_size)

    def train_trial(lease: Lease) -> None:
        keras.backend.clear_session()
        chosen = search.shared.with_values(lease.hyperparameters)
        seed = _trial_seed(search.seed, lease.hyperparameters)
        steps = search.max_epochs * train.steps(chosen.augmentation)
        model = networks.compiled(ARCHITECTURE_OF_FAMILY["tuned"], search.size, chosen, seed, steps)
        plan = Plan(f"{run_id}/{lease.trial_id}", lease.to_epoch, None, seed, lease.from_epoch, chosen.augmentation)
        fit(model, train, val, plan, TrialJournal(context.registry, context.store, context.now, lease))

    return {"worker": worker, "trials": work(search.leases, worker, train_trial)}


@dataclass(frozen=True)
class _OpenSearch:
    """The run's search for the family `tuned`: its leases, and what all its trials share."""

    leases: Leases
    shared: Hyperparameters
    size: int
    max_epochs: int
    seed: int


def _opened_search(context: Context, run_id: str) -> _OpenSearch:
    from femur_tasks.search import space
    from femur_tasks.search.leases import Leases
    from femur_tasks.search.strategies import Spec
    from femur_tasks.training import precision

    with context.registry.reading() as session:
        _, parameters, budget = run_facts(session, run_id)
    manifest, size = _manifest_of(context, run_id)
    train_cases = sum(case.split == "train" for case in manifest.cases)
    leases = Leases(context.registry, run_id, "tuned", context.settings.lease_s, context.now)
    spec = Spec("hyperband", space.tuned(train_cases), budget.max_epochs, parameters.seed, budget.factor)
    batch_size = min(TUNED.batch_size, budget.batch_size)
    leases.open(spec, replace(TUNED, batch_size=batch_size, precision=precision.chosen()).as_dict())
    return _OpenSearch(leases, TUNED.with_values(leases.fixed()), size, budget.max_epochs, parameters.seed)


def train_winner(context: Context, run_id: str) -> dict[str, Any]:
    """Fit the search's best hyperparameters again at the full budget, as the family `tuned`.

    It keeps the trial's seed: with another one a lucky configuration may never leave its first plateau.
    """
    with context.registry.reading() as session:
        _, parameters, budget = run_facts(session, run_id)
    search = _opened_search(context, run_id)
    winner = search.leases.winner()
    seed = _trial_seed(parameters.seed, winner.hyperparameters)
    chosen = search.shared.with_values(winner.hyperparameters)
    return _fit(context, run_id, "tuned", chosen, budget.unet_epochs, seed)


def _fit(context: Context, run_id: str, family: str, chosen: Hyperparameters, epochs: int, seed: int) -> dict[str, Any]:
    from femur_tasks.training.journal import forget

    done = _model_version(context, run_id, family)
    if done is None:
        done = _fit_and_register(context, run_id, family, chosen, epochs, seed)
    forget(context.registry, context.store, run_id, family)
    return {"model_version": done.label, "family": family, "val_dice": done.val_dice}


def _fit_and_register(
    context: Context, run_id: str, family: str, chosen: Hyperparameters, epochs: int, seed: int
) -> ModelVersion:
    from femur_tasks.training import artefact, networks
    from femur_tasks.training.fit import Plan, fit, hard_dice
    from femur_tasks.training.journal import FitJournal

    with context.registry.reading() as session:
        run, parameters, budget = run_facts(session, run_id)
        name, digest = run.model, run.dataset_digest
    size = parameters.size or budget.size
    train, val = _batches(context, run_id, chosen.batch_size)
    architecture = ARCHITECTURE_OF_FAMILY[family]
    model = networks.compiled(architecture, size, chosen, seed, epochs * train.steps(chosen.augmentation))
    journal = FitJournal(context.registry, context.store, context.now, run_id, family)
    plan = Plan(f"{run_id}/{family}", epochs, budget.patience, seed, augmentation=chosen.augmentation)
    memory = fit(model, train, val, plan, journal)
    model = networks.in_float32(model, architecture, size, chosen)
    val_dice = sum(dices := list(hard_dice(model, val))) / len(dices)
    packed = artefact.pack(model, artefact.Spec(architecture, size, chosen.as_dict()))
    key = _uploaded(context, packed, model, _probes(context, run_id, size))
    with context.registry.writing() as session:
        newest = session.scalar(select(func.max(ModelVersion.version)).where(ModelVersion.name == name)) or 0
        row = ModelVersion(
            name=name,
            version=newest + 1,
            family=family,
            run_id=run_id,
            dataset_digest=digest,
            hyperparameters=chosen.as_dict(),
            size=size,
            epochs=memory.best_epoch,
            val_dice=val_dice,
            artefact_key=key,
            artefact_sha256=str(digest_in(key)),
            artefact_bytes=len(packed),
            created_at=context.now(),
        )
        session.add(row)
    return row


def _uploaded(context: Context, packed: bytes, model: Any, probes_bhw: Any) -> str:
    """Upload an artefact, read it back, rebuild it and let it run: only then may its row be written."""
    import numpy as np

    from femur_tasks.training import artefact
    from femur_tasks.training.fit import probabilities

    key = context.store.put(packed, "artefacts")
    rebuilt, _ = artefact.unpack(context.store.get(key))
    gap = float(np.abs(probabilities(rebuilt, probes_bhw) - probabilities(model, probes_bhw)).max())
    if not gap <= _PROBE_TOLERANCE:
        raise DigestMismatch(f"Expected the stored model to predict as the trained one. Received: {gap:g} apart.")
    return key


def _model_version(context: Context, run_id: str, family: str) -> ModelVersion | None:
    with context.registry.reading() as session:
        row = session.scalars(
            select(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.family == family)
        ).first()
        if row:
            session.expunge(row)
        return row


def _manifest_of(context: Context, run_id: str) -> tuple[Manifest, int]:
    with context.registry.reading() as session:
        run, parameters, budget = run_facts(session, run_id)
        digest, size = str(run.dataset_digest), parameters.size or budget.size
    return pinned_manifest(context, digest), size


def _batches(context: Context, run_id: str, batch_size: int) -> tuple[Any, Any]:
    """Training and validation batches of the run's dataset version at the run's size."""
    from femur_tasks.training.pipeline import Batches

    manifest, size = _manifest_of(context, run_id)

    def of(split: str) -> Batches:
        cases = sum(case.split == split for case in manifest.cases)
        return Batches(manifest.shard_keys(split), lambda key: unpack(context.store.get(key)), cases, size, batch_size)

    return of("train"), of("val")


def _probes(context: Context, run_id: str, size: int) -> Any:
    """A few validation pictures at the training size, uint8 (batch, size, size)."""
    import numpy as np

    from femur_tasks.dataset.resize import shrink_image

    manifest, _ = _manifest_of(context, run_id)
    shard = unpack(context.store.get(manifest.shard_keys("val")[0]))
    return np.stack([shrink_image(image, size) for image in shard.images_bhw[:_PROBES]])


def _trial_seed(seed: int, hyperparameters: Mapping[str, Any]) -> int:
    return _seed(seed, f"{sorted(hyperparameters.items())}")


def _seed(seed: int, what: str) -> int:
    """A seed of its own for each thing that a run draws, below 2^31."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}".encode()).digest()[:4], "big") >> 1
