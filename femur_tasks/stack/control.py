"""The embedded stack as a whole: up and down."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from femur_tasks.errors import FemurError
from femur_tasks.settings import Settings
from femur_tasks.stack import airflow_setup, leftovers, supervision
from femur_tasks.stack.files import private_dir, write_private
from femur_tasks.stack.parts import AIRFLOW, NAMES, STORE, all_parts
from femur_tasks.stack.ports import Ports, known_ports, remember_ports
from femur_tasks.stack.secrets import ADMIN, Secrets, remember_passwords, remember_secrets
from femur_tasks.stack.status import PartStatus, PortsLost, Progress, await_healthy, status
from femur_tasks.stack.supervision import Supervisor

__all__ = ["PartStatus", "down", "status", "up"]


def up(
    settings: Settings,
    only: Collection[str] | None = None,
    wait_s: float = 300,
    on_progress: Progress | None = None,
) -> list[PartStatus]:
    """Start what is down and wait until it is healthy; what runs is left alone.

    Parts take the settings that they started with: after a change call `down` first. Ports, credentials and
    `stack.env` are written here, so read the settings again afterwards (`settings.cache_clear()`).

    Args:
        only: names of the parts to start, None for all of them.
        wait_s: how long the parts may take to become healthy; one that ends at every start is given up before.
        on_progress: told each step, one line a call.

    Raises:
        FemurError: an unknown part, or a part that does not become healthy.
    """
    from femur_tasks.registry.database import migrate

    wanted = _checked(only)
    say = on_progress or (lambda _: None)
    home = private_dir(settings.home)
    with _alone(home, wait_s):
        supervisor = supervision.connect(home)
        if supervisor is None and (ended := leftovers.end(home)):
            say(f"ended {ended} processes that an earlier supervisord left behind")
        say("bringing the registry to its newest schema")
        migrate(settings.database_url)
        if supervisor is not None and all(part.healthy for part in status(settings) if part.name in wanted):
            say("everything runs and is healthy")
        else:
            for attempt in Retrying(retry=retry_if_exception_type(PortsLost), stop=stop_after_attempt(3), reraise=True):
                with attempt:
                    wanted = _bring_up(settings, supervision.connect(home), wanted, say)
                    await_healthy(settings, wanted, wait_s, say)
        # also where everything runs: an earlier `up` may have died before this
        if "api-server" in wanted and (ports := known_ports(home)):
            airflow_setup.set_pool(home, ports.airflow, settings.gpu_slots)
        return status(settings)


def _bring_up(settings: Settings, supervisor: Supervisor | None, wanted: list[str], say: Progress) -> list[str]:
    """Start what is wanted and down; returns what is wanted now, which includes what had to be restarted."""
    home = settings.home
    seen = supervisor.parts() if supervisor else {}
    running = {name for name, part in seen.items() if part.has_process}
    ports, moved = remember_ports(home, running)
    secrets = remember_secrets(home)
    _write_state(settings, ports, secrets)
    if supervisor is None:
        tells = bool(settings.notify_places) and "stack" in settings.notify_on
        supervisor = supervision.start(home, with_alarm=tells)
    elif moved:  # the others were told the old addresses
        say("a remembered port was taken: choosing another and restarting")
        for name in running:
            supervisor.stop(name)
        wanted = [name for name in NAMES if name in running or name in wanted]
    if STORE in wanted:
        supervisor.start(STORE)
    airflow_wanted = [name for name in wanted if name in AIRFLOW]
    if airflow_wanted:
        say("bringing Airflow's database to its newest schema")
        airflow_setup.migrate(settings, ports.airflow, secrets)
    for name in airflow_wanted:
        supervisor.start(name)
    return wanted


def down(settings: Settings, wait_s: float = 40) -> None:
    """Stop every part and supervisord, running tasks included; nothing to do where nothing runs.

    Raises:
        FemurError: called from inside a task, or something of ours is still alive after `wait_s`.
    """
    home = settings.home
    if not home.is_dir():
        return
    if inside := leftovers.caller_part(home):
        raise FemurError(
            f"Expected a caller outside the stack. Received: a call from {inside}, which would end itself.",
            "Run `femur down` in a terminal.",
        )
    with _alone(home, wait_s):
        if supervisor := supervision.connect(home):
            supervisor.shut_down()
            _gone(home, wait_s - 5)
        leftovers.end(home)  # what has no supervisord, or did not stop in time
        if alive := leftovers.find(home):
            names = ", ".join(f"{part} (pid {process.pid})" for part, group in alive.items() for process in group)
            raise FemurError(
                f"Expected nothing to run after {wait_s:.0f} s. Received: {names}.", "Run `femur down` again."
            )
        supervision.clear_traces(home)
        if ports := known_ports(home):
            _clear_store_sockets(ports)


def _checked(only: Collection[str] | None) -> list[str]:
    unknown = sorted(set(only or ()) - set(NAMES))
    if unknown:
        raise FemurError(f"Expected parts among {', '.join(NAMES)}. Received: {', '.join(unknown)}.")
    return [name for name in NAMES if only is None or name in only]


def _clear_store_sockets(ports: Ports) -> None:
    """Remove the sockets that SeaweedFS puts into /tmp and leaves there, by the ports in their names."""
    for port in ports.store.opened():
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - the place is SeaweedFS' choice
            if socket.stat().st_uid == os.getuid():
                socket.unlink(missing_ok=True)


@contextmanager
def _alone(home: Path, wait_s: float) -> Iterator[None]:
    """Hold the home's lock, so that of two `up` at once the second finds the work of the first."""
    (home / "stack.lock").touch(mode=0o600)
    with (home / "stack.lock").open("w") as file:
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(BlockingIOError), stop=stop_after_delay(wait_s), wait=wait_fixed(0.2)
            ):
                with attempt:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except RetryError as err:
            raise FemurError(
                f"Expected no other `femur up` or `femur down` in {home}. Received: one, for {wait_s:.0f} s.",
                "Wait for it to end, then try again.",
            ) from err
        yield


def _write_state(settings: Settings, ports: Ports, secrets: Secrets) -> None:
    home = settings.home
    private_dir(home / "logs")
    remember_passwords(home, (ADMIN, *settings.users))
    for part in all_parts(settings, ports, secrets):
        part.write(home)
    env = {
        "FEMUR_S3_ENDPOINT": f"127.0.0.1:{ports.store.s3}",
        "FEMUR_S3_ACCESS_KEY": secrets.s3_access_key,
        "FEMUR_S3_SECRET_KEY": secrets.s3_secret_key,
        "FEMUR_AIRFLOW_URL": f"http://127.0.0.1:{ports.airflow}",
    }
    write_private(home / "stack.env", "".join(f"{name}={value}\n" for name, value in env.items()))


def _gone(home: Path, wait_s: float) -> None:
    """Wait until no process of this home is left, or until `wait_s` have passed."""
    Retrying(
        retry=retry_if_result(bool),
        stop=stop_after_delay(wait_s),
        wait=wait_fixed(0.2),
        retry_error_callback=lambda _: None,
    )(leftovers.find, home)
