"""Search spaces: named dimensions that every strategy draws from, and those of the reference and of `tuned`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from femur_tasks.errors import FemurError
from femur_tasks.training.hyperparameters import FEW_CASES


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class LogFloat:
    """A number from `low` to `high`, drawn on a logarithmic scale; it has no grid."""

    low: float
    high: float


Space = Mapping[str, Choice | LogFloat]

SWEEP: Space = {"learning_rate": Choice(tuple(sorted({float(f"{m}e-{i}") for i in range(3, 6) for m in range(1, 11)})))}
"""The reference's learning rates, 10^-i x m for i = 3..5 and m = 1..10: 30 products, 28 of them distinct."""

GRID: Space = {
    "initializer": Choice(("he_normal", "glorot_uniform")),
    "dropout": Choice((0.2, 0.3, 0.5)),
    "beta_1": Choice(tuple(round(0.1 * i, 1) for i in range(1, 10))),
    "beta_2": Choice(tuple(round(0.99 + 0.001 * i, 3) for i in range(1, 10))),
}
"""The reference's grid: 486 combinations."""

# above 1e-3, soft Dice falls to an empty mask on some seeds and stays there
REFERENCE: Space = {"learning_rate": LogFloat(1e-4, 1e-3), **GRID}
"""What the reference's Hyperband searched: its grid, with the learning rate free."""


def tuned(train_cases: int) -> Space:
    """The space of the family `tuned`: what the U-Net's variants and a short night leave worth asking.

    Augmentation is always on below `FEW_CASES` training cases, and off or mild above.
    """
    few = train_cases < FEW_CASES
    return {
        "learning_rate": LogFloat(3e-4, 3e-3),
        "dropout": Choice((0.0, 0.1, 0.2, 0.3)),
        "spatial_dropout": Choice((False, True)),
        "block": Choice(("plain", "residual", "separable")),
        "norm": Choice(("none", "instance")),
        "augmentation": Choice((0.5, 0.75, 1.0) if few else (0.0, 0.25, 0.5)),
    }


def size_of(space: Space) -> int:
    """How many configurations the space's grid has.

    Raises:
        FemurError: a dimension has no grid.
    """
    return math.prod(len(_values(name, dimension)) for name, dimension in space.items())


def nth(space: Space, index: int) -> dict[str, Any]:
    """The grid's configuration number `index`, the last dimension counting fastest."""
    found: dict[str, Any] = {}
    for name, dimension in reversed(list(space.items())):
        values = _values(name, dimension)
        index, place = divmod(index, len(values))
        found[name] = values[place]
    return {name: found[name] for name in space}


def drawn(space: Space, random: np.random.Generator) -> dict[str, Any]:
    """One configuration at random."""
    return {name: _drawn(dimension, random) for name, dimension in space.items()}


def _drawn(dimension: Choice | LogFloat, random: np.random.Generator) -> Any:
    if isinstance(dimension, Choice):
        return dimension.values[int(random.integers(len(dimension.values)))]
    return float(math.exp(random.uniform(math.log(dimension.low), math.log(dimension.high))))


def _values(name: str, dimension: Choice | LogFloat) -> tuple[Any, ...]:
    if isinstance(dimension, LogFloat):
        raise FemurError(f"Expected dimensions with a grid. Received: {name}, any number from {dimension.low}.")
    return dimension.values


def keras_tuner_space(space: Space) -> Any:
    """The space as Keras Tuner's `HyperParameters`."""
    import keras_tuner

    found = keras_tuner.HyperParameters()
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            found.Choice(name, list(dimension.values))
        else:
            found.Float(name, dimension.low, dimension.high, sampling="log")
    return found


def to_json(space: Space) -> dict[str, Any]:
    """The space as plain JSON, for the search's row."""
    return {name: asdict(dimension) for name, dimension in space.items()}


def from_json(plain: Mapping[str, Any]) -> Space:
    """Read what `to_json` wrote."""
    return {
        name: Choice(tuple(told["values"])) if "values" in told else LogFloat(**told) for name, told in plain.items()
    }
