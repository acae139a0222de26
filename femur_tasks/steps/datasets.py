"""Dataset versions as people ask for them: newest, of the champion, in full, compared, with the features of cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import Session

from femur_tasks.dataset.drift import ALL, DriftRow, drift
from femur_tasks.dataset.problems import SPLITS
from femur_tasks.errors import NotFound
from femur_tasks.registry.promotion import champion_of
from femur_tasks.registry.tables import (
    Champion,
    Dataset,
    DatasetCase,
    DatasetDrift,
    DatasetSheet,
    DatasetVersion,
    Ingest,
    ModelVersion,
    Withdrawal,
)
from femur_tasks.steps.context import Context
from femur_tasks.steps.run import find_version

Row = dict[str, Any]

FEATURES = (
    "intensity_mean",
    "intensity_sd",
    "height_px",
    "width_px",
    "spacing_y_mm",
    "femur_area_pct",
    "femur_x_pct",
    "femur_y_pct",
)
"""Columns of `dataset_case` that are compared between versions."""
EXAMPLES = 3
"""Of one kind of problem."""
_LEVELS = ("large", "some", "none", None)
_CHANGES: Mapping[str, tuple[str, ...]] = {
    "picture": ("image_sha256",),
    "mask": ("mask_sha256",),
    "split": ("split",),
    "spacing": ("spacing_x_mm", "spacing_y_mm"),
}


def label(dataset: str, digest: str) -> str:
    """How people call a version."""
    return f"{dataset}@{digest[:12]}"


def newest_version(session: Session, dataset: str) -> DatasetVersion | None:
    """The version that came last, None before the first."""
    return session.scalars(
        select(DatasetVersion).where(DatasetVersion.name == dataset).order_by(DatasetVersion.created_at.desc())
    ).first()


def champions_version(session: Session, model: str) -> str | None:
    """The digest of the version that the champion was trained on, None before the first champion."""
    champion = champion_of(session, model)
    return champion.dataset_digest if champion else None


def features_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The known values of each feature, by split.

    Args:
        rows: cases as `dataset_case` has them.
    """
    found: dict[str, dict[str, list[float]]] = {split: {name: [] for name in FEATURES} for split in SPLITS}
    for row in rows:
        for name in FEATURES:
            if row[name] is not None:
                found[row["split"]][name].append(float(row[name]))
    return found


def stored_features(session: Session, digest: str) -> dict[str, dict[str, list[float]]]:
    """The features of a version that is recorded."""
    columns = [DatasetCase.split, *(getattr(DatasetCase, name) for name in FEATURES)]
    rows = session.execute(select(*columns).where(DatasetCase.digest == digest))
    return features_of(row._asdict() for row in rows)


def find_dataset(session: Session, name: str) -> Dataset:
    """The dataset of this name.

    Raises:
        NotFound: there is none.
    """
    dataset = session.get(Dataset, name)
    if dataset is None:
        known = ", ".join(session.scalars(select(Dataset.name).order_by(Dataset.name))) or "none"
        raise NotFound(f"Expected a dataset. Received: {name}.", f"Datasets there are: {known}.")
    return dataset


def versions(session: Session, name: str | None = None, limit: int | None = None, offset: int = 0) -> list[Row]:
    """Every version, or those of one dataset, the newest first; at most `limit` of them, behind the first `offset`.

    Raises:
        NotFound: the dataset that was asked for is not there.
    """
    if name:
        find_dataset(session, name)
    wanted = DatasetVersion.name == name if name else true()
    found = session.scalars(
        select(DatasetVersion)
        .where(wanted)
        .order_by(DatasetVersion.created_at.desc(), DatasetVersion.digest)
        .limit(limit)
        .offset(offset)
    ).all()
    counted = session.execute(
        select(DatasetCase.digest, func.sum(func.json_array_length(DatasetCase.problems)))
        .where(DatasetCase.digest.in_([version.digest for version in found]))
        .group_by(DatasetCase.digest)
    )
    of_cases = {digest: int(count) for digest, count in counted}
    champions = _champions(session)
    return [
        {**_summary(version, champions), "warnings": len(version.problems) + of_cases.get(version.digest, 0)}
        for version in found
    ]


