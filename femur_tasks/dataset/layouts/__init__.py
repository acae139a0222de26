"""Layouts: which files of a source, and which annotations, are the image and the mask of which case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from femur_tasks.dataset.layouts import coco, decathlon, nnunet, pairs, semantic, yolo
from femur_tasks.dataset.layouts.layout import CaseFiles, Layout, Run, Shape, Shapes
from femur_tasks.dataset.layouts.source import Source
from femur_tasks.dataset.naming import Namer
from femur_tasks.dataset.problems import LAYOUTS, Faulty, Problem
from femur_tasks.errors import FemurError

__all__ = ["CaseFiles", "Layout", "Run", "Shape", "Shapes", "find_cases"]

Recognise = Callable[[Source], tuple[Path, ...]]
"""The files or folders that mark a layout; none where it is another."""
Read = Callable[[Source, tuple[Path, ...]], Layout]

# the more specific first: YOLO has images/ and labels/ too
_READERS: dict[str, tuple[Recognise, Read]] = {
    "nnunet": (nnunet.recognise, nnunet.read),
    "decathlon": (decathlon.recognise, decathlon.read),
    "coco": (coco.recognise, coco.read),
    "yolo": (yolo.recognise, yolo.read),
    "semantic": (semantic.recognise, semantic.read),
    "reference": (pairs.recognise_reference, pairs.read_reference),
    "flat": (pairs.recognise_flat, pairs.read_flat),
}


def find_cases(folder: Path, namer: Namer, layout: str | None = None) -> Layout:
    """The cases of a source, by what is in it, however deep it lies below the folder.

    Args:
        namer: makes case ids and patients of file names, which appear nowhere else.
        layout: one of `LAYOUTS` that a person has named: no other is tried.

    Raises:
        FemurError: `layout` is none of them.
    """
    if layout is not None and layout not in LAYOUTS:
        raise FemurError(f"Expected a layout, one of {', '.join(LAYOUTS)}. Received: {layout!r}.")
    known: str = layout or "unknown"
    try:
        source = Source.of(folder, namer)
        for name, (recognise, read) in _READERS.items():
            if layout in (None, name) and (marks := recognise(source)):
                known = name
                return read(source, marks)
        expected = layout or f"one of {', '.join(LAYOUTS)}"
        problem = Problem("unknown_layout", folder.name, "no files in an order that is known", expected)
    except Faulty as err:
        problem = err.of(folder.name)
    except OSError as err:
        problem = Problem("unreadable", folder.name, f"{err.strerror}", "files and folders that can be read")
    return Layout(known, (), None, (problem,))
