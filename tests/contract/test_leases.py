"""Leases: workers that come, hang, die and come back share one search, on SQLite and on PostgreSQL.

Training is replaced by writing rows: an epoch's Dice is worked out from hyperparameters and epoch alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from femur_tasks.errors import FemurError, Hopeless, LeaseLost, NotFound, StepFailed, Unreachable, WasCollected
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Fit, Search, Trial, TrialEpoch
from femur_tasks.search import worker as worker_module
from femur_tasks.search.hyperband import Hyperband
from femur_tasks.search.leases import ATTEMPTS, Lease, Leases, held_trial
from femur_tasks.search.space import GRID, REFERENCE, SWEEP
from femur_tasks.search.strategy import Assignment, Spec
from femur_tasks.search.worker import work
from femur_tasks.steps.journal import TrialJournal
from femur_tasks.storage import MemoryStore
from femur_tasks.training.fit import Epoch
from tests import registry_rows as rows
from tests.conftest import Clock

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")

LEASE_S = 60
R4 = (4, 2)  # R = 4, factor 2: 10 configurations in rungs of 4, 2, 1 and 3, 2 and 3: 15 trials


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_IDLE_S", 0.01)
    monkeypatch.setattr(worker_module, "_LONGEST_IDLE_S", 0.01)


def search(registry: Registry, clock: Clock, run_id: str = "run-1", max_epochs: int = 4, factor: int = 2) -> Leases:
    with registry.writing() as session:
        rows.run(session, run_id)
    leases = Leases(registry, run_id, "tuned", LEASE_S, clock)
    leases.open(hyperband(max_epochs, factor))
    return leases


def hyperband(max_epochs: int, factor: int, seed: int = 7) -> Spec:
    return Spec("hyperband", REFERENCE, max_epochs, seed, factor)


def dice_of(hyperparameters: dict[str, Any], epoch: int) -> float:
    """Between 0 and 1, no two configurations alike, better with every epoch."""
    spread = abs(math.sin(1e6 * hyperparameters["learning_rate"] + hyperparameters["beta_1"]))
    return spread * (1 - 0.5**epoch)


def trainer(registry: Registry) -> Callable[[Lease], None]:
    def train(lease: Lease) -> None:
        for epoch in range(lease.from_epoch + 1, lease.to_epoch + 1):
            write_epoch(registry, lease, epoch, dice_of(lease.hyperparameters, epoch))

    return train


def write_epoch(registry: Registry, lease: Lease, epoch: int, dice: float) -> None:
    with registry.writing() as session:
        held_trial(session, lease)
        session.merge(
            TrialEpoch(
                run_id=lease.run_id,
                search=lease.search,
                trial_id=lease.trial_id,
                epoch=epoch,
                loss=1 - dice,
                val_dice=dice,
                seconds=0.1,
                at=rows.NOON,
            )
        )


def taken(leases: Leases, owner: str = "worker") -> Lease:
    """A lease, asked for again while another worker asks."""
    end = time.monotonic() + 10
    while (lease := leases.take(owner)) == "idle" and time.monotonic() < end:
        time.sleep(0.01)
    assert isinstance(lease, Lease)
    return lease


def trials(registry: Registry, run_id: str = "run-1") -> list[Trial]:
    with registry.reading() as session:
        found = session.scalars(select(Trial).where(Trial.run_id == run_id).order_by(Trial.trial_id)).all()
        session.expunge_all()
        return list(found)


def trial(registry: Registry, lease: Lease) -> Trial:
    return next(row for row in trials(registry, lease.run_id) if row.trial_id == lease.trial_id)


def trained(registry: Registry, run_id: str = "run-1") -> Counter[Any]:
    """What was trained: configuration, from, to, and the epochs that have rows."""
    with registry.reading() as session:
        epochs = Counter(session.scalars(select(TrialEpoch.trial_id).where(TrialEpoch.run_id == run_id)).all())
    return Counter(
        (
            tuple(sorted(row.hyperparameters.items())),
            *(row.bracket, row.rung, row.from_epoch, row.to_epoch),
            epochs[row.trial_id],
        )
        for row in trials(registry, run_id)
    )


def run_workers(leases: list[Leases], train: Callable[[Lease], None]) -> list[int]:
    with ThreadPoolExecutor(len(leases)) as pool:
        return list(pool.map(lambda pair: work(pair[1], f"worker-{pair[0]}", train), enumerate(leases)))


def test_three_workers_train_what_one_worker_trains(registry: Registry, clock: Clock) -> None:
    alone = search(registry, clock, "alone", 9, 3)
    finished = run_workers([alone], trainer(registry))
    search(registry, clock, "shared", 9, 3)
    shared = [Leases(registry, "shared", "tuned", LEASE_S * 1000, clock) for _ in range(3)]
    together = run_workers(shared, trainer(registry))
    expected = trained(registry, "alone")
    assert expected.total() == finished[0] == sum(together)
    assert trained(registry, "shared") == expected
    assert {row.token for row in trials(registry, "shared")} == {1}
    assert {row.state for row in trials(registry, "shared")} == {"completed"}
    winner, same = alone.winner(), shared[0].winner()
    assert winner is not None
    assert same is not None
    assert (winner.hyperparameters, winner.score) == (same.hyperparameters, same.score)


def test_two_searches_side_by_side_leave_each_other_alone(registry: Registry, clock: Clock) -> None:
    searches = [search(registry, clock, name, *R4) for name in ("one", "two")]
    run_workers(searches, trainer(registry))
    assert trained(registry, "one") == trained(registry, "two")
    assert searches[0].counts() == searches[1].counts() == {"completed": len(trials(registry, "one"))}


def test_search_opened_twice_goes_on(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    first = taken(leases)
    leases.open(hyperband(27, 3, seed=99))
    again = Leases(registry, "run-1", "tuned", LEASE_S, clock)
    assert taken(again).trial_id != first.trial_id
    with registry.reading() as session:
        assert session.get_one(Search, ("run-1", "tuned")).max_epochs == 4


def test_search_opened_by_many_at_once_is_opened_once(registry: Registry, clock: Clock) -> None:
    with registry.writing() as session:
        rows.run(session, "run-1")
    start = threading.Barrier(4)

    def opens(number: int) -> None:
        start.wait(10)
        Leases(registry, "run-1", "tuned", LEASE_S, clock).open(hyperband(4, 2, seed=number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(opens, range(4)))
    with registry.reading() as session:
        assert len(session.scalars(select(Search)).all()) == 1


def test_workers_at_once_never_get_the_same_trial(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: taken(leases, f"worker-{number}"), range(4)))
    assert sorted(lease.trial_id for lease in found) == ["0000", "0001", "0002", "0003"]


def test_search_that_was_never_opened_is_not_found(registry: Registry, clock: Clock) -> None:
    with pytest.raises(NotFound, match="search tuned of run nowhere"):
        Leases(registry, "nowhere", "tuned", LEASE_S, clock).take("worker")


def test_ended_search_is_done_and_stays_so(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    total = work(leases, "first", trainer(registry))
    assert total == len(trials(registry)) == 15
    assert leases.take("late") == "done"
    clock.forward(10 * LEASE_S)
    assert leases.take("very late") == "done"
    assert work(leases, "late", trainer(registry)) == 0


# Silence


def test_silent_workers_trial_goes_to_the_next_one_with_a_higher_token(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    silent = taken(leases, "silent")
    clock.forward(LEASE_S + 1)
    successor = taken(leases, "successor")
    assert (successor.trial_id, successor.token) == (silent.trial_id, silent.token + 1)
    assert (successor.hyperparameters, successor.to_epoch) == (silent.hyperparameters, silent.to_epoch)
    row = trial(registry, successor)
    assert (row.owner, row.token, row.failures, row.state) == ("successor", 2, 0, "running")


def test_lease_that_still_runs_is_left_alone(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    first = taken(leases)
    clock.forward(LEASE_S / 2)
    assert taken(leases).trial_id != first.trial_id


def test_late_worker_whose_trial_nobody_took_goes_on(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    late = taken(leases)
    clock.forward(10 * LEASE_S)
    leases.renew(late)
    assert taken(leases).trial_id != late.trial_id


def test_every_late_write_of_a_zombie_is_refused_and_changes_nothing(registry: Registry, clock: Clock) -> None:
    leases, store = search(registry, clock), MemoryStore()
    zombie = taken(leases, "zombie")
    clock.forward(LEASE_S + 1)
    successor = taken(leases, "successor")
    journal = TrialJournal(registry, store, clock, successor)
    journal.record(Epoch(1, 0.5, 0.25, 1.0))
    journal.keep(b"the successor's", b"the successor's")
    before = _content(trial(registry, successor)), trained(registry)

    late = TrialJournal(registry, store, clock, zombie)
    for write in (
        lambda: late.record(Epoch(1, 0.1, 0.9, 1.0)),
        lambda: late.keep(b"the zombie's", b"the zombie's"),
        late.kept,
        lambda: leases.renew(zombie),
        lambda: leases.finish(zombie),
        lambda: leases.fail(zombie, "too late"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert (_content(trial(registry, successor)), trained(registry)) == before
    assert journal.kept() == (b"the successor's", b"the successor's")


def _content(row: Trial) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in Trial.__table__.columns}


def test_finished_trial_is_never_leased_again(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    first = taken(leases)
    trainer(registry)(first)
    leases.finish(first)
    clock.forward(100 * LEASE_S)
    assert taken(leases).trial_id != first.trial_id
    with pytest.raises(LeaseLost):
        leases.finish(first)
    assert trial(registry, first).state == "completed"


def test_worker_that_reports_while_its_lease_runs_out_is_not_taken_over(registry: Registry, clock: Clock) -> None:
    """Reports race take-overs: no trial is lost, none deadlocks, and a finished one is handed to nobody."""
    leases = search(registry, clock, "run-1", 9, 3)
    for _ in range(4):
        held = taken(leases, "slow")
        trainer(registry)(held)
        clock.forward(LEASE_S + 1)
        start = threading.Barrier(3)

        def reports(lease: Lease = held, start: threading.Barrier = start) -> str:
            start.wait(10)
            try:
                leases.finish(lease)
            except LeaseLost:
                return "lost"
            return "finished"

        def takes(owner: str, start: threading.Barrier = start) -> Lease:
            start.wait(10)
            return taken(leases, owner)

        with ThreadPoolExecutor(3) as pool:
            report = pool.submit(reports)
            others = [pool.submit(takes, owner) for owner in ("a", "b")]
        successors = [other.result() for other in others]
        same = [lease for lease in successors if lease.trial_id == held.trial_id]
        assert len(same) == (report.result() == "lost")
        for lease in successors:
            trainer(registry)(lease)
            leases.finish(lease)
        assert trial(registry, held).state == "completed"


@pytest.mark.parametrize("registry", ["postgres"], indirect=True)  # SQLite has one writer at a time
def test_take_over_does_not_wait_for_a_worker_that_is_writing(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    slow = taken(leases, "slow")
    clock.forward(LEASE_S + 1)
    with registry.writing() as session:
        held_trial(session, slow)  # alive after all, in the middle of a write
        assert taken(leases).trial_id != slow.trial_id
    leases.renew(slow)


def test_kept_lease_is_renewed_while_the_block_runs(registry: Registry, clock: Clock) -> None:
    search(registry, clock)
    leases = Leases(registry, "run-1", "tuned", 3, clock)
    lease = taken(leases)
    first_term = trial(registry, lease).lease_expires_at
    with leases.kept(lease):
        clock.forward(100)
        _until(lambda: trial(registry, lease).lease_expires_at > first_term + timedelta(seconds=100))
        assert taken(leases).trial_id != lease.trial_id
    assert f"lease-{lease.trial_id}" not in [thread.name for thread in threading.enumerate()]


def test_kept_lease_that_is_lost_is_not_taken_back(registry: Registry, clock: Clock) -> None:
    search(registry, clock)
    leases = Leases(registry, "run-1", "tuned", 1, clock)
    lease = taken(leases, "slow")
    clock.forward(10)
    successor = taken(leases, "successor")
    with leases.kept(lease):
        time.sleep(0.5)
    row = trial(registry, successor)
    assert (row.owner, row.token) == ("successor", successor.token)


def _until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


# Failure


def test_failed_trial_is_tried_again_then_counts_as_the_worst(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    seen = []
    for attempt in range(1, ATTEMPTS + 1):
        lease = taken(leases)
        seen.append((lease.trial_id, lease.token))
        assert leases.fail(lease, f"attempt {attempt}") is (attempt < ATTEMPTS)
    assert seen == [("0000", 1), ("0000", 2), ("0000", 3)]
    row = trial(registry, lease)
    assert (row.state, row.score, row.failures, row.detail) == ("failed", None, ATTEMPTS, "attempt 3")
    assert taken(leases).trial_id == "0001"


def test_failed_trial_is_behind_one_whose_masks_are_all_empty(registry: Registry, clock: Clock) -> None:
    """Both would tie at 0, and Keras Tuner breaks ties by place."""
    leases = search(registry, clock, "run-1", *R4)

    def train(lease: Lease) -> None:
        if lease.trial_id == "0000":
            raise Hopeless("it diverged")
        for epoch in range(lease.from_epoch + 1, lease.to_epoch + 1):
            write_epoch(registry, lease, epoch, 0.0)

    work(leases, "worker", train)
    assert leases.take("late") == "done"
    assert leases.counts()["failed"] == 1
    assert "0000" not in {row.parent_id for row in trials(registry)}


@pytest.mark.parametrize("lives", [0, 1])
def test_search_ends_where_a_rung_has_too_few_that_were_trained(registry: Registry, clock: Clock, lives: int) -> None:
    leases = search(registry, clock, "run-1", 9, 3)
    store, seen = MemoryStore(), Counter[str]()

    def train(lease: Lease) -> None:
        seen[lease.trial_id] += 1
        TrialJournal(registry, store, clock, lease).kept()
        if lease.from_epoch == 0 and int(lease.trial_id) >= lives:
            raise Hopeless("it diverged")
        for epoch in range(lease.from_epoch + 1, lease.to_epoch + 1):
            write_epoch(registry, lease, epoch, 0.5)
        state = lease.trial_id.encode()
        TrialJournal(registry, store, clock, lease).keep(state, state)

    work(leases, "worker", train)
    assert leases.take("late") == "done"
    assert set(seen.values()) == {1}
    lost = [row for row in trials(registry) if row.state == "failed" and row.parent_id]
    assert lost
    assert all(row.detail == f"trial {row.parent_id}, which it was to go on from, failed" for row in lost)
    assert not {row.trial_id for row in lost} & set(seen)
    winner = leases.winner()
    assert (winner is not None) == bool(lives)


def test_worker_on_a_broken_machine_stops_and_takes_one_attempt(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock, "run-1", *R4)

    def breaks(lease: Lease) -> None:
        raise StepFailed("Expected a step to be computed. Received: InternalError: CUDA_ERROR_ECC_UNCORRECTABLE.")

    for attempt in range(1, ATTEMPTS):
        with pytest.raises(StepFailed):
            work(leases, "broken", breaks)
        assert [(row.trial_id, row.failures) for row in trials(registry) if row.failures] == [("0000", attempt)]
    work(leases, "sound", trainer(registry))
    assert leases.counts() == {"completed": 15}


def test_trial_whose_worker_dies_again_and_again_counts_as_the_worst(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    for failures in range(1, ATTEMPTS + 1):
        lease = taken(leases, "dies")
        assert leases.fail_of("dies", "killed")
        row = trial(registry, lease)
        assert (row.trial_id, row.failures, row.detail) == ("0000", failures, "killed")
    assert (row.state, row.score) == ("failed", None)
    assert not leases.fail_of("dies", "killed"), "it holds none any more"
    other = taken(leases, "lives")
    assert not leases.fail_of("dies", "killed")
    assert trial(registry, other).failures == 0


def test_killed_workers_are_not_the_trials_fault(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    for _ in range(2 * ATTEMPTS):
        lease = taken(leases)
        clock.forward(LEASE_S + 1)
    assert leases.fail(lease, "went wrong once")


def test_failing_configuration_costs_attempts_and_nothing_else(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    calls: Counter[str] = Counter()

    def train(lease: Lease) -> None:
        calls[lease.trial_id] += 1
        if lease.trial_id == "0001":
            raise FemurError("Expected a finite loss. Received: nan.")
        trainer(registry)(lease)

    finished = work(leases, "worker", train)
    found = trials(registry)
    assert calls["0001"] == ATTEMPTS
    assert Counter(row.state for row in found) == {"completed": finished, "failed": 1}
    assert len(found) == _trials_without_failure(registry, clock)
    assert not [row for row in found if row.parent_id == "0001"]


def _trials_without_failure(registry: Registry, clock: Clock) -> int:
    leases = search(registry, clock, "sound")
    return work(leases, "worker", trainer(registry))


def test_trial_that_left_no_epoch_counts_as_an_attempt(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    with pytest.raises(FemurError, match="at least one epoch"):
        leases.finish(taken(leases))
    calls: Counter[str] = Counter()

    def train(lease: Lease) -> None:
        calls[lease.trial_id] += 1
        if lease.trial_id != "0001":
            trainer(registry)(lease)

    clock.forward(LEASE_S + 1)
    work(leases, "worker", train)
    assert calls["0001"] == ATTEMPTS
    assert leases.counts()["failed"] == 1


def test_worker_that_fails_after_it_lost_its_trial_goes_on_with_another(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    other = Leases(registry, "run-1", "tuned", LEASE_S, clock)
    calls: Counter[str] = Counter()

    def train(lease: Lease) -> None:
        calls[lease.trial_id] += 1
        if calls.total() == 1:  # this worker is suspended, another one does its trial meanwhile
            clock.forward(LEASE_S + 1)
            stolen = taken(other, "thief")
            trainer(registry)(stolen)
            other.finish(stolen)
            raise FemurError("Expected a finite loss. Received: nan.")
        trainer(registry)(lease)

    finished = work(leases, "worker", train)
    assert finished == len(trials(registry)) - 1
    assert leases.counts() == {"completed": finished + 1}


@pytest.mark.parametrize("error", [Unreachable, WasCollected])
def test_store_without_what_a_trial_needs_ends_the_worker_and_costs_the_trial_nothing(
    registry: Registry, clock: Clock, error: type[FemurError]
) -> None:
    leases = search(registry, clock)

    def away(lease: Lease) -> None:
        raise error("Expected the object store to answer. Received: connection refused.")

    with pytest.raises(error):
        work(leases, "worker", away)
    assert leases.counts() == {"running": 1}
    clock.forward(LEASE_S + 1)
    assert work(leases, "next", trainer(registry)) == len(trials(registry))
    assert leases.counts() == {"completed": len(trials(registry))}


def test_bug_in_training_is_not_taken_for_a_bad_configuration(registry: Registry, clock: Clock) -> None:
    def bug(lease: Lease) -> None:
        raise ZeroDivisionError

    leases = search(registry, clock)
    with pytest.raises(ZeroDivisionError):
        work(leases, "worker", bug)
    assert leases.counts() == {"running": 1}


def test_winner_is_the_best_score_and_the_earliest_of_equals(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    assert leases.winner() is None
    for dice in (0.5, 0.75, 0.75, 0.25):
        lease = taken(leases)
        for epoch in range(lease.from_epoch + 1, lease.to_epoch + 1):
            write_epoch(registry, lease, epoch, dice)
        leases.finish(lease)
    winner = leases.winner()
    assert winner is not None
    assert (winner.trial_id, winner.score) == ("0001", 0.75)


def test_advanced_trial_starts_from_its_parents_best_weights(registry: Registry, clock: Clock) -> None:
    leases, store = search(registry, clock), MemoryStore()
    best = {}

    def train(lease: Lease) -> None:
        journal = TrialJournal(registry, store, clock, lease)
        row = trial(registry, lease)
        if row.parent_id:
            assert journal.kept() == (best[row.parent_id], best[row.parent_id])
            assert lease.from_epoch > 0
        else:
            assert journal.kept() == (None, None)
        for epoch in range(lease.from_epoch + 1, lease.to_epoch + 1):
            state = f"{lease.trial_id} {epoch}".encode()
            journal.record(Epoch(epoch, 0.5, dice_of(lease.hyperparameters, epoch), 0.1))
            journal.keep(state, state)
            best[lease.trial_id] = state
            assert journal.kept() == (state, state)

    work(leases, "worker", train)
    found = trials(registry)
    assert any(row.parent_id for row in found)
    # what is left in the store: each trial's best epoch, nothing superseded
    assert {stored.key for stored in store.list("checkpoints/")} == {row.best_key for row in found}


def test_journal_keeps_the_last_and_the_best_checkpoint_only(registry: Registry, clock: Clock) -> None:
    leases, store = search(registry, clock), MemoryStore()
    journal = TrialJournal(registry, store, clock, taken(leases))
    journal.keep(b"epoch 1", b"epoch 1")
    journal.keep(b"epoch 3", b"epoch 2")
    journal.keep(b"epoch 4", None)
    assert journal.kept() == (b"epoch 4", b"epoch 2")
    assert len(list(store.list("checkpoints/"))) == 2
    journal.keep(b"epoch 5", b"epoch 5")
    assert journal.kept() == (b"epoch 5", b"epoch 5")
    assert len(list(store.list("checkpoints/"))) == 1


# Strategies, and searches that end early


def listed(registry: Registry, clock: Clock, spec: Spec, run_id: str = "run-1") -> Leases:
    with registry.writing() as session:
        rows.run(session, run_id)
    leases = Leases(registry, run_id, spec.strategy, LEASE_S, clock)
    leases.open(spec)
    return leases


def test_one_worker_trains_in_keras_tuners_own_order(registry: Registry, clock: Clock) -> None:
    alone = Hyperband(hyperband(9, 3))
    expected = []
    while isinstance(asked := alone.ask(), Assignment):
        expected.append((asked.trial_id, asked.values, asked.parent_id, asked.bracket, asked.rung, asked.to_epoch))
        epochs = range(asked.from_epoch + 1, asked.to_epoch + 1)
        best = max(epochs, key=lambda epoch: dice_of(asked.values, epoch))
        alone.tell(asked.trial_id, dice_of(asked.values, best), best)
    leases, order = search(registry, clock, "run-1", 9, 3), []

    def train(lease: Lease) -> None:
        order.append(lease.trial_id)
        trainer(registry)(lease)

    work(leases, "worker", train)
    found = {
        row.trial_id: (row.trial_id, row.hyperparameters, row.parent_id, row.bracket, row.rung, row.to_epoch)
        for row in trials(registry)
    }
    assert [found[trial_id] for trial_id in order] == expected


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        pytest.param(Spec("sweep", SWEEP, 2, seed=0), 28, id="sweep"),
        pytest.param(Spec("grid", GRID, 2, seed=1, samples=20), 20, id="sampled grid"),
        pytest.param(Spec("random", REFERENCE, 2, seed=1, samples=12), 12, id="random"),
    ],
)
def test_every_strategy_has_the_same_leases(registry: Registry, clock: Clock, spec: Spec, count: int) -> None:
    leases = [listed(registry, clock, spec)]
    leases += [Leases(registry, "run-1", spec.strategy, LEASE_S * 1000, clock) for _ in range(2)]

    def train(lease: Lease) -> None:
        for epoch in (1, 2):
            write_epoch(registry, lease, epoch, 0.5)

    assert sum(run_workers(leases, train)) == count
    assert leases[0].counts() == {"completed": count}
    values = Counter(tuple(sorted(row.hyperparameters.items())) for row in trials(registry))
    assert len(values) == count
    assert leases[0].take("late") == "done"


def test_searches_of_one_run_leave_each_other_alone(registry: Registry, clock: Clock) -> None:
    first = search(registry, clock, "run-1", *R4)
    second = Leases(registry, "run-1", "again", LEASE_S, clock)
    second.open(hyperband(*R4))
    one, other = taken(first), taken(second)
    assert (one.trial_id, one.search, other.search) == (other.trial_id, "tuned", "again")
    first.cancel()
    with pytest.raises(LeaseLost):
        first.renew(one)
    second.renew(other)


def test_cancelled_search_hands_out_nothing_and_goes_on_where_it_stopped(registry: Registry, clock: Clock) -> None:
    leases, store = search(registry, clock), MemoryStore()
    lease = taken(leases)
    journal = TrialJournal(registry, store, clock, lease)
    journal.record(Epoch(1, 0.5, 0.25, 1.0))
    journal.keep(b"epoch 1", b"epoch 1")
    leases.cancel()
    with pytest.raises(LeaseLost):
        journal.record(Epoch(2, 0.5, 0.5, 1.0))
    assert leases.take("worker") == "done"
    assert work(leases, "worker", trainer(registry)) == 0
    leases.reopen()
    again = taken(leases)
    assert (again.trial_id, trial(registry, again).failures) == (lease.trial_id, 0)
    assert TrialJournal(registry, store, clock, again).kept() == (b"epoch 1", b"epoch 1")
    trainer(registry)(again)
    leases.finish(again)
    work(leases, "worker", trainer(registry))
    assert leases.counts() == {"completed": 15}
    leases.cancel()  # an ended search has nothing to cancel
    with pytest.raises(FemurError, match="tuned of run-1, done"):
        leases.reopen()
    with registry.reading() as session:
        assert session.get_one(Search, ("run-1", "tuned")).state == "done"


@pytest.mark.parametrize(("family", "mine"), [("tuned", True), ("tuned/0/1", True), ("tuned-too/0/1", False)])
def test_search_whose_winner_is_fitted_is_not_reopened(
    registry: Registry, clock: Clock, family: str, mine: bool
) -> None:
    leases = search(registry, clock)
    leases.cancel()
    with registry.writing() as session:
        session.add(Fit(run_id="run-1", family=family))
    with pytest.raises(FemurError, match="is being fitted") if mine else nullcontext():
        leases.reopen()
    assert (leases.take("worker") == "done") == mine


def test_trials_that_no_time_is_left_for_are_not_started(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock, "run-1", 9, 3)  # first rungs of 1, 3 and 9 epochs
    assert leases.take("hurried", most_epochs=0) == "out_of_time"
    seen = []

    def train(lease: Lease) -> None:
        seen.append(lease.to_epoch - lease.from_epoch)
        trainer(registry)(lease)

    work(leases, "hurried", train, most_epochs=lambda: 2)
    assert set(seen) == {1, 2}
    before = len(seen)
    work(leases, "with time", train)
    assert max(seen[before:]) == 9
    assert leases.take("late") == "done"


def test_worker_without_time_does_not_wait_for_others(registry: Registry, clock: Clock) -> None:
    leases = search(registry, clock)
    while isinstance(leases.take("other"), Lease):
        pass
    assert leases.take("worker", most_epochs=5) == "idle"
    assert work(leases, "worker", trainer(registry), most_epochs=lambda: 0) == 0


def test_hopeless_failure_is_not_tried_again(registry: Registry, clock: Clock) -> None:
    leases, calls = search(registry, clock), Counter[str]()

    def train(lease: Lease) -> None:
        calls[lease.trial_id] += 1
        if lease.trial_id == "0001":
            raise Hopeless("Expected a finite loss. Received: nan.")
        trainer(registry)(lease)

    work(leases, "worker", train)
    assert (calls["0001"], leases.counts()["failed"]) == (1, 1)
    assert len(trials(registry)) == 15
