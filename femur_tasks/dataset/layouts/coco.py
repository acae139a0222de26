"""COCO segmentation as Roboflow exports it: `{train,valid,test}/_annotations.coco.json` with the pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from femur_tasks.dataset.layouts.annotations import read_json
from femur_tasks.dataset.layouts.draft import Draft
from femur_tasks.dataset.layouts.layout import Layout, Run, Shape, Shapes
from femur_tasks.dataset.layouts.source import Source, inside, kind, split_of
from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.problems import Faulty

MAX_IMAGES = 100_000
_ROBOFLOW = "_annotations.coco.json"
_KEYS = ("images", "annotations", "categories")
_BLOCK = 1 << 20
_T = TypeVar("_T")


def recognise(source: Source) -> tuple[Path, ...]:
    """Every annotation file: by its name, or any .json that has the three keys."""
    return tuple(path for path in source.named(".json") if path.name.endswith(_ROBOFLOW) or _has_keys(path))


def _has_keys(path: Path) -> bool:
    """Whether a file has the keys somewhere; it may be too large to be parsed."""
    lacking, tail = {f'"{key}"'.encode() for key in _KEYS}, b""
    with path.open("rb") as file:
        while lacking and (block := file.read(_BLOCK)):
            block = tail + block
            lacking = {key for key in lacking if key not in block}
            tail = block[-16:]
    return not lacking


@dataclass(frozen=True)
class _Image:
    stem: str
    path: Path
    size_hw: tuple[int, int] | None
    parts: list[Shape]


def read(source: Source, marks: tuple[Path, ...]) -> Layout:
    """A case an image, its mask the outlines of all its annotations; the split is that of the file's folder."""
    draft = Draft(source, "coco")
    listed: set[Path] = set()
    tops: set[Path] = set()
    for path in marks:
        where = source.shown(path.parent) + (_ROBOFLOW if path.name.endswith(_ROBOFLOW) else "annotations")
        try:
            listed |= _read_file(draft, path, where)
            tops.add(path.parent)
        except Faulty as err:
            draft.faulty(where, err)
    for folder in source.files:
        if not tops.isdisjoint((folder, *folder.parents)):
            for stem, (image, *_) in source.pictures(folder).items():
                if image not in listed:
                    found = f"not listed in the annotations of {source.shown(folder) or 'its folder'}"
                    draft.problem("unlabelled", stem, found, "an annotated image")
    return draft.layout()


def _read_file(draft: Draft, path: Path, where: str) -> set[Path]:
    """Put the cases and classes of one file into the draft; the images that it lists come back.

    Raises:
        Faulty: nothing of it can be used, or it is too large.
    """
    tree = _lists(read_json(path))
    classes: dict[int, str] = {}
    supers: set[str] = set()
    for number, entry in enumerate(tree["categories"], 1):
        with draft.part(where, f"category {number}"):
            class_id, name = _once(entry, classes), _text(entry, "name")
            classes[class_id] = name
            if "supercategory" in entry:
                supers.add(_text(entry, "supercategory"))
    images: dict[int, _Image] = {}
    for number, entry in enumerate(tree["images"], 1):
        with draft.part(where, f"image {number}"):
            image_id = _once(entry, images)
            images[image_id] = _image(draft, path.parent, entry)
    for number, entry in enumerate(tree["annotations"], 1):
        with draft.part(where, f"annotation {number}"):
            image = _known(entry, "image_id", images)
            with draft.part(where, f"annotation {number}", image.stem):
                _known(entry, "category_id", classes)
                image.parts.append(_shape(draft, entry))
    used = {part.label for image in images.values() for part in image.parts}
    if classes.get(0) in supers and 0 not in used:  # Roboflow's own: the project, over all classes
        del classes[0]
    draft.classes(classes, where)
    for image in images.values():
        if image.path in draft.source.present:
            draft.case(image.stem, split_of(path.parent), image.path, Shapes(tuple(image.parts), False, image.size_hw))
        else:
            found, expected = "an image that is listed, but not there", f"its picture beside {where}"
            draft.problem("missing_partner", image.stem, found, expected)
    return {image.path for image in images.values()}


