"""Conversion: the two files of a case become one small file of arrays and facts, or of problems; one process a core.

A reader is native code over bytes from outside. A worker that crashes or hangs on a case costs that case alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as TookTooLong
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from structlog.contextvars import bound_contextvars

from femur_tasks.dataset import cases
from femur_tasks.dataset.cases import CaseFacts, CasePixels, packed_mask
from femur_tasks.dataset.checks import problems_of_mask, problems_of_pixels
from femur_tasks.dataset.fingerprint import fingerprint
from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.layouts.layout import CaseFiles, Shapes
from femur_tasks.dataset.masks import femur_of_labels, foreground_values, rasterised
from femur_tasks.dataset.naming import Namer
from femur_tasks.dataset.picture import Array, Picture
from femur_tasks.dataset.pictures import read_labels, read_picture
from femur_tasks.dataset.problems import Faulty, Problem
from femur_tasks.dataset.resize import shrink_image, shrink_mask, thumbnails
from femur_tasks.processes import children, main_left_out

log = logging.getLogger(__name__)
CASE_TIMEOUT_S = 30
_A_FILE = "a file that can be read"
_READERS = ("isal.igzip", "nibabel", "safetensors.numpy")  # take a second to load: once, not in every process
_LOOKED_AT = 16
_LABELS = 12
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reading:
    """How the cases of one ingest are read.

    Attributes:
        size: edge of the square training picture, px.
        femur: the numbers of the femur's classes; none where the source does not tell, and masks can't be judged.
        key: of patients' pseudonyms.
        assumed: a few masks had one class only, which was taken for the femur's: every mask is to tell its classes.
    """

    size: int
    femur: frozenset[int]
    key: bytes
    assumed: bool = False


@dataclass(frozen=True)
class Job:
    """One case to convert, and the file to write."""

    files: CaseFiles
    out: Path


def convert_all(jobs: Sequence[Job], reading: Reading, on_case: Callable[[], None] = lambda: None) -> None:
    """Convert every case whose file is not there yet: a conversion that was killed goes on where it was.

    Args:
        on_case: told after each case.
    """
    todo = [job for job in jobs if not job.out.exists()]
    for _ in range(len(jobs) - len(todo)):
        on_case()
    for job, crashed in _side_by_side(partial(convert, reading=reading), todo):
        if isinstance(crashed, Faulty):
            with bound_contextvars(case_id=job.files.case_id):
                log.warning("%s", crashed.what)
            cases.save(job.out, None, [crashed.of(job.files.case_id)], None)
        on_case()


def start_loading() -> None:
    """Have the workers' readers loaded beside whatever comes before a conversion: that takes a second."""
    _workers()
    forkserver.ensure_running()


def _workers() -> ForkServerContext:
    return children([__name__, *_READERS])


def foreground_of_some(masks: Sequence[Path]) -> frozenset[int]:
    """The class numbers in a few of these masks but the background's; what can't be read is left to the conversion."""
    some = masks[:: max(1, len(masks) // _LOOKED_AT)]
    found = (values for _, values in _side_by_side(_foreground, some) if isinstance(values, frozenset))
    return frozenset[int]().union(*found)


def _foreground(mask: Path) -> frozenset[int]:
    try:
        return foreground_values(read_labels(mask).pixels_hw)
    except Faulty:
        return frozenset()


def _side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result | Faulty]]:
    """Each item with what the function makes of it, one process a core; `Faulty` where it crashed or hung."""
    from pebble import ProcessExpired, ProcessPool

    if not items:
        return
    workers = min(os.cpu_count() or 1, len(items))
    with main_left_out(), ProcessPool(workers, context=_workers()) as pool:
        running = {pool.schedule(function, args=[item], timeout=CASE_TIMEOUT_S): item for item in items}
        for future in as_completed(running):
            item = running[future]  # type: ignore[index]  # the very futures that pebble gave
            try:
                yield item, future.result()
            except TookTooLong:
                yield item, Faulty("hostile_file", f"a reader that was not done after {CASE_TIMEOUT_S} s", _A_FILE)
            except ProcessExpired as err:
                yield item, Faulty("hostile_file", f"a reader that crashed with code {err.exitcode}", _A_FILE)
            except MemoryError:
                yield item, Faulty("hostile_file", "a reader that ran out of memory", _A_FILE)


