"""An installation moved into another one, or kept in a folder, arrives whole, once, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, select

from femur_tasks.errors import DigestMismatch, FemurError, NotFound, Unreachable
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import champion_of, promote_version
from femur_tasks.registry.tables import Base, Promotion, Run
from femur_tasks.settings import settings_in
from femur_tasks.steps import moving
from femur_tasks.steps.context import Context, patient_key
from femur_tasks.steps.moving import back_up, migrate, restore
from femur_tasks.steps.verify import verify
from femur_tasks.storage import MemoryStore
from tests.conftest import Clock
from tests.contract.test_migrations import filled


@pytest.fixture
def source(whole: Context) -> Context:
    """Both runs have ended, and something waits under incoming/."""
    with whole.registry.writing() as session:
        session.get_one(Run, "femur-run-1").state = "promoted"
        session.get_one(Run, "femur-run-2").state = "kept"
    whole.store.put_named(b"to come", "incoming/femur/march.zip")
    return whole


@pytest.fixture
def target(source: Context, database_url: str, tmp_path: Path, clock: Clock) -> Iterator[Context]:
    """An empty installation, on SQLite and on PostgreSQL, described by a file as a person would write it."""
    file = tmp_path / "cluster" / "there.env"
    file.parent.mkdir()
    key = patient_key(source.settings).decode()
    file.write_text(f"FEMUR_REGISTRY_URL={database_url}\nFEMUR_S3_ENDPOINT=there:9000\nFEMUR_PATIENT_KEY={key}\n")
    described = settings_in(file)
    registry = Registry(described.database_url)
    yield Context(registry, MemoryStore(), described, clock)
    registry.engine.dispose()


def contents(registry: Registry) -> dict[str, list[tuple[object, ...]]]:
    with registry.reading() as session:
        if not inspect(session.connection()).get_table_names():
            return {}
        return {
            table.name: [tuple(row) for row in session.execute(select(table))] for table in Base.metadata.sorted_tables
        }


def objects(context: Context) -> dict[str, int]:
    return {found.key: found.size for found in context.store.list("")}


def test_everything_arrives_and_work_goes_on_there(source: Context, target: Context) -> None:
    before = contents(source.registry)
    moved = migrate(source, target)
    assert contents(source.registry) == before
    assert {name: len(table) for name, table in contents(target.registry).items()} == moved.rows
    assert objects(target) == objects(source)
    assert (moved.objects, moved.bytes) == (len(objects(source)), sum(objects(source).values()))
    assert verify(target, timedelta(0)) == ([], verify(source, timedelta(0))[1])
    with target.registry.writing() as session:
        assert champion_of(session, "femur").version == 1
        promote_version(session, "femur", 2, "cli:ann", "second", True, target.now())
        numbers = session.scalars(select(Promotion.id).order_by(Promotion.id)).all()
    assert numbers == [1, 2]


def test_no_table_is_forgotten(context: Context, database_url: str, clock: Clock, tmp_path: Path) -> None:
    filled(context.registry)
    (tmp_path / "there.env").write_text(f"FEMUR_REGISTRY_URL={database_url}\nFEMUR_S3_ENDPOINT=there:9000\n")
    described = settings_in(tmp_path / "there.env")
    target = Context(Registry(database_url), MemoryStore(), described, clock)
    migrate(context, target)
    assert contents(target.registry) == contents(context.registry)
    target.registry.engine.dispose()


class Stopping(MemoryStore):
    """A store that falls silent after so many objects."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def put_named(self, data: bytes | Path, key: str) -> None:
        if self.after == 0:
            raise Unreachable("Expected the object store to answer. Received: nothing.")
        self.after -= 1
        super().put_named(data, key)


def test_a_copy_that_was_stopped_goes_on(source: Context, target: Context) -> None:
    store = Stopping(after=4)
    target = Context(target.registry, store, target.settings, target.now)
    with pytest.raises(Unreachable):
        migrate(source, target)
    assert not any(contents(target.registry).values())
    store.after = 1000
    moved = migrate(source, target)
    assert moved.objects == len(objects(source)) - 4
    assert store.bytes_sent == sum(objects(source).values())


