"""One search machinery: several searches a run, any strategy, trials that wait for a worker, deadlines, experiments"""

from collections.abc import Callable, Iterable, Set
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_Row = dict[str, Any]
_TIME = sa.DateTime(timezone=True)
_SPACE = {  # what every search drew from so far
    "learning_rate": {"low": 1e-4, "high": 1e-3},
    "initializer": {"values": ["he_normal", "glorot_uniform"]},
    "dropout": {"values": [0.2, 0.3, 0.5]},
    "beta_1": {"values": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]},
    "beta_2": {"values": [0.991, 0.992, 0.993, 0.994, 0.995, 0.996, 0.997, 0.998, 0.999]},
}
_INDEXES = (
    ("ix_trial_open", ["state", "trial_id"], "state in ('running', 'waiting')"),
    ("ix_trial_untold", ["trial_id"], "not told and state in ('completed', 'failed')"),
)
_DIFFERENCE = ("difference", "difference_low", "difference_high")
_NEW_OF_SEARCH = {"search": "tuned", "strategy": "hyperband", "space": _SPACE, "samples": None, "fixed": {}}


def _search(before: bool) -> list[sa.Column[Any]]:
    old = [("oracle", sa.JSON())]
    new = [
        *(("search", sa.String()), ("strategy", sa.String()), ("space", sa.JSON()), ("samples", sa.Integer())),
        *(("fixed", sa.JSON()), ("waits", sa.Boolean()), ("strategy_state", sa.JSON())),
    ]
    same = [("run_id", sa.String()), ("max_epochs", sa.Integer()), ("factor", sa.Integer()), ("seed", sa.Integer())]
    return _columns([*same, ("state", sa.String()), *(old if before else new)], nullable={"samples"})


def _trial(before: bool) -> list[sa.Column[Any]]:
    same = [
        *(("run_id", sa.String()), ("trial_id", sa.String()), ("parent_id", sa.String())),
        *(("hyperparameters", sa.JSON()), ("bracket", sa.Integer()), ("rung", sa.Integer())),
        *(("from_epoch", sa.Integer()), ("to_epoch", sa.Integer()), ("state", sa.String()), ("score", sa.Double())),
        *(("attempts", sa.Integer()), ("owner", sa.String()), ("token", sa.Integer()), ("lease_expires_at", _TIME)),
        *(("checkpoint_key", sa.String()), ("best_key", sa.String()), ("detail", sa.String())),
        *(("started_at", _TIME), ("finished_at", _TIME)),
    ]
    new = [] if before else [("search", sa.String()), ("told", sa.Boolean()), ("best_epoch", sa.Integer())]
    empty = {"parent_id", "score", "checkpoint_key", "best_key", "finished_at", "best_epoch"}
    return _columns([*same, *new], nullable=empty if before else {*empty, "started_at"})


def _epoch(before: bool) -> list[sa.Column[Any]]:
    same = [
        *(("run_id", sa.String()), ("trial_id", sa.String()), ("epoch", sa.Integer())),
        *(("loss", sa.Double()), ("val_dice", sa.Double()), ("seconds", sa.Double()), ("at", _TIME)),
    ]
    return _columns(same if before else [*same, ("search", sa.String())])


def _columns(named: Iterable[tuple[str, Any]], nullable: Set[str] = frozenset()) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=name in nullable) for name, kind in named]


def _create(before: bool) -> None:
    key, states = ([], "") if before else (["search"], "'waiting', ")
    open_states = (
        [] if before else [sa.CheckConstraint("state in ('open', 'cancelled', 'done')", name="ck_search_state")]
    )
    op.create_table(
        "search",
        *_search(before),
        *open_states,
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name="fk_search_run_id_run"),
        sa.PrimaryKeyConstraint("run_id", *key, name="pk_search"),
    )
    op.create_table(
        "trial",
        *_trial(before),
        sa.CheckConstraint(f"state in ({states}'running', 'completed', 'failed')", name="ck_trial_state"),
        sa.ForeignKeyConstraint(
            ["run_id", *key], [f"search.{name}" for name in ("run_id", *key)], name="fk_trial_run_id_search"
        ),
        sa.PrimaryKeyConstraint("run_id", *key, "trial_id", name="pk_trial"),
    )
    op.create_table(
        "trial_epoch",
        *_epoch(before),
        sa.ForeignKeyConstraint(
            ["run_id", *key, "trial_id"],
            [f"trial.{name}" for name in ("run_id", *key, "trial_id")],
            name="fk_trial_epoch_run_id_trial",
        ),
        sa.PrimaryKeyConstraint("run_id", *key, "trial_id", "epoch", name="pk_trial_epoch"),
    )


