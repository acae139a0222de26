"""What a version leaves: ONNX, card, and whether its files were collected; a leaderboard, a board of trials, indexes"""

from importlib import import_module
from typing import Any

import sqlalchemy as sa
from alembic import op

from femur_tasks.registry.migrations.roles import has_roles

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_FIRST = import_module("femur_tasks.registry.migrations.versions.0002_the_first_views")
_INDEXES = (
    ("verdict", "ix_verdict_challenger_id", ["challenger_id"]),
    ("promotion", "ix_promotion_to_id", ["to_id"]),
    ("promotion", "ix_promotion_verdict_id", ["verdict_id"]),
    ("promotion", "ix_promotion_model_id", ["model", "id"]),
    ("promotion", "ix_promotion_model_at", ["model", "at"]),
    ("evaluation", "ix_evaluation_manifest_digest", ["manifest_digest"]),
)
_ROLES = ("femur_reader", "femur_trainer", "femur_promoter")

MODEL_REGISTRY = _FIRST.MODEL_REGISTRY.replace(
    "        else 'candidate'",
    "        when exists (select 1 from collected_version g where g.model_version_id = mv.id) then 'collected'\n"
    "        else 'candidate'",
).replace("    mv.artefact_key,\n", "    mv.artefact_key,\n    mv.onnx_key,\n")
CHAMPION_HISTORY = _FIRST.CHAMPION_HISTORY.replace(
    "(select min(q.at) from promotion q where q.model = p.model and q.id > p.id)",
    "(select q.at from promotion q where q.model = p.model and q.id > p.id order by q.id limit 1)",
)
LEADERBOARD = """
create view leaderboard as
select
    model,
    cases_digest,
    rank() over (partition by model, cases_digest, metric order by test_dice desc nulls last) as place,
    version,
    family,
    test_dice,
    test_worst_dice,
    test_hd95_pct,
    test_cases,
    latency_ms,
    artefact_bytes,
    metric,
    dataset_digest,
    run_id,
    scored_at
from (
    select
        mv.name as model,
        m.cases_digest,
        mv.version,
        mv.family,
        e.mean_dice as test_dice,
        e.worst_dice as test_worst_dice,
        e.mean_hd95_pct as test_hd95_pct,
        e.cases as test_cases,
        e.latency_ms,
        mv.artefact_bytes,
        e.metric,
        e.dataset_digest,
        mv.run_id,
        e.created_at as scored_at,
        row_number() over (
            partition by mv.name, m.cases_digest, e.metric, mv.id order by e.id desc
        ) as age
    from evaluation e
    join comparison_manifest m on m.digest = e.manifest_digest
    join model_version mv on mv.id = e.model_version_id
    where e.split = 'test'
) scored
where age = 1
"""
TRIAL_BOARD = """
create view trial_board as
select
    t.run_id,
    r.model,
    t.search,
    s.strategy,
    t.trial_id,
    t.parent_id,
    t.bracket,
    t.rung,
    t.from_epoch,
    t.to_epoch,
    t.state,
    t.score,
    t.best_epoch,
    (
        select count(*) from trial_epoch e
        where e.run_id = t.run_id and e.search = t.search and e.trial_id = t.trial_id
    ) as epochs_done,
    (
        select sum(e.seconds) from trial_epoch e
        where e.run_id = t.run_id and e.search = t.search and e.trial_id = t.trial_id
    ) as seconds,
    t.owner as worker,
    t.failures,
    t.detail,
    t.hyperparameters,
    t.started_at,
    t.finished_at
from trial t
join search s on s.run_id = t.run_id and s.search = t.search
join run r on r.run_id = t.run_id
"""


def upgrade() -> None:
    for name in ("onnx_key", "onnx_sha256"):
        op.add_column("model_version", sa.Column(name, sa.String(), nullable=True))
    _table(
        "model_card",
        *(sa.Column(name, sa.String(), nullable=False) for name in ("html_key", "json_key")),
        _time("created_at"),
    )
    _table("collected_version", _time("at"))
    for table, name, columns in _INDEXES:
        op.create_index(name, table, columns)
    op.drop_index("ix_promotion_model", "promotion")
    op.execute("drop view champion_history")
    op.execute("drop view model_registry")
    for view in (MODEL_REGISTRY, CHAMPION_HISTORY, LEADERBOARD, TRIAL_BOARD):
        op.execute(view)
    if has_roles():
        new = "model_card, collected_version, model_registry, champion_history, leaderboard, trial_board"
        op.execute(f"grant select on {new} to {', '.join(_ROLES)}")
        op.execute("grant insert on model_card to femur_promoter")


def downgrade() -> None:
    for view in ("trial_board", "leaderboard", "champion_history", "model_registry"):
        op.execute(f"drop view {view}")
    op.create_index("ix_promotion_model", "promotion", ["model"])
    for table, name, _ in _INDEXES:
        op.drop_index(name, table)
    op.drop_table("collected_version")
    op.drop_table("model_card")
    for name in ("onnx_sha256", "onnx_key"):
        op.drop_column("model_version", name)
    _FIRST.upgrade()
    if has_roles():
        op.execute(f"grant select on model_registry, champion_history to {', '.join(_ROLES)}")


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _table(name: str, *columns: sa.Column[Any]) -> None:
    """A table of facts about model versions, one row each, kept as it was written."""
    op.create_table(
        name,
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=f"fk_{name}_model_version_id_model_version"
        ),
        sa.PrimaryKeyConstraint("model_version_id", name=f"pk_{name}"),
    )
    for event in ("update", "delete"):
        trigger = f"create trigger {name}_refuses_{event} before {event} on {name} "
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"{trigger}for each row execute function femur_refuse()")
        else:
            refused = f"{event} of {name} is refused: it is kept as it was written"
            op.execute(f"{trigger}begin select raise(abort, '{refused}'); end")
    if op.get_bind().dialect.name == "postgresql":
        refuses = f"{name}_refuses_truncate before truncate on {name}"
        op.execute(f"create trigger {refuses} for each statement execute function femur_refuse()")
