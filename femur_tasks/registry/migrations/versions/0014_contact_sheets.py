"""The contact sheets of each dataset version, which the morning page shows"""

import sqlalchemy as sa
from alembic import op

from femur_tasks.registry.migrations.roles import has_roles

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset_sheet",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("title", "alt", "picture_key")),
        sa.ForeignKeyConstraint(["digest"], ["dataset_version.digest"], name="fk_dataset_sheet_digest_dataset_version"),
        sa.PrimaryKeyConstraint("digest", "position", name="pk_dataset_sheet"),
    )
    if has_roles():
        op.execute("grant select on dataset_sheet to femur_reader, femur_trainer, femur_promoter")


def downgrade() -> None:
    op.drop_table("dataset_sheet")
