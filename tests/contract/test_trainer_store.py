"""Whoever logs in to the store with the trainer's policy stores what a fit makes, and deletes checkpoints alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from pydantic import SecretStr

from femur_tasks.errors import DigestMismatch, Unreachable
from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.stack.parts import store_part
from femur_tasks.stack.ports import StorePorts, _free_ports
from femur_tasks.stack.secrets import Secrets
from femur_tasks.storage import S3Store, open_store

POLICY = (CHECKOUT / "docs/trainer-policy.json").read_text()
MAKES, OTHERS = ("artefacts", "onnx", "checkpoints", "reports"), ("raw", "shards", "manifests", "cards")
DENIED = "Access Denied"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Store, S3Store]]:
    """A SeaweedFS of this module's own, as its owner and as a trainer see it."""
    home, key, secret = tmp_path_factory.mktemp("trainer"), f"trainer{token_hex(4)}", token_hex(16)
    identity = {"name": "trainer", "credentials": [{"accessKey": key, "secretKey": secret}], "policyNames": ["trainer"]}
    (home / "s3.json").touch(0o600)
    told = {"identities": [identity], "policies": [{"name": "trainer", "content": POLICY}]}
    (home / "s3.json").write_text(json.dumps(told))
    s3, *others = _free_ports(5)
    ports = StorePorts(s3=s3, filer=others[0], master=others[1], volume=others[2], admin=others[3])
    owner = Secrets()
    part = store_part(home, ports, owner)
    with (home / "log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            [*part.argv, f"-s3.config={home / 's3.json'}"], env=os.environ | part.env, stdout=log, stderr=log
        )
    try:
        yield tuple(_opened(home, s3, *pair) for pair in ((owner.s3_access_key, owner.s3_secret_key), (key, secret)))  # type: ignore[misc]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for socket in Path("/tmp").glob(f"seaweedfs-*-{ports.s3}.sock"):  # noqa: S108 - where the store makes it
            socket.unlink()
        for socket in Path("/tmp").glob(f"seaweedfs-*-{ports.filer}.sock"):  # noqa: S108
            socket.unlink()


def _opened(home: Path, port: int, key: str, secret: str) -> S3Store:
    chosen = Settings(home=home, s3_endpoint=f"127.0.0.1:{port}", s3_access_key=key, s3_secret_key=SecretStr(secret))
    end = time.monotonic() + 60
    while True:
        try:
            return open_store(chosen)
        except Unreachable:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.parametrize("kind", [*MAKES, *OTHERS])
def test_trainer_reads_everything(stores: tuple[S3Store, S3Store], kind: str) -> None:
    owner, trainer = stores
    key = owner.put(b"owner's " + kind.encode(), kind)
    assert trainer.get(key) == b"owner's " + kind.encode()
    assert key in [found.key for found in trainer.list(f"{kind}/")]


@pytest.mark.parametrize("kind", MAKES)
def test_trainer_stores_what_a_fit_makes(stores: tuple[S3Store, S3Store], kind: str) -> None:
    owner, trainer = stores
    assert owner.get(trainer.put(b"trainer's " + kind.encode(), kind)) == b"trainer's " + kind.encode()


@pytest.mark.parametrize("kind", OTHERS)
def test_trainer_stores_nothing_else(stores: tuple[S3Store, S3Store], kind: str) -> None:
    owner, trainer = stores
    with pytest.raises(Unreachable, match=DENIED):
        trainer.put(b"planted", kind)
    assert "planted" not in str([owner.get(found.key) for found in owner.list(f"{kind}/")])


@pytest.mark.parametrize("kind", [*MAKES, *OTHERS])
def test_trainer_deletes_checkpoints_alone(stores: tuple[S3Store, S3Store], kind: str) -> None:
    owner, trainer = stores
    key = owner.put(b"to be kept: " + kind.encode(), kind)
    if kind == "checkpoints":
        trainer.delete(key)
        assert owner.stat(key) is None
        return
    with pytest.raises(Unreachable, match=DENIED):
        trainer.delete(key)
    assert owner.get(key) == b"to be kept: " + kind.encode()


def test_what_a_trainer_wrote_over_is_an_error_that_names_it(stores: tuple[S3Store, S3Store]) -> None:
    owner, trainer = stores
    key = owner.put(b"signed weights", "artefacts")
    trainer.put_named(b"other weights!", key)  # the store can't refuse that; whoever loads it does
    with pytest.raises(DigestMismatch, match=f"for {key}"):
        owner.get(key)
