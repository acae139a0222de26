"""Ports, credentials and state files of the embedded stack."""

from __future__ import annotations

import random
import socket
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.stack.files import private_dir, write_private
from femur_tasks.stack.ports import GRPC_OFFSET, is_free, known_ports, remember_ports
from femur_tasks.stack.secrets import airflow_password, passwords_file, remember_passwords, remember_secrets


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]


def test_private_dir_closes_one_that_was_open(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert mode(private_dir(tmp_path)) == 0o700


def test_ports_are_free_distinct_and_leave_room_for_grpc(tmp_path: Path) -> None:
    ports, moved = remember_ports(tmp_path, set())
    opened = [*ports.store.opened(), ports.airflow]
    assert len(set(opened)) == 11
    assert all(map(is_free, opened))
    assert {port + GRPC_OFFSET for port in opened[:5]} == set(opened[5:10])
    assert max(opened) < 32_768
    assert not moved


def test_ports_are_remembered(tmp_path: Path) -> None:
    assert known_ports(tmp_path) is None
    first, _ = remember_ports(tmp_path, set())
    assert remember_ports(tmp_path, set()) == (first, False)
    assert known_ports(tmp_path) == first


def test_two_processes_with_one_seed_choose_different_ports(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        random.seed(0)
        (tmp_path / name).mkdir()
        found.append(set(remember_ports(tmp_path / name, set())[0].store.opened()))
    assert found[0] != found[1]


def test_port_taken_above_the_offset_moves_the_store_alone(tmp_path: Path) -> None:
    first, _ = remember_ports(tmp_path, set())
    with socket.create_server(("127.0.0.1", first.store.filer + GRPC_OFFSET)):
        second, moved = remember_ports(tmp_path, set())
    assert moved
    assert second.store.filer != first.store.filer
    assert second.airflow == first.airflow


def test_port_taken_by_the_running_part_itself_is_kept(tmp_path: Path) -> None:
    first, _ = remember_ports(tmp_path, set())
    with socket.create_server(("127.0.0.1", first.airflow)):
        assert remember_ports(tmp_path, {"api-server"}) == (first, False)


def test_port_taken_on_all_addresses_is_not_free() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - the case under test
        assert not is_free(server.getsockname()[1])


def test_secrets_are_generated_once_for_the_owner_alone(tmp_path: Path) -> None:
    first = remember_secrets(tmp_path)
    assert remember_secrets(tmp_path) == first
    assert mode(tmp_path / "secrets.json") == 0o600
    assert len(first.jwt_secret.encode()) >= 64
    Fernet(first.fernet_key)


def test_two_homes_have_different_secrets(tmp_path: Path) -> None:
    one, other = (remember_secrets(private_dir(tmp_path / name)).model_dump() for name in ("one", "other"))
    assert [name for name in one if one[name] == other[name]] == []


def test_damaged_secrets_are_reported_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"jwt_secret": ')
    with pytest.raises(FemurError, match="Restore the file"):
        remember_secrets(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == '{"jwt_secret": '


def test_password_is_kept_and_private(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="femur up"):
        airflow_password(tmp_path)
    remember_passwords(tmp_path, ["admin"])
    first = airflow_password(tmp_path)
    remember_passwords(tmp_path, ["admin", "anna"])
    assert airflow_password(tmp_path) == first
    assert airflow_password(tmp_path, "anna") not in ("", first)
    assert mode(passwords_file(tmp_path)) == 0o600
