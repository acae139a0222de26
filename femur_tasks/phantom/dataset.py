"""A dataset of synthetic cases as files, in the layout of the reference data."""

from __future__ import annotations

import gzip
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from femur_tasks.errors import FemurError
from femur_tasks.phantom.case import make_case
from femur_tasks.phantom.labels import LABELS

DESCRIPTION = "SYNTHETIC phantom, not a patient"


def _nifti_gz(picture_hw: npt.NDArray[np.uint8], spacing_mm: tuple[float, float]) -> bytes:
    """A 2-D NIfTI-1 as the reference stores it: first axis to the picture's right, second down. Bytes repeat."""
    row_mm, column_mm = spacing_mm
    image = nib.Nifti1Image(np.ascontiguousarray(picture_hw.T), np.diag([column_mm, row_mm, 1.0, 1.0]))
    image.header["descrip"] = DESCRIPTION
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _write_case(index: int, out: Path, seed: int, size: int) -> None:
    case = make_case(index, seed, size)
    for folder, picture in (("imgs", case.image_hw), ("targets", case.labels_hw)):
        path = out / case.split / folder / f"{case.case_id}.nii.gz"
        path.write_bytes(_nifti_gz(picture, case.spacing_mm))


def _finished(write: Callable[[int], None], cases: int, workers: int | None) -> Iterator[None]:
    workers = min(workers or max(2, os.cpu_count() or 1), cases // 4)
    # a daemonic process (a task runner's) may have no children
    if workers < 2 or multiprocessing.current_process().daemon:
        yield from map(write, range(cases))
        return
    # spawn: a fork of a process with TensorFlow's threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(write, range(cases), chunksize=max(1, min(8, cases // (4 * workers))))


def write_dataset(
    out: Path,
    cases: int,
    seed: int,
    size: int = 512,
    on_case: Callable[[], None] | None = None,
    workers: int | None = None,
) -> None:
    """Write `{train,valid,test}/{imgs,targets}/SYN_0000.nii.gz` under `out`, in the layout of the reference data.

    Beside it lies `_classes.csv`, which names the classes of the masks.

    A dataset of more cases with the same seed and size contains the smaller one byte for byte.

    Args:
        out: made when missing; files of the same names are replaced.
        cases: 1 or more; 60 / 20 / 20 % for multiples of five.
        on_case: called in this process after each case written.
        workers: processes; None: one a core.

    Raises:
        FemurError: an argument is out of range.
    """
    if cases < 1:
        raise FemurError(f"Expected 1 case or more. Received: {cases}.", "Ask for at least five, one of each split.")
    for split in ("train", "valid", "test"):
        for folder in ("imgs", "targets"):
            (out / split / folder).mkdir(parents=True, exist_ok=True)
    named = "".join(f"{number}, {name}\n" for name, number in LABELS.items())
    (out / "_classes.csv").write_text(f"Pixel Value, Class\n{named}")
    for _ in _finished(partial(_write_case, out=out, seed=seed, size=size), cases, workers):
        if on_case is not None:
            on_case()
