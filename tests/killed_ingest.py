"""The tasks of an ingest in a process that kills itself at one point: `python -m tests.killed_ingest RUN_ID [POINT]`.

Points are `planned`, `converting`, `converted`, those of `tests.mortal`, and `meet FOLDER`, where it lives on as soon
as two processes have come to publish.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from femur_tasks.dataset.conversion import Job, Reading, convert_all
from femur_tasks.parameters import IngestParameters
from femur_tasks.steps import incoming, ingest, stages
from femur_tasks.steps.context import Context, open_context
from femur_tasks.storage import S3Store
from tests.mortal import MortalRegistry, MortalStore, Points

POINT = sys.argv[2] if len(sys.argv) > 2 else ""
reached = Points(POINT)


def mortal_conversion(jobs: Sequence[Job], reading: Reading, on_case: Callable[[], None] = lambda: None) -> None:
    def counted() -> None:
        on_case()
        reached("converting")

    convert_all(jobs, reading, counted)


def meet(folder: Path, run_id: str) -> None:
    (folder / run_id).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.005)


def run(context: Context, run_id: str) -> None:
    """What Airflow does with the drop that waits longest."""
    source = incoming.look_for_incoming(context)[0]
    planned = stages.plan(context, source, IngestParameters(size=32), run_id)
    reached("planned")
    for part in planned["parts"]:
        stages.convert(context, part)
    reached("converted")
    if POINT.startswith("meet "):
        meet(Path(POINT.removeprefix("meet ")), run_id)
    sys.stdout.write(json.dumps(stages.publish(context, planned)["outcome"]))


if __name__ == "__main__":
    opened = open_context()
    assert isinstance(opened.store, S3Store)
    ingest.convert_all = mortal_conversion  # type: ignore[attr-defined]
    registry = MortalRegistry(opened.settings.database_url, reached)
    run(replace(opened, store=MortalStore(opened.store, reached), registry=registry), sys.argv[1])
