"""A search worker: leases the next trial, trains it, reports, until the search is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from femur_tasks.errors import FemurError, LeaseLost, Unreachable
from femur_tasks.search.leases import Lease, Leases

log = logging.getLogger(__name__)
_IDLE_S = 0.5


def work(leases: Leases, owner: str, train: Callable[[Lease], None]) -> int:
    """Work on a search until it is done.

    Args:
        leases: the search's trials.
        owner: this worker's name, for people who look at the rows.
        train: trains one leased trial, leaving epochs in its journal; a `FemurError` counts as an attempt.

    Raises:
        Unreachable: the store or the registry went away, which is not the trial's fault: its lease runs out and it
            goes on from its checkpoint.

    Returns:
        How many trials this worker finished.
    """
    finished = 0
    while (answer := leases.take(owner)) != "done":
        if answer == "idle":
            time.sleep(_IDLE_S)
            continue
        try:
            finished += _train_and_report(leases, answer, train)
        except LeaseLost as err:
            log.warning("trial %s was taken over by another worker: %s", answer.trial_id, err)
    return finished


def _train_and_report(leases: Leases, lease: Lease, train: Callable[[Lease], None]) -> bool:
    """Whether the trial is finished now; `LeaseLost` may come from training and from reporting alike."""
    try:
        with leases.kept(lease):
            train(lease)
            leases.finish(lease)
    except (LeaseLost, Unreachable):
        raise
    except FemurError as err:
        again = leases.fail(lease, str(err))
        log.warning("trial %s failed, %s: %s", lease.trial_id, "to be tried again" if again else "for good", err)
        return False
    log.info("trial %s trained to epoch %d", lease.trial_id, lease.to_epoch)
    return True
