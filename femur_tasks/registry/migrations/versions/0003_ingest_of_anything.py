"""Ingest of anything: every ingest with its problems, features and drift of cases, withdrawals"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CASE = {
    "mirrored": sa.Boolean,
    "window_low": sa.Double,
    "window_high": sa.Double,
    "intensity_mean": sa.Double,
    "intensity_sd": sa.Double,
    "femur_area_pct": sa.Double,
    "femur_x_pct": sa.Double,
    "femur_y_pct": sa.Double,
}


def upgrade() -> None:
    for name in ("femur_class", "patient_pattern"):
        op.add_column("dataset", sa.Column(name, sa.String(), nullable=True))
    for name in ("layout", "femur_class"):
        op.add_column("dataset_version", sa.Column(name, sa.String(), nullable=True))
    op.execute("update dataset_version set femur_class = cast(femur_label as varchar)")
    op.execute(
        "update dataset set femur_class = "
        "(select max(v.femur_class) from dataset_version v where v.name = dataset.name)"
    )
    op.drop_column("dataset_version", "femur_label")
    for name, kind in _CASE.items():
        flag = kind is sa.Boolean
        default = sa.false() if flag else None
        op.add_column("dataset_case", sa.Column(name, kind(), nullable=not flag, server_default=default))
    op.create_table(
        "dataset_drift",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("against_digest", sa.String(), nullable=False),
        sa.Column("psi", sa.Double(), nullable=True),
        sa.Column("ks", sa.Double(), nullable=True),
        sa.Column("ks_p", sa.Double(), nullable=True),
        sa.Column("before_cases", sa.Integer(), nullable=False),
        sa.Column("after_cases", sa.Integer(), nullable=False),
        sa.Column("level", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["digest"], ["dataset_version.digest"], name="fk_dataset_drift_digest_dataset_version"),
        sa.ForeignKeyConstraint(
            ["against_digest"], ["dataset_version.digest"], name="fk_dataset_drift_against_digest_dataset_version"
        ),
        sa.PrimaryKeyConstraint("digest", "split", "feature", name="pk_dataset_drift"),
    )
    op.create_table(
        "ingest",
        sa.Column("ingest_id", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("layout", sa.String(), nullable=False),
        sa.Column("cases", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("warnings", sa.Integer(), nullable=False),
        sa.Column("allowed", sa.JSON(), nullable=False),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.Column("report_key", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state in ('ingested', 'known', 'refused')", name="ck_ingest_state"),
        sa.ForeignKeyConstraint(["digest"], ["dataset_version.digest"], name="fk_ingest_digest_dataset_version"),
        sa.PrimaryKeyConstraint("ingest_id", name="pk_ingest"),
    )
    op.create_index("ix_ingest_dataset", "ingest", ["dataset"])
    op.create_index("ix_ingest_finished_at", "ingest", ["finished_at"])
    op.create_table(
        "withdrawal",
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("image_sha256", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.name"], name="fk_withdrawal_dataset_dataset"),
        sa.PrimaryKeyConstraint("dataset", "case_id", name="pk_withdrawal"),
    )
    with op.batch_alter_table("incoming_object") as table:
        table.add_column(sa.Column("ingest_id", sa.String(), nullable=True))
        table.create_foreign_key("fk_incoming_object_ingest_id_ingest", "ingest", ["ingest_id"], ["ingest_id"])


def downgrade() -> None:
    with op.batch_alter_table("incoming_object") as table:
        table.drop_constraint("fk_incoming_object_ingest_id_ingest", type_="foreignkey")
        table.drop_column("ingest_id")
    for name in ("withdrawal", "ingest", "dataset_drift"):
        op.drop_table(name)
    for name in reversed(_CASE):
        op.drop_column("dataset_case", name)
    op.add_column("dataset_version", sa.Column("femur_label", sa.Integer(), nullable=False, server_default="1"))
    for name in ("femur_class", "layout"):
        op.drop_column("dataset_version", name)
    for name in ("patient_pattern", "femur_class"):
        op.drop_column("dataset", name)
