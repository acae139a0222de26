"""The first tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("budget", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dataset")),
    )
    op.create_table(
        "dataset_version",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("femur_label", sa.Integer(), nullable=False),
        sa.Column("cases", sa.Integer(), nullable=False),
        sa.Column("train_cases", sa.Integer(), nullable=False),
        sa.Column("val_cases", sa.Integer(), nullable=False),
        sa.Column("test_cases", sa.Integer(), nullable=False),
        sa.Column("manifest_key", sa.String(), nullable=False),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["dataset.name"], name=op.f("fk_dataset_version_name_dataset")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_dataset_version")),
    )
    with op.batch_alter_table("dataset_version", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_version_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_dataset_version_name"), ["name"], unique=False)

    op.create_table(
        "comparison_manifest",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("dataset_digest", sa.String(), nullable=False),
        sa.Column("cases", sa.JSON(), nullable=False),
        sa.Column("excluded", sa.JSON(), nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_digest"],
            ["dataset_version.digest"],
            name=op.f("fk_comparison_manifest_dataset_digest_dataset_version"),
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_comparison_manifest")),
    )
    op.create_table(
        "dataset_case",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("patient", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("image_sha256", sa.String(), nullable=False),
        sa.Column("mask_sha256", sa.String(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("spacing_x_mm", sa.Double(), nullable=True),
        sa.Column("spacing_y_mm", sa.Double(), nullable=True),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["dataset_version.digest"], name=op.f("fk_dataset_case_digest_dataset_version")
        ),
        sa.PrimaryKeyConstraint("digest", "case_id", name=op.f("pk_dataset_case")),
    )
    with op.batch_alter_table("dataset_case", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_case_image_sha256"), ["image_sha256"], unique=False)

    op.create_table(
        "incoming_object",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("etag", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state in ('waiting', 'ingested', 'refused')", name=op.f("ck_incoming_object_state")),
        sa.ForeignKeyConstraint(
            ["digest"], ["dataset_version.digest"], name=op.f("fk_incoming_object_digest_dataset_version")
        ),
        sa.PrimaryKeyConstraint("key", "etag", name=op.f("pk_incoming_object")),
    )
    op.create_table(
        "run",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("dataset_digest", sa.String(), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("report_key", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_digest"], ["dataset_version.digest"], name=op.f("fk_run_dataset_digest_dataset_version")
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run")),
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_run_model"), ["model"], unique=False)
        batch_op.create_index(batch_op.f("ix_run_started_at"), ["started_at"], unique=False)

    op.create_table(
        "fit",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("checkpoint_key", sa.String(), nullable=True),
        sa.Column("best_key", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_fit_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "family", name=op.f("pk_fit")),
    )
    op.create_table(
        "model_version",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("dataset_digest", sa.String(), nullable=False),
        sa.Column("hyperparameters", sa.JSON(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("val_dice", sa.Double(), nullable=False),
        sa.Column("artefact_key", sa.String(), nullable=False),
        sa.Column("artefact_sha256", sa.String(), nullable=False),
        sa.Column("artefact_bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_digest"], ["dataset_version.digest"], name=op.f("fk_model_version_dataset_digest_dataset_version")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_model_version_run_id_run")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_version")),
        sa.UniqueConstraint("name", "version", name="uq_model_version_name_version"),
        sa.UniqueConstraint("run_id", "family", name="uq_model_version_run_family"),
    )
    op.create_table(
        "search",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("max_epochs", sa.Integer(), nullable=False),
        sa.Column("factor", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("oracle", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_search_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_search")),
    )
    op.create_table(
        "champion",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_champion_model_version_id_model_version")
        ),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_champion")),
    )
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("manifest_digest", sa.String(), nullable=False),
        sa.Column("dataset_digest", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("cases", sa.Integer(), nullable=False),
        sa.Column("mean_dice", sa.Double(), nullable=True),
        sa.Column("worst_dice", sa.Double(), nullable=True),
        sa.Column("mean_hd95_pct", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_digest"], ["dataset_version.digest"], name=op.f("fk_evaluation_dataset_digest_dataset_version")
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_evaluation_model_version_id_model_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation")),
        sa.UniqueConstraint("model_version_id", "manifest_digest", "metric", name="uq_evaluation_once"),
    )
    op.create_table(
        "fit_epoch",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("val_dice", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "family"], ["fit.run_id", "fit.family"], name=op.f("fk_fit_epoch_run_id_fit")
        ),
        sa.PrimaryKeyConstraint("run_id", "family", "epoch", name=op.f("pk_fit_epoch")),
    )
    op.create_table(
        "trial",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("hyperparameters", sa.JSON(), nullable=False),
        sa.Column("bracket", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("from_epoch", sa.Integer(), nullable=False),
        sa.Column("to_epoch", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checkpoint_key", sa.String(), nullable=True),
        sa.Column("best_key", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state in ('running', 'completed', 'failed')", name=op.f("ck_trial_state")),
        sa.ForeignKeyConstraint(["run_id"], ["search.run_id"], name=op.f("fk_trial_run_id_search")),
        sa.PrimaryKeyConstraint("run_id", "trial_id", name=op.f("pk_trial")),
    )
    op.create_table(
        "verdict",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("challenger_id", sa.Integer(), nullable=False),
        sa.Column("champion_id", sa.Integer(), nullable=True),
        sa.Column("manifest_digest", sa.String(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("mean_difference", sa.Double(), nullable=True),
        sa.Column("difference_low", sa.Double(), nullable=True),
        sa.Column("difference_high", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("outcome in ('promote', 'refuse')", name=op.f("ck_verdict_outcome")),
        sa.ForeignKeyConstraint(
            ["challenger_id"], ["model_version.id"], name=op.f("fk_verdict_challenger_id_model_version")
        ),
        sa.ForeignKeyConstraint(
            ["champion_id"], ["model_version.id"], name=op.f("fk_verdict_champion_id_model_version")
        ),
        sa.ForeignKeyConstraint(
            ["manifest_digest"],
            ["comparison_manifest.digest"],
            name=op.f("fk_verdict_manifest_digest_comparison_manifest"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_verdict_run_id_run")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdict")),
    )
    with op.batch_alter_table("verdict", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_verdict_run_id"), ["run_id"], unique=False)

    op.create_table(
        "evaluation_case",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("dice", sa.Double(), nullable=True),
        sa.Column("dice_training_size", sa.Double(), nullable=True),
        sa.Column("iou", sa.Double(), nullable=True),
        sa.Column("hd95_px", sa.Double(), nullable=True),
        sa.Column("hd95_pct", sa.Double(), nullable=True),
        sa.Column("hd95_mm", sa.Double(), nullable=True),
        sa.Column("assd_px", sa.Double(), nullable=True),
        sa.Column("assd_pct", sa.Double(), nullable=True),
        sa.Column("assd_mm", sa.Double(), nullable=True),
        sa.Column("dice_left", sa.Double(), nullable=True),
        sa.Column("dice_right", sa.Double(), nullable=True),
        sa.Column("hd95_left_pct", sa.Double(), nullable=True),
        sa.Column("hd95_right_pct", sa.Double(), nullable=True),
        sa.Column("flag", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluation.id"], name=op.f("fk_evaluation_case_evaluation_id_evaluation")
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "case_id", name=op.f("pk_evaluation_case")),
    )
    op.create_table(
        "promotion",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("from_id", sa.Integer(), nullable=True),
        sa.Column("to_id", sa.Integer(), nullable=False),
        sa.Column("verdict_id", sa.Integer(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('promote', 'rollback')", name=op.f("ck_promotion_kind")),
        sa.ForeignKeyConstraint(["from_id"], ["model_version.id"], name=op.f("fk_promotion_from_id_model_version")),
        sa.ForeignKeyConstraint(["to_id"], ["model_version.id"], name=op.f("fk_promotion_to_id_model_version")),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdict.id"], name=op.f("fk_promotion_verdict_id_verdict")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion")),
    )
    with op.batch_alter_table("promotion", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_promotion_model"), ["model"], unique=False)

    op.create_table(
        "trial_epoch",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("val_dice", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "trial_id"], ["trial.run_id", "trial.trial_id"], name=op.f("fk_trial_epoch_run_id_trial")
        ),
        sa.PrimaryKeyConstraint("run_id", "trial_id", "epoch", name=op.f("pk_trial_epoch")),
    )
    op.create_table(
        "verdict_reason",
        sa.Column("verdict_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("threshold", sa.Double(), nullable=True),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdict.id"], name=op.f("fk_verdict_reason_verdict_id_verdict")),
        sa.PrimaryKeyConstraint("verdict_id", "position", name=op.f("pk_verdict_reason")),
    )


def downgrade() -> None:
    op.drop_table("verdict_reason")
    op.drop_table("trial_epoch")
    with op.batch_alter_table("promotion", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_promotion_model"))

    op.drop_table("promotion")
    op.drop_table("evaluation_case")
    with op.batch_alter_table("verdict", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_verdict_run_id"))

    op.drop_table("verdict")
    op.drop_table("trial")
    op.drop_table("fit_epoch")
    op.drop_table("evaluation")
    op.drop_table("champion")
    op.drop_table("search")
    op.drop_table("model_version")
    op.drop_table("fit")
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_run_started_at"))
        batch_op.drop_index(batch_op.f("ix_run_model"))

    op.drop_table("run")
    op.drop_table("incoming_object")
    with op.batch_alter_table("dataset_case", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dataset_case_image_sha256"))

    op.drop_table("dataset_case")
    op.drop_table("comparison_manifest")
    with op.batch_alter_table("dataset_version", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dataset_version_name"))
        batch_op.drop_index(batch_op.f("ix_dataset_version_created_at"))

    op.drop_table("dataset_version")
    op.drop_table("dataset")
