"""The cluster's secrets as files, one for each who may know it: made once, then kept."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet

from femur_tasks.settings import CHECKOUT
from femur_tasks.stack.files import private_dir, write_private

ROLES = ("owner", "promoter", "trainer", "reader")
"""Whoever owns the registry's tables and the bucket, and the three roles of docs/registry.md."""
LOG_BUCKET = "femur-logs"
_STORE = "store.json"
_LOGS = {"name": "logs", "actions": [f"{right}:{LOG_BUCKET}" for right in ("Read", "Write", "List")]}


def _password() -> str:
    return secrets.token_hex(24)  # it stands in URLs: no character that would have to be quoted


def write_secrets(folder: Path) -> list[Path]:
    """Write the secrets that are missing, and return their files; those that are there stay.

    The folder is its owner's alone. The files in it are readable by all, for a container sees a file with the owner
    and mode that it has outside, and runs as a user of its own.

    Args:
        folder: a new one, or one that was written before. What several files share must be made together: where some
            of a group are missing, all of the group are made anew, and settings that somebody added to a role's file
            stay in it. Policies of the store's roles are always this version's.
    """
    private_dir(folder)
    made: list[Path] = []
    for names, make in _GROUPS.items():
        if not all((folder / name).exists() for name in names):
            for name, text in zip(names, make(), strict=True):
                write_private(folder / name, text + _added(folder / name, text))
                (folder / name).chmod(0o444)
                made.append(folder / name)
    if _with_policies_of_now(folder / _STORE):
        made.append(folder / _STORE)
    return made


def _with_policies_of_now(store: Path) -> bool:
    """Give what the store knows of its roles this version's policies; whether they were others."""
    told = json.loads(store.read_text())
    if told["policies"] == (now := _policies()):
        return False
    write_private(store, json.dumps({**told, "policies": now}, indent=2))
    store.chmod(0o444)
    return True


def _added(file: Path, anew: str) -> str:
    """The lines that somebody added to a role's file: those that set something else than what is made anew."""
    if file.suffix != ".env" or not file.exists():
        return ""
    made = {line.partition("=")[0] for line in anew.splitlines()}
    return "".join(f"{line}\n" for line in file.read_text().splitlines() if line.partition("=")[0] not in made)


def _one(make: Callable[[], str]) -> Callable[[], list[str]]:
    return lambda: [make()]


def _database(name: str) -> str:
    return f"postgresql+psycopg2://{name}:{_password()}@postgres:5432/{name}"


def _broker() -> list[str]:
    password = _password()
    # no command that looks at other clients, changes the server or empties a database
    digest = hashlib.sha256(password.encode()).hexdigest()
    acl = f"user default off\nuser airflow on #{digest} ~* &* +@all -@admin -@dangerous\n"
    return [acl, f"redis://airflow:{password}@redis:6379/0"]


def _services() -> list[str]:
    """What each role logs in with to registry and store, and what the store knows of them."""
    identities, environments, logins = [], [], {}
    for role in (*ROLES, "logs"):
        logins[role] = {"accessKey": f"{role}-{secrets.token_hex(8)}", "secretKey": secrets.token_urlsafe(32)}
    for role in ROLES:
        name = "femur_owner" if role == "owner" else f"femur_{role}_login"
        environments.append(
            f"FEMUR_REGISTRY_URL=postgresql+psycopg2://{name}:{_password()}@postgres:5432/registry\n"
            f"FEMUR_S3_ACCESS_KEY={logins[role]['accessKey']}\n"
            f"FEMUR_S3_SECRET_KEY={logins[role]['secretKey']}\n"
        )
        rights = {"actions": ["Admin"]} if role == "owner" else {"policyNames": [role]}
        identities.append({"name": role, "credentials": [logins[role]], **rights})
    identities.append({**_LOGS, "credentials": [logins["logs"]]})
    store = json.dumps({"identities": identities, "policies": _policies()}, indent=2)
    keys = logins["logs"]
    profile = f"[default]\naws_access_key_id = {keys['accessKey']}\naws_secret_access_key = {keys['secretKey']}\n"
    return [store, profile, *environments]


def _policies() -> list[dict[str, str]]:
    return [
        {"name": role, "content": (CHECKOUT / "docs" / f"{role}-policy.json").read_text()}
        for role in ROLES
        if role != "owner"
    ]


def _notes() -> list[str]:
    """The password of who writes notes beside runs, and where workers log in with it."""
    password = _password()
    return [password, f"http://notes:{password}@api-server:8080"]


_GROUPS: dict[tuple[str, ...], Callable[[], list[str]]] = {
    ("postgres_password",): _one(_password),
    ("airflow_database_url",): _one(lambda: _database("airflow")),
    ("result_backend",): _one(lambda: f"db+{_database('celery')}"),
    ("fernet_key",): _one(lambda: Fernet.generate_key().decode()),
    ("jwt_secret",): _one(lambda: secrets.token_urlsafe(64)),
    ("api_secret_key",): _one(lambda: secrets.token_urlsafe(64)),
    ("patient_key",): _one(lambda: secrets.token_hex(32)),
    ("admin_password",): _one(lambda: secrets.token_urlsafe(16)),
    ("redis_acl", "broker_url"): _broker,
    ("notes_password", "airflow_login"): _notes,
    (_STORE, "logs.ini", *(f"{role}.env" for role in ROLES)): _services,
}
