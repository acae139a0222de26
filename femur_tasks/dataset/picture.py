"""What every reader of picture files gives back; what none of them can read is `Faulty`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_PIXELS = 40_000_000
"""A stitched picture of a whole leg has 36 million."""
MAX_FILE_BYTES = 256 << 20
MAX_DECODED_BYTES = 160 << 20
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Picture:
    """A picture as people look at it.

    Attributes:
        pixels_hw: grey values as the file means them: scaled by its slope, colour as luminance, bone bright where
            the header says that it is stored inverted. Any real dtype.
        spacing_mm: distance of pixels along x and along y; None where the file gives no unit.
        mirrored: the header says that the picture's right is the patient's right.
        patient: who it is by the file's header, in clear; it never leaves the process that read it.
        burned_in: the header says that text is written into the pixels.
        clean: what may be stored instead of the file, where the file holds more than pixels and spacing; None where
            the file itself may.
    """

    pixels_hw: Array
    spacing_mm: tuple[float, float] | None = None
    mirrored: bool = False
    patient: str | None = None
    burned_in: bool = False
    clean: bytes | None = None
