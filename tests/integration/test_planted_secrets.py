"""No secret leaves the settings: commands that work and commands that fail, and every byte that they leave behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from femur_tasks.phantom import write_dataset
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Base
from femur_tasks.stack.files import private_dir, write_private
from femur_tasks.stack.secrets import Secrets
from femur_tasks.storage import open_store
from tests.conftest import settings_of
from tests.processes import environment, femur
from tests.receivers import Webhook, webhook

NEEDLE = "PLANTED"
STORE, PATIENTS, MAIL, TOKEN, DATABASE = (f"{NEEDLE}-{what}-0123456789abcdef0123456789" for what in "spmtd")
PRIVATE = {"stack.env", "secrets.json"}
"""What holds credentials on purpose, for its owner alone, beside the parts' own files."""


@dataclass
class Left:
    """What the commands said by name, what they sent, and the home that they left."""

    home: Path
    done: dict[str, subprocess.CompletedProcess[bytes]]
    sent: list[dict[str, Any]]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    folder = tmp_path_factory.mktemp("planted")
    home, data = private_dir(folder / "home"), folder / "data"
    write_private(home / "secrets.json", Secrets(s3_secret_key=STORE).model_dump_json())
    write_dataset(data, 10, 0, 64)
    (folder / "broken" / "train" / "imgs").mkdir(parents=True)
    (folder / "broken" / "train" / "imgs" / "a.png").write_bytes(b"no picture")
    with webhook() as hook:
        env = environment(home, FEMUR_NOTIFY_URLS=places(hook), FEMUR_PATIENT_KEY=PATIENTS, FEMUR_LOG_FORMAT="json")
        try:
            done = {"up": femur(env, "up", "--store-only")}
            done["ingest"] = femur(env, "--debug", "ingest", str(data), "--size", "32")
            done["refused"] = femur(env, "--debug", "ingest", str(folder / "broken"), "--name", "broken")
            for key in [stored.key for stored in open_store(settings_of(home)).list("shards/")]:
                open_store(settings_of(home)).delete(key)
            done["retrain"] = femur(env, "--debug", "retrain", "--families", "baseline", "--budget", "smoke")
            done["notify"] = femur(env, "--debug", "notify")
            done["test"] = femur(env, "--debug", "notify", "--test")
            done["config"] = femur(env, "config")
            for name, wrong in {
                "wrong key": {"FEMUR_S3_SECRET_KEY": DATABASE},
                "no database": {"FEMUR_REGISTRY_URL": f"postgresql://u:{DATABASE}@127.0.0.1:1/db"},
                "no address": {"FEMUR_REGISTRY_URL": f"postgresql://u:{DATABASE}@127.0.0.1:port/db"},
                "no dialect": {"FEMUR_REGISTRY_URL": f"oracle-nine://u:{DATABASE}@127.0.0.1/db"},
                "short key": {"FEMUR_PATIENT_KEY": NEEDLE},
            }.items():
                done[name] = femur({**env, **wrong}, "--debug", "ingest", str(data), "--size", "40")
            yield Left(home, done, hook.taken)
        finally:
            femur(env, "down")


def places(hook: Webhook) -> str:
    dead = f"mailto://me:{MAIL}@127.0.0.1:1?from=femur@clinic.example slack://{TOKEN}/{TOKEN}/{TOKEN}"
    return f"{hook.url}/{TOKEN}?x={TOKEN} {dead} json://127.0.0.1:1/{TOKEN}"


def test_commands_end_as_they_should(left: Left) -> None:
    codes = {name: done.returncode for name, done in left.done.items()}
    assert (codes.pop("up"), codes.pop("ingest"), codes.pop("config"), codes.pop("notify")) == (0, 0, 0, 0)
    assert all(codes.values()), codes
    told = [taken["title"] for taken in left.sent]
    assert [title.startswith("retrain cli__") and title.endswith("failed") for title in told] == [True, False]
    assert told[1] == "A test: messages arrive"


def test_no_secret_is_printed(left: Left) -> None:
    said = {name: (done.stdout + done.stderr).decode() for name, done in left.done.items()}
    assert {name: text for name, text in said.items() if NEEDLE in text} == {}
    assert "Traceback" in said["no database"], "--debug shows where it comes from"


def test_no_secret_is_sent(left: Left) -> None:
    assert NEEDLE not in json.dumps(left.sent)


def test_no_secret_is_in_a_row_of_the_registry(left: Left) -> None:
    registry = Registry(settings_of(left.home).database_url)
    rows = []
    with registry.reading() as session:
        for table in Base.metadata.sorted_tables:
            rows += [str(row) for row in session.execute(table.select())]
    registry.engine.dispose()
    assert any("1: JSON: sent; 2: E-Mail: " in row for row in rows), "what became of a message is looked into too"
    assert [row for row in rows if NEEDLE in row] == []


def test_no_secret_is_in_a_log_or_any_other_file_of_the_home(left: Left) -> None:
    files = [path for path in left.home.rglob("*") if path.is_file() and path.name not in PRIVATE]
    files = [path for path in files if path.parent != left.home / "parts"]
    assert {"store.log", "alarm.log", "supervisord.log", "registry.db"} <= {path.name for path in files}
    assert [str(path) for path in files if NEEDLE.encode() in path.read_bytes()] == []


def test_no_secret_is_in_a_command_line(left: Left) -> None:
    import psutil

    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not any(NEEDLE in word for line in lines for word in line)
