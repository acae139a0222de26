"""The masks that an annotator would have drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from femur_tasks.phantom.geometry import SIDES, Points
from femur_tasks.phantom.pelvis import CREST, FORAMEN, HIP_BONE, PUBIC_BODY, TEARDROP, sourcil_outline
from femur_tasks.phantom.plate import Plate
from femur_tasks.phantom.scene import Scene

LABELS: dict[str, int] = {
    "background": 0,
    "femur": 1,
    "ilium": 2,
    "obturator": 3,
    "pubis": 4,
    "sourcil": 5,
    "teardrop": 6,
}


def femur_mask(scene: Scene, plate: Plate) -> npt.NDArray[np.bool_]:
    """(pixels, pixels): both proximal femurs, down to each one's cut."""
    right, left = scene.femurs
    middle = (right.head_mm[0] + left.head_mm[0]) / 2
    end_y = np.where(plate.x_mm < middle, right.cut_y(), left.cut_y())
    return np.asarray((plate.coverage([right.outline(), left.outline()]) >= 0.5) & (plate.y_mm <= end_y))


def label_map(scene: Scene, plate: Plate) -> npt.NDArray[np.uint8]:
    """(pixels, pixels) of LABELS. The femur covers what lies behind it, as in the reference masks."""
    pelvis, labels = scene.pelvis, np.zeros((plate.pixels, plate.pixels), np.uint8)

    def filled(outline_of: Callable[[int], Points]) -> npt.NDArray[np.bool_]:
        return plate.coverage([outline_of(side) for side in SIDES]) >= 0.5

    hip = filled(lambda side: pelvis.outline(HIP_BONE, side))
    foramen = filled(lambda side: pelvis.outline(FORAMEN, side))
    labels[hip & filled(lambda side: pelvis.line(CREST, side))] = LABELS["ilium"]
    labels[foramen] = LABELS["obturator"]
    labels[hip & ~foramen & filled(lambda side: pelvis.project(PUBIC_BODY, side))] = LABELS["pubis"]
    labels[filled(lambda side: sourcil_outline(pelvis, side))] = LABELS["sourcil"]
    labels[filled(lambda side: pelvis.line(TEARDROP, side))] = LABELS["teardrop"]
    labels[femur_mask(scene, plate)] = LABELS["femur"]
    return labels
