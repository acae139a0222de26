"""The search space of the family `tuned`: the reference's grid, with the learning rate free."""

from __future__ import annotations

from typing import Any

from femur_tasks.training.hyperparameters import REFERENCE_UNET, Hyperparameters

INITIALIZERS = ("he_normal", "glorot_uniform")
DROPOUTS = (0.2, 0.3, 0.5)
BETA_1 = tuple(round(0.1 * i, 1) for i in range(1, 10))
BETA_2 = tuple(round(0.99 + 0.001 * i, 3) for i in range(1, 10))
LEARNING_RATES = (1e-4, 1e-3)  # above, soft Dice falls to an empty mask on some seeds and stays there


def keras_tuner_space() -> Any:
    """The space as Keras Tuner's `HyperParameters`; the learning rate is drawn on a logarithmic scale."""
    import keras_tuner

    space = keras_tuner.HyperParameters()
    space.Float("learning_rate", *LEARNING_RATES, sampling="log")
    space.Choice("initializer", list(INITIALIZERS))
    space.Choice("dropout", list(DROPOUTS))
    space.Choice("beta_1", list(BETA_1))
    space.Choice("beta_2", list(BETA_2))
    return space


def hyperparameters(values: dict[str, Any], batch_size: int) -> Hyperparameters:
    """A point of the space as hyperparameters of a fit."""
    return REFERENCE_UNET.with_values({**values, "batch_size": batch_size})
