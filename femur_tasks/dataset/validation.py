"""Reading one case: decoded, checked and converted, or the list of everything that is wrong with it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from femur_tasks.dataset.layouts import CaseFiles
from femur_tasks.dataset.nifti import Array, Picture, Unreadable, read_file
from femur_tasks.dataset.problems import Problem
from femur_tasks.dataset.resize import shrink_image, shrink_mask


@dataclass(frozen=True)
class ConvertedCase:
    """A case at the training size, with what is kept of the original.

    Attributes:
        image_hw: uint8 (size, size).
        mask_hw: uint8 0/1 (size, size).
        full_mask_png: the mask at the original size, one bit a pixel: hundreds of them are held at once.
        image_sha256: digest of the decoded picture, the same however the file was packed.
        spacing_mm: along x and y, None where unknown.
    """

    files: CaseFiles
    image_hw: Array
    mask_hw: Array
    full_mask_png: bytes
    height_px: int
    width_px: int
    image_sha256: str
    mask_sha256: str
    spacing_mm: tuple[float, float] | None

    @property
    def case_id(self) -> str:
        """The name of its files."""
        return self.files.case_id


def read_case(files: CaseFiles, size: int, femur_label: int) -> ConvertedCase | list[Problem]:
    """Read, check and convert one case.

    Args:
        files: where its image and mask lie.
        size: edge of the square training picture, px.
        femur_label: the class of the femur in the multi-class mask.

    Returns:
        The converted case, or all problems that it has.
    """
    problems: list[Problem] = []
    read: list[Picture] = []
    for what, path in (("image", files.image), ("mask", files.mask)):
        try:
            read.append(read_file(path)[1])
        except Unreadable as err:
            problems.append(Problem(err.code, files.case_id, f"{what}: {err.found}", err.expected))
    if problems:
        return problems
    image, mask = read
    grey, labels = image.pixels_hw, mask.pixels_hw
    problems.extend(problems_of_image(files.case_id, grey))
    problems.extend(_of_mask(files.case_id, labels, femur_label))
    if grey.shape != labels.shape:
        found = f"image {grey.shape[1]} x {grey.shape[0]}, mask {labels.shape[1]} x {labels.shape[0]} px"
        problems.append(Problem("size_mismatch", files.case_id, found, "a mask of the image's size"))
    if problems:
        return problems
    grey = as_uint8(grey)
    femur = np.ascontiguousarray(labels == femur_label)
    return ConvertedCase(
        files=files,
        image_hw=shrink_image(grey, size),
        mask_hw=shrink_mask(femur, size),
        full_mask_png=_png(femur),
        height_px=femur.shape[0],
        width_px=femur.shape[1],
        image_sha256=_digest(grey),
        mask_sha256=_digest(femur.astype(np.uint8)),
        spacing_mm=_rounded(image.spacing_mm),
    )


def as_uint8(grey: Array) -> Array:
    """Grey values 0 to 255 as uint8; on bytes NumPy would round in half precision, which takes six times as long."""
    return np.ascontiguousarray(grey if grey.dtype == np.uint8 else np.rint(grey).astype(np.uint8))


def _is_whole(values: Array) -> bool:
    return values.dtype.kind in "ui" or bool(np.isfinite(values).all() and np.array_equal(values, np.rint(values)))


def problems_of_image(case_id: str, grey: Array) -> list[Problem]:
    """What keeps a decoded picture (H, W) from being used; grey values are 0 to 255."""
    if grey.dtype.kind not in "ui" and not np.isfinite(grey).all():
        return [Problem("not_finite", case_id, f"{int((~np.isfinite(grey)).sum())} NaN or Inf pixels", "finite values")]
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return [Problem("constant_image", case_id, f"every pixel is {low:g}", "a radiograph")]
    if low < 0 or high > 255 or high <= 1:
        return [Problem("intensity_range", case_id, f"values {low:g} to {high:g}", "grey values 0 to 255")]
    return []


def _of_mask(case_id: str, labels: Array, femur_label: int) -> list[Problem]:
    if not _is_whole(labels):
        return [Problem("mask_values", case_id, "values that are no whole numbers", "one class number a pixel")]
    if not (labels == femur_label).any():
        there = ", ".join(f"{int(value)}" for value in np.unique(labels)[:12])
        return [Problem("empty_mask", case_id, f"classes {there}", f"femur as class {femur_label} (--femur-label)")]
    return []


def _png(mask_hw: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask_hw).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


def _digest(pixels: Array) -> str:
    """Of size and grey values alone: the same radiograph exported with another spacing is the same picture."""
    found = hashlib.sha256(f"{pixels.shape}\n".encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()


def _rounded(spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    return (round(spacing_mm[0], 6), round(spacing_mm[1], 6)) if spacing_mm else None
