"""Training steps: baseline and U-Net, and what every fit of a run ends in, a model version."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.shards import unpack
from femur_tasks.errors import DigestMismatch
from femur_tasks.logs import naming
from femur_tasks.registry.signatures import refuse_collected
from femur_tasks.registry.tables import Fit, ModelVersion
from femur_tasks.steps.context import Context
from femur_tasks.steps.deadline import Pace, epochs_left, share_ends, training_ends
from femur_tasks.steps.run import pinned_manifest, run_facts
from femur_tasks.storage import digest_in
from femur_tasks.training.hyperparameters import (
    ARCHITECTURE_OF_FAMILY,
    REFERENCE_BASELINE,
    REFERENCE_UNET,
    Hyperparameters,
)

if TYPE_CHECKING:
    from femur_tasks.training.checkpoint import Memory
    from femur_tasks.training.fit import Journal, Plan
    from femur_tasks.training.pipeline import Batches

log = logging.getLogger(__name__)
_PROBES = 4
_PROBE_TOLERANCE = 1e-5
_BRIEFLY = wait_random(0, 0.2)


@naming("run_id", "family")
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
    return fit_family(context, run_id, family, chosen, epochs, seed_of(parameters.seed, family))


@naming("run_id", "family")
def fit_family(
    context: Context,
    run_id: str,
    family: str,
    chosen: Hyperparameters,
    epochs: int,
    seed: int,
    pace: Pace | None = None,
) -> dict[str, Any]:
    """Fit a family and register it as a model version, once a run; a fit that goes on has what it was begun with.

    Args:
        epochs: of the budget; fewer are planned where the run's deadline leaves no time for them.
        pace: what its epochs take, None where that is not known.

    Raises:
        WasCollected: the run had this version once, and its files are gone: a new run is needed.
    """
    from femur_tasks.steps.journal import forget

    done = _model_version(context, run_id, family)
    if done is None:
        fitted = context.apart(_fitted, run_id, family, _begun(context, run_id, family, chosen, epochs, seed, pace))
        onnx_key, found_bhw = context.apart(_probed, run_id, fitted.key)
        _check(fitted, found_bhw)
        done = _registered(context, run_id, family, fitted, onnx_key)
    forget(context.registry, context.store, run_id, family)
    return {"model_version": done.label, "family": family, "val_dice": done.val_dice}


@dataclass(frozen=True)
class _Begun:
    """What a fit is begun with, `epochs` being what its schedule spans."""

    chosen: Hyperparameters
    epochs: int
    seed: int


def _begun(
    context: Context, run_id: str, family: str, chosen: Hyperparameters, epochs: int, seed: int, pace: Pace | None
) -> _Begun:
    """Decided once: a fit that goes on has the same, whatever its search has found or the clock says by then."""
    with context.registry.writing() as session:
        run, _, _ = run_facts(session, run_id)
        row = session.get(Fit, (run_id, family), with_for_update=True)
        if row is None:
            row = Fit(run_id=run_id, family=family, planned_epochs=0, checkpoint_key=None, best_key=None)
            session.add(row)
        if not row.planned_epochs:
            end = training_ends(run.started_at, run.deadline) if run.deadline else None
            left = epochs_left(context.now(), end, pace)
            row.planned_epochs = epochs if left is None else min(epochs, max(1, left))
        if row.hyperparameters is None or row.seed is None:
            row.hyperparameters, row.seed = chosen.as_dict(), seed
        return _Begun(chosen.with_values(row.hyperparameters), row.planned_epochs, row.seed)


@dataclass(frozen=True)
class _Fitted:
    """A fit's artefact in the store, its figures, and what it says of the probes, float32 (batch, size, size).

    `chosen` is what it was trained with: with half the batch where the whole one did not fit into memory.
    """

    chosen: Hyperparameters
    key: str
    bytes: int
    epochs: int
    val_dice: float
    probabilities_bhw: Array


def _fitted(context: Context, run_id: str, family: str, begun: _Begun) -> _Fitted:
    from femur_tasks.steps.journal import FitJournal
    from femur_tasks.training import artefact, networks
    from femur_tasks.training.fit import Plan, hard_dice, probabilities

    with context.registry.reading() as session:
        run, parameters, budget = run_facts(session, run_id)
    data = Data(context, run_id)
    architecture = ARCHITECTURE_OF_FAMILY[family]
    seconds = None
    if run.deadline:
        now = context.now()
        families = 1 if family == "tuned" else len(parameters.families)  # the search's final fit has all that is left
        seconds = (share_ends(now, run.started_at, run.deadline, families) - now).total_seconds()
    told = (budget.patience, begun.seed, 0, begun.chosen.augmented, seconds)
    plan = Plan(f"{run_id}/{family}", begun.epochs, *told)
    journal = FitJournal(context.registry, context.store, context.now, run_id, family)
    model, memory, chosen = trained(data, architecture, begun.chosen, begun.epochs, plan, journal)
    model = networks.in_float32(model, architecture, data.size, chosen)
    dices = list(hard_dice(model, data.batches("val", chosen.batch_size)))
    packed = artefact.pack(model, artefact.Spec(architecture, data.size, chosen.as_dict()))
    key = context.store.put(packed, "artefacts")
    val_dice, found_bhw = sum(dices) / len(dices), probabilities(model, data.probes())
    return _Fitted(chosen, key, len(packed), memory.best_epoch, val_dice, found_bhw)


def _probed(context: Context, run_id: str, key: str) -> tuple[str, Array]:
    """The stored artefact as ONNX, and what both say of the probes, rebuilt where nothing of its fit is left."""
    from femur_tasks.serving.runtime import by_onnx
    from femur_tasks.training import artefact, exchange
    from femur_tasks.training.fit import probabilities

    model, _ = artefact.unpack(context.store.get(key))
    probes_bhw = Data(context, run_id).probes()
    found_bhw = probabilities(model, probes_bhw)
    onnx_key = context.store.put(exchange.to_onnx(model), "onnx")
    exchange.check(np.stack([*map(by_onnx(context.store.get(onnx_key)), probes_bhw)]), found_bhw)
    return onnx_key, found_bhw


def _check(fitted: _Fitted, found_bhw: Array) -> None:
    """Before its row is visible, an artefact was read back, rebuilt, and says what the fit said."""
    gap = float(np.abs(found_bhw - fitted.probabilities_bhw).max())
    if not gap <= _PROBE_TOLERANCE:
        raise DigestMismatch(f"Expected the stored model to predict as the trained one. Received: {gap:g} apart.")


@retry(
    retry=retry_if_exception_type(IntegrityError), stop=stop_after_attempt(9), wait=wait_random(0, 0.2), reraise=True
)
def _registered(context: Context, run_id: str, family: str, fitted: _Fitted, onnx_key: str) -> ModelVersion:
    """The row of a fit's model version; of two that end at once one takes the next number."""
    with context.registry.writing() as session:
        run, parameters, budget = run_facts(session, run_id)
        newest = session.scalar(select(func.max(ModelVersion.version)).where(ModelVersion.name == run.model)) or 0
        row = ModelVersion(
            name=run.model,
            version=newest + 1,
            family=family,
            run_id=run_id,
            dataset_digest=run.dataset_digest,
            hyperparameters=fitted.chosen.as_dict(),
            size=parameters.size or budget.size,
            epochs=fitted.epochs,
            val_dice=fitted.val_dice,
            artefact_key=fitted.key,
            artefact_sha256=str(digest_in(fitted.key)),
            artefact_bytes=fitted.bytes,
            onnx_key=onnx_key,
            onnx_sha256=str(digest_in(onnx_key)),
            created_at=context.now(),
        )
        session.add(row)
    return row


