"""Parts of the embedded stack: what runs, with which command and environment."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from femur_tasks.errors import FemurError
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.stack.files import private_dir, write_private
from femur_tasks.stack.leftovers import HOME_MARK, PART_MARK
from femur_tasks.stack.ports import Ports, StorePorts
from femur_tasks.stack.secrets import ADMIN, Secrets, passwords_file

STORE = "store"
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")
NAMES = (STORE, *AIRFLOW)
# Seconds between SIGTERM and SIGKILL. The store stops in 2 s, or in 12 when a stream is open to its filer; it may be
# killed then, for what it has acknowledged is on disk. Airflow's parts stop in 1 to 6 s; a scheduler with running tasks
# would wait for their end, which may be hours away: those tasks are ended, and retried at the next start.
STOP_S = {STORE: 22} | dict.fromkeys(AIRFLOW, 10)


@dataclass(frozen=True)
class Part:
    """One supervised process; `env` is laid over the environment that supervisord was started in."""

    name: str
    argv: list[str]
    env: dict[str, str]

    def write(self, home: Path) -> None:
        """Leave argv and env where the launcher finds them. They hold credentials: for the owner alone."""
        # tasks read the `.env` that lies in the checkout
        spec = json.dumps({"argv": self.argv, "env": self.env, "cwd": str(CHECKOUT)}, indent=2)
        write_private(private_dir(home / "parts") / f"{self.name}.json", spec)


def base_env(home: Path, part: str) -> dict[str, str]:
    """What every process of the stack gets: the mark, the code's place, and no proxy on the way to itself."""
    bypass = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return {
        HOME_MARK: str(home),
        PART_MARK: part,
        "HOME": os.environ.get("HOME") or str(home),
        "NO_PROXY": bypass,
        "no_proxy": bypass,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # else Airflow's process titles overwrite the environment that carries the mark
    }


def store_part(home: Path, ports: StorePorts, secrets: Secrets) -> Part:
    """SeaweedFS in one process, on loopback; its filer serves without authentication, so nothing else may reach it."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.is_file():
        raise FemurError(f"Expected the SeaweedFS binary at {weed}. Received: nothing.", "Run `make up`.")
    options = {
        "dir": private_dir(home / "store"),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": ports.s3,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "filer.port": ports.filer,
        "master.port": ports.master,
        "master.telemetry": "false",
        "volume.port": ports.volume,
        "admin.port": ports.admin,
        "admin.ui": "false",
        "webdav": "false",
    }
    env = {
        "AWS_ACCESS_KEY_ID": secrets.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": secrets.s3_secret_key,
        # collecting only at the limit takes 40% less of the processor than collecting as often as Go would
        "GOGC": "off",
        "GOMEMLIMIT": "600MiB",
    }
    argv = [str(weed), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]
    return Part(STORE, argv, base_env(home, STORE) | env)


def airflow_env(settings: Settings, port: int, secrets: Secrets) -> dict[str, str]:
    """Airflow's whole configuration; the airflow.cfg that it writes for itself holds defaults that these override."""
    home, url = settings.home, f"http://127.0.0.1:{port}"
    options: dict[str, dict[str, object]] = {
        "CORE": {
            "DAGS_FOLDER": CHECKOUT / "dags",
            "PLUGINS_FOLDER": CHECKOUT / "plugins",
            "LOAD_EXAMPLES": False,
            "DAGS_ARE_PAUSED_AT_CREATION": False,
            "DEFAULT_TIMEZONE": "utc",
            "EXECUTOR": "LocalExecutor",
            "PARALLELISM": settings.gpu_slots + 6,
            "EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "FERNET_KEY": secrets.fernet_key,
            "HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks the name server, which may be slow or absent
            "SIMPLE_AUTH_MANAGER_USERS": ",".join(
                f"{name}:{role}" for name, role in {ADMIN: ADMIN, **settings.users}.items()
            ),
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords_file(home),
        },
        "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow' / 'airflow.db'}"},
        "API": {
            "HOST": "127.0.0.1",
            "PORT": port,
            "BASE_URL": url,
            "WORKERS": 1,
            "SECRET_KEY": secrets.api_secret_key,
        },
        "API_AUTH": {"JWT_SECRET": secrets.jwt_secret},
        "SCHEDULER": {
            "TASK_INSTANCE_HEARTBEAT_TIMEOUT": settings.task_heartbeat_s,
            "TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 5,
            # tasks that were queued when a scheduler was killed have no heartbeat: they wait for this check
            "ORPHANED_TASKS_CHECK_INTERVAL": 15,
            "ENABLE_HEALTH_CHECK": False,
        },
        # a task whose end its supervisor misses by a hair counts as running until the next one; with Airflow's own
        # 5 s, and 3 failures, an api-server may be away as long
        "WORKERS": {"MIN_HEARTBEAT_INTERVAL": 2, "MAX_FAILED_HEARTBEATS": 8},
        "DAG_PROCESSOR": {"REFRESH_INTERVAL": 10, "MIN_FILE_PROCESS_INTERVAL": 30},
        "LOGGING": {
            "BASE_LOG_FOLDER": home / "logs" / "airflow",
            "DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": home / "logs" / "airflow" / "dag-processor",
        },
    }
    env = {
        f"AIRFLOW__{section}__{option}": str(value)
        for section, pairs in options.items()
        for option, value in pairs.items()
    }
    return {"AIRFLOW_HOME": str(home / "airflow"), **env}


def airflow_argv(*words: str) -> list[str]:
    """Command line of an `airflow` command; -P keeps folders of the working directory from passing for modules."""
    return [sys.executable, "-P", "-m", "airflow", *words]


def all_parts(settings: Settings, ports: Ports, secrets: Secrets) -> list[Part]:
    """Every part, in the order of NAMES."""
    airflow = airflow_env(settings, ports.airflow, secrets)
    # the log servers of these two would listen on all addresses; with one machine the files are at hand
    flags = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}
    return [
        store_part(settings.home, ports.store, secrets),
        *(
            Part(name, airflow_argv(name, *flags.get(name, [])), base_env(settings.home, name) | airflow)
            for name in AIRFLOW
        ),
    ]
