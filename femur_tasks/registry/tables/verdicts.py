"""Verdicts, champions and promotions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class VerdictRow(Base):
    """What the gate said of one challenger against the champion of that moment.

    `look` counts the model's looks at the same test cases, `level` is what this one spent of the policy's level, and
    `level_left` what it left; null where the gate did not come to look at the difference.
    """

    __tablename__ = "verdict"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), index=True)
    challenger_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), index=True)
    champion_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    manifest_digest: Mapped[str] = mapped_column(ForeignKey("comparison_manifest.digest"))
    policy: Mapped[dict[str, Any]]
    outcome: Mapped[str]
    mean_difference: Mapped[float | None]
    difference_low: Mapped[float | None]
    difference_high: Mapped[float | None]
    look: Mapped[int | None]
    level: Mapped[float | None]
    level_left: Mapped[float | None]
    created_at: Mapped[datetime]
    __table_args__ = (CheckConstraint("outcome in ('promote', 'refuse')", name="outcome"),)


class VerdictReason(Base):
    """One rule of the policy with its value, threshold and result."""

    __tablename__ = "verdict_reason"
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdict.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str]
    passed: Mapped[bool]
    value: Mapped[float | None]
    threshold: Mapped[float | None]
    sentence: Mapped[str]


class VerdictPicture(Base):
    """One of a verdict's worst cases as a stored picture: prediction and truth on the radiograph, worst first.

    `champion_key` is null where there was no champion, or where it can't be loaded any more.
    """

    __tablename__ = "verdict_picture"
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdict.id"), primary_key=True)
    case_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    challenger_key: Mapped[str]
    champion_key: Mapped[str | None]


class Champion(Base):
    """The model version in service: at most one a model name, by primary key."""

    __tablename__ = "champion"
    model: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    since: Mapped[datetime]


class Promotion(Base):
    """The append-only log of every move of a champion pointer; an override went against the gate, or without it."""

    __tablename__ = "promotion"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str]
    kind: Mapped[str]
    from_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    to_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), index=True)
    verdict_id: Mapped[int | None] = mapped_column(ForeignKey("verdict.id"), index=True)
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]
    __table_args__ = (
        CheckConstraint("kind in ('promote', 'rollback', 'override')", name="kind"),
        Index("ix_promotion_model_id", "model", "id"),
        Index("ix_promotion_model_at", "model", "at"),
    )
