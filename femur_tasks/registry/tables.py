"""The registry's tables: a supported API, queried with SQL by people.

Times are UTC. Keys in the object store are `kind/<sha256>`. JSON columns hold small objects.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Utc(TypeDecorator[datetime]):
    """An aware UTC time, also where the database keeps none of the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


class Base(DeclarativeBase):
    """All tables; constraints have names so that a migration can speak of them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, str: String}  # noqa: RUF012


class Dataset(Base):
    """A named line of dataset versions, with the standing order for how one is read and what it retrains.

    `femur_class` and `patient_pattern` are null where nobody has named them.
    """

    __tablename__ = "dataset"
    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    budget: Mapped[str]
    femur_class: Mapped[str | None]
    patient_pattern: Mapped[str | None]
    created_at: Mapped[datetime]


class DatasetVersion(Base):
    """An immutable manifest of cases, named by its digest."""

    __tablename__ = "dataset_version"
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(ForeignKey("dataset.name"), index=True)
    source: Mapped[str]
    size: Mapped[int]
    layout: Mapped[str | None]
    femur_class: Mapped[str | None]
    cases: Mapped[int]
    train_cases: Mapped[int]
    val_cases: Mapped[int]
    test_cases: Mapped[int]
    manifest_key: Mapped[str]
    problems: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)


class DatasetCase(Base):
    """One case of one dataset version. Digests are of the decoded pixels, so packing does not change them.

    `window_low` and `window_high` are the grey values that became 0 and 255, null where the file held 8 bits. Area
    and centre of the femur are in per cent of the picture, null in cases from before they were measured. `mirrored`:
    the header says that the picture's right is the patient's right.
    """

    __tablename__ = "dataset_case"
    digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"), primary_key=True)
    case_id: Mapped[str] = mapped_column(primary_key=True)
    patient: Mapped[str]
    split: Mapped[str]
    image_sha256: Mapped[str] = mapped_column(index=True)
    mask_sha256: Mapped[str]
    height_px: Mapped[int]
    width_px: Mapped[int]
    spacing_x_mm: Mapped[float | None]
    spacing_y_mm: Mapped[float | None]
    mirrored: Mapped[bool] = mapped_column(server_default=false())
    window_low: Mapped[float | None]
    window_high: Mapped[float | None]
    intensity_mean: Mapped[float | None]
    intensity_sd: Mapped[float | None]
    femur_area_pct: Mapped[float | None]
    femur_x_pct: Mapped[float | None]
    femur_y_pct: Mapped[float | None]
    problems: Mapped[list[Any]]


class DatasetDrift(Base):
    """How one feature of a version's cases lies against that of the version its champion was trained on.

    `split` is train, val, test or all; `level` none, some or large, null where there are too few cases to say.
    """

    __tablename__ = "dataset_drift"
    digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    feature: Mapped[str] = mapped_column(primary_key=True)
    against_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    psi: Mapped[float | None]
    ks: Mapped[float | None]
    ks_p: Mapped[float | None]
    before_cases: Mapped[int]
    after_cases: Mapped[int]
    level: Mapped[str | None]


class Ingest(Base):
    """One ingest, whatever came of it, with all its problems and its report."""

    __tablename__ = "ingest"
    ingest_id: Mapped[str] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(index=True)
    source: Mapped[str]
    state: Mapped[str]
    digest: Mapped[str | None] = mapped_column(ForeignKey("dataset_version.digest"))
    layout: Mapped[str]
    cases: Mapped[int]
    errors: Mapped[int]
    warnings: Mapped[int]
    allowed: Mapped[list[Any]]
    problems: Mapped[list[Any]]
    report_key: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (CheckConstraint("state in ('ingested', 'known', 'refused')", name="state"),)


class Withdrawal(Base):
    """A case that was taken out of all later versions of a dataset on request: neither its id nor its pixels return."""

    __tablename__ = "withdrawal"
    dataset: Mapped[str] = mapped_column(ForeignKey("dataset.name"), primary_key=True)
    case_id: Mapped[str] = mapped_column(primary_key=True)
    image_sha256: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]


class IncomingObject(Base):
    """The ledger of what was dropped under `incoming/`, by name and content.

    `key` ends with `/` for a folder of loose files; `etag` is then a digest over its files' names and etags.
    """

    __tablename__ = "incoming_object"
    key: Mapped[str] = mapped_column(primary_key=True)
    etag: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int]
    state: Mapped[str]
    ingest_id: Mapped[str | None] = mapped_column(ForeignKey("ingest.ingest_id"))
    digest: Mapped[str | None] = mapped_column(ForeignKey("dataset_version.digest"))
    detail: Mapped[str]
    seen_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    __table_args__ = (CheckConstraint("state in ('waiting', 'ingested', 'refused')", name="state"),)


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

    `planned_epochs` is what its schedule spans: fewer than the budget's where a deadline left no time for more.
    """

    __tablename__ = "fit"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), primary_key=True)
    family: Mapped[str] = mapped_column(primary_key=True)
    planned_epochs: Mapped[int] = mapped_column(server_default="0")
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
    at: Mapped[datetime]
    __table_args__ = (ForeignKeyConstraint(["run_id", "family"], ["fit.run_id", "fit.family"]),)


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
    attempts: Mapped[int]
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
    at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "search", "trial_id"], ["trial.run_id", "trial.search", "trial.trial_id"]),
    )


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


class ModelVersion(Base):
    """An immutable trained artefact."""

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
    created_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("name", "version", name="uq_model_version_name_version"),
        UniqueConstraint("run_id", "family", name="uq_model_version_run_family"),
    )

    @property
    def label(self) -> str:
        """How people call it: NAME:VERSION."""
        return f"{self.name}:{self.version}"


class ComparisonManifest(Base):
    """The test cases on which two models are compared, frozen before scoring."""

    __tablename__ = "comparison_manifest"
    digest: Mapped[str] = mapped_column(primary_key=True)
    dataset_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    cases: Mapped[list[Any]]
    excluded: Mapped[list[Any]]
    frozen_at: Mapped[datetime]


class Evaluation(Base):
    """Scores of one model version on the cases of one manifest by one metric implementation."""

    __tablename__ = "evaluation"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    manifest_digest: Mapped[str]
    dataset_digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"))
    split: Mapped[str]
    metric: Mapped[str]
    cases: Mapped[int]
    mean_dice: Mapped[float | None]
    worst_dice: Mapped[float | None]
    mean_hd95_pct: Mapped[float | None]
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


class VerdictRow(Base):
    """What the gate said of one challenger against the champion of that moment."""

    __tablename__ = "verdict"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.run_id"), index=True)
    challenger_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    champion_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    manifest_digest: Mapped[str] = mapped_column(ForeignKey("comparison_manifest.digest"))
    policy: Mapped[dict[str, Any]]
    outcome: Mapped[str]
    mean_difference: Mapped[float | None]
    difference_low: Mapped[float | None]
    difference_high: Mapped[float | None]
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


class Champion(Base):
    """The model version in service: at most one a model name, by primary key."""

    __tablename__ = "champion"
    model: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    since: Mapped[datetime]


class Promotion(Base):
    """The append-only log of every move of a champion pointer."""

    __tablename__ = "promotion"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    from_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    to_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"))
    verdict_id: Mapped[int | None] = mapped_column(ForeignKey("verdict.id"))
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]
    __table_args__ = (CheckConstraint("kind in ('promote', 'rollback')", name="kind"),)
