"""The collimator: blades that cover the picture's borders."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from femur_tasks.phantom.geometry import FloatArray


def random_blades(femur_hw: npt.NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Collimator: left, top, right, bottom insets as fractions; never over a femur."""
    size = femur_hw.shape[0]
    rows, columns = np.flatnonzero(femur_hw.any(axis=1)), np.flatnonzero(femur_hw.any(axis=0))
    free = np.array([columns[0], rows[0], size - 1 - columns[-1], size - 1 - rows[-1]]) / size
    most = np.clip(free - 0.008, 0.0, (0.05, 0.07, 0.05, 0.07))
    drawn = rng.uniform(0.0, 1.0, 4) * most * (rng.random(4) < 0.55)
    left, top, right, bottom = (float(inset) for inset in (drawn if rng.random() < 0.4 else np.zeros(4)))
    return left, top, right, bottom


def collimate(image: FloatArray, inset: tuple[float, float, float, float], grey: float) -> FloatArray:
    """Cover the picture outside of the collimator's blades.

    Args:
        inset: left, top, right, bottom as fractions of the side; 0 is no blade.
        grey: of the covered border: near 0, or near 255 where the border was left white.
    """
    size = image.shape[0]
    centre = (np.arange(size) + 0.5) / size

    def open_part(near: float, far: float) -> FloatArray:
        # 0.002: the penumbra of a blade; a side without one stays open to its edge
        low = np.clip((centre - near) / 0.002, 0, 1) if near > 0 else np.ones(size)
        high = np.clip((1 - far - centre) / 0.002, 0, 1) if far > 0 else np.ones(size)
        return np.asarray(low * high, np.float32)

    across, along = open_part(inset[0], inset[2]), open_part(inset[1], inset[3])
    field = along[:, None] * across[None, :]
    return np.asarray(image * field + grey * (1.0 - field), np.float32)
