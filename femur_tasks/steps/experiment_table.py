"""The table of a reproduction: each experiment's mean Dice with its interval, and what it gains on the row above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.evaluation.intervals import Interval, bootstrap_mean
from femur_tasks.registry.tables import ExperimentFit, ExperimentRow, TrialEpoch
from femur_tasks.search.experiments import EXPERIMENTS
from femur_tasks.steps.progress import cost

SEEDS_FOR_A_CLAIM = 3
_CONFIDENCE = 0.95


def table_rows(session: Session, run_id: str, fits_each: int, seed: int) -> list[ExperimentRow]:
    """Every experiment that has all its fits, in the table's order.

    Args:
        fits_each: seeds times folds.
        seed: of the bootstrap.
    """
    rows: list[ExperimentRow] = []
    above: _Scored | None = None
    for position, experiment in enumerate(EXPERIMENTS):
        fits = fits_of(session, run_id, experiment.name)
        if len(fits) < fits_each:
            continue
        here = _Scored(experiment.title, by_case(fits, "test"), _by_seed(fits))
        val = bootstrap_mean(list(by_case(fits, "val").values()), _CONFIDENCE, seed)
        test = bootstrap_mean(list(here.by_case.values()), _CONFIDENCE, seed)
        gain = bootstrap_mean(_gains(here.by_case, above.by_case), _CONFIDENCE, seed) if above else None
        searched = cost(session, TrialEpoch, run_id, TrialEpoch.search == experiment.name)
        rows.append(
            ExperimentRow(
                run_id=run_id, experiment=experiment.name, position=position, title=experiment.title,
                reference=experiment.reference, seeds=len(here.by_seed), cases=test.n,
                val_dice=val.mean, val_low=val.low, val_high=val.high,
                test_dice=test.mean, test_low=test.low, test_high=test.high,
                difference=gain and gain.mean, difference_low=gain and gain.low, difference_high=gain and gain.high,
                epochs=sum(fit.epochs for fit in fits) + searched[0],
                seconds=sum(fit.seconds for fit in fits) + searched[1],
                sentence=sentence(above.title, gain, _gains(here.by_seed, above.by_seed)) if above and gain else "",
            )
        )  # fmt: skip
        above = here
    return rows


def fits_of(session: Session, run_id: str, experiment: str) -> Sequence[ExperimentFit]:
    """The fits that an experiment of a reproduction has so far."""
    mine = select(ExperimentFit).where(ExperimentFit.run_id == run_id, ExperimentFit.experiment == experiment)
    return session.scalars(mine).all()


def sentence(above: str, gain: Interval, seeds: Sequence[float]) -> str:
    """Whether the difference to the row above is real: its interval leaves out 0, and every seed says the same.

    Args:
        above: title of that row.
        gain: interval of the mean difference over cases.
        seeds: the mean difference of each seed; fewer than three allow no claim.
    """
    span = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    if len(seeds) < SEEDS_FOR_A_CLAIM:
        few = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        return f"{span} against {above}; no claim from {few}."
    if gain.low > 0 and min(seeds) > 0:
        return f"Really better than {above}: {span} over the same cases."
    if gain.high < 0 and max(seeds) < 0:
        return f"Really worse than {above}: {span} over the same cases."
    return f"No difference to {above} is shown: {span}, by seed {min(seeds):+.4f} to {max(seeds):+.4f}."


def by_case(fits: Sequence[ExperimentFit], split: str) -> dict[str, float]:
    """Each case's Dice, the mean of its seeds; in folds a case is scored by the model that did not see it."""
    found: dict[str, list[float]] = {}
    for fit in fits:
        dices: Mapping[str, float] = getattr(fit, f"{split}_dice")
        for case, dice in dices.items():
            found.setdefault(case, []).append(dice)
    return {case: float(np.mean(dices)) for case, dices in found.items()}


@dataclass(frozen=True)
class _Scored:
    """An experiment's mean test Dice by case and by seed."""

    title: str
    by_case: dict[str, float]
    by_seed: dict[int, float]


def _by_seed(fits: Sequence[ExperimentFit]) -> dict[int, float]:
    seeds = {fit.seed for fit in fits}
    return {seed: float(np.mean(list(by_case([f for f in fits if f.seed == seed], "test").values()))) for seed in seeds}


def _gains(here: Mapping[Any, float], above: Mapping[Any, float]) -> list[float]:
    return [here[key] - above[key] for key in sorted(here)]
