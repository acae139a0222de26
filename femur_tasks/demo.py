"""The demo: two nights in a few minutes, through Airflow, on synthetic radiographs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import select

from femur_tasks.errors import FemurError
from femur_tasks.phantom import write_dataset
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import DatasetVersion
from femur_tasks.settings import Settings
from femur_tasks.stack.airflow_client import ENDED, AirflowClient

DATASET = MODEL = "demo"
FIRST_CASES, MORE_CASES = 100, 25
SIZE = 256
SEED = 7
_POLL_S = 1.0
_PATIENCE_S = 1800
_EVENT_S = 180.0

Watch = Callable[[str, str, Callable[[], bool]], None]
"""Shows a run (dag id, run id) until the function says that it ended."""


def nights(registry: Registry) -> list[int]:
    """How many cases each night's dataset version has: two nights at first, later one more with more cases."""
    with registry.reading() as session:
        known = session.scalars(select(DatasetVersion.cases).where(DatasetVersion.name == DATASET)).all()
    if not known:
        return [FIRST_CASES, FIRST_CASES + MORE_CASES]
    return [max(known) + MORE_CASES]


def make_version(settings: Settings, cases: int, on_case: Callable[[], None]) -> str:
    """Write a synthetic dataset of so many cases; a larger one holds the smaller ones' cases unchanged."""
    folder = settings.home / "demo" / f"cases_{cases}"
    write_dataset(folder, cases, SEED, SIZE, on_case=on_case)
    return str(folder)


def ingest(airflow: AirflowClient, folder: str, watch: Watch) -> None:
    """Ingest through Airflow, as the form would."""
    conf = {"path": folder, "dataset": DATASET, "model": MODEL, "budget": "smoke"}
    run_id = airflow.trigger("ingest_dataset", conf)
    _follow(airflow, "ingest_dataset", run_id, watch)


def retrains(airflow: AirflowClient) -> set[str]:
    """The runs of `retrain` that there are."""
    return {str(run["dag_run_id"]) for run in airflow.runs("retrain")}


def await_retrain(airflow: AirflowClient, before: set[str]) -> str:
    """The run of `retrain` that the dataset event started, once those of an earlier demo have ended.

    Args:
        before: the runs that were there before the ingest.

    Raises:
        FemurError: none started within three minutes in which no other one ran.
    """
    waited_s = 0.0
    while waited_s < _EVENT_S:
        runs = airflow.runs("retrain")
        if fresh := [str(run["dag_run_id"]) for run in runs if run["dag_run_id"] not in before]:
            return fresh[0]
        if all(run["state"] in ENDED for run in runs):
            waited_s += _POLL_S
        time.sleep(_POLL_S)
    raise FemurError(
        "Expected the dataset event to start `retrain`. Received: no run within three minutes.",
        "Trigger `retrain` in Airflow, or run `make demo` again.",
    )


def follow_retrain(airflow: AirflowClient, run_id: str, watch: Watch) -> None:
    """Watch a retrain to its end.

    Raises:
        FemurError: it failed.
    """
    _follow(airflow, "retrain", run_id, watch)


def await_dags(airflow: AirflowClient) -> None:
    """Wait until Airflow has parsed the DAGs of a fresh start."""
    deadline = time.monotonic() + 300
    while not all(airflow.has_dag(dag) for dag in ("ingest_dataset", "retrain")):
        if time.monotonic() > deadline:
            raise FemurError(
                "Expected Airflow to find the DAGs. Received: none in five minutes.", "See `femur status`."
            )
        time.sleep(_POLL_S)


def _follow(airflow: AirflowClient, dag_id: str, run_id: str, watch: Watch) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    state: dict[str, Any] = {}

    def ended() -> bool:
        state.update(airflow.run(dag_id, run_id))
        if time.monotonic() > deadline:
            raise FemurError(
                f"Expected {dag_id} to end within {_PATIENCE_S // 60} minutes. Received: {state['state']}."
            )
        return state["state"] in ENDED

    watch(dag_id, run_id, ended)
    if state["state"] != "success":
        failed = [task["task_id"] for task in airflow.tasks(dag_id, run_id) if task["state"] == "failed"]
        raise FemurError(
            f"Expected {dag_id} to succeed. Received: failed tasks {', '.join(failed)}.",
            "Open Airflow and read their logs.",
        )
