"""An ingest that is killed at any point goes on where it was, or is started over: one version, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import func, select

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Dataset, DatasetCase, DatasetVersion, IncomingObject, Ingest
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.steps import incoming, stages
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.storage import open_store
from tests.conftest import settings_of
from tests.processes import environment, femur
from tests.radiographs import REFERENCE, packed, write_reference

# of five cases and three splits
BEFORE_ROWS = (
    *("downloaded", "planned", "converting", "converted", "raw stored 7", "shards stored 2", "manifests stored"),
    "publish: before the commit",
)
BEHIND_ROWS = ("publish: behind the commit", "settle: before the commit", "settle: behind the commit")
STARTED_OVER = ("converting", "raw stored 7", "publish: before the commit", "publish: behind the commit")
ONE, TWO = "incoming/femur/one.zip", "incoming/other/two.zip"
ORPHANS_S = 10
THREE_DAYS_S = 3 * 86_400
DEFAULTS = IngestParameters(size=32)
Table = type[Dataset | DatasetVersion | DatasetCase | Ingest]


@dataclass(frozen=True)
class Place:
    """A home with a registry of its own, and a bucket with two drops, of which the first is ingested and killed."""

    context: Context
    env: dict[str, str]

    @property
    def home(self) -> Path:
        return self.context.settings.home

    def start(self, run_id: str, point: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.killed_ingest", run_id, point]
        return subprocess.Popen(  # noqa: S603
            command, cwd=CHECKOUT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def kill(self, point: str) -> tuple[int, bytes]:
        process = self.start("night", point)
        _, err = process.communicate(timeout=90)
        return process.returncode, err

    def look(self) -> list[dict[str, str]]:
        return incoming.look_for_incoming(self.context)

    def go_on(self, source: dict[str, str], run_id: str) -> dict[str, Any]:
        """Every task of the run from the first one on, as Airflow tries them again."""
        planned = stages.plan(self.context, source, DEFAULTS, run_id)
        for part in planned["parts"]:
            stages.convert(self.context, part)
        outcome: dict[str, Any] = stages.publish(self.context, planned)["outcome"]
        return outcome

    def count(self, table: Table) -> int:
        with self.context.registry.reading() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def ledger(self) -> dict[str, IncomingObject]:
        with self.context.registry.reading() as session:
            rows = session.scalars(select(IncomingObject)).all()
        found = {row.key: row for row in rows}
        assert len(found) == len(rows), "a drop is in the ledger once"
        return found

    def manifest(self) -> Manifest:
        """Of the only version, whose every object must be there."""
        store = self.context.store
        with self.context.registry.reading() as session:
            version = session.scalars(select(DatasetVersion)).one()
        made = Manifest.from_json(store.get(version.manifest_key))
        assert made.digest == version.digest
        keys = [key for case in made.cases for key in (case.raw_image_key, case.raw_mask_key)]
        for key in [*keys, *(key for split in made.shards for key in made.shard_keys(split))]:
            store.get(key)
        return made

    def work(self) -> list[Path]:
        folder = self.context.settings.work_folder
        return list(folder.iterdir()) if folder.exists() else []


def processes_of(home: Path) -> list[str]:
    """The processes that were started for a home and still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("FEMUR_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def has_no_process(home: Path) -> bool:
    end = time.monotonic() + ORPHANS_S
    while processes_of(home) and time.monotonic() < end:
        time.sleep(0.1)
    return processes_of(home) == []


@pytest.fixture(scope="module")
def drops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drops")
    one, two = write_reference(folder / "one"), write_reference(folder / "two", {**REFERENCE, "F": "train"})
    return {ONE: packed(one, folder / "one.zip"), TWO: packed(two, folder / "two.zip")}


MakePlace = Callable[[], Place]


@pytest.fixture(scope="module")
def new_place(
    tmp_path_factory: pytest.TempPathFactory,
    drops: dict[str, Path],
    migrated_sqlite: Path,
    store_settings: Settings,
) -> MakePlace:
    reached = {name: getattr(store_settings, name) for name in ("s3_endpoint", "s3_access_key", "s3_secret_key")}

    def make() -> Place:
        home, bucket = tmp_path_factory.mktemp("place") / "home", f"kills-{uuid4().hex[:8]}"
        env = environment(home, store_settings, FEMUR_S3_BUCKET=bucket)
        shutil.copy(migrated_sqlite, home / "registry.db")
        settings = settings_of(home).model_copy(update={**reached, "s3_bucket": bucket})
        store = open_store(settings)
        for key, archive in drops.items():
            store.put_named(archive, key)
        return Place(Context(Registry(settings.database_url), store, settings, utc_now), env)

    return make


@dataclass(frozen=True)
class Killed:
    """A place where an ingest was killed."""

    place: Place
    code: int
    err: bytes


@pytest.fixture(scope="module")
def deaths(request: pytest.FixtureRequest, new_place: MakePlace) -> Iterator[dict[str, Future[Killed]]]:
    """By the name of each test that has a point: a place of its own, killed there; two die at a time."""

    def die(place: Place, point: str) -> Killed:
        return Killed(place, *place.kill(point))

    with ThreadPoolExecutor(2) as pool:
        yield {
            item.name: pool.submit(die, new_place(), str(item.callspec.params["point"]))
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.path == request.path and "point" in item.fixturenames
        }


@pytest.fixture
def place(request: pytest.FixtureRequest, deaths: dict[str, Future[Killed]]) -> Place:
    """The place of this test, whose ingest has been killed."""
    found = deaths[request.node.name].result()
    assert found.code == -signal.SIGKILL, found.err.decode()
    return found.place


def check_after_the_kill(place: Place, point: str) -> None:
    """All of the version is in the registry, or nothing; who has not been settled waits."""
    ledger = place.ledger()
    there = point in BEHIND_ROWS
    assert [place.count(table) for table in (Dataset, DatasetVersion, DatasetCase, Ingest)] == [
        there,
        there,
        5 * there,
        there,
    ]
    assert ledger[TWO].state == "waiting"
    assert ledger[ONE].state == ("ingested" if point == "settle: behind the commit" else "waiting")


def check_in_the_end(place: Place) -> None:
    """One version, settled once; the other drop still waits and can be ingested."""
    made = place.manifest()
    assert {case.case_id: case.split for case in made.cases} == {
        "A": "train",
        "B": "train",
        "C": "train",
        "D": "val",
        "E": "test",
    }
    assert [place.count(table) for table in (Dataset, DatasetVersion, DatasetCase)] == [1, 1, 5]
    one = place.ledger()[ONE]
    assert (one.state, one.digest, one.detail) == ("ingested", made.digest, "")
    assert [row["key"] for row in place.look()] == [TWO]


@pytest.mark.parametrize("point", [*BEFORE_ROWS, *BEHIND_ROWS])
def test_run_that_is_tried_again_goes_on(place: Place, point: str) -> None:
    check_after_the_kill(place, point)
    before = place.ledger()[ONE]
    outcome = place.go_on({"key": ONE, "etag": before.etag, "dataset": "femur"}, "night")
    assert (outcome["state"], outcome["dataset"]) == ("ingested", "femur"), "it is still news, whoever was killed"
    check_in_the_end(place)
    assert place.count(Ingest) == 1
    assert place.ledger()[ONE].ingest_id == outcome["ingest_id"]
    assert place.work() == []
    assert has_no_process(place.home)


@pytest.mark.parametrize("point", STARTED_OVER)
def test_new_look_starts_over(place: Place, point: str) -> None:
    check_after_the_kill(place, point)
    assert has_no_process(place.home), "converters end when the one whom they work for does"
    (left,) = place.work()
    source, other = place.look()
    assert (source["key"], other["key"]) == (ONE, TWO)
    outcome = place.go_on(source, "next night")
    assert outcome["state"] == ("known" if point in BEHIND_ROWS else "ingested")
    check_in_the_end(place)
    assert place.count(Ingest) == 1 + (point in BEHIND_ROWS)
    assert place.work() == [left], "somebody may still try the killed run again"
    for path in (*left.iterdir(), left):
        os.utime(path, (0, time.time() - THREE_DAYS_S))
    assert place.go_on(other, "night after")["state"] == "ingested"
    assert place.work() == []


def test_killed_run_that_wakes_up_late_changes_nothing(new_place: MakePlace) -> None:
    place = new_place()
    code, err = place.kill("converted")
    assert code == -signal.SIGKILL, err.decode()
    source, _ = place.look()
    assert place.go_on(source, "next night")["state"] == "ingested"
    assert place.go_on(source, "night")["state"] == "known"
    check_in_the_end(place)
    assert place.work() == []


# ---- two at once


def test_two_runs_that_publish_one_drop_at_once_make_one_version(new_place: MakePlace, tmp_path: Path) -> None:
    place = new_place()
    both = [place.start(run_id, f"meet {tmp_path}") for run_id in ("one", "two")]
    assert len(processes_of(place.home)) >= 2
    told = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [0, 0], [err.decode() for _, err in told]
    outcomes = [json.loads(out) for out, _ in told]
    assert sorted(outcome["state"] for outcome in outcomes) == ["ingested", "known"], "one of them has news"
    assert len({outcome["digest"] for outcome in outcomes}) == 1
    assert place.count(Ingest) == 2
    check_in_the_end(place)
    assert place.work() == []
    assert has_no_process(place.home)


def test_two_commands_that_ingest_what_waits_at_once_make_one_version_each(new_place: MakePlace) -> None:
    place = new_place()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: femur(place.env, "ingest", "--size", "32", "--json"), range(2)))
    assert [done.returncode for done in both] == [0, 0], [done.stderr.decode() for done in both]
    states = [result["state"] for done in both for result in json.loads(done.stdout)]
    assert sorted(set(states)) in (["ingested"], ["ingested", "known"])
    assert states.count("ingested") == place.count(DatasetVersion) == 2
    assert {row.state for row in place.ledger().values()} == {"ingested"}
    assert place.look() == []
    assert place.work() == []
