"""What the gate is given: the scores of both model versions, the slices of the cases, and which look this is."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from femur_tasks.evaluation import metrics
from femur_tasks.registry.evidence import Cases, CaseScore, Evidence
from femur_tasks.registry.policy import Look
from femur_tasks.registry.tables import (
    Champion,
    ComparisonManifest,
    DatasetCase,
    Evaluation,
    EvaluationCase,
    ModelVersion,
    VerdictRow,
)

_BANDS_PX = (0, 512, 1536, 1 << 30)
_MB = 1e6


def evaluation_of(session: Session, model_id: int, manifest_digest: str) -> Evaluation | None:
    """The model version's evaluation on a manifest by the metric implementation of this code."""
    return session.scalars(
        select(Evaluation).where(
            Evaluation.model_version_id == model_id,
            Evaluation.manifest_digest == manifest_digest,
            Evaluation.metric == metrics.IMPLEMENTATION,
        )
    ).first()


def evidence(session: Session, model_id: int | None, manifest_digest: str) -> Evidence | None:
    """What the gate may know of a model version: its scores on a manifest, None where it was not scored."""
    evaluation = evaluation_of(session, model_id, manifest_digest) if model_id is not None else None
    if evaluation is None:
        return None
    rows = session.scalars(select(EvaluationCase).where(EvaluationCase.evaluation_id == evaluation.id))
    cases = {row.case_id: CaseScore(row.dice, row.dice_left, row.dice_right, row.hd95_pct) for row in rows}
    megabytes = session.get_one(ModelVersion, evaluation.model_version_id).artefact_bytes / _MB
    return Evidence(evaluation.metric, cases, megabytes, evaluation.latency_ms)


def cases_of(session: Session, manifest_digest: str, champion_id: int | None) -> Cases:
    """The cases of a comparison with their slices: picture size, source, and new or known to the champion.

    A slice that would hold every case is none.
    """
    manifest = session.get_one(ComparisonManifest, manifest_digest)
    compared = {case_id: image for case_id, image, _ in manifest.cases}
    groups: dict[str, set[str]] = defaultdict(set)
    described = select(DatasetCase.case_id, DatasetCase.height_px, DatasetCase.source)
    for case_id, height_px, source in session.execute(described.where(DatasetCase.digest == manifest.dataset_digest)):
        if case_id in compared:
            groups[_band(height_px)].add(case_id)
            groups[f"source {source}"].add(case_id)
    known = _known(session, champion_id)
    for case_id, image in compared.items():
        if champion_id is not None:
            groups["known cases" if image in known else "new cases"].add(case_id)
    slices = {name: sorted(cases) for name, cases in groups.items() if len(cases) < len(compared)}
    return Cases(tuple(compared), tuple(manifest.excluded), slices)


def look_at(session: Session, model: str, manifest_digest: str) -> Look:
    """Which look at the manifest's test cases comes next for a model; nobody else can take the same meanwhile."""
    session.get(Champion, model, with_for_update=True)
    cases_digest = session.get_one(ComparisonManifest, manifest_digest).cases_digest
    looks = session.scalar(
        select(func.count())
        .select_from(VerdictRow)
        .join(ComparisonManifest, ComparisonManifest.digest == VerdictRow.manifest_digest)
        .join(ModelVersion, ModelVersion.id == VerdictRow.challenger_id)
        .where(
            ComparisonManifest.cases_digest == cases_digest, ModelVersion.name == model, VerdictRow.look.is_not(None)
        )
    )
    return Look((looks or 0) + 1)


def _band(height_px: int) -> str:
    low, high = next((low, high) for low, high in pairwise(_BANDS_PX) if height_px <= high)
    return f"pictures above {low} px" if high == _BANDS_PX[-1] else f"pictures of {low + 1} to {high} px"


def _known(session: Session, champion_id: int | None) -> frozenset[str]:
    """Pictures of the version that the champion was trained on."""
    champion = session.get(ModelVersion, champion_id) if champion_id is not None else None
    if champion is None:
        return frozenset()
    pictures = select(DatasetCase.image_sha256).where(DatasetCase.digest == champion.dataset_digest)
    return frozenset(session.scalars(pictures))
