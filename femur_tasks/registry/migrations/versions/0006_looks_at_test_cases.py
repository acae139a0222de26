"""Looks at test cases: what each verdict spends of the policy's level, and what a picture takes"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

GATE_ACCOUNT = """
create view gate_account as
select
    mv.name as model,
    m.cases_digest,
    max(v.look) as looks,
    sum(v.level) as level_spent,
    min(v.level_left) as level_left,
    max(v.created_at) as last_look
from verdict v
join comparison_manifest m on m.digest = v.manifest_digest
join model_version mv on mv.id = v.challenger_id
where v.look is not null
group by mv.name, m.cases_digest
"""


def upgrade() -> None:
    op.add_column("evaluation", sa.Column("latency_ms", sa.Double(), nullable=True))
    # digests of the cases alone are not known here: each manifest so far keeps an account of its own
    op.add_column(
        "comparison_manifest", sa.Column("cases_digest", sa.String(), nullable=False, server_default=sa.text("''"))
    )
    op.execute("update comparison_manifest set cases_digest = digest")
    op.create_index("ix_comparison_manifest_cases_digest", "comparison_manifest", ["cases_digest"])
    op.add_column("verdict", sa.Column("look", sa.Integer(), nullable=True))
    for name in ("level", "level_left"):
        op.add_column("verdict", sa.Column(name, sa.Double(), nullable=True))
    op.execute(GATE_ACCOUNT)


def downgrade() -> None:
    op.execute("drop view gate_account")
    for name in ("level_left", "level", "look"):
        op.drop_column("verdict", name)
    op.drop_index("ix_comparison_manifest_cases_digest", "comparison_manifest")
    op.drop_column("comparison_manifest", "cases_digest")
    op.drop_column("evaluation", "latency_ms")
