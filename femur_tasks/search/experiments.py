"""The reference's experiments, each with the figure that the reference gives, and how much of them a budget runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from femur_tasks.errors import FemurError
from femur_tasks.search.brackets import schedule
from femur_tasks.search.strategy import Spec, StrategyName
from femur_tasks.training.hyperparameters import REFERENCE_BASELINE, REFERENCE_UNET, Hyperparameters

ReproduceBudgetName = Literal["smoke", "standard", "full"]


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Attributes:
        reference: what the reference says of it; it never says on which split, and never with an interval.
        strategy: how its hyperparameters are searched before it is trained; None: they are given.
    """

    name: str
    title: str
    reference: str
    architecture: str
    hyperparameters: Hyperparameters
    strategy: StrategyName | None = None


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "baseline-bce", "Baseline, binary cross-entropy", "worse than Dice loss", "dense",
        replace(REFERENCE_BASELINE, loss="bce"),
    ),
    Experiment("baseline-dice", "Baseline, Dice loss", "0.705", "dense", REFERENCE_BASELINE),
    Experiment(
        "unet-bce", "U-Net, binary cross-entropy", "worse than Dice loss", "unet", replace(REFERENCE_UNET, loss="bce")
    ),
    Experiment("unet-dice", "U-Net, Dice loss", "0.962, tuned by hand", "unet", REFERENCE_UNET),
    Experiment(
        "unet-augmented", "U-Net, rotation, flip and zoom", "no gain", "unet",
        replace(REFERENCE_UNET, augmentation=1.0, augmentation_kind="affine"),
    ),
    Experiment("sweep", "Learning-rate sweep", "best rate 3e-4", "unet", REFERENCE_UNET, "sweep"),
    Experiment("grid", "Grid search", "0.9575", "unet", REFERENCE_UNET, "grid"),
    Experiment("hyperband", "Hyperband", "0.965", "unet", REFERENCE_UNET, "hyperband"),
    Experiment("random", "Random search, as many epochs", "not tried", "unet", REFERENCE_UNET, "random"),
)  # fmt: skip
BY_NAME: Mapping[str, Experiment] = {experiment.name: experiment for experiment in EXPERIMENTS}


@dataclass(frozen=True)
class ReproduceBudget:
    """How much a reproduction trains.

    Attributes:
        size: training size, px; never above the dataset version's.
        seeds: fits of each row, with seeds of their own; three or more allow a claim.
        epochs, patience: of a fit.
        search_epochs: of each configuration of the sweep and the grid; the reference has 10.
        sweep_samples, grid_samples: how many of the 28 rates and 486 combinations; None: all of them.
        max_epochs: Hyperband's R, and the epochs of each configuration of the random search.
    """

    size: int
    seeds: int
    epochs: int
    patience: int
    search_epochs: int
    sweep_samples: int | None
    grid_samples: int | None
    max_epochs: int


REPRODUCE_BUDGETS: Mapping[str, ReproduceBudget] = {
    "smoke": ReproduceBudget(32, 1, 4, 4, 1, 3, 3, 3),
    "standard": ReproduceBudget(64, 3, 40, 12, 5, None, 24, 9),
    "full": ReproduceBudget(256, 3, 150, 40, 10, None, None, 100),
}


def titled(experiment: Experiment, budget: ReproduceBudget) -> str:
    """The experiment's title; where a budget tries a sample of a grid, with how many of how many."""
    from femur_tasks.search import space as spaces

    if experiment.strategy not in ("sweep", "grid"):
        return experiment.title
    spec = spec_of(experiment, budget, seed=0)
    size = spaces.size_of(spec.space)
    return experiment.title if spec.samples in (None, size) else f"{experiment.title}, {spec.samples} of {size} drawn"


def spec_of(experiment: Experiment, budget: ReproduceBudget, seed: int) -> Spec:
    """The experiment's search at a budget: a random search gets as many epochs as Hyperband spends.

    Raises:
        FemurError: the experiment searches nothing.
    """
    from femur_tasks.search import space as spaces  # NumPy: not for `femur --help`

    if experiment.strategy == "sweep":
        return Spec("sweep", spaces.SWEEP, budget.search_epochs, seed, samples=budget.sweep_samples)
    if experiment.strategy == "grid":
        return Spec("grid", spaces.GRID, budget.search_epochs, seed, samples=budget.grid_samples)
    if experiment.strategy == "hyperband":
        return Spec("hyperband", spaces.REFERENCE, budget.max_epochs, seed)
    if experiment.strategy == "random":
        rungs = schedule(budget.max_epochs, 3)
        spent = sum(rung.trials * (rung.to_epoch - rung.from_epoch) for rung in rungs)
        return Spec("random", spaces.REFERENCE, budget.max_epochs, seed, samples=spent // budget.max_epochs)
    raise FemurError(f"Expected an experiment that searches. Received: {experiment.name}.")
