"""Shards: packed safetensors files of converted cases, read back as arrays."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from safetensors.numpy import load, save

from femur_tasks.dataset.nifti import Array
from femur_tasks.dataset.validation import ConvertedCase

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


def pack(cases: Sequence[ConvertedCase], with_full_masks: bool) -> bytes:
    """The bytes of a shard: the same cases give the same bytes."""
    arrays = {
        "images": np.stack([case.image_hw for case in cases]),
        "masks": np.stack([case.mask_hw for case in cases]),
        # ids lie in an array: safetensors writes metadata in no fixed order, which would change the digest
        _CASE_IDS: np.frombuffer(json.dumps([case.case_id for case in cases]).encode(), np.uint8),
    }
    if with_full_masks:
        arrays |= {f"full_mask_{i:05d}": np.frombuffer(case.full_mask_png, np.uint8) for i, case in enumerate(cases)}
    return save(arrays)


def unpack(data: bytes) -> Shard:
    """Read what `pack` wrote."""
    arrays = load(data)
    full = [arrays[name] for name in sorted(arrays) if name.startswith("full_mask_")]
    return Shard(
        case_ids=tuple(json.loads(arrays[_CASE_IDS].tobytes())),
        images_bhw=arrays["images"],
        masks_bhw=arrays["masks"],
        full_masks=tuple(np.asarray(Image.open(io.BytesIO(png.tobytes()))) for png in full),
    )
