"""YOLO polygons: data.yaml, and `images/` beside `labels/` with a line an outline in shares of the picture's size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from femur_tasks.dataset.layouts.annotations import MAX_TEXT_BYTES, read_text, read_yaml
from femur_tasks.dataset.layouts.draft import Draft
from femur_tasks.dataset.layouts.layout import Layout, Shape, Shapes
from femur_tasks.dataset.layouts.source import Source, kind, split_of, whole
from femur_tasks.dataset.problems import Faulty

_YAML = ("data.yaml", "data.yml")
_HALVES = ("images", "labels")
_LINE = "a class number and x y by turns, three points at least: a box is no outline"
_LOWEST, _HIGHEST = -0.05, 1.05


def recognise(source: Source) -> tuple[Path, ...]:
    """Every data.yaml; without one, the image folders whose labels are text files of the same names."""
    if found := tuple(path for path in source.named(*_YAML) if path.name in _YAML):
        return found
    return tuple(folder for folder in _image_folders(source) if _texts(source, folder).keys() & source.pictures(folder))


def read(source: Source, marks: tuple[Path, ...]) -> Layout:
    """A case an image; splits are what the folders are called, whatever paths data.yaml gives."""
    draft = Draft(source, "yolo")
    classes: dict[Path, Mapping[int, str]] = {}
    for path in marks:
        where = source.shown(path.parent) + _YAML[0]
        if path.name not in _YAML:
            draft.bad(where, "no such file", "data.yaml with the names of the classes")
            continue
        try:
            classes[path.parent] = _names(read_yaml(path))
            draft.classes(classes[path.parent], where)
        except Faulty as err:
            draft.faulty(where, err)
    for folder in _image_folders(source):
        top = next((parent for parent in folder.parents if parent in classes), None)
        if top is not None:
            _read_folder(draft, folder, classes[top])
    return draft.layout()


def _image_folders(source: Source) -> list[Path]:
    """`images/`, and the folders of splits in it; one of them or its labels may be missing."""
    return sorted({images for folder in source.files if (images := _beside(folder, "images"))})


def _beside(folder: Path, name: str) -> Path | None:
    """The folder of the other half: train/images and train/labels, or images/train and labels/train."""
    if folder.name in _HALVES:
        return folder.with_name(name)
    if split_of(folder) and folder.parent.name in _HALVES:
        return folder.parent.with_name(name) / folder.name
    return None


def _labels(images: Path) -> Path:
    return _beside(images, "labels") or images


def _texts(source: Source, images: Path) -> dict[str, Path]:
    paths = source.files.get(_labels(images), ())
    return {path.stem: path for path in paths if path.suffix.lower() == ".txt"}


def _names(tree: object) -> dict[int, str]:
    """The classes' names by number; data.yaml gives them as a list or as a mapping."""
    names = tree.get("names") if isinstance(tree, dict) else None
    if isinstance(names, list):
        names = {f"{number}": name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise Faulty("bad_annotations", f"names is {kind(names)}", "the classes' names in their order")
    found: dict[int, str] = {}
    for number, name in names.items():
        value = whole(number)
        if value is None or value in found or not isinstance(name, str) or not name.isprintable() or not name:
            raise Faulty("bad_annotations", f"class {number!r:.20} is {kind(name)}", "one name a class number")
        found[value] = name
    return found


def _read_folder(draft: Draft, folder: Path, classes: Mapping[int, str]) -> None:
    split = split_of(folder) or split_of(folder.parent)
    images, texts, masks = draft.pictures(folder), _texts(draft.source, folder), dict[str, Path | Shapes]()
    where = draft.source.shown(_labels(folder))
    for stem, path in texts.items():
        if stem not in images:
            masks[stem] = path
            continue
        try:
            lines = read_text(path, MAX_TEXT_BYTES).split("\n")
        except Faulty as err:
            draft.problems.append(err.of(draft.source.namer.named(stem).case_id, where))
            del images[stem]
            continue
        parts: list[Shape] = []
        for number, line in enumerate(lines, 1):
            if words := line.split():
                with draft.part(f"{where} of {draft.source.namer.named(stem).case_id}", f"line {number}", stem):
                    draft.points(len(words) // 2)
                    parts.append(_part(words, classes))
        masks[stem] = Shapes(tuple(parts), relative=True)
    draft.partners(split, images, masks, (folder, _labels(folder)))


def _part(words: list[str], classes: Mapping[int, str]) -> Shape:
    label = whole(words[0])
    if label is None or label not in classes:
        raise Faulty("bad_annotations", f"class {words[0]!r:.20}", f"a class of data.yaml, 0 to {max(classes)}")
    if len(words) == 5:
        raise Faulty("bad_annotations", "a box", _LINE)
    if len(words) < 7 or len(words) % 2 == 0:
        raise Faulty("bad_annotations", f"{len(words) - 1} coordinates", _LINE)
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError as err:
        raise Faulty("bad_annotations", "a word among the coordinates", _LINE) from err
    wrong = next((number for number in numbers if not _LOWEST <= number <= _HIGHEST), None)
    if wrong is not None:
        raise Faulty("bad_annotations", f"a coordinate of {wrong:g}", "shares of the picture's size, 0 to 1")
    return Shape(label, (np.array(numbers, np.float64).reshape(-1, 2),))
