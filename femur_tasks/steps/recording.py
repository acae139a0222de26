"""The rows of an ingest: what it made, written in one transaction, and what it found, whatever came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from femur_tasks.dataset.acceptance import Accepted, Known
from femur_tasks.dataset.drift import DriftRow
from femur_tasks.dataset.manifest import Manifest
from femur_tasks.dataset.problems import Problem, errors
from femur_tasks.dataset.work import Plan
from femur_tasks.registry.tables import (
    Dataset,
    DatasetCase,
    DatasetDrift,
    DatasetSheet,
    DatasetVersion,
    Ingest,
    Withdrawal,
)
from femur_tasks.reports.sheets import Sheet

KEPT_PROBLEMS = 2_000
"""Of one ingest in its row; its report counts all of them."""
_ROWS = 5_000


def known(session: Session, dataset: str) -> Known:
    """The split of each patient in the earliest version that has the patient, and what was withdrawn."""
    rows = session.execute(
        select(DatasetCase.patient, DatasetCase.split)
        .join(DatasetVersion, DatasetVersion.digest == DatasetCase.digest)
        .where(DatasetVersion.name == dataset)
        .order_by(DatasetVersion.created_at.desc())
    )
    splits = {row.patient: row.split for row in rows}
    gone = select(Withdrawal.case_id).where(Withdrawal.dataset == dataset)
    pictures = (  # all that were ever there under a withdrawn id
        select(DatasetCase.image_sha256)
        .join(DatasetVersion, DatasetVersion.digest == DatasetCase.digest)
        .where(DatasetVersion.name == dataset, DatasetCase.case_id.in_(gone))
    )
    return Known(splits, frozenset(session.scalars(gone)), frozenset(session.scalars(pictures)))


def case_rows(accepted: Accepted) -> list[dict[str, Any]]:
    """The cases of a version as `dataset_case` has them, but for the version's digest."""
    by_case = _by_case(accepted.problems)
    return [
        {
            "case_id": case.case_id,
            "patient": case.patient,
            "split": accepted.splits[case.case_id],
            "image_sha256": case.image_sha256,
            "mask_sha256": case.mask_sha256,
            "height_px": case.height_px,
            "width_px": case.width_px,
            "spacing_x_mm": case.spacing_mm[0] if case.spacing_mm else None,
            "spacing_y_mm": case.spacing_mm[1] if case.spacing_mm else None,
            "mirrored": case.mirrored,
            "window_low": case.window[0] if case.window else None,
            "window_high": case.window[1] if case.window else None,
            "intensity_mean": case.intensity_mean,
            "intensity_sd": case.intensity_sd,
            "femur_area_pct": case.femur_area_pct,
            "femur_x_pct": case.femur_x_pct,
            "femur_y_pct": case.femur_y_pct,
            "problems": by_case.get(case.case_id, []),
        }
        for case in accepted.cases
    ]


def record_version(
    session: Session, plan: Plan, manifest: Manifest, manifest_key: str, accepted: Accepted, now: datetime
) -> None:
    """A version with its cases, and the standing order of its dataset."""
    dataset = session.get(Dataset, plan.dataset)
    if dataset is None:
        dataset = Dataset(name=plan.dataset, created_at=now)
        session.add(dataset)
    for name, value in plan.standing.items():
        setattr(dataset, name, value)
    counts, digest = accepted.counts, manifest.digest
    inside = accepted.splits.keys()
    session.add(
        DatasetVersion(
            digest=digest,
            name=plan.dataset,
            source=plan.source,
            size=plan.size,
            layout=plan.layout,
            femur_class=plan.femur_class,
            cases=len(manifest.cases),
            train_cases=counts["train"],
            val_cases=counts["val"],
            test_cases=counts["test"],
            manifest_key=manifest_key,
            problems=[
                problem for case_id, found in _by_case(accepted.problems).items() if case_id not in inside
                for problem in found
            ],
            created_at=now,
        )
    )  # fmt: skip
    session.flush()
    rows = [{"digest": digest, **row} for row in case_rows(accepted)]
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        earlier = first_sources(session, plan.dataset, [row["image_sha256"] for row in block])
        for row in block:
            row["source"] = earlier.get(row["image_sha256"], plan.source)
        session.execute(insert(DatasetCase), block)


def first_sources(session: Session, dataset: str, images: Sequence[str]) -> dict[str, str]:
    """By picture, the source of the first version of a dataset that had it; none for new ones."""
    rows = session.execute(
        select(DatasetCase.image_sha256, func.min(DatasetCase.source))  # they are all the same
        .join(DatasetVersion, DatasetVersion.digest == DatasetCase.digest)
        .where(DatasetVersion.name == dataset, DatasetCase.image_sha256.in_(images), DatasetCase.source.is_not(None))
        .group_by(DatasetCase.image_sha256)
    )
    return {image: source for image, source in rows if source is not None}


def record_drift(session: Session, digest: str, against: str, rows: Sequence[DriftRow]) -> None:
    """How a version lies against the champion's."""
    session.add_all(DatasetDrift(digest=digest, against_digest=against, **vars(row)) for row in rows)


def record_ingest(
    session: Session,
    ingest_id: str,
    plan: Plan,
    state: str,
    digest: str | None,
    problems: Sequence[Problem],
    report_key: str,
    now: datetime,
) -> None:
    """One ingest, whatever came of it; a retry replaces the row."""
    found = len(errors(problems))
    session.merge(
        Ingest(
            ingest_id=ingest_id,
            dataset=plan.dataset,
            source=plan.source,
            state=state,
            digest=digest,
            layout=plan.layout,
            cases=len(plan.cases),
            errors=found,
            warnings=len(problems) - found,
            allowed=list(plan.allow),
            problems=[problem.as_dict() for problem in problems[:KEPT_PROBLEMS]],
            report_key=report_key,
            started_at=plan.started_at,
            finished_at=now,
        )
    )


def record_sheets(session: Session, digest: str, pictured: Iterable[tuple[Sheet, str]]) -> None:
    """The contact sheets of a version, and where they lie."""
    session.add_all(
        DatasetSheet(digest=digest, position=position, title=sheet.title, alt=sheet.alt, picture_key=key)
        for position, (sheet, key) in enumerate(pictured)
    )


def _by_case(problems: Iterable[Problem]) -> Mapping[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for problem in problems:
        found[problem.case_id].append(problem.as_dict())
    return found
