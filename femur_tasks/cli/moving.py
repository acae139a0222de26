"""`femur backup`, `femur restore` and `femur migrate`: registry and store in a folder, and in another installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from femur_tasks.cli.show import AsJson, bars, err, print_json, print_table
from femur_tasks.errors import Rejected

if TYPE_CHECKING:
    from femur_tasks.steps.context import Context
    from femur_tasks.steps.moving import Migrated, Told


def backup(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where the backup is, or is to be.")],
    as_json: AsJson = False,
) -> None:
    """Write registry and object store into a folder, or bring the backup in it up to date.

    It holds every row and every object, patients' pictures among them, but no key: keep `patient.key` and
    `signing.key` of FEMUR_HOME too, elsewhere. Work may go on meanwhile.

    Examples:

      femur backup /mnt/backup/femur
    """
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.moving import back_up

    with _progress() as told:
        moved = back_up(open_context(), folder, told)
    _show(moved, as_json)


def restore(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Where the backup is.")],
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty registry and its store, and audit them.

    A restore that was stopped goes on where it was. Exit code 2 where something is wrong.

    Examples:

      femur restore /mnt/backup/femur
    """
    from femur_tasks.steps import moving as steps
    from femur_tasks.steps.context import open_context

    context = open_context()
    _audited(context, as_json, lambda told: steps.restore(context, folder, told))


def migrate(
    target: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Settings of the other installation.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy history, champions and objects into another installation, and audit it.

    FILE has lines such as FEMUR_REGISTRY_URL=..., FEMUR_S3_ENDPOINT=...; without FEMUR_REGISTRY_URL the registry is
    SQLite beside the file, so that another home's stack.env will do. The registry there must be empty. What is here
    stays as it is. A copy that was stopped goes on where it was. Exit code 2 where something is wrong there.

    Examples:

      femur migrate cluster.env --dry-run
      femur migrate cluster.env
    """
    from femur_tasks.settings import settings_in
    from femur_tasks.steps import moving as steps
    from femur_tasks.steps.context import open_context

    here, there = open_context(), open_context(settings_in(target))
    if not dry_run:
        _audited(there, as_json, lambda told: steps.migrate(here, there, told))
        return
    steps.check(here, there)
    wanted = steps.missing(here.store.list(""), there.store)
    found = {"objects": len(wanted), "bytes": sum(one.size for one in wanted), "dry_run": True}
    if as_json:
        print_json(found)
    else:
        err.print(f"would send {len(wanted)} objects, {found['bytes'] / 1e6:,.1f} MB, and every row", highlight=False)


def _audited(context: Context, as_json: bool, move: Callable[[Told], Migrated]) -> None:
    from femur_tasks.steps.verify import verify as audit

    with _progress() as told:
        moved = move(told)
        found, read = audit(context, timedelta(hours=24), lambda total: told("audit", 1, total))
    _show(moved, as_json)
    err.print(f"{read:,} objects audited there, {len(found)} findings", highlight=False)
    if found:
        raise Rejected(f"{len(found)} things are wrong there, the first: {found[0].what}.", found[0].todo)


@contextmanager
def _progress() -> Iterator[Told]:
    done: dict[str, int] = {}
    with bars() as advance:

        def told(what: str, number: int, total: int) -> None:
            done[what] = done.get(what, 0) + number
            advance(what, done[what], total)

        yield told


def _show(moved: Migrated, as_json: bool) -> None:
    if as_json:
        print_json({"rows": moved.rows, "objects": moved.objects, "bytes": moved.bytes})
        return
    print_table("Rows", ("table", "rows"), [(name, f"{count:,}") for name, count in moved.rows.items() if count])
    err.print(f"{moved.objects:,} objects sent, {moved.bytes / 1e6:,.1f} MB", highlight=False)
