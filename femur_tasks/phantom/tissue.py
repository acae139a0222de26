"""What the beam meets: attenuation per mm, and the path through bars and shells."""

from __future__ import annotations

import numpy as np

from femur_tasks.phantom.geometry import FloatArray

# Attenuation per mm at about 70 kV, on top of what the soft tissue in its place would do
CORTICAL, CANCELLOUS, SOFT = 0.048, 0.0085, 0.0185


def chord_mm(depth_mm: FloatArray, radius_mm: FloatArray | float) -> FloatArray:
    """Path through a round bar, `depth_mm` inside its silhouette: 2 sqrt(r^2 - (r - d)^2), full beyond the axis."""
    radius = np.maximum(np.asarray(radius_mm, np.float32), 0.0)
    off_axis = np.maximum(radius - np.maximum(depth_mm, 0.0), 0.0)
    return np.asarray(2.0 * np.sqrt(np.maximum(radius**2 - off_axis**2, 0.0)), np.float32)


def shell_mm(
    depth_mm: FloatArray, radius_mm: FloatArray | float, wall_mm: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Paths through the wall and through the core of a round hollow bar; the wall's is longest just inside the edge."""
    whole = chord_mm(depth_mm, radius_mm)
    core = chord_mm(depth_mm - np.asarray(wall_mm, np.float32), radius_mm - np.asarray(wall_mm, np.float32))
    return whole - core, core


def bar(offset: FloatArray, half_width: FloatArray | float, power: float = 0.5) -> FloatArray:
    """Relative thickness of a rounded cross-section at an offset from its middle: 1 in the middle, 0 beyond."""
    return np.asarray(np.maximum(1.0 - (offset / half_width) ** 2, 0.0) ** power, np.float32)
