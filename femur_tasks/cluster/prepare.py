"""What must be there before the cluster's services start: logins, databases, tables and buckets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from femur_tasks.cluster.secrets import LOG_BUCKET, ROLES
from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL

_ADMIN = "postgres"


def prepare(folder: Path, s3_endpoint: str) -> None:
    """Make the databases and logins that the secrets name, the registry's tables, and both buckets.

    It may be called at any time: what is there stays, and a login gets the password that its secret has by now.

    Args:
        folder: the secrets that `write_secrets` wrote, with those of every role.
        s3_endpoint: host:port of the object store.

    Raises:
        FemurError: a secret is missing.
        Unreachable: the database or the store does not answer.
    """
    from femur_tasks.registry.database import migrate

    airflow, celery = _url(folder, "airflow_database_url"), _url(folder, "result_backend")
    settings = {role: Settings(home=folder, s3_endpoint=s3_endpoint, _env_file=_file(folder, role)) for role in ROLES}
    logins = {role: _parsed(found.registry_url) for role, found in settings.items()}
    owner = logins["owner"]
    admin = airflow.set(username=_ADMIN, password=_text(folder, "postgres_password"), database=_ADMIN)
    with _Server(admin) as server:
        for login in (airflow, celery, *logins.values()):
            server.make_login(login)
        server.make_database(airflow, [])
        server.make_database(celery, [])
        server.make_database(owner, [login for login in logins.values() if login is not owner])
        # the roles of the registry are made by its migrations, and by nothing afterwards
        server.run("alter role {} createrole", owner.username)
        try:
            migrate(settings["owner"].registry_url)
        finally:
            server.run("alter role {} nocreaterole", owner.username)
        for role in ROLES:
            if role != "owner":
                server.run("grant {} to {}", f"femur_{role}", logins[role].username)
    _make_buckets(settings["owner"])


def _make_buckets(owner: Settings) -> None:
    from femur_tasks.storage import open_store

    for bucket in (owner.s3_bucket, LOG_BUCKET):
        open_store(owner.model_copy(update={"s3_bucket": bucket}))


class _Server:
    """A PostgreSQL server as its administrator sees it; every statement stands for itself."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def __enter__(self) -> _Server:
        import psycopg2

        try:
            self._connection = psycopg2.connect(
                host=self._url.host, port=self._url.port, user=self._url.username, password=self._url.password,
                dbname=self._url.database,
            )  # fmt: skip
        except psycopg2.OperationalError as err:
            raise Unreachable(
                f"Expected PostgreSQL to answer its administrator. Received: {err}.",
                "Read the log of the service postgres.",
            ) from err
        self._connection.autocommit = True
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def run(self, statement: str, *names: str | None, password: str | None = None) -> list[Any]:
        """Run a statement with names, and a password, in the places of its braces."""
        from psycopg2 import sql

        places = [sql.Identifier(str(name)) for name in names]
        composed = sql.SQL(statement).format(*places, password=sql.Literal(password))
        with self._connection.cursor() as cursor:
            cursor.execute(composed)
            return cursor.fetchall() if cursor.description else []

    def make_login(self, url: URL) -> None:
        if (url.username,) not in self.run("select rolname from pg_roles"):
            self.run("create role {} login", url.username)
        self.run("alter role {} password {password}", url.username, password=str(url.password))

    def make_database(self, owner: URL, guests: list[URL]) -> None:
        """A database of its owner's, which nobody but guests may even connect to."""
        if (owner.database,) not in self.run("select datname from pg_database"):
            self.run("create database {} owner {}", owner.database, owner.username)
        self.run("revoke all on database {} from public", owner.database)
        for guest in guests:
            self.run("grant connect on database {} to {}", owner.database, guest.username)


def _file(folder: Path, role: str) -> Path:
    path = folder / f"{role}.env"
    if not path.exists():
        raise FemurError(f"Expected a secret in {path}. Received: none.", "Make it with `femur cluster secrets`.")
    return path


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text().strip()
    except OSError as err:
        raise FemurError(
            f"Expected a secret in {folder / name}. Received: {err}.", "Make it with `femur cluster secrets`."
        ) from err


def _url(folder: Path, name: str) -> URL:
    return _parsed(_text(folder, name))


def _parsed(url: str) -> URL:
    from sqlalchemy import make_url

    return make_url(url.removeprefix("db+"))  # Celery's way to say that it is a database
