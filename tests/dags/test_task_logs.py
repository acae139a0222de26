"""Lines of tasks are masked in their own files and where the scheduler repeats them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from femur_tasks.settings import Settings
from femur_tasks.stack.parts import airflow_env
from femur_tasks.stack.secrets import Secrets

REPEATING = """
from airflow.logging_config import configure_logging
configure_logging()
from airflow.listeners.listener import get_listener_manager
get_listener_manager()  # as the scheduler does at its start
from airflow.sdk.execution_time.supervisor import log, process_log_messages_from_subprocess
task = process_log_messages_from_subprocess((log,))
next(task)
task.send(b'{"timestamp": "2026-01-01T00:00:00Z", "level": "error", "event": "posted to slack://HUSHHUSH1/x/y"}')
"""


def test_scheduler_repeats_what_tasks_say_without_secrets(tmp_path: Path) -> None:
    configuration = airflow_env(Settings(home=tmp_path), 8080, Secrets())
    env = {**os.environ, **configuration, "FEMUR_NOTIFY_URLS": "slack://HUSHHUSH1/x/y", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", REPEATING], env=env, capture_output=True, text=True, check=True
    )
    assert "posted to ***" in done.stdout
    assert "HUSH" not in done.stdout + done.stderr
