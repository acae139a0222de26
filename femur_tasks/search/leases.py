"""Leases: a worker's time-limited right to one trial, in the registry database.

There is no chief. A worker takes over a trial whose lease ran out, else asks the oracle, all in one
transaction. Every write of a worker carries its token; after a take-over the old token is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, LeaseLost, NotFound
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Search, Trial, TrialEpoch
from femur_tasks.search.hyperband import Hyperband
from femur_tasks.search.space import keras_tuner_space

ATTEMPTS = 3
WORST_SCORE = 0.0


@dataclass(frozen=True)
class Lease:
    """The right to train one trial: only writes with this token count."""

    run_id: str
    trial_id: str
    token: int
    owner: str
    hyperparameters: dict[str, Any]
    from_epoch: int
    to_epoch: int


class Leases:
    """The trials of one search, handed out to workers that may come, go and die.

    Args:
        registry: the database.
        run_id: the run whose search this is.
        lease_s: seconds after which a silent worker's trial goes to the next one.
        now: the clock, which all workers of a search share closely.
    """

    def __init__(self, registry: Registry, run_id: str, lease_s: int, now: Callable[[], datetime]) -> None:
        self._registry = registry
        self._run_id = run_id
        self._lease = timedelta(seconds=lease_s)
        self._now = now

    def open(self, max_epochs: int, factor: int, seed: int) -> None:
        """Start the search; one that is there already goes on."""

        with suppress(IntegrityError), self._registry.writing() as session:  # another worker may open it as well
            if session.get(Search, self._run_id) is None:
                oracle = Hyperband(keras_tuner_space(), max_epochs, factor, seed).to_state()
                session.add(
                    Search(
                        run_id=self._run_id,
                        max_epochs=max_epochs,
                        factor=factor,
                        seed=seed,
                        state="open",
                        oracle=oracle,
                    )
                )

    def take(self, owner: str) -> Lease | Literal["idle", "done"]:
        """A trial to train: one whose worker fell silent first, else the oracle's next.

        Returns:
            A lease; `idle` while other workers' trials must end first; `done` when the search has ended.
        """
        with self._registry.writing() as session:
            search = self._search(session)
            if search.state == "done":
                return "done"
            silent = session.scalars(
                select(Trial)
                .where(Trial.run_id == self._run_id, Trial.state == "running", Trial.lease_expires_at <= self._now())
                .order_by(Trial.trial_id)
                .limit(1)
                .with_for_update(skip_locked=True)  # whoever writes to a trial this moment is not silent
            ).first()
            return self._take_over(silent, owner) if silent else self._ask(session, search, owner)

    def _take_over(self, trial: Trial, owner: str) -> Lease:
        trial.token += 1
        trial.attempts += 1
        trial.owner = owner
        trial.lease_expires_at = self._now() + self._lease
        return _lease_of(trial)

    def _ask(self, session: Session, search: Search, owner: str) -> Lease | Literal["idle", "done"]:
        oracle = _oracle(search)
        answer = oracle.next()
        if answer == "done":
            search.state = "done"
        if answer == "idle" or answer == "done":
            return answer
        search.oracle = oracle.to_state()
        parent = session.get(Trial, (self._run_id, answer.parent_id)) if answer.parent_id else None
        trial = Trial(
            run_id=self._run_id,
            trial_id=answer.trial_id,
            parent_id=answer.parent_id,
            hyperparameters=answer.values,
            bracket=answer.bracket,
            rung=answer.rung,
            from_epoch=answer.from_epoch,
            to_epoch=answer.to_epoch,
            state="running",
            attempts=1,
            owner=owner,
            token=1,
            lease_expires_at=self._now() + self._lease,
            checkpoint_key=None,
            best_key=parent.best_key if parent else None,
            detail="",
            started_at=self._now(),
        )
        session.add(trial)
        return _lease_of(trial)

    def renew(self, lease: Lease) -> None:
        """Keep the lease for another term; raises `LeaseLost` when another worker has it."""
        with self._held(lease):
            pass

    def finish(self, lease: Lease) -> None:
        """The trial is trained: its score is the best validation Dice of its own epochs."""
        with self._held(lease) as (session, trial):
            best = session.scalars(
                select(TrialEpoch)
                .where(TrialEpoch.run_id == self._run_id, TrialEpoch.trial_id == trial.trial_id)
                .order_by(TrialEpoch.val_dice.desc(), TrialEpoch.epoch)
            ).first()
            if best is None:
                raise FemurError(f"Expected at least one epoch of trial {trial.trial_id}. Received: none.")
            self._report(session, trial, "completed", best.val_dice, best.epoch)

    def fail(self, lease: Lease, detail: str) -> bool:
        """The trial went wrong: it is tried again, and after the last attempt counts as the worst there is.

        Returns:
            True when it will be tried again.
        """
        with self._held(lease) as (session, trial):
            trial.detail = detail
            if trial.attempts < ATTEMPTS:
                trial.lease_expires_at = self._now()
                return True
            self._report(session, trial, "failed", WORST_SCORE, trial.to_epoch)
            return False

    def _report(self, session: Session, trial: Trial, state: str, score: float, best_epoch: int) -> None:
        search = self._search(session)
        oracle = _oracle(search)
        oracle.finish(trial.trial_id, score, best_epoch)
        search.oracle = oracle.to_state()
        trial.state, trial.score, trial.finished_at = state, score, self._now()

    def winner(self) -> Trial:
        """The completed trial with the best score, the earliest of equals."""
        with self._registry.reading() as session:
            best = session.scalars(
                select(Trial)
                .where(Trial.run_id == self._run_id, Trial.state == "completed")
                .order_by(Trial.score.desc(), Trial.trial_id)
            ).first()
            if best is None:
                raise FemurError(f"Expected a completed trial in run {self._run_id}. Received: none.")
            session.expunge(best)
            return best

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        with self._registry.reading() as session:
            rows = session.execute(
                select(Trial.state, func.count().label("trials"))
                .where(Trial.run_id == self._run_id)
                .group_by(Trial.state)
            )
            return {row.state: row.trials for row in rows}

    @contextmanager
    def _held(self, lease: Lease) -> Iterator[tuple[Session, Trial]]:
        """One write transaction in which this lease is proven to be held; it renews it."""
        with self._registry.writing() as session:
            trial = held_trial(session, lease)
            trial.lease_expires_at = self._now() + self._lease
            yield session, trial

    @contextmanager
    def kept(self, lease: Lease) -> Iterator[None]:
        """Renews the lease in the background while the block trains."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._lease.total_seconds() / 3):
                try:
                    self.renew(lease)
                except LeaseLost:
                    return  # the next write of the trial finds the same and stops it
                except FemurError:
                    continue

        thread = threading.Thread(target=renew, name=f"lease-{lease.trial_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _search(self, session: Session) -> Search:
        search = session.get(Search, self._run_id, with_for_update=True)
        if search is None:
            raise NotFound(f"Expected a search of run {self._run_id}. Received: none.")
        return search


def held_trial(session: Session, lease: Lease) -> Trial:
    """The lease's trial, locked for this transaction.

    Raises:
        LeaseLost: another worker took it over, or it has ended.
    """
    trial = session.get(Trial, (lease.run_id, lease.trial_id), with_for_update=True)
    if trial is None or trial.token != lease.token or trial.state != "running":
        raise LeaseLost(f"Expected token {lease.token} to hold trial {lease.trial_id}. Received: it was taken over.")
    return trial


def _lease_of(trial: Trial) -> Lease:
    return Lease(
        trial.run_id,
        trial.trial_id,
        trial.token,
        trial.owner,
        dict(trial.hyperparameters),
        trial.from_epoch,
        trial.to_epoch,
    )


def _oracle(search: Search) -> Hyperband:
    oracle = Hyperband(keras_tuner_space(), search.max_epochs, search.factor, search.seed)
    oracle.restore(search.oracle)
    return oracle
