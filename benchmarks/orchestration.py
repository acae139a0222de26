"""What Airflow costs: a retrain in it beside the same steps run bare, and how idle its search workers are.

    python benchmarks/orchestration.py [--cluster [--apart]] [--cases 60] [--size 64]

One night on synthetic cases, bare and then in Airflow: `femur retrain` in one process while nothing but the store
runs, and the DAG `retrain` from its trigger to its end, of one seed. One slot for training in both, so that the same
fits follow one another; what is left is Airflow's. With --cluster the DAG runs in the topology of docker-compose.yaml,
as processes, with one worker on the queue `gpu`; the bare run is the embedded stack's in any case.

On one machine Airflow's services also take processors from the training, whose threads wait for each other. With
--apart they do not, as where the workers on the queue `gpu` are machines of their own: those, and the bare run, have
the first processor alone, and all else has the others.

Another night, of the search alone and with two workers, tells how long they did not train between the search's first
epoch and its last. The schedule's own lower bound is what the same trials, with the seconds that they trained for,
leave idle when they are handed out by the same oracle in no time.

Goals: under 30 s, under 5 % of a run of an hour, and workers idle at most 5 points above the bound.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[1]))

from femur_tasks.cluster.secrets import write_secrets
from femur_tasks.phantom import write_dataset
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import FitEpoch, Search, Trial, TrialEpoch
from femur_tasks.search.space import from_json
from femur_tasks.search.strategies import load, strategy
from femur_tasks.search.strategy import Assignment, Spec
from femur_tasks.settings import Settings
from femur_tasks.stack.airflow_client import ENDED, AirflowClient, connect
from tests.cluster import Cluster
from tests.e2e.conftest import LENIENT

GOAL_S, GOAL_PCT, GOAL_IDLE_POINTS = 30, 5, 5
FEMUR = str(Path(sys.executable).with_name("femur"))
PROCESSORS = sorted(os.sched_getaffinity(0))


@dataclass
class Place:
    """A running Airflow and the registry that it writes to."""

    airflow: AirflowClient
    registry: Registry

    def ingest(self, cases: Path, dataset: str, size: int) -> None:
        """Ingest a dataset version that wakes no retrain: what is measured is triggered when nothing else runs."""
        self.airflow.ask("PATCH", "/dags/retrain", json={"is_paused": True})
        self.run("ingest_dataset", {"path": str(cases), "dataset": dataset, "model": "airflow", "size": size})
        self.airflow.ask("PATCH", "/dags/retrain", json={"is_paused": False})

    def run(self, dag_id: str, conf: Mapping[str, Any]) -> tuple[str, datetime, float]:
        """Run a DAG to its good end; returns the run's id, when it was triggered and the seconds that it took."""
        run_id = self.airflow.trigger(dag_id, dict(conf))
        while (found := self.airflow.run(dag_id, run_id))["state"] not in ENDED:
            time.sleep(2)  # to ask more often takes from what is measured, and its times are Airflow's own
        if found["state"] != "success":
            raise SystemExit(f"{dag_id} {run_id} ended as {found['state']}")
        asked, ended = (datetime.fromisoformat(found[name]) for name in ("queued_at", "end_date"))
        return run_id, asked, (ended - asked).total_seconds()

    def parse_s(self) -> Mapping[str, float]:
        """Seconds that each DAG's file last took to parse."""
        found = self.airflow.ask("GET", "/dags", params={"limit": 100})["dags"]
        return {dag["dag_id"]: dag["last_parse_duration"] for dag in found}


def told(home: Path, workers: int) -> dict[str, str]:
    policy = home / "policy.yaml"
    home.mkdir(exist_ok=True, mode=0o700)
    policy.write_text(yaml.safe_dump(LENIENT))
    policy.chmod(0o600)
    here = {"FEMUR_HOME": str(home), "FEMUR_POLICY": str(policy), "FEMUR_RETRAIN_CRON": "0 0 1 1 *"}
    return {**os.environ, **here, "FEMUR_GPU_SLOTS": str(workers), "FEMUR_SEARCH_WORKERS": str(workers)}


