"""Lines say what they are about, and no secret: from the CLI, from processes of our own, and under Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from femur_tasks.logs import naming
from femur_tasks.redaction import redacted, secrets_of
from femur_tasks.settings import Settings
from tests.conftest import settings_of

WORKING = """
import logging, sys
import femur_tasks.cli
from femur_tasks.logs import naming
from femur_tasks.processes import apart
from structlog.contextvars import bound_contextvars

log = logging.getLogger("femur_tasks.steps.train")

@naming("run_id", "family")
def step(context, run_id, family="unet"):
    log.warning("going on with %s", "hush-hush")
    apart(["logging"], logging.getLogger("femur_tasks.child").warning, "in a child")
    with bound_contextvars(trial_id="7"):
        try:
            raise ValueError("hush-hush")
        except ValueError:
            log.exception("failed")

step(None, run_id="night-1", family="tuned")
log.warning("behind it")
"""

UNDER_AIRFLOW = """
import io, logging, sys
from airflow.sdk.log import configure_logging, mask_secret
written = open(sys.argv[1], "wb")
configure_logging(json_output=True, output=written, sending_to_supervisor=True)
from femur_tasks.logs import naming

@naming("run_id", "family")
def step(run_id, family):
    logging.getLogger("femur_tasks.steps.train").warning("going on")

step("night-1", "tuned")
written.flush()
"""


def said(code: str, home: Path, *arguments: str, **more: str) -> str:
    env = {**os.environ, "FEMUR_HOME": str(home), "FEMUR_S3_SECRET_KEY": "hush-hush", **more}
    env["AIRFLOW_HOME"] = str(home / "airflow")
    done = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-W", "ignore", "-c", code, *arguments], env=env, capture_output=True, text=True, check=True
    )
    return done.stderr


def test_json_lines_carry_ids_also_from_another_process(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in said(WORKING, tmp_path, FEMUR_LOG_FORMAT="json").splitlines()]
    assert [line["event"] for line in lines] == ["going on with ***", "in a child", "failed", "behind it"]
    assert [(line.get("run_id"), line.get("family"), line.get("trial_id")) for line in lines] == [
        ("night-1", "tuned", None),
        ("night-1", "tuned", None),
        ("night-1", "tuned", "7"),
        (None, None, None),
    ]
    assert {line["level"] for line in lines} == {"warning", "error"}
    assert lines[2]["exception"].endswith("ValueError: ***")
    assert lines[0]["logger"] == "femur_tasks.steps.train"
    assert lines[0]["timestamp"].endswith("Z")


def test_lines_for_people_carry_ids_and_no_secret(tmp_path: Path) -> None:
    found = said(WORKING, tmp_path)
    assert found.startswith("going on with *** family=tuned run_id=night-1\nin a child family=tuned run_id=night-1\n")
    assert "hush" not in found


def test_lines_of_a_task_carry_ids_under_airflow(tmp_path: Path) -> None:
    said(UNDER_AIRFLOW, tmp_path, str(tmp_path / "task.log"))
    lines = [json.loads(line) for line in (tmp_path / "task.log").read_text().splitlines()]
    (line,) = (line for line in lines if line["event"] == "going on")
    assert (line["run_id"], line["family"]) == ("night-1", "tuned")


def test_function_is_called_as_before() -> None:
    @naming("run_id")
    def step(context: int, run_id: str = "none") -> tuple[int, str]:
        return context, run_id

    assert step(1) == (1, "none")
    assert step(1, run_id="night") == (1, "night")
    assert step.__name__ == "step"


# ---- what is a secret


@pytest.mark.parametrize(
    ("url", "hidden", "shown"),
    [
        (
            "mailto://femur:p%40ss-word@mail.clinic.org:587?to=a@b.org",
            ["p%40ss-word", "p@ss-word"],
            ["mail.clinic.org"],
        ),
        ("mailto://femur:pa/ss@word@mail.clinic.org", ["pa/ss@word"], ["mail.clinic.org"]),
        (
            "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
            ["T1JJ3T3L2", "TIiajkdnlazkcOXrIdevi7FQ"],
            [],
        ),
        ("tgram://123456789:abcdefg_hijklmnop/12315544", ["abcdefg_hijklmnop", "123456789"], []),
        ("jsons://127.0.0.1/hook?token=s3cr3t-token", ["s3cr3t-token"], ["127.0.0.1", "hook"]),
    ],
    ids=["mail", "mail, odd password", "slack", "telegram", "webhook"],
)
def test_keys_in_an_address_are_hidden_and_its_host_is_not(
    tmp_path: Path, url: str, hidden: list[str], shown: list[str]
) -> None:
    chosen = settings_of(tmp_path).model_copy(update={"notify_urls": SecretStr(url)})
    assert redacted(f"posted to {url}, failed", chosen) == "posted to ***, failed"
    for secret in hidden:
        assert redacted(f"x {secret} y", chosen) == "x *** y"
    for word in shown:
        assert redacted(f"x {word} y", chosen) == f"x {word} y"


def test_every_secret_setting_and_the_patients_key_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "patient.key").write_text("k" * 64)
    secret = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]
    given = {name: SecretStr(f"planted-{name}") for name in secret}
    chosen = settings_of(tmp_path).model_copy(update={**given, "registry_url": "postgresql://u:p@ss@host/db"})
    assert {*(f"planted-{name}" for name in secret), "p@ss", "k" * 64} <= secrets_of(chosen)
    assert secret == ["s3_secret_key", "patient_key", "notify_urls"]


def test_nothing_is_hidden_where_nothing_is_secret(tmp_path: Path) -> None:
    assert redacted("as it is", settings_of(tmp_path)) == "as it is"


def test_several_places_are_told_apart_whatever_their_addresses_hold(tmp_path: Path) -> None:
    urls = "json://a/x, mailto://u:p@b?to=c@d,e@f\n slack://1/2/3,ntfy://t"
    chosen = settings_of(tmp_path).model_copy(update={"notify_urls": SecretStr(urls)})
    assert chosen.notify_places == ["json://a/x", "mailto://u:p@b?to=c@d,e@f", "slack://1/2/3", "ntfy://t"]
