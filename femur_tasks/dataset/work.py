"""The work folder of one ingest: what was fetched, how it is read, and each case as it is converted.

Every stage leaves its result there, whole or not at all, so that an ingest that was killed goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from femur_tasks.dataset.conversion import Job
from femur_tasks.dataset.layouts.layout import CaseFiles, Layout
from femur_tasks.dataset.problems import Problem

_FORGOTTEN = timedelta(days=2)


@dataclass(frozen=True)
class Plan:
    """What the first stage found out, and what the next ones go by.

    Attributes:
        source: as the registry is to show it.
        folder: with the source's files.
        layout, femur_class, patient_pattern: as asked for or found; empty where they never came to be known.
        femur: class numbers of the femur.
        assumed: a few masks of a source without names had this one class only.
        classes: names by number, None where the source names none.
        cases: those to convert, in order: the split that the source gives each, None where it gives none.
        chunks: first and behind the last case of each part that is worth a task of its own.
        problems: what is wrong with the source as a whole, or with its pairing.
        standing: what becomes the dataset's standing order: model, budget, femur_class, patient_pattern.
    """

    dataset: str
    source: str
    folder: str
    size: int
    layout: str
    femur_class: str
    femur: tuple[int, ...]
    assumed: bool
    patient_pattern: str
    classes: dict[int, str] | None
    cases: dict[str, str | None]
    chunks: tuple[tuple[int, int], ...]
    problems: tuple[Problem, ...]
    allow: tuple[str, ...]
    standing: dict[str, str | None]
    started_at: datetime


class Work:
    """One work folder, readable by its owner alone: it holds patients' data until the ingest ends.

    Attributes:
        layout: of the source, where this process has read it; outlines of a million points are read once so.
    """

    layout: Layout | None = None

    def __init__(self, root: Path, ingest_id: str) -> None:
        self.ingest_id = ingest_id
        self.folder = root / ingest_id
        self._plan = self.folder / "plan.json"
        self._converted = self.folder / "converted"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def empty_folder(self, name: str) -> Path:
        """A folder of this name with nothing in it: what a killed try left there is removed."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return folder

    def plan(self) -> Plan | None:
        """The plan, None before it was made."""
        if not self._plan.exists():
            return None
        fields: dict[str, Any] = json.loads(self._plan.read_text())
        classes = fields["classes"]
        return Plan(
            **{
                **fields,
                "femur": tuple(fields["femur"]),
                "classes": None if classes is None else {int(number): name for number, name in classes.items()},
                "chunks": tuple((start, stop) for start, stop in fields["chunks"]),
                "problems": tuple(Problem.from_dict(problem) for problem in fields["problems"]),
                "allow": tuple(fields["allow"]),
                "started_at": datetime.fromisoformat(fields["started_at"]),
            }
        )

    def keep(self, plan: Plan) -> None:
        """Write the plan, whole or not at all."""
        fields = {**asdict(plan), "problems": [problem.as_dict() for problem in plan.problems]}
        part = self._plan.with_suffix(".part")
        part.write_text(json.dumps(fields, default=str))
        part.replace(self._plan)

    def jobs(self, plan: Plan, cases: Iterable[CaseFiles]) -> list[Job]:
        """Where each case of the plan is converted to."""
        self._converted.mkdir(exist_ok=True, mode=0o700)
        paths = self.converted(plan)
        return [Job(files, paths[files.case_id]) for files in cases if files.case_id in paths]

    def converted(self, plan: Plan) -> dict[str, Path]:
        """The file of every case of the plan, by case id."""
        return {case_id: self._converted / f"{n:06d}.safetensors" for n, case_id in enumerate(plan.cases)}

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_forgotten(root: Path, now: datetime) -> None:
    """Remove work folders that nothing has touched for two days: an ingest was killed and never tried again."""
    for folder in root.iterdir() if root.is_dir() else ():
        with suppress(OSError):
            touched = max(path.stat().st_mtime for path in (folder, *folder.glob("*")))
            if datetime.fromtimestamp(touched, UTC) < now - _FORGOTTEN:
                shutil.rmtree(folder)