def femur(environment: Mapping[str, str], *arguments: str) -> float:
    """Run the CLI; returns the seconds that it took."""
    started = time.monotonic()
    done = subprocess.run([FEMUR, *arguments], env=dict(environment), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"femur {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.monotonic() - started


@contextmanager
def embedded(home: Path, workers: int) -> Iterator[Place]:
    """The embedded stack of a home, told how many search workers and slots there are."""
    environment = told(home, workers)
    try:
        femur(environment, "up")
        settings = Settings(home=home, _env_file=home / "stack.env")
        place = Place(connect(settings), Registry(settings.database_url))
        until_parsed(place)
        yield place
    finally:
        femur(environment, "down")


@contextmanager
def clustered(
    root: Path, workers: int, machines: int, variables: Mapping[str, str], code: Path | None = None
) -> Iterator[tuple[Place, Cluster]]:
    """docker-compose.yaml as processes.

    Args:
        workers: of a retrain's search.
        machines: replicas of `worker-gpu`.
        code: the tree that the images hold, this one where none is given.
    """
    root.mkdir(mode=0o755)
    write_secrets(root / "secrets")
    (root / "policy.yaml").write_text(yaml.safe_dump(LENIENT))
    files = {"FEMUR_SECRETS": str(root / "secrets"), "FEMUR_POLICY": str(root / "policy.yaml")}
    slots = {"FEMUR_API_WORKERS": "1", "FEMUR_CPU_SLOTS": "1", "FEMUR_SEARCH_WORKERS": str(workers)}
    cluster = Cluster(root, {**files, **slots, **variables}, {"worker-gpu": machines})
    if code:
        cluster.composed.code.unlink()
        cluster.composed.code.symlink_to(code)
    try:
        cluster.up()
        password = (root / "secrets/admin_password").read_text()
        airflow = AirflowClient(f"http://127.0.0.1:{cluster.composed.port('api-server', 8080)}", "admin", password)
        read = Settings(home=root, _env_file=root / "api-server-1/home/stack.env")
        place = Place(airflow, Registry(read.database_url))
        until_parsed(place)
        yield place, cluster
    finally:
        cluster.down()


@contextmanager
def in_the_cluster(root: Path, workers: int, apart: bool = False) -> Iterator[Place]:
    """The cluster with a graphics machine for each search worker; apart, these have the first processor alone."""
    with clustered(root, workers, workers, {"FEMUR_GPU_SLOTS": str(workers)}) as (place, cluster):
        machines = [one for one in cluster.running if apart and one[0] == "worker-gpu"]
        for thread in (
            thread for one in machines for process in cluster.processes(*one) for thread in process.threads()
        ):
            os.sched_setaffinity(thread.id, PROCESSORS[:1])
        yield place


@contextmanager
def on(processors: list[int]) -> Iterator[None]:
    """What is started meanwhile has these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def until_parsed(place: Place) -> None:
    while not all(map(place.airflow.has_dag, ("retrain", "ingest_dataset"))):
        time.sleep(1)


def at_work_s(tasks: list[dict[str, Any]]) -> float:
    """For how many seconds at least one of the tasks ran."""
    spans = sorted(
        (datetime.fromisoformat(task["start_date"]), datetime.fromisoformat(task["end_date"]))
        for task in tasks
        if task["start_date"] and task["state"] == "success"
    )
    total, reached = timedelta(), spans[0][0]
    for start, end in spans:
        total += max(end - max(start, reached), timedelta())
        reached = max(reached, end)
    return total.total_seconds()


def first_epoch_begins(registry: Registry, run_id: str) -> datetime:
    """When the first fit of a run began to train."""
    with registry.reading() as session:
        epochs = [
            row.at - timedelta(seconds=row.seconds)
            for table in (FitEpoch, TrialEpoch)
            for row in session.scalars(select(table).where(table.run_id == run_id))
        ]
    return min(epochs)


def idle_pct(registry: Registry, run_id: str, workers: int) -> tuple[float, float, float]:
    """What share of their time a search's workers did not train, what the schedule itself leaves idle, and how many
    seconds that makes for each trial."""
    with registry.reading() as session:
        search = session.scalars(select(Search).where(Search.run_id == run_id)).one()
        trials = session.scalars(select(Trial).where(Trial.run_id == run_id)).all()
        epochs = session.scalars(select(TrialEpoch).where(TrialEpoch.run_id == run_id)).all()
    busy_s = sum(epoch.seconds for epoch in epochs)
    begun = min(epoch.at - timedelta(seconds=epoch.seconds) for epoch in epochs)
    lasted_s = (max(epoch.at for epoch in epochs) - begun).total_seconds()
    spec = Spec("hyperband", from_json(search.space), search.max_epochs, search.seed, search.factor)
    at_best_s = makespan(spec, trials, epochs, workers)
    shares = [100 * (1 - busy_s / (workers * whole_s)) for whole_s in (lasted_s, at_best_s)]
    return shares[0], shares[1], workers * (lasted_s - at_best_s) / len(trials)


def makespan(spec: Spec, trials: Any, epochs: Any, workers: int) -> float:
    """How long the trials take so many workers that lose no time between them, in the oracle's own order."""
    scored = {key(trial.hyperparameters, trial.to_epoch): trial for trial in trials}
    load(spec.strategy)
    oracle, now_s = strategy(spec), 0.0
    at_work: list[tuple[float, int, Assignment]] = []
    for number in range(10_000):
        while len(at_work) < workers and isinstance(asked := oracle.ask(), Assignment):
            trial = scored[key(asked.values, asked.to_epoch)]
            took_s = sum(epoch.seconds for epoch in epochs if epoch.trial_id == trial.trial_id)
            heapq.heappush(at_work, (now_s + took_s, number * workers + len(at_work), asked))
        if not at_work:
            return now_s
        now_s, _, ended = heapq.heappop(at_work)
        trial = scored[key(ended.values, ended.to_epoch)]
        oracle.tell(ended.trial_id, trial.score, trial.best_epoch)
    raise SystemExit("the search does not end")


def key(hyperparameters: Mapping[str, Any], to_epoch: int) -> str:
    return json.dumps([sorted(hyperparameters.items()), to_epoch], default=str)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--cluster", action="store_true", help="Airflow's side runs in docker-compose.yaml's topology")
    asked.add_argument("--apart", action="store_true", help="what trains has a processor to itself; needs --cluster")
    asked.add_argument("--cases", type=int, default=60)
    asked.add_argument("--size", type=int, default=64, help="training size, px")
    options = asked.parse_args()
    if options.apart and (not options.cluster or len(PROCESSORS) < 2):
        asked.error("--apart is for --cluster, on two processors or more")
    place = in_the_cluster if options.cluster else embedded
    if options.apart:
        place = partial(in_the_cluster, apart=True)
        os.sched_setaffinity(0, PROCESSORS[1:])
    root = Path(tempfile.mkdtemp(prefix="femur-orchestration-"))
    root.chmod(0o755)  # PostgreSQL runs as another user where this is root's
    cases, home = root / "cases", root / "home"
    try:
        write_dataset(cases, options.cases, seed=3, size=2 * options.size)
        night = {"dataset": "night", "size": options.size, "budget": "smoke", "force": True}

        environment = told(home, 1)
        femur(environment, "up", "--store-only")
        femur(environment, "ingest", str(cases), "--name", "night", "--size", str(options.size))
        words = [word for name in ("dataset", "size", "budget") for word in (f"--{name}", str(night[name]))]
        with on(PROCESSORS[:1] if options.apart else PROCESSORS):
            bare_s = femur(environment, "retrain", *words, "--model", "bare", "--force")
        femur(environment, "down")

        with place(root / "one", 1) as stack:
            stack.ingest(cases, "night", options.size)
            run_id, begun, airflow_s = stack.run("retrain", {**night, "model": "airflow"})
            waited_s = (first_epoch_begins(stack.registry, run_id) - begun).total_seconds()
            between_tasks_s = airflow_s - at_work_s(stack.airflow.tasks("retrain", run_id))
            parse_s = stack.parse_s()
        if not options.apart:  # there two workers would share a processor
            with place(root / "two", 2) as stack:
                stack.ingest(cases, "night", options.size)
                run_id, _, _ = stack.run("retrain", {**night, "model": "airflow", "families": ["tuned"]})
                idle, bound, between_s = idle_pct(stack.registry, run_id, 2)
    finally:
        rmtree(root, ignore_errors=True)

    extra_s = airflow_s - bare_s
    table = Table("figure", "value", "goal")
    table.add_row("the steps run bare", f"{bare_s:.1f} s", "")
    table.add_row("the same in Airflow", f"{airflow_s:.1f} s", "")
    table.add_row("orchestration", f"{extra_s:.1f} s", f"{GOAL_S} s")
    table.add_row("of it while no task ran", f"{between_tasks_s:.1f} s", "")
    table.add_row("of a run of an hour", f"{extra_s / 36:.2f} %", f"{GOAL_PCT} %")
    table.add_row("trigger to first epoch", f"{waited_s:.1f} s", "")
    table.add_row("parsing all DAG files", f"{sum(parse_s.values()):.2f} s", "")
    slowest = max(parse_s, key=lambda dag_id: parse_s[dag_id])
    table.add_row("slowest DAG file", f"{slowest} {parse_s[slowest]:.2f} s", "")
    if not options.apart:
        table.add_row("two search workers idle", f"{idle:.1f} %", f"{bound + GOAL_IDLE_POINTS:.1f} %")
        table.add_row("the schedule's lower bound", f"{bound:.1f} %", "")
        table.add_row("idle above it, a trial", f"{between_s:.2f} s", "")
    Console().print(table)
    print(f"orchestration ratio (Airflow / bare): {airflow_s / bare_s:.2f}")


if __name__ == "__main__":
    main()
