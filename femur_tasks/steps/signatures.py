"""Signing model versions before they are judged, proving them at every load, and changing keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks import signing
from femur_tasks.errors import FemurError, NotFound
from femur_tasks.registry.queries import find_model_version
from femur_tasks.registry.signatures import check_signature, refuse_collected, sign_version
from femur_tasks.registry.tables import ModelCard, ModelVersion, Signature, SigningKey
from femur_tasks.steps.context import Context

_HINTS = {"onnx": "It is from before there were any: `femur promote VERSION --override` puts another in its place."}


def sign_stored(context: Context, model_id: int) -> None:
    """Sign a model version whose stored files have the digests that its row promises.

    Raises:
        DigestMismatch: they have not.
        WasCollected: they are gone.
    """
    with context.registry.reading() as session:
        version = session.get_one(ModelVersion, model_id)
        refuse_collected(session, version)
    _read(context, version)
    private = signing.private_key(context.settings.signing_key_file)
    with context.registry.writing() as session:
        sign_version(session, session.get_one(ModelVersion, model_id), private, context.now())


def _read(context: Context, version: ModelVersion) -> None:
    """Every file that the version's signature covers, by its digest."""
    for key in filter(None, (version.artefact_key, version.onnx_key)):
        context.store.get(key)


def proven_key(context: Context, model_id: int, kind: str) -> str:
    """Where a model version's file lies; kinds and what it raises are those of `stored_file`."""
    with context.registry.reading() as session:
        return _proven(session, session.get_one(ModelVersion, model_id), kind)


def download(context: Context, name: str, kind: str, path: Path) -> str:
    """Write a model version's file of a kind to `path`, and return its key; raises what `stored_file` raises.

    Raises:
        DigestMismatch: the store holds other bytes.
    """
    with context.registry.reading() as session:
        key = stored_file(session, name, kind)
    context.store.download(key, path)
    return key


def stored_file(session: Session, name: str, kind: str) -> str:
    """Where a file of `MODEL:VERSION` lies: kind `onnx`, `weights` or `card`.

    Raises:
        NotFound: there is no such version, or it has no such file, or not any more.
        BadSignature: the row is not the one that was signed.
    """
    return _proven(session, find_model_version(session, name), kind)


def _proven(session: Session, version: ModelVersion, kind: str) -> str:
    check_signature(session, version)
    refuse_collected(session, version)
    card = session.get(ModelCard, version.id)
    keys = {"onnx": version.onnx_key, "weights": version.artefact_key, "card": card.html_key if card else None}
    key = keys.get(kind)
    if key is None:
        raise NotFound(f"Expected a file of kind {kind} of {version.label}. Received: none.", _HINTS.get(kind, ""))
    return key


def rotate(context: Context, is_revoked: bool) -> dict[str, Any]:
    """Put a new signing key in the old one's place; the old one's signatures still count, unless it is revoked.

    What a revoked key has signed is signed again, after its signature and its stored bytes were proven once more.

    Returns:
        The new key's and the old key's id, how many versions were signed again, and what could not be proven.
    """
    path = context.settings.signing_key_file
    old = signing.key_id(signing.public_hex(signing.private_key(path)))
    sound, broken = _signed_by(context, old) if is_revoked else ([], [])
    new = signing.replace_key(path)
    with context.registry.writing() as session:
        key = session.get(SigningKey, old)
        if is_revoked and key is not None:
            key.revoked_at = context.now()
            session.flush()
        for model_id in sound:
            sign_version(session, session.get_one(ModelVersion, model_id), new, context.now())
    return {"key": signing.key_id(signing.public_hex(new)), "before": old, "signed": len(sound), "broken": broken}


def _signed_by(context: Context, key_id: str) -> tuple[list[int], list[str]]:
    """Versions that a key signed: those that still hold, and what is wrong with the others."""
    with context.registry.reading() as session:
        ids = session.scalars(select(Signature.model_version_id).where(Signature.key_id == key_id).distinct()).all()
    sound, broken = [], []
    for model_id in ids:
        try:
            with context.registry.reading() as session:
                version = session.get_one(ModelVersion, model_id)
                check_signature(session, version)
                refuse_collected(session, version)
            _read(context, version)
        except FemurError as err:
            broken.append(err.what)
        else:
            sound.append(model_id)
    return sound, broken
