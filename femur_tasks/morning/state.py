"""How things stand in a few lines: the last run, the champions, and what waits for whom."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from femur_tasks.morning.champion import ChampionFacts, champion_facts, model_names
from femur_tasks.registry.queries import Row, newest_verdict, runs
from femur_tasks.registry.tables import Dataset, IncomingObject, IncomingPicture, Run
from femur_tasks.steps.datasets import label
from femur_tasks.steps.run import find_version


@dataclass(frozen=True)
class State:
    """All of it.

    Attributes:
        last_run: the newest run that had something to do; None before the first.
        waits: a sentence each: versions that nobody trained on, drops that nobody took in,
            pictures that nobody predicted, verdicts that ask a person.
    """

    last_run: Row | None
    champions: tuple[ChampionFacts, ...]
    waits: tuple[str, ...]


def state_of(session: Session) -> State:
    """How things stand."""
    newest = session.scalars(
        select(Run.run_id).where(Run.state != "nothing_new").order_by(Run.started_at.desc(), Run.run_id).limit(1)
    ).first()
    found = (champion_facts(session, model) for model in model_names(session))
    return State(
        last_run=runs(session, 1, run_id=newest)[0] if newest else None,
        champions=tuple(one for one in found if one),
        waits=(*_untrained(session), *_dropped(session), *_pictures(session), *_asking(session)),
    )


def _untrained(session: Session) -> list[str]:
    waits = []
    for name in session.scalars(select(Dataset.name).order_by(Dataset.name)):
        version = find_version(session, name)
        if session.scalars(select(Run.run_id).where(Run.dataset_digest == version.digest).limit(1)).first() is None:
            waits.append(f"{label(name, version.digest)} for its first retrain: tonight, or `femur retrain` now")
    return waits


def _dropped(session: Session) -> list[str]:
    there = session.scalars(select(IncomingObject.key).where(IncomingObject.state == "waiting").distinct())
    return [f"{key} for its ingest" for key in sorted(there)]


def _pictures(session: Session) -> list[str]:
    waiting = select(IncomingPicture.model, func.count()).where(IncomingPicture.state == "waiting")
    found = session.execute(waiting.group_by(IncomingPicture.model).order_by(IncomingPicture.model))
    return [f"{count} incoming pictures of {model} for the DAG predict_incoming" for model, count in found]


def _asking(session: Session) -> list[str]:
    waits = []
    for run in session.scalars(select(Run).where(Run.state == "running").order_by(Run.started_at)):
        verdict = newest_verdict(session, run.run_id)
        if run.parameters.get("require_approval") and verdict and verdict.outcome == "promote":
            waits.append(f"{run.run_id} for a person's approval: Required Actions in Airflow")
    return waits