def convert(job: Job, reading: Reading) -> None:
    """Read, check and convert one case; what is wrong with it is written to the same file."""
    files, out = job.files, job.out
    try:
        image = read_picture(files.image)
    except Faulty as err:
        faults = [err.of(files.case_id, "image")]
        if isinstance(files.mask, Path):
            try:
                read_labels(files.mask)
            except Faulty as other:
                faults.append(other.of(files.case_id, "mask"))
        cases.save(out, None, faults, None)
        return
    problems = problems_of_pixels(files.case_id, image.pixels_hw)
    try:
        mask = _mask_of(files, image, reading)
    except Faulty as err:
        cases.save(out, None, [*problems, err.of(files.case_id, "mask")], None)
        return
    problems += mask.problems
    if mask.femur_hw.shape != image.pixels_hw.shape:
        (height, width), (rows, columns) = image.pixels_hw.shape, mask.femur_hw.shape
        found = f"image {width} x {height}, mask {columns} x {rows} px"
        problems.append(Problem("size_mismatch", files.case_id, found, "a mask of the image's size"))
    if any(problem.is_error for problem in problems):
        cases.save(out, None, problems, None)
        return
    _save_converted(job, reading, image, mask, problems)


@dataclass(frozen=True)
class _Mask:
    """The femur as bool, what to store of the mask, its class numbers, and what is to be said of it."""

    femur_hw: Array
    raw: Path | bytes
    labels: tuple[int, ...]
    problems: list[Problem]


def _mask_of(files: CaseFiles, image: Picture, reading: Reading) -> _Mask:
    if isinstance(files.mask, Shapes):
        height, width = image.pixels_hw.shape
        femur = rasterised(files.mask, height, width, reading.femur)
        return _Mask(femur, _png(femur.view(np.uint8) * np.uint8(255)), (), [])
    picture = read_labels(files.mask)
    femur, said = femur_of_labels(picture.pixels_hw, reading.femur)
    labels = tuple(sorted(foreground_values(picture.pixels_hw)))[:_LABELS] if reading.assumed else ()
    problems = [Problem(code, files.case_id, f"mask: {found}", expected) for code, found, expected in said]
    return _Mask(femur, picture.clean or files.mask, labels, problems)


def _save_converted(job: Job, reading: Reading, image: Picture, mask: _Mask, problems: list[Problem]) -> None:
    files, femur = job.files, mask.femur_hw
    grey, window = to_grey(image.pixels_hw)
    small_image, small_mask = thumbnails(grey, femur)
    area_pct = 100 * np.count_nonzero(femur) / femur.size
    if reading.femur:
        problems = problems + problems_of_mask(files.case_id, small_image, small_mask, area_pct)
    if image.burned_in:
        found = "a header that says that text is written into the picture"
        problems.append(Problem("burned_in", files.case_id, found, "pixels without a name in them"))
    rows, columns = np.nonzero(small_mask)
    patient = Namer(reading.key).pseudonym(image.patient) if image.patient else files.patient
    facts = CaseFacts(
        case_id=files.case_id,
        patient=patient,
        split=files.split,
        height_px=femur.shape[0],
        width_px=femur.shape[1],
        spacing_mm=_rounded(image.spacing_mm),
        mirrored=image.mirrored,
        image_sha256=pixel_digest(grey),
        mask_sha256=pixel_digest(femur.view(np.uint8)),
        window=window,
        intensity_mean=float(small_image.mean()),
        intensity_sd=float(small_image.std()),
        femur_area_pct=area_pct,
        femur_x_pct=_centre_pct(columns, small_mask.shape[1]),
        femur_y_pct=_centre_pct(rows, small_mask.shape[0]),
        labels=mask.labels,
        raw_image=_kept(image.clean or files.image, job.out.with_suffix(".image")),
        raw_mask=_kept(mask.raw, job.out.with_suffix(".mask")),
    )
    pixels = CasePixels(
        image_hw=shrink_image(grey, reading.size),
        mask_hw=shrink_mask(femur, reading.size),
        full_mask=packed_mask(femur),
        small_image_hw=small_image,
        small_mask_hw=small_mask,
        fingerprint=fingerprint(small_image, small_mask),
    )
    cases.save(job.out, facts, problems, pixels)


def _kept(raw: Path | bytes, beside: Path) -> str:
    if isinstance(raw, bytes):
        beside.write_bytes(raw)
        raw = beside
    return str(raw)


def _centre_pct(places: Array, length: int) -> float | None:
    return 100 * (float(places.mean()) + 0.5) / length if places.size else None


def _png(pixels_hw: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_hw).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def pixel_digest(pixels_hw: Array) -> str:
    """sha256 of size and grey values alone: the same radiograph exported with another spacing is the same picture."""
    found = hashlib.sha256(f"{pixels_hw.shape}\n".encode())
    found.update(np.ascontiguousarray(pixels_hw).data)
    return found.hexdigest()


def _rounded(spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    return (round(spacing_mm[0], 6), round(spacing_mm[1], 6)) if spacing_mm else None
