"""DICOM by pydicom; `dicom_codes` says what decodes compressed pixels.

Nothing of the header is kept but what `Picture` names, and `clean` is written from pixels and spacing alone. That is
an allow-list, and so stronger than the basic profile of PS3.15 annex E, which lists what must be removed and lets
dates, devices and private blocks through where an option says so. Texts burned into the pixels stay there: `burned_in`
says what the header knows of them.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from femur_tasks.dataset.intensity import class_numbers, luminance
from femur_tasks.dataset.picture import MAX_DECODED_BYTES, MAX_PIXELS, Array, Picture
from femur_tasks.dataset.pictures import nifti
from femur_tasks.dataset.pictures.dicom_codes import IMAGE, PIXELS, check_coded, decoder_of, uncompressed
from femur_tasks.dataset.problems import Faulty

if TYPE_CHECKING:
    from pydicom import Dataset

_PREAMBLE, _MARK = 128, b"DICM"
_READ = (
    *PIXELS,
    *IMAGE,
    *("SpecificCharacterSet", "IssuerOfPatientID", "PatientID", "PatientName", "PatientBirthDate"),
    *("BurnedInAnnotation", "PatientOrientation", "PixelSpacing", "ImagerPixelSpacing"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Data", "Descriptor")
    ),
)
_MAX_VALUE_BYTES = 1 << 20  # a table of 16 bits has 128 KiB
_MAX_READS = 200_000
_UNDEFINED = 0xFFFFFFFF
_GREY_LEVELS = 255


def is_dicom(data: bytes) -> bool:
    """Whether these bytes have the mark of DICOM behind its preamble."""
    return data[_PREAMBLE : _PREAMBLE + len(_MARK)] == _MARK


def decode(data: bytes, labels: bool = False) -> Picture:
    """The picture in the bytes of a DICOM file.

    Slope and tables of the modality are applied, then the first window or table of interest; MONOCHROME1 is turned
    so that bone is bright; colours become luminance.

    Args:
        labels: it is a mask: no window is applied, and a palette gives its indices.

    Raises:
        Faulty: unreadable, wrong_shape, too_large, hostile_file; mask_values, where a mask is drawn in colours.
        Exception: whatever pydicom and its decoders raise where the bytes are damaged.
    """
    from pydicom.uid import ExplicitVRLittleEndian

    with _silence():
        found = _dataset(data)
        _check_promises(found)
        if decoder_of(found) == "gdcm":
            for element in _dataset(uncompressed(found)):
                found[element.tag] = element
            found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            _check_promises(found)
        spacing = _spacing_mm(found)
        pixels = _pixels(found, labels)
        orientation = found.get("PatientOrientation") or [""]
        return Picture(
            pixels,
            spacing,
            mirrored=str(orientation[0]).startswith("R"),
            patient=_patient(found),
            burned_in=str(found.get("BurnedInAnnotation")).strip().upper() == "YES",
            clean=nifti.encode(pixels, spacing),
        )


class _Elements(io.BytesIO):
    """Gives up on a header of endless elements, each of which would become an object of a kilobyte."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise Faulty("hostile_file", f"a DICOM header of more than {_MAX_READS} parts", "the header of a picture")
        return super().read(size)


