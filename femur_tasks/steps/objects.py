"""Which objects of the store a row of the registry names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.errors import FemurError
from femur_tasks.registry.tables import (
    CollectedVersion,
    DatasetSheet,
    DatasetVersion,
    ExperimentFit,
    Fit,
    IncomingPicture,
    Ingest,
    ModelCard,
    ModelVersion,
    Run,
    Trial,
    VerdictPicture,
)
from femur_tasks.steps.context import Context

_PAGES: tuple[tuple[str, Any, Any], ...] = (
    ("run", Run.run_id, Run.report_key),
    ("ingest", Ingest.ingest_id, Ingest.report_key),
    ("dataset version", DatasetSheet.digest, DatasetSheet.picture_key),
    *(("the picture", IncomingPicture.key, key) for key in (IncomingPicture.mask_key, IncomingPicture.overlay_key)),
    ("an experiment of run", ExperimentFit.run_id, ExperimentFit.overlays_key),
    *(
        ("verdict", VerdictPicture.verdict_id, key)
        for key in (VerdictPicture.challenger_key, VerdictPicture.champion_key)
    ),
)
CHECKPOINTS: tuple[tuple[str, Any, Any], ...] = (
    *(("a fit of run", Fit.run_id, key) for key in (Fit.checkpoint_key, Fit.best_key)),
    *(("a trial of run", Trial.run_id, key) for key in (Trial.checkpoint_key, Trial.best_key)),
)


def named_objects(
    context: Context,
    without_versions: Collection[int] = (),
    without_runs: Collection[str] = (),
    on_unreadable: Callable[[FemurError], None] = lambda err: None,
) -> dict[str, str]:
    """Every object that a row names, or a manifest that a row names, and whose it is.

    Args:
        without_versions: ids of model versions that count as collected.
        without_runs: runs whose checkpoints count as forgotten.
        on_unreadable: told of a manifest that can't be read; what it names is missing in the answer.
    """
    with context.registry.reading() as session:
        named = dict(_named(session, without_versions, without_runs))
        manifests = session.scalars(select(DatasetVersion.manifest_key)).all()
    for key in manifests:
        try:
            manifest = Manifest.from_json(context.store.get(key))
        except FemurError as err:
            on_unreadable(err)
        else:
            named |= dict.fromkeys(_inside(manifest), f"dataset version {manifest.digest[:12]}")
    return named


def _named(session: Session, collected: Collection[int], forgotten: Collection[str]) -> Iterator[tuple[str, str]]:
    gone = {*session.scalars(select(CollectedVersion.model_version_id)), *collected}
    versions = select(ModelVersion, ModelCard).outerjoin(ModelCard, ModelCard.model_version_id == ModelVersion.id)
    for version, card in session.execute(versions):
        if version.id in gone:
            continue
        keys = (version.artefact_key, version.onnx_key, *((card.html_key, card.json_key) if card else ()))
        yield from ((key, f"model version {version.label}") for key in keys if key)
    for digest, key in session.execute(select(DatasetVersion.digest, DatasetVersion.manifest_key)):
        yield key, f"dataset version {digest[:12]}"
    for without, columns in (((), _PAGES), (forgotten, CHECKPOINTS)):
        for what, owner, column in columns:
            for found, key in session.execute(select(owner, column).where(column.is_not(None), column != "")):
                if found not in without:
                    yield key, f"{what} {found}"


def _inside(manifest: Manifest) -> Iterator[str]:
    for case in manifest.cases:
        yield case.raw_image_key
        yield case.raw_mask_key
    for split in manifest.shards:
        yield from manifest.shard_keys(split)
