"""Whoever logs in to the store with a role's policy does there what the role needs, and no more.

A trainer reads and stores what a fit reads and makes, and deletes checkpoints alone; what was dropped, with patients'
names in it, is the owner's alone.
"""

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

ROLES = ("trainer", "promoter", "reader")
MAKES, READS = ("artefacts", "onnx", "checkpoints", "reports"), ("shards", "manifests")
OTHERS, DROPS = ("raw", "cards", "predictions"), ("incoming", "incoming-images")
DENIED = "AccessDenied"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, S3Store]]:
    """A SeaweedFS of this module's own, as its owner and each role see it."""
    home, logins = tmp_path_factory.mktemp("roles"), {role: (f"{role}{token_hex(4)}", token_hex(16)) for role in ROLES}
    (home / "s3.json").touch(0o600)
    told = {
        "identities": [
            {"name": role, "credentials": [{"accessKey": key, "secretKey": secret}], "policyNames": [role]}
            for role, (key, secret) in logins.items()
        ],
        "policies": [{"name": role, "content": (CHECKOUT / f"docs/{role}-policy.json").read_text()} for role in ROLES],
    }
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
        everybody = {"owner": (owner.s3_access_key, owner.s3_secret_key), **logins}
        yield {who: _opened(home, s3, *login) for who, login in everybody.items()}
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


@pytest.mark.parametrize("kind", [*MAKES, *READS])
def test_trainer_reads_what_a_fit_needs(stores: dict[str, S3Store], kind: str) -> None:
    key = stores["owner"].put(b"owner's " + kind.encode(), kind)
    assert stores["trainer"].get(key) == b"owner's " + kind.encode()
    assert key in [found.key for found in stores["trainer"].list(f"{kind}/")]


@pytest.mark.parametrize("kind", OTHERS)
def test_trainer_reads_nothing_else(stores: dict[str, S3Store], kind: str) -> None:
    key = stores["owner"].put(b"owner's " + kind.encode(), kind)
    with pytest.raises(Unreachable, match=DENIED):
        stores["trainer"].get(key)


@pytest.mark.parametrize("role", ["promoter", "reader"])
@pytest.mark.parametrize("kind", [*MAKES, *READS, *OTHERS])
def test_judge_and_page_read_what_the_product_stored(stores: dict[str, S3Store], role: str, kind: str) -> None:
    key = stores["owner"].put(b"owner's " + kind.encode(), kind)
    assert stores[role].get(key) == b"owner's " + kind.encode()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", DROPS)
def test_nobody_but_the_owner_reads_what_was_dropped(stores: dict[str, S3Store], role: str, kind: str) -> None:
    name = f"{kind}/hip/march.zip"
    stores["owner"].put_named(b"headers with names", name)
    with pytest.raises(Unreachable, match=DENIED):
        stores[role].get(name)
    with pytest.raises(Unreachable, match=DENIED):
        stores[role].put_named(b"planted", name)
    assert stores["owner"].get(name) == b"headers with names"


@pytest.mark.parametrize("kind", MAKES)
def test_trainer_stores_what_a_fit_makes(stores: dict[str, S3Store], kind: str) -> None:
    key = stores["trainer"].put(b"trainer's " + kind.encode(), kind)
    assert stores["owner"].get(key) == b"trainer's " + kind.encode()


@pytest.mark.parametrize("kind", [*READS, *OTHERS])
def test_trainer_stores_nothing_else(stores: dict[str, S3Store], kind: str) -> None:
    owner = stores["owner"]
    with pytest.raises(Unreachable, match=DENIED):
        stores["trainer"].put(b"planted", kind)
    assert "planted" not in str([owner.get(found.key) for found in owner.list(f"{kind}/")])


@pytest.mark.parametrize("kind", [*MAKES, *READS, *OTHERS])
def test_trainer_deletes_checkpoints_alone(stores: dict[str, S3Store], kind: str) -> None:
    owner, trainer = stores["owner"], stores["trainer"]
    key = owner.put(b"to be kept: " + kind.encode(), kind)
    if kind == "checkpoints":
        trainer.delete(key)
        assert owner.stat(key) is None
        return
    with pytest.raises(Unreachable, match=DENIED):
        trainer.delete(key)
    assert owner.get(key) == b"to be kept: " + kind.encode()


def test_what_a_trainer_wrote_over_is_an_error_that_names_it(stores: dict[str, S3Store]) -> None:
    key = stores["owner"].put(b"signed weights", "artefacts")
    stores["trainer"].put_named(b"other weights!", key)  # the store can't refuse that; whoever loads it does
    with pytest.raises(DigestMismatch, match=f"for {key}"):
        stores["owner"].get(key)
