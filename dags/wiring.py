"""What all DAGs share: forms, retries, pools, and the nightly timetable. No DAG of its own."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import masking  # noqa: F401 - a task's process may have loaded no plugin
from airflow.sdk import Asset, ExceptionRetryPolicy, Param, RetryRule
from airflow.sdk.definitions.retry_policy import RetryAction
from next_slot import NextSlotTimetable

from femur_tasks.errors import FemurError
from femur_tasks.parameters import form_fields
from femur_tasks.settings import settings

DATASET_VERSIONS = Asset(name="femur_dataset_versions", uri="femur://registry/dataset_version")
GPU = {"pool": "gpu", "queue": "gpu", "execution_timeout": timedelta(hours=12), "retries": 5}
"""Where training runs: at most the pool's slots side by side, on workers of the queue `gpu`."""
JUDGE_QUEUE = settings().judge_queue
"""Where models are judged, promoted and rolled back, and people are told: on workers that may do that, and alone do."""
JUDGES = {"queue": JUDGE_QUEUE, "execution_timeout": timedelta(hours=12), "retries": 5}
"""Scoring and signing on that queue, off the queue `gpu`, whose workers hold no signing key."""


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


def note(dag_id: str, run_id: str, what: str) -> None:
    """Say beside the run in Airflow what came of it and where its report is; where there is a log-in for that."""
    from femur_tasks.stack.airflow_client import note_writer

    with suppress(FemurError):
        report = f"{settings().airflow_url}/femur/report?run={quote(run_id, safe='')}"
        note_writer(settings()).note(dag_id, run_id, f"{what}. [Report]({report})")
