"""The femur: head, neck and shaft in their own frame, whose apparent form follows the rotation of the leg."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from femur_tasks.phantom.geometry import FloatArray, Points, as_field, smooth_step, spline
from femur_tasks.phantom.plate import Plate, Stroke
from femur_tasks.phantom.subject import Leg
from femur_tasks.phantom.tissue import CANCELLOUS, CORTICAL, shell_mm


@dataclass(frozen=True)
class Femur:
    """One femur as projected. `place` maps its own frame (lateral, down, from the neck's foot) to the patient's."""

    leg: Leg
    side: int
    size: float
    head_mm: Points

    @property
    def head_offset(self) -> tuple[float, float]:
        """Head centre in the femur's own frame. Rotation foreshortens the neck but not its height."""
        angle, rotation = math.radians(self.leg.neck_shaft), math.radians(self.leg.rotation)
        return -self.leg.neck * math.sin(angle) * math.cos(rotation), self.leg.neck * math.cos(angle)

    def place(self, local: npt.ArrayLike) -> Points:
        points = np.asarray(local, np.float64).reshape(-1, 2) - np.asarray(self.head_offset)
        turn = math.radians(self.leg.adduction)
        lateral = points[:, 0] * math.cos(turn) - points[:, 1] * math.sin(turn)
        down = points[:, 0] * math.sin(turn) + points[:, 1] * math.cos(turn)
        return np.asarray(self.head_mm + self.size * np.stack([self.side * lateral, down], axis=1), np.float64)

    def outline(self) -> Points:
        """The whole bone, down to well below any picture."""
        leg, (hx, hy) = self.leg, self.head_offset
        length = math.hypot(hx, hy)
        axis = np.array([-hx, -hy]) / length
        up = np.array([-axis[1], axis[0]]) * (-1 if axis[0] > 0 else 1)
        w, g = leg.shaft, leg.trochanter
        lesser = 2.0 + 8.0 * max(0.0, math.sin(math.radians(leg.rotation + 8.0)))
        great = [(w + 3.5 * g, 24), (w + 9 * g, 10), (w + 10.5 * g, -4), (w + 6 * g, -19 * g), (w - 3, -28 * g)]
        inner = [(w - 9.5, -24 * g), (w - 13, -14)]
        shaft_out = [(w + 1.5, 320), (w + 1, 220), (w, 140), (w, 90), (w + 0.5, 60), (w + 1, 40)]
        shaft_in = [(-w - 1, 62), (-w, 90), (-w, 140), (-w - 1, 220), (-w - 1.5, 320)]
        lesser_bump = [
            (-w - 2.5, 14),
            (-w - 2 - 0.5 * lesser, 20),
            (-w - 1 - lesser, 28),
            (-w - 1.5 - 0.5 * lesser, 40),
        ]
        neck_half = 0.70 * leg.head
        head = np.array([hx, hy])
        # the circle is left where it is about as wide as the neck
        around = np.radians([128, 105, 75, 45, 15, -15, -45, -75, -105, -126])
        ball = [head + leg.head * (-axis * math.cos(a) + up * math.sin(a)) for a in around]
        above = [head + axis * (0.62 * length) + up * neck_half]
        below = [head + axis * (0.62 * length) - up * (neck_half + 1.5)]
        points = [*shaft_out, *great, *inner, *above, *ball, *below, *lesser_bump, *shaft_in]
        return spline(self.place(np.array(points, np.float64)), closed=True)

    def cut_y(self) -> float:
        """Patient y of the line where the annotated femur ends; level in the picture, as in the reference masks."""
        return float(self.place((0.0, 28.0 + self.leg.cut))[0, 1])

    def proximal(self) -> Points:
        """Outline points above the cut."""
        outline = self.outline()
        return outline[outline[:, 1] <= self.cut_y()]

    def trabeculae(self) -> list[Stroke]:
        """Principal compressive and tensile groups and the intertrochanteric line."""
        (hx, hy), w, r = self.head_offset, self.leg.shaft, self.leg.head
        compressive: list[list[tuple[float, float]]] = [
            [(-w + 3, 34), (-w + 4 + 2 * k, 12), (hx * 0.6, hy * 0.4), (hx + r * k, hy - r * 0.85)]
            for k in (-0.5, -0.1, 0.3)
        ]
        tensile: list[list[tuple[float, float]]] = [
            [(w - 4, 40), (w - 3 - k, 8), (hx * 0.3, hy * 0.75 + k), (hx - r * 0.7, hy - 4 + k)] for k in (0.0, 6.0)
        ]
        crest: list[tuple[float, float]] = [(w - 2, -20), (w - 7, -4), (w - 16, 10), (-w + 2, 24)]
        return [Stroke(spline(self.place(line), False), 2.5) for line in (*compressive, *tensile, crest)]


def draw_femurs(right: Femur, left: Femur, plate: Plate, grain: FloatArray, density: float) -> FloatArray:
    """(pixels, pixels): attenuation of both femurs, no unit; `grain` is a field of mean 0."""
    coverage = plate.coverage([right.outline(), left.outline()])
    depth = plate.depth_mm(coverage)
    size, leg = right.size, right.leg  # both legs have the same head, shaft and wall
    middle = (right.head_mm[0] + left.head_mm[0]) / 2
    lesser_y = np.where(plate.x_mm < middle, right.place((0.0, 26.0))[0, 1], left.place((0.0, 26.0))[0, 1])
    # the cortex is thin as paper on the head and thick in the shaft
    in_shaft = smooth_step(as_field(plate.y_mm - lesser_y), -30 * size, 45 * size)
    reach = 1.25 * leg.head * size
    hills = plate.spot(right.head_mm, reach, reach) + plate.spot(left.head_mm, reach, reach)
    in_head = smooth_step(hills, 0.24, 0.66)
    radius = size * (leg.shaft + (leg.head - leg.shaft) * in_head)
    wall = size * (1.2 + (leg.wall - 1.2) * in_shaft)
    cortex, core = shell_mm(depth, radius, wall)
    lines = plate.strokes([*right.trabeculae(), *left.trabeculae()], 1.6)
    # fat in the canal attenuates less than the muscle that it stands in for
    marrow = (1.0 - 1.2 * in_shaft - 0.25 * in_head) * (1.0 + 0.22 * grain + 0.45 * lines)
    hard, spongy = CORTICAL * (1.0 + 0.3 * in_shaft) * cortex, CANCELLOUS * marrow * core
    return as_field(coverage * density * (hard + spongy))
