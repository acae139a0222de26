"""One synthetic case: image, labels and spacing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from femur_tasks.errors import FemurError
from femur_tasks.phantom.collimator import collimate, random_blades
from femur_tasks.phantom.exposure import expose, random_exposure, to_uint8
from femur_tasks.phantom.labels import femur_mask, label_map
from femur_tasks.phantom.lettering import Lettering, burn_in, random_marker
from femur_tasks.phantom.scene import attenuation, random_scene

_SPLIT_OF_INDEX = ("train", "train", "train", "valid", "test")
_RENDER_PIXELS = 256  # smaller pictures are rendered at a multiple and binned: a cortex is thinner than their pixels


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic case. `image_hw` 0..255 and `labels_hw` (values of LABELS) are (H, W); spacing is (row, column)."""

    case_id: str
    split: str
    image_hw: npt.NDArray[np.uint8]
    labels_hw: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float]


def make_case(index: int, seed: int, size: int = 512) -> PhantomCase:
    """One case, a function of its arguments alone: the same in a dataset of any length.

    Args:
        index: 0 or more; its remainder by 5 decides the split (three train, one valid, one test).
        seed: 0 or more; another seed is another population.
        size: pixels a side, 32 or more. The anatomy, position and exposure don't depend on it; the noise does.

    Raises:
        FemurError: an argument is out of range.
    """
    if index < 0 or seed < 0 or size < 32:
        raise FemurError(
            f"Expected index >= 0, seed >= 0 and size >= 32. Received: index={index}, seed={seed}, size={size}.",
            "Choose other values.",
        )
    # streams apart, so that a draw more in one leaves the others as they are
    streams = np.random.SeedSequence([seed, index]).spawn(4)
    anatomy, texture, technique, noise = (np.random.default_rng(stream) for stream in streams)

    scene = random_scene(anatomy)
    plate = scene.plate(size * max(1, math.ceil(_RENDER_PIXELS / size)))
    grey = expose(attenuation(scene, plate, texture), plate, random_exposure(technique), size, noise)
    # positions of what lies over the picture are decided on a fixed grid, else they'd depend on the size
    coarse = femur_mask(scene, scene.plate(_RENDER_PIXELS))
    blades, border = random_blades(coarse, technique), float(technique.choice([4.0, 4.0, 4.0, 235.0]))
    marks = [random_marker(coarse, technique), Lettering("SYNTHETIC", 0.855, 0.012, 0.017, 215.0)]
    image = burn_in(collimate(grey, blades, border), marks)
    pixel_mm = scene.side_mm / size
    return PhantomCase(
        case_id=f"SYN_{index:04d}",
        split=_SPLIT_OF_INDEX[index % len(_SPLIT_OF_INDEX)],
        image_hw=to_uint8(image),
        labels_hw=label_map(scene, scene.plate(size)),
        spacing_mm=(pixel_mm, pixel_mm),
    )
