"""Trunk, thighs and bowel gas."""

from __future__ import annotations

import math

import numpy as np

from femur_tasks.phantom.geometry import SIDES, FloatArray, as_field, smooth_step, spline
from femur_tasks.phantom.plate import Plate, Stroke
from femur_tasks.phantom.subject import Subject, near
from femur_tasks.phantom.tissue import SOFT, bar


def draw_soft_tissue(subject: Subject, plate: Plate, rng: np.random.Generator) -> FloatArray:
    """(pixels, pixels): attenuation of trunk and thighs with fat, folds, bladder and muscle texture; without gas."""
    s, g = subject, subject.size
    trochanter = 150.0 * s.width
    hip = trochanter + 16.0 + 0.75 * s.fat
    # never inside of the iliac crests
    waist = max(hip * near(rng, 0.88, 0.05) + 0.25 * s.fat, 149.0 * s.width)
    heights = np.array([-420, -300, -200, -110, -30, 45, 130, 260, 420], np.float64)
    halves = np.array(
        [1.02 * waist, waist, waist, 0.6 * waist + 0.4 * hip, 0.98 * hip, hip, 0.99 * hip, 0.93 * hip, 0.85 * hip]
    )
    y = as_field(plate.y_mm / g)
    contour = spline(np.stack([heights, halves], axis=1), closed=False)
    half = as_field(np.interp(y, contour[:, 0], contour[:, 1]))
    lean = math.tan(math.radians(s.lean))
    x = as_field(plate.x_mm / g + y * lean + near(rng, 0, 3))

    crotch = near(rng, 72, 8) - 0.25 * s.fat
    # a thigh goes where its femur goes
    abduction = np.where(x < 0, *(math.tan(math.radians(3.0 - leg.adduction)) for leg in s.legs))
    aside = as_field(np.abs(x) - abduction * np.maximum(y - 20.0, 0.0))
    below = smooth_step(as_field(y - np.abs(x) / 6), crotch - 30, crotch + 40)
    gap = as_field(near(rng, 2, 5) - 0.2 * s.fat + 0.06 * np.maximum(y - 60.0, 0.0))
    thigh_half = (half - gap) / 2
    wander = 1.0 + 0.05 * plate.cloud(rng, 90.0)

    def thickness(skin: float) -> FloatArray:
        trunk = bar(x, as_field(half - skin), 0.42)
        thigh = bar(as_field(aside - (half + gap) / 2), as_field(np.maximum(thigh_half - skin, 1.0)), 0.5)
        return as_field(trunk * (1.0 - below) + 0.86 * thigh * below)

    lean_share = 0.17  # muscle attenuates more than fat: the inner contour shows as a stripe beside the hip
    fat_mm = 5.0 + 0.55 * s.fat
    body = s.thickness * ((1.0 - lean_share) * thickness(0.0) + lean_share * thickness(fat_mm))
    # buttocks and belly make the middle thickest
    body = body * (0.80 + 0.20 * np.exp(-(((y + 60) / 130.0) ** 2)) * np.ones_like(x)) * wander

    for crease in (  # groin, buttock
        [(16, 66), (60, 30), (118 + 0.2 * s.fat, -18)],
        [(10, 84), (55, 92), (110, 84)],
    ):
        lines = [Stroke(spline(np.array(crease) * (side * g, g), False), 4.0) for side in SIDES]
        body -= float(rng.uniform(0, 16)) * plate.strokes(lines, 2.8)
    if s.fat > 38:  # an apron of fat hangs over the groins: a belly that ends in an edge below
        sag = -near(rng, 38, 8) + 16.0 * (x / 120.0) ** 2
        belly = bar(x, 0.86 * half, 1.0) * (1.0 - smooth_step(y - sag, -8.0, 8.0)) * smooth_step(y, -240.0, -60.0)
        body += 0.3 * s.fat * belly
    body += plate.ellipsoid((0.0, -38.0 * g), (42 * g, 30 * g), 26.0 * rng.random(), 2.0)
    if s.male:
        low = near(rng, 84, 8) * g
        body += plate.ellipsoid((near(rng, -8, 6), low), (19 * g, 30 * g), 46.0, 1.5)
        body += plate.ellipsoid((near(rng, 14, 5), low - 6), (17 * g, 26 * g), 40.0, 1.5)
    return np.asarray(SOFT * np.maximum(body, 0.0), np.float32)


def draw_bowel_gas(subject: Subject, plate: Plate, rng: np.random.Generator) -> FloatArray:
    """Attenuation that is missing where gas stands: mottled stool in the colon, rounder loops, the rectum."""
    g = subject.size
    nests = [
        ((-90, -150), (34, 58)),
        ((90, -165), (29, 58)),
        ((0, -55), (26, 22)),
        ((35, -215), (70, 30)),
        ((-30, -230), (60, 26)),
    ]
    amount = np.full((plate.pixels, plate.pixels), -4.0, np.float32)
    for (cx, cy), (rx, ry) in nests:
        fill, dx, dy = rng.random(), near(rng, 0, 14), near(rng, 0, 18)
        away = ((plate.x_mm / g - cx - dx) / rx) ** 2 + ((plate.y_mm / g - cy - dy) / ry) ** 2
        amount = np.maximum(amount, 0.2 + fill - 1.1 * away)
    mottle = 0.55 * plate.cloud(rng, 26.0) + 0.42 * plate.cloud(rng, 10.0)
    gas = smooth_step(mottle + amount, 0.15, 0.85)
    return np.asarray(SOFT * float(rng.uniform(10, 34)) * plate.blurred(gas, 0.6), np.float32)
