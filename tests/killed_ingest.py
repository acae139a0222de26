"""The tasks of an ingest in a process that kills itself at one point: `python -m tests.killed_ingest RUN_ID [POINT]`.

Points are `download`, `planned`, `converting`, `converted`, `put KIND NUMBER`, `in transaction NUMBER`,
`behind transaction NUMBER`, and `meet FOLDER`, where it lives on as soon as two processes have come to publish.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

from sqlalchemy.orm import Session

from femur_tasks.dataset.conversion import Job, Reading, convert_all
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.database import Registry
from femur_tasks.steps import incoming, ingest, stages
from femur_tasks.steps.context import Context, open_context
from femur_tasks.storage import S3Store

POINT = sys.argv[2] if len(sys.argv) > 2 else ""


def reached(point: str) -> None:
    if point == POINT:
        os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(S3Store):
    """A store whose process may die behind a transfer."""

    def __init__(self, store: S3Store) -> None:
        super().__init__(store._client, store._bucket)
        self._puts, self._lock = Counter[str](), Lock()

    def put(self, data: bytes | Path, kind: str) -> str:
        key = super().put(data, kind)
        with self._lock:
            self._puts[kind] += 1
            reached(f"put {kind} {self._puts[kind]}")
        return key

    def download(self, key: str, path: Path) -> None:
        super().download(key, path)
        reached("download")


class MortalRegistry(Registry):
    """A registry whose process may die before or behind a commit."""

    transactions = 0

    @contextmanager
    def writing(self) -> Iterator[Session]:
        self.transactions += 1
        number = self.transactions
        with super().writing() as session:
            yield session
            session.flush()
            reached(f"in transaction {number}")
        reached(f"behind transaction {number}")


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
    mortal = replace(opened, store=MortalStore(opened.store), registry=MortalRegistry(opened.settings.database_url))
    run(mortal, sys.argv[1])
