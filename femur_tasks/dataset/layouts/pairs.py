"""Pairs of folders: `{train,valid,test}/{imgs,targets}` or `{images,labels}`, and the same without split folders."""

from __future__ import annotations

from pathlib import Path

from femur_tasks.dataset.layouts.draft import Draft
from femur_tasks.dataset.layouts.layout import Layout
from femur_tasks.dataset.layouts.source import Source, split_of

_PAIRS = {"imgs": "targets", "images": "labels"}
_IMAGES_OF = {masks: images for images, masks in _PAIRS.items()}


def recognise_reference(source: Source) -> tuple[Path, ...]:
    """The image folders of all pairs, where one of them lies in a split folder."""
    found = recognise_flat(source)
    if not any(split_of(images.parent) for images in found):
        return ()
    # pictures of a README lie in a folder of that name too
    return tuple(images for images in found if split_of(images.parent) or _masks(images) in source.files)


def recognise_flat(source: Source) -> tuple[Path, ...]:
    """The image folders of all pairs; one of the two folders may be missing."""
    either = (folder for folder in source.files if folder.name in _PAIRS or folder.name in _IMAGES_OF)
    images = {folder.with_name(_IMAGES_OF.get(folder.name, folder.name)) for folder in either}
    return tuple(sorted(folder for folder in images if source.pictures(folder) or source.pictures(_masks(folder))))


def read_reference(source: Source, marks: tuple[Path, ...]) -> Layout:
    """The cases in the splits that their folders say."""
    return _read(Draft(source, "reference"), {images: split_of(images.parent) for images in marks})


def read_flat(source: Source, marks: tuple[Path, ...]) -> Layout:
    """The cases, of no split."""
    return _read(Draft(source, "flat"), dict.fromkeys(marks))


def _read(draft: Draft, splits: dict[Path, str | None]) -> Layout:
    for images, split in splits.items():
        masks = _masks(images)
        draft.partners(split, draft.pictures(images), draft.pictures(masks), (images, masks))
    draft.class_tables()
    return draft.layout()


def _masks(images: Path) -> Path:
    return images.with_name(_PAIRS[images.name])
