"""Between the original size and the training size: pictures by area, masks by coverage, probabilities back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
_ROWS_A_BLOCK = 32


def shrink_image(image_hw: Array, size: int) -> Array:
    """Area average of a uint8 picture at (size, size); the aspect is not kept, as in the reference."""
    return np.asarray(_resized(Image.fromarray(image_hw), size, size))


def shrink_mask(mask_hw: Array, size: int) -> Array:
    """uint8 0/1 mask at (size, size): a pixel is femur where at least half of it was."""
    height, width = mask_hw.shape
    filled = np.flatnonzero(mask_hw.any(axis=1))
    if min(height, width) < size or not filled.size:
        coverage = _resized(Image.fromarray(mask_hw.astype(np.float32), mode="F"), size, size)
        return (np.asarray(coverage) >= 0.5).astype(np.uint8)
    # floats are slow and large: only the rows of the small mask that can have a femur, a block of them at a time
    begin, end = int(filled[0]) * size // height, int(filled[-1]) * size // height + 1
    small = np.zeros((size, size), np.uint8)
    for first in range(begin, end, _ROWS_A_BLOCK):
        last = min(end, first + _ROWS_A_BLOCK)
        top, bottom = math.floor(first * height / size), math.ceil(last * height / size)
        rows = Image.fromarray(mask_hw[top:bottom].astype(np.float32), mode="F")
        box = (0.0, first * height / size - top, float(width), last * height / size - top)
        small[first:last] = np.asarray(rows.resize((size, last - first), Image.Resampling.BOX, box)) >= 0.5
    return small


def thumbnails(image_hw: Array, mask_hw: Array, longer_px: int = 256) -> tuple[Array, Array]:
    """A uint8 picture and its bool mask, both so small that the longer side has `longer_px`, in their proportions."""
    height, width = image_hw.shape
    scale = min(1.0, longer_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image_hw, mask_hw.astype(bool)
    coverage = Image.fromarray(mask_hw.astype(bool).view(np.uint8) * np.uint8(255))
    # for looking at: whole pixels are averaged first, which is four times as fast
    image, mask = (
        picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        for picture in (Image.fromarray(image_hw), coverage)
    )
    return np.asarray(image), np.asarray(mask) >= 128


def enlarge_probability(probability_hw: Array, height_px: int, width_px: int) -> Array:
    """Bilinear float32 probability at the original size, from one at the training size."""
    picture = Image.fromarray(probability_hw.astype(np.float32), mode="F")
    return np.asarray(picture.resize((width_px, height_px), Image.Resampling.BILINEAR))


def _resized(picture: Image.Image, width_px: int, height_px: int) -> Image.Image:
    if picture.size == (width_px, height_px):
        return picture
    shrinks = picture.width >= width_px and picture.height >= height_px
    return picture.resize((width_px, height_px), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
