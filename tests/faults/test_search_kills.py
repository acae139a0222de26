"""A search whose workers are killed again and again ends as one that never was: same trials, epochs and scores."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import func, select

from femur_tasks.parameters import IngestParameters, RetrainParameters
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Search, Trial, TrialEpoch
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.run import open_run
from femur_tasks.storage import open_store
from tests.conftest import settings_of
from tests.processes import environment
from tests.radiographs import write_reference

KILLS, WORKERS, LEASE_S = 10, 2, 5
END_S = 540
# Hyperband, R = 9, factor 3: 9 + 3 + 1, 5 + 2 and 3 trials of 1, 2 and 6, 3 and 6, and 9 epochs
TRIALS, EPOCHS = 23, 75


@dataclass(frozen=True)
class Place:
    """A home with a registry and one dataset version."""

    context: Context
    env: dict[str, str]

    def open(self, run_id: str) -> None:
        open_run(self.context, run_id, "cli", RetrainParameters(budget="smoke", size=32, seed=3, force=True))

    def worker(self, run_id: str, owner: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.search_worker", run_id, owner]
        return subprocess.Popen(command, cwd=CHECKOUT, env=self.env, stderr=subprocess.PIPE)  # noqa: S603

    def holds(self, run_id: str, owner: str) -> bool:
        """Whether the worker trains a trial now."""
        with self.context.registry.reading() as session:
            held = select(Trial).where(Trial.run_id == run_id, Trial.owner == owner, Trial.state == "running")
            return session.scalars(held).first() is not None

    def completed(self, run_id: str) -> int:
        with self.context.registry.reading() as session:
            ended = select(func.count()).where(Trial.run_id == run_id, Trial.state == "completed")
            return session.scalar(ended) or 0

    def is_done(self, run_id: str) -> bool:
        with self.context.registry.reading() as session:
            search = session.get(Search, (run_id, "tuned"))
            return search is not None and search.state == "done"

    def outcome(self, run_id: str) -> dict[Any, Any]:
        """By configuration and span: the trial's state, its score, and its curve."""
        with self.context.registry.reading() as session:
            curves: dict[str, list[tuple[int, float, float]]] = {}
            for row in session.scalars(
                select(TrialEpoch).where(TrialEpoch.run_id == run_id).order_by(TrialEpoch.epoch)
            ):
                curves.setdefault(row.trial_id, []).append((row.epoch, row.loss, row.val_dice))
            return {
                (tuple(sorted(row.hyperparameters.items())), row.bracket, row.rung, row.from_epoch, row.to_epoch): (
                    *(row.state, row.score, row.best_epoch),
                    curves[row.trial_id],
                )
                for row in session.scalars(select(Trial).where(Trial.run_id == run_id))
            }

    def epochs(self, run_id: str) -> int:
        with self.context.registry.reading() as session:
            return session.scalar(select(func.count()).select_from(TrialEpoch).where(TrialEpoch.run_id == run_id)) or 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path, store_settings: Settings) -> Place:
    home, bucket = tmp_path_factory.mktemp("search") / "home", f"search-{uuid4().hex[:8]}"
    env = environment(home, store_settings, FEMUR_S3_BUCKET=bucket, FEMUR_LEASE_S=str(LEASE_S))
    shutil.copy(migrated_sqlite, home / "registry.db")
    reached = {name: getattr(store_settings, name) for name in ("s3_endpoint", "s3_access_key", "s3_secret_key")}
    settings = settings_of(home).model_copy(update={**reached, "s3_bucket": bucket})
    context = Context(Registry(settings.database_url), open_store(settings), settings, utc_now)
    told = IngestParameters(path=str(write_reference(home / "data")), size=32, budget="smoke")
    assert ingest(context, told).state == "ingested"
    return Place(context, env)


def lasting_mb(worker: subprocess.Popen[bytes]) -> float:
    """What a worker holds beside the process of its trial: itself, and the server that forks its trials."""
    try:
        process = psutil.Process(worker.pid)
        return sum(one.memory_info().rss for one in [process, *process.children()]) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


@pytest.mark.timeout(END_S + 60)
def test_search_of_killed_workers_is_the_search_of_one_that_lived(place: Place) -> None:
    place.open("alone")
    alone = place.worker("alone", "alone")
    place.open("killed")
    names, kills, end = count(), 0, time.monotonic() + END_S
    drawn = random.Random(5)
    running = {owner: place.worker("killed", owner) for owner in (f"worker-{next(names)}" for _ in range(WORKERS))}
    memory: dict[int, float] = {}
    try:
        while not place.is_done("killed"):
            if (held_mb := lasting_mb(alone)) > 0:
                memory[place.completed("alone")] = held_mb
            assert time.monotonic() < end, f"{kills} kills, {place.outcome('killed').keys()}"
            for owner, process in list(running.items()):
                if process.poll() is not None:
                    assert process.returncode == 0, process.communicate()[1].decode()
                    del running[owner]
            owner = drawn.choice(list(running)) if running else ""
            if kills < KILLS and owner and place.holds("killed", owner):
                time.sleep(drawn.uniform(0, 1.5))
                os.kill(running[owner].pid, signal.SIGKILL)
                running.pop(owner).communicate()
                kills += 1
            while len(running) < WORKERS and not place.is_done("killed"):
                owner = f"worker-{next(names)}"
                running[owner] = place.worker("killed", owner)
            time.sleep(0.1)
        _, err = alone.communicate(timeout=max(1, end - time.monotonic()))
        assert alone.returncode == 0, err.decode()
    finally:
        for process in [alone, *running.values()]:
            process.kill()
            process.communicate()
    assert kills == KILLS
    assert max(memory) > 10
    assert memory[max(memory)] < 1.05 * memory[1], memory
    expected, found = place.outcome("alone"), place.outcome("killed")
    assert (len(expected), place.epochs("alone")) == (len(found), place.epochs("killed")) == (TRIALS, EPOCHS)
    assert {state for state, *_ in found.values()} == {"completed"}
    assert found == expected
