"""Look every morning at what people were not told yet: messages that failed, no verdict for some nights, parts down.

It starts after the night's runs, at `FEMUR_WATCH_CRON`. Where the scheduler itself may be what is down, let the
system's own cron run `femur notify`.
"""

from __future__ import annotations

from airflow.sdk import dag, task
from wiring import DEFAULTS, JUDGE_QUEUE, nightly

from femur_tasks.settings import settings


@dag(
    schedule=nightly(settings().watch_cron),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["femur", "registry"],
    doc_md=__doc__,
)
def morning_watch() -> None:
    @task(
        queue=JUDGE_QUEUE, doc_md="Send what is due to the places of `FEMUR_NOTIFY_URLS`; without any it does nothing."
    )
    def watch() -> None:
        from femur_tasks.steps import notify
        from femur_tasks.steps.context import open_context

        notify.watch(open_context())

    watch()


morning_watch()
