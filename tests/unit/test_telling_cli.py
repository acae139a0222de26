"""`femur notify` and `femur metrics` as people call them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from femur_tasks.registry.database import Registry, migrate
from femur_tasks.settings import CHECKOUT, Settings
from tests import registry_rows as rows
from tests.processes import environment, femur
from tests.receivers import mailbox, webhook


def test_test_message_reaches_every_place_and_names_the_one_that_failed(tmp_path: Path) -> None:
    with webhook() as hook, mailbox() as box:
        urls = (
            f"{hook.url}/hook?token=hush-token-1 {box.url} mailto://me:hush-word@127.0.0.1:1?from=femur@clinic.example"
        )
        done = femur(environment(tmp_path, FEMUR_NOTIFY_URLS=urls), "notify", "--test")
        assert done.returncode == 1
        assert hook.titles == [box.mails[0]["subject"]] == ["A test: messages arrive"]
    told = done.stdout.decode()
    assert "1: JSON" in told
    assert "3: E-Mail" in told
    assert "Expected every place to take it.\nReceived: not 3: E-Mail." in done.stderr.decode()
    assert b"hush" not in done.stdout + done.stderr


def test_json_says_the_same_to_scripts(tmp_path: Path) -> None:
    with webhook() as hook:
        env = environment(tmp_path, FEMUR_NOTIFY_URLS=f"{hook.url} nonsense")
        done = femur(env, "notify", "--test", "--json")
        assert done.returncode == 1
        first, second = json.loads(done.stdout)
        assert first == {"place": "1: JSON", "sent": True, "why": ""}
        assert (second["place"], second["sent"]) == ("2: unknown", False)
        assert second["why"].startswith("Expected a URL that Apprise understands. Received: ")
        assert femur({**env, "FEMUR_NOTIFY_URLS": hook.url}, "notify", "--test").returncode == 0


def test_without_a_place_it_says_which_setting_names_one(tmp_path: Path) -> None:
    done = femur(environment(tmp_path), "notify", "--test")
    assert done.returncode == 1
    assert b"Expected FEMUR_NOTIFY_URLS to name a place for messages.\nReceived: none." in done.stderr


def test_kinds_are_words_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    env = environment(tmp_path, FEMUR_NOTIFY_ON="refusal, failure drift")
    assert json.loads(femur(env, "config", "--json").stdout)["notify_on"] == ["refusal", "failure", "drift"]
    done = femur({**env, "FEMUR_NOTIFY_ON": "weather"}, "config")
    assert done.returncode == 1
    assert b"'weather'" in done.stderr


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_config_shows_no_address(tmp_path: Path, options: tuple[str, ...]) -> None:
    env = environment(tmp_path, FEMUR_NOTIFY_URLS="slack://HUSHHUSH/A/B")
    assert b"HUSH" not in femur(env, "config", *options).stdout


def test_secret_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    done = femur(environment(tmp_path, FEMUR_PATIENT_KEY="hush"), "--debug", "config")
    assert done.returncode == 1
    assert b"FEMUR_PATIENT_KEY: Expected 32 characters or more" in done.stderr
    assert b"Received: one that is not shown." in done.stderr
    assert b"hush" not in done.stderr


def test_metrics_are_printed_and_written_for_another_users_collector(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    with Registry(url).writing() as session:
        rows.run(session, state="failed", finished_at=rows.NOON)
    env = environment(tmp_path)
    printed = femur(env, "metrics").stdout.decode()
    assert 'femur_runs{model="femur",state="failed"} 1.0\n' in printed
    told = json.loads(femur(env, "metrics", "--json").stdout)
    assert {"name": "femur_runs", "labels": {"model": "femur", "state": "failed"}, "value": 1.0} in told
    file = tmp_path / "femur.prom"
    file.write_text("old")
    assert femur(env, "metrics", "--out", str(file)).returncode == 0
    assert 'femur_runs{model="femur",state="failed"} 1.0\n' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_every_setting_is_documented() -> None:
    documented = (CHECKOUT / "docs" / "settings.md").read_text()
    # `FEMUR_S3_ENDPOINT`, `_ACCESS_KEY` in one row
    missing = [
        name
        for name in Settings.model_fields
        if f"`FEMUR_{name.upper()}`" not in documented and f"`_{name.upper().partition('_')[2]}`" not in documented
    ]
    assert missing == []
