"""What the pixels of a case show: a mask that can't be a femur's, a picture shown inverted, a mask shown mirrored.

All of it is judged on a small copy of the case: what a person would see at a glance, a person can be told.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.problems import Problem
from femur_tasks.evaluation.sides import split_picture

AREA_PCT: Final = (0.5, 30.0)
"""Share of the picture that both femurs may take; the real and synthetic cases lie between 2.4 and 13.3."""
_LARGE_PART: Final = 0.1  # of the largest part's area
_EDGE_SD_PX: Final = 1.5
_FITS: Final = 0.3  # real masks fit their pictures with 0.42 or more
_MARGIN: Final = 0.05


def problems_of_pixels(case_id: str, pixels_hw: Array) -> list[Problem]:
    """What keeps a decoded picture from being used, whatever its mask says."""
    if pixels_hw.dtype.kind == "f" and not np.isfinite(pixels_hw).all():
        bad = int((~np.isfinite(pixels_hw)).sum())
        return [Problem("not_finite", case_id, f"image: {bad} NaN or Inf pixels", "finite grey values")]
    if pixels_hw.min() == pixels_hw.max():
        found = f"image: every pixel is {float(pixels_hw.flat[0]):g}"
        return [Problem("constant_image", case_id, found, "a radiograph")]
    return []


def problems_of_mask(case_id: str, image_hw: Array, mask_hw: Array, area_pct: float) -> list[Problem]:
    """What a mask shows, alone and on its picture.

    Args:
        image_hw, mask_hw: uint8 and bool, of one size, about 256 px.
        area_pct: the mask's share of the picture at full size.
    """
    if area_pct == 0:
        return [Problem("empty_mask", case_id, "no pixel of the femur's class", "a femur")]
    problems = []
    if not AREA_PCT[0] <= area_pct <= AREA_PCT[1]:
        expected = f"{AREA_PCT[0]:g} to {AREA_PCT[1]:g} per cent of the picture"
        problems.append(Problem("femur_area", case_id, f"femur on {area_pct:.2f} per cent of the picture", expected))
    large = large_parts(mask_hw)
    if large > 2:
        problems.append(Problem("many_parts", case_id, f"{large} large parts", "two femurs, one part each"))
    left, right = split_picture(mask_hw)
    if (left is None) != (right is None):
        side = "left" if right is None else "right"
        problems.append(Problem("one_femur", case_id, f"a femur on the picture's {side} alone", "a femur on each side"))
    here, flipped = edge_agreement(image_hw, mask_hw), edge_agreement(image_hw, mask_hw[:, ::-1])
    if here < -_FITS and -here > flipped:
        found = f"bone darker than what surrounds it (edges agree by {here:.2f})"
        problems.append(Problem("inverted", case_id, found, "bone brighter than soft tissue"))
    elif flipped > max(_FITS, here + _MARGIN):
        found = f"edges agree by {here:.2f}, by {flipped:.2f} with the mask mirrored"
        problems.append(Problem("mirrored", case_id, found, "mask and picture the same way round"))
    return problems


def edge_agreement(image_hw: Array, mask_hw: Array) -> float:
    """How well the picture brightens where the mask begins, from -1 (it darkens there) over 0 (chance) to 1.

    sum(g . m) / sum(|g| |m|) over all pixels, with g and m the gradients of picture and mask, both smoothed with a
    Gaussian: the mean cosine between the picture's slope and the mask's inward normal, weighted by their strengths.
    """
    grey = ndimage.gaussian_filter(image_hw.astype(np.float32), _EDGE_SD_PX)
    soft = ndimage.gaussian_filter(mask_hw.astype(np.float32), _EDGE_SD_PX)
    (gy, gx), (my, mx) = np.gradient(grey), np.gradient(soft)
    strength = float((np.hypot(gx, gy) * np.hypot(mx, my)).sum())
    return float((gx * mx + gy * my).sum()) / strength if strength else 0.0


def large_parts(mask_hw: Array) -> int:
    """Parts of a mask that have a tenth of its largest part's area or more."""
    labels, _ = ndimage.label(mask_hw, structure=np.ones((3, 3), dtype=bool))
    areas = np.bincount(labels.ravel())[1:]
    return int((areas >= _LARGE_PART * areas.max(initial=0)).sum())