def test_what_is_made_meanwhile_arrives_before_the_row_that_names_it(
    source: Context, target: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_rows = moving.copy_rows

    def late(*told: object) -> dict[str, int]:
        source.store.put(b"weights of tonight", "artefacts")
        return copy_rows(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "copy_rows", late)
    migrate(source, target)
    assert objects(target) == objects(source)


def test_backup_restored_elsewhere_is_the_whole(source: Context, target: Context, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    kept = back_up(source, folder)
    assert kept.objects == len(objects(source))
    assert sorted(path.name for path in folder.iterdir()) == ["objects", "registry.db"]
    assert folder.stat().st_mode & 0o077 == 0
    restored = restore(target, folder)
    assert (restored.rows, restored.objects) == (kept.rows, kept.objects)
    assert contents(target.registry) == contents(source.registry)
    assert objects(target) == objects(source)
    assert verify(target, timedelta(0))[0] == []


def test_backup_is_brought_up_to_date(source: Context, tmp_path: Path) -> None:
    back_up(source, tmp_path)
    again = back_up(source, tmp_path)
    assert again.objects == 0
    with source.registry.writing() as session:
        promote_version(session, "femur", 2, "cli:ann", "second", True, source.now())
    key = source.store.put(b"more", "reports")
    assert back_up(source, tmp_path).objects == 1
    assert (tmp_path / "objects" / key).read_bytes() == b"more"
    assert contents(Registry(f"sqlite:///{tmp_path / 'registry.db'}")) == contents(source.registry)


def test_backup_of_before_is_whole_until_the_new_one_is(source: Context, tmp_path: Path) -> None:
    back_up(source, tmp_path)
    before = (tmp_path / "registry.db").read_bytes()
    key = source.store.put(b"sound", "reports")
    source.store.put_named(b"damaged", key)
    with pytest.raises(DigestMismatch):
        back_up(source, tmp_path)
    assert (tmp_path / "registry.db").read_bytes() == before


def test_damaged_backup_restores_no_row(source: Context, target: Context, tmp_path: Path) -> None:
    back_up(source, tmp_path / "backup")
    next((tmp_path / "backup/objects/artefacts").iterdir()).write_bytes(b"other weights")
    with pytest.raises(DigestMismatch):
        restore(target, tmp_path / "backup")
    assert not any(contents(target.registry).values())


def test_folder_without_a_backup_says_so(target: Context, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="Expected a backup"):
        restore(target, tmp_path)


def test_name_that_leads_out_of_the_folder_is_refused(source: Context, tmp_path: Path) -> None:
    source.store.put_named(b"planted", "incoming/../../../planted")
    with pytest.raises(FemurError, match="Expected a key"):
        back_up(source, tmp_path / "a" / "backup")
    assert list(tmp_path.rglob("planted")) == []


def refused(source: Context, target: Context, what: str) -> None:
    before = contents(target.registry)
    with pytest.raises(FemurError, match=what):
        migrate(source, target)
    assert contents(target.registry) == before


def test_two_histories_do_not_become_one(source: Context, target: Context) -> None:
    migrate(source, target)
    refused(source, target, "Expected an empty registry")


def test_another_patient_key_is_refused(source: Context, target: Context) -> None:
    other = target.settings.model_copy(update={"patient_key": type(target.settings.patient_key)("x" * 32)})
    refused(source, Context(target.registry, target.store, other, target.now), "the same patient key")


def test_a_run_at_work_is_refused(source: Context, target: Context) -> None:
    with source.registry.writing() as session:
        session.get_one(Run, "femur-run-2").state = "running"
    refused(source, target, "Received: femur-run-2")


def test_its_own_installation_is_refused(source: Context) -> None:
    refused(source, source, "this installation's own")


def test_environment_does_not_speak_for_the_other_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEMUR_REGISTRY_URL", "sqlite:////here.db")
    monkeypatch.setenv("FEMUR_HOME", "/here")
    (tmp_path / "stack.env").write_text("FEMUR_S3_ENDPOINT=there:9000\n")
    there = settings_in(tmp_path / "stack.env")
    assert there.database_url == f"sqlite:///{tmp_path / 'registry.db'}"
    assert there.s3_endpoint == "there:9000"
