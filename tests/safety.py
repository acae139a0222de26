"""What must hold of a running stack, whatever parts it has: closed to the network, to other users, and in its logs."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from femur_tasks.stack.secrets import passwords_file


def listened(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Addresses and ports on which these processes listen; those that Airflow closes show theirs to root alone.

    One that ends meanwhile listens on nothing."""
    found = set()
    for process in processes:
        with suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            found |= {
                (connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return found


def open_to_others(home: Path) -> list[Path]:
    """Files and folders of the home that another user could read; the store's lie in a folder that is closed."""
    paths = [home, *(path for path in home.rglob("*") if home / "store" not in path.parents)]
    return [path for path in paths if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077]


def secrets_in_logs(home: Path) -> list[str]:
    """Log files that hold a generated credential."""
    known = json.loads((home / "secrets.json").read_text())
    secrets = {secret for name, secret in known.items() if name != "s3_access_key"}  # a name, which the store logs
    if passwords_file(home).exists():
        secrets |= set(json.loads(passwords_file(home).read_text()).values())
    logs = [path for path in (home / "logs").rglob("*") if path.is_file()]
    assert logs
    texts = {str(path): path.read_text(errors="replace") for path in logs}
    return [name for name, text in texts.items() if any(secret in text for secret in secrets)]
