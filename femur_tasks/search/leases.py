"""Leases: a worker's time-limited right to one trial, in the registry database.

There is no chief. Trials wait in the table; a worker leases the first one that waits or whose worker fell silent,
in one statement. Where none is left, whoever comes first has the strategy put more there (`supply.py`). Every write of
a worker carries its token; after a take-over the old token is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    ColumnElement,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, LeaseLost, NotFound
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import OPEN_TRIAL, Fit, Search, Trial, TrialEpoch
from femur_tasks.search.space import to_json
from femur_tasks.search.strategies import load, strategy
from femur_tasks.search.strategy import Spec
from femur_tasks.search.supply import put_trials, untold

ATTEMPTS = 3
_MOST_EPOCHS = 1 << 30
Answer = Literal["idle", "done", "out_of_time"]


@dataclass(frozen=True)
class Lease:
    """The right to train one trial: only writes with this token count."""

    run_id: str
    search: str
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
        search: its name in that run.
        lease_s: seconds after which a silent worker's trial goes to the next one.
        now: the clock, which all workers of a search share closely.
    """

    def __init__(self, registry: Registry, run_id: str, search: str, lease_s: int, now: Callable[[], datetime]) -> None:
        self._registry = registry
        self._run_id = run_id
        self.name = search
        self._lease = timedelta(seconds=lease_s)
        self._now = now
        self._next = self._statement()

    def open(self, spec: Spec, fixed: dict[str, Any] | None = None) -> None:
        """Start the search; one that is there already goes on, with what it was started with.

        Args:
            fixed: hyperparameters that every trial shares, beside those of the space.
        """
        with suppress(IntegrityError), self._registry.writing() as session:  # another worker may open it as well
            if session.get(Search, (self._run_id, self.name)) is None:
                session.add(
                    Search(
                        run_id=self._run_id,
                        search=self.name,
                        strategy=spec.strategy,
                        space=to_json(spec.space),
                        max_epochs=spec.max_epochs,
                        factor=spec.factor,
                        samples=spec.samples,
                        seed=spec.seed,
                        fixed=fixed or {},
                        state="open",
                        waits=False,
                        strategy_state=strategy(spec).to_state(),
                    )
                )

    def take(self, owner: str, most_epochs: int | None = None) -> Lease | Answer:
        """A trial to train: one whose worker fell silent first, else the next that waits.

        Args:
            owner: this worker's name, for people who look at the rows.
            most_epochs: leave trials that have more epochs to go for whoever has the time.

        Returns:
            A lease; `idle` while other workers' trials must end first; `done` when the search has ended or was
            cancelled; `out_of_time` when what waits has too many epochs.
        """
        now = self._now()
        with self._registry.writing() as session:
            if lease := self._leased(session, owner, most_epochs, now):
                return lease
            search = self._search(session, locked=False)
            if search.state == "open" and not (search.waits and not untold(session, search)):
                load(search.strategy)  # which may take seconds: not under the lock
                locked = self._lock(session)
                if locked is None:
                    return "idle"  # somebody else asks this moment
                search = locked
                if lease := self._leased(session, owner, most_epochs, now):  # somebody else has asked meanwhile
                    return lease
                if search.state == "open":
                    put_trials(session, search, now)
                    if lease := self._leased(session, owner, most_epochs, now):
                        return lease
            if search.state != "open":
                return "done"
            if most_epochs is not None:
                free = session.scalars(select(Trial.trial_id).where(*self._free()).limit(1), {"now": now}).first()
                return "out_of_time" if free else "idle"
            return "idle"

    def _leased(self, session: Session, owner: str, most_epochs: int | None, now: datetime) -> Lease | None:
        told = {"now": now, "until": now + self._lease, "worker": owner}
        told["most"] = _MOST_EPOCHS if most_epochs is None else most_epochs
        row = session.execute(self._next, told, execution_options={"synchronize_session": False}).one_or_none()
        if row is None:
            return None
        return Lease(
            self._run_id, self.name, row.trial_id, row.token, owner, row.hyperparameters, row.from_epoch, row.to_epoch
        )

    def _free(self) -> list[ColumnElement[bool]]:
        """Which trials may be leased at the time `now`: those that wait, and those whose worker fell silent."""
        silent = and_(Trial.state == "running", Trial.lease_expires_at <= bindparam("now"))
        is_open = exists().where(Search.run_id == self._run_id, Search.search == self.name, Search.state == "open")
        return [
            *self._of_search(Trial),
            literal_column(f"trial.{OPEN_TRIAL}", Boolean),
            or_(Trial.state == "waiting", silent),
            is_open,
        ]

    def _statement(self) -> Any:
        """Leases the next free trial; made once, because making it takes as long as running it."""
        short = Trial.to_epoch - Trial.from_epoch <= bindparam("most")
        first = select(Trial.trial_id).where(*self._free(), short).order_by(Trial.state, Trial.trial_id).limit(1)
        first = first.with_for_update(skip_locked=True)  # whoever writes to a trial this moment is not silent
        return (
            update(Trial)
            .where(*self._of_search(Trial), Trial.trial_id == first.scalar_subquery())
            .values(
                state="running",
                token=Trial.token + 1,
                owner=bindparam("worker"),
                lease_expires_at=bindparam("until"),
                started_at=func.coalesce(Trial.started_at, bindparam("now")),
            )
            .returning(Trial.trial_id, Trial.token, Trial.hyperparameters, Trial.from_epoch, Trial.to_epoch)
        )

    def renew(self, lease: Lease) -> None:
        """Keep the lease for another term; raises `LeaseLost` when another worker has it."""
        with self._held(lease):
            pass

    def finish(self, lease: Lease) -> None:
        """The trial is trained: its score is the best validation Dice of its own epochs."""
        with self._held(lease) as (session, trial):
            best = session.scalars(
                select(TrialEpoch)
                .where(*self._of_search(TrialEpoch), TrialEpoch.trial_id == trial.trial_id)
                .order_by(TrialEpoch.val_dice.desc(), TrialEpoch.epoch)
                .limit(1)
            ).first()
            if best is None:
                raise FemurError(f"Expected at least one epoch of trial {trial.trial_id}. Received: none.")
            trial.state, trial.score, trial.best_epoch = "completed", best.val_dice, best.epoch
            trial.finished_at = self._now()

    def fail(self, lease: Lease, detail: str, again: bool = True) -> bool:
        """The trial went wrong: it is tried again, and after the last attempt counts as the worst there is.

        Args:
            again: False where the same would happen again.

        Returns:
            True when it will be tried again.
        """
        with self._held(lease) as (_, trial):
            return self._failed(trial, detail, again)

    def fail_of(self, owner: str, detail: str) -> bool:
        """As `fail`, for whoever saw a worker die: the trial that it held went wrong, so that none kills for ever.

        Returns:
            False where that worker held none.
        """
        with self._registry.writing() as session:
            held = select(Trial).where(*self._of_search(Trial), Trial.owner == owner, Trial.state == "running")
            trial = session.scalars(held.with_for_update()).first()
            if trial is not None:
                self._failed(trial, detail, again=True)
            return trial is not None

    def _failed(self, trial: Trial, detail: str, again: bool) -> bool:
        trial.detail, trial.failures = detail, trial.failures + 1
        if again and trial.failures < ATTEMPTS:
            trial.lease_expires_at = self._now()
            return True
        trial.state, trial.finished_at = "failed", self._now()
        return False

    def cancel(self) -> None:
        """Stop the search: no trial is handed out any more, and who trains one loses it at its next write.

        One that is done stays so.
        """
        with self._registry.writing() as session:
            search = self._search(session)
            if search.state == "done":
                return
            search.state = "cancelled"
        with self._registry.writing() as session:  # from here on nothing is leased: what was, while we wrote, is seen
            session.execute(
                update(Trial)
                .where(*self._of_search(Trial), Trial.state.in_(("waiting", "running")))
                .values(state="waiting"),
                execution_options={"synchronize_session": False},
            )

    def reopen(self) -> None:
        """Go on with a search that was cancelled, each trial from its last checkpoint.

        Raises:
            FemurError: it has ended, or what it found by then is being fitted already.
        """
        with self._registry.writing() as session:
            search = self._search(session)
            what = f"Expected a search that was cancelled. Received: {self.name} of {self._run_id}"
            if search.state == "done":
                raise FemurError(f"{what}, done.")
            of_winner = or_(Fit.family == self.name, Fit.family.startswith(f"{self.name}/", autoescape=True))
            if session.scalars(select(Fit.family).where(Fit.run_id == self._run_id, of_winner).limit(1)).first():
                raise FemurError(f"{what}, whose winner is being fitted or is a model already.", "Start a new run.")
            search.state = "open"

    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that every trial of this search shares."""
        with self._registry.reading() as session:
            return dict(self._search(session, locked=False).fixed)

    def winner(self) -> Trial | None:
        """The completed trial with the best score, the earliest of equals; None before the first."""
        with self._registry.reading() as session:
            best = session.scalars(
                select(Trial)
                .where(*self._of_search(Trial), Trial.state == "completed")
                .order_by(Trial.score.desc(), Trial.trial_id)
                .limit(1)
            ).first()
            if best is not None:
                session.expunge(best)
            return best

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        with self._registry.reading() as session:
            rows = session.execute(
                select(Trial.state, func.count().label("trials")).where(*self._of_search(Trial)).group_by(Trial.state)
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

    def _of_search(self, table: type[Trial] | type[TrialEpoch]) -> tuple[ColumnElement[bool], ...]:
        return table.run_id == self._run_id, table.search == self.name

    def _lock(self, session: Session) -> Search | None:
        """The search's row, locked; None while somebody else has it."""
        return session.get(
            Search, (self._run_id, self.name), with_for_update={"skip_locked": True}, populate_existing=True
        )

    def _search(self, session: Session, locked: bool = True) -> Search:
        search = session.get(
            Search, (self._run_id, self.name), with_for_update=True if locked else None, populate_existing=True
        )
        if search is None:
            raise NotFound(f"Expected a search {self.name} of run {self._run_id}. Received: none.")
        return search


def held_trial(session: Session, lease: Lease) -> Trial:
    """The lease's trial, locked for this transaction.

    Raises:
        LeaseLost: another worker took it over, it has ended, or its search was cancelled.
    """
    trial = session.get(Trial, (lease.run_id, lease.search, lease.trial_id), with_for_update=True)
    if trial is None or trial.token != lease.token or trial.state != "running":
        raise LeaseLost(f"Expected token {lease.token} to hold trial {lease.trial_id}. Received: it was taken over.")
    return trial
