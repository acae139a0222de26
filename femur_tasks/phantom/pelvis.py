"""The pelvis: a table of landmarks, turned in three dimensions and projected along the beam.

Landmarks are in atlas mm, for one half of the body: lateral from the midline, down from the upper edge of the
symphysis, forward towards the tube.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from femur_tasks.phantom.geometry import SIDES, FloatArray, Points, as_field, spline
from femur_tasks.phantom.plate import Plate, Stroke
from femur_tasks.phantom.subject import Subject
from femur_tasks.phantom.tissue import CANCELLOUS, CORTICAL, chord_mm, shell_mm

CREST = ((53, -153, -58), (76, -164, -34), (101, -166, -8), (124, -157, 12), (139, -138, 26), (141, -117, 33))
HIP_BONE = (
    *((50, -98, -58), (42, -118, -70), (39, -138, -72)),
    *CREST,
    *((134, -102, 36), (121, -84, 30), (112, -67, 27), (108, -52, 14), (105, -44, 4)),  # spines, roof of the socket
    *((104, -32, -12), (99, -16, -22), (90, -3, -27), (80, 6, -30)),  # posterior wall
    *((75, 18, -32), (72, 32, -36), (66, 46, -38), (56, 53, -36), (46, 53, -28)),  # ischial tuberosity
    *((32, 50, -8), (18, 43, 15), (7, 37, 32), (2.5, 28, 38), (2.2, 14, 43), (2.5, 1, 46)),  # symphysis
    *((8, -4, 48), (17, -6, 47), (26, -6, 44), (37, -13, 34), (48, -24, 20)),  # superior ramus
    *((57, -40, 4), (62, -58, -12), (61, -73, -26), (55, -85, -42)),  # brim
)
FORAMEN = (
    *((25, 12, 32), (31, 3, 27), (40, -2, 17), (49, -1, 7), (56, 5, -8), (58, 16, -22)),
    *((54, 30, -28), (46, 38, -22), (36, 37, -5), (28, 29, 16)),
)
_BRIM = ((49, -96, -55), (56, -85, -42), (60.5, -73, -26), (60.5, -58, -12), (55.5, -40, 4), (47, -25, 20))
_BRIM_TO_TUBERCLE = (*_BRIM, (36, -13, 34), (24, -6, 44))
_ILIOISCHIAL = ((61, -66, -20), (58, -46, -24), (56, -26, -26), (57, -6, -28), (61, 14, -32), (63, 30, -36))
_ANTERIOR_WALL = ((104, -43, 6), (97, -27, 14), (84, -14, 16), (68, -9, 16), (54, -12, 20))
TEARDROP = ((61, -32, 0), (59, -22, 0), (57.5, -12, 0), (55, -8, 0), (53, -12, 0), (53, -22, 0), (54.5, -33, 0))
PUBIC_BODY = ((0, -9, 45), (25, -9, 45), (25, 44, 30), (0, 44, 30))
_HEAD_CENTRE = (88, -22, 0)


@dataclass(frozen=True)
class Pelvis:
    """Projects atlas landmarks to patient coordinates (x to the picture's right, y down, mm)."""

    subject: Subject

    def project(self, landmarks: npt.ArrayLike, side: int = 1) -> Points:
        """(n, 2) mm of (n, 3) landmarks on one side: -1 is the patient's right."""
        s = self.subject
        lateral, down, forward = np.asarray(landmarks, np.float64).reshape(-1, 3).T
        # a wider birth canal leaves the crests and the sockets where they are
        widened = lateral * (1.0 + (s.inlet - 1.0) * np.exp(-(((lateral - 55.0) / 30.0) ** 2)))
        x, y, z = side * widened * s.width, down * s.height, forward
        tilt, turn, lean = (math.radians(angle) for angle in (s.tilt, s.turn, s.lean))
        y = y * math.cos(tilt) - z * math.sin(tilt)
        x = x * math.cos(turn) + z * math.sin(turn)
        rotated = np.stack([x * math.cos(lean) - y * math.sin(lean), x * math.sin(lean) + y * math.cos(lean)], axis=1)
        return np.asarray(rotated * s.size, np.float64)

    def outline(self, landmarks: npt.ArrayLike, side: int = 1) -> Points:
        return spline(self.project(landmarks, side), closed=True)

    def line(self, landmarks: npt.ArrayLike, side: int = 1) -> Points:
        return spline(self.project(landmarks, side), closed=False)

    def both(self, landmarks: npt.ArrayLike) -> Points:
        """The closed outline of a bone that crosses the midline."""
        right, left = self.project(landmarks, -1), self.project(landmarks, 1)
        return spline(np.vstack([left, right[::-1]]), closed=True)

    def head(self, side: int) -> Points:
        return np.asarray(self.project(_HEAD_CENTRE, side)[0], np.float64)

    def arc(self, side: int, radius: float, start: float, end: float) -> Points:
        """Part of a circle round the femoral head; degrees from straight up, lateral positive."""
        angle = np.radians(np.linspace(start, end, 25))
        offset = np.stack([side * np.sin(angle), -np.cos(angle)], axis=1)
        return np.asarray(self.head(side) + radius * self.subject.size * offset, np.float64)


def draw_hip_bones(pelvis: Pelvis, plate: Plate, grain: FloatArray) -> FloatArray:
    """(pixels, pixels): attenuation of both hip bones, no unit; `grain` is a field of mean 0."""
    bone = plate.coverage(
        [pelvis.outline(HIP_BONE, side) for side in SIDES], [pelvis.outline(FORAMEN, side) for side in SIDES]
    )
    depth = plate.depth_mm(bone)
    cortex, _ = shell_mm(depth, 8.0, 1.2)
    # the blade of the ilium is two plates with little between them; the bone round the socket is stout
    stout, joint = np.zeros_like(bone), np.zeros_like(bone)
    for side in SIDES:
        roof = pelvis.head(side) + np.array([-12.0 * side, -14.0])
        stout += plate.spot(roof, 48.0, 64.0)
        joint += plate.spot(pelvis.project((44, -118, -65), side)[0], 26.0, 40.0)
    # hollow where the head sits
    sockets = plate.blurred(plate.coverage([pelvis.arc(side, 24.0, -180, 180) for side in SIDES]), 2.0)
    core = chord_mm(depth, 14.0) * (0.30 + 0.75 * stout) * (1.0 - 0.35 * sockets)
    # the border towards the sacrum is rough and lies oblique to the beam: no edge to see
    plates = (cortex * 0.85 + 2.4) * (1.0 - 0.8 * joint)
    fine = [
        stroke
        for side in SIDES
        for stroke in (
            Stroke(pelvis.line(_ANTERIOR_WALL, side), 1.6, 0.35),
            Stroke(pelvis.arc(side, 27, -105, -42), 2.2, 0.4),
            Stroke(pelvis.line(_ILIOISCHIAL, side), 1.8, 0.5),
            Stroke(pelvis.line(TEARDROP, side), 1.8, 0.5),
            Stroke(pelvis.line(_BRIM_TO_TUBERCLE, side), 2.4, 0.9),
        )
    ]
    crest = plate.strokes([Stroke(pelvis.line(CREST, side), 5.0) for side in SIDES], 1.6)
    sourcil = plate.blurred(plate.coverage([sourcil_outline(pelvis, side) for side in SIDES]), 0.8)
    body = bone * (CORTICAL * plates + CANCELLOUS * core * (1.0 + 0.25 * grain))
    lines = 0.38 * plate.strokes(fine, 0.8) + 0.22 * crest + 0.40 * sourcil
    return as_field(pelvis.subject.density * (body + lines))


def sourcil_outline(pelvis: Pelvis, side: int) -> Points:
    """Closed outline of the dense roof of the socket: a crescent just off the head."""
    outer, inner = pelvis.arc(side, 29.5, -24, 40), pelvis.arc(side, 26.0, 42, -28)
    return np.asarray(np.vstack([outer, inner]), np.float64)
