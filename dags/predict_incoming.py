"""Predict what waits under incoming-images/ with each model's champion, and record flag rates and drift.

A picture lies as `incoming-images/<model>/...`, or without a folder for the model `femur`. Each is predicted once;
masks, overlays and findings are in the registry's table `incoming_picture`.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from wiring import DEFAULTS, nightly

from femur_tasks.settings import settings


@dag(
    schedule=nightly(settings().predict_cron),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["femur", "serving"],
    doc_md=__doc__,
)
def predict_incoming() -> None:
    @task(doc_md="Enter new pictures into the ledger; the models that have pictures waiting, and a champion.")
    def look() -> list[str]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.pictures import look_for_pictures

        found = look_for_pictures(open_context())
        for state, counts in found.items():
            for model, count in counts.items():
                print(f"{state}: {count} pictures for {model}")  # noqa: T201
        return list(found["waiting"])

    # one after the other: each takes every core
    @task(max_active_tis_per_dagrun=1, doc_md="Segment the waiting pictures of one model with its champion, by ONNX.")
    def predict(model: str, run_id: str) -> str:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.pictures import predict_waiting

        predict_waiting(open_context(), run_id, model)
        return model

    @task(doc_md="Record how many pictures were refused and flagged, and the drift against the training data.")
    def rates(model: str, run_id: str) -> dict[str, Any]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.prediction_rates import record_rates

        return record_rates(open_context(), run_id, model)

    rates.expand(model=predict.expand(model=look()))


predict_incoming()