def _rebuilt(to_before: bool, changed: Callable[[str, _Row], _Row | None]) -> None:
    """The three tables with other keys; their rows are few, and go through memory."""
    connection = op.get_bind()
    kinds = {"search": _search, "trial": _trial, "trial_epoch": _epoch}
    names = {name: [column.name for column in columns(not to_before)] for name, columns in kinds.items()}
    rows = {}
    for name, columns in kinds.items():
        table = sa.table(name, *(sa.column(column.name, column.type) for column in columns(not to_before)))
        rows[name] = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    for name in reversed(names):
        op.drop_table(name)
    _create(to_before)
    for name, columns in kinds.items():
        wanted = [sa.column(column.name, column.type) for column in columns(to_before)]
        new = [changed(name, row) for row in rows[name]]
        op.bulk_insert(
            sa.table(name, *wanted), [{column.name: row.get(column.name) for column in wanted} for row in new if row]
        )


def upgrade() -> None:
    def changed(name: str, row: _Row) -> _Row | None:
        if name == "search":
            return {**row, **_NEW_OF_SEARCH, "waits": False, "strategy_state": row["oracle"]}
        ended = {"told": row["state"] != "running"} if name == "trial" else {}
        return {**row, "search": "tuned", **ended}

    _rebuilt(False, changed)
    op.add_column("run", sa.Column("deadline", _TIME, nullable=True))
    op.add_column("fit", sa.Column("planned_epochs", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "experiment_fit",
        *_columns(
            [
                *(("run_id", sa.String()), ("experiment", sa.String()), ("seed", sa.Integer()), ("fold", sa.Integer())),
                *(("hyperparameters", sa.JSON()), ("epochs", sa.Integer()), ("seconds", sa.Double())),
                *(("val_dice", sa.JSON()), ("test_dice", sa.JSON()), ("overlays_key", sa.String())),
                ("created_at", _TIME),
            ],
            nullable={"overlays_key"},
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name="fk_experiment_fit_run_id_run"),
        sa.PrimaryKeyConstraint("run_id", "experiment", "seed", "fold", name="pk_experiment_fit"),
    )
    op.create_table(
        "experiment",
        *_columns(
            [
                *(("run_id", sa.String()), ("experiment", sa.String()), ("position", sa.Integer())),
                *(("title", sa.String()), ("reference", sa.String()), ("seeds", sa.Integer()), ("cases", sa.Integer())),
                *((name, sa.Double()) for name in ("val_dice", "val_low", "val_high")),
                *((name, sa.Double()) for name in ("test_dice", "test_low", "test_high")),
                *((name, sa.Double()) for name in _DIFFERENCE),
                *(("epochs", sa.Integer()), ("seconds", sa.Double()), ("sentence", sa.String())),
            ],
            nullable=set(_DIFFERENCE),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name="fk_experiment_run_id_run"),
        sa.PrimaryKeyConstraint("run_id", "experiment", name="pk_experiment"),
    )
    for name, columns, where in _INDEXES:
        told = sa.text(where)
        op.create_index(name, "trial", ["run_id", "search", *columns], sqlite_where=told, postgresql_where=told)


def downgrade() -> None:
    def changed(name: str, row: _Row) -> _Row | None:
        if row["search"] != "tuned" or row.get("state") == "waiting":
            return None
        return {**row, "oracle": row["strategy_state"]} if name == "search" else row

    for name in ("experiment", "experiment_fit"):
        op.drop_table(name)
    for name, *_ in _INDEXES:
        op.drop_index(name, "trial")
    _rebuilt(True, changed)
    op.drop_column("fit", "planned_epochs")
    op.drop_column("run", "deadline")
