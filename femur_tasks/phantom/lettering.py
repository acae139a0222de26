"""Letters burnt into the picture: the side marker, and the word that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from femur_tasks.phantom.geometry import FloatArray
from femur_tasks.phantom.plate import unit

_OVERLAY_PX = 512  # lettering is drawn at this size at least, else "R" falls apart in small pictures


@dataclass(frozen=True)
class Lettering:
    """Text burnt into the picture; `left`, `top` and `height` are fractions of the picture's side."""

    text: str
    left: float
    top: float
    height: float
    grey: float


def random_marker(femur_hw: npt.NDArray[np.bool_], rng: np.random.Generator) -> Lettering:
    """The R: on the patient's right, where it covers least of the femur."""
    size, height, grey = femur_hw.shape[0], float(rng.uniform(0.042, 0.062)), float(rng.uniform(205, 250))
    places = [(float(rng.uniform(0.012, 0.05)), float(rng.uniform(0.3, 0.9))) for _ in range(12)]

    def covered(place: tuple[float, float]) -> int:
        left, top = place
        rows = slice(int((top - 0.01) * size), int((top + height + 0.01) * size) + 1)
        return int(femur_hw[rows, int((left - 0.01) * size) : int((left + height) * size) + 1].sum())

    left, top = min(places, key=covered)
    return Lettering("R", left, top, height, grey)


def burn_in(image: FloatArray, letterings: Sequence[Lettering]) -> FloatArray:
    """Letterings over the picture, upright and never mirrored."""
    size = image.shape[0]
    side = max(size, _OVERLAY_PX)
    for lettering in letterings:
        font = ImageFont.load_default(size=max(6.0, lettering.height * side * 1.35))
        position = (lettering.left * side, lettering.top * side)
        bold = round(lettering.height * side * 0.04)
        # a dark rim first: legible on a white border too
        for grey, stroke in ((0.0, bold + 1), (lettering.grey, bold)):
            overlay = Image.new("L", (side, side), 0)
            ImageDraw.Draw(overlay).text(
                position, lettering.text, fill=255, font=font, anchor="lt", stroke_width=stroke
            )
            ink = unit(overlay if side == size else overlay.resize((size, size), Image.Resampling.BOX))
            image = image * (1.0 - ink) + grey * ink
    return image
