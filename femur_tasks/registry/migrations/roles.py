"""Whether the database has the registry's roles, for migrations that grant them something."""

from __future__ import annotations

from alembic import op


def has_roles() -> bool:
    """Where migration 0009 could make them."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return False
    return bool(connection.exec_driver_sql("select count(*) from pg_roles where rolname = 'femur_reader'").scalar())
