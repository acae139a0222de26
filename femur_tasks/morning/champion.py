"""The champion of a model: who, since when, how good, by whose word, and who would come back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.evaluation.intervals import bootstrap_mean
from femur_tasks.registry.promotion import former_champion
from femur_tasks.registry.queries import newest_evaluation
from femur_tasks.registry.tables import (
    Champion,
    DatasetVersion,
    Evaluation,
    EvaluationCase,
    ModelCard,
    ModelVersion,
    Promotion,
)
from femur_tasks.reports.facts import CONFIDENCE


@dataclass(frozen=True)
class ChampionFacts:
    """One model's champion.

    Attributes:
        version: NAME:VERSION.
        dice, dice_low, dice_high: mean over the test cases with its 95 % interval by bootstrap; None where it was not
            scored, or on one case alone.
        hd95_pct: mean, per cent of the picture's height.
        kind, actor, reason: of the promotion that put it there.
        files: which of onnx, weights and card can be downloaded.
        former: NAME:VERSION that a rollback would put back; None where there is none.
    """

    model: str
    version: str
    family: str
    since: datetime
    dice: float | None
    dice_low: float | None
    dice_high: float | None
    worst_dice: float | None
    worst_case: str | None
    hd95_pct: float | None
    cases: int
    latency_ms: float | None
    artefact_bytes: int
    size: int
    dataset: str
    dataset_digest: str
    run_id: str
    verdict_id: int | None
    kind: str
    actor: str
    reason: str
    files: tuple[str, ...]
    former: str | None


def champion_facts(session: Session, model: str) -> ChampionFacts | None:
    """The champion of a model; None where it has none yet."""
    place = session.get(Champion, model)
    if place is None:
        return None
    version = session.get_one(ModelVersion, place.model_version_id)
    entered = session.scalars(
        select(Promotion).where(Promotion.model == model).order_by(Promotion.id.desc()).limit(1)
    ).one()
    scored = newest_evaluation(session, version.id)
    dices = _dices(session, scored)
    interval = bootstrap_mean([dice for _, dice in dices], CONFIDENCE, 0) if len(dices) > 1 else None
    dataset = session.get_one(DatasetVersion, version.dataset_digest)
    has_card = session.get(ModelCard, version.id) is not None
    former = former_champion(session, model)
    return ChampionFacts(
        model=model,
        version=version.label,
        family=version.family,
        since=place.since,
        dice=scored.mean_dice if scored else None,
        dice_low=interval.low if interval else None,
        dice_high=interval.high if interval else None,
        worst_dice=dices[0][1] if dices else None,
        worst_case=dices[0][0] if dices else None,
        hd95_pct=scored.mean_hd95_pct if scored else None,
        cases=scored.cases if scored else 0,
        latency_ms=scored.latency_ms if scored else None,
        artefact_bytes=version.artefact_bytes,
        size=version.size,
        dataset=f"{dataset.name}@{dataset.digest[:12]}",
        dataset_digest=dataset.digest,
        run_id=version.run_id,
        verdict_id=entered.verdict_id,
        kind=entered.kind,
        actor=entered.actor,
        reason=entered.reason,
        files=("weights", *(["onnx"] if version.onnx_key else []), *(["card"] if has_card else [])),
        former=former.label if former else None,
    )


def model_names(session: Session) -> list[str]:
    """Every model that has a version, by name."""
    # a step from name to name, because `distinct` reads every version
    found: list[str] = []
    name = session.scalar(select(ModelVersion.name).order_by(ModelVersion.name).limit(1))
    while name is not None:
        found.append(name)
        following = select(ModelVersion.name).where(ModelVersion.name > name)
        name = session.scalar(following.order_by(ModelVersion.name).limit(1))
    return found


def _dices(session: Session, scored: Evaluation | None) -> list[tuple[str, float]]:
    """Case and Dice, worst first."""
    if scored is None:
        return []
    rows = session.execute(
        select(EvaluationCase.case_id, EvaluationCase.dice)
        .where(EvaluationCase.evaluation_id == scored.id, EvaluationCase.dice.is_not(None))
        .order_by(EvaluationCase.dice, EvaluationCase.case_id)
    )
    return [(case_id, float(dice)) for case_id, dice in rows if dice is not None]
