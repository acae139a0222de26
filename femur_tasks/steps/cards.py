"""Cards of a run's model versions, written once each was scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from femur_tasks.evaluation.intervals import bootstrap_mean
from femur_tasks.registry.queries import newest_evaluation
from femur_tasks.registry.tables import (
    ComparisonManifest,
    Evaluation,
    EvaluationCase,
    FitEpoch,
    ModelCard,
    ModelVersion,
    Run,
    TrialEpoch,
)
from femur_tasks.reports.card import Card, Slice, Worst, as_json, render
from femur_tasks.reports.facts import CONFIDENCE
from femur_tasks.steps.context import Context
from femur_tasks.steps.evidence import cases_of
from femur_tasks.steps.report import WORST_CASES, dataset_facts

_EMPTY = ("truth_empty", "prediction_empty")


def write_cards(context: Context, run_id: str) -> list[str]:
    """Write the card of every model version of a run that was scored and has none; give their names."""
    with context.registry.reading() as session:
        waiting = session.scalars(
            select(ModelVersion)
            .outerjoin(ModelCard, ModelCard.model_version_id == ModelVersion.id)
            .where(ModelVersion.run_id == run_id, ModelCard.model_version_id.is_(None))
            .order_by(ModelVersion.id)
        ).all()
        cards = {version.id: card for version in waiting if (card := _gathered(session, version))}
    for model_id, card in cards.items():
        html_key, json_key = context.store.put(render(card), "cards"), context.store.put(as_json(card), "card_facts")
        with context.registry.writing() as session:
            if session.get(ModelCard, model_id) is None:
                row = {"html_key": html_key, "json_key": json_key, "created_at": context.now()}
                session.add(ModelCard(model_version_id=model_id, **row))
    return [card.label for card in cards.values()]


def stored_card(context: Context, json_key: str) -> dict[str, Any]:
    """A card as it was written.

    Raises:
        NotFound, DigestMismatch, Unreachable: as the store says.
    """
    found: dict[str, Any] = json.loads(context.store.get(json_key))
    return found


def _gathered(session: Session, version: ModelVersion) -> Card | None:
    evaluation = newest_evaluation(session, version.id)
    if evaluation is None:
        return None
    run = session.get_one(Run, version.run_id)
    rows = session.scalars(select(EvaluationCase).where(EvaluationCase.evaluation_id == evaluation.id)).all()
    distances = [row.hd95_pct for row in rows if row.hd95_pct is not None]
    scored = {row.case_id: row.dice for row in rows if row.dice is not None}
    worst = sorted(rows, key=lambda row: (row.dice is not None, row.dice, row.case_id))[:WORST_CASES]
    told = {**version.hyperparameters, "size": version.size, "epochs": version.epochs, "seed": run.seed}
    return Card(
        label=version.label,
        family=version.family,
        run_id=version.run_id,
        created_at=version.created_at.isoformat(),
        dataset=dataset_facts(session, version.dataset_digest),
        settings=told,
        val_dice=version.val_dice,
        metric=evaluation.metric,
        cases=evaluation.cases,
        mean_dice=evaluation.mean_dice,
        interval=bootstrap_mean(list(scored.values()), CONFIDENCE, run.seed) if len(scored) > 1 else None,
        worst_dice=evaluation.worst_dice,
        mean_hd95_pct=evaluation.mean_hd95_pct,
        hd95_p95_pct=float(np.percentile(distances, 95)) if distances else None,
        missed=sum(row.flag in _EMPTY for row in rows),
        slices=tuple(_slices(session, evaluation, rows, run.seed)),
        worst=tuple(Worst(row.case_id, row.dice or 0.0, row.hd95_pct) for row in worst),
        artefact_bytes=version.artefact_bytes,
        latency_ms=evaluation.latency_ms,
        train_s=_seconds(session, FitEpoch, FitEpoch.run_id == run.run_id, FitEpoch.family == version.family),
        search_s=_seconds(session, TrialEpoch, TrialEpoch.run_id == run.run_id, TrialEpoch.search == version.family),
        files={"weights": version.artefact_key, "ONNX": version.onnx_key or ""},
        versions=run.versions,
    )


def _slices(session: Session, evaluation: Evaluation, rows: Sequence[EvaluationCase], seed: int) -> Iterator[Slice]:
    """Left, right, picture sizes and sources: the groups of the gate that are no matter of another version."""
    dices: dict[str, dict[str, float]] = {
        side: {row.case_id: dice for row in rows if (dice := getattr(row, f"dice_{side}")) is not None}
        for side in ("left", "right")
    }
    scored = {row.case_id: row.dice for row in rows if row.dice is not None}
    if session.get(ComparisonManifest, evaluation.manifest_digest):
        for name, case_ids in cases_of(session, evaluation.manifest_digest, None).slices.items():
            dices[name] = {case_id: scored[case_id] for case_id in case_ids if case_id in scored}
    for name, found in dices.items():
        values = list(found.values())
        if values:
            interval = bootstrap_mean(values, CONFIDENCE, seed) if len(values) > 1 else None
            yield Slice(name, len(values), sum(values) / len(values), interval)


def _seconds(session: Session, curve: type[FitEpoch] | type[TrialEpoch], *where: ColumnElement[bool]) -> float:
    return session.scalar(select(func.sum(curve.seconds)).where(*where)) or 0.0
