"""A night's work through the real Airflow, and what people do to it."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import nibabel as nib
import psutil
import pytest
from playwright.sync_api import Page, expect

from femur_tasks.errors import FemurError
from femur_tasks.stack.secrets import airflow_password
from femur_tasks.storage import open_store
from tests.e2e.conftest import Stack, asset_runs, ingest
from tests.safety import listened, open_to_others, secrets_in_logs

pytestmark = pytest.mark.timeout(600)
TINY = {"size": 32, "budget": "smoke"}


def rows(stack: Stack, statement: str) -> list[sqlite3.Row]:
    """What a person gets from the registry with plain SQL."""
    database = sqlite3.connect(f"file:{stack.home / 'registry.db'}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    try:
        return database.execute(statement).fetchall()
    finally:
        database.close()


def test_a_new_version_is_trained_judged_and_promoted(stack: Stack, first_night: str) -> None:
    assert {row["family"] for row in rows(stack, "select family from model_registry where model = 'night'")} == {
        "baseline", "unet", "tuned"
    }  # fmt: skip
    champion = rows(stack, "select * from model_registry where model = 'night' and status = 'champion'")
    assert len(champion) == 1
    assert champion[0]["verdict"] == "promote"
    assert champion[0]["test_cases"] == 5
    run = rows(stack, f"select * from run where run_id = '{first_night}'")[0]  # noqa: S608
    assert (run["trigger"], run["state"]) == ("asset", "promoted")
    assert run["report_key"].startswith("reports/")
    note = stack.airflow.run("retrain", first_night)["note"]
    assert note.startswith("promoted: every rule of the policy holds. [Report](")
    assert f"/femur/report?run={quote(first_night, safe='')})" in note


def test_the_search_went_through_its_whole_allocation(stack: Stack, first_night: str) -> None:
    trials = rows(stack, f"select * from trial where run_id = '{first_night}'")  # noqa: S608
    assert Counter(trial["state"] for trial in trials) == {"completed": 6}  # R = 3, factor 3
    assert sum(trial["to_epoch"] - trial["from_epoch"] for trial in trials) == 11
    assert all(trial["failures"] == 0 for trial in trials)


def test_ingesting_the_same_again_wakes_nobody(stack: Stack, first_night: str, cases: Callable[[int], Path]) -> None:
    before = asset_runs(stack)
    again = ingest(stack, cases(25), "night")
    assert again["state"] == "success"
    assert stack.states("ingest_dataset", again["run_id"])["announce"] == "skipped"
    assert asset_runs(stack) == before


def test_what_was_dropped_under_incoming_is_ingested_once(
    stack: Stack, first_night: str, cases: Callable[[int], Path], tmp_path: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "march"), "zip", cases(25)))
    open_store(stack.settings).put_named(archive, "incoming/night/march.zip")
    for ingests in (["success"] * 3, []):  # plan, convert, publish
        run_id = stack.airflow.trigger("ingest_dataset", {"size": 32})
        assert stack.wait("ingest_dataset", run_id) == "success"
        tasks = [task for task in stack.airflow.tasks("ingest_dataset", run_id) if task["map_index"] >= 0]
        assert [task["state"] for task in tasks] == ingests
    (row,) = rows(stack, "select * from incoming_object")
    (version,) = rows(stack, "select * from dataset_version where name = 'night'")
    assert (row["state"], row["digest"]) == ("ingested", version["digest"])


def test_pictures_of_a_night_are_predicted_once(
    stack: Stack, first_night: str, cases: Callable[[int], Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    store = open_store(stack.settings)
    for picture in [*sorted(cases(25).glob("test/imgs/*"))[:2], damaged]:
        store.put_named(picture, f"incoming-images/night/{picture.name}")
    store.put_named(damaged, "incoming-images/nobody/damaged.png")  # there is no such champion
    for models in (["success"], []):
        run_id = stack.airflow.trigger("predict_incoming", {})
        assert stack.wait("predict_incoming", run_id) == "success"
        rates = [task for task in stack.airflow.tasks("predict_incoming", run_id) if task["task_id"] == "rates"]
        assert [task["state"] for task in rates if task["map_index"] >= 0] == models
    (night,) = rows(stack, "select * from prediction_run")
    assert (night["model"], night["pictures"], night["refused"]) == ("night", 3, 1)
    pictures = rows(stack, "select * from incoming_picture order by key")
    states = {row["key"].removeprefix("incoming-images/"): row["state"] for row in pictures}
    assert states.pop("nobody/damaged.png") == "waiting"
    assert states.pop("night/damaged.png") == "refused"
    assert set(states.values()) == {"predicted"}
    assert len(states) == 2
    for row in pictures:
        if row["state"] == "predicted":
            mask = nib.Nifti1Image.from_bytes(gzip.decompress(store.get(row["mask_key"])))
            assert mask.shape[:2] == (64, 64)


def test_a_run_without_news_ends_green_and_says_why(stack: Stack, first_night: str) -> None:
    run_id = stack.airflow.trigger("retrain", {})
    assert stack.wait("retrain", run_id) == "success"
    assert stack.states("retrain", run_id)["unet"] == "skipped"
    run = rows(stack, f"select state, detail from run where run_id = '{run_id}'")[0]  # noqa: S608
    assert run["state"] == "nothing_new"
    assert "not retrained yet" in run["detail"]


def test_a_bad_dataset_turns_the_run_red_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    for folder in ("train/imgs", "train/targets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "train/imgs/HIP_1.nii.gz").write_bytes(b"no picture")
    assert ingest(stack, tmp_path, "bad")["state"] == "failed"
    assert rows(stack, "select * from dataset where name = 'bad'") == []


def history(stack: Stack) -> list[sqlite3.Row]:
    return rows(stack, "select * from champion_history where model = 'night' order by promotion_id")


def test_an_ingest_that_crashes_turns_the_run_red(stack: Stack, tmp_path: Path) -> None:
    assert ingest(stack, tmp_path / "nowhere", "nowhere")["state"] == "failed"


def test_the_whole_stack_is_closed_to_network_and_other_users(stack: Stack, first_night: str) -> None:
    listening = listened(stack.processes())
    assert {address for address, _ in listening} == {"127.0.0.1"}
    assert int(stack.settings.airflow_url.rpartition(":")[2]) in {port for _, port in listening}
    assert open_to_others(stack.home) == []
    assert secrets_in_logs(stack.home) == []


def test_the_cli_prints_what_the_tasks_of_a_run_logged(stack: Stack, first_night: str) -> None:
    told = json.loads(stack.femur("runs", "logs", first_night, "--task", "unet", "--tail", "3", "--json").stdout)
    assert [one["task"] for one in told] == ["unet: success"]
    assert len(told[0]["lines"]) == 3


def test_checkpoints_go_when_their_models_are_registered(stack: Stack, first_night: str) -> None:
    assert list(open_store(stack.settings).list("checkpoints/")) == []


def test_the_form_triggers_a_retrain_that_a_person_declines(stack: Stack, first_night: str, page: Page) -> None:
    before = history(stack)
    page.goto(f"{stack.settings.airflow_url}/dags/retrain")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", airflow_password(stack.home))
    page.click("button[type=submit]")
    page.get_by_role("button", name="Trigger").first.click()
    for field in ("dataset", "model"):
        page.locator(f"input[name=element_{field}]").fill("night")
    for family in ("unet", "tuned"):
        page.get_by_label(f"Remove {family}").click()
    page.locator("label", has=page.locator("[name=element_require_approval]")).click()
    trigger = page.get_by_role("dialog").get_by_role("button", name="Trigger")
    expect(trigger).to_be_enabled()
    trigger.click()
    run = "select * from run where \"trigger\" = 'manual' and model = 'night'"
    found = stack.until(lambda: rows(stack, run), bool, 60)[0]
    assert '"families": ["baseline"]' in found["parameters"]
    stack.answer(found["run_id"], "Reject")
    assert rows(stack, f"select state from run where run_id = '{found['run_id']}'")[0]["state"] == "declined"  # noqa: S608
    assert [row["version"] for row in history(stack)] == [row["version"] for row in before]


def test_a_search_worker_that_fails_for_good_takes_nothing_away_from_the_others(stack: Stack, first_night: str) -> None:
    run_id = stack.airflow.trigger("retrain", {**TINY, "dataset": "night", "model": "unlucky", "families": ["tuned"]})
    unlucky = f"/dags/retrain/dagRuns/{run_id}/taskInstances/search_worker/1"

    def state() -> str | None:
        with suppress(FemurError):  # before it is mapped
            return str(stack.airflow.ask("GET", unlucky)["state"])
        return None

    stack.until(state, lambda seen: seen in ("scheduled", "queued", "running"))
    stack.airflow.ask("PATCH", unlucky, json={"new_state": "failed"})
    assert stack.wait("retrain", run_id) == "success"
    assert state() == "failed"
    trials = rows(stack, f"select * from trial where run_id = '{run_id}'")  # noqa: S608
    assert Counter(trial["state"] for trial in trials) == {"completed": 6}
    assert [row["state"] for row in rows(stack, f"select state from run where run_id = '{run_id}'")] == ["promoted"]  # noqa: S608


def test_a_night_killed_in_the_middle_goes_on(stack: Stack, first_night: str, cases: Callable[[int], Path]) -> None:
    stack.femur("ingest", str(cases(30)), "--name", "killed", "--size", "32")
    conf = {**TINY, "dataset": "killed", "model": "killed", "families": ["tuned"]}
    run_id = stack.airflow.trigger("retrain", conf)
    done = f"select trial_id from trial where run_id = '{run_id}' and state = 'completed'"  # noqa: S608
    stack.until(lambda: len(rows(stack, done)), lambda count: count >= 2, 240)
    killed = stack.processes()
    for process in killed:
        with suppress(psutil.AccessDenied):  # what closed its environment lives on as an orphan: `femur up` ends it
            if process.environ()["FEMUR_HOME"] == str(stack.home):
                process.kill()
    finished = {row["trial_id"] for row in rows(stack, done)}
    epochs = "select trial_id, count(*) as n, max(at) as at from trial_epoch group by trial_id, run_id"
    before = {(row["trial_id"], row["at"]) for row in rows(stack, epochs)}
    stack.femur("up")
    parts = stack.femur("status", "--json").stdout
    assert parts.count('"healthy": true') == 5
    assert not [process for process in killed if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert stack.wait("retrain", run_id, 400) == "success"
    after = {(row["trial_id"], row["at"]) for row in rows(stack, epochs)}
    assert {pair for pair in before if pair[0] in finished} <= after, "a finished trial was trained again"
    trials = rows(stack, f"select * from trial where run_id = '{run_id}'")  # noqa: S608
    assert Counter(trial["state"] for trial in trials) == {"completed": 6}
    assert rows(stack, f"select outcome from verdict where run_id = '{run_id}'")  # noqa: S608
