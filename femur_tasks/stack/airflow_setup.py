"""Airflow's own state: its metadata database, and the pool that limits training tasks."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

from femur_tasks.errors import FemurError
from femur_tasks.settings import Settings
from femur_tasks.stack.airflow_client import AirflowClient
from femur_tasks.stack.files import write_private
from femur_tasks.stack.parts import airflow_argv, airflow_env, base_env
from femur_tasks.stack.secrets import ADMIN, Secrets, airflow_password

POOL = "gpu"


def migrate(settings: Settings, port: int, secrets: Secrets) -> None:
    """Bring the metadata database to the installed Airflow's schema; nothing to do where this version did so already.

    Raises:
        FemurError: `airflow db migrate` failed.
    """
    folder = settings.home / "airflow"
    mark, installed = folder / "migrated-by", version("apache-airflow")
    if (folder / "airflow.db").exists() and mark.exists() and mark.read_text() == installed:
        return
    mark.unlink(missing_ok=True)
    log = settings.home / "logs" / "migrate.log"
    log.touch(mode=0o600)
    with log.open("w") as file:
        done = subprocess.run(  # noqa: S603 - no part of the command comes from outside
            airflow_argv("db", "migrate"),
            env=os.environ | base_env(settings.home, "migrate") | airflow_env(settings, port, secrets),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            umask=0o077,
        )
    if done.returncode != 0:
        raise FemurError(
            f"Expected `airflow db migrate` to succeed. Received: exit status {done.returncode}.", f"Read {log}."
        )
    write_private(mark, installed)


def set_pool(home: Path, port: int, slots: int) -> None:
    """Give the pool `gpu` this many slots over the REST API, which is 4 s cheaper than the command.

    Raises:
        FemurError: Airflow refused.
    """
    pool = {"name": POOL, "slots": slots, "description": "Training tasks side by side", "include_deferred": False}
    airflow = AirflowClient(f"http://127.0.0.1:{port}", ADMIN, airflow_password(home))
    there = {found["name"]: found["slots"] for found in airflow.ask("GET", "/pools")["pools"]}
    if POOL not in there:
        airflow.ask("POST", "/pools", json=pool)
    elif there[POOL] != slots:
        airflow.ask("PATCH", f"/pools/{POOL}", json=pool)
