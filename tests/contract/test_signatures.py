"""Model versions are signed before they are judged and proven at every load, through changes of the key."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from femur_tasks import signing
from femur_tasks.errors import DigestMismatch, FemurError, NotFound
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Champion, ModelVersion, Signature, SigningKey
from femur_tasks.signing import BadSignature
from femur_tasks.steps.champion import promote_by_hand, roll_back
from femur_tasks.steps.context import Context
from femur_tasks.steps.signatures import proven_key, rotate, sign_stored
from femur_tasks.storage import digest_in
from tests import registry_rows as rows


@pytest.fixture
def signed(context: Context, registry: Registry) -> tuple[Context, int]:
    """A context on each database, and a model version that was signed."""
    context = replace(context, registry=registry)
    key, onnx_key = context.store.put(b"weights", "artefacts"), context.store.put(b"model", "onnx")
    with registry.writing() as session:
        values = {"artefact_key": key, "artefact_sha256": digest_in(key), "artefact_bytes": 7}
        values |= {"onnx_key": onnx_key, "onnx_sha256": digest_in(onnx_key)}
        model_id = rows.model_version(session, 1, rows.dataset_version(session).digest, **values).id
    sign_stored(context, model_id)
    return context, model_id


def key_in_use(context: Context) -> str:
    return signing.key_id(signing.public_hex(signing.private_key(context.settings.signing_key_file)))


def tampered(context: Context, model_id: int, column: str, value: Any) -> None:
    """A change by somebody who owns the database, and whom no trigger stops."""
    if context.registry.engine.dialect.name == "postgresql":
        unlocking = "set local session_replication_role = replica"
    else:
        unlocking = "drop trigger model_version_refuses_update"
    with context.registry.writing() as session:
        session.execute(text(unlocking))
        session.execute(update(ModelVersion).where(ModelVersion.id == model_id).values({column: value}))


def test_signed_version_is_proven(signed: tuple[Context, int]) -> None:
    context, model_id = signed
    assert context.store.get(proven_key(context, model_id, "weights")) == b"weights"
    sign_stored(context, model_id)
    with context.registry.reading() as session:
        (signature,) = session.scalars(select(Signature))
        (key,) = session.scalars(select(SigningKey))
    assert signature.key_id == key.key_id == key_in_use(context)
    mode = stat.S_IMODE(context.settings.signing_key_file.stat().st_mode)
    assert mode == 0o600


@pytest.mark.parametrize(
    ("column", "value"),
    [("artefact_key", f"artefacts/{'0' * 64}"), ("artefact_sha256", "0" * 64), ("family", "tuned"), ("name", "hip"),
     ("hyperparameters", {"dropout": 0.9}), ("size", 128)],
)  # fmt: skip
def test_row_that_is_not_the_signed_one_is_refused(signed: tuple[Context, int], column: str, value: Any) -> None:
    context, model_id = signed
    tampered(context, model_id, column, value)
    with pytest.raises(BadSignature, match="Received: another one of"):
        proven_key(context, model_id, "weights")
    sign_stored_or_lost(context, model_id)
    with pytest.raises(BadSignature):
        proven_key(context, model_id, "weights")


def sign_stored_or_lost(context: Context, model_id: int) -> None:
    """Signing again does not cover up a change: the first signature stays."""
    try:
        sign_stored(context, model_id)
    except NotFound:
        return  # the row names an object that is not there


def test_signature_by_another_key_is_refused(signed: tuple[Context, int], tmp_path: Path) -> None:
    context, model_id = signed
    stranger = signing.private_key(tmp_path / "stranger.key")
    with context.registry.writing() as session:
        row = Signature(
            model_version_id=model_id, key_id=key_in_use(context), signature=signing.sign(stranger, b"x"),
            signed_at=context.now(),
        )  # fmt: skip
        session.add(row)
    with pytest.raises(BadSignature):
        proven_key(context, model_id, "weights")


def test_version_that_was_never_signed_is_refused(context: Context) -> None:
    with context.registry.writing() as session:
        model_id = rows.model_version(session, 1, rows.dataset_version(session).digest).id
    with pytest.raises(BadSignature, match=r"femur:1, artefacts/1. Received: none"):
        proven_key(context, model_id, "weights")


@pytest.mark.parametrize("kind", ["weights", "onnx"])
def test_damaged_bytes_are_not_signed_and_the_object_is_named(context: Context, registry: Registry, kind: str) -> None:
    context = replace(context, registry=registry)
    keys = {"weights": context.store.put(b"weights", "artefacts"), "onnx": context.store.put(b"model", "onnx")}
    with registry.writing() as session:
        values = {"artefact_key": keys["weights"], "artefact_sha256": digest_in(keys["weights"])}
        values |= {"onnx_key": keys["onnx"], "onnx_sha256": digest_in(keys["onnx"])}
        model_id = rows.model_version(session, 1, rows.dataset_version(session).digest, **values).id
    context.store.put_named(b"other bytes", keys[kind])
    with pytest.raises(DigestMismatch, match=keys[kind]):
        sign_stored(context, model_id)
    with registry.reading() as session:
        assert session.scalars(select(Signature)).all() == []


def test_rotated_key_signs_what_is_new_and_the_old_one_still_counts(signed: tuple[Context, int]) -> None:
    context, model_id = signed
    before = key_in_use(context)
    told = rotate(context, is_revoked=False)
    assert (told["before"], told["key"], told["signed"]) == (before, key_in_use(context), 0)
    assert told["key"] != before
    proven_key(context, model_id, "weights")
    with context.registry.writing() as session:
        digest = session.get_one(ModelVersion, model_id).dataset_digest
        key = context.store.put(b"other weights", "artefacts")
        values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
        later = rows.model_version(session, 2, digest, **values).id
    sign_stored(context, later)
    proven_key(context, later, "weights")
    with context.registry.reading() as session:
        keys = session.scalars(select(Signature.key_id).order_by(Signature.id)).all()
    assert keys == [before, told["key"]]


def test_revoked_keys_versions_are_proven_and_signed_again(signed: tuple[Context, int]) -> None:
    context, model_id = signed
    told = rotate(context, is_revoked=True)
    assert (told["signed"], told["broken"]) == (1, [])
    proven_key(context, model_id, "weights")
    with context.registry.reading() as session:
        assert session.get_one(SigningKey, told["before"]).revoked_at is not None


@pytest.mark.parametrize("kind", ["weights", "onnx"])
def test_what_a_revoked_key_signed_and_is_damaged_since_is_proven_no_more(
    signed: tuple[Context, int], kind: str
) -> None:
    context, model_id = signed
    key = proven_key(context, model_id, kind)
    context.store.put_named(b"other bytes", key)
    told = rotate(context, is_revoked=True)
    assert told["signed"] == 0
    assert key in told["broken"][0]
    with pytest.raises(BadSignature, match="revoked"):
        proven_key(context, model_id, "weights")


def test_signature_from_before_onnx_still_holds(context: Context, registry: Registry) -> None:
    context = replace(context, registry=registry)
    key = context.store.put(b"weights", "artefacts")
    with registry.writing() as session:
        values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
        version = rows.model_version(session, 1, rows.dataset_version(session).digest, **values)
        # as revision 0009 signed it
        before = (
            f'{{"artefact":"{key}","bytes":10,"dataset":"{version.dataset_digest}","family":"unet",'
            f'"hyperparameters":{{"dropout":0.3}},"model":"femur","run":"femur-run-1","sha256":"{digest_in(key)}",'
            '"size":64,"version":1}'
        )
        private = signing.private_key(context.settings.signing_key_file)
        public = signing.public_hex(private)
        session.add(SigningKey(key_id=signing.key_id(public), public_key=public, created_at=rows.NOON))
        session.flush()
        session.add(
            Signature(
                model_version_id=version.id, key_id=signing.key_id(public), signed_at=rows.NOON,
                signature=signing.sign(private, before.encode()),
            )
        )  # fmt: skip
        model_id = version.id
    assert proven_key(context, model_id, "weights") == key


def test_version_that_no_run_evaluated_is_proven_when_a_person_promotes_it(
    context: Context, registry: Registry
) -> None:
    context = replace(context, registry=registry)
    key = context.store.put(b"weights", "artefacts")
    with registry.writing() as session:
        values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
        model_id = rows.model_version(session, 1, rows.dataset_version(session).digest, **values).id
    promote_by_hand(context, "femur", 1, "cli:ann", "the first", is_override=True)
    assert proven_key(context, model_id, "weights") == key


def test_nobody_whose_signature_does_not_hold_becomes_champion_again(signed: tuple[Context, int]) -> None:
    context, model_id = signed
    promote_by_hand(context, "femur", 1, "cli:ann", "the first", is_override=True)
    with context.registry.writing() as session:
        digest = session.get_one(ModelVersion, model_id).dataset_digest
        key = context.store.put(b"other weights", "artefacts")
        values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
        second = rows.model_version(session, 2, digest, **values).id
    promote_by_hand(context, "femur", 2, "cli:ann", "a try", is_override=True)
    with context.registry.writing() as session:
        session.get_one(SigningKey, key_in_use(context)).revoked_at = context.now()
    with pytest.raises(BadSignature, match="revoked"):
        roll_back(context, "femur", None, "cli:ann", "looks worse")
    with context.registry.reading() as session:
        assert session.get_one(Champion, "femur").model_version_id == second


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    signing.private_key(tmp_path / "key").public_key()
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(FemurError, match="readable by its owner alone"):
        signing.private_key(tmp_path / "key")


@pytest.mark.parametrize("data", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_file_that_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "key").write_bytes(data)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(FemurError, match="Ed25519"):
        signing.private_key(tmp_path / "key")
