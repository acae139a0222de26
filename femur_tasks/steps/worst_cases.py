"""Pictures of a verdict's worst cases: what the challenger sees there, and what the champion of that moment saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from femur_tasks.dataset.resize import enlarge_probability, shrink_image
from femur_tasks.dataset.shards import unpack
from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.evaluation.overlays import overlay, png_bytes
from femur_tasks.evaluation.strays import THRESHOLD, without_strays
from femur_tasks.registry.tables import ComparisonManifest, VerdictPicture, VerdictRow
from femur_tasks.steps.context import Context
from femur_tasks.steps.evaluate import network
from femur_tasks.steps.run import pinned_manifest


def verdict_pictures(context: Context, verdict_id: int, case_ids: Sequence[str]) -> Mapping[str, bytes]:
    """The challenger's overlay of each case as PNG; they and the champion's are kept with the verdict, made once.

    Evaluations keep no masks, so these few cases are predicted again. A champion that can't be loaded any more has no
    pictures.

    Args:
        case_ids: the worst ones, worst first.

    Raises:
        NotFound, BadSignature, WasCollected, DigestMismatch, FemurError: the challenger can't be loaded (`network`).
        Unreachable: the store or the registry does not answer.
    """
    with context.registry.reading() as session:
        verdict = session.get_one(VerdictRow, verdict_id)
        digest = session.get_one(ComparisonManifest, verdict.manifest_digest).dataset_digest
        kept = session.scalars(select(VerdictPicture).where(VerdictPicture.verdict_id == verdict_id)).all()
    if kept:
        return {row.case_id: context.store.get(row.challenger_key) for row in kept}
    challengers = _overlays(context, verdict.challenger_id, digest, case_ids)
    champions: Mapping[str, bytes] = {}
    if verdict.champion_id is not None:
        try:
            champions = _overlays(context, verdict.champion_id, digest, case_ids)
        except Unreachable:
            raise
        except FemurError:
            champions = {}
    rows = [
        VerdictPicture(
            verdict_id=verdict_id,
            case_id=case_id,
            position=position,
            challenger_key=context.store.put(challengers[case_id], "pictures"),
            champion_key=context.store.put(champions[case_id], "pictures") if case_id in champions else None,
        )
        for position, case_id in enumerate(case_ids)
        if case_id in challengers
    ]
    with context.registry.writing() as session:
        for row in rows:
            session.merge(row)
    return challengers


def _overlays(context: Context, model_id: int, digest: str, case_ids: Sequence[str]) -> Mapping[str, bytes]:
    """PNG by case id."""
    probability, size = network(context, model_id)
    overlays = {}
    for key in pinned_manifest(context, digest).shard_keys("test"):
        shard = unpack(context.store.get(key))
        for case_id, image, mask in zip(shard.case_ids, shard.images_bhw, shard.masks_bhw, strict=True):
            if case_id in case_ids:
                seen = without_strays(probability(shrink_image(image, size)))
                predicted = enlarge_probability(seen, *image.shape) > THRESHOLD
                overlays[case_id] = png_bytes(overlay(image, predicted, mask))
    return overlays
