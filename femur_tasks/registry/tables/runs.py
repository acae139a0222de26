"""Runs, and the fits of their families with their curves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class Run(Base):
    """One retraining."""

    __tablename__ = "run"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    trigger: Mapped[str]
    model: Mapped[str] = mapped_column(index=True)
    dataset_digest: Mapped[str | None] = mapped_column(ForeignKey("dataset_version.digest"))
    parameters: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    seed: Mapped[int]
    deadline: Mapped[datetime | None]
    state: Mapped[str]
    detail: Mapped[str]
    report_key: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(index=True)
    finished_at: Mapped[datetime | None]


class Fit(Base):
    """The fit of one family in one run, with the checkpoint from which it resumes.

    `planned_epochs` is what its schedule spans: fewer than the budget's where a deadline left no time for more. With
    `hyperparameters` and `seed` it is decided when the fit begins; None for a reproduction's fits.
    """

    __tablename__ = "fit"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), primary_key=True)
    family: Mapped[str] = mapped_column(primary_key=True)
    planned_epochs: Mapped[int] = mapped_column(server_default="0")
    hyperparameters: Mapped[dict[str, Any] | None]
    seed: Mapped[int | None]
    checkpoint_key: Mapped[str | None]
    best_key: Mapped[str | None]


class FitEpoch(Base):
    """The training curve of a fit: one row an epoch."""

    __tablename__ = "fit_epoch"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    val_dice: Mapped[float]
    seconds: Mapped[float]
    start_s: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    at: Mapped[datetime]
    __table_args__ = (ForeignKeyConstraint(["run_id", "family"], ["fit.run_id", "fit.family"]),)
