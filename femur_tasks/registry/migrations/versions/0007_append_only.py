"""Append-only evidence: what was scored, judged and moved is never changed; an override is a kind of its own"""

from importlib import import_module

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_VIEWS = import_module("femur_tasks.registry.migrations.versions.0002_the_first_views")
_FROZEN = (
    "model_version",
    "comparison_manifest",
    "evaluation",
    "evaluation_case",
    "verdict",
    "verdict_reason",
    "promotion",
)
_REFUSALS = [*((table, event) for table in _FROZEN for event in ("update", "delete")), ("champion", "delete")]
_FUNCTION = """
create function femur_refuse() returns trigger language plpgsql as $$
begin
    raise exception '% of % is refused: it is kept as it was written', lower(tg_op), tg_table_name
        using errcode = 'restrict_violation';
end
$$
"""


def upgrade() -> None:
    _allow_kinds("'promote', 'rollback', 'override'")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_FUNCTION)
        for table, event in _REFUSALS:
            name = f"{table}_refuses_{event}"
            op.execute(f"create trigger {name} before {event} on {table} for each row execute function femur_refuse()")
        for table in (*_FROZEN, "champion"):
            name = f"{table}_refuses_truncate"
            op.execute(
                f"create trigger {name} before truncate on {table} for each statement execute function femur_refuse()"
            )
        return
    for table, event in _REFUSALS:
        op.execute(
            f"create trigger {table}_refuses_{event} before {event} on {table} begin "
            f"select raise(abort, '{event} of {table} is refused: it is kept as it was written'); end"
        )


def downgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for table, event in _REFUSALS:
        op.execute(f"drop trigger {table}_refuses_{event}" + (f" on {table}" if on_postgresql else ""))
    if on_postgresql:
        for table in (*_FROZEN, "champion"):
            op.execute(f"drop trigger {table}_refuses_truncate on {table}")
        op.execute("drop function femur_refuse()")
    op.execute("update promotion set kind = 'promote' where kind = 'override'")
    _allow_kinds("'promote', 'rollback'")


def _allow_kinds(kinds: str) -> None:
    """SQLite makes the table anew for it, which its views would not survive."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    if on_sqlite:
        _VIEWS.downgrade()
    with op.batch_alter_table("promotion") as table:
        if not on_sqlite:  # there it is not carried over to the new table
            table.drop_constraint(op.f("ck_promotion_kind"), type_="check")
        table.create_check_constraint(op.f("ck_promotion_kind"), f"kind in ({kinds})")
    if on_sqlite:
        _VIEWS.upgrade()
