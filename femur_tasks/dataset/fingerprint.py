"""A case's fingerprint: the hips in a frame of their own, so that copies of one radiograph look alike.

All AP pelvis pictures look alike as a whole. The centres of the two femoral heads say where the pelvis lies whatever
was cropped, turned or scaled, and grey values relative to their neighbourhood's say what is there whatever the tone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from femur_tasks.evaluation.sides import split_picture

NAME = "hips-64-1"
"""Stored with every fingerprint; those of different names can't be compared."""
SIDE = 64  # pixels

_LONGER_PX = 256
# The frame in distances of the two heads: 1.5 square, seen a little above the heads. It is what a picture with 15 %
# off every side still shows.
_HALF = 0.75
_ABOVE = 0.05
_HEAD_DISTANCE = 2.5  # in widths from a head to its trochanter, for a lone femur: median of the real cases
_LOCAL = 2.0  # standard deviation of a neighbourhood, in pixels of the fingerprint
_FLAT = 1.5  # grey levels: contrast below it is noise, and stays weak

Array = NDArray[Any]


def fingerprint(
    image_hw: NDArray[np.uint8], mask_hw: NDArray[np.bool_], half: float = _HALF, above: float = _ABOVE
) -> NDArray[np.float16]:
    """Local contrast of (SIDE, SIDE) points around the hips, flattened; 8 KB, compared by `alignment.similarity`.

    The frame is level with the femoral heads and scaled by their distance. A lone femur's head and width stand for
    both, and with an empty mask the whole picture is the frame: then only copies of almost the same frame are alike.

    Args:
        image_hw: any size and tone; inverted gives the negative of the fingerprint.
        mask_hw: of the same shape; specks beside the femurs do no harm.
        half, above: half of the frame's side, and how far its middle lies above the heads, in distances of the heads;
            fingerprints of another frame can't be compared.

    Returns:
        (SIDE * SIDE,): about -3 to 3, 0 where the picture does not reach or shows nothing.
    """
    image, mask = _shrunk(image_hw, mask_hw)
    centre_y, centre_x, unit, angle = _frame(mask)
    steps = (np.arange(SIDE) - (SIDE - 1) / 2) * (2 * half * unit / SIDE)
    across, down = np.meshgrid(steps, steps - (above * unit if mask.any() else 0))
    y = centre_y + np.sin(angle) * across + np.cos(angle) * down
    x = centre_x + np.cos(angle) * across - np.sin(angle) * down
    smooth = ndimage.gaussian_filter(image.astype(np.float32), half * unit / SIDE)  # half of a step, against aliasing
    points = ndimage.map_coordinates(smooth, [y, x], order=1, mode="nearest")
    height, width = image.shape
    inside = (y > -0.5) & (y < height - 0.5) & (x > -0.5) & (x < width - 0.5)
    return _local_contrast(points, inside.astype(np.float32)).astype(np.float16).ravel()


def _shrunk(image: Array, mask: Array) -> tuple[Array, Array]:
    longer = max(image.shape)
    if longer <= _LONGER_PX:
        return image, mask.astype(bool)
    height, width = (max(1, round(side * _LONGER_PX / longer)) for side in image.shape)
    small = [
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
        for pixels in (image, mask * np.uint8(255))
    ]
    return np.asarray(small[0]), np.asarray(small[1]) >= 128


def _frame(mask: Array) -> tuple[float, float, float, float]:
    """Row and column of the middle between the heads, their distance (px) and the angle that their line falls by."""
    left, right = split_picture(mask)
    if left is not None and right is not None:
        left_y, left_x, _ = _head(left, 1)
        right_y, right_x, _ = _head(right, -1)
        across, down = max(right_x - left_x, 1.0), right_y - left_y
        return (left_y + right_y) / 2, (left_x + right_x) / 2, np.hypot(across, down), np.arctan2(down, across)
    for femur, medial in ((left, 1), (right, -1)):
        if femur is not None:
            y, x, width = _head(femur, medial)
            return y, x + medial * _HEAD_DISTANCE * width / 2, _HEAD_DISTANCE * width, 0.0
    height, width = mask.shape
    return (height - 1) / 2, (width - 1) / 2, max(height, width) / (2 * _HALF), 0.0


def _head(femur: Array, medial: int) -> tuple[float, float, float]:
    """Centre of a femoral head, and how far the femur reaches outwards from there.

    The head is the largest disc inside the femur that reaches furthest up and inwards: neither a mask drawn thicker or
    thinner nor a cut through the shaft moves it.

    Args:
        femur: bool, not empty.
        medial: 1 where the other femur is to the picture's right, -1 where it is to the left.
    """
    parts, count = ndimage.label(femur)
    if count > 1:
        femur = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    rows, columns = (np.flatnonzero(femur.any(axis=axis)) for axis in (1, 0))
    top, first = rows[0], columns[0]
    depth = ndimage.distance_transform_edt(np.pad(femur[top : rows[-1] + 1, first : columns[-1] + 1], 1))
    y, x = np.nonzero(depth)
    radius = depth[y, x]
    reach = (medial * x - y) / np.sqrt(2) + radius
    radius = np.where(reach >= reach.max() - 0.3 * radius.max(), radius, 0)
    largest = radius >= radius.max() - 0.75  # several pixels, for a centre finer than one
    centre_x = float(x[largest].mean() + first - 1)
    outermost = float(columns[0] if medial > 0 else columns[-1])
    return float(y[largest].mean() + top - 1), centre_x, abs(centre_x - outermost) + 1


def _local_contrast(points: Array, inside: Array) -> Array:
    """Points minus their neighbourhood's mean, by its deviation; 0 outside of the picture, which counts nowhere."""

    def mean(values: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(values, _LOCAL))

    share = mean(inside) + 1e-3
    relative = (ndimage.gaussian_filter(points, 0.5) - mean(points * inside) / share) * inside
    return np.asarray(relative / (np.sqrt(mean(relative**2) / share) + _FLAT))
