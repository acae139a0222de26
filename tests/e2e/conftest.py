"""One embedded stack for all end-to-end tests: the real store, the real Airflow, a policy that small data can pass."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from playwright.sync_api import Page, sync_playwright

from femur_tasks.errors import FemurError
from femur_tasks.phantom import write_dataset
from femur_tasks.registry.database import Registry
from femur_tasks.settings import Settings
from femur_tasks.stack.airflow_client import ENDED, AirflowClient, connect

CHECKOUT = Path(__file__).parents[2]
LENIENT = {
    "name": "lenient", "min_test_cases": 2, "mean_dice_floor": 0.0, "worst_dice_floor": 0.0, "hd95_ceiling_pct": 1000,
    "failed_dice": 0.0, "failed_share_ceiling": 1.0, "megabytes_ceiling": 10000, "latency_ceiling_ms": 100000,
    "level": 0.025, "min_gain": -10.0, "cost_saving": 0, "non_inferiority_margin": 0.0, "slice_margin": 1.0,
    "min_slice_cases": 2,
}  # fmt: skip


@dataclass
class Stack:
    """A running stack in a home of its own."""

    home: Path
    environment: dict[str, str]

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, _env_file=self.home / "stack.env")

    @property
    def registry(self) -> Registry:
        return Registry(self.settings.database_url)

    @property
    def airflow(self) -> AirflowClient:
        return connect(self.settings)

    def femur(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the CLI as a person would."""
        command = [str(Path(sys.executable).with_name("femur")), *arguments]
        return subprocess.run(  # noqa: S603 - our own command
            command, env=self.environment, cwd=CHECKOUT, capture_output=True, text=True, check=check
        )

    def processes(self) -> list[psutil.Process]:
        """What lives in supervisord's session, also what has closed its environment to us."""
        note = self.home / "session.json"
        sid = json.loads(note.read_text())["sid"] if note.exists() else None
        living = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == sid and process.status() != psutil.STATUS_ZOMBIE:
                    living.append(process)
        return living

    def wait(self, dag_id: str, run_id: str, timeout_s: float = 300) -> str:
        """Wait for a run's end; returns its state."""
        return self.until(lambda: self.airflow.run(dag_id, run_id)["state"], lambda state: state in ENDED, timeout_s)

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """The state of each of a run's tasks."""
        return {task["task_id"]: task["state"] for task in self.airflow.tasks(dag_id, run_id)}

    def answer(self, run_id: str, chosen: str, timeout_s: float = 300) -> None:
        """Answer a retrain that asks a person, as often as it asks, and wait for its good end."""
        path = f"/dags/retrain/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"

        def answered() -> str:
            if self.states("retrain", run_id)["approve"] == "awaiting_input":
                # Airflow forgets an answer that comes before its scheduler has seen the task pause, and asks again
                time.sleep(3)
                with suppress(FemurError):
                    self.airflow.ask("PATCH", path, json={"chosen_options": [chosen], "params_input": {}})
            return str(self.airflow.run("retrain", run_id)["state"])

        assert self.until(answered, lambda state: state in ENDED, timeout_s) == "success"

    def until(self, look: Callable[[], Any], wanted: Callable[[Any], bool], timeout_s: float = 120) -> Any:
        """Look again and again until what is seen is what is wanted."""
        deadline = time.monotonic() + timeout_s
        while not wanted(seen := look()):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {timeout_s} s in vain, last saw {seen}")
            time.sleep(1)
        return seen


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    home = Path(tempfile.mkdtemp(prefix="femur-e2e-"))
    policy = home / "policy.yaml"
    policy.touch(mode=0o600)
    policy.write_text(yaml.safe_dump(LENIENT))
    users = json.dumps({"anna": "op", "bert": "viewer"})
    environment = {**os.environ, "FEMUR_HOME": str(home), "FEMUR_POLICY": str(policy), "FEMUR_LEASE_S": "10"}
    environment["FEMUR_USERS"] = users
    running = Stack(home, environment)
    try:
        running.femur("up")
        running.until(lambda: running.airflow.has_dag("retrain"), bool)
        yield running
    finally:
        stopped, left = running.femur("down", check=False), running.processes()
        shutil.rmtree(home, ignore_errors=True)
        if stopped.returncode != 0 or left:
            pytest.fail(f"{stopped.stderr} left behind: {left}")


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a synthetic dataset of so many cases, once each."""
    folder = tmp_path_factory.mktemp("cases")

    def make(count: int) -> Path:
        target = folder / str(count)
        if not target.exists():
            write_dataset(target, count, seed=3, size=64)
        return target

    return make


def ingest(stack: Stack, folder: Path, dataset: str) -> dict[str, Any]:
    """Ingest a folder in Airflow and wait for the end."""
    conf = {"path": str(folder), "dataset": dataset, "model": dataset, "budget": "smoke", "size": 32}
    run_id = stack.airflow.trigger("ingest_dataset", conf)
    return {"run_id": run_id, "state": stack.wait("ingest_dataset", run_id)}


def asset_runs(stack: Stack) -> list[str]:
    """Retrains that a new dataset version woke, newest first."""
    return [run["dag_run_id"] for run in stack.airflow.runs("retrain") if run["run_type"] == "asset_triggered"]


@pytest.fixture(scope="session")
def first_night(stack: Stack, cases: Callable[[int], Path]) -> str:
    """A new dataset version wakes the retrain, which makes the first champion."""
    assert ingest(stack, cases(25), "night")["state"] == "success"
    run_id = str(stack.until(lambda: asset_runs(stack), bool)[0])
    assert stack.wait("retrain", run_id) == "success"
    return run_id


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser for one test: an open page of Airflow's keeps asking the stack, and takes a fifth of a core."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        reason = "Expected Chromium for the page tests. Received: none on this machine."
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser.new_page(viewport={"width": 1280, "height": 1400})
        browser.close()
