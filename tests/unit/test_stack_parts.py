"""Commands and environments of the parts, and what their modules may import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from femur_tasks.settings import CHECKOUT, Settings
from femur_tasks.stack.parts import NAMES, Part, all_parts
from femur_tasks.stack.ports import Ports, StorePorts
from femur_tasks.stack.secrets import Secrets

PORTS = Ports(store=StorePorts(s3=11_001, filer=11_002, master=11_003, volume=11_004, admin=11_005), airflow=11_006)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Part]:
    settings = Settings(home=tmp_path, task_heartbeat_s=17)
    return {part.name: part for part in all_parts(settings, PORTS, Secrets())}


def test_every_part_carries_the_mark(tmp_path: Path, parts: dict[str, Part]) -> None:
    assert tuple(parts) == NAMES
    assert all(part.env["FEMUR_HOME"] == str(tmp_path) for part in parts.values())
    assert all(part.env["FEMUR_PART"] == name for name, part in parts.items())
    assert all(part.env["SPT_NOENV"] == "1" for part in parts.values())


def test_store_stays_on_loopback_and_sends_no_telemetry(parts: dict[str, Part]) -> None:
    assert {
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
    } <= set(parts["store"].argv)


def test_airflow_opens_one_port_on_loopback(parts: dict[str, Part]) -> None:
    env = parts["api-server"].env
    assert (env["AIRFLOW__API__HOST"], env["AIRFLOW__API__PORT"]) == ("127.0.0.1", "11006")
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:11006/execution/"
    assert all("--skip-serve-logs" in parts[name].argv for name in ("scheduler", "triggerer"))


def test_credentials_are_in_no_command_line(parts: dict[str, Part]) -> None:
    secret = {value for name, value in parts["scheduler"].env.items() if name.endswith(("SECRET", "KEY"))}
    secret |= {parts["store"].env["AWS_ACCESS_KEY_ID"], parts["store"].env["AWS_SECRET_ACCESS_KEY"]}
    assert len(secret) == 5
    assert not [word for part in parts.values() for word in part.argv if any(value in word for value in secret)]


def test_settings_reach_the_scheduler(parts: dict[str, Part]) -> None:
    env = parts["scheduler"].env
    assert env["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] == "17"
    assert env["AIRFLOW__CORE__DAGS_FOLDER"] == str(CHECKOUT / "dags")


def test_stack_is_passed_by_proxies_and_keeps_the_users_exceptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    env = all_parts(Settings(home=tmp_path), PORTS, Secrets())[0].env
    assert env["NO_PROXY"] == env["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_empty_home_of_the_user_becomes_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    assert all_parts(Settings(home=tmp_path), PORTS, Secrets())[0].env["HOME"] == str(tmp_path)


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("femur_tasks.stack.control", ["airflow", "tensorflow", "keras", "sqlalchemy"]),
        ("femur_tasks.stack.launch", ["airflow", "tensorflow", "pydantic", "supervisor", "httpx"]),
        ("femur_tasks.stack.supervise", ["airflow", "tensorflow", "pydantic", "httpx"]),
    ],
)
def test_module_loads_nothing_heavy(module: str, banned: list[str]) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    loaded = json.loads(fresh.stdout)
    assert module in loaded
    assert [name for name in banned if name in loaded] == []
