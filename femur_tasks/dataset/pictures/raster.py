"""PNG, JPEG and TIFF by Pillow. Their resolution is a printer's, so no spacing is read from it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from femur_tasks.dataset.intensity import class_numbers
from femur_tasks.dataset.picture import MAX_PIXELS, Array, Picture
from femur_tasks.dataset.pictures import nifti
from femur_tasks.dataset.problems import Faulty

_PNG = b"\x89PNG\r\n\x1a\n"
_STARTS = (_PNG, b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS = ("PNG", "JPEG", "TIFF")
_PNG_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"}
_WITHOUT_CONVERSION = ("I;16", "I;16B", "I;16L", "I", "F")
_RAW_STEPS = {"L;2": 85, "L;4": 17}  # Pillow stretches two and four bits to eight
_WHITE_IS_ZERO = 0
_PHOTOMETRIC = 262

_START_OF_SCAN, _END = 0xDA, 0xD9
_ALONE = {0x01, _END, *range(0xD0, 0xD9)}
_MAX_SCANS = 100
# start of frame, tables, restart interval, scan, end: what a decoder needs
_JPEG_PIXELS = {*range(0xC0, 0xD0), 0xDB, 0xDD, _START_OF_SCAN, _END}
_JFIF, _ADOBE = 0xE0, 0xEE
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def is_raster(data: bytes) -> bool:
    """Whether these bytes begin as a PNG, JPEG or TIFF file does."""
    return data.startswith(_STARTS)


def decode(data: bytes, labels: bool = False) -> Picture:
    """The picture in these bytes, turned as its EXIF says. 16 bits stay 16 bits, but those of colours become 8.

    `clean` is a PNG of the pixels, or NIfTI where PNG has no such values; None where the file has pixels alone. A
    TIFF can hold bytes that nothing points to, so it is always written anew.

    Args:
        labels: it is a mask: a palette gives its indices, bits give 0 and 1.

    Raises:
        Faulty: wrong_shape, too_large, hostile_file; mask_values, where a mask is drawn in colours.
        Exception: whatever Pillow raises where the bytes are damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked here, and of damaged EXIF
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                pixels = _pixels(image, data, labels)
                is_clean = image.format in _CLEAN and _CLEAN[image.format](data)
        except Image.DecompressionBombError as err:
            raise _too_large() from err
    return Picture(pixels, clean=None if is_clean else _lossless(pixels))


def _pixels(image: Image.Image, data: bytes, labels: bool) -> Array:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(image.size)
    tags = getattr(image, "tag_v2", None)
    if getattr(image, "n_frames", 1) > 1 if tags is None else tags.next:
        raise Faulty("wrong_shape", "a file of several pictures", "one picture")
    if image.format == "JPEG" and sum(marker == _START_OF_SCAN for marker, _ in segments(data)) > _MAX_SCANS:
        raise Faulty("hostile_file", f"a JPEG of more than {_MAX_SCANS} scans", "at most a dozen")
    step = _RAW_STEPS.get(_raw_mode(image), 1) if labels else 1
    inverted = tags is not None and image.mode == "I;16" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    pixels = _class_numbers(image) // step if labels else _grey(image)
    return 0xFFFF - pixels if inverted else pixels  # Pillow does that for 8 bits only


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else None
    return str(args[0] if isinstance(args, tuple) and args else args)


def _grey(image: Image.Image) -> Array:
    if image.mode in _WITHOUT_CONVERSION:
        return _native(image)
    known = image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
    return np.asarray((image if known else image.convert("RGB")).convert("L"))


def _class_numbers(image: Image.Image) -> Array:
    if image.mode in (*_WITHOUT_CONVERSION, "L", "P"):
        return _native(image)
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[..., 0]
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    return class_numbers(np.asarray(image if image.mode in ("RGB", "RGBA") else image.convert("RGB")))


def _native(image: Image.Image) -> Array:
    pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _too_large(size: tuple[int, int] | None = None) -> Faulty:
    found = f"{size[0]} x {size[1]} px" if size else "a header that promises far more"
    return Faulty("too_large", found, f"at most {MAX_PIXELS:,} pixels")


def _lossless(pixels: Array) -> bytes:
    if pixels.dtype not in (np.uint8, np.uint16):
        return nifti.encode(pixels, None)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _is_clean_png(data: bytes) -> bool:
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        position += 12 + length
        if kind not in _PNG_PIXELS:
            return False
        if kind == b"IEND":
            return length == 0 and position == len(data)
    return False


def _is_clean_jpeg(data: bytes) -> bool:
    for marker, payload in segments(data):
        if marker == _END:
            return not payload
        is_jfif = marker == _JFIF and payload.startswith(b"JFIF\0") and len(payload) == 14  # longer: with a thumbnail
        is_adobe = marker == _ADOBE and payload.startswith(b"Adobe") and len(payload) == 12
        if not (is_jfif or is_adobe or marker in _JPEG_PIXELS):
            return False
    return False


_CLEAN = {"PNG": _is_clean_png, "JPEG": _is_clean_jpeg}


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the payload of each segment of a JPEG, to where it is none any more.

    The payload of its end is what lies behind it.
    """
    position = 2
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker in _ALONE:
            yield marker, data[position + 2 :] if marker == _END else b""
            if marker == _END:
                return
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == _START_OF_SCAN:
            found = _NEXT_MARKER.search(data, position)
            if found is None:
                return
            position = found.start()
