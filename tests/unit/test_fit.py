"""Batches, fits and artefacts on networks of 16 x 16: order, early stopping, divergence, and what files may hold."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from femur_tasks.dataset.shards import Shard
from femur_tasks.errors import DigestMismatch, FemurError, StepFailed
from femur_tasks.steps.train import trained
from femur_tasks.training import artefact, checkpoint, networks
from femur_tasks.training.artefact import Spec
from femur_tasks.training.augmentation import augment
from femur_tasks.training.fit import Diverged, OutOfMemory, Plan, fit, hard_dice, probabilities
from femur_tasks.training.hyperparameters import REFERENCE_UNET, Augmentation, Hyperparameters
from femur_tasks.training.pipeline import NONE, Batches
from tests.tiny_fit import SIZE, MemoryJournal, batches, model, shard

# The order of the data


def order(cases: Batches, seed: int, epoch: int) -> list[int]:
    """Which cases an epoch brings in which order: each picture's first pixel is its number."""
    return [int(image[0, 0, 0]) for images, _ in cases.epoch(seed, epoch) for image in np.asarray(images)]


def numbered(count: int, size: int = SIZE) -> Shard:
    images = np.zeros((count, size, size), np.uint8)
    images[:] = np.arange(count, dtype=np.uint8)[:, None, None]
    return Shard(tuple(f"case-{i}" for i in range(count)), images, np.zeros_like(images), ())


@pytest.fixture
def ten() -> Batches:
    return Batches(["only"], lambda _: numbered(10), 10, SIZE, 4)


def test_each_epoch_brings_every_case_once_the_last_partial_batch_included(ten: Batches) -> None:
    for epoch in range(3):
        assert sorted(order(ten, seed=5, epoch=epoch)) == list(range(10))
    assert [len(images) for images, _ in ten.epoch(5, 0)] == [4, 4, 2]
    assert [len(images) for images, _ in ten.in_order()] == [4, 4, 2]


def test_order_depends_on_seed_and_epoch(ten: Batches) -> None:
    orders = {tuple(order(ten, seed, epoch)) for seed in (0, 1, 2**31 - 2) for epoch in (0, 1, 2)}
    assert len(orders) == 9


def test_order_does_not_depend_on_what_was_drawn_or_read_before(ten: Batches) -> None:
    keras.utils.set_random_seed(1)
    expected = order(ten, seed=5, epoch=3)
    keras.random.normal((7,))
    order(ten, seed=5, epoch=4)
    assert order(ten, seed=5, epoch=3) == expected
    keras.utils.set_random_seed(1)
    fresh = Batches(["only"], lambda _: numbered(10), 10, SIZE, 4)
    assert order(fresh, seed=5, epoch=3) == expected


def test_validation_comes_in_the_order_of_the_shards() -> None:
    shards = {"a": numbered(3), "b": numbered(2)}
    cases = Batches(["b", "a"], shards.__getitem__, 5, SIZE, 2)
    assert [int(image[0, 0, 0]) for images, _ in cases.in_order() for image in np.asarray(images)] == [0, 1, 0, 1, 2]


def test_each_shard_is_read_once() -> None:
    read: Counter[str] = Counter()

    def load_shard(name: str) -> Shard:
        read[name] += 1
        return numbered(3)

    cases = Batches(["a", "b"], load_shard, 6, SIZE, 4)
    for epoch in range(3):
        order(cases, 0, epoch)
    list(cases.in_order())
    assert read == {"a": 1, "b": 1}


def test_shards_of_another_size_are_resized_by_area() -> None:
    images = np.zeros((1, 2 * SIZE, 2 * SIZE), np.uint8)
    images[0, :2, :2] = [[10, 20], [30, 40]]
    masks = np.zeros_like(images)
    masks[0, :2, :2] = [[1, 1], [0, 0]]  # half of a pixel: femur
    masks[0, 2:4, :2] = [[1, 0], [0, 0]]  # a quarter: none
    large = Shard(("case",), images, masks, ())
    ((found, truth),) = Batches(["a"], lambda _: large, 1, SIZE, 4).in_order()
    found, truth = np.asarray(found), np.asarray(truth)
    assert (found.shape, found.dtype, truth.shape, truth.dtype) == ((1, SIZE, SIZE, 1), np.uint8) * 2
    assert found[0, 0, 0, 0] == 25
    assert [int(pixel) for pixel in truth[0, :2, 0, 0]] == [1, 0]
    assert truth.sum() == 1


