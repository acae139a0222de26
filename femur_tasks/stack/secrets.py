"""Credentials of the embedded stack: generated at the first start, then kept."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import BaseModel, Field

from femur_tasks.errors import NotFound
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


def remember_password(home: Path) -> None:
    """Generate the administrator's password before Airflow does, which would print it into its log."""
    private_dir(home / "airflow")
    if not passwords_file(home).exists():
        write_private(passwords_file(home), json.dumps({ADMIN: secrets.token_urlsafe(16)}))


def airflow_password(home: Path) -> str:
    """Password of Airflow's user `admin`.

    Raises:
        NotFound: Airflow was never started in this home.
    """
    try:
        return str(json.loads(passwords_file(home).read_text())[ADMIN])
    except (OSError, ValueError, KeyError) as err:
        raise NotFound(
            f"Expected a password for {ADMIN} in {passwords_file(home)}. Received: {err}.",
            "Start the stack once with `femur up`.",
        ) from err
