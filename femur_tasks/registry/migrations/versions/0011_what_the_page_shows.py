"""What the morning page shows: pictures of a verdict's worst cases, and where each case came from first"""

import sqlalchemy as sa
from alembic import op

from femur_tasks.registry.migrations.roles import has_roles

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dataset_case", sa.Column("source", sa.String(), nullable=True))
    _tell_sources()
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
    if has_roles():
        op.execute("grant select on verdict_picture to femur_reader, femur_trainer, femur_promoter")
        op.execute("grant insert, update on verdict_picture to femur_promoter")


def downgrade() -> None:
    op.drop_table("verdict_picture")
    op.drop_column("dataset_case", "source")


def _tell_sources() -> None:
    """A picture's source is that of the first version of its dataset that had it."""
    connection = op.get_bind()
    first: dict[tuple[str, str], str] = {}
    versions = sa.text("select digest, name, source from dataset_version order by created_at, digest")
    for digest, name, source in connection.execute(versions).all():
        cases = sa.text("select case_id, image_sha256 from dataset_case where digest = :digest")
        found = [
            {"digest": digest, "case_id": case_id, "source": first.setdefault((name, image), source)}
            for case_id, image in connection.execute(cases, {"digest": digest})
        ]
        if found:
            tell = sa.text("update dataset_case set source = :source where digest = :digest and case_id = :case_id")
            connection.execute(tell, found)
