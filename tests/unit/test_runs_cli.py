"""`femur runs`: what it shows of a run, and how a search is stopped and continued."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from femur_tasks import cli
from femur_tasks.cli import show
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Search
from femur_tasks.search.leases import Lease, Leases
from femur_tasks.search.space import GRID
from femur_tasks.search.strategy import Spec
from femur_tasks.settings import settings
from tests import registry_rows as rows
from tests.conftest import Clock

Femur = Callable[..., int]


@pytest.fixture
def registry(tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry of a home that the CLI works in."""
    monkeypatch.setenv("FEMUR_HOME", str(tmp_path))
    settings.cache_clear()
    shutil.copy(migrated_sqlite, tmp_path / "registry.db")
    yield Registry(settings().database_url)
    settings.cache_clear()


@pytest.fixture
def femur(monkeypatch: pytest.MonkeyPatch) -> Femur:
    monkeypatch.setattr(show.out, "width", 200)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["femur", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def searching(registry: Registry, clock: Clock) -> Leases:
    with registry.writing() as session:
        rows.run(session, "night-1")
    leases = Leases(registry, "night-1", "tuned", 60, clock)
    leases.open(Spec("grid", GRID, 5, seed=0, samples=4))
    assert isinstance(leases.take("worker-7"), Lease)
    return leases


def test_list_names_the_runs(
    femur: Femur, registry: Registry, searching: Leases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert femur("runs", "list") == 0
    assert "night-1  running  femur" in capsys.readouterr().out
    assert femur("runs", "list", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["run_id"], told["state"], told["finished_at"]) == ("night-1", "running", None)


def test_list_keeps_long_ids_whole_on_a_narrow_terminal(
    femur: Femur, registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = "asset_triggered__2026-01-01T02:00:00.123456+00:00_ClPYVV63F"
    with registry.writing() as session:
        rows.run(session, run_id, state="refused")
    monkeypatch.setattr(show.out, "width", 80)
    assert femur("runs", "list") == 0
    assert f"{run_id}  refused  femur" in capsys.readouterr().out


def test_watch_shows_the_last_run(femur: Femur, searching: Leases, capsys: pytest.CaptureFixture[str]) -> None:
    assert femur("runs", "watch", "--once") == 0
    said = capsys.readouterr().out
    for words in ("run night-1: running", "search tuned: grid, open, 0 of 20 epochs", "0 of 4", "worker-7", "0 of 5"):
        assert words in said
    assert femur("runs", "watch", "night-1", "--json") == 0
    (search,) = json.loads(capsys.readouterr().out)["searches"]
    assert search["rungs"][0]["running"] == 1


def test_run_that_found_nothing_new_is_shown_only_where_there_is_no_other(
    femur: Femur, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry.writing() as session:
        rows.run(session, "quiet-1", state="nothing_new")
    assert femur("runs", "watch", "--once") == 0
    assert "run quiet-1: nothing_new" in capsys.readouterr().out
    for days, run_id in enumerate(("night-1", "night-2"), start=1):
        with registry.writing() as session:
            rows.run(session, run_id, state="refused", started_at=rows.NOON - timedelta(days=3 - days))
        assert femur("runs", "watch", "--once") == 0
        assert f"run {run_id}: refused" in capsys.readouterr().out


def test_search_is_cancelled_and_continued(femur: Femur, registry: Registry, searching: Leases) -> None:
    for command, state in (("cancel", "cancelled"), ("continue", "open")):
        assert femur("runs", command, "night-1") == 0
        with registry.reading() as session:
            assert session.get_one(Search, ("night-1", "tuned")).state == state
    assert searching.counts() == {"waiting": 4}


def test_what_is_not_so_of_a_search_is_not_said(
    femur: Femur, registry: Registry, searching: Leases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert femur("runs", "continue", "night-1") == 1
    assert "that is cancelled.\nReceived: tuned is open." in capsys.readouterr().err
    with registry.writing() as session:
        session.get_one(Search, ("night-1", "tuned")).state = "done"
    assert femur("runs", "cancel", "night-1") == 1
    assert "that is open.\nReceived: tuned is done." in capsys.readouterr().err


def test_search_of_a_reproduction_is_cancelled_and_continued(
    femur: Femur, registry: Registry, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry.writing() as session:
        rows.run(session, "table-1", model="")
    for name in ("sweep", "grid"):
        Leases(registry, "table-1", name, 60, clock).open(Spec("grid", GRID, 5, seed=0, samples=4))
    with registry.writing() as session:
        session.get_one(Search, ("table-1", "sweep")).state = "done"
    for command, state in (("cancel", "cancelled"), ("continue", "open")):
        assert femur("runs", command) == 0
        with registry.reading() as session:
            assert session.get_one(Search, ("table-1", "grid")).state == state
            assert session.get_one(Search, ("table-1", "sweep")).state == "done"
    assert "femur reproduce --run-id table-1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["watch", "show", "logs", "cancel", "continue"])
def test_run_that_is_not_there(
    femur: Femur, registry: Registry, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert femur("runs", command) == 1
    assert "Expected a run.\nReceived: none yet." in capsys.readouterr().err
    assert femur("runs", command, "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err
