"""A strategy: what a search wants trained next, over one space definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
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
