"""The subject: body habitus, position, and how each leg lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from femur_tasks.phantom.geometry import SIDES


@dataclass(frozen=True)
class Leg:
    """One proximal femur and how the leg lies. Angles in degrees, lengths in mm."""

    neck_shaft: float
    neck: float
    head: float
    shaft: float
    trochanter: float
    rotation: float  # out of the plane: external positive; shortens the neck and brings the lesser trochanter out
    adduction: float
    cut: float  # where the annotator ends the proximal femur, below the middle of the lesser trochanter
    wall: float  # cortex of the shaft


@dataclass(frozen=True)
class Subject:
    """Body habitus and position. Lengths in mm, angles in degrees."""

    size: float
    width: float
    height: float
    inlet: float  # width of the birth canal: female above 1
    tilt: float
    turn: float
    lean: float
    scoliosis: float
    fat: float
    thickness: float
    male: bool
    density: float
    legs: tuple[Leg, Leg]


def near(rng: np.random.Generator, mean: float, sd: float, reach: float = 2.2) -> float:
    """A normal draw cut off at `reach` standard deviations: no monsters."""
    return mean + sd * float(np.clip(rng.standard_normal(), -reach, reach))


def random_subject(rng: np.random.Generator) -> Subject:
    """Anybody; the two legs are alike but not the same."""
    neck_shaft, neck, head = near(rng, 128, 5), near(rng, 50, 3), near(rng, 23.5, 1.3)
    shaft, trochanter, wall = near(rng, 16.5, 1.3), near(rng, 1.0, 0.1), near(rng, 5.4, 0.9)
    rotation, adduction, cut = near(rng, 14, 11), near(rng, 3, 4.5), near(rng, 22, 4)
    legs = tuple(
        Leg(
            neck_shaft=neck_shaft + near(rng, 0, 1),
            neck=neck + near(rng, 0, 0.7),
            head=head,
            shaft=shaft,
            trochanter=trochanter + near(rng, 0, 0.03),
            rotation=rotation + near(rng, 0, 7),
            adduction=adduction + near(rng, 0, 3),
            cut=cut + near(rng, 0, 1),
            wall=wall,
        )
        for _ in SIDES
    )
    male = bool(rng.random() < 0.5)
    fat = float(rng.gamma(2.2, 11.0)) + 6.0
    return Subject(
        size=near(rng, 1.03 if male else 0.97, 0.05),
        width=near(rng, 1.0, 0.05),
        height=near(rng, 1.0, 0.05),
        inlet=near(rng, 0.98 if male else 1.06, 0.03),
        tilt=near(rng, 0, 6),
        turn=near(rng, 0, 2.5),
        lean=near(rng, 0, 2),
        scoliosis=near(rng, 0, 1),
        fat=min(fat, 75.0),
        thickness=near(rng, 175, 12) + 0.9 * min(fat, 75.0),
        male=male,
        density=near(rng, 1.0, 0.13),
        legs=(legs[0], legs[1]),
    )
