"""The table of a reproduction: each experiment's mean Dice with its interval, and what it gains on the row above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.evaluation.intervals import Interval, bootstrap_mean, seeded_interval
from femur_tasks.registry.tables import ExperimentFit, ExperimentRow, TrialEpoch
from femur_tasks.search.experiments import EXPERIMENTS, ReproduceBudget, titled
from femur_tasks.steps.progress import cost

SEEDS_FOR_A_CLAIM = 3
_CONFIDENCE = 0.95
_FLATTERED = " It searched on the first fold, whose cases the other folds score: that flatters it."


def table_rows(session: Session, run_id: str, budget: ReproduceBudget, folds: int, seed: int) -> list[ExperimentRow]:
    """Every experiment that has all its fits, in the table's order.

    Args:
        seed: of the bootstrap.
    """
    rows: list[ExperimentRow] = []
    above: _Scored | None = None
    for position, experiment in enumerate(EXPERIMENTS):
        fits = fits_of(session, run_id, experiment.name)
        if len(fits) < budget.seeds * folds:
            continue
        here = _Scored(titled(experiment, budget), by_case(fits, "test"), _by_seed(fits))
        val = bootstrap_mean(list(by_case(fits, "val").values()), _CONFIDENCE, seed)
        test = bootstrap_mean(list(here.by_case.values()), _CONFIDENCE, seed)
        gain = bootstrap_mean(_gains(here, above), _CONFIDENCE, seed) if above else None
        searched = cost(session, TrialEpoch, run_id, TrialEpoch.search == experiment.name)
        told = f"{_sentence(here, above, gain)}{_FLATTERED if experiment.strategy and folds > 1 else ''}"
        rows.append(
            ExperimentRow(
                run_id=run_id, experiment=experiment.name, position=position, title=here.title,
                reference=experiment.reference, seeds=len(here.by_seed), cases=test.n,
                val_dice=val.mean, val_low=val.low, val_high=val.high,
                test_dice=test.mean, test_low=test.low, test_high=test.high,
                difference=gain and gain.mean, difference_low=gain and gain.low, difference_high=gain and gain.high,
                epochs=sum(fit.epochs for fit in fits) + searched[0],
                seconds=sum(fit.seconds for fit in fits) + searched[1],
                sentence=told.strip(),
            )
        )  # fmt: skip
        above = here
    return rows


def fits_of(session: Session, run_id: str, experiment: str) -> Sequence[ExperimentFit]:
    """The fits that an experiment of a reproduction has so far."""
    mine = select(ExperimentFit).where(ExperimentFit.run_id == run_id, ExperimentFit.experiment == experiment)
    return session.scalars(mine).all()


def sentence(above: str, gain: Interval, seeded: Interval | None) -> str:
    """Whether the difference to the row above is real: over the cases, and with the seeds' spread, it leaves out 0.

    Where seeds differ about half as much as cases, the interval over the cases alone calls equal ways to train
    different in 21 to 43 of 100 comparisons, the other one in 3 to 5 (tests/unit/test_intervals.py).

    Args:
        above: title of that row.
        gain: bootstrap interval of the mean difference over the cases.
        seeded: interval of the same with other seeds; None from fewer than three, which allow no claim.
    """
    span = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    if seeded is None:
        return f"{span} against {above}; no claim from fewer than {SEEDS_FOR_A_CLAIM} seeds."
    span = f"{span} over the same cases, [{seeded.low:+.4f}, {seeded.high:+.4f}] over other seeds too"
    if gain.low > 0 and seeded.low > 0:
        return f"Really better than {above}: {span}."
    if gain.high < 0 and seeded.high < 0:
        return f"Really worse than {above}: {span}."
    return f"No difference to {above} is shown: {span}."


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
    by_seed: list[float]


def _by_seed(fits: Sequence[ExperimentFit]) -> list[float]:
    seeds = sorted({fit.seed for fit in fits})
    return [float(np.mean(list(by_case([f for f in fits if f.seed == seed], "test").values()))) for seed in seeds]


def _gains(here: _Scored, above: _Scored) -> list[float]:
    return [here.by_case[case] - above.by_case[case] for case in sorted(here.by_case)]


def _sentence(here: _Scored, above: _Scored | None, gain: Interval | None) -> str:
    if above is None or gain is None:
        return ""
    enough = min(len(here.by_seed), len(above.by_seed)) >= SEEDS_FOR_A_CLAIM
    seeded = seeded_interval(_gains(here, above), here.by_seed, above.by_seed, _CONFIDENCE) if enough else None
    return sentence(above.title, gain, seeded)
