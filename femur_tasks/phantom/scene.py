"""The scene: who lies there, what the picture shows of them, and what the beam meets on its way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from femur_tasks.phantom.femur import Femur, draw_femurs
from femur_tasks.phantom.geometry import SIDES, FloatArray
from femur_tasks.phantom.metal import draw_metal
from femur_tasks.phantom.pelvis import Pelvis, draw_hip_bones
from femur_tasks.phantom.plate import Plate
from femur_tasks.phantom.soft_tissue import draw_bowel_gas, draw_soft_tissue
from femur_tasks.phantom.spine import draw_spine
from femur_tasks.phantom.subject import Subject, near, random_subject

_MARGIN = 0.012  # both femurs keep this far from the picture's edge, as a fraction of its side


@dataclass(frozen=True)
class Scene:
    """Everything about a case but its pixels: who, and what the picture shows of them."""

    subject: Subject
    pelvis: Pelvis
    femurs: tuple[Femur, Femur]
    side_mm: float
    corner_mm: tuple[float, float]

    def plate(self, pixels: int) -> Plate:
        return Plate(pixels, self.side_mm, self.corner_mm)


def random_scene(rng: np.random.Generator) -> Scene:
    """A subject, posed, in a picture that holds both proximal femurs whole."""
    subject = random_subject(rng)
    pelvis = Pelvis(subject)
    right, left = (
        Femur(leg, side, subject.size, pelvis.head(side)) for leg, side in zip(subject.legs, SIDES, strict=True)
    )
    femurs = (right, left)
    points = np.vstack([femur.proximal() for femur in femurs])
    low, high = points.min(axis=0), points.max(axis=0)
    span = high - low
    room = 1.0 - 2.0 * _MARGIN
    for _ in range(40):
        side_mm = near(rng, 400, 50)
        centre = np.array([near(rng, 0.5, 0.05), near(rng, 0.62, 0.035)])
        first, last = centre - span / side_mm / 2, centre + span / side_mm / 2
        if first.min() >= _MARGIN and last.max() <= 1.0 - _MARGIN:
            break
    else:  # no draw held both femurs: show them whole, in the middle
        side_mm, centre = float(span.max()) / (0.95 * room), np.array([0.5, 0.5])
    corner = (low + high) / 2 - centre * side_mm
    return Scene(subject, pelvis, femurs, side_mm, (float(corner[0]), float(corner[1])))


def attenuation(scene: Scene, plate: Plate, rng: np.random.Generator) -> FloatArray:
    """(pixels, pixels): line integral along the beam, >= 0."""
    subject, pelvis = scene.subject, scene.pelvis
    grain = plate.cloud(rng, 1.7) * 0.7 + plate.cloud(rng, 7.0) * 0.7
    total = draw_soft_tissue(subject, plate, rng)
    total -= np.minimum(draw_bowel_gas(subject, plate, rng), 0.8 * total)
    total += draw_spine(pelvis, plate, grain)
    total += draw_hip_bones(pelvis, plate, grain)
    total += draw_femurs(*scene.femurs, plate, grain, subject.density)
    total += draw_metal(subject, plate, rng)
    return np.maximum(total, 0.0)
