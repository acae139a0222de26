"""2-D NIfTI: axis 0 is x (image left to right), axis 1 is y (top to bottom), so the picture is the transpose."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from femur_tasks.errors import FemurError

MAX_BYTES = 1 << 30
_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the header's code: metre, millimetre, micrometre
_UNIT_BITS = 0b111
Array = np.ndarray[Any, np.dtype[Any]]


class Unreadable(FemurError):
    """A file that is no 2-D NIfTI picture; `code` says what kind of problem it is."""

    def __init__(self, code: str, found: str, expected: str) -> None:
        super().__init__(f"Expected {expected}. Received: {found}.")
        self.code, self.found, self.expected = code, found, expected


@dataclass(frozen=True)
class Picture:
    """A picture as people look at it.

    Attributes:
        pixels_hw: values as stored, scaled by the header's slope where it has one.
        spacing_mm: distance of pixels along x and along y; None where the header gives no unit.
    """

    pixels_hw: Array
    spacing_mm: tuple[float, float] | None


def read_picture(data: bytes) -> Picture:
    """Decode the bytes of a `.nii` or `.nii.gz` file.

    Raises:
        Unreadable: broken or oversized bytes, or a picture that is not two-dimensional.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    raw = _unzipped(data)
    try:
        header = nib.Nifti1Header.from_fileobj(io.BytesIO(raw))
        shape = header.get_data_shape()
        if math.prod(int(n) for n in shape) * header.get_data_dtype().itemsize > len(raw):
            raise Unreadable("unreadable", f"a header that promises {shape} in {len(raw)} bytes", "a whole NIfTI file")
        image = nib.Nifti1Image.from_bytes(raw)
        pixels = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, OSError, EOFError, TypeError) as err:
        raise Unreadable("unreadable", f"{err}" or type(err).__name__, "a NIfTI-1 file") from err
    shape = tuple(n for n in pixels.shape[2:] if n != 1)
    if pixels.ndim < 2 or shape or pixels.dtype.names or np.iscomplexobj(pixels) or 0 in pixels.shape:
        raise Unreadable("wrong_shape", f"{pixels.shape} of {pixels.dtype}", "one grey 2-D picture (x, y)")
    factor = _MM.get(int(header["xyzt_units"]) & _UNIT_BITS)
    zooms = [float(zoom) for zoom in header.get_zooms()[:2]]
    known = factor is not None and all(math.isfinite(zoom) and zoom > 0 for zoom in zooms)
    spacing = (zooms[0] * factor, zooms[1] * factor) if known and factor else None
    return Picture(pixels.reshape(pixels.shape[:2]).T, spacing)


def _unzipped(data: bytes) -> bytes:
    from isal import igzip, isal_zlib

    try:
        with igzip.IGzipFile(fileobj=io.BytesIO(data)) if data[:2] == b"\x1f\x8b" else io.BytesIO(data) as file:
            raw = bytes(file.read(MAX_BYTES + 1))
    except (OSError, EOFError, isal_zlib.error, ValueError) as err:  # type: ignore[misc]  # its stub is wrong
        raise Unreadable("unreadable", f"{err}", "a whole gzip file") from err
    if len(raw) > MAX_BYTES:
        raise Unreadable("unreadable", f"more than {MAX_BYTES >> 20} MiB unpacked", "a radiograph")
    return raw


def like_input(mask_hw: Array, original: bytes) -> bytes:
    """A mask as `.nii.gz` in the geometry of the file that it was predicted from: shape, affine and spacing.

    Args:
        mask_hw: bool or 0/1, of the input's picture size.
        original: bytes of the input file.
    """
    import gzip

    import nibabel as nib

    image = nib.Nifti1Image.from_bytes(_unzipped(original))
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["descrip"] = b"femur mask"
    pixels = mask_hw.T.astype(np.uint8).reshape(image.shape)
    return gzip.compress(nib.Nifti1Image(pixels, image.affine, header).to_bytes(), mtime=0)


def read_file(path: Path) -> tuple[bytes, Picture]:
    """A file's bytes and its picture; raises `Unreadable` also where the file can't be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise Unreadable("unreadable", f"{err.strerror}", "a readable file") from err
    return data, read_picture(data)
