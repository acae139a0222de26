"""Compressed pixels of DICOM: which decoder they get, and what they must keep to first."""

from __future__ import annotations

import io
import struct
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from femur_tasks.dataset.pictures import nifti, raster
from femur_tasks.dataset.problems import Faulty

if TYPE_CHECKING:
    from pydicom import Dataset

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
IMAGE = (
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
_MAX_FRAGMENTS = 10_000
_MAX_RUN_LENGTH_BYTES = 32 << 20  # one byte of run lengths can become 64
_NO_RUN = 128  # a byte that makes nothing
_ITEM = b"\xfe\xff\x00\xe0"
_J2K_SIZE = b"\xff\x4f\xff\x51"
_FRAME_STARTS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_TIMEOUT_S = 60


def decoder_of(found: Dataset) -> str:
    """The plug-in of pydicom that decodes these pixels; "" where they are not compressed.

    GDCM decodes what no other can: JPEG without loss and JPEG-LS. The rest is left to Pillow and to pydicom itself.
    """
    from pydicom import uid

    syntax = found.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return ""
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000Lossless, uid.JPEG2000):
        return "pillow"
    return "pydicom" if syntax == uid.RLELossless else "gdcm"


def uncompressed(found: Dataset) -> bytes:
    """A DICOM file of the picture alone, its pixels uncompressed by GDCM's own program.

    On damaged bytes its decoders write beyond their memory, so they get a process of their own, and nothing of the
    header but the picture's shape.

    Raises:
        CalledProcessError, TimeoutExpired: it could not.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import dcmwrite

    alone = Dataset({found[name].tag: found[name] for name in (*IMAGE, "PixelData") if name in found})
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = found.file_meta.TransferSyntaxUID
    alone.SOPClassUID, alone.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    buffer = io.BytesIO()
    dcmwrite(buffer, alone, enforce_file_format=True)
    with tempfile.TemporaryDirectory() as folder:
        coded, plain = Path(folder, "coded.dcm"), Path(folder, "plain.dcm")
        coded.write_bytes(buffer.getvalue())
        program = Path(str(getattr(find_spec("_gdcm"), "origin", ""))).with_name("gdcmconv")
        subprocess.run([program, "--raw", coded, plain], check=True, capture_output=True, timeout=_TIMEOUT_S)  # noqa: S603
        return nifti.contents(plain)


def check_coded(found: Dataset, size: tuple[int, int, int]) -> None:
    """Refuse coded pixels of another width, height or number of samples than `size`, the header's.

    Raises:
        Faulty: unreadable, too_large, hostile_file.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    if found.PixelData.count(_ITEM) > _MAX_FRAGMENTS:
        raise Faulty("hostile_file", f"a picture in more than {_MAX_FRAGMENTS} pieces", "a picture in one piece")
    frame = get_frame(found.PixelData, 0, number_of_frames=1)
    if found.file_meta.TransferSyntaxUID == RLELossless:
        if len(frame) > _MAX_RUN_LENGTH_BYTES:
            raise Faulty("too_large", f"{len(frame)} bytes of run lengths", f"at most {_MAX_RUN_LENGTH_BYTES}")
        _check_run_lengths(frame, 2 * size[0] * size[1])
        return
    coded = _coded_size(frame)
    if coded is None:
        raise Faulty("unreadable", "coded pixels that are no JPEG and no JPEG 2000", "pixels in one of these codes")
    if coded != size:
        raise Faulty("hostile_file", f"coded pixels of {coded} where the header says {size}", "one size")


def _check_run_lengths(frame: bytes, most: int) -> None:
    """Refuse runs that make more than `most` bytes in a segment: pydicom would make all of them first."""
    count, *starts = struct.unpack_from("<16L", frame)
    for start, end in zip(starts[:count], [*starts[1:count], len(frame)], strict=False):
        at, found = start, 0
        while at < min(end, len(frame)):
            head = frame[at]
            at += head + 2 if head < _NO_RUN else 2 if head > _NO_RUN else 1
            found += head + 1 if head < _NO_RUN else 257 - head if head > _NO_RUN else 1
            if found > most:
                raise Faulty("hostile_file", "run lengths of far more pixels than the header says", "one size")


def _coded_size(frame: bytes) -> tuple[int, int, int] | None:
    """Width, height and samples by a JPEG, JPEG-LS or JPEG 2000 stream itself: a decoder would believe it."""
    at = frame.find(_J2K_SIZE, 0, 512)  # behind the boxes of a .jp2, which do not belong there
    if at >= 0:
        right, bottom, left, top = (int.from_bytes(frame[at + n : at + n + 4], "big") for n in (8, 12, 16, 20))
        return right - left, bottom - top, int.from_bytes(frame[at + 40 : at + 42], "big")
    for marker, payload in raster.segments(frame):
        if marker in _FRAME_STARTS and len(payload) > 5:
            return int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[1:3], "big"), payload[5]
    return None
