"""Pictures of the worst cases of a verdict, for whoever looks at it in the morning"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "verdict_picture",
        sa.Column("verdict_id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("challenger_key", sa.String(), nullable=False),
        sa.Column("champion_key", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdict.id"], name="fk_verdict_picture_verdict_id_verdict"),
        sa.PrimaryKeyConstraint("verdict_id", "case_id", name="pk_verdict_picture"),
    )
    if _has_roles():
        op.execute("grant select on verdict_picture to femur_reader, femur_trainer, femur_promoter")
        op.execute("grant insert, update on verdict_picture to femur_promoter")


def downgrade() -> None:
    op.drop_table("verdict_picture")


def _has_roles() -> bool:
    """Where an earlier migration could make them."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return False
    return bool(connection.exec_driver_sql("select count(*) from pg_roles where rolname = 'femur_reader'").scalar())
