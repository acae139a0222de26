"""On PostgreSQL whoever logs in as reader, trainer or promoter may do what is theirs, and is refused what is not."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError

from femur_tasks.errors import FemurError
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote
from femur_tasks.registry.tables import Base, ModelVersion
from tests import registry_rows as rows

ROLES = ("femur_reader", "femur_trainer", "femur_promoter")
ADDS, CHANGES = frozenset({"insert"}), frozenset({"insert", "update"})
WRITES: dict[str, dict[str, frozenset[str]]] = {
    "femur_reader": {},
    "femur_trainer": {
        **dict.fromkeys(("search", "trial", "trial_epoch", "fit", "fit_epoch", "experiment_fit"), CHANGES),
        "experiment": CHANGES | {"delete"},
        "model_version": ADDS,
    },
    "femur_promoter": {
        **dict.fromkeys(
            (
                "comparison_manifest",
                "evaluation",
                "evaluation_case",
                "model_card",
                "notification",
                "promotion",
                "signature",
                "verdict_reason",
            ),
            ADDS,
        ),
        **dict.fromkeys(("champion", "signing_key", "verdict", "verdict_picture"), CHANGES),
        "run": frozenset({"update"}),
    },
}


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def login(role: str, migrated_postgres: str) -> Iterator[Registry]:
    """A registry that somebody of this role has logged in to."""
    name, password = f"somebody_{secrets.token_hex(4)}", secrets.token_hex(8)
    owner = Registry(migrated_postgres)
    with owner.engine.begin() as connection:
        connection.execute(text(f"create role {name} login password '{password}' in role {role}"))
    url = make_url(migrated_postgres).set(username=name, password=password)
    found = Registry(url.render_as_string(hide_password=False))
    yield found
    found.engine.dispose()
    with owner.engine.begin() as connection:
        connection.execute(text(f"drop role {name}"))
    owner.engine.dispose()


def test_each_role_may_write_what_is_its_own_and_nothing_else(role: str, login: Registry) -> None:
    with login.reading() as session:
        assert session.scalar(text("select current_user not in ('postgres')"))
        for table in Base.metadata.tables:
            session.execute(text(f"select * from {table} limit 1"))  # noqa: S608
            may = {
                right
                for right in ("insert", "update", "delete", "truncate")
                if session.scalar(text("select has_table_privilege(:table, :right)"), {"table": table, "right": right})
            }
            assert may == WRITES[role].get(table, frozenset()), table
        for view in ("model_registry", "champion_history", "gate_account", "leaderboard", "trial_board"):
            session.execute(text(f"select * from {view} limit 1"))  # noqa: S608


@pytest.fixture
def judged(migrated_postgres: str) -> Iterator[tuple[Registry, int]]:
    """The owner's registry with a model version and a verdict that promotes it."""
    owner = Registry(migrated_postgres)
    with owner.engine.begin() as connection:
        connection.execute(text("set local session_replication_role = replica"))
        connection.execute(text(f"truncate {', '.join(Base.metadata.tables)} restart identity"))
    with owner.writing() as session:
        model = rows.model_version(session, 1, rows.dataset_version(session).digest)
        verdict = rows.verdict(session, model, None).id
    yield owner, verdict
    owner.engine.dispose()


def test_promoter_alone_promotes(role: str, judged: tuple[Registry, int], login: Registry) -> None:
    _, verdict = judged

    def move() -> None:
        with login.writing() as session:
            promote(session, verdict, role, rows.NOON)

    if role == "femur_promoter":
        move()
        return
    with pytest.raises(FemurError, match="Expected a login that may do this"):
        move()


def test_trainer_alone_registers(role: str, judged: tuple[Registry, int], login: Registry) -> None:
    owner, _ = judged
    with owner.reading() as session:
        digest = session.get_one(ModelVersion, 1).dataset_digest
    values: dict[str, Any] = {"name": "femur", "version": 2, "family": "tuned", "run_id": "femur-run-1"}

    def register() -> None:
        with login.writing() as session:
            session.add(
                ModelVersion(
                    **values, dataset_digest=digest, hyperparameters={}, size=64, epochs=1, val_dice=0.9,
                    artefact_key="artefacts/2", artefact_sha256="0", artefact_bytes=1, created_at=rows.NOON,
                )
            )  # fmt: skip

    if role == "femur_trainer":
        register()
        return
    with pytest.raises(FemurError, match="Expected a login that may do this"):
        register()


def test_nobody_but_the_owner_lifts_a_trigger(login: Registry) -> None:
    for statement in (
        "alter table promotion disable trigger all",
        "set session_replication_role = replica",
        "drop trigger promotion_refuses_update on promotion",
    ):
        with pytest.raises(ProgrammingError), login.engine.begin() as connection:
            connection.execute(text(statement))
