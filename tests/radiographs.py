"""Small made radiographs and datasets for the tests of the dataset room."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
REFERENCE: Mapping[str, str] = {"A": "train", "B": "train", "C": "train", "D": "valid", "E": "test"}
FLAT = tuple("ABCDEF")


def nifti(
    pixels_xy: Array, units: str = "unknown", spacing: tuple[float, float] = (1, 1), slope: float | None = None
) -> bytes:
    """An uncompressed NIfTI-1 file of an array as it is stored: axis 0 is x."""
    image = nib.Nifti1Image(pixels_xy, np.eye(4))
    image.header.set_xyzt_units(units)
    image.header.set_zooms((*spacing, *([1.0] * (pixels_xy.ndim - 2))))
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    return bytes(image.to_bytes())


def grey_hw(seed: int, height: int = 40, width: int = 48) -> Array:
    """A picture in which every corner differs, brighter where the femurs of `labels_hw` are."""
    noise = np.random.default_rng(seed).integers(0, 100, (height, width))
    grey = noise + np.linspace(0, 50, height * width).reshape(height, width)
    return (grey + 100 * (labels_hw(seed, height, width) == 1)).astype(np.uint8)


def labels_hw(seed: int, height: int = 40, width: int = 48) -> Array:
    """Femurs (1) in the lower left and right, another class (2) in the upper right."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 2 : -2, 3 : 12 + seed % 5] = 1
    labels[height // 2 : -5, -12:-3] = 1
    labels[2:9, width // 2 :] = 2
    return labels


def write_case(images: Path, masks: Path, case_id: str, seed: int, mtime: int = 0) -> None:
    """One case as a pair of .nii.gz files."""
    for folder, pixels in ((images, grey_hw(seed)), (masks, labels_hw(seed))):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{case_id}.nii.gz").write_bytes(gzip.compress(nifti(pixels.T), mtime=mtime))


def write_classes(folder: Path) -> None:
    """What the numbers of `labels_hw` mean, as annotation tools write it."""
    (folder / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, FEMUR\n2, ILIAK\n")


def write_reference(folder: Path, splits: Mapping[str, str] = REFERENCE, mtime: int = 0) -> Path:
    """A dataset in the reference layout; a case's pixels depend on its name alone."""
    for case_id, split in splits.items():
        write_case(folder / split / "imgs", folder / split / "targets", case_id, sum(case_id.encode()), mtime)
    write_classes(folder)
    return folder


def write_flat(folder: Path, case_ids: Iterable[str] = FLAT, mtime: int = 0) -> Path:
    """The same cases in the flat layout."""
    for case_id in case_ids:
        write_case(folder / "images", folder / "labels", case_id, sum(case_id.encode()), mtime)
    write_classes(folder)
    return folder


def packed(folder: Path, archive: Path, top: str = "", backwards: bool = False) -> Path:
    """The folder's files as a .zip or .tar.gz, below the folder `top`."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=backwards)
    members = [(path, str(Path(top) / path.relative_to(folder))) for path in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path, name in members:
                zipped.write(path, name)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for path, name in members:
                tar.add(path, name)
    return archive
