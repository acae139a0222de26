"""Signatures of model versions: made once by whoever judges, checked at every load."""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.manifest import canonical_json
from femur_tasks.errors import WasCollected
from femur_tasks.registry.tables import CollectedVersion, ModelVersion, Signature, SigningKey
from femur_tasks.signing import BadSignature, holds, key_id, public_hex, sign
from femur_tasks.storage import digest_in


def statement_of(version: ModelVersion) -> bytes:
    """What is signed: everything that says which model this is, and the sha256 of its bytes."""
    facts = {
        "model": version.name,
        "version": version.version,
        "family": version.family,
        "run": version.run_id,
        "dataset": version.dataset_digest,
        "size": version.size,
        "hyperparameters": version.hyperparameters,
        "artefact": version.artefact_key,
        "sha256": version.artefact_sha256,
        "bytes": version.artefact_bytes,
    }
    if version.onnx_key is not None:  # versions from before have none, and keep the signatures that they had
        facts["onnx"] = version.onnx_key
    return canonical_json(facts)


def sign_version(session: Session, version: ModelVersion, key: Ed25519PrivateKey, now: datetime) -> Signature:
    """Sign a model version; one that a key in use has signed keeps that signature.

    The public key is kept beside the registry at its first signature.
    """
    known = _signature(session, version)
    if known is not None and session.get_one(SigningKey, known.key_id).revoked_at is None:
        return known
    public = public_hex(key)
    if session.get(SigningKey, key_id(public)) is None:
        session.add(SigningKey(key_id=key_id(public), public_key=public, created_at=now, revoked_at=None))
        session.flush()
    row = Signature(
        model_version_id=version.id,
        key_id=key_id(public),
        signature=sign(key, statement_of(version)),
        signed_at=now,
    )
    session.add(row)
    session.flush()
    return row


def check_signature(session: Session, version: ModelVersion) -> None:
    """Prove that a row is the one that was signed, and that its key still counts.

    Raises:
        BadSignature: it was never signed, the key was revoked, or the row is another one.
    """
    what = f"{version.label}, {version.artefact_key}"
    found = _signature(session, version)
    if found is None:
        raise BadSignature(f"Expected a signature of {what}. Received: none.", "Its run's evaluation signs it.")
    key = session.get_one(SigningKey, found.key_id)
    if key.revoked_at is not None:
        raise BadSignature(
            f"Expected a key in use. Received: {key.key_id}, revoked {key.revoked_at:%Y-%m-%d}, which signed {what}.",
            "Return to a version that another key signed, or train it again.",
        )
    if digest_in(version.artefact_key) != version.artefact_sha256 or not holds(
        key.public_key, statement_of(version), found.signature
    ):
        raise BadSignature(
            f"Expected the row that key {key.key_id} signed. Received: another one of {what}.",
            "Somebody changed the registry: restore it from a backup.",
        )


def refuse_collected(session: Session, version: ModelVersion) -> None:
    """Nobody can load a version whose files are gone.

    Raises:
        WasCollected: they are.
    """
    if gone := session.get(CollectedVersion, version.id):
        raise WasCollected(
            f"Expected a version with its files. Received: {version.label}, collected on {gone.at:%Y-%m-%d}.",
            "Train it again: its scores and verdicts are still in the registry, its weights are not.",
        )


def _signature(session: Session, version: ModelVersion) -> Signature | None:
    newest = select(Signature).where(Signature.model_version_id == version.id).order_by(Signature.id.desc()).limit(1)
    return session.scalars(newest).first()
