"""Masks: the femur out of a label picture or out of annotated parts."""

from __future__ import annotations

import numpy as np

from femur_tasks.dataset.layouts.layout import Run, Shapes
from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.problems import Faulty

MAX_POINTS = 2_000_000
"""Of the outlines and run-length masks of one case."""
MAX_OUTLINE_PX = 4_000_000
"""What the outlines of one case may measure together: their rasterisation takes memory for every pixel of it."""
_MAX_CLASS = 65_535
_MAX_CLASSES = 32
_BINARY = 255
Fault = tuple[str, str, str]


def femur_of_labels(labels_hw: Array, femur: frozenset[int]) -> tuple[Array, list[Fault]]:
    """The femur of a label picture, bool (H, W), and what is wrong with it: code, found, expected; none of it raises.

    A picture of 0 and 255 is a binary mask, whatever the number of the femur is elsewhere. One of 0 and 1 is not: it
    may as well hold another class alone.
    """
    values = _values(labels_hw)
    if fault := _fault(values):
        return np.zeros(labels_hw.shape, bool), [fault]
    if _is_soft(values):
        found = f"values between 0 and 1, {values.size} of them"
        return labels_hw >= 0.5, [("soft_mask", found, "class numbers; taken as femur from 0.5 on")]
    numbers = frozenset({_BINARY}) if set(values) - {0} == {_BINARY} else femur
    there = sorted(number for number in numbers if number in values)
    mask = labels_hw == there[0] if there else np.zeros(labels_hw.shape, bool)
    for number in there[1:]:
        mask |= labels_hw == number
    return mask, []


def foreground_values(labels_hw: Array) -> frozenset[int]:
    """The class numbers in a label picture but 0; 1 for a soft mask, none where it is no label picture."""
    values = _values(labels_hw)
    if _fault(values):
        return frozenset()
    if _is_soft(values):
        return frozenset({1})
    return frozenset(int(value) for value in values) - {0}


def _values(labels_hw: Array) -> Array:
    """Every value that occurs, in order: each but the first begins somewhere, and in a mask few pixels begin one."""
    flat = labels_hw.ravel(order="K")
    return np.unique(np.append(flat[1:][flat[1:] != flat[:-1]], flat[:1]))


def _is_soft(values: Array) -> bool:
    return values.dtype.kind == "f" and bool(values[0] >= 0 and values[-1] <= 1 and not np.isin(values, (0, 1)).all())


def _fault(values: Array) -> Fault | None:
    if values.dtype.kind not in "buif":
        return "mask_values", f"pixels of type {values.dtype}", "one class number a pixel"
    if not values.size or values.dtype.kind == "b" or _is_soft(values):
        return None
    if not np.isfinite(values).all():
        return "not_finite", "NaN or Inf in the mask", "one class number a pixel"
    low, high = values[0], values[-1]
    if low < 0 or high > _MAX_CLASS or (values.dtype.kind == "f" and not np.array_equal(values, np.rint(values))):
        return "mask_values", f"{values.size} values from {low:g} to {high:g}", f"class numbers from 0 to {_MAX_CLASS}"
    if values.size > _MAX_CLASSES + 1:
        return (
            "mask_values",
            f"{values.size} different values",
            f"class numbers, {_MAX_CLASSES} at most: no grey values",
        )
    return None


def rasterised(shapes: Shapes, height_px: int, width_px: int, femur: frozenset[int]) -> Array:
    """The union of the femur's parts, bool (H, W).

    Raises:
        Faulty: a part is no outline of this picture, there are too many points, or the annotations are of another size.
    """
    from pycocotools import mask as coco  # type: ignore[import-untyped]

    size = (height_px, width_px)
    if shapes.size_hw not in (None, size):
        height, width = shapes.size_hw or size
        found = f"annotations of {width} x {height} px, a picture of {width_px} x {height_px} px"
        raise Faulty("size_mismatch", found, "annotations of the picture's size")
    points = sum(sum(map(len, part.outlines_xy)) + (len(part.run.counts) if part.run else 0) for part in shapes.parts)
    if points > MAX_POINTS:
        raise Faulty("bad_annotations", f"{points} points", f"at most {MAX_POINTS} in a case")
    ours = [part for part in shapes.parts if part.label in femur]
    scale = np.array((width_px, height_px) if shapes.relative else (1, 1), np.float64)
    outlines = [outline_xy * scale for part in ours for outline_xy in part.outlines_xy]
    _check_outlines(outlines, size)
    runs = [{"size": list(size), "counts": _counts(part.run, size)} for part in ours if part.run]
    encoded = [found for outline in outlines for found in coco.frPyObjects([outline.ravel()], *size)]
    encoded += [coco.frPyObjects(run, *size) for run in runs]
    # in pairs: one after another would go through the whole union again for every part
    while len(encoded) > 1:
        encoded = [coco.merge(encoded[first : first + 2]) for first in range(0, len(encoded), 2)]
    if not encoded:
        return np.zeros(size, bool)
    union = _decompressed(encoded[0]["counts"].decode())
    # COCO goes down the columns; the first run is background
    return np.ascontiguousarray(np.repeat(np.arange(len(union)) % 2 == 1, union).reshape(width_px, height_px).T)


def _check_outlines(outlines: list[Array], size: tuple[int, int]) -> None:
    length_px, edge_xy = 0.0, np.array(size[::-1])
    for outline in outlines:
        if len(outline) < 3:
            raise Faulty("bad_annotations", f"an outline of {len(outline)} points", "three points at least")
        if not np.isfinite(outline).all():
            raise Faulty("bad_annotations", "NaN or Inf as a coordinate", "finite coordinates")
        if (outline < -edge_xy).any() or (outline > 2 * edge_xy).any():
            raise Faulty("bad_annotations", "an outline far outside the picture", "coordinates in the picture")
        length_px += float(np.abs(outline - np.roll(outline, 1, axis=0)).max(axis=1).sum())
    if length_px > MAX_OUTLINE_PX:
        raise Faulty("bad_annotations", f"outlines of {length_px:.0f} px", f"at most {MAX_OUTLINE_PX} px in a case")


def _counts(run: Run, size: tuple[int, int]) -> list[int]:
    """The lengths of the runs, checked: the library would trust them."""
    counts = _decompressed(run.counts) if isinstance(run.counts, str) else list(run.counts)
    whole = size[0] * size[1]
    if (run.height_px, run.width_px) != size:
        found = f"a run-length mask of {run.width_px} x {run.height_px} px"
        raise Faulty("bad_annotations", found, f"one of {size[1]} x {size[0]} px")
    if not counts or min(counts) < 0 or sum(counts) != whole:
        raise Faulty(
            "bad_annotations", f"{len(counts)} runs that do not make a picture", f"runs of {whole} px together"
        )
    return counts


def _decompressed(text: str) -> list[int]:
    """The runs of COCO's compressed text: 5 bits a character, the lowest first, from the third run on differences.

    The library itself would read on behind a text that is cut off.
    """
    codes = np.array([ord(letter) for letter in text], np.int64) - 48
    ends = np.flatnonzero(codes < 32)
    if not codes.size or codes.min() < 0 or codes.max() > 63 or not ends.size or ends[-1] != codes.size - 1:
        raise Faulty("bad_annotations", "runs that are no compressed text", "counts as COCO writes them")
    starts = np.append(0, ends[:-1] + 1)
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise Faulty("bad_annotations", "a run of over 30 bits", "counts as COCO writes them")
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * (place[ends] + 1)), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return [int(run) for run in runs]
