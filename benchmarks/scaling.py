"""What saturates first when many retrains with many search workers share a cluster, training replaced by sleep.

    python benchmarks/scaling.py [--retrains 4] [--models 2] [--workers 64] [--slots 16] [--sleep 0.5]

The topology of docker-compose.yaml runs as processes of this machine, with the DAG `retrain` as it is: its tasks open
runs, lease trials, write epochs and conclude, but no network is built (`_sleeping.py`). All retrains are triggered at
once, of several models in turn, and run one after the other. Shown are tasks a minute, how long tasks waited in each
state, and what share of the machine each service took; from these, what a night of 100 retrains would need.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import psutil
from orchestration import Place, clustered
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Trial, TrialEpoch
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.stack.airflow_client import ENDED
from tests import registry_rows as rows
from tests.cluster import Cluster

NIGHT_RETRAINS, NIGHT_H = 100, 8
SLEEPS = {
    "train": ("train_family",),
    "search": ("work_on_search", "train_winner"),
    "evaluate": ("evaluate",),
    "champion": ("decide",),
    "close": ("close_run",),
}


def sleeping(folder: Path, epoch_s: float) -> Path:
    """This tree with steps that sleep in the place of those that train and score."""
    for part in ("dags", "plugins", "femur_tasks"):
        copytree(CHECKOUT / part, folder / part, ignore=lambda *_: ["__pycache__"])
    told = Path(__file__).with_name("_sleeping.py").read_text() + f"\n\nEPOCH_S = {epoch_s}\n"
    (folder / "femur_tasks/sleeping.py").write_text(told)
    for module, names in SLEEPS.items():
        with (folder / f"femur_tasks/steps/{module}.py").open("a") as file:
            file.write(f"\nfrom femur_tasks.sleeping import {', '.join(names)}\n")
    return folder


class Meter:
    """Processor seconds of each service's processes, also of those that come and go; looks once a second."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._seconds, self._stopped = cluster, dict[tuple[str, int], float](), threading.Event()
        self._before: dict[str, float] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(1):
            of_session = {one.process.pid: name for (name, _), one in self._cluster.running.items()}
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    service = of_session.get(_root_of(process, of_session))
                    if service:
                        spent = process.cpu_times()
                        self._seconds[service, process.pid] = spent.user + spent.system

    def total(self) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for (service, _), seconds in list(self._seconds.items()):
            found[service] += seconds
        return found

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def machine_s() -> float:
    """Processor seconds of everything on this machine, also of what ended between two looks."""
    spent = psutil.cpu_times()
    return float(spent.user + spent.nice + spent.system + spent.irq + spent.softirq)


def _root_of(process: psutil.Process, roots: dict[int, str]) -> int:
    """The replica's first process that this one descends from, else 0."""
    lineage = [process, *process.parents()]
    return next((one.pid for one in lineage if one.pid in roots), 0)


def waits(tasks: list[dict[str, Any]], begin: str, end: str) -> list[float]:
    """Seconds between two moments of tasks that have both."""
    moments = [[task[name] and datetime.fromisoformat(task[name]) for name in (begin, end)] for task in tasks]
    return [(later - earlier).total_seconds() for earlier, later in moments if earlier and later]


def night(place: Place, retrains: int, models: int) -> list[str]:
    """Trigger them all at once, and wait for the last one's end."""
    run_ids = [
        place.airflow.trigger("retrain", {"dataset": f"model-{number % models}", "seed": number})
        for number in range(retrains)
    ]
    while {place.airflow.run("retrain", run_id)["state"] for run_id in run_ids} - set(ENDED):
        time.sleep(2)
    return run_ids


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--retrains", type=int, default=4)
    asked.add_argument("--models", type=int, default=2)
    asked.add_argument("--workers", type=int, default=64, help="search workers of each retrain")
    asked.add_argument("--slots", type=int, default=16, help="training tasks side by side; each takes 0.3 GB here")
    asked.add_argument("--sleep", type=float, default=0.5, help="seconds of an epoch")
    options = asked.parse_args()
    root = Path(tempfile.mkdtemp(prefix="femur-scaling-"))
    root.chmod(0o755)  # PostgreSQL runs as another user where this is root's
    code = sleeping(root / "sleeping", options.sleep)
    variables = {
        "FEMUR_GPUS": str(options.slots),
        "FEMUR_GPU_SLOTS": str(options.slots),
    }
    try:
        with clustered(root / "cluster", options.workers, 1, variables, code) as (place, cluster):
            owner = Settings(home=root, _env_file=cluster.root / "volumes/ingest/stack.env")
            with Registry(owner.database_url).writing() as session:
                for number in range(options.models):
                    rows.dataset_version(session, f"{number}", f"model-{number}")
            meter = Meter(cluster)
            time.sleep(5)
            before, busy_s, started = meter.total(), machine_s(), time.monotonic()
            run_ids = night(place, options.retrains, options.models)
            lasted_s, busy_s = time.monotonic() - started, machine_s() - busy_s
            meter.stop()
            spent = {service: seconds - before.get(service, 0) for service, seconds in meter.total().items()}
            tasks = [task for run_id in run_ids for task in place.airflow.tasks("retrain", run_id)]
            ran = [task for task in tasks if task["queued_when"] and task["start_date"]]
            with place.registry.reading() as session:
                trials = session.scalar(select(func.count()).select_from(Trial).where(Trial.state == "completed"))
                epochs = session.scalar(select(func.count()).select_from(TrialEpoch))
    finally:
        rmtree(root, ignore_errors=True)

    cores = psutil.cpu_count() or 1
    table = Table("service", "processor s", "of the machine")
    for service, seconds in sorted(spent.items(), key=lambda one: -one[1]):
        table.add_row(service, f"{seconds:.0f}", f"{100 * seconds / cores / lasted_s:.0f} %")
    table.add_row("the whole machine", f"{busy_s:.0f}", f"{100 * busy_s / cores / lasted_s:.0f} %")
    Console().print(table)
    told = Table("figure", "value")
    told.add_row("retrains", f"{len(run_ids)} in {lasted_s:.0f} s")
    told.add_row("tasks that ran", f"{len(ran)}, {60 * len(ran) / lasted_s:.0f} a minute")
    told.add_row("processor a task", f"{sum(spent.values()) / len(ran):.1f} s")
    for words, begin, end in (
        ("waited for a slot", "scheduled_when", "queued_when"),
        ("waited for a worker", "queued_when", "start_date"),
        ("ran", "start_date", "end_date"),
    ):
        seconds = sorted(waits(ran, begin, end))
        told.add_row(
            words, f"median {statistics.median(seconds):.1f} s, 95 % {seconds[int(0.95 * len(seconds))]:.1f} s"
        )
    told.add_row("trials, epochs", f"{trials}, {epochs}")
    demand = NIGHT_RETRAINS * len(ran) / len(run_ids)
    hours = demand * lasted_s / len(ran) / 3600
    told.add_row(f"a night of {NIGHT_RETRAINS} such retrains", f"{demand:.0f} tasks: {hours:.1f} h of {NIGHT_H} h here")
    Console().print(told)
    print(f"retrains a night of {NIGHT_H} h: {NIGHT_RETRAINS * NIGHT_H / hours:.0f}")


if __name__ == "__main__":
    main()
