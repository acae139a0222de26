"""The DAG files as Airflow's processor sees them: parsed, wired, documented, and light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).parents[2] / "dags"
HEAVY = {"tensorflow", "keras", "keras_tuner", "matplotlib", "nibabel", "minio", "scipy"}

PROBE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb
initdb()
bag = DagBag(sys.argv[1])
import pendulum
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval, TimeRestriction
now = pendulum.now("UTC")
slots = {}
for dag_id in ("predict_incoming", "ingest_dataset", "retrain", "morning_watch"):
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(bag.dags[dag_id])).timetable
    for ran_last in (None, 0.5, 3, 30):  # days ago
        last = None if ran_last is None else DataInterval.exact(now.subtract(hours=ran_last * 24))
        found = timetable.next_dagrun_info(
            last_automated_data_interval=last, restriction=TimeRestriction(None, None, catchup=False)
        )
        slots[f"{dag_id} {ran_last}"] = (found.run_after - now).total_seconds() / 3600
facts = {
    dag_id: {
        "tasks": {
            task.task_id: {
                "pool": task.pool, "queue": task.queue, "retries": task.retries, "doc": task.doc_md or "",
                "timeout": bool(task.execution_timeout or getattr(task, "response_timeout", None)),
                "tells": bool(task.on_failure_callback),
                "downstream": sorted(task.downstream_task_ids), "rule": str(task.trigger_rule),
                "weight": task.priority_weight,
            }
            for task in dag.tasks
        },
        "params": {
            name: {"value": dag.params.get_param(name).value, "schema": dag.params.get_param(name).schema,
                   "doc": dag.params.get_param(name).description}
            for name in dag.params
        },
        "tags": sorted(dag.tags), "doc": dag.doc_md or "", "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs, "max_active_tasks": dag.max_active_tasks,
    }
    for dag_id, dag in bag.dags.items()
}
from airflow.sdk.log import mask_logs
line = mask_logs(None, "info", {"event": "posted to slack://HUSHHUSH1/HUSHHUSH2/x with HUSHHUSH2, S3-hush, k-hush"})
found = {"line": line, "dags": facts, "errors": bag.import_errors, "slots": slots, "modules": sorted(sys.modules)}
print("FACTS" + json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("airflow")
    environment = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
    environment["FEMUR_NOTIFY_URLS"], environment["FEMUR_S3_SECRET_KEY"] = "slack://HUSHHUSH1/HUSHHUSH2/x", "S3-hush"
    environment["FEMUR_JUDGE_QUEUE"], environment["FEMUR_SEARCH_WORKERS"] = "bench", "40"
    environment["FEMUR_REGISTRY_URL"] = "postgresql://u:k-hush@host/db"
    environment["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(DAGS.parent / "plugins")
    done = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", PROBE, str(DAGS)], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FACTS"))[5:])


def test_every_dag_file_parses(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert set(parsed["dags"]) == {
        "housekeeping", "ingest_dataset", "morning_watch", "predict_incoming", "reproduce", "retrain",
        "rollback_champion",
    }  # fmt: skip


def test_parsing_loads_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert not HEAVY & set(parsed["modules"])


def test_unpausing_starts_no_run(parsed: dict[str, Any]) -> None:
    """Whenever it last ran, the next run lies in the coming 24 hours, or is at most an hour late."""
    assert len(parsed["slots"]) == 16
    assert all(-1 <= hours <= 24 for hours in parsed["slots"].values()), parsed["slots"]


def test_every_dag_and_task_is_documented_tagged_and_bounded(parsed: dict[str, Any]) -> None:
    for dag_id, dag in parsed["dags"].items():
        assert dag["doc"], dag_id
        assert "femur" in dag["tags"], dag_id
        assert dag["max_active_runs"] == 1, dag_id
        assert dag["catchup"] is False, dag_id
        for task_id, task in dag["tasks"].items():
            assert task["doc"], f"{dag_id}.{task_id}"
            assert task["timeout"], f"{dag_id}.{task_id}"


def test_as_many_search_workers_as_are_asked_for_run_at_once_beside_the_other_fits(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["retrain"]["max_active_tasks"] == 42


@pytest.mark.parametrize("task_id", ["baseline", "unet", "search_worker", "train_winner"])
def test_training_runs_in_the_gpu_pool_and_queue(parsed: dict[str, Any], task_id: str) -> None:
    task = parsed["dags"]["retrain"]["tasks"][task_id]
    assert (task["pool"], task["queue"]) == ("gpu", "gpu")
    assert task["retries"] >= 1


def test_what_judges_and_promotes_has_a_queue_of_its_own(parsed: dict[str, Any]) -> None:
    on_queue = {
        f"{dag_id}.{task_id}"
        for dag_id, dag in parsed["dags"].items()
        for task_id, task in dag["tasks"].items()
        if task["queue"] == "bench"
    }
    assert on_queue == {
        "retrain.evaluate", "retrain.decide", "retrain.promote", "retrain.report",
        "rollback_champion.roll_back", "housekeeping.verify", "morning_watch.watch",
    }  # fmt: skip


def test_families_run_side_by_side_before_the_evaluation(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]
    assert {"baseline", "unet", "search_worker", "train_winner"} <= set(tasks["open_run"]["downstream"])
    assert "train_winner" in tasks["search_worker"]["downstream"]
    for family in ("baseline", "unet", "train_winner"):
        followers = ["evaluate", "report", "wake_next"]
        assert tasks[family]["downstream"] == followers, "no report while something still trains"


def test_the_search_begins_last_where_slots_are_few_and_its_winner_waits_for_every_worker(
    parsed: dict[str, Any],
) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]
    assert tasks["baseline"]["weight"] == tasks["unet"]["weight"] > tasks["search_worker"]["weight"]
    assert tasks["train_winner"]["rule"].lower().endswith("all_done")


def test_a_report_follows_every_outcome(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]
    assert tasks["report"]["rule"].lower().endswith("all_done")
    assert "report" in tasks["decide"]["downstream"]
    assert "report" in tasks["promote"]["downstream"]


def test_the_next_run_is_woken_after_every_outcome_and_hides_none(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]
    assert tasks["wake_next"]["rule"].lower().endswith("all_done")
    assert {name for name, task in tasks.items() if "wake_next" in task["downstream"]} == {
        name for name, task in tasks.items() if "report" in task["downstream"]
    }
    assert tasks["report"]["downstream"] == [], "a run is red where its report fails, and its last tasks decide that"


def test_pictures_are_found_predicted_off_the_gpu_queue_and_counted(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["predict_incoming"]["tasks"]
    assert {name: task["downstream"] for name, task in tasks.items()} == {
        "look": ["predict"], "predict": ["rates"], "rates": [],
    }  # fmt: skip
    assert {task["queue"] for task in tasks.values()} == {"default"}
    assert all(task["retries"] >= 1 for task in tasks.values())


def test_the_form_is_the_parameter_model(parsed: dict[str, Any]) -> None:
    from femur_tasks.parameters import RetrainParameters

    params = parsed["dags"]["retrain"]["params"]
    assert set(params) == set(RetrainParameters.model_fields)
    assert params["size"]["schema"]["type"] == ["integer", "null"]
    assert params["families"]["schema"]["examples"] == ["baseline", "unet", "tuned"]
    for name, field in RetrainParameters.model_fields.items():
        assert params[name]["value"] == field.get_default()
        assert params[name]["doc"] == field.description


def test_every_task_that_fails_is_told_unless_its_step_has_told_it(parsed: dict[str, Any]) -> None:
    silent = {
        f"{dag_id}.{task_id}"
        for dag_id, dag in parsed["dags"].items()
        for task_id, task in dag["tasks"].items()
        if not task["tells"]
    }
    assert silent == {"retrain.report", "ingest_dataset.refusals"}


def test_whoever_parses_a_dag_masks_the_secrets_of_the_settings(parsed: dict[str, Any]) -> None:
    assert parsed["line"]["event"] == "posted to *** with ***, ***, ***"
