"""What all DAGs share: forms, retries, pools, and the nightly timetable. No DAG of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import masking  # noqa: F401 - a task's process may have loaded no plugin
from airflow.sdk import Asset, ExceptionRetryPolicy, Param, RetryRule
from airflow.sdk.definitions.retry_policy import RetryAction
from next_slot import NextSlotTimetable

from femur_tasks.parameters import form_fields
from femur_tasks.settings import settings

DATASET_VERSIONS = Asset(name="femur_dataset_versions", uri="femur://registry/dataset_version")
GPU = {"pool": "gpu", "queue": "gpu", "execution_timeout": timedelta(hours=12), "retries": 5}
"""Where training runs: at most the pool's slots side by side, on workers of the queue `gpu`."""
JUDGES = {"execution_timeout": timedelta(hours=12), "retries": 5}
"""Where scoring, signing and judging run: off the queue `gpu`, whose workers hold no signing key."""


def tell_failure(context: Any) -> None:
    """What a task does that has failed for good, in its own process."""
    from femur_tasks.steps import notify
    from femur_tasks.steps.context import open_context

    failed, why = context["task_instance"], str(context.get("exception") or "it was killed: see its log")
    notify.tell_failure(open_context(), failed.dag_id, failed.run_id, failed.task_id, why)


DEFAULTS: dict[str, Any] = {
    "owner": "femur",
    "on_failure_callback": tell_failure,
    # at least 5, 10, 20 and 40 s: a store or database that is away for a minute costs a wait, no run
    "retries": 4,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=2),
    "execution_timeout": timedelta(hours=1),
    # what is not there or not allowed will not be there in five seconds either
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(exception="femur_tasks.errors.NotFound", action=RetryAction.FAIL),
        ]
    ),
}


def form(parameters: type[Any]) -> dict[str, Param]:
    """The trigger form in Airflow's UI, from the model that also feeds the CLI."""
    return {name: Param(**schema) for name, schema in form_fields(parameters).items()}


def nightly(cron: str) -> NextSlotTimetable:
    """Every night at `cron` in FEMUR_TIMEZONE; neither a first start nor an unpausing starts a run by itself."""
    return NextSlotTimetable(cron, timezone=settings().timezone, run_immediately=timedelta(0))


def trigger(dag_run: Any) -> str:
    """What started a run, in the registry's words: schedule, asset or manual."""
    return {"scheduled": "schedule", "asset_triggered": "asset"}.get(dag_run.run_type.value, "manual")


def actor(dag_run: Any) -> str:
    """Who a promotion or rollback is logged for: the person who triggered the run, else what started it."""
    person = dag_run.triggering_user_name
    return f"airflow:{person or trigger(dag_run)}"
