"""Predictions on what was dropped under `incoming-images/`: pictures, nightly rates of flags, drift."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class PredictionRun(Base):
    """One night's predictions of one model: how many pictures, how many of them refused or flagged.

    Counts are null until it has ended; `median_ms` too, and where every picture was refused.
    """

    __tablename__ = "prediction_run"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    pictures: Mapped[int | None]
    refused: Mapped[int | None]
    flagged: Mapped[int | None]
    median_ms: Mapped[float | None]
    started_at: Mapped[datetime] = mapped_column(index=True)
    finished_at: Mapped[datetime | None]


class IncomingPicture(Base):
    """The ledger of pictures under `incoming-images/`, by name and content, with what the champion found in each.

    `problem` says why one was refused, `flags` why a person should look at one. Areas are of the patient's left and
    right femur, null where there is none, in mm² null too without a spacing. `likeness` is the score against the
    training cases. The last eight columns are those that are compared with `dataset_case` for drift.
    """

    __tablename__ = "incoming_picture"
    key: Mapped[str] = mapped_column(primary_key=True)
    etag: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int]
    model: Mapped[str] = mapped_column(index=True)
    state: Mapped[str]
    tries: Mapped[int]
    run_id: Mapped[str | None] = mapped_column(index=True)
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    problem: Mapped[str]
    flags: Mapped[list[Any]]
    mask_key: Mapped[str | None]
    overlay_key: Mapped[str | None]
    left_px: Mapped[int | None]
    right_px: Mapped[int | None]
    left_mm2: Mapped[float | None]
    right_mm2: Mapped[float | None]
    likeness: Mapped[float | None]
    ms: Mapped[float | None]
    intensity_mean: Mapped[float | None]
    intensity_sd: Mapped[float | None]
    height_px: Mapped[int | None]
    width_px: Mapped[int | None]
    spacing_y_mm: Mapped[float | None]
    femur_area_pct: Mapped[float | None]
    femur_x_pct: Mapped[float | None]
    femur_y_pct: Mapped[float | None]
    seen_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "model"], ["prediction_run.run_id", "prediction_run.model"]),
        CheckConstraint("state in ('waiting', 'predicted', 'refused')", name="state"),
    )


class PredictionRate(Base):
    """In how many of a night's pictures a flag was set, `refused` among them; a flag that never was has a row too."""

    __tablename__ = "prediction_rate"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    flag: Mapped[str] = mapped_column(primary_key=True)
    pictures: Mapped[int]
    of_pictures: Mapped[int]
    share: Mapped[float]
    __table_args__ = (ForeignKeyConstraint(["run_id", "model"], ["prediction_run.run_id", "prediction_run.model"]),)


class PredictionDrift(Base):
    """How one feature of the newest pictures lies against the cases of the version that the champion was trained on.

    Columns are those of `dataset_drift`; `level` is null where there are too few pictures to say.
    """

    __tablename__ = "prediction_drift"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    feature: Mapped[str] = mapped_column(primary_key=True)
    against_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    psi: Mapped[float | None]
    ks: Mapped[float | None]
    ks_p: Mapped[float | None]
    before_cases: Mapped[int]
    after_cases: Mapped[int]
    level: Mapped[str | None]
    __table_args__ = (ForeignKeyConstraint(["run_id", "model"], ["prediction_run.run_id", "prediction_run.model"]),)
