"""A champion that predicts without a network or a registry, for tests of what is done with its masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from femur_tasks.dataset.likeness import Likeness
from femur_tasks.serving.champion import Served
from tests.radiographs import Array

SIZE = 32
UNJUDGED = Likeness(np.zeros((0, 0), np.float32), None)


def two_femurs(_grey_hw: Array) -> Array:
    """A femur of 6 x 10 low in either half of the 32 x 32 that the network sees, the picture's left one 4 longer."""
    probability = np.zeros((SIZE, SIZE), np.float32)
    probability[14:28, 4:10] = probability[14:24, 22:28] = 1
    return probability


def lone_femur(grey_hw: Array) -> Array:
    """The picture's left one of them alone."""
    return two_femurs(grey_hw) * (np.arange(SIZE) < SIZE / 2)


def served(probability: Callable[[Array], Array] = two_femurs, likeness: Likeness = UNJUDGED) -> Served:
    return Served(1, "femur:1", SIZE, "0" * 64, probability, likeness)
