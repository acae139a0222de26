"""Sweep, grid and random search: configurations that no score changes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np

from femur_tasks.errors import FemurError
from femur_tasks.search import space as spaces
from femur_tasks.search.strategy import Assignment, Spec


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
