"""The supply of trials: what a strategy wants trained, put into the table for workers to lease."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Boolean, ColumnElement, func, insert, literal_column, select
from sqlalchemy.orm import Session

from femur_tasks.registry.tables import OPEN_TRIAL, UNTOLD_TRIAL, Search, Trial
from femur_tasks.search.space import from_json
from femur_tasks.search.strategies import strategy
from femur_tasks.search.strategy import Assignment, Spec, Strategy, StrategyName

WORST_SCORE = -1.0
"""What a strategy is told of a trial that failed for good: less than the Dice of any that was trained."""


def put_trials(session: Session, search: Search, now: datetime) -> None:
    """Tell the strategy the scores that it does not know yet, and put the trials that it wants into the table.

    As many as workers are busy, and one: a worker alone sees the strategy's own order. The search is done when there
    is nothing left to give, to wait for or to train.

    Args:
        search: its row, locked in this transaction.
    """
    asked = strategy(_spec(search), search.strategy_state)
    for trial in untold(session, search):
        asked.tell(trial.trial_id, _score(trial), trial.best_epoch or trial.to_epoch)
        trial.told = True
    running = select(func.count()).where(*_of(search), Trial.state == "running")
    busy = session.scalar(running) or 0
    answer = _put(session, search, asked, max(busy + 1, asked.foresight), now)
    search.waits = answer is not None
    if answer == "done" and not _is_left(session, search):
        search.state = "done"
    search.strategy_state = asked.to_state()
    session.flush()


def untold(session: Session, search: Search) -> Sequence[Trial]:
    """Trials that have ended, and whose score the strategy does not know yet."""
    is_untold = literal_column(UNTOLD_TRIAL, Boolean)
    return session.scalars(select(Trial).where(*_of(search), is_untold).order_by(Trial.trial_id)).all()


def _put(session: Session, search: Search, asked: Strategy, most: int, now: datetime) -> Literal["idle", "done"] | None:
    rows: list[dict[str, Any]] = []
    answer: Assignment | Literal["idle", "done"] | None = None
    while len(rows) < most and isinstance(answer := asked.ask(), Assignment):
        parent = session.get(Trial, (search.run_id, search.search, answer.parent_id)) if answer.parent_id else None
        # of a rung in which too few were trained a strategy lets others advance too: nothing is there to go on from
        is_lost = parent is not None and parent.state == "failed" and parent.best_key is None
        rows.append(
            {
                "run_id": search.run_id,
                "search": search.search,
                "trial_id": answer.trial_id,
                "parent_id": answer.parent_id,
                "hyperparameters": answer.values,
                "bracket": answer.bracket,
                "rung": answer.rung,
                "from_epoch": answer.from_epoch,
                "to_epoch": answer.to_epoch,
                "state": "failed" if is_lost else "waiting",
                "told": False,
                "failures": 0,
                "owner": "",
                "token": 0,
                "lease_expires_at": now,
                "best_key": parent.best_key if parent else None,
                "finished_at": now if is_lost else None,
                "detail": f"trial {answer.parent_id}, which it was to go on from, failed" if is_lost else "",
            }
        )
    if rows:
        session.execute(insert(Trial), rows)
    return None if isinstance(answer, Assignment) else answer


def _is_left(session: Session, search: Search) -> bool:
    """Whether a trial waits or is in training."""
    is_open = literal_column(OPEN_TRIAL, Boolean)
    return session.scalars(select(Trial.trial_id).where(*_of(search), is_open).limit(1)).first() is not None


def _of(search: Search) -> tuple[ColumnElement[bool], ...]:
    return Trial.run_id == search.run_id, Trial.search == search.search


def _score(trial: Trial) -> float:
    return WORST_SCORE if trial.score is None else trial.score


def _spec(search: Search) -> Spec:
    name: StrategyName = search.strategy  # type: ignore[assignment]  # only `Leases.open` writes it
    return Spec(name, from_json(search.space), search.max_epochs, search.seed, search.factor, search.samples)
