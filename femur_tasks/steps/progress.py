"""How far a run is: its fits, and its searches by bracket and rung, with who trains what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from femur_tasks.registry.queries import find_run
from femur_tasks.registry.tables import Fit, FitEpoch, Search, Trial, TrialEpoch
from femur_tasks.search.brackets import Rung, schedule
from femur_tasks.search.space import from_json, size_of


@dataclass(frozen=True)
class FitProgress:
    """One family's fit; `planned_epochs` is 0 before its schedule is known, `running` until it keeps no checkpoint."""

    family: str
    running: bool
    epochs: int
    planned_epochs: int
    best_val_dice: float | None


@dataclass(frozen=True)
class RungProgress:
    """One rung of one bracket; a strategy without brackets has one rung."""

    bracket: int
    rung: int
    to_epoch: int
    planned: int
    ended: int
    running: int
    waiting: int
    best_val_dice: float | None


@dataclass(frozen=True)
class WorkerProgress:
    """A trial in training, who holds it, its last epoch, and until when its lease holds unless it is renewed."""

    owner: str
    trial_id: str
    epoch: int
    to_epoch: int
    lease_expires_at: datetime


@dataclass(frozen=True)
class SearchProgress:
    """One search.

    Attributes:
        epochs, planned_epochs: trained, and in the whole schedule.
        epoch_s: what an epoch takes on average, None before the first.
        left_s: seconds until the search is done at this pace with the workers of now, None where that is unknown.
    """

    search: str
    strategy: str
    state: str
    epochs: int
    planned_epochs: int
    best_val_dice: float | None
    epoch_s: float | None
    left_s: float | None
    rungs: tuple[RungProgress, ...]
    workers: tuple[WorkerProgress, ...]


@dataclass(frozen=True)
class RunProgress:
    """One run."""

    run_id: str
    state: str
    model: str
    dataset: str
    deadline: datetime | None
    epochs: int
    device_s: float
    fits: tuple[FitProgress, ...]
    searches: tuple[SearchProgress, ...]

    @property
    def best_val_dice(self) -> float | None:
        """Of all fits and trials so far."""
        found = [fit.best_val_dice for fit in self.fits] + [search.best_val_dice for search in self.searches]
        return max((dice for dice in found if dice is not None), default=None)


def run_progress(session: Session, run_id: str) -> RunProgress:
    """Everything that `femur runs watch` shows.

    Raises:
        NotFound: there is no such run.
    """
    run = find_run(session, run_id)
    fits = tuple(_fit(session, fit) for fit in session.scalars(select(Fit).where(Fit.run_id == run_id)))
    found = session.scalars(select(Search).where(Search.run_id == run_id).order_by(Search.search))
    costs = [cost(session, table, run_id) for table in (FitEpoch, TrialEpoch)]
    return RunProgress(
        run_id=run_id,
        state=run.state,
        model=run.model,
        dataset=str(run.parameters.get("dataset") or ""),
        deadline=run.deadline,
        epochs=sum(epochs for epochs, _ in costs),
        device_s=sum(seconds for _, seconds in costs),
        fits=fits,
        searches=tuple(_search(session, search) for search in found),
    )


def cost(
    session: Session, table: type[FitEpoch] | type[TrialEpoch], run_id: str, *of: ColumnElement[bool]
) -> tuple[int, float]:
    """Epochs that a run trained, and the seconds that they took on their devices.

    Args:
        of: narrows it down, to a family or a search.
    """
    told = select(func.count(), func.coalesce(func.sum(table.seconds), 0.0)).where(table.run_id == run_id, *of)
    epochs, seconds = session.execute(told).one()
    return int(epochs), float(seconds)


def _fit(session: Session, fit: Fit) -> FitProgress:
    told = select(func.count(), func.max(FitEpoch.val_dice)).where(
        FitEpoch.run_id == fit.run_id, FitEpoch.family == fit.family
    )
    epochs, best = session.execute(told).one()
    return FitProgress(fit.family, fit.checkpoint_key is not None, epochs, fit.planned_epochs, best)


def _search(session: Session, search: Search) -> SearchProgress:
    mine = (TrialEpoch.run_id == search.run_id, TrialEpoch.search == search.search)
    told = select(func.count(), func.avg(TrialEpoch.seconds), func.max(TrialEpoch.val_dice)).where(*mine)
    epochs, epoch_s, best = session.execute(told).one()
    trials = session.scalars(
        select(Trial).where(Trial.run_id == search.run_id, Trial.search == search.search).order_by(Trial.trial_id)
    ).all()
    running = [trial for trial in trials if trial.state == "running"]
    newest = (
        select(TrialEpoch.trial_id, func.max(TrialEpoch.epoch))
        .where(*mine, TrialEpoch.trial_id.in_([trial.trial_id for trial in running]))
        .group_by(TrialEpoch.trial_id)
    )
    last: dict[str, int] = {row.trial_id: row[1] for row in session.execute(newest)}
    rungs = _planned(search)
    planned = sum(rung.trials * (rung.to_epoch - rung.from_epoch) for rung in rungs)
    left_s = None
    if search.state == "open" and epoch_s is not None and running:
        left_s = max(0, planned - epochs) * epoch_s / len(running)
    return SearchProgress(
        search=search.search,
        strategy=search.strategy,
        state=search.state,
        epochs=epochs,
        planned_epochs=planned,
        best_val_dice=best,
        epoch_s=epoch_s,
        left_s=left_s,
        rungs=_rungs(rungs, trials),
        workers=tuple(
            WorkerProgress(
                trial.owner, trial.trial_id, last.get(trial.trial_id, trial.from_epoch), trial.to_epoch,
                trial.lease_expires_at,
            )
            for trial in running
        ),
    )  # fmt: skip


def _planned(search: Search) -> list[Rung]:
    if search.strategy == "hyperband":
        return schedule(search.max_epochs, search.factor)
    trials = search.samples if search.samples is not None else size_of(from_json(search.space))
    return [Rung(0, 0, trials, 0, search.max_epochs)]


def _rungs(planned: Sequence[Rung], trials: Sequence[Trial]) -> tuple[RungProgress, ...]:
    there: dict[tuple[int, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        there[trial.bracket, trial.rung].append(trial)
    found = []
    for rung in planned:
        here = there[rung.bracket, rung.rung]
        scores = [trial.score for trial in here if trial.score is not None]
        states = [trial.state for trial in here]
        found.append(
            RungProgress(
                bracket=rung.bracket,
                rung=rung.rung,
                to_epoch=rung.to_epoch,
                planned=rung.trials,
                ended=states.count("completed") + states.count("failed"),
                running=states.count("running"),
                waiting=states.count("waiting"),
                best_val_dice=max(scores, default=None),
            )
        )
    return tuple(found)
