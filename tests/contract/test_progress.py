"""How far a run is: what `femur runs watch` shows while a search goes on, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from femur_tasks.errors import NotFound
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Fit, FitEpoch, TrialEpoch
from femur_tasks.search.leases import Lease, Leases
from femur_tasks.search.space import GRID, REFERENCE
from femur_tasks.search.strategy import Spec
from femur_tasks.steps.progress import RungProgress, SearchProgress, run_progress
from tests import registry_rows as rows
from tests.conftest import Clock

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")


def opened(registry: Registry, clock: Clock, spec: Spec) -> Leases:
    with registry.writing() as session:
        rows.run(session, "night")
    leases = Leases(registry, "night", spec.strategy, 60, clock)
    leases.open(spec)
    return leases


def epochs(registry: Registry, lease: Lease, *dices: float, seconds: float = 2.0) -> None:
    with registry.writing() as session:
        for number, dice in enumerate(dices, lease.from_epoch + 1):
            key: dict[str, Any] = {"run_id": lease.run_id, "search": lease.search, "trial_id": lease.trial_id}
            session.add(TrialEpoch(**key, epoch=number, loss=0.5, val_dice=dice, seconds=seconds, at=rows.NOON))


def taken(leases: Leases, owner: str) -> Lease:
    lease = leases.take(owner)
    assert isinstance(lease, Lease)
    return lease


def search(registry: Registry) -> SearchProgress:
    with registry.reading() as session:
        (found,) = run_progress(session, "night").searches
        return found


def test_brackets_and_rungs_fill(registry: Registry, clock: Clock) -> None:
    leases = opened(registry, clock, Spec("hyperband", REFERENCE, 3, seed=0))
    before = search(registry)
    # R = 3: three trials of one epoch, the best of them to three; two of three
    assert [(one.bracket, one.rung, one.planned, one.to_epoch) for one in before.rungs] == [
        *((1, 0, 3, 1), (1, 1, 1, 3), (0, 0, 2, 3))
    ]
    assert (before.epochs, before.planned_epochs, before.epoch_s, before.left_s) == (0, 11, None, None)
    first, second = taken(leases, "a"), taken(leases, "b")
    epochs(registry, first, 0.25)
    leases.finish(first)
    epochs(registry, second, 0.5, seconds=4.0)
    now = search(registry)
    assert now.rungs[0] == RungProgress(
        1, 0, 1, planned=3, ended=1, running=1, waiting=now.rungs[0].waiting, best_val_dice=0.25
    )
    assert [(one.owner, one.trial_id, one.epoch, one.to_epoch) for one in now.workers] == [("b", second.trial_id, 1, 1)]
    assert (now.epochs, now.best_val_dice, now.epoch_s) == (2, 0.5, 3.0)
    assert now.left_s == 9 * 3.0  # nine epochs to go, one worker
    taken(leases, "c")
    assert search(registry).left_s == 9 * 3.0 / 2
    leases.cancel()
    ended = search(registry)
    assert (ended.state, ended.left_s, ended.workers) == ("cancelled", None, ())


def test_a_listed_search_is_one_rung(registry: Registry, clock: Clock) -> None:
    opened(registry, clock, Spec("grid", GRID, 5, seed=0, samples=12))
    found = search(registry)
    assert [(one.planned, one.to_epoch) for one in found.rungs] == [(12, 5)]
    assert found.planned_epochs == 60


def test_fits_and_cost(registry: Registry, clock: Clock) -> None:
    with registry.writing() as session:
        rows.run(session, "night")
        session.add(Fit(run_id="night", family="unet", planned_epochs=20, checkpoint_key=None, best_key=None))
        session.flush()
        for number, dice in enumerate((0.5, 0.75, 0.6), 1):
            session.add(
                FitEpoch(
                    run_id="night", family="unet", epoch=number, loss=0.5, val_dice=dice, seconds=1.5, at=rows.NOON
                )
            )
    with registry.reading() as session:
        found = run_progress(session, "night")
    assert (found.epochs, found.device_s) == (3, 4.5)
    assert [(one.family, one.epochs, one.planned_epochs, one.best_val_dice) for one in found.fits] == [
        ("unet", 3, 20, 0.75)
    ]


def test_unknown_run_is_not_found(registry: Registry) -> None:
    with registry.reading() as session, pytest.raises(NotFound, match="nowhere"):
        run_progress(session, "nowhere")