# Fits


def plan(epochs: int, patience: int | None = None, first_epoch: int = 0, seconds: float | None = None) -> Plan:
    return Plan("test", epochs, patience, seed=3, first_epoch=first_epoch, seconds=seconds)


def test_fit_records_every_epoch_and_ends_with_the_best_ones_weights() -> None:
    train, val = batches()
    trained, journal = model(), MemoryJournal()
    memory = fit(trained, train, val, plan(4), journal)
    assert [epoch.epoch for epoch in journal.epochs] == [1, 2, 3, 4]
    dices = [epoch.val_dice for epoch in journal.epochs]
    assert (memory.epochs, memory.best_dice) == (4, max(dices))
    assert memory.best_epoch == dices.index(max(dices)) + 1
    best, remembered = checkpoint.unpack(journal.kept()[1] or b"")
    assert (remembered.epochs, remembered.best_epoch) == (memory.best_epoch, memory.best_epoch)
    now = checkpoint.state_of(trained)
    assert now.keys() == best.keys()
    for name in best:
        np.testing.assert_array_equal(now[name], best[name])
    assert float(np.mean(list(hard_dice(trained, val)))) == memory.best_dice
    first, *later = journal.epochs
    assert 0 < first.start_s < first.seconds  # tracing
    assert [epoch.start_s for epoch in later] == [0, 0, 0]


class Scripted:
    """A network's stand-in for what `fit` asks of Keras: each epoch brings the validation Dice that the test says."""

    def __init__(self, dices: list[float], losses: list[float] | None = None) -> None:
        self._dices = iter(dices)
        self._losses = iter(losses or [0.5] * len(dices))
        self.counter = keras.Variable(0.0, name="epochs_seen")
        self.variables = [self.counter]
        self.optimizer = self
        self.use_ema = False
        self.dice = 0.0

    def fit(self, data: Any, **_: Any) -> Any:
        self.counter.assign_add(1.0)
        self.dice = next(self._dices)
        history = keras.callbacks.History()
        history.history = {"loss": [next(self._losses)]}
        return history


class _Nothing(Batches):
    def __init__(self) -> None:
        self.failure = None

    def epoch(self, seed: int, epoch: int, augmentation: Augmentation = NONE) -> Any:
        return None


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> Batches:
    def told(network: Scripted, _: Batches) -> Iterator[float]:
        yield network.dice

    monkeypatch.setattr("femur_tasks.training.fit.hard_dice", told)
    return _Nothing()


