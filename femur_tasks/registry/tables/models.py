"""Model versions and their evaluations on frozen cases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class ModelVersion(Base):
    """An immutable trained artefact, as weights and as ONNX."""

    __tablename__ = "model_version"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str]
    version: Mapped[int]
    family: Mapped[str]
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"))
    dataset_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    hyperparameters: Mapped[dict[str, Any]]
    size: Mapped[int]
    epochs: Mapped[int]
    val_dice: Mapped[float]
    artefact_key: Mapped[str]
    artefact_sha256: Mapped[str]
    artefact_bytes: Mapped[int]
    onnx_key: Mapped[str | None]
    onnx_sha256: Mapped[str | None]
    created_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("name", "version", name="uq_model_version_name_version"),
        UniqueConstraint("run_id", "family", name="uq_model_version_run_family"),
    )

    @property
    def label(self) -> str:
        """How people call it: NAME:VERSION."""
        return f"{self.name}:{self.version}"


class ModelCard(Base):
    """What a model version is, for whoever uses it, as a page and as JSON; written once it was scored."""

    __tablename__ = "model_card"
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), primary_key=True)
    html_key: Mapped[str]
    json_key: Mapped[str]
    created_at: Mapped[datetime]


class CollectedVersion(Base):
    """A model version whose files garbage collection took away; its row, scores and verdicts stay."""

    __tablename__ = "collected_version"
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), primary_key=True)
    at: Mapped[datetime]


class ComparisonManifest(Base):
    """The test cases on which two models are compared, frozen before scoring.

    `cases_digest` is of the cases alone: versions whose test cases are the same share the gate's account.
    """

    __tablename__ = "comparison_manifest"
    digest: Mapped[str] = mapped_column(primary_key=True)
    dataset_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    cases_digest: Mapped[str] = mapped_column(index=True, server_default=text("''"))
    cases: Mapped[list[Any]]
    excluded: Mapped[list[Any]]
    frozen_at: Mapped[datetime]


class Evaluation(Base):
    """Scores of one model version on the cases of one manifest by one metric implementation."""

    __tablename__ = "evaluation"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    manifest_digest: Mapped[str] = mapped_column(index=True)
    dataset_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    split: Mapped[str]
    metric: Mapped[str]
    cases: Mapped[int]
    mean_dice: Mapped[float | None]
    worst_dice: Mapped[float | None]
    mean_hd95_pct: Mapped[float | None]
    latency_ms: Mapped[float | None]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("model_version_id", "manifest_digest", "metric", name="uq_evaluation_once"),)


class EvaluationCase(Base):
    """One case of an evaluation. Distances in px of the full size, in per cent of its height, in mm where known.

    `left` and `right` are the patient's; null where the case has no femur on that side.
    """

    __tablename__ = "evaluation_case"
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluation.id"), primary_key=True)
    case_id: Mapped[str] = mapped_column(primary_key=True)
    dice: Mapped[float | None]
    dice_training_size: Mapped[float | None]
    iou: Mapped[float | None]
    hd95_px: Mapped[float | None]
    hd95_pct: Mapped[float | None]
    hd95_mm: Mapped[float | None]
    assd_px: Mapped[float | None]
    assd_pct: Mapped[float | None]
    assd_mm: Mapped[float | None]
    dice_left: Mapped[float | None]
    dice_right: Mapped[float | None]
    hd95_left_pct: Mapped[float | None]
    hd95_right_pct: Mapped[float | None]
    flag: Mapped[str | None]
