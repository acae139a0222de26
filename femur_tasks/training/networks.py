"""The networks of the reference, the dense baseline and the U-Net, and the U-Net's variants for the search.

Both take grey values 0 to 255, (batch, size, size, 1), standardise each picture themselves, so that
training, evaluation and serving can't differ in it, and give femur probabilities of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
from keras import layers, ops

from femur_tasks.errors import FemurError
from femur_tasks.training.hyperparameters import Hyperparameters
from femur_tasks.training.losses import LOSSES


class Standardise(layers.Layer):  # type: ignore[misc]
    """Per-image standardisation: (x - mean) / max(std, 1 / sqrt(pixels)), as TensorFlow's."""

    def call(self, images_bhwc: Any) -> Any:
        images = ops.cast(images_bhwc, "float32")
        axes = (1, 2, 3)
        least = 1.0 / float(images.shape[1] * images.shape[2]) ** 0.5
        spread = ops.maximum(ops.std(images, axis=axes, keepdims=True), least)
        return (images - ops.mean(images, axis=axes, keepdims=True)) / spread


class InstanceNormalization(layers.Layer):  # type: ignore[misc]
    """gamma (x - mean) / sqrt(variance + 1e-3) + beta, mean and variance over each picture's own channel.

    What `GroupNormalization(groups=-1)` computes, with its weights. Its gradient is written out: a step of `tuned` at
    128 takes 73 to 82 ms of processor time a picture with it, and 82 to 91 with Keras' own.

    Source: Ulyanov et al., Instance normalization, 2016; the gradient is that of Ioffe and Szegedy, 2015, a picture
    at a time.
    """

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x_bhwc: Any, training: bool = False) -> Any:
        given = [ops.cast(ops.convert_to_tensor(part), "float32") for part in (x_bhwc, self.gamma, self.beta)]
        found = _instance_norm(*given) if training else _instance_norm_and_gradient(*given)[0]
        return ops.cast(found, self.compute_dtype)


def _instance_norm_and_gradient(x: Any, gamma: Any, beta: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
    def mean_of(values: Any) -> Any:
        return ops.mean(values, axis=(1, 2), keepdims=True)

    mean = mean_of(x)
    inverse = ops.rsqrt(ops.maximum(mean_of(x * x) - mean * mean, 0.0) + 1e-3)
    scale = gamma * inverse

    def gradient(above: Any) -> tuple[Any, Any, Any]:
        mean_above = mean_of(above)
        along = inverse * (mean_of(above * x) - mean * mean_above)  # mean of `above` times the normalised x
        slope = scale * along * inverse
        pixels = float(x.shape[1] * x.shape[2])
        return (
            above * scale - x * slope + (slope * mean - scale * mean_above),
            pixels * ops.sum(along, axis=(0, 1, 2)),
            pixels * ops.sum(mean_above, axis=(0, 1, 2)),
        )

    return x * scale + (beta - mean * scale), gradient


_instance_norm = ops.custom_gradient(_instance_norm_and_gradient)


def dense(size: int, hyperparameters: Hyperparameters) -> keras.Model:
    """Flatten, Dense 1024 relu, Dense size^2 sigmoid: 134,284,288 parameters at 256."""
    kernel = hyperparameters.initializer
    inputs = keras.Input((size, size, 1))
    x = layers.Flatten()(Standardise()(inputs))
    x = layers.Dense(1024, activation="relu", kernel_initializer=kernel)(x)
    x = layers.Dense(size * size, activation="sigmoid", kernel_initializer=kernel, dtype="float32")(x)
    return keras.Model(inputs, layers.Reshape((size, size, 1))(x), name="dense")


def unet(size: int, hyperparameters: Hyperparameters) -> keras.Model:
    """Double convolutions 32-64-128-128-64-64-32 with dropout in the middle: 913,729 parameters.

    Max-pool on the way down, nearest up-sampling and concatenation on the way up, 1 x 1 sigmoid.
    `size` is a multiple of 8. That is the reference's; `block`, `norm` and `spatial_dropout` vary it.

    Sources: Ronneberger et al., U-Net, 2015; He et al., ResNet, 2016; Chollet, Xception, 2017; Ulyanov et al.,
    Instance normalization, 2016; Tompson et al., SpatialDropout, 2015.
    """
    told = hyperparameters
    separable, residual, norm = told.block == "separable", told.block == "residual", told.norm == "instance"

    def convolution(x: Any, filters: int) -> Any:
        activation = None if norm else "relu"
        if separable and x.shape[-1] > 1:
            kernels = {"depthwise_initializer": told.initializer, "pointwise_initializer": told.initializer}
            x = layers.SeparableConv2D(filters, 3, padding="same", activation=activation, **kernels)(x)
        else:
            x = layers.Conv2D(filters, 3, padding="same", activation=activation, kernel_initializer=told.initializer)(x)
        return layers.ReLU()(InstanceNormalization()(x)) if norm else x

    def block(x: Any, filters: int) -> Any:
        first = convolution(x, filters)
        dropped = (layers.SpatialDropout2D if told.spatial_dropout else layers.Dropout)(told.dropout)(first)
        second = convolution(dropped, filters)
        if not residual:
            return second
        same = x.shape[-1] == filters
        return layers.Add()([second, x if same else layers.Conv2D(filters, 1, kernel_initializer=told.initializer)(x)])

    inputs = keras.Input((size, size, 1))
    x = Standardise()(inputs)
    skips = []
    for filters in (32, 64, 128):
        x = block(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, 128)
    for filters in (64, 64, 32):
        x = layers.Concatenate()([layers.UpSampling2D(interpolation="nearest")(x), skips.pop()])
        x = block(x, filters)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x), name="unet")


