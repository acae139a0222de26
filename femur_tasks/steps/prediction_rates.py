"""What a night's predictions say together: rates of flags, and drift against the champion's training data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select

from femur_tasks.dataset.drift import ALL, DriftRow, drift
from femur_tasks.registry.tables import (
    IncomingPicture,
    ModelVersion,
    PredictionDrift,
    PredictionRate,
    PredictionRun,
)
from femur_tasks.serving.findings import FLAGS
from femur_tasks.steps.context import Context
from femur_tasks.steps.datasets import FEATURES, stored_features
from femur_tasks.steps.notify import tell

WINDOW = 100
"""Newest pictures that drift is judged on: a night alone has too few."""
REFUSED = "refused"
_ANY_SPLIT = "test"  # a picture has no split: it counts among all


def record_rates(context: Context, run_id: str, model: str) -> dict[str, Any]:
    """Write a run's counts, the rate of each flag and the drift, and tell people of them.

    Asked again, the same rows are written again, and nobody is told twice.

    Returns:
        Pictures, refused, flagged, rates by flag, and the features whose drift is large.
    """
    with context.registry.reading() as session:
        run = session.get_one(PredictionRun, (run_id, model))
        against = session.get_one(ModelVersion, run.model_version_id).dataset_digest
        before = stored_features(session, against)
        own = session.scalars(
            select(IncomingPicture).where(IncomingPicture.run_id == run_id, IncomingPicture.model == model)
        ).all()
        newest = session.scalars(
            select(IncomingPicture)
            .where(IncomingPicture.model == model, IncomingPicture.state == "predicted")
            .order_by(IncomingPicture.settled_at.desc(), IncomingPicture.key)
            .limit(WINDOW)
        ).all()
    counts = flag_counts(own)
    drifted = [row for row in drift(before, {_ANY_SPLIT: features_of(newest)}) if row.split == ALL]
    with context.registry.writing() as session:
        for table in (PredictionRate, PredictionDrift):
            session.execute(delete(table).where(table.run_id == run_id, table.model == model))
        session.add_all(
            PredictionRate(
                run_id=run_id, model=model, flag=flag, pictures=count, of_pictures=len(own), share=count / len(own)
            )
            for flag, count in (counts.items() if own else ())
        )
        session.add_all(_drift_row(run_id, model, against, row) for row in drifted)
        run = session.get_one(PredictionRun, (run_id, model))
        run.pictures, run.refused = len(own), counts[REFUSED]
        run.flagged = sum(bool(row.flags) for row in own)
        run.median_ms = statistics.median([row.ms for row in own if row.ms is not None] or [0.0]) or None
        run.finished_at = context.now()
        found = {
            "model": model,
            "pictures": run.pictures,
            "refused": run.refused,
            "flagged": run.flagged,
            "rates": {flag: count / len(own) for flag, count in counts.items()} if own else {},
            "drift": [row.feature for row in drifted if row.level == "large"],
        }
    tell(context)
    return found


def flag_counts(pictures: Sequence[IncomingPicture]) -> dict[str, int]:
    """How many pictures were refused, and how many have each flag."""
    counts = {REFUSED: sum(row.state == REFUSED for row in pictures)}
    return counts | {flag: sum(flag in row.flags for row in pictures) for flag in FLAGS}


def features_of(pictures: Sequence[IncomingPicture]) -> dict[str, list[float]]:
    """The known values of each feature that a dataset version keeps of its cases."""
    found: dict[str, list[float]] = {}
    for name in FEATURES:
        values = (getattr(row, name) for row in pictures)
        found[name] = [float(value) for value in values if value is not None]
    return found


def _drift_row(run_id: str, model: str, against: str, row: DriftRow) -> PredictionDrift:
    return PredictionDrift(
        run_id=run_id,
        model=model,
        feature=row.feature,
        against_digest=against,
        psi=row.psi,
        ks=row.ks,
        ks_p=row.ks_p,
        before_cases=row.before_cases,
        after_cases=row.after_cases,
        level=row.level,
    )
