"""`femur` alone: how things stand, in one screen; and `femur open`: the same in a browser."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from femur_tasks.cli.show import err, out, print_json, print_table, text, when
from femur_tasks.errors import Unreachable

if TYPE_CHECKING:
    from femur_tasks.morning.state import State

_GOOD, _BAD = ("promoted", "reproduced"), ("failed", "refused", "stale_champion")


def show_overview(as_json: bool) -> None:
    """Print the stack, the last night, the champions and what waits."""
    from femur_tasks.morning.state import state_of
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings
    from femur_tasks.stack.status import status

    chosen = settings()
    parts = status(chosen)
    if not chosen.registry_url and not (chosen.home / "registry.db").exists():
        found = None
    else:
        with Registry(chosen.database_url).reading() as session:
            found = state_of(session)
    if as_json:
        stack = {part.name: part.state if part.healthy is None else part.healthy for part in parts}
        print_json({"stack": stack, **(asdict(found) if found else {})})
        return
    healthy = sum(part.healthy is True for part in parts)
    ill = ", ".join(f"{part.name} ({part.state})" for part in parts if part.healthy is not True)
    line = Text("Stack       ", "bold")
    if healthy == len(parts):
        line.append(f"all {healthy} parts healthy", "green").append(f", {chosen.airflow_url}", "default")
    elif healthy:
        line.append(f"{healthy} of {len(parts)} parts healthy", "red").append(f", not: {ill}; `femur up`", "default")
    else:
        line.append("down").append("; `femur up` starts it", "default")
    out.print(line, soft_wrap=True)
    if found is None:
        out.print(
            Text.assemble(("Registry    ", "bold"), "none yet; `femur demo` shows a night, `femur --help` teaches")
        )
        return
    _show(found)


def _show(found: State) -> None:
    run = found.last_run
    if run:
        tone = "green" if run["state"] in _GOOD else "red" if run["state"] in _BAD else "cyan"
        said = Text.assemble(("Last run    ", "bold"), (run["state"].replace("_", " "), tone), f" {run['model']}, ")
        said.append(f"{when(run['started_at'])} UTC by {run['trigger']}: {run['detail'] or 'it goes on'}")
        out.print(said, soft_wrap=True)
    else:
        out.print(Text.assemble(("Last run    ", "bold"), "none yet; `femur retrain` starts one"))
    rows = [
        (
            one.version, _with_interval(one.dice, one.dice_low, one.dice_high), text(one.worst_dice),
            when(one.since.isoformat()), one.actor,
        )
        for one in found.champions
    ]  # fmt: skip
    out.print()
    columns = ("champion", "test Dice [95 %]", "worst", "since", "by")
    print_table("Champions", columns, rows, "No champion yet.")
    for what in found.waits:
        out.print(Text.assemble(("Waits       ", "bold yellow"), what), soft_wrap=True)
    if not found.waits:
        out.print(Text.assemble(("Waits       ", "bold"), "nothing"))


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    return text(mean) if low is None else f"{text(mean)} [{text(low)}, {text(high)}]".replace(" ", "\u00a0")


def open_page(
    only_print: Annotated[bool, typer.Option("--print", help="Print the address, open nothing.")] = False,
) -> None:
    """Open the morning page in a browser, or print its address where there is none.

    Log in as the user that `femur up` names.
    """
    import webbrowser

    from femur_tasks.settings import settings

    if not settings().airflow_url:
        raise Unreachable("Expected a running stack. Received: none.", "Start it with `femur up`.")
    page = f"{settings().airflow_url}/plugin/femur"
    if only_print or not webbrowser.open(page):
        out.print(page, highlight=False, soft_wrap=True)
    else:
        err.print(f"opened {page}", highlight=False)
