"""Journals: where fits and trials leave checkpoints and curves, checkpoint first, row last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.errors import WasCollected
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Fit, FitEpoch, Trial, TrialEpoch
from femur_tasks.search.leases import Lease, held_trial
from femur_tasks.storage import ObjectStore

if TYPE_CHECKING:
    from femur_tasks.training.fit import Epoch

KIND = "checkpoints"


class _Journal(ABC):
    """What both journals do; the subclasses say which rows."""

    def __init__(self, registry: Registry, store: ObjectStore, now: Callable[[], datetime]) -> None:
        self._registry = registry
        self._store = store
        self._now = now

    def kept(self) -> tuple[bytes | None, bytes | None]:
        """The last checkpoint and that of the best epoch so far, each None before the first one."""
        with self._registry.writing() as session:
            row = self._row(session)
            best_key = row.best_key
            latest_key = row.checkpoint_key or best_key  # a trial that advanced starts from its parent's best
            if latest_key is None and isinstance(row, Trial) and row.parent_id:
                raise WasCollected(
                    f"Expected the checkpoint that trial {row.trial_id} goes on from. Received: none, collected.",
                    "Start a new run.",
                )
        best = self._store.get(best_key) if best_key else None
        same = latest_key == best_key
        return best if same or not latest_key else self._store.get(latest_key), best

    def record(self, epoch: Epoch) -> None:
        """Add an epoch to the curve; the same epoch again replaces it."""
        with self._registry.writing() as session:
            self._row(session)
            session.merge(self._curve_row(epoch))

    def keep(self, latest: bytes, best: bytes | None) -> None:
        """Keep a checkpoint: the objects first, then the row that names them, then what they supersede is removed."""
        key = self._store.put(latest, KIND)
        best_key = key if best is latest else self._store.put(best, KIND) if best is not None else None
        with self._registry.writing() as session:
            row = self._row(session)
            superseded = {row.checkpoint_key, row.best_key if best_key else None}
            row.checkpoint_key = key
            row.best_key = best_key or row.best_key
            kept = {row.best_key, key, self._inherited(session, row), None}
        for old in superseded - kept:
            if old is not None:
                self._store.delete(old)

    @abstractmethod
    def _row(self, session: Session) -> Fit | Trial:
        """The row that names the checkpoints, locked for this transaction."""

    @abstractmethod
    def _inherited(self, session: Session, row: Fit | Trial) -> str | None:
        """A checkpoint that belongs to another row and is not this one's to remove."""

    @abstractmethod
    def _curve_row(self, epoch: Epoch) -> FitEpoch | TrialEpoch:
        """The epoch as a row of the training curve."""


class FitJournal(_Journal):
    """The journal of one family's fit in one run."""

    def __init__(
        self, registry: Registry, store: ObjectStore, now: Callable[[], datetime], run_id: str, family: str
    ) -> None:
        super().__init__(registry, store, now)
        self._run_id, self._family = run_id, family

    def _row(self, session: Session) -> Fit:
        row = session.get(Fit, (self._run_id, self._family), with_for_update=True)
        if row is None:
            row = Fit(run_id=self._run_id, family=self._family, planned_epochs=0, checkpoint_key=None, best_key=None)
            session.add(row)
            session.flush()
        return row

    def _inherited(self, session: Session, row: Fit | Trial) -> str | None:
        return None

    def _curve_row(self, epoch: Epoch) -> FitEpoch:
        return FitEpoch(run_id=self._run_id, family=self._family, at=self._now(), **vars(epoch))


class TrialJournal(_Journal):
    """The journal of one leased trial: every write is refused once the lease is lost."""

    def __init__(self, registry: Registry, store: ObjectStore, now: Callable[[], datetime], lease: Lease) -> None:
        super().__init__(registry, store, now)
        self._lease = lease

    def _row(self, session: Session) -> Trial:
        return held_trial(session, self._lease)

    def _inherited(self, session: Session, row: Fit | Trial) -> str | None:
        parent_id = row.parent_id if isinstance(row, Trial) else None
        parent = session.get(Trial, (self._lease.run_id, self._lease.search, parent_id)) if parent_id else None
        return parent.best_key if parent else None

    def _curve_row(self, epoch: Epoch) -> TrialEpoch:
        held = self._lease
        return TrialEpoch(run_id=held.run_id, search=held.search, trial_id=held.trial_id, at=self._now(), **vars(epoch))


def forget(registry: Registry, store: ObjectStore, run_id: str, family: str) -> None:
    """Remove the checkpoints of a fit that is registered, the rows that name them first.

    With them go those of the trials of the search of that name: its winner needs them no more.
    """
    with registry.writing() as session:
        rows: list[Fit | Trial] = [*session.scalars(select(Fit).where(Fit.run_id == run_id, Fit.family == family))]
        rows += session.scalars(select(Trial).where(Trial.run_id == run_id, Trial.search == family))
        keys = {key for row in rows for key in (row.checkpoint_key, row.best_key) if key}
        for row in rows:
            row.checkpoint_key = row.best_key = None
    for key in sorted(keys):
        store.delete(key)