def count_versions(session: Session, name: str | None = None) -> int:
    """How many versions there are, of one dataset where it is named."""
    wanted = DatasetVersion.name == name if name else true()
    return session.scalar(select(func.count()).select_from(DatasetVersion).where(wanted)) or 0


def version_in_full(session: Session, name: str) -> Row:
    """Everything about `NAME` (its newest version) or `NAME@DIGEST`.

    Raises:
        NotFound: no such dataset or version.
    """
    version = find_version(session, name)
    of_cases = session.scalars(
        select(DatasetCase.problems)
        .where(DatasetCase.digest == version.digest, func.json_array_length(DatasetCase.problems) > 0)
        .order_by(DatasetCase.case_id)
    )
    problems = [*version.problems, *(problem for found in of_cases for problem in found)]
    moved = session.scalars(select(DatasetDrift).where(DatasetDrift.digest == version.digest)).all()
    against = session.get_one(DatasetVersion, moved[0].against_digest) if moved else None
    rows = [DriftRow(**{name: getattr(row, name) for name in DriftRow.__annotations__}) for row in moved]
    withdrawals = session.scalars(
        select(Withdrawal).where(Withdrawal.dataset == version.name).order_by(Withdrawal.at, Withdrawal.case_id)
    )
    sheets = session.scalars(
        select(DatasetSheet).where(DatasetSheet.digest == version.digest).order_by(DatasetSheet.position)
    )
    return {
        **_summary(version, _champions(session)),
        "source": version.source,
        "size": version.size,
        "problems": _by_code(problems),
        "drift_against": f"{against.name}@{against.digest}" if against else None,
        "drift": _drift_rows(rows),
        "withdrawals": [
            {"case_id": row.case_id, "reason": row.reason, "actor": row.actor, "at": row.at.isoformat()}
            for row in withdrawals
        ],
        "withdrawn_cases": withdrawn_cases(session, version),
        "ingests": _ingests(session, Ingest.digest == version.digest),
        "sheets": [{"position": row.position, "title": row.title, "alt": row.alt} for row in sheets],
    }


def sheet_key(session: Session, digest: str, position: int) -> str:
    """Where a contact sheet of a version lies.

    Raises:
        NotFound: the version has no such sheet.
    """
    sheet = session.get(DatasetSheet, (digest, position))
    if sheet is None:
        raise NotFound(f"Expected a contact sheet that is there. Received: {position} of version {digest[:12]}.")
    return sheet.picture_key


def withdrawn_cases(session: Session, version: DatasetVersion) -> list[str]:
    """The ids of a version's cases that were withdrawn after it was made."""
    gone = select(Withdrawal).where(Withdrawal.dataset == version.name).subquery()
    withdrawn = or_(
        DatasetCase.case_id.in_(select(gone.c.case_id)), DatasetCase.image_sha256.in_(select(gone.c.image_sha256))
    )
    return list(
        session.scalars(
            select(DatasetCase.case_id)
            .where(DatasetCase.digest == version.digest, withdrawn)
            .order_by(DatasetCase.case_id)
        )
    )


def compare(session: Session, before: str, after: str) -> Row:
    """What differs between two versions, `NAME` or `NAME@DIGEST` each: case ids, and drift.

    Returns:
        before, after, added, removed, changed (by what: picture, mask, split, spacing), unchanged (a count), drift.

    Raises:
        NotFound: no such dataset or version.
    """
    versions = find_version(session, before), find_version(session, after)
    old, new = (_content(session, version.digest) for version in versions)
    both = sorted(old.keys() & new.keys())
    changed = {
        what: [case_id for case_id in both if any(old[case_id][name] != new[case_id][name] for name in fields)]
        for what, fields in _CHANGES.items()
    }
    features = [stored_features(session, version.digest) for version in versions]
    return {
        "before": f"{versions[0].name}@{versions[0].digest}",
        "after": f"{versions[1].name}@{versions[1].digest}",
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": changed,
        "unchanged": len(set(both).difference(*changed.values())),
        "drift": _drift_rows(drift(*features)),
    }


def ingests(session: Session, name: str | None = None, limit: int | None = None) -> list[Row]:
    """Every ingest, or those of one dataset, the newest first; a dataset whose ingests were all refused has some."""
    return _ingests(session, Ingest.dataset == name if name else true(), limit)


