"""Processes that are ours by proof: this user's, and marked with this FEMUR_HOME and a part's name.

The mark is in the environment, so everything that a part starts inherits it, tasks and their children included.
Airflow closes the environment of a process that runs tasks to everyone but root. Such a one is proven by its
session instead: supervisord leads one, notes it in FEMUR_HOME, and whatever it starts stays in it.
It is imported by the launcher and by supervisord itself: psutil and the standard library only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

HOME_MARK = "FEMUR_HOME"
PART_MARK = "FEMUR_PART"
ORPHAN = "orphan"
"""Part of a closed process whose part is dead."""


def note_session(home: Path) -> None:
    """Note number and creation time of the session that this process lives in: its leader is supervisord.

    A session whose leader is dead, or lives outside this container, is not noted: it could prove nothing.
    """
    try:
        leader = psutil.Process(os.getsid(0))
    except psutil.NoSuchProcess:
        return
    part = home / f"session.{os.getpid()}.part"  # the parts of a stack start, and note the same, side by side
    part.write_text(json.dumps({"sid": leader.pid, "created": leader.create_time()}))
    part.replace(home / "session.json")


def part_of(process: psutil.Process, home: Path) -> str | None:
    """Name of the part that the process belongs to, None where it is not proven to be ours."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or process.uids().real != os.getuid():
            return None
        environment = process.environ()
    except psutil.AccessDenied:
        return _part_by_session(process, home)
    except (psutil.Error, OSError):
        return None
    marked_home = environment.get(HOME_MARK)
    if not marked_home or os.path.realpath(marked_home) != os.path.realpath(home):
        return None
    return environment.get(PART_MARK) or None


def _part_by_session(process: psutil.Process, home: Path) -> str | None:
    """As `part_of`, for a process whose environment is closed: the part is its nearest living ancestor's.

    The kernel gives a session's number to nobody else while a member lives, so a process of that number which is
    younger than the leader was started by it. A note of an earlier boot, or a number that now belongs to another
    leader, proves nothing.
    """
    try:
        note = json.loads((home / "session.json").read_text())
        if os.getsid(process.pid) != note["sid"] or not psutil.boot_time() < note["created"] <= process.create_time():
            return None
        if psutil.pid_exists(note["sid"]) and psutil.Process(note["sid"]).create_time() != note["created"]:
            return None
        return next((part for parent in process.parents() if (part := part_of(parent, home))), ORPHAN)
    except (psutil.Error, OSError, ValueError, KeyError):
        return None


def _lineage() -> set[int]:
    """This process and its ancestors: whoever asks must survive the answer."""
    me = psutil.Process()
    return {me.pid} | {parent.pid for parent in me.parents()}


def find(home: Path, parts: Collection[str] | None = None) -> dict[str, list[psutil.Process]]:
    """Living processes by part, this process and its ancestors left out.

    Args:
        parts: the parts to look for, orphans always; None means every part, supervisord included.
    """
    spared = _lineage()
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        part = part_of(process, home) if process.pid not in spared else None
        if part is not None and (parts is None or part in {*parts, ORPHAN}):
            found.setdefault(part, []).append(process)
    return found


def end(home: Path, parts: Collection[str] | None = None, grace_s: float = 3) -> int:
    """End what `find` finds, by SIGKILL after `grace_s`; supervisord goes first, lest it starts parts anew.

    Returns:
        How many processes were ended.
    """
    ended = 0
    for _ in range(3):  # what is being ended may still start a child
        found = find(home, parts)
        if not found:
            break
        ended += _end(found.pop("supervisord", []), grace_s=0)
        ended += _end([process for group in found.values() for process in group], grace_s=grace_s)
    return ended


def _end(processes: list[psutil.Process], *, grace_s: float) -> int:
    # psutil checks the creation time before each signal: a reused pid is never hit
    if grace_s:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    for process in _still_alive(processes, grace_s):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _still_alive(processes, 5)
    return len(processes)


def _still_alive(processes: list[psutil.Process], wait_s: float) -> list[psutil.Process]:
    """Those that live on after `wait_s`; a zombie is dead, though in a container nobody may ever reap it."""
    deadline = time.monotonic() + wait_s
    while (alive := [process for process in processes if _is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def caller_part(home: Path) -> str | None:
    """The part that this very process was started by, None outside the stack."""
    me = psutil.Process()
    return next((part for process in [me, *me.parents()] if (part := part_of(process, home))), None)
