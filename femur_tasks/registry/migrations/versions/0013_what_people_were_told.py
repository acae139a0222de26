"""What people were told: one row before each attempt at a message and one behind it"""

import sqlalchemy as sa
from alembic import op

from femur_tasks.registry.migrations.roles import has_roles

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ROLES = "femur_reader, femur_trainer, femur_promoter"


def upgrade() -> None:
    op.create_table(
        "notification",
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("outcome", "kind", "title", "text", "detail")),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event", "attempt", "outcome", name="pk_notification"),
        sa.CheckConstraint("outcome in ('trying', 'sent', 'failed')", name=op.f("ck_notification_outcome")),
    )
    op.create_index("ix_notification_at", "notification", ["at"])
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for event in ("update", "delete"):
        trigger = f"create trigger notification_refuses_{event} before {event} on notification "
        if on_postgresql:
            op.execute(f"{trigger}for each row execute function femur_refuse()")
        else:
            refused = f"{event} of notification is refused: it is kept as it was written"
            op.execute(f"{trigger}begin select raise(abort, '{refused}'); end")
    if on_postgresql:
        refuses = "notification_refuses_truncate before truncate on notification"
        op.execute(f"create trigger {refuses} for each statement execute function femur_refuse()")
    if has_roles():
        op.execute(f"grant select on notification to {_ROLES}")
        op.execute("grant insert on notification to femur_promoter")


def downgrade() -> None:
    op.drop_table("notification")
