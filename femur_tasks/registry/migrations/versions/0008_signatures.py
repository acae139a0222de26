"""Signatures of model versions, and the public keys that prove them"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_REFUSALS = (("signature", "update"), ("signature", "delete"), ("signing_key", "delete"))


def upgrade() -> None:
    op.create_table(
        "signing_key",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("key_id", name="pk_signing_key"),
    )
    op.create_table(
        "signature",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
        sa.Column("signed_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name="fk_signature_model_version_id_model_version"
        ),
        sa.ForeignKeyConstraint(["key_id"], ["signing_key.key_id"], name="fk_signature_key_id_signing_key"),
        sa.PrimaryKeyConstraint("id", name="pk_signature"),
    )
    op.create_index("ix_signature_model_version_id", "signature", ["model_version_id"])
    for table, event in _REFUSALS:
        name = f"{table}_refuses_{event}"
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"create trigger {name} before {event} on {table} for each row execute function femur_refuse()")
        else:
            op.execute(
                f"create trigger {name} before {event} on {table} begin "
                f"select raise(abort, '{event} of {table} is refused: it is kept as it was written'); end"
            )


def downgrade() -> None:
    op.drop_table("signature")
    op.drop_table("signing_key")