def ingest_report(context: Context, ingest_id: str | None, name: str | None = None) -> tuple[str, bytes]:
    """The id and the HTML page of an ingest: the one of this id, else the newest, of dataset `name` where it is given.

    Raises:
        NotFound: there is no such ingest, or its page was deleted.
    """
    with context.registry.reading() as session:
        found = find_ingest(session, ingest_id, name)
    return found.ingest_id, context.store.get(found.report_key)


def find_ingest(session: Session, ingest_id: str | None, name: str | None = None) -> Ingest:
    """The ingest of this id, else the newest, of dataset `name` where it is given.

    Raises:
        NotFound: there is none.
    """
    asked = select(Ingest).order_by(Ingest.finished_at.desc())
    if ingest_id:
        asked = asked.where(Ingest.ingest_id == ingest_id)
    if name:
        asked = asked.where(Ingest.dataset == name)
    found = session.scalars(asked).first()
    if found is None:
        wanted = " ".join(filter(None, (ingest_id or "any", name and f"of dataset {name}")))
        raise NotFound(f"Expected an ingest that is there. Received: {wanted}.", "See `femur dataset ingests`.")
    return found


def _content(session: Session, digest: str) -> dict[str, Row]:
    """What makes each case of a version, by its id."""
    columns = [getattr(DatasetCase, name) for fields in _CHANGES.values() for name in fields]
    rows = session.execute(select(DatasetCase.case_id, *columns).where(DatasetCase.digest == digest))
    return {row.case_id: row._asdict() for row in rows}


def _champions(session: Session) -> dict[str, list[str]]:
    """The model versions in service by the digest of the version that they were trained on."""
    found: dict[str, list[str]] = {}
    serving = select(ModelVersion).join(Champion, Champion.model_version_id == ModelVersion.id)
    for model in session.scalars(serving.order_by(ModelVersion.name)):
        found.setdefault(model.dataset_digest, []).append(model.label)
    return found


def _summary(version: DatasetVersion, champions: Mapping[str, list[str]]) -> Row:
    return {
        "dataset": version.name,
        "digest": version.digest,
        "cases": version.cases,
        "train_cases": version.train_cases,
        "val_cases": version.val_cases,
        "test_cases": version.test_cases,
        "layout": version.layout,
        "femur_class": version.femur_class,
        "champion_of": champions.get(version.digest, []),
        "created_at": version.created_at.isoformat(),
    }


def _by_code(problems: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Problems of one code together, the most frequent first; lifted errors apart from warnings."""
    found: dict[tuple[str, bool], Row] = {}
    for problem in problems:
        lifted = bool(problem.get("allowed"))
        row = found.setdefault(
            (problem["code"], lifted),
            {"code": problem["code"], "lifted": lifted, "count": 0, "todo": problem.get("todo", ""), "examples": []},
        )
        row["count"] += 1
        if len(row["examples"]) < EXAMPLES:
            row["examples"].append({"case_id": problem["case_id"], "found": problem["found"]})
    return sorted(found.values(), key=lambda row: (-row["count"], row["code"]))


def _drift_rows(rows: Iterable[DriftRow]) -> list[Row]:
    """What moved most first."""
    order = (ALL, *SPLITS)
    ranked = sorted(rows, key=lambda row: (_LEVELS.index(row.level), row.feature, order.index(row.split)))
    return [dict(vars(row)) for row in ranked]


def _ingests(session: Session, wanted: ColumnElement[bool], limit: int | None = None) -> list[Row]:
    fields = (
        "ingest_id",
        "dataset",
        "state",
        "digest",
        "source",
        "layout",
        "cases",
        "errors",
        "warnings",
        "report_key",
    )
    newest = select(Ingest).where(wanted).order_by(Ingest.finished_at.desc(), Ingest.ingest_id)
    rows = session.scalars(newest.limit(limit))
    return [
        {
            **{field: getattr(row, field) for field in fields},
            "allowed": list(row.allowed),
            "started_at": row.started_at.isoformat(),
            "finished_at": row.finished_at.isoformat(),
        }
        for row in rows
    ]
