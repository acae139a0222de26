"""The reference's training as its notebooks have it, plain Keras: the rival of `train.py` and `few_cases.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

BATCH, EPOCHS = 16, 150
LEARNING_RATE, BETA_1, BETA_2, DROPOUT = 3e-4, 0.8, 0.991, 0.3


def dice_loss(truth: Any, probability: Any) -> Any:
    truth, probability = ops.cast(truth, "float32"), ops.cast(probability, "float32")
    overlap = ops.sum(truth * probability)
    return 1 - (2 * overlap + 1) / (ops.sum(truth) + ops.sum(probability) + 1)


def unet(size: int) -> keras.Model:
    def double(x: Any, filters: int) -> Any:
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.Dropout(DROPOUT)(x)
        return layers.Conv2D(filters, 3, padding="same", activation="relu")(x)

    inputs = keras.Input((size, size, 1))
    x, skips = inputs, []
    for filters in (32, 64, 128):
        x = double(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = double(x, 128)
    for filters in (64, 64, 32):
        x = double(layers.Concatenate()([layers.UpSampling2D()(x), skips.pop()]), filters)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def train(
    images_bhw: Any,
    masks_bhw: Any,
    seed: int,
    on_epoch: Callable[[keras.Model, int, float], bool],
    epochs: int = EPOCHS,
) -> keras.Model:
    """Train on uint8 pictures and 0/1 masks; `on_epoch` gets model, epoch and training seconds, True ends it."""
    keras.utils.set_random_seed(seed)

    def standardised(image: Any, mask: Any) -> tuple[Any, Any]:
        return tf.image.per_image_standardization(tf.cast(image, tf.float32)), tf.cast(mask, tf.float32)

    pairs = tf.data.Dataset.from_tensor_slices((images_bhw[..., None], masks_bhw[..., None]))
    pairs = pairs.map(standardised, num_parallel_calls=tf.data.AUTOTUNE).cache()
    batches = pairs.shuffle(len(images_bhw)).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    model = unet(images_bhw.shape[1])
    model.compile(keras.optimizers.Adam(LEARNING_RATE, BETA_1, BETA_2), loss=dice_loss)
    seconds = 0.0
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        model.fit(batches, epochs=1, verbose=0)
        seconds += time.perf_counter() - started
        if on_epoch(model, epoch, seconds):
            break
    return model


def probabilities(model: keras.Model, images_bhw: Any) -> Any:
    """float32 probabilities, (batch, size, size), of uint8 pictures."""
    found = [
        np.asarray(model.predict_on_batch(tf.image.per_image_standardization(tf.cast(part[..., None], tf.float32))))
        for part in np.array_split(images_bhw, max(1, len(images_bhw) // 16))
    ]
    return np.concatenate(found)[..., 0]
