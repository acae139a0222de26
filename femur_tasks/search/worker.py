"""A search worker: leases the next trial, trains it, reports, until the search is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from structlog.contextvars import bound_contextvars

from femur_tasks.errors import FemurError, Hopeless, LeaseLost, StepFailed, Unreachable, WasCollected
from femur_tasks.search.leases import Lease, Leases

log = logging.getLogger(__name__)
_IDLE_S, _LONGEST_IDLE_S = 0.25, 4.0


def work(
    leases: Leases, owner: str, train: Callable[[Lease], None], most_epochs: Callable[[], int | None] = lambda: None
) -> int:
    """Work on a search until it is done, cancelled, or out of time; the arguments are those of `work_once`.

    Returns:
        How many trials this worker finished.
    """
    finished = 0
    while (is_finished := work_once(leases, owner, train, most_epochs)) is not None:
        finished += is_finished
    return finished


def work_once(
    leases: Leases, owner: str, train: Callable[[Lease], None], most_epochs: Callable[[], int | None] = lambda: None
) -> bool | None:
    """Lease one trial, train it and report; waits while trials of other workers must end first.

    Args:
        leases: the search's trials.
        owner: this worker's name, for people who look at the rows.
        train: trains one leased trial, leaving epochs in its journal; a `FemurError` counts as an attempt, and a
            `Hopeless` one as all of them.
        most_epochs: how many epochs there is time for now, None for any number.

    Raises:
        Unreachable: the store or the registry went away, which is not the trial's fault: its lease runs out and it
            goes on from its checkpoint.
        StepFailed: the machine may be broken; the trial has one attempt less.
        WasCollected: the checkpoint that the trial goes on from is gone: the search can't be what it was.

    Returns:
        Whether the trial is finished; None where no trial is left to this worker.
    """
    idle_s = _IDLE_S
    while True:
        epochs = most_epochs()
        answer = leases.take(owner, epochs)
        if isinstance(answer, Lease):
            try:
                return _train_and_report(leases, answer, train)
            except LeaseLost as err:
                log.warning("trial %s was taken over by another worker: %s", answer.trial_id, err)
                return False
        if answer != "idle" or (epochs is not None and epochs <= 0):
            return None
        time.sleep(idle_s)
        idle_s = min(_LONGEST_IDLE_S, 1.5 * idle_s)


def _train_and_report(leases: Leases, lease: Lease, train: Callable[[Lease], None]) -> bool:
    """Whether the trial is finished now; `LeaseLost` may come from training and from reporting alike."""
    with bound_contextvars(run_id=lease.run_id, search=lease.search, trial_id=lease.trial_id):
        try:
            with leases.kept(lease):
                train(lease)
                leases.finish(lease)
        except (LeaseLost, Unreachable, WasCollected):
            raise
        except StepFailed as err:
            leases.fail(lease, str(err))
            raise  # on a broken machine it would fail all that wait: whoever runs this worker starts it again, later
        except FemurError as err:
            again = leases.fail(lease, str(err), again=not isinstance(err, Hopeless))
            log.warning("trial %s failed, %s: %s", lease.trial_id, "to be tried again" if again else "for good", err)
            return False
        log.info("trial %s trained to epoch %d", lease.trial_id, lease.to_epoch)
        return True
