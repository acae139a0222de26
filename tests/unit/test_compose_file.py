"""The cluster's files: as their specifications want them, closed where they may be, and read as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from femur_tasks.cluster.secrets import write_secrets
from femur_tasks.settings import CHECKOUT
from tests.composed import Composed

COMPOSE = CHECKOUT / "docker-compose.yaml"
CONTROL = {"airflow-init", "api-server", "scheduler", "dag-processor", "triggerer"}
WORKERS = {"worker-cpu": "owner", "worker-judge": "promoter", "worker-gpu": "trainer"}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text()))


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Composed:
    root = tmp_path_factory.mktemp("cluster")
    write_secrets(root / "secrets")
    return Composed(COMPOSE, root, {"FEMUR_SECRETS": str(root / "secrets")})


@pytest.mark.parametrize("plant", ["", "    privilegd: true\n"], ids=["as it is", "with a misspelt key"])
def test_compose_file_holds_to_the_specification(plant: str, tmp_path: Path) -> None:
    text = COMPOSE.read_text().replace("  redis:\n", f"  redis:\n{plant}", 1)
    (tmp_path / "compose.yaml").write_text(text)
    checked = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(tmp_path / "compose.yaml"))
    assert (checked.returncode == 0) is not plant, checked.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the linter's wheel is for Linux")
@pytest.mark.parametrize("plant", ["", "RUN cd /tmp\n"], ids=["as it is", "with a fault"])
def test_dockerfile_satisfies_its_linter(plant: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text((CHECKOUT / "docker/Dockerfile").read_text() + plant)
    checked = run("hadolint", str(tmp_path / "Dockerfile"))
    assert (checked.returncode == 0) is not plant, checked.stdout


@pytest.mark.parametrize(
    ("into", "plant"),
    [
        ("  redis:\n", "    privileged: true\n"),
        ("    deploy: {", "replicaz: 2, "),
        ("    healthcheck: {", "interva: 3s, "),
        ("services:\n", "  more: {privileged: true}\n"),
        ("name: femur\n", "include: [more.yaml]\n"),
    ],
)
def test_reader_refuses_what_it_does_not_understand(into: str, plant: str, tmp_path: Path) -> None:
    write_secrets(tmp_path / "secrets")
    (tmp_path / "compose.yaml").write_text(COMPOSE.read_text().replace(into, into + plant, 1))
    with pytest.raises(ValueError, match="Expected keys"):
        read_all(Composed(tmp_path / "compose.yaml", tmp_path, {}))


def read_all(composed: Composed) -> None:
    for name in composed.names:
        composed.replicas(name)
        composed.service(name)


def test_reader_refuses_a_port_that_others_could_reach(tmp_path: Path) -> None:
    write_secrets(tmp_path / "secrets")
    (tmp_path / "compose.yaml").write_text(
        COMPOSE.read_text().replace('["127.0.0.1:${FEMUR_UI', '["0.0.0.0:${FEMUR_UI')
    )
    with pytest.raises(ValueError, match="on loopback alone"):
        Composed(tmp_path / "compose.yaml", tmp_path, {}).service("api-server")


def test_only_the_page_is_published(file: dict[str, Any]) -> None:
    assert [name for name, one in file["services"].items() if one.get("ports")] == ["api-server"]


def test_every_service_is_confined_and_watched(file: dict[str, Any]) -> None:
    for name, one in file["services"].items():
        assert one["read_only"], name
        assert one["user"] not in ("", "root", "0", "0:0"), name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["restart"] in ("unless-stopped", "on-failure"), name
        assert set(one["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert one.get("healthcheck") or name == "airflow-init", name
        assert not one["image"].endswith(":latest"), name
        assert ":" in one["image"], name


def test_control_plane_alone_knows_airflow_s_secrets(composed: Composed) -> None:
    for name in composed.names:
        service = composed.service(name)
        known = {path.name for path in service.files}
        told = {key for key in service.environment if key.endswith("_CMD")}
        secret = known & {"airflow_database_url", "fernet_key", "jwt_secret", "api_secret_key"}
        assert len(secret) == (4 if name in CONTROL else 0), name
        assert ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD" in told) is (name in CONTROL), name


@pytest.mark.parametrize("worker", WORKERS)
def test_worker_logs_in_as_its_role_alone(worker: str, composed: Composed) -> None:
    service = composed.service(worker)
    ingests = {"patient.key"} if worker == "worker-cpu" else set()
    ends_runs = {"airflow_login"} if worker != "worker-gpu" else set()
    assert {path.name for path in service.files if path.suffix != ".yaml"} == {
        "broker_url", "logs.ini", "result_backend", "stack.env", *ingests, *ends_runs,
    }  # fmt: skip
    logins = next(text for path, text in service.files.items() if path.name == "stack.env")
    owner = "femur_owner" if worker == "worker-cpu" else f"femur_{WORKERS[worker]}_login"
    assert f"//{owner}:" in logins
    assert f"FEMUR_S3_ACCESS_KEY={WORKERS[worker]}-" in logins


def test_trainers_have_no_way_out(file: dict[str, Any]) -> None:
    assert file["services"]["worker-gpu"]["networks"] == ["inside"]
    assert file["networks"]["inside"]["internal"]


def test_secrets_are_made_once_and_for_those_alone_who_may_enter_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = write_secrets(folder)
    before = {path: path.read_text() for path in made}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert write_secrets(folder) == []
    (folder / "broker_url").unlink()
    assert {path.name for path in write_secrets(folder)} == {"redis_acl", "broker_url"}
    changed = {path.name for path, text in before.items() if path.read_text() != text}
    assert changed == {"redis_acl", "broker_url"}


def test_settings_in_a_roles_file_outlast_its_secrets(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    promoter, before = tmp_path / "promoter.env", (tmp_path / "promoter.env").read_text()
    promoter.chmod(0o600)
    promoter.write_text(before + "FEMUR_NOTIFY_URLS=json://there\n")
    (tmp_path / "reader.env").unlink()
    write_secrets(tmp_path)
    *anew, kept = promoter.read_text().splitlines()
    assert kept == "FEMUR_NOTIFY_URLS=json://there"
    for old, new in zip(before.splitlines(), anew, strict=True):
        assert (old != new, old.partition("=")[0]) == (True, new.partition("=")[0])


def test_roles_get_the_policies_of_this_version(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    store = tmp_path / "store.json"
    before = json.loads(store.read_text())
    store.chmod(0o600)
    store.write_text(json.dumps({**before, "policies": [{"name": "trainer", "content": "{}"}]}))
    assert write_secrets(tmp_path) == [store]
    assert (json.loads(store.read_text()), store.stat().st_mode & 0o777) == (before, 0o444)


def test_every_secret_of_the_file_is_made(file: dict[str, Any], tmp_path: Path) -> None:
    assert set(file["secrets"]) == {path.name for path in write_secrets(tmp_path / "secrets")}
