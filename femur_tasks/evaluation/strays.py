"""The mask that a probability stands for: the femurs, without parts that lie away from both of them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from femur_tasks.evaluation.sides import split_picture

THRESHOLD: Final = 0.5
"""A pixel is femur where its probability is above this."""
_GAP = 0.05
"""Share of the picture's width. A broken femur's parts lie nearer to each other, about 2 cm, and the spine further off:
in the real cases the two femurs' inner edges are a quarter of the width apart."""

_LARGE = 0.5
"""Share of the smaller femur's area from which a part is no stray."""


def without_strays(probability_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability, zero where a small part of the mask lies away from both femurs.

    A femur is the largest part on its side (`sides.split_picture`), and away is further than a twentieth of the
    picture's width. What lies nearer stays: a fracture may be what parts it. So does what has half the smaller
    femur's area, which may be the femur itself, and everything where one femur alone is seen, whose picture may show
    a hip at any scale: a person is told of large parts. A part is what hangs together over edges and corners. No pixel
    that stays changes, and enlarging the result leaves no trace of what went.

    Args:
        probability_hw: of one picture, at the size that the network sees.

    Source: keeping the largest component only, as nnU-Net does where its cross-validation says so (Isensee et al.,
    Nature Methods 18, 2021), here once a side, with what lies near and what is large.
    """
    parts_hw, parts = ndimage.label(probability_hw > THRESHOLD, structure=np.ones((3, 3), dtype=bool))
    areas_px = np.bincount(parts_hw.ravel())
    left, right = split_picture(parts_hw > 0)
    if left is None or right is None:
        return probability_hw
    femurs = [np.bincount(parts_hw[femur]).argmax() for femur in (left, right)]
    if parts <= len(set(femurs)):
        return probability_hw
    away_px = ndimage.distance_transform_edt(~np.isin(parts_hw, femurs))
    nearest_px = ndimage.minimum(away_px, parts_hw, index=np.arange(1, parts + 1))
    is_away = nearest_px > _GAP * probability_hw.shape[1]
    is_small = areas_px[1:] < _LARGE * areas_px[femurs].min()
    strays = 1 + np.flatnonzero(is_away & is_small)
    return np.where(np.isin(parts_hw, strays), np.float32(0), probability_hw)
