"""`femur up`, `down`, `status` and `config`: the embedded stack and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from femur_tasks.cli.show import AsJson, err, masked, out, print_json, print_table, text

if TYPE_CHECKING:
    from femur_tasks.settings import Settings
    from femur_tasks.stack.status import PartStatus

_SECRET = ("s3_access_key", "s3_secret_key")


def up(
    store_only: Annotated[bool, typer.Option("--store-only", help="Only the object store, without Airflow.")] = False,
) -> None:
    """Start the embedded stack: object store, registry and Airflow, on loopback.

    What runs already is left alone. Ports and credentials are generated once
    and kept in FEMUR_HOME.

    Examples:

      femur up                 then open the address that it prints
      femur up --store-only    enough for ingest, retrain and predict from here
    """
    from femur_tasks.settings import settings
    from femur_tasks.stack import control
    from femur_tasks.stack.parts import STORE

    with err.status("starting") as line:
        parts = control.up(settings(), only={STORE} if store_only else None, on_progress=line.update)
    settings.cache_clear()  # the stack has just written its ports
    _show_parts(parts, settings().home)
    if not store_only:
        where_to_look(settings())


def down() -> None:
    """Stop the embedded stack; state stays in FEMUR_HOME.

    Tasks that run are ended. After the next `femur up` Airflow retries them,
    and they go on from their checkpoints.
    """
    from femur_tasks.settings import settings
    from femur_tasks.stack import control

    with err.status("stopping"):
        control.down(settings())
    err.print("stopped")


def status(as_json: AsJson = False) -> None:
    """Show the parts of the embedded stack with health, uptime and address."""
    from femur_tasks.settings import settings
    from femur_tasks.stack.status import status as parts_of

    parts = parts_of(settings())
    if as_json:
        print_json([vars(part) for part in parts])
        return
    _show_parts(parts, settings().home)
    if not any(part.pid for part in parts):
        err.print("Nothing runs. Start it with `femur up`.", highlight=False)


def config(as_json: AsJson = False) -> None:
    """Print the effective settings, secrets masked.

    Set them as FEMUR_<NAME> in the environment or in `.env`; the environment
    goes first.

    Examples:

      FEMUR_SEARCH_WORKERS=4 femur config
      femur config --json
    """
    from femur_tasks.settings import settings

    chosen = settings()
    values = _without_secrets(chosen)
    if as_json:
        print_json(values)
        return
    fields = type(chosen).model_fields
    rows = [(f"FEMUR_{name.upper()}", str(value), fields[name].description or "") for name, value in values.items()]
    print_table("Settings", ("setting", "value", "meaning"), rows)


def _without_secrets(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(mode="json")
    for name, value in values.items():
        if name in _SECRET:
            values[name] = "***" if value else ""
        elif isinstance(value, str):
            values[name] = masked(value)
    return values


def _show_parts(parts: Sequence[PartStatus], home: Path) -> None:
    healthy: dict[bool | None, str | Text] = {True: "yes", False: Text("no", "red"), None: ""}
    rows = [
        (
            part.name,
            part.state,
            healthy[part.healthy],
            text(part.pid),
            f"{part.uptime_s:.0f} s" if part.uptime_s is not None else "",
            part.address,
        )
        for part in parts
    ]
    print_table(
        f"Embedded stack, logs in {home / 'logs'}", ("part", "state", "healthy", "pid", "uptime", "address"), rows
    )


def where_to_look(settings: Settings) -> None:
    from femur_tasks.stack.secrets import ADMIN, passwords_file

    if settings.airflow_url:
        where = passwords_file(settings.home)
        out.print(f"Airflow: {settings.airflow_url}  user: {ADMIN}  password: in {where}", highlight=False)
