"""The patient's left and right: which pixels of a mask belong to which femur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from femur_tasks.errors import FemurError

# Shares of the picture's width, but for _FEMUR_AREA. In the real cases the two centroids lie 0.53 or more apart and
# one femur is at most 0.28 wide, so fragments of one femur never lie as far apart as two femurs do.
_TWO_FEMURS_APART = 0.25
_MERGED_WIDTH = 0.5
_MERGED_SMALLER_HALF = 0.2  # share of the merged component's area
_FEMUR_AREA = 0.1  # share of the larger femur's area: below it, a far component is a speck
_LONE_FEMUR_MARGIN = 0.125

Mask = NDArray[np.bool_]
Box = tuple[slice, slice]


def split_picture(mask: Mask) -> tuple[Mask | None, Mask | None]:
    """Take a bool mask (H, W) apart into the femurs on the picture's left and on its right.

    1. The largest component is a femur. If it is at least half as wide as the picture and has a fifth of its area in
       either half, it is both femurs merged, and the picture's midline cuts the whole mask.
    2. Else the other femur is the largest component whose centroid lies a quarter of the picture's width or more to
       one side and that has a tenth of the first one's area. The two are ordered by centroid column; every further
       fragment goes to the nearer centroid, so that left | right == mask.
    3. Else there is one femur, on the side of the picture where its centroid lies. Fragments nearer than a quarter of
       the width are its own; specks further off belong to no femur.

    Returns:
        bool masks of the picture's size; None where there is no femur on that side. Both None on an empty mask.
    """
    if not mask.any():
        return None, None
    box = box_of(mask)
    labels, _ = ndimage.label(mask[box], structure=np.ones((3, 3), dtype=bool))
    rows, columns = np.nonzero(labels)
    component = labels[rows, columns] - 1
    rows, columns = rows + box[0].start, columns + box[1].start
    area = np.bincount(component)
    row = np.bincount(component, weights=rows) / area
    column = np.bincount(component, weights=columns) / area
    first = int(area.argmax())
    width = mask.shape[1]

    if _is_merged(columns[component == first], width):
        middle = width // 2
        return _pixels(mask, rows, columns, columns < middle), _pixels(mask, rows, columns, columns >= middle)

    apart = np.abs(column - column[first]) >= _TWO_FEMURS_APART * width
    femur = apart & (area >= _FEMUR_AREA * area[first])
    if femur.any():
        second = int(np.where(femur, area, 0).argmax())
        left, right = (first, second) if column[first] < column[second] else (second, first)
        to_left = np.hypot(row - row[left], column - column[left])
        to_right = np.hypot(row - row[right], column - column[right])
        is_left = (to_left <= to_right)[component]
        return _pixels(mask, rows, columns, is_left), _pixels(mask, rows, columns, ~is_left)

    lone = _pixels(mask, rows, columns, ~apart[component])
    return (lone, None) if column[first] < (width - 1) / 2 else (None, lone)


def _is_merged(columns: NDArray[np.intp], width: int) -> bool:
    left_share = float(np.mean(columns < width // 2))
    is_wide = int(columns.max() - columns.min()) + 1 >= _MERGED_WIDTH * width
    return is_wide and min(left_share, 1 - left_share) >= _MERGED_SMALLER_HALF


def _pixels(like: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp], chosen: Mask) -> Mask:
    side = np.zeros(like.shape, dtype=bool)
    side[rows[chosen], columns[chosen]] = True
    return side


def territories(truths: tuple[Mask | None, Mask | None], shape_hw: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Where a predicted pixel counts for the picture's left and right femur: bool, broadcastable to the picture."""
    left, right = truths
    width = shape_hw[1]
    column = np.arange(width)[np.newaxis, :]
    if left is not None and right is not None:
        left_end, right_start = box_of(left)[1].stop, box_of(right)[1].start
        if left_end > right_start:
            is_left: Mask = ndimage.distance_transform_edt(~left) <= ndimage.distance_transform_edt(~right)
        else:
            is_left = column < (left_end + right_start) // 2
        return is_left, ~is_left
    margin = _LONE_FEMUR_MARGIN * width
    left_until = width / 2 if left is None else max(width / 2, box_of(left)[1].stop + margin)
    right_from = width / 2 if right is None else min(width / 2, box_of(right)[1].start - margin)
    return column < left_until, column >= right_from


def binary_mask(mask_hw: NDArray[Any], name: str) -> Mask:
    """The mask as bool, without a copy where it is bool already; `name` is for the error's text.

    Raises:
        FemurError: not 2-D, without a pixel, or with a value other than 0 and 1 (255 and NaN too).
    """
    mask = np.asarray(mask_hw)
    if mask.ndim != 2 or mask.size == 0:
        raise FemurError(
            f"Expected a {name} of shape (height, width). Received: shape {mask.shape}.",
            "Drop the batch and channel axes.",
        )
    if mask.dtype != np.bool_:
        binary = mask == 1
        if not np.all(binary | (mask == 0)):
            raise FemurError(
                f"Expected a {name} of zeros and ones. Received: {mask.dtype} with other values.",
                "Threshold probabilities at 0.5, and pick femur == 1 from a multi-class mask.",
            )
        mask = binary
    return mask


def box_of(mask: Mask) -> Box:
    """The smallest box around every set pixel of a mask that has one."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
