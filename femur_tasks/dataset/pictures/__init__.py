"""Picture files of every format, told apart by what is in them and never by their name.

NIfTI (single file, gzipped or not, or a pair), PNG, JPEG, TIFF and DICOM. Whatever can't be used raises `Faulty`,
which tells nothing of the file's name and nothing that the file says: both may hold a patient's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from femur_tasks.dataset.picture import Array, Picture
from femur_tasks.dataset.pictures import dicom, nifti, raster
from femur_tasks.dataset.problems import Faulty

__all__ = ["Array", "Picture", "decode", "read_labels", "read_picture"]


def read_picture(path: Path) -> Picture:
    """Read the picture in a file; of a NIfTI pair, `path` is either one.

    Raises:
        Faulty: unreadable, wrong_shape, too_large or hostile_file, whatever the bytes.
    """
    return _read(path, labels=False)


def read_labels(path: Path) -> Picture:
    """Read the mask in a file: like `read_picture`, but of class numbers instead of grey values.

    A palette gives its indices, colours of three equal channels give that channel, bits give 0 and 1, and windows of
    a DICOM header are not applied.

    Raises:
        Faulty: as `read_picture`, or mask_values, where the mask is drawn in colours.
    """
    return _read(path, labels=True)


def decode(data: bytes) -> Picture:
    """Read the picture in the bytes of a single file.

    Raises:
        Faulty: as `read_picture`.
    """
    return _decoded(data, labels=False)


def _read(path: Path, labels: bool) -> Picture:
    data = nifti.contents(path)
    pair = None if raster.is_raster(data) or dicom.is_dicom(data) else nifti.pair_of(path, data)
    return nifti.decode_pair(*pair, labels=labels) if pair else _decoded(data, labels)


def _decoded(data: bytes, labels: bool) -> Picture:
    if dicom.is_dicom(data):
        with _only_faulty("a DICOM file"):
            return dicom.decode(data, labels)
    if raster.is_raster(data):
        with _only_faulty("a PNG, JPEG or TIFF file"):
            return raster.decode(data, labels)
    return nifti.decode(data, labels)


@contextmanager
def _only_faulty(what: str) -> Iterator[None]:
    """The one edge where what Pillow and pydicom raise is translated.

    On damaged bytes that may be anything, a SyntaxError or a RecursionError too, and its text may quote the file.
    """
    try:
        yield
    except Faulty:
        raise
    except Exception as err:
        found = f"{what} that breaks off or is damaged ({type(err).__name__})"
        raise Faulty("unreadable", found, "a whole file") from err
