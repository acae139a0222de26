"""Ingest: a source becomes a dataset version, or a list of everything that is wrong with it.

Three stages over one work folder: plan (fetch, unpack, recognise), convert (case by case, in any number of tasks),
publish (judge all cases together, store, record). The CLI runs them in one process, Airflow as tasks of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.classes import femur_numbers
from femur_tasks.dataset.conversion import Reading, convert_all, foreground_of_some, start_loading
from femur_tasks.dataset.layouts import find_cases
from femur_tasks.dataset.layouts.layout import Layout
from femur_tasks.dataset.naming import Namer, compiled, holds_dicom
from femur_tasks.dataset.problems import Faulty, Problem
from femur_tasks.dataset.work import Plan, Work, remove_forgotten
from femur_tasks.errors import FemurError
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import Dataset, DatasetVersion
from femur_tasks.steps.context import Context, patient_key
from femur_tasks.steps.publish import Ingested, publish
from femur_tasks.steps.sources import fetched, shown

BYTES_A_CHUNK = 4 << 30
"""Of files as they lie in the source: half a minute on two cores at 66 MB/s each, ten times the start of a task."""


@dataclass(frozen=True)
class Progress:
    """Told how far an ingest is, each as (done, in all); in all is None where nobody knows.

    Attributes:
        on_bytes: of what is fetched and unpacked.
        on_cases: converted.
        on_stored: sent to the store.
    """

    on_bytes: Callable[[int, int | None], None] = lambda _done, _total: None
    on_cases: Callable[[int, int], None] = lambda _done, _total: None
    on_stored: Callable[[int, int], None] = lambda _done, _total: None


def ingest(
    context: Context, parameters: IngestParameters, progress: Progress | None = None, dry_run: bool = False
) -> Ingested:
    """Ingest one source; with any error nothing changes but the record of the ingest and its report.

    Args:
        context: where to store and record.
        parameters: source, dataset and how to read it; `path` must be given.
        dry_run: change nothing at all, and say what would come of it.

    Raises:
        NotFound: the source is not there.
        Unreachable: the store or the registry does not answer.
    """
    told = progress or Progress()
    with _work_folder(context, dry_run) as root:
        work = Work(root, f"cli-{uuid4().hex[:12]}")
        try:
            make_plan(context, parameters, work, told.on_bytes)
            convert_cases(context, work, slice(None), told.on_cases)
            return publish(context, work, dry_run, told.on_stored)
        finally:
            work.remove()


@contextmanager
def _work_folder(context: Context, dry_run: bool) -> Iterator[Path]:
    if dry_run:
        with TemporaryDirectory(prefix="femur-ingest-") as folder:
            yield Path(folder)
        return
    remove_forgotten(context.settings.work_folder, context.now())
    yield context.settings.work_folder


def make_plan(
    context: Context,
    parameters: IngestParameters,
    work: Work,
    on_bytes: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Plan:
    """Fetch and unpack the source, recognise its layout, find the femur's class. A plan that is there is kept."""
    if known := work.plan():
        return known
    if not parameters.path:
        raise FemurError("Expected the path of a folder, an archive or a link. Received: none.")
    with context.registry.reading() as session:
        order = _standing(session, parameters)
    source = shown(parameters.path)
    name = PurePosixPath(source.rstrip("/")).name or source
    start_loading()
    folder, layout, femur = Path(), Layout("", (), None, ()), frozenset[int]()
    problems: list[Problem] = []
    try:
        store = lambda: (context.store, context.settings.s3_bucket)  # noqa: E731
        folder = fetched(parameters.path, parameters.sha256, work, store, on_bytes)
        layout = find_cases(folder, _namer(context, folder, order.patient_pattern), parameters.layout)
        work.layout = layout
        femur = _femur(layout, parameters.femur_class, order.femur_class)
    except Faulty as err:
        problems.append(err.of(name))
    plan = Plan(
        dataset=parameters.dataset,
        source=source,
        folder=str(folder),
        size=order.size,
        layout=layout.name,
        femur_class=_in_words(femur, layout),
        femur=tuple(sorted(femur)),
        assumed=_assumes(layout, order.femur_class),
        patient_pattern=order.patient_pattern or "",
        classes=dict(layout.classes) if layout.classes is not None else None,
        cases={case.case_id: case.split for case in layout.cases},
        chunks=_chunks(layout),
        problems=(*problems, *layout.problems),
        allow=tuple(sorted(set(parameters.allow))),
        standing={
            "model": order.model,
            "budget": order.budget,
            "femur_class": _to_remember(layout, femur, parameters.femur_class) or order.femur_class,
            "patient_pattern": order.patient_pattern,
        },
        started_at=context.now(),
    )
    work.keep(plan)
    return plan


