"""Medical Segmentation Decathlon: a dataset.json that lists the image and label of every case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from femur_tasks.dataset.layouts.annotations import read_json
from femur_tasks.dataset.layouts.draft import Draft
from femur_tasks.dataset.layouts.layout import Layout
from femur_tasks.dataset.layouts.source import Source, inside, kind, whole
from femur_tasks.dataset.problems import Faulty

_JSON = "dataset.json"


def recognise(source: Source) -> tuple[Path, ...]:
    """Every dataset.json with a list of training cases."""
    return tuple(path for path in source.named(_JSON) if path.name == _JSON and _is_ours(path))


def _is_ours(path: Path) -> bool:
    try:
        tree = read_json(path)
    except Faulty:
        return False
    return isinstance(tree, dict) and "training" in tree and "file_ending" not in tree


def read(source: Source, marks: tuple[Path, ...]) -> Layout:
    """The cases that are listed with a label; of no split where no test case has one."""
    draft = Draft(source, "decathlon")
    for path in marks:
        try:
            _read(draft, path.parent, read_json(path))
        except Faulty as err:
            draft.faulty(_JSON, err)
    return draft.layout()


def _read(draft: Draft, folder: Path, tree: Any) -> None:
    if not isinstance(tree, dict):
        raise Faulty("bad_annotations", kind(tree), "an object with labels and training")
    labels, classes = tree.get("labels"), {}
    if not isinstance(labels, dict):
        draft.bad(_JSON, f"labels is {kind(labels)}", 'an object, such as {"0": "background", "1": "femur"}')
        labels = {}
    for number, name in labels.items():
        if (value := whole(number)) is None or not isinstance(name, str):
            draft.bad(_JSON, f"label {number!r:.20} is {kind(name)}", "the class's name by its number")
        else:
            classes[value] = name
    draft.classes(classes, _JSON)
    listed = {part: _listed(draft, tree, part) for part in ("training", "test")}
    tested = any(isinstance(entry, dict) and "label" in entry for entry in listed["test"])
    for part, split in (("training", "train" if tested else None), ("test", "test")):
        for number, entry in enumerate(listed[part], 1):
            with draft.part(_JSON, f"{part} entry {number}"):
                _entry(draft, folder, entry, part, split)


def _listed(draft: Draft, tree: dict[str, Any], part: str) -> list[Any]:
    entries = tree.get(part, [])
    if isinstance(entries, list):
        return entries
    draft.bad(_JSON, f"{part} is {kind(entries)}", "a list of cases")
    return []


def _entry(draft: Draft, folder: Path, entry: object, part: str, split: str | None) -> None:
    """One case of a list, or an image without a label.

    Raises:
        Faulty: its entry is of no use.
    """
    fields = entry if isinstance(entry, dict) else {"image": entry}
    image = inside(folder, fields.get("image"))
    if (stem := draft.source.stem(image)) is None:
        raise Faulty("bad_annotations", "an image that is no picture file", "the path of a picture")
    if part == "test" and "label" not in fields:
        return draft.problem("unlabelled", stem, "an image of the test list without a label", "its mask")
    mask = inside(folder, fields.get("label"))
    for what, path in (("image", image), ("mask", mask)):
        if path not in draft.source.present:
            where = draft.source.shown(path.parent)
            return draft.problem("missing_partner", stem, f"its {what} is listed, but not there", f"a file in {where}")
    return draft.case(stem, split, image, mask)
