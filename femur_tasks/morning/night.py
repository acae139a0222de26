"""The newest run of a model as it goes, and what came of the nights before."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.registry.queries import Row, runs
from femur_tasks.registry.tables import Run
from femur_tasks.reports.facts import Curve
from femur_tasks.steps.progress import RunProgress, run_progress
from femur_tasks.steps.report import family_curves, trial_curves

QUIET = ("nothing_new",)


@dataclass(frozen=True)
class Night:
    """A run: how far it is, its curves, and whether it has a report."""

    run: Row
    progress: RunProgress
    curves: tuple[Curve, ...]
    trial_curves: tuple[Curve, ...]

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self.progress.state == "running"


def night(session: Session, run_id: str) -> Night:
    """One run.

    Raises:
        NotFound: there is no such run.
    """
    progress = run_progress(session, run_id)
    (row,) = runs(session, 1, run_id=run_id)
    return Night(row, progress, family_curves(session, run_id), trial_curves(session, run_id))


def newest_run(session: Session, model: str) -> str | None:
    """The last run of a model that had something to do, or that runs; None before the first."""
    return session.scalars(
        select(Run.run_id)
        .where(Run.model == model, Run.state.not_in(QUIET))
        .order_by(Run.started_at.desc(), Run.run_id)
        .limit(1)
    ).first()
