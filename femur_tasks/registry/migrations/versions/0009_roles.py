"""Roles on PostgreSQL: who reads, who trains, who judges; the owner of the tables may do all"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ROLES = ("femur_reader", "femur_trainer", "femur_promoter")
# whoever may write a table may lock its rows, which needs update
_TRAINS = ("search", "trial", "trial_epoch", "fit", "fit_epoch", "experiment_fit", "experiment")
_JUDGES = (
    "comparison_manifest",
    "evaluation",
    "evaluation_case",
    "verdict",
    "verdict_reason",
    "promotion",
    "champion",
    "signature",
    "signing_key",
)
_MOVES = ("champion", "run", "signing_key", "verdict")
_MAKE_ROLES = """
do $$
declare
    wanted text;
begin
    foreach wanted in array array['femur_reader', 'femur_trainer', 'femur_promoter'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I nologin', wanted);
        end if;
    end loop;
exception
    when duplicate_object or unique_violation then null;  -- another migration made them this moment
end
$$
"""


def upgrade() -> None:
    if not _makes_roles():
        return
    op.execute(_MAKE_ROLES)
    everyone = ", ".join(_ROLES)
    op.execute(f"grant usage on schema public to {everyone}")
    op.execute(f"grant select on all tables in schema public to {everyone}")
    op.execute("grant usage on all sequences in schema public to femur_trainer, femur_promoter")
    op.execute(f"grant insert, update on {', '.join(_TRAINS)} to femur_trainer")
    op.execute("grant delete on experiment to femur_trainer")
    op.execute("grant insert on model_version to femur_trainer")
    op.execute(f"grant insert on {', '.join(_JUDGES)} to femur_promoter")
    op.execute(f"grant update on {', '.join(_MOVES)} to femur_promoter")


def downgrade() -> None:
    if _makes_roles():
        everyone = ", ".join(_ROLES)  # the roles stay: other databases of this server may use them
        op.execute(f"revoke all on all tables in schema public from {everyone}")
        op.execute(f"revoke all on all sequences in schema public from {everyone}")
        op.execute(f"revoke usage on schema public from {everyone}")


def _makes_roles() -> bool:
    """On PostgreSQL, where this user may make roles; else the owner grants by hand, as docs/registry.md says."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return False
    may = "select rolsuper or rolcreaterole from pg_roles where rolname = current_user"
    return bool(connection.exec_driver_sql(may).scalar())
