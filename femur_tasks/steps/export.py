"""Export: a dataset version as a folder in the reference layout, which ingested again is the same version."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sqlalchemy import func, select

from femur_tasks.dataset.conversion import pixel_digest
from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.manifest import Manifest, ManifestCase, canonical_json
from femur_tasks.dataset.masks import femur_of_labels
from femur_tasks.dataset.picture import Array, Picture
from femur_tasks.dataset.pictures import nifti, read_labels, read_picture
from femur_tasks.dataset.problems import Faulty
from femur_tasks.errors import DigestMismatch, FemurError
from femur_tasks.registry.tables import DatasetCase
from femur_tasks.steps.context import Context
from femur_tasks.steps.datasets import label, withdrawn_cases
from femur_tasks.steps.run import find_version
from femur_tasks.storage import ObjectStore

MARK = "export.json"
_CLASSES = "_classes.csv", b"Pixel Value, Class\n0, background\n1, femur\n"
_FOLDERS = {"train": "train", "val": "valid", "test": "test"}
_WORKERS = 4
_MAX_MARK_BYTES = 1 << 16


@dataclass(frozen=True)
class Exported:
    """What was exported, and what an ingest of the folder has to be told.

    Attributes:
        size: edge of the version's training pictures, px.
        kept: cases that an earlier try had written.
        allowed: codes of the errors that were lifted for cases of the version.
        shared_patients: patients of several cases: the layout has no place for them.
        withdrawn: ids of its cases that were withdrawn since.
    """

    dataset: str
    digest: str
    size: int
    cases: int
    kept: int
    allowed: tuple[str, ...]
    shared_patients: int
    withdrawn: tuple[str, ...]


def export(
    context: Context, name: str, out: Path, on_cases: Callable[[int, int], None] = lambda _done, _total: None
) -> Exported:
    """Write the version that `NAME` (its newest) or `NAME@DIGEST` means; one that broke off goes on where it was.

    Pictures are 8-bit grey values with their spacing, masks are 0 and 1, both at the original size. Every array is
    checked against the digest in the manifest before it is written.

    Args:
        out: made where it is missing; what it holds must be of this very export.
        on_cases: told after each case how many are done, and how many there are.

    Raises:
        NotFound: no such dataset or version, or the store has lost a file of it.
        DigestMismatch: a file of the store gives other pixels than it did when it was ingested.
        FemurError: the folder holds something else, or can't be written.
    """
    with context.registry.reading() as session:
        version = find_version(session, name)
        key, withdrawn = version.manifest_key, withdrawn_cases(session, version)
        problems = session.scalars(
            select(DatasetCase.problems).where(
                DatasetCase.digest == version.digest, func.json_array_length(DatasetCase.problems) > 0
            )
        )
        allowed = {problem["code"] for found in problems for problem in found if problem.get("allowed")}
    manifest = Manifest.from_json(context.store.get(key))
    _claim(out, manifest)
    kept = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        one = partial(_export_case, context.store, out, frozenset(manifest.femur))
        for done, was_there in enumerate(pool.map(one, manifest.cases), 1):
            kept += was_there
            on_cases(done, len(manifest.cases))
    patients = Counter(case.patient for case in manifest.cases)
    return Exported(
        dataset=manifest.dataset,
        digest=manifest.digest,
        size=manifest.size,
        cases=len(manifest.cases),
        kept=kept,
        allowed=tuple(sorted(allowed)),
        shared_patients=sum(count > 1 for count in patients.values()),
        withdrawn=tuple(withdrawn),
    )


def _paths(out: Path, case: ManifestCase) -> tuple[Path, Path]:
    folder, file = out / _FOLDERS[case.split], f"{case.case_id}.nii.gz"
    if Path(file).name != file:
        raise FemurError(f"Expected a case id that can be a file's name. Received: {case.case_id!r}.")
    return folder / "imgs" / file, folder / "targets" / file


def _claim(out: Path, manifest: Manifest) -> None:
    """Mark the folder as this version's, unless it holds anything else."""
    version, other = label(manifest.dataset, manifest.digest), "Name another folder with --out."
    if out.exists() and not out.is_dir():
        raise FemurError(f"Expected a folder. Received: {out}, which is a file.", other)
    if _holds_something(out) and _marked(out) != manifest.digest:
        raise FemurError(
            f"Expected an empty folder, or an export of {version}. Received: {out}, which holds something else.",
            other,
        )
    ours = {out / MARK, out / _CLASSES[0], *(path for case in manifest.cases for path in _paths(out, case))}
    for path in out.rglob("*") if out.is_dir() else ():
        if path.is_file() and path not in ours and not _is_passing(path):
            raise FemurError(f"Expected files of {version} alone. Received: {path}.", f"Remove it. {other}")
    mark = {"dataset": manifest.dataset, "digest": manifest.digest, "size": manifest.size}
    _write(out / MARK, canonical_json(mark) + b"\n")
    _write(out / _CLASSES[0], _CLASSES[1])


