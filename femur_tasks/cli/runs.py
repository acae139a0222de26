"""`femur runs`: what has run, what runs now, and how to stop and continue a search."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from femur_tasks.cli.show import (
    AsJson,
    err,
    out,
    print_json,
    print_table,
    progress_table,
    show_reasons,
    show_registry,
    when,
)

if TYPE_CHECKING:
    from femur_tasks.registry.database import Registry
    from femur_tasks.registry.tables import Run
    from femur_tasks.search.leases import Leases

_ROOM = 50  # columns beside its id that a run needs to say when it ran and what came of it
app = typer.Typer(no_args_is_help=True)
RunId = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run id. Empty: the last that had work to do.")]


@app.callback()
def runs() -> None:
    """Look at retrains, and stop or continue their searches.

    Examples:

      femur runs list
      femur runs watch
      femur runs cancel cli__2026-01-31T02-00-00
    """


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20, as_json: AsJson = False
) -> None:
    """List runs with their outcome, the newest first."""
    from femur_tasks.registry import queries
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings

    with Registry(settings().database_url).reading() as session:
        rows = queries.runs(session, limit)
    if as_json:
        print_json(rows)
        return
    cells = [
        (row["run_id"], row["state"], row["model"], row["budget"] or "", when(row["started_at"]), row["detail"])
        for row in rows
    ]
    columns = ("run", "state", "model", "budget", "started", "detail")
    # Airflow's ids are long, and a folded one can't be copied
    room = out.width - max((len(row["run_id"]) for row in rows), default=0)
    shows = len(columns) if room >= _ROOM else 3
    print_table("Runs", columns[:shows], [row[:shows] for row in cells], "No run yet. `femur retrain` starts one.")


@app.command()
def watch(
    run_id: RunId = None,
    once: Annotated[bool, typer.Option("--once", help="Show it as it stands, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a run as it goes.

    Its fits, brackets and rungs as they fill, who trains what, the best so far, the time left.
    Ctrl-C ends the watching, not the run.
    """
    from dataclasses import asdict

    from rich.live import Live

    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings
    from femur_tasks.steps.progress import run_progress

    registry = Registry(settings().database_url)
    run_id = run_id or _last(registry)
    if as_json:
        with registry.reading() as session:
            print_json(asdict(run_progress(session, run_id)))
        return
    if once or not out.is_terminal:
        out.print(progress_table(registry, run_id))
        return
    with Live(progress_table(registry, run_id), console=out, refresh_per_second=2) as live:
        while _runs(registry, run_id):
            time.sleep(1)
            live.update(progress_table(registry, run_id))


@app.command("show")
def show_one(run_id: RunId = None, as_json: AsJson = False) -> None:
    """What came of a run: its model versions, the verdict with every rule, what it cost."""
    from dataclasses import asdict

    from femur_tasks.registry import queries
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings
    from femur_tasks.steps.progress import run_progress

    registry = Registry(settings().database_url)
    run_id = run_id or _last(registry)
    with registry.reading() as session:
        progress = run_progress(session, run_id)
        (row,) = queries.runs(session, 1, run_id=run_id)
        verdict = queries.newest_verdict(session, run_id)
        reasons = queries.reasons(session, verdict.id) if verdict else []
        versions = queries.model_registry(session, row["model"], run_id=run_id)
    if as_json:
        print_json({**row, "progress": asdict(progress), "rules": reasons, "versions": versions})
        return
    out.print(progress_table(registry, run_id))
    show_registry(versions, "It made no model version.")
    if verdict:
        show_reasons(f"Verdict {verdict.id}: {verdict.outcome}", reasons)
    out.print(f"{row['state']}: {row['detail'] or 'it goes on'}", highlight=False, markup=False)


@app.command()
def logs(
    run_id: RunId = None,
    task: Annotated[str | None, typer.Option(help="Only this task, such as unet.")] = None,
    tail: Annotated[int, typer.Option(min=1, help="Lines of each attempt, the last ones.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Print what the tasks of a run logged in Airflow, the last attempt of each."""
    from femur_tasks.errors import NotFound
    from femur_tasks.registry import queries
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings
    from femur_tasks.stack.airflow_client import connect

    registry = Registry(settings().database_url)
    run_id = run_id or _last(registry)
    with registry.reading() as session:
        run = queries.find_run(session, run_id)
    if run.trigger == "cli":
        raise NotFound(f"Expected a run of Airflow's. Received: {run_id}, which logged into the terminal it ran in.")
    dag_id = "retrain" if run.model else "reproduce"
    found = connect(settings()).logs(dag_id, run_id, task)
    if as_json:
        print_json([{"task": name, "lines": lines[-tail:]} for name, lines in found])
        return
    for name, lines in found:
        out.rule(name, align="left")
        for line in lines[-tail:]:
            out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def cancel(run_id: RunId = None) -> None:
    """Stop a run's search: its workers end at the next epoch, and the run goes on with the best trial so far."""
    run, found = _searches(run_id, "open", "cancelled")  # again, in case that a cancelling was cut off
    for leases in found:
        leases.cancel()
        err.print(f"search {leases.name} of {run.run_id} is cancelled", highlight=False)
    err.print(f"until its winner is fitted, `femur runs continue {run.run_id}` reopens it", highlight=False)


@app.command("continue")
def continue_(run_id: RunId = None) -> None:
    """Reopen a search that was cancelled: workers that come go on from each trial's last epoch."""
    run, found = _searches(run_id, "cancelled")
    for leases in found:
        leases.reopen()
        err.print(f"search {leases.name} of {run.run_id} is open", highlight=False)
    command = "retrain" if run.model else "reproduce"
    err.print(f"`femur {command} --run-id {run.run_id}`, or its cleared tasks in Airflow, go on", highlight=False)


def _searches(run_id: str | None, *wanted: str) -> tuple[Run, list[Leases]]:
    """The run, and its searches in these states.

    Raises:
        NotFound: there is no such run, or it has none in these states.
    """
    from sqlalchemy import select

    from femur_tasks.errors import NotFound
    from femur_tasks.registry import queries
    from femur_tasks.registry.database import Registry
    from femur_tasks.registry.tables import Search
    from femur_tasks.search.leases import Leases
    from femur_tasks.settings import settings
    from femur_tasks.steps.context import utc_now

    told = settings()
    registry = Registry(told.database_url)
    run_id = run_id or _last(registry)
    with registry.reading() as session:
        run = queries.find_run(session, run_id)
        states = session.execute(select(Search.search, Search.state).where(Search.run_id == run_id)).all()
    found = [row.search for row in states if row.state in wanted]
    if not found:
        there = ", ".join(f"{row.search} is {row.state}" for row in states) or "none"
        raise NotFound(
            f"Expected a search of {run_id} that is {wanted[0]}. Received: {there}.", "See `femur runs watch`."
        )
    return run, [Leases(registry, run_id, search, told.lease_s, utc_now) for search in found]


def _last(registry: Registry) -> str:
    from femur_tasks.errors import NotFound
    from femur_tasks.registry import queries

    with registry.reading() as session:
        run_id = queries.newest_run_id(session)
    if run_id is None:
        raise NotFound("Expected a run. Received: none yet.", "`femur retrain` starts one.")
    return run_id


def _runs(registry: Registry, run_id: str) -> bool:
    from femur_tasks.steps.progress import run_progress

    with registry.reading() as session:
        return run_progress(session, run_id).state == "running"
