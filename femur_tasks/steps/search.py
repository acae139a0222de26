"""The search for the family `tuned`: its workers, and the fit of its winner."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from sqlalchemy import func, select

from femur_tasks.logs import naming
from femur_tasks.processes import Crashed
from femur_tasks.registry.tables import Run, TrialEpoch
from femur_tasks.steps.context import Context
from femur_tasks.steps.deadline import Pace, epochs_left, training_ends
from femur_tasks.steps.run import run_facts
from femur_tasks.steps.train import Data, Pictures, fit_family, seed_of, trained
from femur_tasks.training.hyperparameters import ARCHITECTURE_OF_FAMILY, FEW_CASES, TUNED, Hyperparameters

if TYPE_CHECKING:
    from femur_tasks.search.leases import Lease, Leases

P = ParamSpec("P")
log = logging.getLogger(__name__)
SEARCH = "tuned"


@dataclass(frozen=True)
class _Open:
    """A run's search: its leases, what all its trials share, the pictures, and how far its fits go."""

    run: Run
    leases: Leases
    shared: Hyperparameters
    data: Data
    max_epochs: int
    final_epochs: int
    seed: int


@naming("run_id", "worker")
def work_on_search(context: Context, run_id: str, worker: str) -> dict[str, Any]:
    """Lease and train trials until the search is done, cancelled or out of time; the first worker opens it.

    Returns:
        How many trials this worker finished.
    """
    return {"worker": worker, "trials": work_apart(context, run_id, SEARCH, worker, _work_once, run_id, worker)}


def work_apart(
    context: Context,
    run_id: str,
    search: str,
    worker: str,
    once: Callable[Concatenate[Context, P], bool | None],
    *args: P.args,
    **kwargs: P.kwargs,
) -> int:
    """Call a step that works once on a search, each time in a process of its own, until it says that none is left.

    A trial whose process dies has failed once.

    Returns:
        How many trials were finished.
    """
    from femur_tasks.search.leases import Leases

    finished = 0
    while True:
        try:
            is_finished = context.apart(once, *args, **kwargs)
        except Crashed as err:
            leases = Leases(context.registry, run_id, search, context.settings.lease_s, context.now)
            if not leases.fail_of(worker, str(err)):
                raise
            log.warning("%s died in training: %s", worker, err)
            continue
        if is_finished is None:
            return finished
        finished += is_finished


def _work_once(context: Context, run_id: str, worker: str) -> bool | None:
    search = _opened(context, run_id)

    def most_epochs() -> int | None:
        if search.run.deadline is None:
            return None
        end = training_ends(search.run.started_at, search.run.deadline)
        return epochs_left(context.now(), end, pace(context, run_id), search.final_epochs)

    architecture = ARCHITECTURE_OF_FAMILY["tuned"]
    told = (search.leases, search.data, architecture, search.shared, search.max_epochs, search.seed)
    return train_leased(context, worker, *told, most_epochs)


def train_leased(
    context: Context,
    worker: str,
    leases: Leases,
    pictures: Pictures,
    architecture: str,
    shared: Hyperparameters,
    max_epochs: int,
    seed: int,
    most_epochs: Callable[[], int | None] = lambda: None,
) -> bool | None:
    """Train one trial of any search.

    Args:
        shared: hyperparameters that all trials share, beside those of the space.
        max_epochs: what a schedule of the learning rate spans.
        seed: of the search; each configuration has one of its own by it.
        most_epochs: how many epochs there is time for now, None for any number.

    Returns:
        Whether it is finished; None where no trial is left to this worker.
    """
    from femur_tasks.search.worker import work_once
    from femur_tasks.steps.journal import TrialJournal
    from femur_tasks.training.fit import Plan

    def train(lease: Lease) -> None:
        chosen = shared.with_values(lease.hyperparameters)
        owner, trial_seed = f"{lease.run_id}/{lease.search}/{lease.trial_id}", _trial_seed(seed, lease.hyperparameters)
        plan = Plan(owner, lease.to_epoch, None, trial_seed, lease.from_epoch, chosen.augmented)
        journal = TrialJournal(context.registry, context.store, context.now, lease)
        trained(pictures, architecture, chosen, max_epochs, plan, journal)

    return work_once(leases, worker, train, most_epochs)


@naming("run_id")
def train_winner(context: Context, run_id: str) -> dict[str, Any]:
    """Fit the search's best hyperparameters again at the full budget, as the family `tuned`.

    It keeps the trial's seed: with another one a lucky configuration may never leave its first plateau. A search that
    was cancelled or ran out of time gives the best of what it has; one without a trial gives the defaults.
    """
    search = _opened(context, run_id)
    search.leases.cancel()  # where time ran out or a worker failed for good: nobody trains what cannot win any more
    winner = search.leases.winner()
    few = search.data.cases("train") < FEW_CASES
    values = dict(winner.hyperparameters) if winner else {"augmentation": 1.0 if few else 0.0}
    chosen, seed = search.shared.with_values(values), _trial_seed(search.seed, values)
    measured = pace(context, run_id, winner.trial_id if winner else None)
    return fit_family(context, run_id, "tuned", chosen, search.final_epochs, seed, measured)


def _opened(context: Context, run_id: str) -> _Open:
    from femur_tasks.search import space
    from femur_tasks.search.leases import Leases
    from femur_tasks.search.strategy import Spec
    from femur_tasks.training import precision

    with context.registry.reading() as session:
        run, parameters, budget = run_facts(session, run_id)
        session.expunge(run)
    data = Data(context, run_id)
    leases = Leases(context.registry, run_id, SEARCH, context.settings.lease_s, context.now)
    spec = Spec("hyperband", space.tuned(data.cases("train")), budget.max_epochs, parameters.seed, budget.factor)
    batch_size = min(TUNED.batch_size, budget.batch_size)
    mixed = precision.chosen() if context.settings.mixed_precision else TUNED.precision
    leases.open(spec, replace(TUNED, batch_size=batch_size, precision=mixed).as_dict())
    shared = TUNED.with_values(leases.fixed())
    return _Open(run, leases, shared, data, budget.max_epochs, budget.unet_epochs, parameters.seed)


def pace(context: Context, run_id: str, trial_id: str | None = None) -> Pace | None:
    """What this search's trials took on average, or one of them; None before the first epoch."""
    means = select(
        func.avg(TrialEpoch.seconds - TrialEpoch.start_s),
        func.avg(TrialEpoch.start_s).filter(TrialEpoch.start_s > 0),
    ).where(TrialEpoch.run_id == run_id, TrialEpoch.search == SEARCH)
    with context.registry.reading() as session:
        epoch_s, start_s = session.execute(means.where(TrialEpoch.trial_id == trial_id) if trial_id else means).one()
    return None if epoch_s is None else Pace(epoch_s, start_s or 0.0)


def _trial_seed(seed: int, hyperparameters: Mapping[str, Any]) -> int:
    return seed_of(seed, f"{sorted(hyperparameters.items())}")
