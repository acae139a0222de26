"""Losses, computed in float32 whatever the training policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

_SMOOTH = 1.0


def soft_dice_loss(truth: Any, probability: Any) -> Any:
    """1 - (2 sum(t p) + 1) / (sum(t) + sum(p) + 1), the sums over the whole batch.

    Over the batch, not per picture: one empty mask then does not dominate the step.
    Source: Milletari et al., V-Net, 2016, with the first power in the denominator.
    """
    truth, probability = ops.cast(truth, "float32"), ops.cast(probability, "float32")
    overlap = ops.sum(truth * probability)
    return 1.0 - (2.0 * overlap + _SMOOTH) / (ops.sum(truth) + ops.sum(probability) + _SMOOTH)


def binary_cross_entropy(truth: Any, probability: Any) -> Any:
    """Mean over all pixels of -t log p - (1 - t) log(1 - p)."""
    truth, probability = ops.cast(truth, "float32"), ops.cast(probability, "float32")
    return ops.mean(keras.losses.binary_crossentropy(truth, probability))


def dice_and_cross_entropy(truth: Any, probability: Any) -> Any:
    """Soft Dice loss plus binary cross-entropy, which still has a slope where nothing overlaps yet.

    Source: Isensee et al., nnU-Net, Nature Methods 2021.
    """
    return soft_dice_loss(truth, probability) + binary_cross_entropy(truth, probability)


LOSSES: Mapping[str, Callable[[Any, Any], Any]] = {
    "dice": soft_dice_loss,
    "bce": binary_cross_entropy,
    "dice_bce": dice_and_cross_entropy,
}
