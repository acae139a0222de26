"""Segment: one picture's bytes to its mask in its own geometry, an overlay and what was found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from femur_tasks.dataset.checks import problems_of_pixels
from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.picture import Array, Picture
from femur_tasks.dataset.pictures import decode, nifti
from femur_tasks.dataset.pictures.dicom import is_dicom
from femur_tasks.dataset.pictures.raster import is_raster
from femur_tasks.dataset.problems import Faulty
from femur_tasks.dataset.resize import enlarge_probability, shrink_image, thumbnails
from femur_tasks.errors import FemurError
from femur_tasks.evaluation.overlays import overlay, png_bytes
from femur_tasks.evaluation.strays import THRESHOLD, without_strays
from femur_tasks.serving.champion import Served
from femur_tasks.serving.findings import NO_FEMUR, Findings, find

_WHITE = np.uint8(255)


@dataclass(frozen=True)
class Source:
    """A picture that was read; `geometry` is the NIfTI file whose header its mask takes, None for other formats."""

    picture: Picture
    geometry: bytes | None


@dataclass(frozen=True)
class Segmented:
    """A picture and what the champion says of it.

    Attributes:
        grey_hw, mask_hw: uint8 and bool, of the picture's size.
        spacing_mm: distance of pixels along x and y, None where the file gives none.
        intensity_mean, intensity_sd: of a small copy, as a dataset version keeps them of its cases.
        mask_file, suffix: the mask as a file, and how its name ends.
        ms: from the read picture to here, the overlay left out.
    """

    grey_hw: Array
    mask_hw: Array
    spacing_mm: tuple[float, float] | None
    intensity_mean: float
    intensity_sd: float
    mask_file: bytes
    suffix: str
    findings: Findings
    ms: float

    def overlay_file(self) -> bytes:
        """The mask drawn on the picture, PNG."""
        return png_bytes(overlay(self.grey_hw, self.mask_hw))


class Refused(FemurError):
    """A picture that gets no mask: `code` says why, one of `dataset.problems.CODES` or `no_femur`."""

    exit_code = 2

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code


def read_path(path: Path) -> Source:
    """The picture in a file, or in the two files of a NIfTI pair.

    Raises:
        Refused: it can't be read.
    """
    try:
        data = nifti.contents(path)
        if nifti.pair_of(path, data) is None:
            return read_bytes(data)
        whole, picture = nifti.read_file(path)
    except Faulty as err:
        raise Refused(err.code, err.what) from err
    return Source(picture, whole)


def read_bytes(data: bytes) -> Source:
    """The picture in the bytes of a single file.

    Raises:
        Refused: it can't be read.
    """
    try:
        picture = decode(data)
    except Faulty as err:
        raise Refused(err.code, err.what) from err
    return Source(picture, None if is_raster(data) or is_dicom(data) else data)


def segment(served: Served, source: Source) -> Segmented:
    """The champion's mask of a picture, and what was found.

    Raises:
        Refused: its pixels can't be a radiograph's, or no pixel of it is femur.
    """
    started = time.perf_counter()
    picture = source.picture
    if problems := problems_of_pixels("", picture.pixels_hw):
        raise Refused(problems[0].code, problems[0].found)
    grey, _ = to_grey(picture.pixels_hw)
    small = shrink_image(grey, served.size)
    probability = served.probability(small)
    mask = enlarge_probability(without_strays(probability), *grey.shape) > THRESHOLD
    if not mask.any():
        raise Refused(NO_FEMUR, "Expected an AP pelvis. Received: a picture in which the model sees no femur.")
    thumbnail, small_mask = thumbnails(grey, mask)
    found = find(
        mask,
        (thumbnail, small_mask),
        (small, probability > THRESHOLD),
        served.likeness,
        picture.spacing_mm,
        picture.mirrored,
    )
    if source.geometry is not None:
        mask_file, suffix = nifti.like_input(mask, source.geometry), "_mask.nii.gz"
    else:
        mask_file, suffix = png_bytes(Image.fromarray(mask * _WHITE)), "_mask.png"
    return Segmented(
        grey_hw=grey,
        mask_hw=mask,
        spacing_mm=picture.spacing_mm,
        intensity_mean=float(thumbnail.mean()),
        intensity_sd=float(thumbnail.std()),
        mask_file=mask_file,
        suffix=suffix,
        findings=found,
        ms=1000 * (time.perf_counter() - started),
    )
