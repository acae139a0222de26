"""A model over the nights: every version's Dice with its interval, and every move of the champion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy import stats
from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from femur_tasks.evaluation.metrics import IMPLEMENTATION
from femur_tasks.registry.queries import Row, champion_history
from femur_tasks.registry.tables import Evaluation, EvaluationCase, ModelVersion, Promotion
from femur_tasks.reports.facts import CONFIDENCE

PAGE = 200


@dataclass(frozen=True)
class ScoredVersion:
    """A model version and its newest test score.

    Attributes:
        low, high: Student's 95 % interval of the mean over the cases; None on fewer than two.
        metric: what scored it; Dice of different metrics are not to be compared.
        was_champion: whether it ever was.
    """

    version: int
    family: str
    run_id: str
    created_at: datetime
    val_dice: float
    dice: float | None
    low: float | None
    high: float | None
    cases: int
    metric: str | None
    was_champion: bool

    @property
    def is_by_earlier_metric(self) -> bool:
        """Whether it was scored, and not by the metric that scores now."""
        return self.metric not in (None, IMPLEMENTATION)


@dataclass(frozen=True)
class History:
    """One page of a model's past, oldest version first.

    Attributes:
        moves: promotions and rollbacks in the time of this page, newest first, as the view champion_history has them.
        older: the `before` that shows the page before this one; None on the first.
    """

    versions: tuple[ScoredVersion, ...]
    moves: tuple[Row, ...]
    older: int | None


def history(session: Session, model: str, before: int | None = None) -> History:
    """The newest versions of a model, or those before version `before`."""
    columns = (
        ModelVersion.id, ModelVersion.version, ModelVersion.family, ModelVersion.run_id, ModelVersion.created_at,
        ModelVersion.val_dice,
    )  # fmt: skip
    there = session.execute(
        select(*columns)
        .where(ModelVersion.name == model, ModelVersion.version < before if before is not None else true())
        .order_by(ModelVersion.version.desc())
        .limit(PAGE + 1)
    ).all()
    shown = there[:PAGE]
    ids = [version.id for version in shown]
    newest = (
        select(func.max(Evaluation.id))
        .where(Evaluation.model_version_id.in_(ids), Evaluation.split == "test")
        .group_by(Evaluation.model_version_id)
    )
    figures = (
        Evaluation.id, Evaluation.model_version_id, Evaluation.mean_dice, Evaluation.cases, Evaluation.metric,
    )  # fmt: skip
    found = session.execute(select(*figures).where(Evaluation.id.in_(newest)))
    scored = {row.model_version_id: row for row in found}
    spread = _spread(session, [row.id for row in scored.values()])
    served = set(session.scalars(select(Promotion.to_id).where(Promotion.to_id.in_(ids))))
    versions = []
    for version in reversed(shown):
        score = scored.get(version.id)
        half = spread.get(score.id) if score else None
        mean = score.mean_dice if score else None
        has_interval = half is not None and mean is not None
        versions.append(
            ScoredVersion(
                version=version.version,
                family=version.family,
                run_id=version.run_id,
                created_at=version.created_at,
                val_dice=version.val_dice,
                dice=mean,
                low=mean - half if has_interval else None,  # type: ignore[operator]  # both are there
                high=mean + half if has_interval else None,  # type: ignore[operator]
                cases=score.cases if score else 0,
                metric=score.metric if score else None,
                was_champion=version.id in served,
            )
        )
    moves = champion_history(session, model, PAGE)
    if len(there) > PAGE:
        moves = [row for row in moves if datetime.fromisoformat(row["since"]) >= versions[0].created_at]
    return History(tuple(versions), tuple(moves), versions[0].version if len(there) > PAGE else None)


def _spread(session: Session, evaluations: list[int]) -> dict[int, float]:
    """Half of Student's interval of the mean Dice, by evaluation."""
    rows = session.execute(
        select(
            EvaluationCase.evaluation_id,
            func.count(EvaluationCase.dice),
            func.avg(EvaluationCase.dice),
            func.avg(EvaluationCase.dice * EvaluationCase.dice),
        )
        .where(EvaluationCase.evaluation_id.in_(evaluations))
        .group_by(EvaluationCase.evaluation_id)
    )
    several = [row for row in rows if row[1] > 1]
    # at once: a call of scipy's for each takes longer than all the rest
    reach = stats.t.isf((1 - CONFIDENCE) / 2, np.array([n - 1 for _, n, *_ in several]))
    return {
        evaluation_id: float(width) * math.sqrt(max(0.0, square - mean**2) / (n - 1))
        for (evaluation_id, n, mean, square), width in zip(several, reach, strict=True)
    }
