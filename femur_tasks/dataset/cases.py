"""A converted case: its pixels at the training size and what is known of it, as one small file of the work folder."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.problems import Problem

_FACTS = "facts"


@dataclass(frozen=True)
class CaseFacts:
    """What is known of a readable case. Digests are of decoded pixels, sizes are the original's.

    Attributes:
        patient: pseudonym, or the case id where nothing tells the patient.
        split: as the source has it, None where it does not say.
        spacing_mm: along x and y, None where unknown.
        mirrored: the header says that the picture's right is the patient's right.
        window: grey values that became 0 and 255; None where the file held 8 bits.
        femur_x_pct, femur_y_pct: the mask's centre in per cent of width and height; None without a femur.
        labels: class numbers of the mask, where the femur's was assumed; none else.
        raw_image, raw_mask: the files to store, free of anything but pixels and spacing.
    """

    case_id: str
    patient: str
    split: str | None
    height_px: int
    width_px: int
    spacing_mm: tuple[float, float] | None
    mirrored: bool
    image_sha256: str
    mask_sha256: str
    window: tuple[float, float] | None
    intensity_mean: float
    intensity_sd: float
    femur_area_pct: float
    femur_x_pct: float | None
    femur_y_pct: float | None
    labels: tuple[int, ...]
    raw_image: str
    raw_mask: str


@dataclass(frozen=True)
class CasePixels:
    """The arrays of a converted case.

    Attributes:
        image_hw, mask_hw: uint8 and uint8 0/1, (size, size).
        full_mask: the mask at the original size, as `packed_mask` made it.
        small_image_hw, small_mask_hw: uint8 and bool in the original's proportions, for checks and pictures.
        fingerprint: for near-duplicates.
    """

    image_hw: Array
    mask_hw: Array
    full_mask: bytes
    small_image_hw: Array
    small_mask_hw: Array
    fingerprint: Array


def save(path: Path, facts: CaseFacts | None, problems: list[Problem], pixels: CasePixels | None) -> None:
    """Write a case, or what is wrong with it, so that the file is whole or not there."""
    from safetensors.numpy import save as packed

    told = {"facts": asdict(facts) if facts else None, "problems": [problem.as_dict() for problem in problems]}
    arrays = {_FACTS: np.frombuffer(json.dumps(told).encode(), np.uint8)}
    if pixels:
        arrays |= {**vars(pixels), "full_mask": np.frombuffer(pixels.full_mask, np.uint8)}
    part = path.with_suffix(".part")
    part.write_bytes(packed({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    part.replace(path)


def load_facts(path: Path) -> tuple[CaseFacts | None, list[Problem]]:
    """What is known of a case and what is wrong with it, without its pixels."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        told: Mapping[str, Any] = json.loads(file.get_tensor(_FACTS).tobytes())
    fields = told["facts"]
    if fields:
        pairs = {name: tuple(fields[name]) if fields[name] else None for name in ("spacing_mm", "window")}
        fields = CaseFacts(**{**fields, **pairs, "labels": tuple(fields["labels"])})
    return fields, [Problem.from_dict(problem) for problem in told["problems"]]


def load_pixels(path: Path) -> CasePixels:
    """The arrays of a case that was converted."""
    from safetensors.numpy import load_file

    arrays = load_file(path)
    del arrays[_FACTS]
    return CasePixels(full_mask=arrays.pop("full_mask").tobytes(), **arrays)


def packed_mask(mask_hw: Array) -> bytes:
    """A bool mask without loss: height and width as two uint32, then its bits, deflated. Equal masks, equal bytes."""
    return np.array(mask_hw.shape, "<u4").tobytes() + zlib.compress(np.packbits(mask_hw).tobytes(), 1)


def unpacked_mask(packed: bytes) -> Array:
    """The bool mask (H, W) that `packed_mask` packed."""
    height, width = (int(length) for length in np.frombuffer(packed[:8], "<u4"))
    bits = np.frombuffer(zlib.decompress(packed[8:]), np.uint8)
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)


def load_fingerprint(path: Path) -> Array:
    """The fingerprint alone."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return np.asarray(file.get_tensor("fingerprint"))
