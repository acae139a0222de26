"""Failures of trials: a worker that was killed is not the trial's fault, so leases are not counted against it"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table trial rename column attempts to failures")
    op.execute("update trial set failures = 0 where state <> 'failed'")


def downgrade() -> None:
    op.execute("alter table trial rename column failures to attempts")
    op.execute("update trial set attempts = token where state <> 'failed'")