def _lists(tree: object) -> dict[str, list[Any]]:
    if not isinstance(tree, dict):
        raise Faulty("bad_annotations", kind(tree), f"an object with {', '.join(_KEYS)}")
    for key in _KEYS:
        if not isinstance(tree.get(key), list):
            raise Faulty("bad_annotations", f"{key} is {kind(tree.get(key))}", "a list")
    if len(tree["images"]) > MAX_IMAGES:
        raise Faulty("too_large", f"{len(tree['images'])} images", f"at most {MAX_IMAGES} a file")
    return tree


def _image(draft: Draft, folder: Path, entry: dict[str, Any]) -> _Image:
    name, present = entry.get("file_name"), draft.source.present
    beside, below = inside(folder, name), inside(folder / "images", name)
    path = below if below in present and beside not in present else beside
    if (stem := draft.source.stem(path)) is None:
        raise Faulty("bad_annotations", "file_name is that of no picture", "the path of a picture")
    size = None
    if "height" in entry or "width" in entry:
        size = _whole(entry, "height"), _whole(entry, "width")
        if min(size) < 1:
            raise Faulty("bad_annotations", f"a size of {size[1]} x {size[0]} px", "the picture's size")
    return _Image(stem, path, size, [])


def _shape(draft: Draft, entry: dict[str, Any]) -> Shape:
    """One annotation; its numbers are taken out of the tree, which is large."""
    label, drawn = entry["category_id"], entry.pop("segmentation", None)
    if isinstance(drawn, dict):
        size, counts = drawn.get("size"), drawn.get("counts")
        if not isinstance(size, list) or len(size) != 2 or {type(edge) for edge in size} != {int}:
            raise Faulty("bad_annotations", "a run-length mask without its size", "size as [height, width]")
        if isinstance(counts, list) and set(map(type, counts)) <= {int}:
            counts = tuple(counts)
        elif not isinstance(counts, str):
            raise Faulty("bad_annotations", f"counts is {kind(counts)}", "a text or a list of whole numbers")
        draft.points(len(counts))
        return Shape(label, run=Run(size[0], size[1], counts))
    if not isinstance(drawn, list) or not drawn:
        found = "no outline" if drawn in ([], None) else f"segmentation is {kind(drawn)}"
        raise Faulty("bad_annotations", found, "polygons or a run-length mask: a box is none")
    draft.points(sum(len(flat) for flat in drawn if isinstance(flat, list)) // 2)
    return Shape(label, tuple(_outline(flat) for flat in drawn))


def _outline(flat: object) -> Array:
    if not isinstance(flat, list) or not set(map(type, flat)) <= {int, float}:
        raise Faulty("bad_annotations", "a polygon that is no list of numbers", "x and y by turns, px")
    if len(flat) % 2:
        raise Faulty("bad_annotations", f"a polygon of {len(flat)} numbers", "x and y by turns, px")
    try:
        return np.array(flat, np.float64).reshape(-1, 2)
    except OverflowError as err:
        raise Faulty("bad_annotations", "a coordinate of hundreds of digits", "x and y by turns, px") from err


def _whole(entry: object, field: str) -> int:
    value = entry.get(field) if isinstance(entry, dict) else None
    if type(value) is not int:
        raise Faulty("bad_annotations", f"{field} is {kind(value)}", "a whole number")
    return value


def _text(entry: dict[str, Any], field: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not value.isprintable():
        raise Faulty("bad_annotations", f"{field} is {kind(value)}", "a printable text")
    return value


def _once(entry: object, known: Mapping[int, object]) -> int:
    """The id of an entry, which no other has."""
    if (value := _whole(entry, "id")) in known:
        raise Faulty("bad_annotations", "an id that another one has", "each id once")
    return value


def _known(entry: object, field: str, known: Mapping[int, _T]) -> _T:
    """What an entry names by its id."""
    if (value := _whole(entry, field)) not in known:
        raise Faulty("bad_annotations", f"{field} is no id of the file's", "an id that the file has")
    return known[value]
