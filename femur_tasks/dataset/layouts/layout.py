"""What a layout tells of a source: its cases, its classes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.problems import Problem


@dataclass(frozen=True)
class Run:
    """A COCO run-length mask: `counts` as COCO has them, a text or a list of whole numbers, for (height, width)."""

    height_px: int
    width_px: int
    counts: str | tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """One annotated part: its class number, and outlines or a run-length mask.

    Attributes:
        outlines_xy: one (points, 2) float64 array a polygon, x then y, px; the part is their union.
    """

    label: int
    outlines_xy: tuple[Array, ...] = ()
    run: Run | None = None


@dataclass(frozen=True)
class Shapes:
    """A mask given as annotated parts.

    Attributes:
        parts: of every class; none where the annotator drew nothing.
        relative: outlines are in shares of the picture's width and height instead of px.
        size_hw: the picture's size by the annotations; None where they do not say.
    """

    parts: tuple[Shape, ...]
    relative: bool = False
    size_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class CaseFiles:
    """Where a case's picture and mask are; `split` is None where the source does not say.

    Attributes:
        case_id, patient: as the namer gave them; DICOM headers may know the patient better.
    """

    case_id: str
    patient: str
    split: str | None
    image: Path
    mask: Path | Shapes


@dataclass(frozen=True)
class Layout:
    """A source as its layout has it.

    Attributes:
        name: one of `LAYOUTS`.
        cases: in the order of their ids.
        classes: name by number; None where the source does not name its classes.
        problems: every file that has no partner or claims an id twice, and whatever else is wrong.
    """

    name: str
    cases: tuple[CaseFiles, ...]
    classes: Mapping[int, str] | None
    problems: tuple[Problem, ...]
