"""A search worker's loop around the processes of its trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from femur_tasks.parameters import RetrainParameters
from femur_tasks.processes import Crashed
from femur_tasks.registry.tables import Trial, TrialEpoch
from femur_tasks.search.leases import Lease, Leases
from femur_tasks.search.space import Choice
from femur_tasks.search.strategy import Spec
from femur_tasks.steps.context import Context
from femur_tasks.steps.deadline import Pace
from femur_tasks.steps.search import pace, work_apart
from femur_tasks.steps.train import _Begun, _begun
from femur_tasks.training.hyperparameters import TUNED
from tests import registry_rows as rows
from tests.conftest import ContextHere

GRID = Spec("grid", {"dropout": Choice((0.1, 0.2))}, 1, seed=1)
DIED = Crashed("Expected an answer from process 7. Received: signal SIGKILL.")


@pytest.fixture
def leases(context: Context) -> Leases:
    with context.registry.writing() as session:
        rows.run(session)
    found = Leases(context.registry, "run-1", "tuned", 60, context.now)
    found.open(GRID)
    return found


def taken(leases: Leases) -> Lease:
    answer = leases.take("worker")
    assert isinstance(answer, Lease)
    return answer


def worked(context: Context, *answers: Callable[[], bool | None]) -> int:
    """Work whose processes do these one after the other."""
    todo = iter(answers)

    class Processes(ContextHere):
        def apart(self, step: Any, *args: Any, **kwargs: Any) -> Any:
            return next(todo)()

    return work_apart(Processes(**vars(context)), "run-1", "tuned", "worker", lambda _: None)


def test_trials_are_counted_until_none_is_left(context: Context, leases: Leases) -> None:
    assert worked(context, lambda: True, lambda: False, lambda: True, lambda: None) == 2


def test_trial_whose_process_died_has_failed_and_the_worker_goes_on(context: Context, leases: Leases) -> None:
    held: list[Lease] = []

    def dies() -> bool:
        held.append(taken(leases))
        raise DIED

    assert worked(context, dies, lambda: True, lambda: None) == 1
    with context.registry.reading() as session:
        row = session.get_one(Trial, ("run-1", "tuned", held[0].trial_id))
    assert (row.failures, row.detail) == (1, str(DIED))


def test_process_that_died_without_a_trial_stops_the_worker(context: Context, leases: Leases) -> None:
    def dies() -> bool:
        raise DIED

    with pytest.raises(Crashed):
        worked(context, dies)


def test_fit_that_goes_on_has_what_it_was_begun_with(context: Context) -> None:
    """A search may find a better trial after its winner's fit was begun: the two must not mix."""
    with context.registry.writing() as session:
        rows.run(session).parameters = RetrainParameters(budget="smoke").model_dump()
    first = replace(TUNED, learning_rate=1e-3, block="residual")
    begun = _begun(context, "run-1", "tuned", first, 20, 7, None)
    assert begun == _Begun(first, 20, 7)
    assert _begun(context, "run-1", "tuned", replace(TUNED, learning_rate=2e-3), 30, 8, None) == begun


def test_pace_tells_an_epoch_from_what_goes_before_it(context: Context, leases: Leases) -> None:
    assert pace(context, "run-1") is None
    first, second = taken(leases), taken(leases)
    curves = ((first, 1, 12.0, 10.0), (first, 2, 2.0, 0.0), (second, 1, 18.0, 14.0))
    with context.registry.writing() as session:
        for lease, epoch, seconds, start_s in curves:
            told = {"run_id": lease.run_id, "search": lease.search, "trial_id": lease.trial_id, "at": context.now()}
            session.add(TrialEpoch(**told, epoch=epoch, loss=0.5, val_dice=0.5, seconds=seconds, start_s=start_s))
    assert pace(context, "run-1") == Pace(8 / 3, 12)
    assert pace(context, "run-1", first.trial_id) == Pace(2, 10)
