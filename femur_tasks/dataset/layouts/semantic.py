"""Roboflow's semantic masks: NAME.jpg and NAME_mask.png side by side, with a _classes.csv."""

from __future__ import annotations

from pathlib import Path

from femur_tasks.dataset.layouts.draft import Draft
from femur_tasks.dataset.layouts.layout import Layout
from femur_tasks.dataset.layouts.source import CLASSES_CSV, Source, split_of

_MASK = "_mask.png"


def recognise(source: Source) -> tuple[Path, ...]:
    """The folders with a _classes.csv or with masks, where one of them has an image beside its mask."""
    tables = [path.parent for path in source.named(CLASSES_CSV)]
    masked = {path.parent for path in source.named(_MASK)}
    if not tables or not any(_has_images(source, folder) for folder in masked):
        return ()
    # a table at the top may have pictures of a README beside it
    return tuple(sorted(masked.union(folder for folder in tables if split_of(folder))))


def read(source: Source, marks: tuple[Path, ...]) -> Layout:
    """The cases in the splits that their folders say."""
    draft = Draft(source, "semantic")
    for folder in marks:
        files = draft.pictures(folder)
        masks = {stem[: -len("_mask")]: path for stem, path in files.items() if _is_mask(path)}
        images = {stem: path for stem, path in files.items() if not _is_mask(path)}
        draft.partners(split_of(folder), images, masks, (folder, folder))
    draft.class_tables()
    return draft.layout()


def _has_images(source: Source, folder: Path) -> bool:
    return any(not _is_mask(path) for paths in source.pictures(folder).values() for path in paths)


def _is_mask(path: Path) -> bool:
    return path.name.lower().endswith(_MASK)