@pytest.mark.parametrize(
    ("dices", "patience", "epochs", "best"),
    [
        pytest.param([0.5, 0.6, 0.4, 0.3, 0.9, 0.9], 2, 4, 2, id="two epochs without a better one"),
        pytest.param([0.5, 0.6, 0.6, 0.6, 0.9, 0.9], 2, 4, 2, id="an equal one is no better one"),
        pytest.param([0.5, 0.6, 0.4, 0.7, 0.6, 0.6], 2, 6, 4, id="a better one in time"),
        pytest.param([0.9, 0.1, 0.1, 0.1, 0.1, 0.1], None, 6, 1, id="no patience, no early stop"),
        pytest.param([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 3, 4, 1, id="an empty mask all along"),
    ],
)
def test_early_stopping(nothing: Batches, dices: list[float], patience: int | None, epochs: int, best: int) -> None:
    network, journal = Scripted(dices), MemoryJournal()
    memory = fit(network, nothing, nothing, plan(6, patience), journal)
    assert (memory.epochs, memory.best_epoch, len(journal.epochs)) == (epochs, best, epochs)
    assert float(network.counter) == best  # the weights of the best epoch


def test_shard_that_cannot_be_read_is_the_failure_and_not_tensorflows_word_for_it() -> None:
    def load(name: str) -> Shard:
        raise DigestMismatch(f"Expected other bytes. Received: those of {name}.")

    broken = Batches(["shards/1"], load, 4, 16, 2)
    network = networks.compiled("unet", 16, REFERENCE_UNET, 1)
    with pytest.raises(DigestMismatch, match="shards/1"):
        fit(network, broken, broken, plan(1), MemoryJournal())
    with pytest.raises(DigestMismatch, match="shards/1"):
        list(hard_dice(network, Batches(["shards/1"], load, 4, 16, 2)))


@pytest.mark.parametrize("interrupted", [1, 2, 3])
def test_early_stopping_remembers_across_an_interruption(nothing: Batches, interrupted: int) -> None:
    dices = [0.5, 0.6, 0.4, 0.3, 0.9, 0.9]
    journal = MemoryJournal()
    fit(Scripted(dices[:interrupted]), nothing, nothing, plan(interrupted, 2), journal)
    memory = fit(Scripted(dices[interrupted:]), nothing, nothing, plan(6, 2), journal)
    assert (memory.epochs, memory.best_epoch, memory.best_dice) == (4, 2, 0.6)
    assert [epoch.epoch for epoch in journal.epochs] == [1, 2, 3, 4]


def test_fit_that_ended_is_not_trained_again(nothing: Batches) -> None:
    journal = MemoryJournal()
    fit(Scripted([0.5, 0.6]), nothing, nothing, plan(2), journal)
    memory = fit(Scripted([]), nothing, nothing, plan(2), journal)
    assert (memory.epochs, len(journal.epochs)) == (2, 2)


def test_trial_goes_on_from_its_parents_best_epoch_with_the_parents_epochs_done(nothing: Batches) -> None:
    parent = MemoryJournal()
    fit(Scripted([0.5, 0.8, 0.6]), nothing, nothing, plan(3), parent)
    journal = MemoryJournal(inherited=parent.kept()[1])
    network = Scripted([0.7, 0.6])  # both below the parent's best: which is the trial's best is told by its own epochs
    memory = fit(network, nothing, nothing, replace(plan(5, first_epoch=3), owner="child"), journal)
    assert [epoch.epoch for epoch in journal.epochs] == [4, 5]
    assert (memory.best_epoch, memory.best_dice) == (4, 0.7)
    assert checkpoint.unpack(journal.kept()[1] or b"")[1] == replace(memory, epochs=4)
    assert float(network.counter) == 3  # 2 epochs to the parent's best, then the first of its own


class Seconds:
    """A clock for `fit` that stands still unless somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    clock = Seconds()
    monkeypatch.setattr("femur_tasks.training.fit.time", clock)
    return clock


class FourSecondEpochs(Scripted):
    def __init__(self, clock: Seconds, dices: list[float]) -> None:
        super().__init__(dices)
        self._clock = clock

    def fit(self, data: Any, **told: Any) -> Any:
        self._clock.now += 4
        return super().fit(data, **told)


class TracedSteps(Scripted):
    """Epochs of three steps, a second each; the first of all takes ten more."""

    def __init__(self, clock: Seconds) -> None:
        super().__init__([0.5, 0.6, 0.7])
        self._clock = clock
        self._traces_s = 10.0

    def fit(self, data: Any, callbacks: Any = (), **told: Any) -> Any:
        for callback in callbacks:
            callback.on_train_begin()
        for step in range(3):
            self._clock.now += 1 + self._traces_s
            self._traces_s = 0.0
            for callback in callbacks:
                callback.on_train_batch_end(step)
        return super().fit(data, **told)


def test_epoch_says_how_long_its_fit_took_to_get_under_way(nothing: Batches, clock: Seconds) -> None:
    journal = MemoryJournal()
    fit(TracedSteps(clock), nothing, nothing, plan(3), journal)
    assert [(epoch.seconds, epoch.start_s) for epoch in journal.epochs] == [(13, 10), (3, 0), (3, 0)]


class SlowJournal(MemoryJournal):
    """Needs ten seconds for a checkpoint."""

    def __init__(self, clock: Seconds) -> None:
        super().__init__()
        self._clock = clock

    def keep(self, latest: bytes, best: bytes | None) -> None:
        self._clock.now += 10
        super().keep(latest, best)


def kept_epochs(journal: MemoryJournal) -> list[int]:
    return [checkpoint.unpack(state)[1].epochs for state in journal.states]


def test_checkpoints_take_no_longer_than_the_training(nothing: Batches, clock: Seconds) -> None:
    dices = [0.1, 0.5, 0.2, 0.3, 0.4, 0.2, 0.2, 0.2]
    journal = SlowJournal(clock)
    network = FourSecondEpochs(clock, dices)
    memory = fit(network, nothing, nothing, plan(8), journal)
    assert kept_epochs(journal) == [1, 4, 7, 8]  # the first, then when 12 s have gone, and the last
    assert [epoch.epoch for epoch in journal.epochs] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (memory.best_epoch, float(network.counter)) == (2, 2)  # found between two checkpoints
    assert checkpoint.unpack(journal.kept()[1] or b"")[1].epochs == 2

    killed = SlowJournal(clock)
    with pytest.raises(StopIteration):  # the script ends after epoch 3: epochs 2 and 3 have rows, no checkpoint
        fit(FourSecondEpochs(clock, dices[:3]), nothing, nothing, plan(8), killed)
    assert (kept_epochs(killed), len(killed.epochs)) == ([1], 3)
    resumed = FourSecondEpochs(clock, dices[1:])
    again = fit(resumed, nothing, nothing, plan(8), killed)
    assert again == memory
    assert [epoch.val_dice for epoch in killed.epochs] == dices
    assert float(resumed.counter) == 2


def test_packing_a_checkpoint_counts_as_time_for_it(
    nothing: Batches, clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = checkpoint.pack

    def slow_pack(*given: Any) -> bytes:
        clock.now += 5
        return pack(*given)

    monkeypatch.setattr(checkpoint, "pack", slow_pack)
    journal = SlowJournal(clock)
    fit(FourSecondEpochs(clock, [0.1, 0.5, 0.2, 0.3, 0.4, 0.2, 0.2]), nothing, nothing, plan(7), journal)
    assert kept_epochs(journal) == [1, 5, 7]  # 15 s for the first, then when 16 s were trained, and the last
    journal = SlowJournal(clock)
    rising = [0.01 * epoch for epoch in range(1, 31)]  # each a new best, and packing alone takes longer than an epoch
    fit(FourSecondEpochs(clock, rising), nothing, nothing, plan(30), journal)
    assert kept_epochs(journal) == [*range(1, 30, 4), 30]


def test_epoch_that_would_end_too_late_is_not_started(nothing: Batches, clock: Seconds) -> None:
    journal = MemoryJournal()
    memory = fit(FourSecondEpochs(clock, [0.5, 0.7, 0.6, 0.9]), nothing, nothing, plan(4, seconds=15), journal)
    assert (memory.epochs, memory.best_dice) == (3, 0.7)
    assert kept_epochs(journal)[-1] == 3
    late = plan(4, seconds=-1)
    assert fit(FourSecondEpochs(clock, []), nothing, nothing, late, journal).epochs == 3  # what there is will do
    memory = fit(FourSecondEpochs(clock, [0.5, 0.6]), nothing, nothing, late, MemoryJournal())
    assert memory.epochs == 1  # there must be one


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="the host's"),
        pytest.param(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), id="TensorFlow's"),
        pytest.param(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), id="JAX's"),
    ],
)
def test_step_that_does_not_fit_is_told_from_a_bug(nothing: Batches, error: Exception) -> None:
    class Large(Scripted):
        def fit(self, data: Any, **_: Any) -> Any:
            raise error

    with pytest.raises(OutOfMemory, match="test to fit into memory"):
        fit(Large([0.5]), nothing, nothing, plan(2), MemoryJournal())

    class Broken(Scripted):
        def fit(self, data: Any, **_: Any) -> Any:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fit(Broken([0.5]), nothing, nothing, plan(2), MemoryJournal())


def test_backend_that_fails_in_a_step_is_the_trials_failure(nothing: Batches) -> None:
    class Rejected(Scripted):
        def fit(self, data: Any, **_: Any) -> Any:
            raise tf.errors.InternalError(None, None, "cuDNN launch failure")

    with pytest.raises(StepFailed, match=r"a step of test to be computed.*cuDNN launch failure"):
        fit(Rejected([0.5]), nothing, nothing, plan(2), MemoryJournal())


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_no_number_diverges_and_leaves_the_epoch_before(nothing: Batches, loss: float) -> None:
    journal = MemoryJournal()
    with pytest.raises(Diverged, match="epoch 2 of test"):
        fit(Scripted([0.5, 0.6], [0.5, loss]), nothing, nothing, plan(2), journal)
    assert [epoch.epoch for epoch in journal.epochs] == [1]
    assert journal.kept()[0] == journal.states[0]


def test_nan_weights_diverge() -> None:
    train, val = batches()
    broken = networks.compiled("dense", SIZE, REFERENCE_UNET, seed=0)
    broken.weights[-1].assign(np.full(broken.weights[-1].shape, np.nan, np.float32))  # relu would hide it further down
    with pytest.raises(Diverged):
        fit(broken, train, val, plan(1), MemoryJournal())


def test_plan_of_no_epochs_is_refused(nothing: Batches) -> None:
    with pytest.raises(FemurError, match="at least one epoch"):
        fit(Scripted([]), nothing, nothing, plan(0), MemoryJournal())


@pytest.mark.parametrize(
    ("truth", "found", "dice"),
    [
        pytest.param(0, 0, 1.0, id="both empty"),
        pytest.param(0, 1, 0.0, id="nothing there"),
        pytest.param(1, 0, 0.0, id="nothing found"),
        pytest.param(1, 1, 1.0, id="all of it"),
    ],
)
def test_hard_dice_of_full_and_empty_masks(truth: int, found: int, dice: float) -> None:
    class Constant:
        def predict_on_batch(self, images: Any) -> Any:
            return np.full(np.asarray(images).shape, 0.51 if found else 0.5, np.float32)

    masks = np.full((3, SIZE, SIZE), truth, np.uint8)
    cases = Batches(["a"], lambda _: Shard(("a", "b", "c"), masks, masks, ()), 3, SIZE, 2)
    assert list(hard_dice(Constant(), cases)) == [dice] * 3  # one a case, also in the partial batch


def test_probabilities_come_in_chunks_as_in_one_go() -> None:
    trained = model()
    images = shard(35).images_bhw
    found = probabilities(trained, images)
    assert (found.shape, found.dtype) == ((35, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(found, np.asarray(trained(images[..., None]))[..., 0], atol=1e-6)


# Files


def test_checkpoint_of_another_network_is_refused() -> None:
    state, _ = checkpoint.unpack(checkpoint.pack(model(), checkpoint.Memory("test")))
    other = networks.compiled("dense", SIZE, REFERENCE_UNET, seed=0)
    with pytest.raises(FemurError, match="variables"):
        checkpoint.put_back(other, state)
    name = sorted(state)[0]
    with pytest.raises(FemurError, match="Expected shape"):
        checkpoint.put_back(model(), {**state, name: np.zeros((1, 2, 3), np.float32)})


@pytest.fixture(scope="module")
def packed() -> bytes:
    return artefact.pack(model(), Spec("unet", SIZE, REFERENCE_UNET.as_dict()))


def test_artefact_comes_back_as_the_same_network(packed: bytes) -> None:
    rebuilt, spec = artefact.unpack(packed)
    assert spec == Spec("unet", SIZE, REFERENCE_UNET.as_dict())
    images = shard(5).images_bhw
    np.testing.assert_array_equal(probabilities(rebuilt, images), probabilities(model(), images))


def test_artefact_of_the_same_weights_has_the_same_bytes(packed: bytes) -> None:
    assert artefact.pack(model(), Spec("unet", SIZE, REFERENCE_UNET.as_dict())) == packed


def test_artefact_holds_no_optimizer(packed: bytes) -> None:
    arrays = load(packed)
    assert sum(array.size for name, array in arrays.items() if name != "spec") == 913_729


def changed(packed: bytes, **values: Any) -> bytes:
    arrays = load(packed)
    spec = {**json.loads(arrays["spec"].tobytes()), **values}
    return save({**arrays, "spec": np.frombuffer(json.dumps(spec).encode(), np.uint8)})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 a zip, as a .keras file is", id="zip"),
        pytest.param(b"\x80\x04\x95 a pickle", id="pickle"),
        pytest.param(save({"weights": np.zeros(3)}), id="safetensors of somebody else"),
        pytest.param(save({"spec": np.frombuffer(b"\xff\xfe", np.uint8)}), id="spec that is no text"),
        pytest.param(save({"spec": np.frombuffer(b"[1, 2, 3]", np.uint8)}), id="spec that is a list"),
        pytest.param(save({"spec": np.frombuffer(b"{}", np.uint8)}), id="spec without fields"),
    ],
)
def test_foreign_file_is_no_artefact(data: bytes) -> None:
    with pytest.raises(FemurError, match="Expected a model artefact"):
        artefact.unpack(data)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"architecture": "keras.layers.Lambda"}, id="architecture that is not on the list"),
        pytest.param({"architecture": ["unet"]}, id="architecture that is no name"),
        pytest.param({"architecture": "dense"}, id="another architecture's weights"),
        pytest.param({"size": "16"}, id="size that is no number"),
        pytest.param({"size": 17}, id="size that does not fit"),
        pytest.param({"code": "import os"}, id="field too many"),
    ],
)
def test_changed_artefact_is_refused(packed: bytes, values: dict[str, Any]) -> None:
    with pytest.raises(FemurError, match="Expected"):
        artefact.unpack(changed(packed, **values))


def test_artefact_with_a_weight_missing_or_of_another_shape_is_refused(packed: bytes) -> None:
    arrays = load(packed)
    name = sorted(arrays)[0]
    for broken in (
        {key: value for key, value in arrays.items() if key != name},
        {**arrays, name: np.zeros((2, 2), np.float32)},
        {**arrays, "9999 one more": np.zeros(1, np.float32)},
    ):
        with pytest.raises(FemurError, match="other shapes"):
            artefact.unpack(save(broken))


def test_hyperparameters_of_a_file_never_reach_keras(packed: bytes) -> None:
    """Keras makes objects, of any module, from the names in such a dictionary."""
    planted = {"module": "builtins", "class_name": "print", "config": {}, "registered_name": None}
    rebuilt, spec = artefact.unpack(changed(packed, hyperparameters={"initializer": planted, "dropout": "much"}))
    assert spec.hyperparameters["initializer"] == planted
    images = shard(1).images_bhw
    np.testing.assert_array_equal(probabilities(rebuilt, images), probabilities(model(), images))


def test_hyperparameters_pass_over_names_that_are_none_of_theirs() -> None:
    found = Hyperparameters().with_values({"dropout": 0.5, "tuner/epochs": 3, "learning_rate": 1e-4})
    assert (found.dropout, found.learning_rate) == (0.5, 1e-4)
    assert Hyperparameters(**found.as_dict()) == found


# Averaged weights and augmentation


def raw_weights(average: float) -> tuple[Any, float, list[Any]]:
    """The weights at the end of two epochs as training left them, the best Dice, and the model's weights."""
    train, val = batches()
    told = replace(REFERENCE_UNET, batch_size=4, average=average)
    trained, journal = networks.compiled("unet", SIZE, told, seed=5), MemoryJournal()
    memory = fit(trained, train, val, plan(2), journal)
    state, _ = checkpoint.unpack(journal.states[-1])
    count = len(trained.variables)
    return [state[name] for name in sorted(state)[:count]], memory.best_dice, trained.get_weights()


def test_averaging_changes_what_is_kept_and_not_how_it_trains() -> None:
    plain, _, last = raw_weights(0.0)
    averaged, best, kept = raw_weights(0.9)
    for mine, its in zip(averaged, plain, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert any((mine != its).any() for mine, its in zip(kept, last, strict=True))
    again = networks.compiled("unet", SIZE, REFERENCE_UNET, seed=5)
    again.set_weights(kept)
    assert float(np.mean(list(hard_dice(again, batches()[1])))) == best


def test_few_cases_come_several_times_an_epoch_where_they_are_augmented() -> None:
    train, _ = batches()
    assert [train.steps(), train.steps(Augmentation(0.5))] == [3, 25]
    assert sum(len(images) for images, _ in train.epoch(0, 0)) == 10
    assert train.steps(Augmentation(0.5, "affine")) == 3
    drawn = np.concatenate([np.asarray(images) for images, _ in train.epoch(0, 0, Augmentation(0.5))])
    assert len(drawn) == 100
    assert len({image.tobytes() for image in drawn}) == 100


def test_augmented_epoch_is_drawn_from_seed_and_epoch_alone() -> None:
    def pictures(seed: int, epoch: int) -> bytes:
        keras.utils.set_random_seed(9)
        return b"".join(
            np.asarray(images).tobytes() for images, _ in batches()[0].epoch(seed, epoch, Augmentation(0.5))
        )

    assert pictures(1, 2) == pictures(1, 2)
    assert len({pictures(1, 2), pictures(1, 3), pictures(2, 2)}) == 3


@given(st.integers(0, 2**31), st.sampled_from([0.25, 1.0]), st.sampled_from(["full", "affine"]))
@settings(max_examples=20, deadline=None)
def test_mask_follows_its_picture(seed: int, strength: float, kind: str) -> None:
    """A picture that is its mask stays so wherever it is moved; only exposure tells them apart."""
    mask = shard(1, seed=3).masks_bhw[0]
    image, moved = augment(mask * 255, mask, Augmentation(strength, kind), np.random.default_rng(seed))
    assert (moved.shape, moved.dtype, image.dtype) == (mask.shape, np.uint8, np.uint8)
    assert set(np.unique(moved)) <= {0, 1}
    if 0 < moved.sum() < moved.size:
        assert image[moved == 1].mean() > image[moved == 0].mean()


def test_no_augmentation_gives_back_what_came() -> None:
    image, mask = shard(1).images_bhw[0], shard(1).masks_bhw[0]
    found = augment(image, mask, NONE, np.random.default_rng(0))
    assert found[0] is image
    assert found[1] is mask


def test_half_a_batch_is_tried_where_a_whole_one_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    class Pictures:
        size = SIZE

        @staticmethod
        def batches(split: str, batch_size: int) -> Batches:
            cases = shard(10, seed=1)
            return Batches([split], lambda _: cases, 10, SIZE, batch_size)

    def small(network: Any, train: Batches, val: Batches, told: Plan, journal: Any) -> Any:
        tried.append(train.steps())
        if train.steps() < 5:
            raise OutOfMemory("Expected a step to fit. Received: none.")
        return fit(network, train, val, told, journal)

    monkeypatch.setattr("femur_tasks.training.fit.fit", small)
    told = replace(REFERENCE_UNET, batch_size=4)
    _, memory, used = trained(Pictures(), "unet", told, 1, plan(1), MemoryJournal())  # type: ignore[arg-type]
    assert (tried, memory.epochs, used) == ([3, 5], 1, replace(told, batch_size=2))
    tried.clear()
    with pytest.raises(OutOfMemory):
        trained(Pictures(), "unet", replace(told, batch_size=16), 1, plan(1), MemoryJournal())  # type: ignore[arg-type]
    assert tried == [1, 2]
