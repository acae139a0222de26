"""The networks of the reference: the dense baseline and the U-Net.

Both take grey values 0 to 255, (batch, size, size, 1), standardise each picture themselves, so that
training, evaluation and serving can't differ in it, and give femur probabilities of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    `size` is a multiple of 8.
    """

    def double_convolution(x: Any, filters: int) -> Any:
        for last in (False, True):
            x = layers.Conv2D(
                filters, 3, padding="same", activation="relu", kernel_initializer=hyperparameters.initializer
            )(x)
            if not last:
                x = layers.Dropout(hyperparameters.dropout)(x)
        return x

    inputs = keras.Input((size, size, 1))
    x = Standardise()(inputs)
    skips = []
    for filters in (32, 64, 128):
        x = double_convolution(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = double_convolution(x, 128)
    for filters in (64, 64, 32):
        x = layers.Concatenate()([layers.UpSampling2D(interpolation="nearest")(x), skips.pop()])
        x = double_convolution(x, filters)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x), name="unet")


ARCHITECTURES: Mapping[str, Callable[[int, Hyperparameters], keras.Model]] = {"dense": dense, "unet": unet}
"""The allow-list: an artefact names its network, and only these are built."""


def build(architecture: str, size: int, hyperparameters: Hyperparameters) -> keras.Model:
    """A network with fresh weights.

    Raises:
        FemurError: a name that is not in `ARCHITECTURES`, or a size that three poolings don't divide.
    """
    if architecture not in ARCHITECTURES:
        raise FemurError(f"Expected an architecture of {', '.join(ARCHITECTURES)}. Received: {architecture}.")
    if size < 16 or size % 8:
        raise FemurError(f"Expected a size of 16 or more, a multiple of 8. Received: {size}.")
    return ARCHITECTURES[architecture](size, hyperparameters)


def compiled(architecture: str, size: int, hyperparameters: Hyperparameters, seed: int) -> keras.Model:
    """A network ready to fit: seeded, with Adam's variables built, so that a checkpoint can be put back whole."""
    keras.utils.set_random_seed(seed)
    model = build(architecture, size, hyperparameters)
    optimizer = keras.optimizers.Adam(
        hyperparameters.learning_rate, beta_1=hyperparameters.beta_1, beta_2=hyperparameters.beta_2
    )
    model.compile(optimizer=optimizer, loss=LOSSES[hyperparameters.loss])
    model.optimizer.build(model.trainable_variables)
    return model
