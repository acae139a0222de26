"""Scoring: the challenger and the champion on frozen test cases, the others for the record."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.manifest import canonical_digest, comparison_cases
from femur_tasks.dataset.resize import enlarge_probability, shrink_image, shrink_mask
from femur_tasks.dataset.shards import unpack
from femur_tasks.errors import NotFound
from femur_tasks.evaluation import metrics
from femur_tasks.evaluation.strays import THRESHOLD, without_strays
from femur_tasks.logs import naming
from femur_tasks.registry import promotion
from femur_tasks.registry.queries import newest_verdict
from femur_tasks.registry.tables import (
    ComparisonManifest,
    DatasetCase,
    Evaluation,
    EvaluationCase,
    ModelVersion,
    Promotion,
    Run,
    VerdictRow,
)
from femur_tasks.serving.runtime import Probability, by_onnx
from femur_tasks.steps.context import Context
from femur_tasks.steps.evidence import evaluation_of
from femur_tasks.steps.run import pinned_manifest
from femur_tasks.steps.signatures import proven_key, sign_stored

_FAMILY_ORDER = ("baseline", "unet", "tuned")


@dataclass(frozen=True)
class Comparison:
    """What is compared: challenger, champion of the moment (None before the first), and the frozen cases."""

    challenger_id: int
    champion_id: int | None
    manifest_digest: str
    case_ids: tuple[str, ...]


@dataclass(frozen=True)
class _Geometry:
    """Spacing along x and y, None where unknown, and whether the header says that left and right are swapped."""

    x_mm: float | None
    y_mm: float | None
    mirrored: bool


@naming("run_id")
def evaluate(context: Context, run_id: str) -> dict[str, Any]:
    """Score the run's challenger, and the champion where there is one, on the comparison manifest.

    Returns:
        Challenger and champion as NAME:VERSION, and how many cases they are compared on.
    """
    comparison = compare(context, run_id)
    for model_id in (comparison.challenger_id, comparison.champion_id):
        if model_id is not None:
            _score(context, model_id, comparison)
    with context.registry.reading() as session:
        return {
            "challenger": label(session, comparison.challenger_id),
            "champion": label(session, comparison.champion_id),
            "cases": len(comparison.case_ids),
        }


def score_others(context: Context, run_id: str) -> None:
    """Score the run's other model versions on the same cases, for the record: they are never chosen by it."""
    with context.registry.reading() as session:
        ids = session.scalars(select(ModelVersion.id).where(ModelVersion.run_id == run_id)).all()
        verdict = newest_verdict(session, run_id)
        if verdict is None:
            return
        manifest = session.get_one(ComparisonManifest, verdict.manifest_digest)
        case_ids = tuple(case[0] for case in manifest.cases)
        comparison = Comparison(verdict.challenger_id, verdict.champion_id, manifest.digest, case_ids)
    for model_id in ids:
        _score(context, model_id, comparison)


def compare(context: Context, run_id: str) -> Comparison:
    """Pick the challenger by validation Dice and freeze the cases on which it meets the champion."""
    with context.registry.writing() as session:
        run = session.get_one(Run, run_id)
        candidates = session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)).all()
        if not candidates:
            raise NotFound(f"Expected a model version of run {run_id}. Received: none.")
        challenger = max(candidates, key=lambda row: (row.val_dice, -_FAMILY_ORDER.index(row.family)))
        champion = promotion.champion_of(session, run.model)
        if champion is not None and champion.id == challenger.id:
            champion = _compared_with(session, run_id)
        trained = [_trained_on(session, row.dataset_digest) for row in (challenger, champion) if row]
        tests = session.execute(
            select(DatasetCase.case_id, DatasetCase.image_sha256, DatasetCase.mask_sha256).where(
                DatasetCase.digest == run.dataset_digest, DatasetCase.split == "test"
            )
        ).all()
        chosen, excluded = comparison_cases([(case, image) for case, image, _ in tests], trained)
        cases = sorted([case, image, mask] for case, image, mask in tests if case in set(chosen))
        cases_digest = canonical_digest({"cases": cases})
        digest = canonical_digest({"dataset": run.dataset_digest, "cases": cases})
        if session.get(ComparisonManifest, digest) is None:
            session.add(
                ComparisonManifest(
                    digest=digest,
                    dataset_digest=run.dataset_digest,
                    cases_digest=cases_digest,
                    cases=cases,
                    excluded=excluded,
                    frozen_at=context.now(),
                )
            )
        return Comparison(challenger.id, champion.id if champion else None, digest, tuple(chosen))


def _compared_with(session: Session, run_id: str) -> ModelVersion | None:
    """Whom the run's own promotion replaced: what a retry after the promotion has to compare with."""
    row = session.scalars(
        select(Promotion)
        .join(VerdictRow, VerdictRow.id == Promotion.verdict_id)
        .where(VerdictRow.run_id == run_id)
        .order_by(Promotion.id.desc())
    ).first()
    return session.get(ModelVersion, row.from_id) if row and row.from_id else None


def _trained_on(session: Session, digest: str) -> frozenset[str]:
    """Digests of the pictures that shaped a model: training cases, and validation cases, which chose its epoch."""
    return frozenset(
        session.scalars(
            select(DatasetCase.image_sha256).where(DatasetCase.digest == digest, DatasetCase.split != "test")
        )
    )


