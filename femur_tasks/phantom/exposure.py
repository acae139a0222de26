"""The exposure: from a line integral of attenuation to grey values.

Scatter, quantum noise, detector blur, logarithm, latitude compression, tone curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from femur_tasks.phantom.geometry import FloatArray
from femur_tasks.phantom.plate import Plate

_AIR_GREY = 6.0


@dataclass(frozen=True)
class Exposure:
    """How the line integral becomes grey values.

    Args:
        photons_per_mm2: quanta in the open beam; fewer means a noisier picture.
        scatter: scattered over primary radiation behind the patient, 0..1 after the grid.
        scatter_mm: reach of the scatter.
        blur_mm: sigma of focal spot and detector together.
        latitude: share of the broad contrast that is kept, 0..1.
        midgrey: grey value (0..255) of the body's median attenuation.
        contrast: grey values per unit of attenuation at mid grey.
        heel: change of intensity from the picture's top to its bottom (anode heel), as a fraction.
    """

    photons_per_mm2: float
    scatter: float
    scatter_mm: float
    blur_mm: float
    latitude: float
    midgrey: float
    contrast: float
    heel: float


def random_exposure(rng: np.random.Generator) -> Exposure:
    """What rooms, tubes and detectors do differently."""
    return Exposure(
        photons_per_mm2=float(np.exp(rng.uniform(math.log(10000), math.log(50000)))),
        scatter=float(rng.uniform(0.1, 0.6)),
        scatter_mm=float(rng.uniform(18, 45)),
        blur_mm=float(rng.uniform(0.25, 0.65)),
        latitude=float(rng.uniform(0.25, 0.6)),
        midgrey=float(rng.uniform(70, 135)),
        contrast=float(rng.uniform(120, 200)),
        heel=float(rng.uniform(-0.25, 0.25)),
    )


def expose(
    attenuation: FloatArray, plate: Plate, exposure: Exposure, size: int, rng: np.random.Generator
) -> FloatArray:
    """Grey values in 0..255, (size, size), of a line integral (>= 0, no unit) drawn on `plate`.

    `plate.pixels` must be a multiple of `size`: the detector adds up what falls on one pixel.
    """
    primary = np.exp(-attenuation)
    behind_patient = plate.blurred(np.minimum(primary, 0.3), exposure.scatter_mm)
    down = np.linspace(-0.5, 0.5, plate.pixels, dtype=np.float32)[:, None]
    intensity = (primary + exposure.scatter * behind_patient) * (1.0 + exposure.heel * down)
    intensity = _binned(plate.blurred(intensity, exposure.blur_mm), size)

    detector = Plate(size, plate.side_mm, plate.corner_mm)
    quanta = intensity * exposure.photons_per_mm2 * detector.pixel_mm**2
    # counts are high: Poisson noise is Gaussian here
    quanta = quanta + np.sqrt(quanta) * rng.standard_normal(quanta.shape, dtype=np.float32)
    # part of a quantum's light reaches the neighbouring pixels
    quanta = detector.blurred(quanta.astype(np.float32), 0.45 * detector.pixel_mm)
    signal = -np.log(np.maximum(quanta, 1.0) / (exposure.photons_per_mm2 * detector.pixel_mm**2))

    broad = detector.blurred(signal.astype(np.float32), 14.0)
    flattened = signal - (1.0 - exposure.latitude) * broad
    body = signal > 1.0
    centre = float(np.median(flattened[body])) if body.any() else 0.0
    return _tone(flattened - centre, exposure) * _film_base(signal)


def _tone(difference: FloatArray, exposure: Exposure) -> FloatArray:
    """S-shaped characteristic curve through `midgrey` with slope `contrast`, between black and white."""
    white = 250.0
    level = exposure.midgrey / white
    slope = exposure.contrast / (white * level * (1.0 - level))
    return np.asarray(white / (1.0 + (1.0 / level - 1.0) * np.exp(-slope * difference)), np.float32)


def _film_base(signal: FloatArray) -> FloatArray:
    """0..1: unattenuated beam saturates the detector, so that air is black whatever the latitude."""
    return np.asarray(1.0 / (1.0 + np.exp(-(signal - 0.55) / 0.16)), np.float32)


def to_uint8(image: FloatArray) -> npt.NDArray[np.uint8]:
    """Rounded and clipped to 0..255, with the detector's black level below."""
    return np.clip(np.rint(np.maximum(image, _AIR_GREY)), 0, 255).astype(np.uint8)


def _binned(field: FloatArray, size: int) -> FloatArray:
    block = field.shape[0] // size
    if block == 1:
        return field
    return np.asarray(field.reshape(size, block, size, block).mean(axis=(1, 3)), np.float32)
