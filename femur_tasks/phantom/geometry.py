"""Curves and fields: what the anatomy is drawn with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]  # (n, 2): x to the picture's right, y down, in mm

SIDES = (-1, 1)  # the patient's right, on the picture's left, first


def spline(points: Points, closed: bool, per_span: int = 10) -> Points:
    """A smooth curve through (n, 2) points: cubic Hermite spans, parametrised by the root of the chord.

    The root makes it centripetal: no loops or overshoot where points stand close (Yuksel et al. 2011, doi
    10.1016/j.cad.2010.08.008). A closed curve ends where it began.
    """
    # one point more at either end: the neighbours of a closed curve, the mirror image at the ends of an open one
    before = points[-1:] if closed else 2 * points[:1] - points[1:2]
    after = points[:2] if closed else 2 * points[-1:] - points[-2:-1]
    knots = np.vstack([before, points, after])
    step = np.sqrt(np.linalg.norm(np.diff(knots, axis=0), axis=1))[:, None]
    slope = np.diff(knots, axis=0) / step
    tangent = (slope[:-1] * step[1:] + slope[1:] * step[:-1]) / (step[1:] + step[:-1])
    start, end, length = knots[1:-2, None], knots[2:-1, None], step[1:-1, None]
    t = (np.arange(per_span) / per_span)[None, :, None]
    curve = (
        (1 + 2 * t) * (1 - t) ** 2 * start
        + t * (1 - t) ** 2 * length * tangent[:-1, None]
        + t**2 * (3 - 2 * t) * end
        + t**2 * (t - 1) * length * tangent[1:, None]
    )
    return np.asarray(np.vstack([curve.reshape(-1, 2), knots[-2:-1]]), np.float64)


def as_field(values: npt.ArrayLike) -> FloatArray:
    return np.asarray(values, np.float32)


def smooth_step(value: FloatArray, edge0: float, edge1: float) -> FloatArray:
    """Smooth step from 0 at edge0 to 1 at edge1."""
    t = np.clip((value - edge0) / (edge1 - edge0), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)