ARCHITECTURES: Mapping[str, Callable[[int, Hyperparameters], keras.Model]] = {"dense": dense, "unet": unet}
"""The allow-list: an artefact names its network, and only these are built."""


_VARIANTS: Mapping[str, tuple[Any, ...]] = {
    "block": ("plain", "residual", "separable"),
    "norm": ("none", "instance"),
    "precision": ("float32", "mixed_bfloat16"),
    "schedule": ("constant", "cosine"),
    "augmentation_kind": ("full", "affine"),
    "loss": tuple(LOSSES),
}


def build(architecture: str, size: int, hyperparameters: Hyperparameters) -> keras.Model:
    """A network with fresh weights.

    Raises:
        FemurError: a name that is not in `ARCHITECTURES`, a variant that is none of ours, or a size that three
            poolings don't divide.
    """
    if architecture not in ARCHITECTURES:
        raise FemurError(f"Expected an architecture of {', '.join(ARCHITECTURES)}. Received: {architecture}.")
    for name, values in _VARIANTS.items():
        if (found := getattr(hyperparameters, name)) not in values:
            raise FemurError(f"Expected {name} to be one of {', '.join(values)}. Received: {found}.")
    if size < 16 or size % 8:
        raise FemurError(f"Expected a size of 16 or more, a multiple of 8. Received: {size}.")
    with _policy(hyperparameters.precision):
        return ARCHITECTURES[architecture](size, hyperparameters)


def in_float32(model: keras.Model, architecture: str, size: int, hyperparameters: Hyperparameters) -> keras.Model:
    """The same weights in a network that computes in float32, as everything but training does."""
    if hyperparameters.precision == "float32":
        return model
    found = build(architecture, size, replace(hyperparameters, precision="float32"))
    found.set_weights(model.get_weights())
    return found


@contextmanager
def _policy(precision: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def compiled(architecture: str, size: int, hyperparameters: Hyperparameters, seed: int, steps: int = 0) -> keras.Model:
    """A network ready to fit: seeded, with Adam's variables built, so that a checkpoint can be put back whole.

    Args:
        steps: of the whole fit, which a schedule spans; not needed where the learning rate is constant.

    Raises:
        FemurError: as `build`, or a schedule over no steps.
    """
    keras.utils.set_random_seed(seed)
    model = build(architecture, size, hyperparameters)
    averaged = {"use_ema": True, "ema_momentum": hyperparameters.average} if hyperparameters.average else {}
    optimizer = keras.optimizers.Adam(
        _learning_rate(hyperparameters, steps), hyperparameters.beta_1, hyperparameters.beta_2, **averaged
    )
    model.compile(optimizer=optimizer, loss=LOSSES[hyperparameters.loss])
    model.optimizer.build(model.trainable_variables)
    return model


def _learning_rate(hyperparameters: Hyperparameters, steps: int) -> Any:
    peak = hyperparameters.learning_rate
    if hyperparameters.schedule == "constant":
        return peak
    if steps < 1:
        raise FemurError(f"Expected the steps that the schedule spans. Received: {steps}.")
    warm_up = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        peak / 100, max(1, steps - warm_up), alpha=0.01, warmup_target=peak, warmup_steps=warm_up
    )
