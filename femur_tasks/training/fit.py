"""A fit: epoch by epoch, with a checkpoint after each, early stopping, and the best epoch kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from femur_tasks.errors import FemurError, Hopeless, StepFailed
from femur_tasks.training import checkpoint
from femur_tasks.training.checkpoint import Memory
from femur_tasks.training.hyperparameters import Augmentation
from femur_tasks.training.pipeline import NONE, Batches

Array = np.ndarray[Any, np.dtype[Any]]
_CHUNK = 16
_BACKENDS = {"tensorflow", "jax", "jaxlib"}


class Diverged(Hopeless):
    """The loss is no number any more."""


class OutOfMemory(Hopeless):
    """A step did not fit into the device's memory."""


@dataclass(frozen=True)
class Epoch:
    """One epoch's result; `epoch` counts from 1, and `start_s` of its `seconds` went before training was under way."""

    epoch: int
    loss: float
    val_dice: float
    seconds: float
    start_s: float = 0.0


class Journal(Protocol):
    """Where a fit leaves its curve and its checkpoints, durably, and finds them again."""

    def kept(self) -> tuple[bytes | None, bytes | None]:
        """The last checkpoint and that of the best epoch so far, each None before the first one."""

    def record(self, epoch: Epoch) -> None:
        """Add an epoch to the curve; the same epoch again replaces it."""

    def keep(self, latest: bytes, best: bytes | None) -> None:
        """Keep a checkpoint, and that of the best epoch where it is a new one; returns when both are durable."""


@dataclass(frozen=True)
class Plan:
    """How long and how.

    Attributes:
        owner: the fit or trial, in checkpoints and messages.
        epochs: the epoch after which it ends, counted from 1.
        patience: epochs without a better validation Dice before it stops early; None: never.
        seed: of the data order and of augmentation.
        augmentation: how training pictures are varied.
        seconds: how long it may take: an epoch that would end later is not started, but for the first one of all;
            None: any time.
        first_epoch: epochs that count as done at the start, for a trial that goes on from another one's weights.
    """

    owner: str
    epochs: int
    patience: int | None
    seed: int
    first_epoch: int = 0
    augmentation: Augmentation = NONE
    seconds: float | None = None


def fit(model: keras.Model, train: Batches, val: Batches, plan: Plan, journal: Journal) -> Memory:
    """Train until the plan ends, from the journal's last checkpoint where there is one.

    There is a checkpoint after every epoch, unless packing and keeping the one before took longer than was trained
    since: a large network with short epochs (the dense baseline: 1.6 GB at 256) then spends at most half its time on
    them. A best epoch in between is packed, and kept with the next.
    A resumed fit repeats the epochs since its checkpoint to the bit.

    Afterwards the model carries the weights of its best epoch, averaged where the optimizer averages them.

    Raises:
        Diverged: the loss became NaN or infinite.
        OutOfMemory: a step needs more memory than there is.
        StepFailed: TensorFlow or JAX fails in a step.
        FemurError: the plan has no epoch, or a shard can't be read.
    """
    saved, best = journal.kept()
    memory, unsaved_best = Memory(plan.owner), False
    if saved is not None:
        state, found = checkpoint.unpack(saved)
        checkpoint.put_back(model, state)
        if found.owner == plan.owner:
            memory = found
        else:  # another trial's weights to go on from; which of its own epochs is the best it finds out itself
            memory, best = Memory(plan.owner, plan.first_epoch), None
    began = time.monotonic()
    owed_s = 0.0  # what checkpoints took, less what was trained since
    ended, steps = _ends(memory, plan, 0.0, 0.0), _Steps()
    while not ended:
        epoch = _one_epoch(model, train, val, plan, memory, steps)
        memory.epochs = epoch.epoch
        is_best = epoch.val_dice > memory.best_dice
        if is_best:
            memory.best_epoch, memory.best_dice = epoch.epoch, epoch.val_dice
        journal.record(epoch)
        now = time.monotonic()
        ended = _ends(memory, plan, now - began, epoch.seconds)
        owed_s = max(0.0, owed_s - epoch.seconds)
        is_due = ended or owed_s == 0
        if is_best or is_due:
            packed = checkpoint.pack(model, memory)
            best, unsaved_best = (packed, True) if is_best else (best, unsaved_best)
            if is_due:
                journal.keep(packed, best if unsaved_best else None)
                unsaved_best, owed_s = False, time.monotonic() - now
    if best is None:
        raise FemurError(f"Expected at least one epoch for {plan.owner}. Received: a plan of {plan.epochs}.")
    checkpoint.put_back(model, checkpoint.unpack(best)[0])
    if model.optimizer.use_ema:
        model.optimizer.finalize_variable_values(model.trainable_variables)
    return memory


