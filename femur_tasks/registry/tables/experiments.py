"""Reproductions of the reference: every fit, and the rows of the table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class ExperimentFit(Base):
    """One fit of one experiment of a reproduction: Dice of every case at the training size, and what it cost."""

    __tablename__ = "experiment_fit"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    seed: Mapped[int] = mapped_column(primary_key=True)
    fold: Mapped[int] = mapped_column(primary_key=True)
    hyperparameters: Mapped[dict[str, Any]]
    epochs: Mapped[int]
    seconds: Mapped[float]
    val_dice: Mapped[dict[str, Any]]
    test_dice: Mapped[dict[str, Any]]
    overlays_key: Mapped[str | None]
    created_at: Mapped[datetime]


class ExperimentRow(Base):
    """One row of a reproduction's table: mean Dice with its interval, and what the row above has less or more."""

    __tablename__ = "experiment"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    title: Mapped[str]
    reference: Mapped[str]
    val_dice: Mapped[float]
    val_low: Mapped[float]
    val_high: Mapped[float]
    test_dice: Mapped[float]
    test_low: Mapped[float]
    test_high: Mapped[float]
    difference: Mapped[float | None]
    difference_low: Mapped[float | None]
    difference_high: Mapped[float | None]
    seeds: Mapped[int]
    cases: Mapped[int]
    epochs: Mapped[int]
    seconds: Mapped[float]
    sentence: Mapped[str]
