"""A night in the cluster: docker-compose.yaml on real servers, with two GPU workers, a judge and a CPU worker.

Not part of `make e2e`: `make test-cluster` runs it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import copy, copytree, make_archive, rmtree
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import text

from femur_tasks.cluster.secrets import write_secrets
from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.phantom import write_dataset
from femur_tasks.registry.database import Registry
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.stack.airflow_client import ENDED, AirflowClient, note_writer
from femur_tasks.storage import open_store
from tests.cluster import WHEELS, Cluster
from tests.e2e.conftest import LENIENT

pytestmark = pytest.mark.timeout(1800)
QUEUES = {
    "open_run": "default", "baseline": "gpu", "unet": "gpu", "search_worker": "gpu", "train_winner": "gpu",
    "evaluate": "judge", "decide": "judge", "needs_approval": "default", "report": "judge",
    "wake_next": "default",
}  # fmt: skip
WORKERS = {
    ("worker-cpu", 1): "default",
    ("worker-judge", 1): "judge",
    ("worker-gpu", 1): "gpu",
    ("worker-gpu", 2): "gpu",
}
PUBLIC = "https://femur.example"
"""Where people would reach the page, through a proxy that is not there: nothing inside may depend on it."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    root = Path(tempfile.mkdtemp(prefix="femur-cluster-"))
    root.chmod(0o755)  # PostgreSQL runs as another user where this is root's
    write_secrets(root / "secrets")
    (root / "secrets/admin_password").write_text("-starts-like-an-option")  # as one in 64 does
    (root / "policy.yaml").write_text(yaml.safe_dump(LENIENT))
    variables = {
        "FEMUR_SECRETS": str(root / "secrets"),
        "FEMUR_POLICY": str(root / "policy.yaml"),
        "FEMUR_AIRFLOW_URL": PUBLIC,
        "FEMUR_API_WORKERS": "1",
        "FEMUR_CPU_SLOTS": "2",
    }
    running = Cluster(root, variables, {"worker-gpu": 2})
    try:
        running.up()
        yield running
    finally:
        running.down()
        rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def airflow(cluster: Cluster) -> AirflowClient:
    password = (cluster.root / "secrets/admin_password").read_text()
    client = AirflowClient(f"http://127.0.0.1:{cluster.composed.port('api-server', 8080)}", "admin", password)
    until(cluster, lambda: all(map(client.has_dag, ("retrain", "ingest_dataset", "housekeeping"))), bool)
    return client


@pytest.fixture(scope="module")
def registry(cluster: Cluster) -> Registry:
    """The registry as whoever may read it sees it."""
    read = Settings(home=cluster.root, _env_file=cluster.root / "api-server-1/home/stack.env")
    return Registry(read.database_url)


@pytest.fixture(scope="module")
def night(cluster: Cluster, airflow: AirflowClient) -> str:
    """An ingest, and the retrain that its new dataset version woke."""
    write_dataset(cluster.root / "cases", 25, seed=3, size=64)
    conf = {"path": str(cluster.root / "cases"), "dataset": "night", "model": "night", "budget": "smoke", "size": 32}
    ingested = airflow.trigger("ingest_dataset", conf)
    assert ended(cluster, airflow, "ingest_dataset", ingested) == "success"
    run_id = str(until(cluster, lambda: airflow.runs("retrain"), bool)[0]["dag_run_id"])
    assert ended(cluster, airflow, "retrain", run_id, 900) == "success"
    return run_id


def until(cluster: Cluster, look: Callable[[], Any], wanted: Callable[[Any], bool], timeout_s: float = 300) -> Any:
    """Look again and again until what is seen is what is wanted; meanwhile start again what ended, as Docker would."""
    deadline, seen = time.monotonic() + timeout_s, None
    while time.monotonic() < deadline:
        cluster.tend()
        with suppress(FemurError):  # of a part that is down for the moment
            if wanted(seen := look()):
                return seen
        time.sleep(1)
    pytest.fail(f"waited {timeout_s} s in vain, last saw {seen}")


def ended(cluster: Cluster, airflow: AirflowClient, dag_id: str, run_id: str, timeout_s: float = 300) -> str:
    return str(until(cluster, lambda: airflow.run(dag_id, run_id)["state"], ENDED.__contains__, timeout_s))


def ran(cluster: Cluster, worker: tuple[str, int]) -> Counter[str]:
    """The tasks that a worker says it has executed, as DAG and task."""
    found = re.findall(
        r"Executing workload in Celery.*?task_id='(\w+)'.*?dag_id='(\w+)'", cluster.running[worker].log.read_text()
    )
    return Counter(f"{dag_id}.{task_id}" for task_id, dag_id in found)


