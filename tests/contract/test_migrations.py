"""Migrations keep what is there, up and down, from every revision; what people query changes only with a note."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, inspect, select, text
from sqlalchemy.types import JSON, Boolean, DateTime, Float, Integer

from femur_tasks.registry.database import Registry, migrate
from femur_tasks.settings import CHECKOUT

_MIGRATIONS = CHECKOUT / "femur_tasks/registry/migrations"
_DOCS = CHECKOUT / "docs" / "registry.md"
_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
_VALUES: dict[tuple[str, str], Any] = {
    ("incoming_object", "state"): "waiting",
    ("incoming_picture", "state"): "waiting",
    ("ingest", "state"): "ingested",
    ("notification", "outcome"): "sent",
    ("promotion", "kind"): "promote",
    ("search", "state"): "open",
    ("search", "strategy"): "hyperband",
    ("search", "search"): "tuned",
    ("trial", "search"): "tuned",
    ("trial_epoch", "search"): "tuned",
    ("trial", "state"): "completed",
    ("trial", "parent_id"): None,
    ("verdict", "outcome"): "promote",
}


def config_of(registry: Registry) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = registry.engine
    return config


def revisions() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    found = ScriptDirectory.from_config(config).walk_revisions()
    return [script.revision for script in found][::-1]


def tables_of(registry: Registry) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(registry.engine)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def row_of(table: Table) -> dict[str, Any]:
    """One row that the constraints allow; foreign keys meet since equal columns get equal values."""
    row: dict[str, Any] = {}
    for column in table.columns:
        name = next((key.column.name for key in column.foreign_keys), column.name)
        name = "digest" if name.endswith("digest") else name
        match column.type:
            case Boolean():
                value: Any = True
            case Integer():
                value = 1
            case Float():
                value = 0.5
            case DateTime():
                value = _AT
            case JSON():
                value = {}
            case _:
                value = name
        row[column.name] = _VALUES.get((table.name, column.name), value)
    return row


def filled(registry: Registry) -> None:
    with registry.engine.begin() as connection:
        for table in tables_of(registry):
            connection.execute(table.insert().values(row_of(table)))


def contents(registry: Registry) -> dict[str, list[dict[str, Any]]]:
    with registry.engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables_of(registry)
        }


@pytest.mark.parametrize("revision", revisions())
def test_rows_of_every_revision_survive_the_way_up_and_down(database_url: str, revision: str) -> None:
    migrate(database_url, revision)
    registry = Registry(database_url)
    filled(registry)
    before = contents(registry)
    assert before
    assert all(len(rows) == 1 for rows in before.values())
    migrate(database_url)
    after = contents(registry)
    assert {name: len(after[name]) for name in before if name in after} == dict.fromkeys(before.keys() & after, 1)
    command.downgrade(config_of(registry), revision)
    assert contents(registry) == before
    registry.engine.dispose()


# ---- what people query


def views_of(registry: Registry) -> dict[str, list[str]]:
    found = inspect(registry.engine)
    with registry.engine.connect() as connection:
        return {
            view: list(connection.execute(text(f"select * from {view} limit 0")).keys())  # noqa: S608
            for view in found.get_view_names()
        }


def section(title: str) -> str:
    """A section of the registry's documentation."""
    return _DOCS.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def documented(view: str) -> list[str]:
    rows = [line.split("|")[1] for line in section(f"`{view}`").splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)]


def test_every_view_has_the_columns_that_its_documentation_names(registry: Registry) -> None:
    found = views_of(registry)
    assert found == {view: documented(view) for view in found}


def test_every_change_of_a_view_has_a_note(database_url: str) -> None:
    noted = {
        (revision, view)
        for revision, view in re.findall(r"^\| (\d{4}) \| `([a-z_]+)` \|", section("Changes of the views"), re.M)
    }
    registry, before, changed = Registry(database_url), dict[str, list[str]](), set()
    for revision in revisions():
        migrate(database_url, revision)
        now = views_of(registry)
        changed |= {(revision, view) for view in before.keys() | now if before.get(view) != now.get(view)}
        before = now
    registry.engine.dispose()
    assert changed == noted
