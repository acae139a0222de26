"""Delete what nobody needs any more, then audit the whole: every object with its digest, signature and champion.

Once a week. A finding turns the run red, and the task's log names each with what to do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException
from wiring import DEFAULTS, JUDGES, form, nightly

from femur_tasks.parameters import HousekeepingParameters


@dag(
    schedule=nightly("0 5 * * 0"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=form(HousekeepingParameters),
    tags=["femur", "registry"],
    doc_md=__doc__,
)
def housekeeping() -> None:
    @task(doc_md="Files of model versions that nobody needs, checkpoints of runs that ended, what no row names.")
    def collect(params: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps.collect import collect
        from femur_tasks.steps.context import open_context

        asked = HousekeepingParameters(**params)
        found = collect(open_context(), asked.keep, timedelta(hours=asked.grace_hours))
        return {"versions": found.versions, "objects": len(found.objects), "bytes": found.bytes}

    @task(
        **JUDGES,
        trigger_rule="all_done",
        doc_md="Read every object that a row names, prove every signature, resolve every champion.",
    )
    def verify(params: dict[str, Any]) -> dict[str, int]:
        from femur_tasks.steps import verify
        from femur_tasks.steps.context import open_context

        asked = HousekeepingParameters(**params)
        found, read = verify.verify(open_context(), timedelta(hours=asked.grace_hours))
        for one in found:
            print(f"{one.code}: {one.what}. {one.todo}")  # noqa: T201
        if found:
            raise AirflowFailException(f"{len(found)} findings, the first: {found[0].what}")
        return {"objects": read}

    @task(doc_md="Red where either is.")
    def tell(collected: dict[str, Any], audited: dict[str, int]) -> dict[str, Any]:
        return {"collected": collected, "audited": audited}

    collected, audited = collect(), verify()
    collected >> audited
    tell(collected, audited)


housekeeping()
