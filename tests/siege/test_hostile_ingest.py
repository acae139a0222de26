"""What hostile sources can do to a machine that ingests them: nothing, and they take little time and memory for it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import Base
from femur_tasks.settings import Settings
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.steps.ingest import ingest
from femur_tasks.storage import open_store
from tests.conftest import settings_of
from tests.hostile import HOSTILE, SECRET, secret_of
from tests.processes import Measured, environment, measured_femur
from tests.radiographs import write_reference

CPU_S, LARGEST_MIB = 10, 700

Rows = dict[str, list[Any]]


@dataclass(frozen=True)
class Siege:
    """A home with one honest version, attacked by every hostile source, two at a time."""

    context: Context
    sources: Path
    before: tuple[Rows, list[str], list[str]]
    attacks: dict[str, Future[Measured]]

    def state(self) -> tuple[Rows, list[str], list[str]]:
        """All rows but the records of ingests, all objects but reports, all files but the registry's."""
        with self.context.registry.reading() as session:
            rows = {
                table.name: [tuple(row) for row in session.execute(select(table))]
                for table in Base.metadata.sorted_tables
                if table.name != "ingest"
            }
        keys = [found.key for found in self.context.store.list("") if not found.key.startswith("reports/")]
        return rows, keys, files(self.sources.parent)


def files(folder: Path) -> list[str]:
    """All below a folder but the registry."""
    return sorted(str(path) for path in folder.rglob("*") if not path.name.startswith("registry.db"))


@pytest.fixture(scope="module")
def siege(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, store_settings: Settings
) -> Iterator[Siege]:
    place, bucket = tmp_path_factory.mktemp("siege"), f"siege-{uuid4().hex[:8]}"
    home, sources = place / "home", place / "sources"
    env = environment(home, store_settings, FEMUR_S3_BUCKET=bucket)
    reached = {name: getattr(store_settings, name) for name in ("s3_endpoint", "s3_access_key", "s3_secret_key")}
    settings = settings_of(home).model_copy(update={**reached, "s3_bucket": bucket})
    migrate(settings.database_url)
    context = Context(Registry(settings.database_url), open_store(settings), settings, utc_now)
    ingest(context, IngestParameters(path=str(write_reference(place / "honest")), size=32))
    wanted = [name for name in HOSTILE if any(f"[{name}]" in item.name for item in request.session.items)]
    made = {}
    for number, name in enumerate(wanted):
        (folder := sources / f"{number}").mkdir(parents=True)
        secret_of(folder)
        made[name] = HOSTILE[name].make(folder)
    with ThreadPoolExecutor(2) as pool:

        def attack(name: str) -> Measured:
            return measured_femur(env, "ingest", str(made[name]), "--size", "32", "--json")

        siege = Siege(context, sources, ({}, [], []), {})
        before = siege.state()
        yield Siege(context, sources, before, {name: pool.submit(attack, name) for name in wanted})
    context.registry.engine.dispose()


@pytest.fixture
def ended(siege: Siege) -> Callable[[str], Measured]:
    return lambda name: siege.attacks[name].result()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_source_is_refused_in_little_time_and_memory(ended: Callable[[str], Measured], name: str) -> None:
    done = ended(name)
    assert done.code == 2, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    codes = {found["code"] for found in json.loads(done.stdout)["problems"] if found["is_error"]}
    assert HOSTILE[name].code in codes
    assert done.cpu_s < CPU_S
    assert done.largest_mib < LARGEST_MIB


def test_nothing_has_changed_but_the_records_of_ingests(siege: Siege) -> None:
    assert all(attack.result().code == 2 for attack in siege.attacks.values())
    rows, keys, there = siege.state()
    assert rows == siege.before[0]
    assert keys == siege.before[1]
    assert there == siege.before[2], "nothing was written beside the work folder, and that is empty"


def test_no_file_of_this_machine_was_read(siege: Siege) -> None:
    assert all(attack.result().code == 2 for attack in siege.attacks.values())
    for found in siege.context.store.list(""):
        data = siege.context.store.get(found.key)
        assert SECRET not in (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
