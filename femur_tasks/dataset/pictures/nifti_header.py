"""A NIfTI header: what it promises of its pixels, and its picture once they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from femur_tasks.dataset.intensity import class_numbers, luminance
from femur_tasks.dataset.picture import MAX_DECODED_BYTES, MAX_PIXELS, Array, Picture
from femur_tasks.dataset.problems import Faulty

_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the header's code: metre, millimetre, micrometre
_UNIT_BITS = 0b111
SINGLE_MARKS = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
PAIR_MARKS = {348: b"ni1\0", 540: b"ni2\0\r\n\x1a\n"}
_NUMBERS = "regular"  # a letter that SPM and FSL set in every file


@dataclass(frozen=True)
class Plan:
    """What a header promises, before a pixel is read.

    Attributes:
        header: nibabel's, every field as the file has it.
        shape: as stored.
        x_axis: where x is; y is behind it.
        colour_axis: the last axis is red, green and blue.
        offset: of the pixels in their file.
    """

    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    x_axis: int
    colour_axis: bool
    offset: int

    @property
    def head_bytes(self) -> int:
        return len(self.header.binaryblock)

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def texts(self) -> list[str]:
        """The fields that hold a text, such as a description."""
        found = self.header.structarr.dtype.fields
        names = [name for name, (kind, *_) in found.items() if kind.kind == "S" and name not in ("magic", _NUMBERS)]
        return [name for name in names if self.header[name].item()]

    def scrubbed(self) -> Any:
        """The header of a single file without texts."""
        header = self.header.copy()
        for name in self.texts():
            header[name] = b""
        return header

    def picture(self, body: bytes | bytearray, labels: bool, clean: bytes | None) -> Picture:
        """The picture of these pixels; `body` is as long as `size_bytes`."""
        width, height = self.shape[self.x_axis : self.x_axis + 2]
        if self.dtype.names or self.colour_axis:
            stored = np.frombuffer(body, np.uint8)
            channels = stored.size // (width * height)
            colour = stored.reshape(height, width, channels) if self.dtype.names else _last(stored, height, width)
            pixels = class_numbers(colour) if labels else luminance(colour)
        else:
            pixels = np.frombuffer(body, self.dtype).reshape(height, width)
            narrow = np.dtype(np.float64) if self.dtype.itemsize > 8 else self.dtype.newbyteorder("=")
            pixels = self._scaled(pixels.astype(narrow, copy=False))
        return Picture(pixels, self._spacing_mm(), clean=clean)

    def _scaled(self, pixels: Array) -> Array:
        slope, inter = (float(self.header[name]) for name in ("scl_slope", "scl_inter"))
        if slope == 0 or not math.isfinite(slope) or (slope, inter) == (1, 0):
            return pixels
        with np.errstate(over="ignore", invalid="ignore"):
            return pixels * np.float64(slope) + np.float64(inter)

    def _spacing_mm(self) -> tuple[float, float] | None:
        factor = _MM.get(int(self.header["xyzt_units"]) & _UNIT_BITS)
        along_x, along_y = (abs(float(zoom)) for zoom in self.header["pixdim"][self.x_axis + 1 : self.x_axis + 3])
        if factor is None or not all(math.isfinite(zoom) and zoom > 0 for zoom in (along_x, along_y)):
            return None
        return along_x * factor, along_y * factor


def _last(stored: Array, height: int, width: int) -> Array:
    return np.moveaxis(stored.reshape(-1, height, width), 0, -1)


def planned(head: bytes, single: bool) -> Plan:
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    marks = SINGLE_MARKS if single else PAIR_MARKS
    if not mark_of(head) or mark_of(head) not in marks.values():
        found = "half of a NIfTI pair" if mark_of(head) else "bytes without the mark of a picture"
        raise Faulty("unreadable", found if head else "no bytes", "a NIfTI, PNG, JPEG, TIFF or DICOM file")
    try:
        kind = nib.Nifti1Header if header_bytes(head) == 348 else nib.Nifti2Header
        header = kind(head, check=False)  # type: ignore[no-untyped-call]
        dtype = header.get_data_dtype()
        if dtype.kind == "V" and not dtype.names:
            raise ValueError("a type of no numbers")
    except (HeaderDataError, WrapStructError, ValueError, KeyError, TypeError) as err:
        raise Faulty("unreadable", "a NIfTI header of an unknown type", "a NIfTI type of pixels") from err
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise Faulty("unreadable", f"a NIfTI header of {axes} axes", "2 axes")
    shape = tuple(int(side) for side in header["dim"][1 : axes + 1])
    x_axis, colour_axis = _plane(shape, dtype)
    pixels, size = math.prod(shape[x_axis : x_axis + 2]), math.prod(shape) * dtype.itemsize
    least = len(head) + 4 if single else 0
    offset = float(header["vox_offset"])
    if pixels > MAX_PIXELS or size > MAX_DECODED_BYTES or offset > MAX_DECODED_BYTES:
        raise Faulty("too_large", f"{shape} of {dtype}", f"at most {MAX_PIXELS:,} pixels")
    if not offset >= least or offset != int(offset):
        raise Faulty("unreadable", f"a NIfTI header with pixels at byte {offset:g}", f"byte {least} or later")
    if not math.isfinite(float(header["scl_inter"])) and math.isfinite(float(header["scl_slope"])):
        raise Faulty("unreadable", "a NIfTI header without a finite intercept", "a slope and an intercept")
    return Plan(header, shape, dtype, x_axis, colour_axis, int(offset))


def _plane(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, bool]:
    """Which axis is x, and whether the last one is colour; axes of one pixel are dropped, the first one too."""
    kept = list(shape)
    while len(kept) > 2 and kept[-1] == 1:
        kept.pop()
    x_axis = int(len(kept) == 3 and kept[0] == 1)
    kept = kept[x_axis:]
    colour_axis = len(kept) == 3 and kept[2] in (3, 4) and dtype == np.uint8
    if (len(kept) != 2 and not colour_axis) or min(shape) < 1 or dtype.kind == "c":
        raise Faulty("wrong_shape", f"{shape} of {dtype}", "one 2-D picture (x, y) of grey values or of colours")
    return x_axis, colour_axis


def header_bytes(head: bytes) -> int:
    """How long the header is by its first four bytes, in either order: 348, 540, or 0 where it is none."""
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    return next((size for size in SINGLE_MARKS if size in sizes), 0)


def mark_of(head: bytes) -> bytes:
    """The header's magic bytes; empty, where it is no header of NIfTI."""
    mark = {348: head[344:348], 540: head[4:12]}.get(header_bytes(head), b"")
    return mark if mark in (*SINGLE_MARKS.values(), *PAIR_MARKS.values()) else b""