def test_the_night_ends_with_a_champion(night: str, registry: Registry) -> None:
    with registry.reading() as session:
        champions = session.execute(text("select * from champion_history where until is null")).all()
        assert [(row.model, row.actor) for row in champions] == [("night", "airflow:asset")]
        families = session.execute(text("select family, status from model_registry")).all()
    assert {row.family for row in families} == {"baseline", "unet", "tuned"}


def test_tasks_ran_where_they_should(night: str, airflow: AirflowClient, cluster: Cluster) -> None:
    tasks = airflow.tasks("retrain", night)
    ran_or_found_nothing = [task for task in tasks if task["state"] == "success" or task["task_id"] == "wake_next"]
    assert {task["task_id"]: task["queue"] for task in ran_or_found_nothing} == QUEUES
    did = {worker: ran(cluster, worker) for worker in WORKERS}
    for worker, queue in WORKERS.items():
        of_retrain = {name.removeprefix("retrain.") for name in did[worker] if name.startswith("retrain.")}
        assert of_retrain, worker
        assert of_retrain <= {task_id for task_id, its_queue in QUEUES.items() if its_queue == queue}, worker
    assert sum(did["worker-gpu", number]["retrain.search_worker"] for number in (1, 2)) == 2
    assert all(name.startswith("ingest_dataset.") or name.startswith("retrain.") for name in did["worker-cpu", 1])


def test_logs_of_every_worker_are_read_from_the_store(night: str, airflow: AirflowClient, cluster: Cluster) -> None:
    told = {name.partition(":")[0]: lines for name, lines in airflow.logs("retrain", night)}
    for task_id in ("open_run", "unet", "evaluate"):
        assert told[task_id], task_id
        assert not any("Could not read" in line for line in told[task_id]), told[task_id]
    assert not [*cluster.root.glob("worker-*/tmpfs/var/lib/airflow/logs/**/attempt=*.log")], "some were left behind"


def test_note_beside_the_run_comes_from_one_who_starts_nothing_and_reads_no_secret(
    night: str, airflow: AirflowClient, cluster: Cluster
) -> None:
    assert airflow.run("retrain", night)["note"].startswith(
        f"promoted: every rule of the policy holds. [Report]({PUBLIC}/"
    )
    login = Path(cluster.running["worker-judge", 1].environment["FEMUR_AIRFLOW_LOGIN_FILE"])
    notes = note_writer(Settings(home=cluster.root, airflow_login_file=login))
    assert notes.run("retrain", night)["dag_run_id"] == night
    for path in ("/variables", "/connections", "/pools", "/eventLogs", f"/dags/retrain/dagRuns/{night}/taskInstances"):
        with pytest.raises(FemurError, match="403"):
            notes.ask("GET", path)
    with pytest.raises(FemurError, match="403"):
        notes.trigger("retrain", {})


def test_rollback_is_started_from_the_page(night: str, airflow: AirflowClient, cluster: Cluster) -> None:
    api = f"http://127.0.0.1:{cluster.composed.port('api-server', 8080)}"
    password = (cluster.root / "secrets/admin_password").read_text()
    with httpx.Client(base_url=api, trust_env=False, timeout=60) as browser:
        token = browser.post("/auth/token", json={"username": "admin", "password": password}).json()["access_token"]
        asked = {"model": "night", "reason": "looks wrong"}
        headers = {"Authorization": f"Bearer {token}"}
        started = browser.post("/femur/api/v1/rollbacks", json=asked, headers=headers)
    assert started.status_code == 202, started.text
    run = airflow.run("rollback_champion", started.json()["run_id"])
    assert (run["conf"]["model"], run["triggering_user_name"]) == ("night", "admin")
    assert ended(cluster, airflow, "rollback_champion", run["dag_run_id"]) == "failed", "there is no former champion"