def refused_plan(dataset: str, source: str, problems: tuple[Problem, ...], now: datetime) -> Plan:
    """The plan of a source that can't be looked at: nothing to convert, and why."""
    return Plan(
        dataset, source, folder="", size=0, layout="", femur_class="", femur=(), assumed=False, patient_pattern="",
        classes=None, cases={}, chunks=(), problems=problems, allow=(), standing={"model": ""}, started_at=now,
    )  # fmt: skip


@dataclass(frozen=True)
class _Order:
    """What was left empty, as the dataset's standing order and newest version have it."""

    size: int
    model: str
    budget: str
    femur_class: str | None
    patient_pattern: str | None


def _standing(session: Session, asked: IngestParameters) -> _Order:
    dataset = session.get(Dataset, asked.dataset)
    newest = session.scalars(
        select(DatasetVersion.size)
        .where(DatasetVersion.name == asked.dataset)
        .order_by(DatasetVersion.created_at.desc())
    ).first()
    return _Order(
        size=asked.size or newest or 256,
        model=asked.model or (dataset.model if dataset else "femur"),
        budget=asked.budget or (dataset.budget if dataset else "nightly"),
        femur_class=asked.femur_class or (dataset.femur_class if dataset else None),
        patient_pattern=asked.patient_pattern or (dataset.patient_pattern if dataset else None),
    )


def _namer(context: Context, folder: Path, pattern: str | None) -> Namer:
    hide = holds_dicom(folder)
    return Namer(patient_key(context.settings), compiled(pattern), hide)


def _femur(layout: Layout, asked: str | None, standing: str | None) -> frozenset[int]:
    """The femur's class numbers; a number from the standing order means nothing where the source names its classes."""
    if not layout.cases:
        return frozenset()
    if asked is None and standing and not (layout.classes and standing.replace(",", "").replace(" ", "").isdigit()):
        asked = standing
    values = None
    if _assumes(layout, asked):
        values = foreground_of_some([case.mask for case in layout.cases if isinstance(case.mask, Path)])
    return femur_numbers(layout.classes, asked, values)


def _assumes(layout: Layout, asked: str | None) -> bool:
    """Whether nobody says which class is the femur's, so that there must be one class only."""
    return layout.classes is None and asked is None


def _to_remember(layout: Layout, femur: frozenset[int], asked: str | None) -> str | None:
    """A person's word on the femur's class, by name where the source has names: numbers differ between sources."""
    if asked and layout.classes and femur:
        return ",".join(layout.classes[number] for number in sorted(femur))
    return asked


def _in_words(femur: frozenset[int], layout: Layout) -> str:
    names = layout.classes or {}
    return ", ".join(f"{names[number]} ({number})" if number in names else f"{number}" for number in sorted(femur))


def _chunks(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Bounds of the chunks of cases for tasks of their own."""
    bounds: list[tuple[int, int]] = []
    room = 0
    for index, case in enumerate(layout.cases):
        files = [case.image, *([case.mask] if isinstance(case.mask, Path) else [])]
        size = sum(file.stat().st_size for file in files)
        if not bounds or room < size:
            bounds.append((index, index))
            room = BYTES_A_CHUNK
        bounds[-1] = bounds[-1][0], index + 1
        room -= size
    return tuple(bounds)


def convert_cases(
    context: Context,
    work: Work,
    which: slice,
    on_cases: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Convert cases of the plan; those that are converted already are not looked at again.

    Args:
        which: of the plan's cases.

    Returns:
        How many cases these were.
    """
    plan = work.plan()
    if plan is None:
        raise FemurError(f"Expected the plan of ingest {work.ingest_id}. Received: none.", "Run its first task again.")
    wanted = set(list(plan.cases)[which])
    if not wanted:
        return 0
    folder = Path(plan.folder)
    layout = work.layout or find_cases(folder, _namer(context, folder, plan.patient_pattern), plan.layout)
    work.layout = None  # it may be large
    jobs = work.jobs(plan, (case for case in layout.cases if case.case_id in wanted))
    reading = Reading(plan.size, frozenset(plan.femur), patient_key(context.settings), plan.assumed)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_cases(done, len(jobs))

    convert_all(jobs, reading, count)
    return len(jobs)
