"""supervisord: its configuration, its start, and the questions put to it over its private socket."""

from __future__ import annotations

import http.client
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, Fault, ServerProxy

from supervisor.states import ProcessStates
from supervisor.xmlrpc import Faults, SupervisorTransport
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from femur_tasks.errors import FemurError
from femur_tasks.stack.files import private_dir, write_private
from femur_tasks.stack.parts import NAMES, STOP_S, base_env

_GROUP = "femur"  # supervisord stops group after group, but the members of one group side by side
_SOCKET = "supervisor.sock"
_SOCKET_CHARS = 80  # the system allows about 100, and supervisord makes a longer name beside it first
ALARMING = ("PROCESS_STATE_EXITED", "PROCESS_STATE_FATAL", "TICK_60")
_PROGRAM = """
[program:{name}]
command={python} -P -m femur_tasks.stack.launch {name}
environment=FEMUR_PART="{name}"
autostart=false
autorestart=true
startsecs=5
startretries=10
stopwaitsecs={stop_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""
_ALARM = """
[eventlistener:alarm]
command={python} -P -m femur_tasks.stack.alarm
environment=FEMUR_PART="alarm"
events={events}
stdout_logfile=NONE
stderr_logfile=logs/alarm.log
stderr_logfile_maxbytes=10MB
stderr_logfile_backups=3
"""
# paths are relative to the home: supervisord would take a % in it for a placeholder, twice
_CONFIG = """\
[unix_http_server]
file={socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisord]
logfile=logs/supervisord.log
logfile_maxbytes=10MB
logfile_backups=3
pidfile=supervisord.pid
nocleanup=true
umask=077
{user}
[group:{group}]
programs={names}
"""


@dataclass(frozen=True)
class Supervised:
    """What supervisord knows of a part: `state` in lower case; pid and start (seconds since 1970) while it runs."""

    state: str
    pid: int | None
    started_at: float | None

    @property
    def has_process(self) -> bool:
        return self.started_at is not None


class Supervisor:
    """A running supervisord."""

    def __init__(self, socket: Path) -> None:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{socket}")
        self._rpc: Any = ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def parts(self) -> dict[str, Supervised]:
        """Every part by name."""
        alive = {ProcessStates.RUNNING, ProcessStates.STARTING, ProcessStates.STOPPING}
        return {
            info["name"]: Supervised(
                info["statename"].lower(),
                info["pid"] or None,
                float(info["start"]) if info["state"] in alive else None,
            )
            for info in self._rpc.getAllProcessInfo()
            if info["group"] == _GROUP
        }

    def start(self, name: str) -> None:
        """Start the part and return at once; one that runs is left alone."""
        try:
            self._rpc.startProcess(f"{_GROUP}:{name}", False)
        except Fault as err:
            if err.faultCode != Faults.ALREADY_STARTED:
                raise FemurError(f"Expected {name} to start. Received: {err.faultString}.") from err

    def stop(self, name: str) -> None:
        """Stop the part and wait for its end; one that is down is left alone."""
        try:
            self._rpc.stopProcess(f"{_GROUP}:{name}", True)
        except Fault as err:
            if err.faultCode != Faults.NOT_RUNNING:
                raise FemurError(f"Expected {name} to stop. Received: {err.faultString}.") from err

    def last_line(self, name: str) -> str:
        """The end of what the part wrote last, at most 300 characters; empty where it has not written yet."""
        try:
            text, _, _ = self._rpc.tailProcessStdoutLog(f"{_GROUP}:{name}", 0, 4096)
        except Fault:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][-300:] if lines else ""

    def shut_down(self) -> None:
        """Ask supervisord to stop every part and then itself; returns at once."""
        self._rpc.shutdown()


def _socket(home: Path) -> Path:
    """The private socket, in the folder named by `socket.dir` where the home's own path is too long."""
    here, pointer = home / _SOCKET, home / "socket.dir"
    if len(os.fsencode(here)) <= _SOCKET_CHARS:
        return here
    return Path(pointer.read_text().strip()) / _SOCKET if pointer.exists() else here


def parts_seen(home: Path) -> dict[str, Supervised] | None:
    """What the supervisord of this home says of every part, None where none answers."""
    socket = _socket(home)
    try:
        return Supervisor(socket).parts() if socket.exists() else None
    except (OSError, Error, http.client.HTTPException):
        return None


def connect(home: Path) -> Supervisor | None:
    """The supervisord of this home, None where none answers."""
    return None if parts_seen(home) is None else Supervisor(_socket(home))


def was_started(home: Path) -> bool:
    """Whether a supervisord was started in this home and not stopped since; it may be dead."""
    return (home / "supervisord.pid").exists()


def clear_traces(home: Path) -> None:
    """Once supervisord is gone: remove its pid, its socket, and the short folder that was made for the socket."""
    (home / "supervisord.pid").unlink(missing_ok=True)
    _socket(home).unlink(missing_ok=True)
    if (pointer := home / "socket.dir").exists():
        short = Path(pointer.read_text().strip())
        if short.is_dir():
            short.rmdir()
        pointer.unlink()


def start(home: Path, with_alarm: bool = False) -> Supervisor:
    """Start supervisord detached, with every part still down. The caller has made sure that none is left.

    Args:
        with_alarm: also start the listener that tells people of parts that end.

    Raises:
        FemurError: supervisord did not start, or does not answer.
    """
    clear_traces(home)
    private_dir(home / "logs")
    if len(os.fsencode(home / _SOCKET)) > _SOCKET_CHARS:
        write_private(home / "socket.dir", tempfile.mkdtemp(prefix="femur-", dir="/tmp"))
    socket = _socket(home)
    config = _CONFIG.format(
        socket=socket.name if socket.parent == home else socket,
        user="" if os.getuid() else "user=root\n",  # named, or supervisord warns
        group=_GROUP,
        names=",".join(NAMES),
    )
    python = shlex.quote(sys.executable).replace("%", "%%")
    programs = (_PROGRAM.format(name=name, python=python, stop_s=STOP_S[name]) for name in NAMES)
    alarm = _ALARM.format(python=python, events=",".join(ALARMING)) if with_alarm else ""
    write_private(home / "supervisord.conf", "".join([config, *programs, alarm]))
    command = [sys.executable, "-P", "-m", "femur_tasks.stack.supervise", str(home / "supervisord.conf")]
    # it puts itself in the background: this waits for the parent that says whether the configuration was good
    begun = subprocess.run(  # noqa: S603 - no part of the command comes from outside
        command,
        env=os.environ | base_env(home, "supervisord"),
        cwd=home,
        umask=0o077,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    supervisor = _connect_soon(home) if begun.returncode == 0 else None
    if supervisor is None:
        raise FemurError(
            f"Expected supervisord to start. Received: {begun.stderr.strip() or f'exit status {begun.returncode}'}.",
            f"Read {home / 'logs' / 'supervisord.log'}.",
        )
    return supervisor


@retry(
    retry=retry_if_result(lambda found: found is None),
    stop=stop_after_delay(10),
    wait=wait_fixed(0.1),
    retry_error_callback=lambda _: None,
)
def _connect_soon(home: Path) -> Supervisor | None:
    return connect(home)
