"""Searches, their trials with leases, and the trials' curves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class Search(Base):
    """One search of one run; `strategy_state` is what its strategy needs to go on: Keras Tuner's oracle for Hyperband.

    `waits` says that the strategy has nothing more to give before a score that it does not know yet.
    """

    __tablename__ = "search"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), primary_key=True)
    search: Mapped[str] = mapped_column(primary_key=True)
    strategy: Mapped[str]
    space: Mapped[dict[str, Any]]
    max_epochs: Mapped[int]
    factor: Mapped[int]
    samples: Mapped[int | None]
    seed: Mapped[int]
    fixed: Mapped[dict[str, Any]]
    state: Mapped[str]
    waits: Mapped[bool]
    strategy_state: Mapped[dict[str, Any]]
    __table_args__ = (CheckConstraint("state in ('open', 'cancelled', 'done')", name="state"),)


OPEN_TRIAL = "state in ('running', 'waiting')"
UNTOLD_TRIAL = "not told and state in ('completed', 'failed')"
"""What the partial indexes on trials need to find in a query, word for word."""


class Trial(Base):
    """One hyperparameter set on one rung, and who holds its lease.

    A waiting trial is one whose lease has run out from the start. `told`: the strategy knows its score.
    """

    __tablename__ = "trial"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    search: Mapped[str] = mapped_column(primary_key=True)
    trial_id: Mapped[str] = mapped_column(primary_key=True)
    parent_id: Mapped[str | None]
    hyperparameters: Mapped[dict[str, Any]]
    bracket: Mapped[int]
    rung: Mapped[int]
    from_epoch: Mapped[int]
    to_epoch: Mapped[int]
    state: Mapped[str]
    told: Mapped[bool]
    score: Mapped[float | None]
    best_epoch: Mapped[int | None]
    failures: Mapped[int]
    owner: Mapped[str]
    token: Mapped[int]
    lease_expires_at: Mapped[datetime]
    checkpoint_key: Mapped[str | None]
    best_key: Mapped[str | None]
    detail: Mapped[str]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "search"], ["search.run_id", "search.search"]),
        CheckConstraint("state in ('waiting', 'running', 'completed', 'failed')", name="state"),
        Index(
            "ix_trial_open",
            "run_id",
            "search",
            "state",
            "trial_id",
            sqlite_where=text(OPEN_TRIAL),
            postgresql_where=text(OPEN_TRIAL),
        ),
        Index(
            "ix_trial_untold",
            "run_id",
            "search",
            "trial_id",
            sqlite_where=text(UNTOLD_TRIAL),
            postgresql_where=text(UNTOLD_TRIAL),
        ),
    )


class TrialEpoch(Base):
    """The training curve of a trial: one row an epoch, counted from the start of its configuration."""

    __tablename__ = "trial_epoch"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    search: Mapped[str] = mapped_column(primary_key=True)
    trial_id: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    val_dice: Mapped[float]
    seconds: Mapped[float]
    start_s: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "search", "trial_id"], ["trial.run_id", "trial.search", "trial.trial_id"]),
    )
