"""Secrets of the settings stay out of Airflow's logs, those of its own processes included.

Airflow masks a task's own log. The scheduler's LocalExecutor repeats each line of it in its own log, unmasked.
"""

from __future__ import annotations

import structlog
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.log import mask_logs, mask_secret

from femur_tasks.redaction import secrets_of
from femur_tasks.settings import settings


class FemurMasking(AirflowPlugin):
    """Loaded by whatever runs tasks or parses DAG files; what these start inherits it."""

    name = "femur_masking"


for _secret in secrets_of(settings()):
    mask_secret(_secret)
_processors = structlog.get_config()["processors"]
structlog.configure(processors=[*_processors[:-1], mask_logs, _processors[-1]])
