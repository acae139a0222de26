"""Give the former champion its place back, by hand, with a reason that goes into the log."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from wiring import DEFAULTS, JUDGE_QUEUE, actor, form

from femur_tasks.parameters import RollbackParameters


@dag(
    schedule=None,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=form(RollbackParameters),
    tags=["femur", "registry"],
    doc_md=__doc__,
)
def rollback_champion() -> None:
    @task(
        queue=JUDGE_QUEUE,
        retries=0,
        doc_md="Check, move the champion pointer and append to the log in one transaction.",
    )
    def roll_back(params: dict[str, Any], dag_run: Any) -> dict[str, Any]:
        from femur_tasks.steps import champion
        from femur_tasks.steps.context import open_context

        asked = RollbackParameters(**params)
        return champion.roll_back(open_context(), asked.model, asked.version, actor(dag_run), asked.reason)

    roll_back()


rollback_champion()
