"""Layouts: which files of a source are the image and the mask of which case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from femur_tasks.dataset.problems import Problem

_SPLIT_OF_FOLDER = {"train": "train", "valid": "val", "val": "val", "test": "test"}
_PAIRS = (("imgs", "targets"), ("images", "labels"))
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class CaseFiles:
    """The two files of one case; `split` is None where the source does not say."""

    case_id: str
    split: str | None
    image: Path
    mask: Path


def find_cases(folder: Path) -> tuple[list[CaseFiles], list[Problem]]:
    """The cases of a reference layout `{train,valid,test}/{imgs,targets}` or of its flat cousin `images/ labels/`.

    The layout may lie in a sub-folder, as archives often hold one folder around everything.

    Returns:
        Cases in the order of their ids, and every file that has no partner or claims an id twice.
    """
    cases: dict[str, CaseFiles] = {}
    problems: list[Problem] = []
    pairs = _pairs_of_folders(folder)
    if not pairs:
        expected = "{train,valid,test}/{imgs,targets} or images/ labels/, with .nii.gz files in them"
        return [], [Problem("unknown_layout", folder.name, "no pair of image and mask folders", expected)]
    for split, images, masks in pairs:
        of_image, of_mask = _by_case(images, problems), _by_case(masks, problems)
        for case_id in sorted(of_image.keys() ^ of_mask.keys()):
            have, lack = ("image", "mask") if case_id in of_image else ("mask", "image")
            where = (masks if have == "image" else images).relative_to(folder)
            problems.append(Problem("missing_partner", case_id, f"only its {have}", f"its {lack} in {where}/"))
        for case_id in sorted(of_image.keys() & of_mask.keys()):
            if case_id in cases:
                earlier = cases[case_id].image.relative_to(folder)
                problems.append(Problem("duplicate_case", case_id, f"also as {earlier}", "one case an id"))
                continue
            cases[case_id] = CaseFiles(case_id, split, of_image[case_id], of_mask[case_id])
    if not cases and not problems:
        problems.append(Problem("no_cases", folder.name, "no .nii.gz file in its folders", "at least one case"))
    return [cases[case_id] for case_id in sorted(cases)], problems


def _pairs_of_folders(folder: Path) -> list[tuple[str | None, Path, Path]]:
    found: list[tuple[str | None, Path, Path]] = []
    for images_name, masks_name in _PAIRS:
        either = (path for name in (images_name, masks_name) for path in folder.glob(f"**/{name}") if path.is_dir())
        found += [
            (_SPLIT_OF_FOLDER.get(parent.name.lower()), parent / images_name, parent / masks_name)
            for parent in sorted({path.parent for path in either})
        ]
    return found


def _by_case(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """The NIfTI files of one folder by case id; a folder that is missing has none."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        suffix = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        case_id = path.name[: -len(suffix)]
        if case_id in files:
            found = f"{files[case_id].name} and {path.name} in {folder.name}/"
            problems.append(Problem("duplicate_case", case_id, found, "one file an id"))
        files.setdefault(case_id, path)
    return files
