"""What a fit was begun with, so that one that goes on after its search found better does not mix the two"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("fit", sa.Column("hyperparameters", sa.JSON(), nullable=True))
    op.add_column("fit", sa.Column("seed", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("fit", "seed")
    op.drop_column("fit", "hyperparameters")
