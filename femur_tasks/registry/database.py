"""Connections, transactions and migrations of the registry database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, Unreachable

_BUSY_TIMEOUT_S = 30
_WRITES = "femur_writes"
_NO_RIGHT = "42501"


class Registry:
    """The registry database behind two kinds of transaction: `reading()` and `writing()`.

    A writing transaction on SQLite takes the write lock at its start (BEGIN IMMEDIATE), so that
    what it has read cannot change before it commits. It commits when the block ends well and
    rolls back when it raises.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that is rolled back at its end."""
        with _translated(), Session(self.engine) as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """As `reading()`, and all of it is read as it was at the first question."""
        with self.reading() as session:
            if self.engine.dialect.name == "postgresql":  # SQLite reads so anyway
                session.execute(text("set transaction isolation level repeatable read, read only"))
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that commits once, at the end of the block.

        Raises:
            Unreachable: the database does not answer, or stayed locked for 30 s.
        """
        engine = self.engine.execution_options(**{_WRITES: True})
        with _translated(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ProgrammingError as err:
        if getattr(err.orig, "pgcode", None) == _NO_RIGHT:
            raise FemurError(
                f"Expected a login that may do this. Received: {err.orig}.",
                "Log in as the role that this step needs, or grant it: docs/registry.md says which may what.",
            ) from err
        raise _silent(err) from err  # PostgreSQL's word for a missing table
    except (OperationalError, PoolTimeout) as err:
        raise _silent(err) from err


def _silent(err: OperationalError | ProgrammingError | PoolTimeout) -> Unreachable:
    return Unreachable(
        f"Expected the registry database to answer. Received: {getattr(err, 'orig', err)}.",
        "Run `femur up`, which also brings the tables up to date, or correct FEMUR_REGISTRY_URL.",
    )


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        parts = make_url(url)
        if parts.drivername == "postgresql":  # SQLAlchemy 2.1 would take psycopg, which is not installed
            parts = parts.set(drivername="postgresql+psycopg2")
        try:
            # no overflow: threads wait for one of five connections, sooner served than by opening and closing more
            return create_engine(parts, pool_pre_ping=True, max_overflow=0)
        except ModuleNotFoundError as err:
            raise FemurError(
                f"Expected the driver of {parts.drivername}. Received: no module {err.name}.",
                'Install it beside the rest: `.venv/bin/uv pip install -p .venv -e ".[postgres]"`.',
            ) from err
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred: ours decides below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database to `revision`, making the SQLite file (readable by its owner alone) where it is missing."""
    from alembic import command
    from alembic.config import Config

    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine = _engine(url)
    try:
        with _translated():
            command.upgrade(config, revision)
    finally:
        engine.dispose()  # an open connection keeps the tables in SQLite's write-ahead log