def _one_epoch(model: keras.Model, train: Batches, val: Batches, plan: Plan, memory: Memory, steps: _Steps) -> Epoch:
    started = time.monotonic()
    shuffled = train.epoch(plan.seed, memory.epochs, plan.augmentation)
    raw = _RawWeights()
    try:
        history = model.fit(shuffled, epochs=1, shuffle=False, verbose=0, callbacks=[raw, steps])
        loss = float(history.history["loss"][-1])
        number = memory.epochs + 1
        if not math.isfinite(loss):
            raise Diverged(f"Expected a finite loss. Received: {loss} in epoch {number} of {plan.owner}.")
        val_dice = float(np.mean(list(hard_dice(model, val))))
    except Exception as err:
        if train.failure is not None:
            raise train.failure from err
        # each backend has a class of its own for it, in a module that the others don't load
        told = f"{type(err).__name__}: {err}"
        if isinstance(err, MemoryError) or "resourceexhausted" in told.lower().replace("_", "").replace(" ", ""):
            raise OutOfMemory(f"Expected a step of {plan.owner} to fit into memory. Received: {told:.200}") from err
        if _BACKENDS.intersection(base.__module__.partition(".")[0] for base in type(err).__mro__):
            raise StepFailed(f"Expected a step of {plan.owner} to be computed. Received: {told:.300}") from err
        raise
    raw.put_back()
    return Epoch(number, loss, val_dice, time.monotonic() - started, steps.told_start_s())


class _Steps(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the first step of a fit, which waits for tracing and for the first pictures, from those that follow."""

    def __init__(self) -> None:
        super().__init__()
        self._ended: list[float] = []
        self._is_told = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._ended = [time.monotonic()]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._ended.append(time.monotonic())

    def told_start_s(self) -> float:
        """How much longer the fit's first step took than its epoch's others in the mean, once; 0 where it was alone."""
        if self._is_told or len(self._ended) < 3:  # when it began, and two steps
            return 0.0
        self._is_told = True
        began, first, *_, last = self._ended
        return max(0.0, first - began - (last - first) / (len(self._ended) - 2))


class _RawWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Where the optimizer averages weights, Keras leaves the average in the model at the end of every `fit`.

    That average is what is evaluated; training goes on from the weights themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Array] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.model.optimizer.use_ema:
            self._values = [np.asarray(weight).copy() for weight in self.model.trainable_variables]

    def put_back(self) -> None:
        """The weights that the epoch ended with."""
        for value, weight in zip(self._values, self.model.trainable_variables if self._values else (), strict=True):
            weight.assign(value)


def _ends(memory: Memory, plan: Plan, taken_s: float, epoch_s: float) -> bool:
    stalled = plan.patience is not None and memory.epochs - memory.best_epoch >= plan.patience
    late = plan.seconds is not None and memory.best_epoch > 0 and taken_s + epoch_s > plan.seconds
    return memory.epochs >= plan.epochs or stalled or late


def probabilities(model: keras.Model, images_bhw: Array) -> Array:
    """float32 femur probability of each pixel, (batch, size, size), from uint8 pictures at the model's size."""
    chunks = [
        np.asarray(model.predict_on_batch(images_bhw[start : start + _CHUNK, ..., None]), np.float32)[..., 0]
        for start in range(0, len(images_bhw), _CHUNK)
    ]
    return np.concatenate(chunks)


def hard_dice(model: keras.Model, batches: Batches) -> Iterator[float]:
    """Dice at 0.5 of every case at the training size; both empty is 1."""
    for images, masks in _read(batches):
        predicted = np.asarray(model.predict_on_batch(images)) > 0.5
        for truth, mask in zip(masks > 0, predicted, strict=True):
            total = int(truth.sum()) + int(mask.sum())
            yield 2.0 * int((truth & mask).sum()) / total if total else 1.0


def _read(batches: Batches) -> Iterator[tuple[Array, Array]]:
    try:
        yield from batches.in_order()
    except Exception as err:
        if batches.failure is not None:
            raise batches.failure from err
        raise
