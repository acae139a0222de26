"""How many of an epoch's seconds went before training was under way, so that a night is planned by the others"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_CURVES = ("fit_epoch", "trial_epoch")


def upgrade() -> None:
    for table in _CURVES:
        op.add_column(table, sa.Column("start_s", sa.Double(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    for table in _CURVES:
        op.drop_column(table, "start_s")
