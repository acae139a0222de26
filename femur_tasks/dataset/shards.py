"""Shards: packed safetensors files of converted cases, read back as arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from femur_tasks.dataset.cases import CasePixels, unpacked_mask
from femur_tasks.dataset.manifest import Manifest, ManifestCase, ShardRef
from femur_tasks.dataset.picture import Array

CASES_A_SHARD = 64
_CASE_IDS = "case_ids"


@dataclass(frozen=True)
class Shard:
    """Cases of one split at the training size.

    Attributes:
        images_bhw: uint8.
        masks_bhw: uint8 0/1.
        full_masks: bool (H, W) at each original size, for test shards only.
    """

    case_ids: tuple[str, ...]
    images_bhw: Array
    masks_bhw: Array
    full_masks: tuple[Array, ...]


def plan(
    split_cases: Iterable[ManifestCase], size: int, before: Manifest | None
) -> tuple[list[ShardRef], list[list[str]]]:
    """Which full shards of the version before still hold, and which cases are to be packed anew.

    Args:
        split_cases: the new version's cases of one split.
        size: of its training pictures, px.
        before: the dataset's last version; None where there is none. One of another size has no shard to keep.

    Returns:
        The shards to keep, and the case ids of each new one, in order.
    """
    if before and before.size != size:
        before = None
    cases = {case.case_id: case for case in split_cases}
    was: Mapping[str, ManifestCase] = {case.case_id: case for case in before.cases} if before else {}
    unchanged = {
        case_id
        for case_id, case in cases.items()
        if (old := was.get(case_id))
        and (old.split, old.image_sha256, old.mask_sha256) == (case.split, case.image_sha256, case.mask_sha256)
    }
    split = next((case.split for case in cases.values()), "")
    kept = [
        shard
        for shard in (before.shards.get(split, ()) if before else ())
        if len(shard.case_ids) >= CASES_A_SHARD and unchanged.issuperset(shard.case_ids)
    ]
    packed = {case_id for shard in kept for case_id in shard.case_ids}
    rest = sorted(cases.keys() - packed)
    return kept, [rest[i : i + CASES_A_SHARD] for i in range(0, len(rest), CASES_A_SHARD)]


def pack(cases: Sequence[tuple[str, CasePixels]], with_full_masks: bool) -> bytes:
    """The bytes of a shard: the same cases give the same bytes."""
    arrays = {
        "images": np.stack([pixels.image_hw for _, pixels in cases]),
        "masks": np.stack([pixels.mask_hw for _, pixels in cases]),
        # ids lie in an array: safetensors writes metadata in no fixed order, which would change the digest
        _CASE_IDS: np.frombuffer(json.dumps([case_id for case_id, _ in cases]).encode(), np.uint8),
    }
    if with_full_masks:
        arrays |= {
            f"full_mask_{i:05d}": np.frombuffer(pixels.full_mask, np.uint8) for i, (_, pixels) in enumerate(cases)
        }
    return save(arrays)


def unpack(data: bytes) -> Shard:
    """Read what `pack` wrote."""
    arrays = load(data)
    full = [arrays[name] for name in sorted(arrays) if name.startswith("full_mask_")]
    return Shard(
        case_ids=tuple(json.loads(arrays[_CASE_IDS].tobytes())),
        images_bhw=arrays["images"],
        masks_bhw=arrays["masks"],
        full_masks=tuple(unpacked_mask(packed.tobytes()) for packed in full),
    )
