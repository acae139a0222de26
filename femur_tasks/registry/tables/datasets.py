"""Datasets: versions, cases, drift, ingests, withdrawals, and the ledger of what was dropped."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, false
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


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
    the header says that the picture's right is the patient's right. `source` is that of the first version of this
    dataset that had the picture.
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
    source: Mapped[str | None]
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


class DatasetSheet(Base):
    """A contact sheet of a version: cases with their masks outlined, as its report has them; `alt` says it in words."""

    __tablename__ = "dataset_sheet"
    digest: Mapped[str] = mapped_column(ForeignKey("dataset_version.digest"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    alt: Mapped[str]
    picture_key: Mapped[str]


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
