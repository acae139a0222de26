"""Metal that some subjects carry or that lies beside them."""

from __future__ import annotations

import math

import numpy as np

from femur_tasks.phantom.geometry import FloatArray
from femur_tasks.phantom.plate import Plate, Stroke
from femur_tasks.phantom.subject import Subject

_METAL = 0.9


def draw_metal(subject: Subject, plate: Plate, rng: np.random.Generator) -> FloatArray:
    """A clip in the pelvis, a calibration ball between the thighs, or a pin in the crest; never near a femur."""
    g = subject.size
    kind, x, y, turn = rng.random(), rng.uniform(-30, 30), rng.uniform(-75, -20), rng.uniform(0, math.pi)
    along = np.array([math.cos(turn), math.sin(turn)])
    if kind < 0.12:
        lines = [
            Stroke(np.array([(x, y), (x, y) + 11 * along]) * g, 3.2),
            Stroke(np.array([(x, y), (x + 5, y - 4)]) * g, 4.5),
        ]
        return _METAL * plate.strokes(lines, 0.3)
    if kind < 0.22:
        return plate.ellipsoid((x * 0.3 * g, (y + 190) * g), (9.0, 9.0), 2.2, 0.3)
    if kind < 0.27:
        side = 1 if x > 0 else -1
        pin = np.array([(side * 62.0, y - 75), (side * 98.0, y - 62)]) * g
        return _METAL * 1.6 * plate.strokes([Stroke(pin, 4.5)], 0.3)
    return np.zeros((plate.pixels, plate.pixels), np.float32)
