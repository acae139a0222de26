"""The plate: outlines and lines in mm become coverage, depth and blurred fields in pixels.

Everything is stated in mm, so the same anatomy comes out at any picture size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from femur_tasks.phantom.geometry import FloatArray, Points, as_field

_SUPERSAMPLE = 3  # sub-pixels a side when an outline is filled: edges good to about 1/9 of a pixel


class Stroke(NamedTuple):
    """An open line; `weight` 0..1 is what it comes to where it is wider than its blur."""

    points: Points
    width_mm: float
    weight: float = 1.0


@dataclass(frozen=True)
class Plate:
    """The square of the detector that is kept as picture.

    Args:
        pixels: pixels a side of the rendering.
        side_mm: what the picture shows, in mm at the patient.
        corner_mm: patient coordinates of the picture's upper left corner.
    """

    pixels: int
    side_mm: float
    corner_mm: tuple[float, float]

    @property
    def pixel_mm(self) -> float:
        return self.side_mm / self.pixels

    @cached_property
    def x_mm(self) -> FloatArray:
        """(1, pixels): patient x of the pixel centres."""
        return ((np.arange(self.pixels) + 0.5) * self.pixel_mm + self.corner_mm[0]).astype(np.float32)[None, :]

    @cached_property
    def y_mm(self) -> FloatArray:
        """(pixels, 1): patient y of the pixel centres."""
        return ((np.arange(self.pixels) + 0.5) * self.pixel_mm + self.corner_mm[1]).astype(np.float32)[:, None]

    def coverage(self, outlines: Sequence[Points], holes: Sequence[Points] = ()) -> FloatArray:
        """(pixels, pixels) in 0..1: the part of each pixel inside the union of `outlines` and outside of `holes`."""
        canvas = Image.new("L", (self.pixels * _SUPERSAMPLE,) * 2, 0)
        pen = ImageDraw.Draw(canvas)
        for outline in outlines:
            pen.polygon(self._sub_pixels(outline), fill=255)
        for hole in holes:
            pen.polygon(self._sub_pixels(hole), fill=0)
        return unit(canvas.reduce(_SUPERSAMPLE))

    def strokes(self, lines: Sequence[Stroke], blur_mm: float) -> FloatArray:
        """(pixels, pixels) in 0..1: blurred lines. Where lines cross, the later one counts."""
        canvas = Image.new("L", (self.pixels * _SUPERSAMPLE,) * 2, 0)
        pen = ImageDraw.Draw(canvas)
        for line in lines:
            width = max(1, round(line.width_mm / self.pixel_mm * _SUPERSAMPLE))
            pen.line(self._sub_pixels(line.points), fill=round(255 * line.weight), width=width)
        return self.blurred(unit(canvas.reduce(_SUPERSAMPLE)), blur_mm)

    def depth_mm(self, coverage: FloatArray) -> FloatArray:
        """(pixels, pixels): distance to the outline inside of it, 0 outside."""
        inside = coverage >= 0.5
        depth = np.zeros(coverage.shape, np.float32)
        window = _window(inside)
        if window is not None:
            distance_px = ndimage.distance_transform_edt(np.pad(inside[window], 1, mode="edge"))[1:-1, 1:-1]
            # pixel centres: the nearest outside pixel is half a pixel beyond the edge
            depth[window] = np.maximum(distance_px - 0.5, 0.0) * self.pixel_mm
        return depth

    def blurred(self, field: FloatArray, sigma_mm: float) -> FloatArray:
        """Gaussian blur; above 8 pixels it's done on a reduced copy, where nobody sees the difference."""
        sigma_px = sigma_mm / self.pixel_mm
        if sigma_px < 0.2:
            return field
        step = max(1, int(sigma_px // 4))
        if step == 1:
            return np.asarray(ndimage.gaussian_filter(field, sigma_px, mode="nearest", truncate=3.0), np.float32)
        small = Image.fromarray(field).resize((max(1, self.pixels // step),) * 2, Image.Resampling.BOX)
        scale = small.width / self.pixels
        soft = np.asarray(ndimage.gaussian_filter(np.asarray(small), sigma_px * scale, mode="nearest"), np.float32)
        return np.asarray(Image.fromarray(soft).resize((self.pixels,) * 2, Image.Resampling.BICUBIC), np.float32)

    def cloud(self, rng: np.random.Generator, cell_mm: float) -> FloatArray:
        """(pixels, pixels): smooth random field of mean 0 and sd about 0.7, structures of about `cell_mm`.

        The draws depend on the side in mm alone, so that a picture of another size shows the same field.
        """
        cells = max(2, round(self.side_mm / cell_mm))
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        return np.asarray(Image.fromarray(grid).resize((self.pixels,) * 2, Image.Resampling.BICUBIC), np.float32)

    def spot(self, centre: Points, across_mm: float, along_mm: float) -> FloatArray:
        """(pixels, pixels): a Gaussian hill of height 1, exp(-1) at the given distances."""
        across = np.exp(-(((self.x_mm - centre[0]) / across_mm) ** 2))
        return as_field(across * np.exp(-(((self.y_mm - centre[1]) / along_mm) ** 2)))

    def ellipsoid(
        self, centre: tuple[float, float], radii: tuple[float, float], thickness_mm: float, blur_mm: float
    ) -> FloatArray:
        """(pixels, pixels): path through an ellipsoid that is `thickness_mm` thick in its middle, radii in mm."""
        inside = 1.0 - ((self.x_mm - centre[0]) / radii[0]) ** 2 - ((self.y_mm - centre[1]) / radii[1]) ** 2
        return self.blurred(thickness_mm * np.sqrt(np.maximum(inside, 0.0)).astype(np.float32), blur_mm)

    def _sub_pixels(self, points: Points) -> list[tuple[float, float]]:
        # PIL puts a coordinate at the centre of its sub-pixel
        scaled = (points - np.asarray(self.corner_mm)) / self.pixel_mm * _SUPERSAMPLE - 0.5
        return [(float(x), float(y)) for x, y in scaled]


def unit(canvas: Image.Image) -> FloatArray:
    """An 8-bit canvas as 0..1."""
    return np.asarray(canvas, np.float32) / np.float32(255.0)


def _window(inside: npt.NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold every true pixel and one more round them; None when there is none."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return None
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)
