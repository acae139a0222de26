"""nnU-Net v2: `DatasetNNN_Name/` with dataset.json, imagesTr, labelsTr and maybe imagesTs, labelsTs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from femur_tasks.dataset.layouts.annotations import read_json
from femur_tasks.dataset.layouts.draft import Draft
from femur_tasks.dataset.layouts.layout import Layout
from femur_tasks.dataset.layouts.source import PICTURES, Source, kind
from femur_tasks.dataset.problems import Faulty

_CHANNEL = re.compile(r"^(?P<stem>.+)_(?P<channel>\d{4})$")
_JSON = "dataset.json"


def recognise(source: Source) -> tuple[Path, ...]:
    """Every dataset.json of nnU-Net, broken ones beside imagesTr included."""
    return tuple(path for path in source.named(_JSON) if path.name == _JSON and _is_ours(source, path))


def _is_ours(source: Source, path: Path) -> bool:
    try:
        tree = read_json(path)
    except Faulty:
        tree = None
    if isinstance(tree, dict) and ("training" in tree or tree.keys() & {"channel_names", "file_ending"}):
        return "training" not in tree or "file_ending" in tree
    return path.parent / "imagesTr" in source.files


def read(source: Source, marks: tuple[Path, ...]) -> Layout:
    """The cases of Tr as train, those of Ts that have labels as test."""
    draft = Draft(source, "nnunet")
    for path in marks:
        try:
            ending = _described(draft, read_json(path))
        except Faulty as err:
            draft.faulty(_JSON, err)
            continue
        for split, part in (("train", "Tr"), ("test", "Ts")):
            folders = path.parent / f"images{part}", path.parent / f"labels{part}"
            masks = _of_ending(draft, folders[1], ending)
            images = _images(draft, folders[0], ending, masks)
            if part == "Ts" and not masks:
                for stem in images:
                    draft.problem("unlabelled", stem, "an image of imagesTs/ without a label", "its mask in labelsTs/")
            else:
                draft.partners(split, images, masks, folders)
    return draft.layout()


def _described(draft: Draft, tree: Any) -> str:
    """The ending of the files; the classes go into the draft.

    Raises:
        Faulty: what dataset.json says of its files is of no use.
    """
    if not isinstance(tree, dict):
        raise Faulty("bad_annotations", kind(tree), "an object with channel_names, labels and file_ending")
    if not isinstance(tree.get("channel_names"), dict):
        draft.bad(_JSON, f"channel_names is {kind(tree.get('channel_names'))}", 'an object, such as {"0": "XR"}')
    labels, classes = tree.get("labels"), {}
    if not isinstance(labels, dict):
        draft.bad(_JSON, f"labels is {kind(labels)}", 'an object, such as {"background": 0, "femur": 1}')
        labels = {}
    for name, number in labels.items():
        if type(number) is int:
            classes[number] = name
        else:
            what = "a region of several classes" if isinstance(number, list) else kind(number)
            draft.bad(_JSON, f"label {name!r:.80} is {what}", "one class number a label")
    draft.classes(classes, _JSON)
    ending = tree.get("file_ending")
    if not isinstance(ending, str) or ending.lower() not in PICTURES:
        known = ending if isinstance(ending, str) else kind(ending)
        raise Faulty("bad_annotations", f"file_ending is {known!r:.40}", f"one of {', '.join(PICTURES)}")
    return ending


def _of_ending(draft: Draft, folder: Path, ending: str) -> dict[str, Path]:
    paths = draft.source.files.get(folder, ())
    return {path.name[: -len(ending)]: path for path in paths if path.name.endswith(ending) and path.name != ending}


def _images(draft: Draft, folder: Path, ending: str, masks: dict[str, Path]) -> dict[str, Path]:
    """The images by the stem of their case: without the number of their channel, which must be the only one.

    The masks of those that have others are taken out of `masks`: their cases have had their problem.
    """
    channels: dict[str, dict[str, Path]] = {}
    for stem, path in _of_ending(draft, folder, ending).items():
        found = _CHANNEL.match(stem)
        channels.setdefault(found["stem"] if found else stem, {})[found["channel"] if found else "none"] = path
    images: dict[str, Path] = {}
    for stem, paths in channels.items():
        if list(paths) == ["0000"]:
            images[stem] = paths["0000"]
        else:
            draft.problem("wrong_shape", stem, f"channels {', '.join(sorted(paths))}", f"one channel, _0000{ending}")
            masks.pop(stem, None)
    return images
