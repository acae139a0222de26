"""Predictions on incoming pictures: the ledger, what a night found, rates of flags, drift"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from femur_tasks.registry.migrations.roles import has_roles

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = ("prediction_run", "incoming_picture", "prediction_rate", "prediction_drift")
_ROLES = "femur_reader, femur_trainer, femur_promoter"
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "prediction_run",
        *_columns(sa.String(), "run_id", "model"),
        *_columns(sa.Integer(), "model_version_id"),
        *_columns(sa.Integer(), "pictures", "refused", "flagged", nullable=True),
        *_columns(sa.Double(), "median_ms", nullable=True),
        *_columns(_TIME, "started_at"),
        *_columns(_TIME, "finished_at", nullable=True),
        _version_key("prediction_run"),
        sa.PrimaryKeyConstraint("run_id", "model", name="pk_prediction_run"),
    )
    op.create_index("ix_prediction_run_started_at", "prediction_run", ["started_at"])
    op.create_table(
        "incoming_picture",
        *_columns(sa.String(), "key", "etag"),
        *_columns(sa.Integer(), "size_bytes"),
        *_columns(sa.String(), "model", "state"),
        *_columns(sa.Integer(), "tries"),
        *_columns(sa.String(), "run_id", nullable=True),
        *_columns(sa.Integer(), "model_version_id", nullable=True),
        *_columns(sa.String(), "problem"),
        *_columns(sa.JSON(), "flags"),
        *_columns(sa.String(), "mask_key", "overlay_key", nullable=True),
        *_columns(sa.Integer(), "left_px", "right_px", nullable=True),
        *_columns(sa.Double(), "left_mm2", "right_mm2", "likeness", "ms", nullable=True),
        *_columns(sa.Double(), "intensity_mean", "intensity_sd", nullable=True),
        *_columns(sa.Integer(), "height_px", "width_px", nullable=True),
        *_columns(sa.Double(), "spacing_y_mm", "femur_area_pct", "femur_x_pct", "femur_y_pct", nullable=True),
        *_columns(_TIME, "seen_at"),
        *_columns(_TIME, "settled_at", nullable=True),
        _version_key("incoming_picture"),
        _run_key("incoming_picture"),
        sa.CheckConstraint("state in ('waiting', 'predicted', 'refused')", name=op.f("ck_incoming_picture_state")),
        sa.PrimaryKeyConstraint("key", "etag", name="pk_incoming_picture"),
    )
    for name in ("model", "run_id"):
        op.create_index(f"ix_incoming_picture_{name}", "incoming_picture", [name])
    op.create_table(
        "prediction_rate",
        *_columns(sa.String(), "run_id", "model", "flag"),
        *_columns(sa.Integer(), "pictures", "of_pictures"),
        *_columns(sa.Double(), "share"),
        _run_key("prediction_rate"),
        sa.PrimaryKeyConstraint("run_id", "model", "flag", name="pk_prediction_rate"),
    )
    op.create_table(
        "prediction_drift",
        *_columns(sa.String(), "run_id", "model", "feature", "against_digest"),
        *_columns(sa.Double(), "psi", "ks", "ks_p", nullable=True),
        *_columns(sa.Integer(), "before_cases", "after_cases"),
        *_columns(sa.String(), "level", nullable=True),
        sa.ForeignKeyConstraint(
            ["against_digest"], ["dataset_version.digest"], name="fk_prediction_drift_against_digest_dataset_version"
        ),
        _run_key("prediction_drift"),
        sa.PrimaryKeyConstraint("run_id", "model", "feature", name="pk_prediction_drift"),
    )
    if has_roles():
        op.execute(f"grant select on {', '.join(_TABLES)} to {_ROLES}")


def downgrade() -> None:
    for table in ("prediction_drift", "prediction_rate", "incoming_picture", "prediction_run"):
        op.drop_table(table)


def _columns(kind: Any, *names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=nullable) for name in names]


def _version_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["model_version_id"], ["model_version.id"], name=f"fk_{table}_model_version_id_model_version"
    )


def _run_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id", "model"],
        ["prediction_run.run_id", "prediction_run.model"],
        name=f"fk_{table}_run_id_prediction_run",
    )