def test_each_of_two_datasets_that_came_in_one_night_is_retrained(
    night: str, airflow: AirflowClient, cluster: Cluster, registry: Registry, tmp_path: Path
) -> None:
    """One event wakes one run, which retrains one version and wakes the next."""
    endpoint = f"127.0.0.1:{cluster.composed.port('store', 8333)}"
    env_file = cluster.root / "volumes/ingest/stack.env"
    store = open_store(Settings(home=cluster.root, _env_file=env_file, s3_endpoint=endpoint))
    for seed, name in enumerate(("left", "right"), start=10):
        write_dataset(tmp_path / name, 25, seed=seed, size=64)
        archive = Path(make_archive(str(tmp_path / f"{name}-march"), "zip", tmp_path / name))
        store.put_named(archive, f"incoming/{name}/march.zip")
    ingested = airflow.trigger("ingest_dataset", {"size": 32, "budget": "smoke"})
    assert ended(cluster, airflow, "ingest_dataset", ingested) == "success"

    def retrained() -> list[tuple[str, str]]:
        told = text(
            "select name, run.trigger from run join dataset_version on digest = dataset_digest "
            "where name in ('left', 'right') and state in ('promoted', 'refused')"
        )
        with registry.reading() as session:
            return sorted(tuple(row) for row in session.execute(told))

    assert until(cluster, retrained, lambda found: len(found) == 2, 600) == [("left", "asset"), ("right", "asset")]
    last = next(run for run in airflow.runs("retrain"))
    assert ended(cluster, airflow, "retrain", last["dag_run_id"]) == "success"
    tasks = {task["task_id"]: task["state"] for task in airflow.tasks("retrain", last["dag_run_id"])}
    assert tasks["wake_next"] == "skipped"


def test_audit_as_a_judge_finds_nothing(night: str, airflow: AirflowClient, cluster: Cluster) -> None:
    run_id = airflow.trigger("housekeeping", {})
    assert ended(cluster, airflow, "housekeeping", run_id) == "success"
    assert ran(cluster, ("worker-judge", 1))["housekeeping.verify"] == 1


def test_every_search_and_fit_is_done_once(night: str, registry: Registry) -> None:
    with registry.reading() as session:
        asked = text("select state, failures, to_epoch - from_epoch as epochs from trial where run_id = :run_id")
        trials = session.execute(asked, {"run_id": night}).all()
    assert Counter(trial.state for trial in trials) == {"completed": 6}
    assert sum(trial.epochs for trial in trials) == 11
    assert all(trial.failures == 0 for trial in trials)


@pytest.mark.parametrize("service", ["postgres", "redis", "store"])
def test_servers_of_this_test_are_those_that_the_file_pins(service: str, cluster: Cluster) -> None:
    running = cluster.running[service, 1]
    name, tag = running.service.image.split(":")
    words = ["version"] if service == "store" else ["--version"]
    told = subprocess.run([WHEELS[name] / running.service.argv[0], *words], capture_output=True, text=True, check=True)  # noqa: S603
    assert re.search(rf"(?<![\d.]){re.escape(tag)}(?![\d.])", told.stdout), told.stdout


KILLS = [
    ("worker-gpu", 1), ("scheduler", 1), ("scheduler", 2), ("triggerer", 1), ("api-server", 1), ("redis", 1),
    ("store", 1), ("postgres", 1), ("worker-gpu", 2),
]  # fmt: skip


def epochs(registry: Registry, run_id: str, of_finished: bool = False) -> dict[tuple[str, int], Any]:
    """When each epoch of the run's search was recorded, by trial and number."""
    rows = text(
        "select trial_id, epoch, trial_epoch.at from trial_epoch join trial using (run_id, search, trial_id) "
        "where run_id = :run_id and (state = 'completed' or not :of_finished)"
    )
    with registry.reading() as session:
        found = session.execute(rows, {"run_id": run_id, "of_finished": of_finished})
        return {(row.trial_id, row.epoch): row.at for row in found}


