"""What a predicted mask says: the area of each femur, and flags for whatever a person should look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from femur_tasks.dataset.checks import large_parts, problems_of_mask
from femur_tasks.dataset.likeness import Likeness, hips
from femur_tasks.dataset.picture import Array
from femur_tasks.evaluation.sides import split_picture

NO_FEMUR: Final = "no_femur"
FLAGS: Final = {
    "unlike_training": "around the hips it looks like no picture that the model was trained on: perhaps no AP pelvis",
    "one_femur": "a femur on one side alone",
    "cut_by_frame": "a femur reaches the edge of the picture, and may go on beyond it",
    "many_parts": "more than two large parts, of which any away from both femurs is left out of the mask",
    "femur_area": "femurs that are too small or too large for an AP pelvis",
    "inverted": "bone darker than what surrounds it",
}
"""Why a person should look at a mask before using it."""


@dataclass(frozen=True)
class Findings:
    """What was found in one picture.

    Attributes:
        left_px, right_px: area of the patient's left and right femur; None where there is none.
        left_mm2, right_mm2: the same, None too where the file gives no spacing.
        flags: keys of `FLAGS`.
        likeness: score against the training cases, None where nothing can be said.
        x_pct, y_pct: the mask's centre in per cent of width and height.
    """

    left_px: int | None
    right_px: int | None
    left_mm2: float | None
    right_mm2: float | None
    flags: tuple[str, ...]
    likeness: float | None
    x_pct: float
    y_pct: float


def find(
    mask_hw: Array,
    small: tuple[Array, Array],
    seen: tuple[Array, Array],
    known: Likeness,
    spacing_mm: tuple[float, float] | None,
    mirrored: bool,
) -> Findings:
    """Measure a mask that has a femur, and say what is odd about it.

    Args:
        mask_hw: bool, of the picture's size.
        small: thumbnails of picture and mask, uint8 and bool.
        seen: picture and mask as the network saw them, square, with what was left out of `mask_hw`.
        known: what the training cases look like.
        spacing_mm: distance of pixels along x and y.
        mirrored: the picture's right is the patient's right.
    """
    small_grey, small_mask = small
    score = known.score(hips(*seen)) if known.limit is not None and seen[1].any() else None
    area_pct = 100 * np.count_nonzero(mask_hw) / mask_hw.size
    found = {problem.code for problem in problems_of_mask("", small_grey, small_mask, area_pct)}
    if large_parts(seen[1]) > 2:
        found.add("many_parts")
    if known.is_unlike(score):
        found.add("unlike_training")
    if any(mask_hw[edge].any() for edge in (0, -1, (slice(None), 0), (slice(None), -1))):
        found.add("cut_by_frame")
    in_picture = split_picture(mask_hw)
    right, left = in_picture[::-1] if mirrored else in_picture
    areas_px = [None if femur is None else int(np.count_nonzero(femur)) for femur in (left, right)]
    pixel_mm2 = spacing_mm[0] * spacing_mm[1] if spacing_mm else None
    left_mm2, right_mm2 = (
        None if area is None or pixel_mm2 is None else round(area * pixel_mm2, 2) for area in areas_px
    )
    rows, columns = np.nonzero(small_mask)
    return Findings(
        left_px=areas_px[0],
        right_px=areas_px[1],
        left_mm2=left_mm2,
        right_mm2=right_mm2,
        flags=tuple(flag for flag in FLAGS if flag in found),
        likeness=None if score is None else round(score, 4),
        x_pct=_centre_pct(columns, small_mask.shape[1]),
        y_pct=_centre_pct(rows, small_mask.shape[0]),
    )


def _centre_pct(places: Array, length: int) -> float:
    return 100 * (float(places.mean()) + 0.5) / length if places.size else 50.0
