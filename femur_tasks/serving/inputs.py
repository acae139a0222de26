"""What `femur predict` is given: pictures and folders of them, each with the name that its results get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from femur_tasks.dataset.pictures.dicom import is_dicom
from femur_tasks.errors import NotFound

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
"""Of pictures in a folder; files without any suffix are looked into, as DICOM exports often have none."""
MASKS = ("_mask.nii.gz", "_mask.png")
OVERLAY = "_overlay.png"
_HEAD_BYTES = 132  # of a DICOM file, its mark included


@dataclass(frozen=True)
class Input:
    """A picture to predict; `name` is that of its results below the output folder, without a suffix."""

    path: Path
    name: str


def find_inputs(paths: Sequence[Path], out: Path) -> list[Input]:
    """The pictures among `paths` and in the folders among them, in order; results in `out` are no pictures.

    A file that is named is taken whatever it is called. Results of a folder's files lie below `out` as the files lie
    below the folder.

    Raises:
        NotFound: a path that is not there, or no picture at all.
    """
    found: dict[Path, Input] = {}
    for path in paths:
        if not path.exists():
            raise NotFound(f"Expected a picture or a folder. Received: {path}, which is not there.")
        for file in _inside(path, out) if path.is_dir() else [path]:
            below = file.relative_to(path).parent if path.is_dir() else Path()
            found.setdefault(file.resolve(), Input(file, str(below / stem(file.name))))
    if not found:
        where = ", ".join(map(str, paths))
        raise NotFound(f"Expected NIfTI, PNG, JPEG, TIFF or DICOM pictures. Received: none in {where}.")
    return list(found.values())


def stem(name: str) -> str:
    """A file's name without the suffix of a picture."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)] or name


def _inside(folder: Path, out: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("[!.]*")):
        if file.is_file() and _is_picture(file) and not _is_result(file, out):
            yield file


def _is_picture(file: Path) -> bool:
    if file.suffix:
        return file.name.lower().endswith(SUFFIXES)
    try:
        with file.open("rb") as opened:
            return is_dicom(opened.read(_HEAD_BYTES))
    except OSError:
        return False


def _is_result(file: Path, out: Path) -> bool:
    return file.name.endswith((*MASKS, OVERLAY)) and file.resolve().is_relative_to(out.resolve())
