"""`femur demo`: two nights in a few minutes, through Airflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from femur_tasks.cli.show import bar, err, masked, out, progress_table, show_run
from femur_tasks.cli.stack import up, where_to_look

if TYPE_CHECKING:
    from femur_tasks.registry.database import Registry
    from femur_tasks.stack.airflow_client import AirflowClient

_STYLES = {"success": "green", "running": "cyan", "failed": "bold red", "up_for_retry": "yellow", "skipped": "dim"}


def demo() -> None:
    """Show a night's work on synthetic radiographs: ingest, retrain, judge, promote.

    The first time two nights: the second brings more cases, so that the gate compares a challenger
    with a champion. Each later time one more night.
    """
    from femur_tasks import demo as nights
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings
    from femur_tasks.stack.airflow_client import connect

    started = time.monotonic()
    up(store_only=False)
    chosen = settings()
    registry, airflow = Registry(chosen.database_url), connect(chosen)
    nights.await_dags(airflow)

    def watch(dag_id: str, run_id: str, ended: Callable[[], bool]) -> None:
        _watch(airflow, registry, dag_id, run_id, ended)

    def one_night(cases: int) -> None:
        with bar(f"drawing {cases} radiographs") as advance:
            folder = nights.make_version(chosen, cases, on_case=lambda: advance(1, cases))
        out.rule(f"{cases} cases into {nights.DATASET}")
        before = nights.retrains(airflow)
        nights.ingest(airflow, folder, watch)
        run_id = nights.await_retrain(airflow, before)
        out.print("the dataset event started the retrain")
        nights.follow_retrain(airflow, run_id, watch)
        show_run(registry, run_id)

    for cases in nights.nights(registry):
        one_night(cases)
    out.rule("where to look")
    where_to_look(chosen)
    database = masked(chosen.database_url).removeprefix("sqlite:///")
    out.print(f"Registry: {database}, ask it for the view model_registry", highlight=False, soft_wrap=True)
    out.print("More: femur registry history, femur predict --help, make status, make down", highlight=False)
    err.print(f"done in {(time.monotonic() - started) / 60:.1f} minutes")


def _watch(airflow: AirflowClient, registry: Registry, dag_id: str, run_id: str, ended: Callable[[], bool]) -> None:
    """Tasks and training as they go: a live table on a terminal, a line a change where the output is a file."""
    if err.is_terminal:
        with Live(console=err, refresh_per_second=2, transient=True) as live:
            while not ended():
                live.update(Group(_tasks(airflow, dag_id, run_id), progress_table(registry, run_id)))
                time.sleep(1)
        err.print(_tasks(airflow, dag_id, run_id))
        return
    seen: dict[str, str] = {}
    while not ended():
        for name, state in _states(airflow, dag_id, run_id):
            if state and seen.get(name) != state:
                seen[name] = state
                err.print(f"{dag_id}.{name}: {state}", highlight=False)
        time.sleep(1)


def _states(airflow: AirflowClient, dag_id: str, run_id: str) -> Iterator[tuple[str, str]]:
    for task in airflow.tasks(dag_id, run_id):
        mapped = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
        yield f"{task['task_id']}{mapped}", task["state"] or ""


def _tasks(airflow: AirflowClient, dag_id: str, run_id: str) -> Table:
    table = Table(title=dag_id, title_justify="left")
    table.add_column("task")
    table.add_column("state")
    for name, state in _states(airflow, dag_id, run_id):
        table.add_row(name, Text(state or "waiting", _STYLES.get(state, "")))
    return table
