"""A registry's rows in another database, whole: all tables, with their numbers."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Integer, Table, exists, func, select, text
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError
from femur_tasks.registry.tables import Base

_ROWS = 1000


def refuse_unless_empty(session: Session) -> None:
    """Raises `FemurError` where a table holds rows: two histories can't become one."""
    held = [table.name for table in Base.metadata.sorted_tables if session.scalar(select(exists(select(table))))]
    if held:
        raise FemurError(
            f"Expected an empty registry to copy into. Received: rows in {', '.join(held)}.",
            "Name another database; this one was left as it is.",
        )


def copy_rows(
    source: Session, target: Session, on_rows: Callable[[int, int], None] = lambda rows, total: None
) -> dict[str, int]:
    """Copy every table's rows, those that are referred to first; numbers that the target gives go on after them.

    Args:
        source: of a registry with this version's tables, read at one moment (`Registry.snapshot`).
        target: of an empty one; the caller's transaction, so that all of it arrives or nothing.
        on_rows: told how many rows were copied since the last call, and of how many.

    Returns:
        How many rows each table has.
    """
    tables = Base.metadata.sorted_tables
    counts = {table.name: source.scalar(select(func.count()).select_from(table)) or 0 for table in tables}
    for table in tables:
        ordered = select(table).order_by(*table.primary_key.columns)  # what a row refers to in its own table is older
        for rows in source.execute(ordered, execution_options={"yield_per": _ROWS}).mappings().partitions():
            target.execute(table.insert(), [dict(row) for row in rows])
            on_rows(len(rows), sum(counts.values()))
        _go_on_counting(target, table)
    return counts


def _go_on_counting(target: Session, table: Table) -> None:
    """PostgreSQL counts apart from the rows."""
    column = table.autoincrement_column
    if target.get_bind().dialect.name == "postgresql" and column is not None and isinstance(column.type, Integer):
        told = {"table": table.name, "column": column.name}
        if counter := target.scalar(text("select pg_get_serial_sequence(:table, :column)"), told):
            highest = target.scalar(select(func.max(column)))
            target.execute(select(func.setval(counter, highest or 1, highest is not None)))
