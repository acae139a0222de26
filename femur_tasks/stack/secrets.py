"""Credentials of the embedded stack: generated at the first start, then kept."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import BaseModel, Field

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.stack.files import private_dir, read_model, write_private

ADMIN = "admin"


def _token() -> str:
    return secrets.token_urlsafe(64)


class Secrets(BaseModel):
    s3_access_key: str = Field(default_factory=lambda: secrets.token_hex(10))
    s3_secret_key: str = Field(default_factory=lambda: secrets.token_urlsafe(32))
    jwt_secret: str = Field(default_factory=_token)
    api_secret_key: str = Field(default_factory=_token)
    fernet_key: str = Field(default_factory=lambda: Fernet.generate_key().decode())


def remember_secrets(home: Path) -> Secrets:
    """The kept credentials, generated where there are none yet."""
    path = home / "secrets.json"
    known = read_model(path, Secrets)
    if known is None:
        known = Secrets()
        write_private(path, known.model_dump_json(indent=2))
    return known


def passwords_file(home: Path) -> Path:
    """Where Airflow's simple auth manager reads user names and passwords."""
    return home / "airflow" / "simple_auth_manager_passwords.json.generated"


def remember_passwords(home: Path, users: Iterable[str]) -> None:
    """Generate the users' passwords before Airflow does, which would print them into its log; kept ones stay."""
    private_dir(home / "airflow")
    path = passwords_file(home)
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as err:
        raise FemurError(f"Expected passwords in {path}. Received: {err}.", "Remove it: new ones are made.") from err
    if missing := [name for name in users if name not in known]:
        write_private(path, json.dumps(known | {name: secrets.token_urlsafe(16) for name in missing}))


def airflow_password(home: Path, user: str = ADMIN) -> str:
    """Password of an Airflow user.

    Raises:
        NotFound: Airflow was never started in this home.
    """
    try:
        return str(json.loads(passwords_file(home).read_text())[user])
    except (OSError, ValueError, KeyError) as err:
        raise NotFound(
            f"Expected a password for {user} in {passwords_file(home)}. Received: {err}.",
            "Start the stack once with `femur up`.",
        ) from err
