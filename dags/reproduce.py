"""Run the reference's experiments on one dataset version, by hand, and lay their table beside the reference's figures.

Each experiment is a task in the pool `gpu`; one that is killed goes on from its last checkpoint, and a fit that is
done is never fitted again.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException
from wiring import DEFAULTS, GPU, form, note, trigger

from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.parameters import ReproduceParameters


@dag(
    schedule=None,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=form(ReproduceParameters),
    tags=["femur", "training"],
    doc_md=__doc__,
)
def reproduce() -> None:
    @task(doc_md="Pin the dataset version and decide between its own splits and folds.")
    def open_reproduction(params: dict[str, Any], run_id: str, dag_run: Any) -> list[dict[str, str]]:
        from femur_tasks.steps import reproduce
        from femur_tasks.steps.context import open_context

        opened = reproduce.open_reproduction(open_context(), run_id, trigger(dag_run), ReproduceParameters(**params))
        return [{"run": opened["run_id"], "experiment": name} for name in opened["experiments"]]

    @task(**GPU, map_index_template="{{ name }}", doc_md="Search where the experiment searches, then fit each seed.")
    def experiment(run: str, experiment: str) -> dict[str, Any]:
        from airflow.sdk import get_current_context

        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.reproduce import run_experiment

        get_current_context()["name"] = experiment
        return run_experiment(open_context(), run, experiment, "airflow")

    @task(trigger_rule="all_done", doc_md="Write the table and the report of every experiment that is complete.")
    def table(run_id: str) -> dict[str, Any]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.reproduce import conclude_reproduction

        try:
            concluded = conclude_reproduction(open_context(), run_id)
        except Unreachable:
            raise  # the store may be back at the next try
        except FemurError as err:
            note("reproduce", run_id, err.what)
            raise AirflowFailException(err.what) from err
        note("reproduce", run_id, "Every experiment has its row")
        return concluded

    experiment.expand_kwargs(open_reproduction()) >> table()


reproduce()
