"""Rows for tests of the registry: as few as the schema allows, each under its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from femur_tasks.registry.tables import (
    ComparisonManifest,
    Dataset,
    DatasetVersion,
    Evaluation,
    IncomingPicture,
    ModelVersion,
    PredictionRun,
    Run,
    VerdictReason,
    VerdictRow,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def dataset_version(
    session: Session, content: str = "v1", name: str = "femur", at: datetime = NOON, size: int = 256
) -> DatasetVersion:
    """A version of dataset `name`; the dataset is made where it is missing."""
    if session.get(Dataset, name) is None:
        session.add(Dataset(name=name, model=name, budget="nightly", created_at=at))
        session.flush()
    version = DatasetVersion(
        digest=digest_of(content),
        name=name,
        source="made up",
        size=size,
        layout="reference",
        femur_class="1",
        cases=3,
        train_cases=1,
        val_cases=1,
        test_cases=1,
        manifest_key="manifests/none",
        problems=[],
        created_at=at,
    )
    session.add(version)
    session.flush()
    return version


def run(session: Session, run_id: str = "run-1", digest: str | None = None, **values: Any) -> Run:
    given = {"trigger": "cli", "model": "femur", "state": "running", "detail": "", "seed": 0, "started_at": NOON}
    row = Run(run_id=run_id, dataset_digest=digest, parameters={}, versions={}, **{**given, **values})
    session.add(row)
    session.flush()
    return row


def model_version(session: Session, version: int, digest: str, model: str = "femur", **values: Any) -> ModelVersion:
    """A model version with a run of its own."""
    own_run = run(session, f"{model}-run-{version}", digest, model=model)
    given = {
        "family": "unet", "hyperparameters": {"dropout": 0.3}, "size": 64, "epochs": 5, "val_dice": 0.9,
        "artefact_key": f"artefacts/{version}", "artefact_sha256": "0" * 64, "artefact_bytes": 10,
        "created_at": NOON,
    }  # fmt: skip
    row = ModelVersion(
        name=model,
        version=version,
        run_id=own_run.run_id,
        dataset_digest=digest,
        **{**given, **values},
    )
    session.add(row)
    session.flush()
    return row


def verdict(
    session: Session, challenger: ModelVersion, champion: ModelVersion | None, outcome: str = "promote", **values: Any
) -> VerdictRow:
    """A verdict with one reason, on a comparison manifest of no cases unless `manifest_digest` names one."""
    manifest = values.pop("manifest_digest", digest_of("comparison"))
    if session.get(ComparisonManifest, manifest) is None:
        session.add(
            ComparisonManifest(
                digest=manifest,
                dataset_digest=challenger.dataset_digest,
                cases_digest=manifest,
                cases=[],
                excluded=[],
                frozen_at=NOON,
            )
        )
        session.flush()
    row = VerdictRow(
        run_id=challenger.run_id,
        challenger_id=challenger.id,
        champion_id=champion.id if champion else None,
        manifest_digest=manifest,
        policy={"name": "test"},
        outcome=outcome,
        created_at=NOON,
        **values,
    )
    session.add(row)
    session.flush()
    passed = outcome == "promote"
    session.add(
        VerdictReason(
            verdict_id=row.id,
            position=0,
            code="gain",
            passed=passed,
            value=0.01 if passed else -0.01,
            threshold=0.0,
            sentence="gain",
        )
    )
    session.flush()
    return row


def evaluation(session: Session, model: ModelVersion, manifest: str, **values: Any) -> Evaluation:
    given = {
        "metric": "m-1",
        "cases": 20,
        "mean_dice": 0.9,
        "worst_dice": 0.7,
        "mean_hd95_pct": 1.5,
        "latency_ms": 50.0,
        "split": "test",
    }
    row = Evaluation(
        model_version_id=model.id,
        manifest_digest=manifest,
        dataset_digest=model.dataset_digest,
        created_at=NOON,
        **{**given, **values},
    )
    session.add(row)
    session.flush()
    return row


def predicted(
    session: Session, version: ModelVersion, run_id: str, flags: Sequence[Sequence[str] | None], at: datetime = NOON,
    **values: Any,
) -> None:  # fmt: skip
    """A night whose pictures are settled and whose rates are not: one picture an entry, None for a refused one."""
    session.add(PredictionRun(run_id=run_id, model=version.name, model_version_id=version.id, started_at=at))
    session.flush()
    for number, found in enumerate(flags):
        told: dict[str, Any] = {"state": "refused", "problem": "no_femur: none", "flags": []}
        if found is not None:
            told = {"state": "predicted", "problem": "", "flags": list(found), "likeness": 0.5, "ms": 90.0,
                    "height_px": 512, "width_px": 512}  # fmt: skip
        session.add(
            IncomingPicture(
                key=f"incoming-images/{version.name}/{run_id}-{number}.png", etag="e", size_bytes=9, tries=1,
                model=version.name, run_id=run_id, model_version_id=version.id, seen_at=at, settled_at=at,
                **{**told, **values},
            )
        )  # fmt: skip
    session.flush()
