"""The networks of the reference, layer by layer, and the losses against values worked out by hand."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from femur_tasks.errors import FemurError
from femur_tasks.training import networks
from femur_tasks.training.hyperparameters import REFERENCE_BASELINE, REFERENCE_UNET, Hyperparameters
from femur_tasks.training.losses import binary_cross_entropy, soft_dice_loss

KINDS = {"Conv2D", "MaxPooling2D", "UpSampling2D", "Concatenate", "Dropout", "Dense", "Flatten", "Reshape"}


def without_values(architecture: str, size: int, hyperparameters: Hyperparameters) -> keras.Model:
    """The network with variables that have shapes and no values: 537 MB are counted without being held."""
    with keras.StatelessScope():
        return networks.build(architecture, size, hyperparameters)


@pytest.mark.parametrize(
    ("architecture", "size", "hyperparameters", "parameters"),
    [
        pytest.param("unet", 256, REFERENCE_UNET, 913_729, id="U-Net at 256"),
        pytest.param("unet", 64, REFERENCE_UNET, 913_729, id="U-Net at 64, the same"),
        # 65536 x 1024 + 1024, then 1024 x 65536 + 65536
        pytest.param("dense", 256, REFERENCE_BASELINE, 134_284_288, id="baseline at 256"),
        # 1024 x 1024 + 1024, twice
        pytest.param("dense", 32, REFERENCE_BASELINE, 2_099_200, id="baseline at 32"),
    ],
)
def test_network_has_as_many_parameters_as_the_references(
    architecture: str, size: int, hyperparameters: Hyperparameters, parameters: int
) -> None:
    model = without_values(architecture, size, hyperparameters)
    assert model.count_params() == parameters
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == parameters
    assert model.output_shape == (None, size, size, 1)


def layers_of(model: keras.Model) -> list[str]:
    told = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "Conv2D":
            told.append(
                f"conv {layer.filters} {layer.kernel_size[0]}x{layer.kernel_size[1]} {layer.activation.__name__}"
            )
        elif kind == "Dense":
            told.append(f"dense {layer.units} {layer.activation.__name__}")
        elif kind == "Dropout":
            told.append(f"dropout {layer.rate}")
        elif kind == "UpSampling2D":
            told.append(f"up {layer.interpolation}")
        elif kind in KINDS:
            told.append(kind)
    return told


def double(filters: int) -> list[str]:
    return [f"conv {filters} 3x3 relu", "dropout 0.3", f"conv {filters} 3x3 relu"]


def test_unet_is_the_references_layer_by_layer() -> None:
    down = [*double(32), "MaxPooling2D", *double(64), "MaxPooling2D", *double(128), "MaxPooling2D"]
    up = [layer for filters in (64, 64, 32) for layer in ("up nearest", "Concatenate", *double(filters))]
    model = networks.build("unet", 32, REFERENCE_UNET)
    assert layers_of(model) == [*down, *double(128), *up, "conv 1 1x1 sigmoid"]


def test_unet_joins_each_rung_of_the_way_down_with_its_own_size() -> None:
    model = networks.build("unet", 32, REFERENCE_UNET)
    joined = [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]
    shapes = [[tuple(tensor.shape[1:]) for tensor in layer.input] for layer in joined]
    assert shapes == [[(8, 8, 128), (8, 8, 128)], [(16, 16, 64), (16, 16, 64)], [(32, 32, 64), (32, 32, 32)]]


def test_baseline_is_the_references_layer_by_layer() -> None:
    model = networks.build("dense", 16, REFERENCE_BASELINE)
    assert layers_of(model) == ["Flatten", "dense 1024 relu", "dense 256 sigmoid", "Reshape"]


@pytest.mark.parametrize("architecture", ["unet", "dense"])
def test_hyperparameters_reach_the_layers_and_the_optimizer(architecture: str) -> None:
    chosen = Hyperparameters(2e-4, beta_1=0.7, beta_2=0.99, dropout=0.2, initializer="he_normal", loss="bce")
    model = networks.compiled(architecture, 16, chosen, seed=0)
    optimizer = model.optimizer.get_config()
    assert optimizer["learning_rate"] == pytest.approx(2e-4)
    assert (optimizer["beta_1"], optimizer["beta_2"]) == (0.7, 0.99)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss is binary_cross_entropy
    hidden = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)][:-1]
    assert {type(layer.kernel_initializer).__name__ for layer in hidden} == {"HeNormal"}
    assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} <= {0.2}


@pytest.mark.parametrize("architecture", ["unet", "dense"])
def test_probabilities_have_the_pictures_shape_and_lie_between_0_and_1(architecture: str) -> None:
    model = networks.compiled(architecture, 16, REFERENCE_UNET, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), np.uint8)
    found = np.asarray(model(images))
    assert (found.shape, found.dtype) == ((2, 16, 16, 1), np.float32)
    assert 0 <= found.min() < found.max() <= 1


def test_one_pictures_result_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    model = networks.compiled("unet", 16, REFERENCE_UNET, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
    np.testing.assert_allclose(np.asarray(model(images))[:1], np.asarray(model(images[:1])), atol=1e-6)


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (networks.compiled("unet", 16, REFERENCE_UNET, seed).get_weights()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["resnet", "", "UNET", "build"])
def test_network_that_is_not_on_the_list_is_refused(name: str) -> None:
    with pytest.raises(FemurError, match="architecture of dense, unet"):
        networks.build(name, 64, REFERENCE_UNET)


@pytest.mark.parametrize("size", [0, 8, 15, 33, 100, -64])
@pytest.mark.parametrize("architecture", ["unet", "dense"])
def test_size_that_three_poolings_cannot_divide_is_refused(architecture: str, size: int) -> None:
    with pytest.raises(FemurError, match="multiple of 8"):
        networks.build(architecture, size, REFERENCE_UNET)


# Standardisation


@pytest.mark.parametrize(
    "low_high", [(0, 256), (100, 103), (0, 1), (255, 256)], ids=["noise", "faint", "black", "white"]
)
def test_standardise_is_tensorflows(low_high: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(*low_high, (3, 24, 24, 1)).astype(np.uint8)
    found = np.asarray(networks.Standardise()(images))
    expected = tf.image.per_image_standardization(images).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_standardise_of_an_almost_even_picture_divides_by_the_least_spread() -> None:
    images = np.full((1, 24, 24, 1), 100, np.uint8)
    images[0, 5, 5] = 101  # deviation sqrt(p (1 - p)) with p = 1 / 576: just below 1 / 24
    found = np.asarray(networks.Standardise()(images))
    assert found[0, 5, 5, 0] == pytest.approx((1 - 1 / 576) * 24, rel=1e-5)
    np.testing.assert_allclose(found, tf.image.per_image_standardization(images).numpy(), rtol=1e-4)


def test_standardise_by_hand() -> None:
    # mean 3, variance 5; 1 / sqrt(4) is below the deviation
    images = np.array([0, 2, 4, 6], np.uint8).reshape(1, 2, 2, 1)
    expected = np.array([-3, -1, 1, 3]) / math.sqrt(5)
    np.testing.assert_allclose(np.asarray(networks.Standardise()(images)).ravel(), expected, rtol=1e-6)


def test_standardise_stays_in_float32_under_mixed_precision() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8)
    layer = networks.Standardise(dtype="mixed_bfloat16")
    expected = tf.image.per_image_standardization(images).numpy()
    np.testing.assert_allclose(np.asarray(ops.cast(layer(images), "float32")), expected, atol=2e-2)


# Losses


def test_soft_dice_loss_by_hand() -> None:
    # t p = 0.9 + 0.2 + 0.6 = 1.7; sum t = 3; sum p = 0.9 + 0.4 + 0.2 + 0.1 + 0 + 0 + 0.6 + 0.3 = 2.5
    truth = np.array([[1, 0, 1, 0], [0, 0, 1, 0]], np.uint8).reshape(2, 2, 2, 1)
    probability = np.array([[0.9, 0.4, 0.2, 0.1], [0, 0, 0.6, 0.3]], np.float32).reshape(2, 2, 2, 1)
    found = soft_dice_loss(truth, probability)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert float(found) == pytest.approx(1 - (2 * 1.7 + 1) / (3 + 2.5 + 1), abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "probability", "loss"),
    [
        pytest.param([1, 1, 0, 0], [1, 1, 0, 0], 0.0, id="perfect"),
        pytest.param([0, 0, 0, 0], [0, 0, 0, 0], 0.0, id="nothing there and nothing found"),
        pytest.param([1, 1, 0, 0], [0, 0, 1, 1], 1 - 1 / 5, id="all wrong"),
        pytest.param([0, 0, 0, 0], [1, 1, 1, 1], 1 - 1 / 5, id="all found where nothing is"),
    ],
)
def test_soft_dice_loss_at_its_ends(truth: list[int], probability: list[float], loss: float) -> None:
    pictures = [np.array(values, np.float32).reshape(1, 2, 2, 1) for values in (truth, probability)]
    assert float(soft_dice_loss(*pictures)) == pytest.approx(loss, abs=1e-6)


def test_soft_dice_is_of_the_whole_batch_not_the_mean_over_pictures() -> None:
    # one perfect picture of 4 pixels, one empty mask with 2 pixels found: 1 - (8 + 1) / (4 + 6 + 1)
    truth = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.float32).reshape(2, 2, 2, 1)
    probability = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32).reshape(2, 2, 2, 1)
    assert float(soft_dice_loss(truth, probability)) == pytest.approx(1 - 9 / 11, abs=1e-6)


@pytest.mark.parametrize("loss", [soft_dice_loss, binary_cross_entropy])
def test_losses_are_float32_whatever_comes_in(loss: object) -> None:
    truth = np.zeros((4, 128, 128, 1), np.uint8)
    truth[:, 32:96, 32:96] = 1  # 16,384 pixels: a float16 sum over the batch has steps of 16
    probability = ops.cast(ops.full(truth.shape, 0.25), "float16")
    exact = {  # 0.25 has no rounding in float16
        "soft_dice_loss": 1 - (2 * 4096 + 1) / (16384 + 16384 + 1),
        "binary_cross_entropy": -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)),
    }
    found = loss(truth, probability)  # type: ignore[operator]
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert float(found) == pytest.approx(exact[loss.__name__], rel=1e-5)  # type: ignore[attr-defined]


def test_binary_cross_entropy_by_hand() -> None:
    truth = np.array([1, 0, 1, 0], np.uint8).reshape(1, 2, 2, 1)
    probability = np.array([0.9, 0.2, 0.5, 0.5], np.float32).reshape(1, 2, 2, 1)
    expected = -(math.log(0.9) + math.log(0.8) + 2 * math.log(0.5)) / 4
    assert float(binary_cross_entropy(truth, probability)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_instance_normalization_and_its_gradient_are_those_of_keras_group_normalization(training: bool) -> None:
    rng = np.random.default_rng(0)
    ours, keras_ = networks.InstanceNormalization(), keras.layers.GroupNormalization(groups=-1)
    x = tf.constant(rng.normal(3.0, 2.0, (4, 12, 10, 5)), tf.float32)
    above = tf.constant(rng.normal(size=x.shape), tf.float32)
    for layer in (ours, keras_):
        layer.build(x.shape)
        layer.set_weights([np.linspace(0.5, 2, 5), np.linspace(-1, 1, 5)])
    found = []
    for layer in (ours, keras_):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training) if layer is ours else layer(x)
        found.append([y, *tape.gradient(y, [x, layer.gamma.value, layer.beta.value], above)])
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)


def test_instance_normalization_of_a_channel_without_spread_is_beta() -> None:
    layer = networks.InstanceNormalization()
    x = tf.fill((2, 8, 8, 3), 1234.5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_allclose(y, 0, atol=0.1)
    assert np.isfinite(tape.gradient(y, x)).all()