def _dataset(data: bytes) -> Dataset:
    """The elements of `_READ`. pydicom's `dcmread` would inflate a deflated file without a limit first."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    tags = [BaseTag(tag) for tag in map(tag_for_keyword, _READ) if tag is not None]
    large = tags[: len(PIXELS)]

    def is_too_long(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if stream.tell() + length > len(data) and length != _UNDEFINED:
            raise Faulty("unreadable", "a DICOM element that ends behind the file", "a whole file")
        if tag in tags and tag not in large and _MAX_VALUE_BYTES < length < _UNDEFINED:
            raise Faulty("hostile_file", f"a DICOM element of {length} bytes", f"at most {_MAX_VALUE_BYTES}")
        return False

    stream = _Elements(data)
    stream.seek(_PREAMBLE + len(_MARK))
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    syntax = meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian or not syntax.is_transfer_syntax:
        raise Faulty("unreadable", "a DICOM file of a deflated or unknown transfer syntax", "one that is not deflated")
    found = read_dataset(
        stream, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=is_too_long, specific_tags=list(tags)
    )
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    return found


def _check_promises(found: Dataset) -> None:
    """Refuse what the header says before a pixel is decoded, and a coded picture of another size than it says."""
    height, width, samples = int(found.Rows), int(found.Columns), int(found.SamplesPerPixel)
    size = height * width * samples * int(found.BitsAllocated) // 8
    if int(found.get("NumberOfFrames") or 1) > 1:
        raise Faulty("wrong_shape", f"{int(found.NumberOfFrames)} frames", "one picture")
    if samples not in (1, 3) or min(height, width) < 1:
        raise Faulty("wrong_shape", f"{width} x {height} px of {samples} samples", "one picture, grey or in colours")
    if height * width > MAX_PIXELS or size > MAX_DECODED_BYTES:
        raise Faulty("too_large", f"{width} x {height} px", f"at most {MAX_PIXELS:,} pixels")
    if not any(name in found for name in PIXELS):
        raise Faulty("unreadable", "a DICOM file without pixels", "a DICOM picture")
    if found.file_meta.TransferSyntaxUID.is_encapsulated:
        check_coded(found, (width, height, samples))


def _pixels(found: Dataset, labels: bool) -> Array:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    stored = pixel_array(found, decoding_plugin=decoder_of(found))
    photometric = str(found.PhotometricInterpretation)
    if photometric == "PALETTE COLOR" and not labels:
        stored = apply_color_lut(stored, found)
    if stored.ndim == 3:
        return class_numbers(stored) if labels else luminance(stored)
    if photometric == "PALETTE COLOR":
        return stored
    if labels:
        return _narrowed(apply_modality_lut(stored, found).astype(np.float64))
    limits = np.array(_limits(stored, found), dtype=stored.dtype)
    shown, ends = _windowed([apply_modality_lut(values, found) for values in (stored, limits)], found)
    return _narrowed(ends.sum() - shown if photometric == "MONOCHROME1" else shown)


def _limits(stored: Array, found: Dataset) -> tuple[float, float]:
    """The least and the greatest value that can be stored."""
    if stored.dtype.kind == "f":
        return float(stored.min()), float(stored.max())
    bits, signed = int(found.BitsStored), int(found.PixelRepresentation)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _windowed(both: list[Array], found: Dataset) -> list[Array]:
    from pydicom.pixels.processing import apply_voi_lut

    for name in ("RescaleSlope", "RescaleIntercept"):
        if name in found:  # they are applied; pydicom would turn the window's range round by a negative slope
            del found[name]
    if "VOILUTSequence" in found:
        both = [np.rint(values).astype(np.int64) for values in both]
    elif not _has_window(found):
        return [values.astype(np.float64) for values in both]
    return [apply_voi_lut(values, found).astype(np.float64) for values in both]


def _has_window(found: Dataset) -> bool:
    """Whether the header's window is one: some writers leave it empty, or a width of 0."""
    widths = found.get("WindowWidth")
    first = widths[0] if found.get("WindowCenter") is not None and isinstance(widths, Sequence) and widths else widths
    return "WindowCenter" in found and first is not None and float(first) >= 1


def _narrowed(values: Array) -> Array:
    """Float64 as the smallest type that loses nothing that 8-bit grey could show."""
    low, high = values.min(), values.max()
    if high - low >= _GREY_LEVELS or np.array_equal(values, np.rint(values)):
        for kind in (np.uint8, np.uint16, np.int16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.rint(values).astype(kind)
    return values.astype(np.float32)


def _spacing_mm(found: Dataset) -> tuple[float, float] | None:
    """DICOM gives the distance of rows first, which is ours along y."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            along_y, along_x = (float(value) for value in found.get(name) or ())
        except (ValueError, TypeError):
            continue
        if all(1e-6 <= value <= 1e6 for value in (along_x, along_y)):
            return along_x, along_y
    return None


def _patient(found: Dataset) -> str | None:
    for first, second, needed in (("IssuerOfPatientID", "PatientID", 1), ("PatientName", "PatientBirthDate", 0)):
        texts = [str(found.get(name) or "").strip() for name in (first, second)]
        if texts[needed]:
            return "|".join(texts)
    return None


@contextmanager
def _silence() -> Iterator[None]:
    """pydicom quotes the values that it warns of, and a value may be a name."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
