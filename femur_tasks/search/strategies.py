"""Strategies: what a search wants trained next. Sweep, grid, random and Hyperband, over one space definition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np

from femur_tasks.errors import FemurError
from femur_tasks.search import space as spaces
from femur_tasks.search.space import Space

StrategyName = Literal["sweep", "grid", "random", "hyperband"]


@dataclass(frozen=True)
class Assignment:
    """What a strategy wants trained: `values` from `from_epoch` to `to_epoch`, from `parent_id`'s best weights."""

    trial_id: str
    values: dict[str, Any]
    parent_id: str | None
    bracket: int
    rung: int
    from_epoch: int
    to_epoch: int


@dataclass(frozen=True)
class Spec:
    """What defines a search.

    Attributes:
        strategy: `hyperband`, `random`, `grid`, or `sweep`, which is a grid of one dimension in its order.
        space: the dimensions.
        max_epochs: of every trial, and of Hyperband's last rung (its R).
        seed: of what is drawn and in which order.
        factor: by which Hyperband's rungs shrink trials and grow epochs.
        samples: how many configurations of a grid, drawn without repetition, or of a random search; None: the whole
            grid.
    """

    strategy: StrategyName
    space: Space
    max_epochs: int
    seed: int
    factor: int = 3
    samples: int | None = None


class Strategy(Protocol):
    """A search as a value: whoever holds the search's row asks and tells, and puts the state back.

    Attributes:
        foresight: how many trials may be asked for ahead: no score changes them.
    """

    foresight: int

    def ask(self) -> Assignment | Literal["idle", "done"]:
        """The next assignment; `idle` while open ones must end first, `done` when there will be no more."""

    def tell(self, trial_id: str, score: float, best_epoch: int) -> None:
        """A trial's best validation Dice. A trial that failed for good is told with the worst score."""

    def to_state(self) -> dict[str, Any]:
        """Everything that the next process needs, as JSON."""


class Listed:
    """Sweep, grid and random: configurations that no score changes, each trained to the same epoch.

    Args:
        spec: the search.
        state: what `to_state` gave, None at the start.

    Raises:
        FemurError: a grid without an end, or more samples than it has configurations.
    """

    foresight = 10_000

    def __init__(self, spec: Spec, state: dict[str, Any] | None = None) -> None:
        self._spec = spec
        self._asked = int(state["asked"]) if state else 0
        self._order = None if spec.strategy == "random" else _grid_order(spec)
        self.trials = int(spec.samples or 0) if self._order is None else len(self._order)

    def ask(self) -> Assignment | Literal["idle", "done"]:
        if self._asked >= self.trials:
            return "done"
        number, self._asked = self._asked, self._asked + 1
        return Assignment(f"{number:05d}", self._values(number), None, 0, 0, 0, self._spec.max_epochs)

    def _values(self, number: int) -> dict[str, Any]:
        if self._order is None:
            return spaces.drawn(self._spec.space, np.random.default_rng([self._spec.seed, number]))
        return spaces.nth(self._spec.space, int(self._order[number]))

    def tell(self, trial_id: str, score: float, best_epoch: int) -> None:
        """Nothing follows from a score."""

    def to_state(self) -> dict[str, Any]:
        return {"asked": self._asked}


def _grid_order(spec: Spec) -> Any:
    size = spaces.size_of(spec.space)
    if spec.strategy == "sweep" and spec.samples is None:
        return np.arange(size)
    wanted = size if spec.samples is None else spec.samples
    if wanted > size:
        raise FemurError(f"Expected at most {size} samples of this grid. Received: {wanted}.")
    return _shuffled(size, spec.seed)[:wanted]


@lru_cache(4)
def _shuffled(size: int, seed: int) -> Any:
    return np.random.default_rng(seed).permutation(size)


def strategy(spec: Spec, state: dict[str, Any] | None = None) -> Strategy:
    """The strategy of a search, at its start or where its state left it."""
    if spec.strategy != "hyperband":
        return Listed(spec, state)
    from femur_tasks.search.hyperband import Hyperband

    return Hyperband(spec, state)


def load(name: str) -> None:
    """Load what a strategy needs: for Hyperband Keras Tuner, and with it TensorFlow."""
    if name == "hyperband":
        import_module("femur_tasks.search.hyperband")
