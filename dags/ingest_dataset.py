"""Ingest new dataset versions: nightly what waits under incoming/, by hand what the form names."""

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

    # one after the other, oldest first: the splits of one version are carried into the next
    @task(
        max_active_tis_per_dagrun=1,
        doc_md="Validate, convert and publish one source. A refused one is logged with all its problems.",
    )
    def ingest_source(source: dict[str, str], params: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps import incoming, ingest
        from femur_tasks.steps.context import open_context

        context, parameters = open_context(), IngestParameters(**params)
        if "key" in source:
            result = incoming.ingest_incoming(context, source, parameters)
        else:
            result = ingest.ingest(context, parameters)
        for problem in result.problems:
            print(problem.code, problem.case_id, problem.found, "- expected", problem.expected)  # noqa: T201
        return {"state": result.state, "dataset": result.dataset, "digest": result.digest}

    @task(outlets=[DATASET_VERSIONS], trigger_rule="all_done", doc_md="Tell the retrain that there is a new version.")
    def announce(results: list[dict[str, Any]] | None, outlet_events: Any) -> None:
        new = [result for result in results or [] if result["state"] == "ingested"]
        if not new:
            raise AirflowSkipException("nothing new")
        outlet_events[DATASET_VERSIONS].extra = {"versions": new}

    @task(doc_md="Turn the run red when a source was refused: its ingest task says why.")
    def refusals(results: list[dict[str, Any]]) -> None:
        refused = [result["dataset"] for result in results if result["state"] == "refused"]
        if refused:
            raise AirflowFailException(f"refused a version of {', '.join(refused)}: see the log of the ingest task")

    results = ingest_source.expand(source=look())
    announce(results)
    refusals(results)


ingest_dataset()