def test_a_night_in_which_everything_is_killed_once_ends_with_a_verdict(
    night: str, airflow: AirflowClient, cluster: Cluster, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = airflow.trigger(
        "retrain", {"dataset": "night", "model": "night", "size": 32, "budget": "smoke", "seed": 7}
    )
    until(cluster, lambda: epochs(registry, run_id), bool)
    before: dict[tuple[str, int], Any] = {}
    finished: dict[tuple[str, int], Any] = {}
    for name, number in KILLS:
        with suppress(FemurError):
            before |= epochs(registry, run_id)
            finished |= epochs(registry, run_id, of_finished=True)
        cluster.kill(name, number)
        cluster.tend()
        took_s = cluster.await_healthy(name, number)
        with capsys.disabled():
            print(f"\n{name} {number}: killed, works again after {took_s:.0f} s", end="")  # noqa: T201
    assert ended(cluster, airflow, "retrain", run_id, 900) == "success"
    with registry.reading() as session:
        state = session.execute(text("select state from run where run_id = :run_id"), {"run_id": run_id}).scalar_one()
        champions = session.scalars(text("select model from champion_history where until is null")).all()
    assert state in ("promoted", "refused")
    assert Counter(champions)["night"] == 1
    after = epochs(registry, run_id)
    assert {key: after[key] for key in finished} == finished, "a finished trial was trained again"
    assert sum(after[key] != at for key, at in before.items()) <= len(KILLS), "more than one epoch a kill was repeated"
    audit = airflow.trigger("housekeeping", {})
    assert ended(cluster, airflow, "housekeeping", audit) == "success"


OURS = [
    ("api-server", 1), ("dag-processor", 1), ("scheduler", 1), ("scheduler", 2), ("triggerer", 1), ("worker-cpu", 1),
    ("worker-judge", 1), ("worker-gpu", 1), ("worker-gpu", 2),
]  # fmt: skip
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None


def upgrade() -> None:
    op.add_column("run", sa.Column("remark", sa.String(), nullable=True))
"""


def next_version(root: Path) -> Path:
    """The code as a later version of it might be: with one more migration of a table that every step uses."""
    code = root / "next"
    for part in ("dags", "plugins", "femur_tasks"):
        copytree(CHECKOUT / part, code / part, ignore=lambda *_: ["__pycache__"])
    copy(CHECKOUT / "docker-compose.yaml", code)
    versions = code / "femur_tasks/registry/migrations/versions"
    head = max(path.name.partition("_")[0] for path in versions.glob("0*.py"))
    (versions / "next.py").write_text(MIGRATION.format(head=head))
    return code


def test_upgrade_with_a_migration_goes_on_with_the_retrain_that_runs(
    night: str, airflow: AirflowClient, cluster: Cluster, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/operations.md has it: `airflow-init` of the new images first, then one service after the other."""
    # searches until its time is up, so that on a fast machine too it still runs when all is replaced
    told = {"dataset": "night", "model": "night", "size": 32, "budget": "nightly", "hours": 0.2, "seed": 8}
    run_id = airflow.trigger("retrain", told)
    until(cluster, lambda: epochs(registry, run_id), bool)
    code = next_version(cluster.root)
    cluster.composed.code.unlink()
    cluster.composed.code.symlink_to(code)
    assert cluster.start("airflow-init").process.wait(300) == 0, cluster.running["airflow-init", 1].log.read_text()
    with registry.reading() as session:
        assert session.execute(text("select version_num from alembic_version")).scalar_one() == "next"
    migrated = len(epochs(registry, run_id))
    until(cluster, lambda: len(epochs(registry, run_id)), lambda count: count > migrated)
    finished = epochs(registry, run_id, of_finished=True)
    for name, number in OURS:
        cluster.kill(name, number, signal.SIGTERM)
        cluster.start(name, number)
        took_s = cluster.await_healthy(name, number)
        assert Path(f"/proc/{cluster.running[name, number].process.pid}/cwd").resolve() == code
        with capsys.disabled():
            print(f"\n{name} {number}: replaced, works again after {took_s:.0f} s", end="")  # noqa: T201
    assert airflow.run("retrain", run_id)["state"] == "running", "nothing was left to go on with"
    assert ended(cluster, airflow, "retrain", run_id, 900) == "success"
    with registry.reading() as session:
        state = session.execute(text("select state from run where run_id = :run_id"), {"run_id": run_id}).scalar_one()
    assert state in ("promoted", "refused")
    after = epochs(registry, run_id)
    assert {key: after[key] for key in finished} == finished, "a finished trial was trained again"


NOT_CHANGED_SO = {"patient_key", "postgres_password", "admin_password"}
"""Secrets that docs/operations.md changes in another way, or not at all."""


def test_secrets_that_were_made_anew_are_those_that_count(
    night: str, airflow: AirflowClient, cluster: Cluster, registry: Registry
) -> None:
    secrets = cluster.root / "secrets"
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    for name in before.keys() - NOT_CHANGED_SO:
        (secrets / name).unlink()
    write_secrets(secrets)
    cluster.down()
    cluster.up()
    assert {name for name, text in before.items() if (secrets / name).read_text() == text} == NOT_CHANGED_SO
    registry.engine.dispose()
    with pytest.raises(Unreachable), registry.reading() as session:
        session.execute(text("select 1"))
    once_more = {
        "dataset": "night",
        "model": "night",
        "families": ["baseline"],
        "size": 32,
        "budget": "smoke",
        "seed": 9,
    }
    run_id = str(until(cluster, lambda: airflow.trigger("retrain", once_more), bool))
    assert ended(cluster, airflow, "retrain", run_id, 600) == "success"
    assert "[Report](" in airflow.run("retrain", run_id)["note"], "the judge's log-in for notes is a new one too"
