"""What `femur predict` is given: files and folders, and pictures that are none."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from femur_tasks.errors import NotFound
from femur_tasks.serving import predict as predicting
from femur_tasks.serving.predict import find_inputs
from tests.radiographs import Array, grey_hw, nifti

OUT = Path("/elsewhere/masks")


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_pictures_of_a_folder_come_in_order(tmp_path: Path) -> None:
    b, a, c = touch(tmp_path, "b.nii", "a.nii.gz", "sub/c.nii.gz")
    touch(tmp_path, "notes.txt", "._a.nii.gz", "scan.dcm")
    assert find_inputs([tmp_path], OUT) == [a, b, c]


def test_results_of_an_earlier_run_are_no_pictures(tmp_path: Path) -> None:
    picture, beside, named = touch(tmp_path, "a.nii.gz", "masks/b.nii.gz", "masks/a_mask.nii.gz")
    assert find_inputs([tmp_path], tmp_path / "masks") == [picture, beside]
    assert find_inputs([named], tmp_path / "masks") == [named], "asked for by name"


def test_file_that_is_named_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    (odd,) = touch(tmp_path, "scan.img")
    assert find_inputs([odd], OUT) == [odd]


@pytest.mark.parametrize("name", ["", "none.nii"], ids=["folder without pictures", "missing"])
def test_nothing_to_predict_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        find_inputs([tmp_path / name], OUT)


def half(grey: Array) -> Array:
    """A model that calls the left half femur."""
    probability = np.zeros((32, 32), np.float32)
    probability[:, :16] = 1
    return probability


def test_mask_and_overlay_are_written_in_the_input_geometry(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(grey_hw(1).T, "mm", (0.2, 0.3))))
    (result,) = predicting._predict_all([tmp_path / "a.nii.gz"], tmp_path, half, lambda: None)
    assert (result.problem, result.femur_px) == (None, 40 * 24)
    mask = nib.Nifti1Image.from_filename(tmp_path / "a_mask.nii.gz")
    assert mask.header.get_zooms() == pytest.approx((0.2, 0.3))
    stored_xy = np.asanyarray(mask.dataobj)
    assert stored_xy[:24].all()
    assert not stored_xy[24:].any()
    assert (tmp_path / "a_overlay.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "NIfTI"), (nifti(np.full((9, 9), 5, np.uint8)), "constant_image"), (nifti(np.ones((4, 4, 4))), "2-D")],
    ids=["empty", "constant", "volume"],
)
def test_bad_picture_is_a_problem_and_writes_nothing(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.nii").write_bytes(data)
    (result,) = predicting._predict_all([tmp_path / "a.nii"], tmp_path, half, lambda: None)
    assert result.problem is not None
    assert said in result.problem
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]


def test_picture_never_replaces_the_mask_of_another_of_its_name(tmp_path: Path) -> None:
    # imgs/ and targets/ of the reference layout hold files of the same names
    for folder, width in (("imgs", 48), ("targets", 50)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.nii").write_bytes(nifti(grey_hw(1, width=width).T))
    ticks: list[None] = []
    inputs = find_inputs([tmp_path], OUT)
    first, second = predicting._predict_all(inputs, tmp_path / "out", half, lambda: ticks.append(None))
    assert (first.problem, second.mask) == (None, None)
    assert second.problem is not None
    assert str(inputs[0]) in second.problem
    assert nib.Nifti1Image.from_filename(tmp_path / "out" / "a_mask.nii.gz").shape == (48, 40)
    assert len(ticks) == 2
