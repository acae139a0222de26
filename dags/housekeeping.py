"""Audit the whole once a week: every object with its digest, every signature, every champion.

It changes nothing. A finding turns the run red, and the task's log names each with what to do.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException
from wiring import DEFAULTS, JUDGES, nightly


@dag(
    schedule=nightly("0 5 * * 0"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["femur", "registry"],
    doc_md=__doc__,
)
def housekeeping() -> None:
    @task(**JUDGES, doc_md="Read every object that a row names, prove every signature, resolve every champion.")
    def verify() -> dict[str, int]:
        from femur_tasks.steps import verify
        from femur_tasks.steps.context import open_context

        found, read = verify.verify(open_context(), timedelta(days=1))
        for one in found:
            print(f"{one.code}: {one.what}. {one.todo}")  # noqa: T201
        if found:
            raise AirflowFailException(f"{len(found)} findings, the first: {found[0].what}")
        return {"objects": read}

    verify()


housekeeping()
