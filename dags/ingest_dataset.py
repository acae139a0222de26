"""Ingest new dataset versions: nightly what waits under incoming/, by hand what the form names.

Each source is fetched and recognised, its cases are converted in parts, side by side, and published one source after
the other. All of it works in one folder a source, `FEMUR_WORK`, which every worker that ingests must see.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from wiring import DATASET_VERSIONS, DEFAULTS, form, nightly

from femur_tasks.parameters import IngestParameters
from femur_tasks.settings import settings


@dag(
    schedule=nightly(settings().ingest_cron),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=form(IngestParameters),
    tags=["femur", "data"],
    doc_md=__doc__,
)
def ingest_dataset() -> None:
    @task(doc_md="What to ingest: the path of the form, else what waits under `incoming/` in the ledger.")
    def look(params: dict[str, Any]) -> list[dict[str, str]]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.incoming import look_for_incoming

        return [{"path": params["path"]}] if params["path"] else look_for_incoming(open_context())

    @task(doc_md="Fetch and unpack one source, recognise its layout, and cut its cases into parts.")
    def plan(source: dict[str, str], params: dict[str, Any], run_id: str) -> dict[str, Any]:
        from femur_tasks.steps import stages
        from femur_tasks.steps.context import open_context

        return stages.plan(open_context(), source, IngestParameters(**params), run_id)

    @task(doc_md="All parts of all sources, for the conversion to be mapped over.")
    def spread(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [part for planned in plans for part in planned["parts"]]

    @task(doc_md="Read, check and convert the cases of one part, one process a core.")
    def convert(part: dict[str, Any]) -> int:
        from femur_tasks.steps import stages
        from femur_tasks.steps.context import open_context

        return stages.convert(open_context(), part)

    # one after the other, oldest first: the splits of one version are carried into the next
    @task(
        max_active_tis_per_dagrun=1,
        trigger_rule="all_done",
        doc_md="Judge all cases of one source together and publish the version; all problems are in the log.",
    )
    def publish(planned: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps import stages
        from femur_tasks.steps.context import open_context

        result = stages.publish(open_context(), planned)
        for line in result["log"]:
            print(line)  # noqa: T201
        return result["outcome"]

    @task(outlets=[DATASET_VERSIONS], trigger_rule="all_done", doc_md="Tell the retrain that there is a new version.")
    def announce(results: list[dict[str, Any]] | None, outlet_events: Any) -> None:
        new = [result for result in results or [] if result["state"] == "ingested"]
        if not new:
            raise AirflowSkipException("nothing new")
        outlet_events[DATASET_VERSIONS].extra = {"versions": new}

    @task(
        on_failure_callback=None,  # the step that refused has told it
        doc_md="Turn the run red when a source was refused: its publish task says why.",
    )
    def refusals(results: list[dict[str, Any]]) -> None:
        refused = [result["dataset"] for result in results if result["state"] == "refused"]
        if refused:
            raise AirflowFailException(f"refused a version of {', '.join(refused)}: see the log of the publish task")

    plans = plan.expand(source=look())
    converted = convert.expand(part=spread(plans))
    results = publish.expand(planned=plans)
    converted >> results
    announce(results)
    plans >> refusals(results)  # a source that could not even be planned leaves nothing to publish


ingest_dataset()
