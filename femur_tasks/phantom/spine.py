"""Sacrum and lumbar spine."""

from __future__ import annotations

import math

import numpy as np

from femur_tasks.phantom.geometry import SIDES, FloatArray, Points, as_field, spline
from femur_tasks.phantom.pelvis import Pelvis
from femur_tasks.phantom.plate import Plate, Stroke
from femur_tasks.phantom.tissue import CANCELLOUS, CORTICAL, chord_mm, shell_mm

_SACRUM = (
    *((26, -131, -32), (38, -133, -42), (51, -124, -50), (54, -108, -54), (49, -92, -58), (38, -77, -66)),
    *((27, -66, -74), (19, -54, -80), (12, -45, -80), (6, -36, -74), (5, -26, -64), (2, -18, -56)),
)
_SACRAL_FORAMINA = ((23, -114, -50), (19.5, -97, -60), (16.5, -82, -68), (13.5, -69, -74))
_DISC_PITCH_MM, _LUMBAR = 36.0, 9


def draw_spine(pelvis: Pelvis, plate: Plate, grain: FloatArray) -> FloatArray:
    """(pixels, pixels): attenuation of sacrum and vertebrae, no unit; `grain` is a field of mean 0."""
    s = pelvis.subject
    sacrum = plate.coverage([pelvis.both(_SACRUM)])
    depth = plate.depth_mm(sacrum)
    cortex, _ = shell_mm(depth, 8.0, 0.8)
    total = sacrum * (CORTICAL * (0.45 * cortex + 0.8) + CANCELLOUS * 0.5 * chord_mm(depth, 14.0) * (1 + 0.3 * grain))

    holes = [_oval(pelvis, x, y, z, 5.0, 3.6, side) for x, y, z in _SACRAL_FORAMINA for side in SIDES]
    total -= 0.12 * sacrum * plate.blurred(plate.coverage(holes), 1.2)

    top_y = plate.corner_mm[1] - 20.0
    bodies: list[Points] = []
    ridges = [_oval(pelvis, 0, y, z - 8, 3.0, 6.0, 1) for _, y, z in _SACRAL_FORAMINA]
    # only the upper edge of a sacral hole is seen
    rings = [Stroke(hole[17:32], 1.6, 0.8) for hole in holes]
    wings: list[Stroke] = []
    for level in range(_LUMBAR):
        y = -149.0 - _DISC_PITCH_MM * level
        if pelvis.project((0, y, -22))[0, 1] < top_y:
            break
        bend = s.scoliosis * (level + 1) ** 1.5 * 0.9
        half = 24.5 - 0.6 * level
        corners = ((half - 5, -13), (half, -12), (half - 3, 0), (half + 0.5, 12), (half - 5, 13))
        left = [(dx + bend, y + dy, -22) for dx, dy in corners]
        right = [(-dx + bend, y + dy, -22) for dx, dy in corners]
        bodies.append(spline(pelvis.project([*left, *right[::-1]]), True, per_span=8))
        rings += [Stroke(_oval(pelvis, 15 + side * bend, y - 3, -45, 5, 6.5, side), 1.7) for side in SIDES]
        ridges.append(_oval(pelvis, bend, y + 12, -70, 3.6, 10.5, 1))
        wing = [(22, y - 2, -45), (34, y - 5, -48), (44 - level, y - 6, -50)]
        wings += [Stroke(pelvis.project([(x + side * bend, dy, z) for x, dy, z in wing], side), 7.0) for side in SIDES]
    body = plate.coverage(bodies)
    depth = plate.depth_mm(body)
    cortex, core = shell_mm(depth, 11.0, 0.9)
    total += body * (CORTICAL * (0.8 * cortex + 0.5) + CANCELLOUS * 1.5 * core * (1.0 + 0.25 * grain))
    total += 0.24 * plate.strokes(rings, 0.8) + 0.13 * plate.strokes(wings, 1.5)
    total += 0.22 * plate.blurred(plate.coverage(ridges), 1.2)
    return as_field(s.density * total)


def _oval(pelvis: Pelvis, x: float, y: float, z: float, rx: float, ry: float, side: int) -> Points:
    angle = np.linspace(0.0, 2.0 * math.pi, 33)
    ring = np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle), np.full_like(angle, z)], axis=1)
    return pelvis.project(ring, side)