def _score(context: Context, model_id: int, comparison: Comparison) -> None:
    """Evaluate a model version on the comparison's cases, once; rows appear all together or not at all."""
    with context.registry.reading() as session:
        dataset_digest = session.get_one(ComparisonManifest, comparison.manifest_digest).dataset_digest
        done = evaluation_of(session, model_id, comparison.manifest_digest)
        geometries = {
            case.case_id: _Geometry(case.spacing_x_mm, case.spacing_y_mm, case.mirrored)
            for case in session.scalars(select(DatasetCase).where(DatasetCase.digest == dataset_digest))
        }
    if done:
        return
    sign_stored(context, model_id)
    scored, latency_ms = _case_metrics(context, model_id, dataset_digest, comparison.case_ids, geometries)
    with context.registry.writing() as session:
        if evaluation_of(session, model_id, comparison.manifest_digest):
            return
        dices = [found.whole.dice for found in scored.values()]
        distances = [found.whole.hd95_pct for found in scored.values() if found.whole.hd95_pct is not None]
        evaluation = Evaluation(
            model_version_id=model_id,
            manifest_digest=comparison.manifest_digest,
            dataset_digest=dataset_digest,
            split="test",
            metric=metrics.IMPLEMENTATION,
            cases=len(scored),
            mean_dice=sum(dices) / len(dices) if dices else None,
            worst_dice=min(dices, default=None),
            mean_hd95_pct=sum(distances) / len(distances) if distances else None,
            latency_ms=latency_ms,
            created_at=context.now(),
        )
        session.add(evaluation)
        session.flush()
        session.add_all(_case_row(evaluation.id, case_id, found) for case_id, found in scored.items())


def _case_metrics(
    context: Context,
    model_id: int,
    dataset_digest: str,
    case_ids: tuple[str, ...],
    geometries: Mapping[str, _Geometry],
) -> tuple[dict[str, metrics.CaseMetrics], float | None]:
    """The cases' metrics, and what one picture takes, ms; None where there is no picture.

    They are those of the ONNX file: what is judged is what serves.
    """
    probability, size = network(context, model_id)
    wanted = set(case_ids)
    scored: dict[str, metrics.CaseMetrics] = {}
    latencies_ms: list[float] = []
    for key in pinned_manifest(context, dataset_digest).shard_keys("test"):
        shard = unpack(context.store.get(key))
        indices = [index for index, case_id in enumerate(shard.case_ids) if case_id in wanted]
        predicted = {}
        for index in indices:
            image = shrink_image(shard.images_bhw[index], size)
            started = time.perf_counter()
            predicted[index] = probability(image)
            latencies_ms.append(1000 * (time.perf_counter() - started))

        def score(index: int, shard: Any = shard, predicted: Any = predicted) -> tuple[str, metrics.CaseMetrics]:
            case_id, truth = shard.case_ids[index], shard.full_masks[index]
            seen = without_strays(predicted[index])
            full = enlarge_probability(seen, *truth.shape) > THRESHOLD
            small_truth = shrink_mask(shard.masks_bhw[index], size)
            shot = geometries[case_id]
            spacing = (shot.y_mm, shot.x_mm) if shot.x_mm and shot.y_mm else None  # rows first, as the masks' axes are
            return case_id, metrics.case_metrics(
                truth,
                full,
                small_truth,
                seen > THRESHOLD,
                spacing,
                picture_right_is_patient_left=not shot.mirrored,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            scored |= dict(pool.map(score, indices))
    return scored, statistics.median(latencies_ms) if latencies_ms else None


def network(context: Context, model_id: int) -> tuple[Probability, int]:
    """A proven model version's ONNX file, loaded, and the edge of the square pictures that it sees, px.

    Raises:
        NotFound: it has none, being from before there were any: `femur promote --override` puts another in its place.
        BadSignature, WasCollected, DigestMismatch: its row or file is not the one that was signed.
        FemurError: the file is no model of ours.
    """
    with context.registry.reading() as session:
        size = session.get_one(ModelVersion, model_id).size
    return by_onnx(context.store.get(proven_key(context, model_id, "onnx"))), size


def _case_row(evaluation_id: int, case_id: str, found: metrics.CaseMetrics) -> EvaluationCase:
    whole, left, right = found.whole, found.left, found.right
    return EvaluationCase(
        evaluation_id=evaluation_id,
        case_id=case_id,
        dice=whole.dice,
        dice_training_size=found.dice_training_size,
        iou=whole.iou,
        hd95_px=whole.hd95_px,
        hd95_pct=whole.hd95_pct,
        hd95_mm=whole.hd95_mm,
        assd_px=whole.assd_px,
        assd_pct=whole.assd_pct,
        assd_mm=whole.assd_mm,
        dice_left=left.dice if left else None,
        dice_right=right.dice if right else None,
        hd95_left_pct=left.hd95_pct if left else None,
        hd95_right_pct=right.hd95_pct if right else None,
        flag=whole.flag,
    )


def label(session: Session, model_id: int | None) -> str:
    """A model version as NAME:VERSION, empty for None."""
    row = session.get(ModelVersion, model_id) if model_id is not None else None
    return row.label if row else ""