class Pictures(Protocol):
    """Where `trained` takes batches from: split and batch size in, batches of `size` px out."""

    size: int
    batches: Callable[[str, int], Batches]


def trained(
    data: Pictures, architecture: str, chosen: Hyperparameters, horizon: int, plan: Plan, journal: Journal
) -> tuple[Any, Memory, Hyperparameters]:
    """Fit a network from the journal's last checkpoint; where its batch does not fit into memory, once with half of it.

    Returns:
        The network, what its fit remembers, and what it was trained with.

    Args:
        horizon: epochs that a schedule of the learning rate spans.

    Raises:
        OutOfMemory: half a batch does not fit either.
        Diverged: the loss became NaN or infinite.
    """
    from femur_tasks.training import networks
    from femur_tasks.training.fit import OutOfMemory, fit

    def attempt(chosen: Hyperparameters) -> tuple[Any, Memory, Hyperparameters]:
        train, val = (data.batches(split, chosen.batch_size) for split in ("train", "val"))
        steps = horizon * train.steps(chosen.augmented)
        model = networks.compiled(architecture, data.size, chosen, plan.seed, steps)
        return model, fit(model, train, val, plan, journal), chosen

    try:
        return attempt(chosen)
    except OutOfMemory as err:
        if chosen.batch_size == 1:
            raise
        log.warning("%s: batches of %d do not fit, trying half: %s", plan.owner, chosen.batch_size, err.what)
        return attempt(replace(chosen, batch_size=chosen.batch_size // 2))


class Data:
    """The pictures of a run's dataset version at the run's size, read once for all that a process trains."""

    def __init__(self, context: Context, run_id: str) -> None:
        with context.registry.reading() as session:
            run, parameters, budget = run_facts(session, run_id)
            digest = str(run.dataset_digest)
        self.size = parameters.size or budget.size
        self._manifest: Manifest = pinned_manifest(context, digest)
        self._load: Callable[[str], Any] = lambda key: unpack(context.store.get(key))
        self.batches: Callable[[str, int], Batches] = cache(self._batches)

    def cases(self, split: str) -> int:
        """How many cases a split has."""
        return sum(case.split == split for case in self._manifest.cases)

    def _batches(self, split: str, batch_size: int) -> Batches:
        from femur_tasks.training.pipeline import Batches

        return Batches(self._manifest.shard_keys(split), self._load, self.cases(split), self.size, batch_size)

    def probes(self) -> Any:
        """A few validation pictures at the training size, uint8 (batch, size, size)."""
        from femur_tasks.dataset.resize import shrink_image

        shard = self._load(self._manifest.shard_keys("val")[0])
        return np.stack([shrink_image(image, self.size) for image in shard.images_bhw[:_PROBES]])


def _model_version(context: Context, run_id: str, family: str) -> ModelVersion | None:
    with context.registry.reading() as session:
        row = session.scalars(
            select(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.family == family)
        ).first()
        if row:
            refuse_collected(session, row)
            session.expunge(row)
        return row


def seed_of(seed: int, what: str) -> int:
    """A seed of its own for each thing that a run draws, below 2^31."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}".encode()).digest()[:4], "big") >> 1
