"""Withdrawals: a case is taken out of all later versions of a dataset on request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.registry.tables import DatasetCase, DatasetVersion, Withdrawal
from femur_tasks.steps.context import Context
from femur_tasks.steps.datasets import find_dataset, label

WITHDRAWN, ALREADY, DRY_RUN = "withdrawn", "already withdrawn", "dry run"


@dataclass(frozen=True)
class Withdrawn:
    """What came of a withdrawal; of one that was there already, who asked for it then, when and why.

    Attributes:
        state: `withdrawn`, `already withdrawn`, or `dry run` where it would be withdrawn.
        held_by: versions of the dataset that still hold the case or the same picture under another id, newest first:
            (version, case id).
        elsewhere: the same for the versions of other datasets, which the withdrawal does not reach.
    """

    state: str
    dataset: str
    case_id: str
    image_sha256: str
    actor: str
    reason: str
    at: datetime
    held_by: tuple[tuple[str, str], ...]
    elsewhere: tuple[tuple[str, str], ...]


def withdraw(context: Context, dataset: str, case_id: str, reason: str, actor: str, dry_run: bool = False) -> Withdrawn:
    """Record that neither this id nor this picture may return to the dataset; asking again changes nothing.

    Versions are immutable: those that hold the case keep it, and so do the store and whatever was trained on it.

    Args:
        case_id: as in the newest version that has it; the picture is that version's.
        dry_run: record nothing, and say what would be.

    Raises:
        NotFound: there is no such dataset, or no version of it has the case.
        FemurError: no reason is given.
    """
    if not reason.strip():
        raise FemurError("Expected a reason. Received: none.", "Say who asked for it and why; it goes into the log.")
    with context.registry.writing() as session:
        find_dataset(session, dataset)
        row = session.get(Withdrawal, (dataset, case_id))
        state = ALREADY if row else DRY_RUN if dry_run else WITHDRAWN
        if row is None:
            image = _newest_image(session, dataset, case_id)
            row = Withdrawal(
                dataset=dataset,
                case_id=case_id,
                image_sha256=image,
                actor=actor,
                reason=reason.strip(),
                at=context.now(),
            )
            if not dry_run:
                session.add(row)
        holders = _holders(session, dataset, case_id, row.image_sha256)
        return Withdrawn(
            state=state,
            dataset=dataset,
            case_id=case_id,
            image_sha256=row.image_sha256,
            actor=row.actor,
            reason=row.reason,
            at=row.at,
            held_by=tuple((label(name, digest), held) for name, digest, held in holders if name == dataset),
            elsewhere=tuple((label(name, digest), held) for name, digest, held in holders if name != dataset),
        )


def _newest_image(session: Session, dataset: str, case_id: str) -> str:
    of_dataset = (
        select(DatasetCase.image_sha256)
        .join(DatasetVersion, DatasetVersion.digest == DatasetCase.digest)
        .where(DatasetVersion.name == dataset)
    )
    image = session.scalars(
        of_dataset.where(DatasetCase.case_id == case_id).order_by(DatasetVersion.created_at.desc())
    ).first()
    if image is not None:
        return image
    ids = session.scalars(of_dataset.with_only_columns(DatasetCase.case_id).distinct().order_by(DatasetCase.case_id))
    near = ", ".join(get_close_matches(case_id, ids.all()))
    raise NotFound(
        f"Expected a case of dataset {dataset}. Received: {case_id}, which none of its versions has.",
        f"Cases with such an id: {near}." if near else "The table dataset_case has the ids of all cases.",
    )


def _holders(session: Session, dataset: str, case_id: str, image_sha256: str) -> list[tuple[str, str, str]]:
    """Name and digest of each version that holds the case, and the id under which it does."""
    same_case = (DatasetVersion.name == dataset) & (DatasetCase.case_id == case_id)
    rows = session.execute(
        select(DatasetVersion.name, DatasetVersion.digest, DatasetCase.case_id)
        .join(DatasetCase, DatasetCase.digest == DatasetVersion.digest)
        .where(or_(DatasetCase.image_sha256 == image_sha256, same_case))
        .order_by(DatasetVersion.created_at.desc(), DatasetCase.case_id)
    )
    return [(name, digest, held) for name, digest, held in rows]
