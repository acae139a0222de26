"""Which processes count as ours, and that no other is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from femur_tasks.stack import leftovers

Start = Callable[..., subprocess.Popen[str]]
Session = Callable[..., tuple[psutil.Process, psutil.Process]]
SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a sleeping process with these variables in its environment."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str = SLEEP, *, own_session: bool = False, **marks: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FEMUR_")}
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", code],
            env=clean | marks,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=own_session,
        )
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
        return process

    yield run
    for process in started:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()
        process.kill()
        process.communicate()


def test_marked_process_is_found_by_its_part(tmp_path: Path, start: Start) -> None:
    process = start(FEMUR_HOME=str(tmp_path), FEMUR_PART="scheduler")
    assert {part: [p.pid for p in group] for part, group in leftovers.find(tmp_path).items()} == {
        "scheduler": [process.pid]
    }


@pytest.mark.parametrize(
    "marks",
    [{}, {"FEMUR_HOME": "HOME"}, {"FEMUR_PART": "store"}, {"FEMUR_HOME": "/elsewhere", "FEMUR_PART": "store"}],
    ids=["none", "home-alone", "part-alone", "other-home"],
)
def test_process_without_the_full_mark_is_spared(tmp_path: Path, start: Start, marks: dict[str, str]) -> None:
    foreign = start(**{name: str(tmp_path) if value == "HOME" else value for name, value in marks.items()})
    assert leftovers.find(tmp_path) == {}
    assert leftovers.end(tmp_path) == 0
    assert foreign.poll() is None


def test_only_the_named_part_is_ended(tmp_path: Path, start: Start) -> None:
    store = start(FEMUR_HOME=str(tmp_path), FEMUR_PART="store")
    scheduler = start(FEMUR_HOME=str(tmp_path), FEMUR_PART="scheduler")
    assert leftovers.end(tmp_path, {"scheduler"}) == 1
    assert scheduler.wait(5) == -signal.SIGTERM
    assert store.poll() is None


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path, start: Start) -> None:
    deaf = start(DEAF, FEMUR_HOME=str(tmp_path), FEMUR_PART="store")
    leftovers.end(tmp_path, grace_s=0.2)
    assert deaf.wait(5) == -signal.SIGKILL


def test_home_reached_by_a_link_is_the_same_home(tmp_path: Path, start: Start) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    start(FEMUR_HOME=str(tmp_path / "link"), FEMUR_PART="store")
    assert set(leftovers.find(tmp_path / "home")) == {"store"}


def test_caller_and_its_ancestors_are_spared(tmp_path: Path, start: Start) -> None:
    code = f"""
import os, pathlib, subprocess, sys
from femur_tasks.stack import leftovers
home = pathlib.Path({str(tmp_path)!r})
if len(sys.argv) == 1:  # the parent, marked as well, waits for a child that ends leftovers
    sys.exit(subprocess.run([sys.executable, "-c", os.environ["CODE"], "child"]).returncode)
print(leftovers.caller_part(home), leftovers.end(home), flush=True)
"""
    environment = os.environ | {"FEMUR_HOME": str(tmp_path), "FEMUR_PART": "scheduler", "CODE": code}
    command = [sys.executable, "-c", code]
    task = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)  # noqa: S603
    assert (task.returncode, task.stdout) == (0, "scheduler 0\n")


def test_dead_process_that_nobody_reaped_does_not_count(tmp_path: Path, start: Start) -> None:
    process = start(FEMUR_HOME=str(tmp_path), FEMUR_PART="store")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and left for somebody to reap
    assert leftovers.find(tmp_path) == {}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Pids whose environment is closed, as Airflow closes that of a process that runs tasks to all but root."""
    pids: set[int] = set()
    real = psutil.Process.environ

    def environ(process: psutil.Process) -> dict[str, str]:
        if process.pid in pids:
            raise psutil.AccessDenied(process.pid)
        return real(process)

    monkeypatch.setattr(psutil.Process, "environ", environ)
    return pids


@pytest.fixture
def session(tmp_path: Path, start: Start, closed: set[int]) -> Session:
    """Starts a leader that notes its session in `tmp_path`, and in that session a child whose environment is closed."""
    code = f"""
import pathlib, subprocess, sys, time
from femur_tasks.stack import leftovers
leftovers.note_session(pathlib.Path({str(tmp_path)!r}))
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""

    def run(**marks: str) -> tuple[psutil.Process, psutil.Process]:
        leader = psutil.Process(start(code, own_session=True, **marks).pid)
        (child,) = leader.children()
        closed.add(child.pid)
        return leader, child

    return run


def is_alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def renote(home: Path, **changes: Any) -> None:
    note = json.loads((home / "session.json").read_text())
    (home / "session.json").write_text(json.dumps(note | changes))


def test_closed_process_of_the_noted_session_is_ended(tmp_path: Path, session: Session) -> None:
    leader, child = session()
    note = (tmp_path / "session.json").read_text()
    (tmp_path / "session.json").unlink()
    assert leftovers.find(tmp_path) == {}, "without a note nothing is proven"
    (tmp_path / "session.json").write_text(note)
    assert leftovers.find(tmp_path, {"store"}) == {leftovers.ORPHAN: [child]}
    assert leftovers.end(tmp_path, {"store"}) == 1
    assert (is_alive(leader), is_alive(child)) == (True, False)


@pytest.mark.parametrize(
    "note",
    [{"sid": 1}, {"created": 0.0}, {"created": 4e9}],
    ids=["another session", "an earlier boot", "older than its leader"],
)
def test_closed_process_without_proof_is_spared(tmp_path: Path, session: Session, note: dict[str, Any]) -> None:
    _, foreign = session()
    renote(tmp_path, **note)
    assert leftovers.end(tmp_path) == 0
    assert is_alive(foreign)


def test_number_that_belongs_to_another_leader_now_proves_nothing(tmp_path: Path, session: Session) -> None:
    leader, _ = session()
    renote(tmp_path, created=leader.create_time() - 0.5)
    assert leftovers.find(tmp_path) == {}


def test_closed_process_belongs_to_the_part_of_its_living_parent(tmp_path: Path, session: Session) -> None:
    leader, child = session(FEMUR_HOME=str(tmp_path), FEMUR_PART="scheduler")
    assert set(leftovers.find(tmp_path)["scheduler"]) == {leader, child}
    assert leftovers.find(tmp_path, {"store"}) == {}
    leftovers.end(tmp_path)
    assert not is_alive(child)


def test_session_led_from_outside_the_container_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getsid", lambda _: 0)  # what the kernel says of a leader that this container cannot see
    leftovers.note_session(tmp_path)
    assert not (tmp_path / "session.json").exists()
