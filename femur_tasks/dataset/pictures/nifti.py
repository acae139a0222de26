"""2-D NIfTI: axis 0 is x (image left to right), axis 1 is y (top to bottom), so the picture is the transpose.

The array is used as it is stored: no affine turns, mirrors or resamples it. Left and right of a 2-D file's affine are
not to be trusted: converters write arbitrary ones, and the identity, which most of them leave there, would call every
picture of the reference data mirrored.
"""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from femur_tasks.dataset.picture import MAX_FILE_BYTES, Array, Picture
from femur_tasks.dataset.pictures.nifti_header import PAIR_MARKS, SINGLE_MARKS, Plan, header_bytes, mark_of, planned
from femur_tasks.dataset.problems import Faulty

_GZIP = b"\x1f\x8b"
_PAIRS = {"hdr": "img", "img": "hdr", "HDR": "IMG", "IMG": "HDR"}
_AS_GZIP = 31  # 15 bits of window, and 16 for the format
_SLACK = 4096  # writers round a file's length up
_MAX_SIDE_NIFTI1 = 32767


def contents(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        Faulty: unreadable, where it is no readable file; too_large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Faulty("unreadable", "no plain file", "a readable file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as err:
        raise Faulty("unreadable", f"{err.strerror}", "a readable file") from err
    if len(data) > MAX_FILE_BYTES:
        raise Faulty("too_large", f"more than {MAX_FILE_BYTES >> 20} MiB", "a file of one radiograph")
    return data


def read_file(path: Path) -> tuple[bytes, Picture]:
    """A file's bytes and its picture; those of a pair are the bytes of a single file in the same geometry.

    Raises:
        Faulty: as `contents` and `decode`.
    """
    data = contents(path)
    pair = pair_of(path, data)
    if pair is None:
        return data, decode(data)
    picture = decode_pair(*pair)
    return picture.clean or data, picture


def pair_of(path: Path, data: bytes) -> tuple[bytes, bytes] | None:
    """The bytes of header and pixels where a file is one half of a pair, else None.

    Raises:
        Faulty: unreadable, where the pixels are not beside their header.
    """
    is_header = mark_of(_head(data)) in PAIR_MARKS.values()
    name = re.fullmatch(r"(.*\.)(hdr|img)((?:\.gz)?)", path.name, re.IGNORECASE | re.DOTALL)
    if name and name[2] in _PAIRS and (is_header or name[2].lower() == "img"):
        for zipped in (name[3], "" if name[3] else ".gz"):
            other = path.with_name(f"{name[1]}{_PAIRS[name[2]]}{zipped}")
            if other.is_file() and not other.is_symlink():  # which may lead out of the source
                return (data, contents(other)) if is_header else (contents(other), data)
    if is_header:
        raise Faulty("unreadable", "a NIfTI header without its .img beside it", "both files of the pair")
    return None


def decode(data: bytes, labels: bool = False) -> Picture:
    """The picture in the bytes of a `.nii` or `.nii.gz` file.

    Args:
        labels: it is a mask: colours must be class numbers.

    Raises:
        Faulty: unreadable, wrong_shape, too_large; hostile_file, where a gzip unpacks to more than its header says.
    """
    with _whole_gzip():
        stream, has_name = _stream(data)
        plan = planned(_read_head(stream), single=True)
        gap = stream.read(plan.offset - plan.head_bytes)
        body, rest = _body(stream, plan, data)
    total = plan.offset + plan.size_bytes + rest
    # its last four bytes: where they differ, there is more than one gzip or something behind it
    is_one = data[:2] != _GZIP or int.from_bytes(data[-4:], "little") == total
    is_clean = is_one and not (has_name or rest or any(gap) or plan.texts())
    return plan.picture(body, labels, None if is_clean else _packed(plan.scrubbed(), body))


def decode_pair(header: bytes, image: bytes, labels: bool = False) -> Picture:
    """The picture in the bytes of a `.hdr` and a `.img` file; its `clean` is one file.

    Raises:
        Faulty: as `decode`.
    """
    with _whole_gzip():
        plan = planned(_head(header), single=False)
        stream, _ = _stream(image)
        stream.read(plan.offset)
        body, _ = _body(stream, plan, image)
    return plan.picture(body, labels, _packed(plan.scrubbed(), body))


def encode(pixels_hw: Array, spacing_mm: tuple[float, float] | None) -> bytes:
    """Pixels and spacing alone as `.nii.gz`, the same bytes every time; `decode` reads both back.

    Args:
        pixels_hw: uint8, uint16, float32 or another type of NIfTI's.
        spacing_mm: along x and y; NIfTI-1 keeps seven digits of it.
    """
    import nibabel as nib

    large = max(pixels_hw.shape) > _MAX_SIDE_NIFTI1
    header = nib.Nifti2Header() if large else nib.Nifti1Header()
    header.set_data_dtype(pixels_hw.dtype.newbyteorder("="))
    header.set_data_shape(pixels_hw.T.shape)
    if spacing_mm:
        header.set_zooms(spacing_mm)
        header.set_xyzt_units("mm")
    return _packed(header, np.ascontiguousarray(pixels_hw, pixels_hw.dtype.newbyteorder("=")).tobytes())


def like_input(mask_hw: Array, original: bytes) -> bytes:
    """A mask as `.nii.gz` in the geometry of the file that it was predicted from: shape, affine and spacing.

    Args:
        mask_hw: bool or 0/1, of the input's picture size.
        original: bytes of the input file, as `read_file` gave them.
    """
    plan = planned(_head(original), single=True)
    header = plan.scrubbed()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["descrip"] = b"femur mask"
    if plan.colour_axis:
        header.set_data_shape(plan.shape[:2])
    return _packed(header, np.ascontiguousarray(mask_hw, np.uint8).tobytes())


def _stream(data: bytes) -> tuple[io.BufferedIOBase, bool]:
    """The bytes, unpacked as they are read, and whether the gzip header has more than it needs, such as a name."""
    from isal import igzip

    if data[:2] != _GZIP:
        return io.BytesIO(data), False
    return cast(io.BufferedIOBase, igzip.IGzipFile(fileobj=io.BytesIO(data))), data[3:4] != b"\0"


def _head(data: bytes) -> bytes:
    """The header's bytes, as many as there are."""
    with _whole_gzip():
        return _read_head(_stream(data)[0])


def _read_head(stream: io.BufferedIOBase) -> bytes:
    head = stream.read(348)
    return head + stream.read(540 - 348) if header_bytes(head) == 540 else head


def _body(stream: io.BufferedIOBase, plan: Plan, packed: bytes) -> tuple[bytearray, int]:
    """The pixels' bytes, and how many more there are behind them."""
    body, there = bytearray(plan.size_bytes), 0
    with memoryview(body) as room:
        while there < len(body) and (more := stream.readinto(room[there:])):
            there += more
    if there < len(body):
        found = f"a header that promises {len(body)} bytes of pixels, and {there} of them"
        raise Faulty("unreadable", found, "a whole NIfTI file")
    rest = len(stream.read(_SLACK + 1))  # reads the checksum too
    if rest > _SLACK and packed[:2] == _GZIP:
        raise Faulty("hostile_file", "a gzip that expands past its header's size", "the pixels that its header says")
    return body, rest


def _packed(header: Any, body: bytes | bytearray) -> bytes:
    """A single file of a header and pixels in their stored order."""
    from isal import isal_zlib

    size = len(header.binaryblock)
    header["magic"] = SINGLE_MARKS[size]
    header["vox_offset"] = size + 4
    packer = isal_zlib.compressobj(1, wbits=_AS_GZIP)
    return b"".join((packer.compress(header.binaryblock + bytes(4)), packer.compress(body), packer.flush()))


@contextmanager
def _whole_gzip() -> Iterator[None]:
    from isal import isal_zlib

    try:
        yield
    except (OSError, EOFError, isal_zlib.error, ValueError) as err:  # type: ignore[misc]  # its stub is wrong
        raise Faulty("unreadable", "a gzip that breaks off or is damaged", "a whole gzip file") from err
