"""Signatures of artefacts: Ed25519 by a key that stays with whoever judges, over what identifies a model version."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from femur_tasks.errors import FemurError


class BadSignature(FemurError):
    """A model version carries no signature, or one that its bytes, its row or its key do not fit."""


def private_key(path: Path) -> Ed25519PrivateKey:
    """The signing key in a file that only its owner can read; made where there is none.

    Raises:
        FemurError: the file holds something else, or others can read it.
    """
    if not path.exists():
        _write(path, Ed25519PrivateKey.generate())
    if path.stat().st_mode & 0o077:
        raise FemurError(f"Expected {path} readable by its owner alone. Received: others too.", f"chmod 600 {path}")
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as err:
        raise FemurError(f"Expected an Ed25519 key in {path}. Received: {err}.", "Restore it from a backup.") from err
    if not isinstance(found, Ed25519PrivateKey):
        raise FemurError(f"Expected an Ed25519 key in {path}. Received: another kind.", "Restore it from a backup.")
    return found


def replace_key(path: Path) -> Ed25519PrivateKey:
    """Put a new signing key in the old one's place, in one step, and return it."""
    made = Ed25519PrivateKey.generate()
    part = path.with_name(f"{path.name}.{os.getpid()}.new")
    _write(part, made)
    part.replace(path)
    return made


def _write(path: Path, key: Ed25519PrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # of two that make one at once the first wins
        os.link(part, path)
    part.unlink()


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half, 64 hex digits."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def key_id(public: str) -> str:
    """How a public key is called: the first 16 hex digits of its sha256."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]


def sign(key: Ed25519PrivateKey, statement: bytes) -> str:
    """The signature of a statement, 128 hex digits."""
    return key.sign(statement).hex()


def holds(public: str, statement: bytes, signature: str) -> bool:
    """Whether the signature is that key's of that statement."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), statement)
    except (InvalidSignature, ValueError):
        return False
    return True