def _holds_something(out: Path) -> bool:
    return out.is_dir() and any(not _is_passing(path) for path in out.iterdir())


def _is_passing(path: Path) -> bool:
    """What no ingest looks at: a file that was being written, and what operating systems leave behind."""
    return path.name.endswith(".part") or path.name.startswith(".")


def _marked(out: Path) -> str | None:
    try:
        with (out / MARK).open("rb") as file:
            told = json.loads(file.read(_MAX_MARK_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    digest = told.get("digest") if isinstance(told, dict) else None
    return digest if isinstance(digest, str) else None


def _export_case(store: ObjectStore, out: Path, femur: frozenset[int], case: ManifestCase) -> bool:
    """Write both files of a case; True where they were there already."""
    image_path, mask_path = _paths(out, case)
    has_image = _is_whole(image_path, case.image_sha256, case)
    has_mask = _is_whole(mask_path, case.mask_sha256, case)
    if not has_image:
        grey, _ = to_grey(_raw(store, case.raw_image_key, read_picture, case).pixels_hw)
        _write_checked(image_path, grey, case.image_sha256, case)
    if not has_mask:
        mask, _ = femur_of_labels(_raw(store, case.raw_mask_key, read_labels, case).pixels_hw, femur)
        _write_checked(mask_path, mask.view(np.uint8), case.mask_sha256, case)
    return has_image and has_mask


def _is_whole(path: Path, sha256: str, case: ManifestCase) -> bool:
    if not path.exists():
        return False
    try:
        found = read_picture(path)
    except Faulty:
        return False
    spacing = found.spacing_mm and (round(found.spacing_mm[0], 6), round(found.spacing_mm[1], 6))
    return pixel_digest(found.pixels_hw) == sha256 and spacing == case.spacing_mm


def _raw(store: ObjectStore, key: str, read: Callable[[Path], Picture], case: ManifestCase) -> Picture:
    with TemporaryDirectory(prefix="femur-export-") as folder:
        path = Path(folder) / "raw"
        store.download(key, path)
        try:
            return read(path)
        except Faulty as err:
            raise _changed(case, err.expected, err.found) from err


def _write_checked(path: Path, pixels_hw: Array, sha256: str, case: ManifestCase) -> None:
    found = pixel_digest(pixels_hw)
    if found != sha256:
        raise _changed(case, f"pixels with sha256 {sha256}", found)
    _write(path, nifti.encode(pixels_hw, case.spacing_mm))


def _changed(case: ManifestCase, expected: str, found: str) -> DigestMismatch:
    return DigestMismatch(
        f"Case {case.case_id}: Expected {expected}. Received: {found}.",
        "Its raw file is read otherwise than when it was ingested: ingest the source again.",
    )


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as err:
        raise FemurError(
            f"Expected to write {path}. Received: {err.strerror}.",
            "Make room for it, or name another folder with --out; the same command goes on where it was.",
        ) from err
