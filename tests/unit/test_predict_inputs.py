"""What `femur predict` is given and leaves: files and folders, names that collide, pictures that are none."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from femur_tasks.errors import FemurError, NotFound
from femur_tasks.serving.inputs import Input, find_inputs, stem
from femur_tasks.serving.predict import predict
from tests.radiographs import grey_hw, nifti
from tests.served import served
from tests.unit.test_dicom import dataset, written

OUT = Path("/elsewhere/masks")


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def paths_of(inputs: list[Input]) -> list[Path]:
    return [one.path for one in inputs]


def test_pictures_of_a_folder_come_in_order_with_names_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii", "a.nii.gz", "sub/c.PNG", "sub/d.dcm", "notes.txt", "._a.nii.gz", "README")
    (tmp_path / "IM0001").write_bytes(written(dataset(grey_hw(1))))
    found = find_inputs([tmp_path], OUT)
    assert [one.name for one in found] == ["IM0001", "a", "b", "sub/c", "sub/d"]


def test_results_of_an_earlier_run_are_no_pictures(tmp_path: Path) -> None:
    picture, beside, named = touch(tmp_path, "a.nii.gz", "masks/b.nii.gz", "masks/a_mask.nii.gz")
    touch(tmp_path, "masks/a_overlay.png", "masks/sub/c_mask.png")
    assert paths_of(find_inputs([tmp_path], tmp_path / "masks")) == [picture, beside]
    assert paths_of(find_inputs([named], tmp_path / "masks")) == [named], "asked for by name"


def test_file_that_is_named_is_taken_once_whatever_its_suffix(tmp_path: Path) -> None:
    odd, picture = touch(tmp_path, "scan.img", "a.png")
    assert paths_of(find_inputs([odd, picture, tmp_path], OUT)) == [odd, picture]


@pytest.mark.parametrize("name", ["", "none.nii"], ids=["folder without pictures", "missing"])
def test_nothing_to_predict_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        find_inputs([tmp_path / name], OUT)


@pytest.mark.parametrize(
    ("name", "expected"), [("a.b.nii.gz", "a.b"), ("a.JPEG", "a"), ("IM1", "IM1"), (".png", ".png"), ("x.y", "x.y")]
)
def test_name_of_results_is_the_file_without_a_pictures_suffix(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_mask_overlay_and_tables_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(grey_hw(1).T, "mm", (0.2, 0.3))))
    (tmp_path / "b.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    first, second = predict(served(), find_inputs([tmp_path], out), out)
    assert first.problem is None
    assert nib.Nifti1Image.from_filename(out / "a_mask.nii.gz").header.get_zooms() == pytest.approx((0.2, 0.3))
    assert Image.open(out / "a_overlay.png").size == (48, 40)
    assert second.problem is not None
    assert sorted(path.name for path in out.iterdir()) == [
        "a_mask.nii.gz", "a_overlay.png", "predictions.csv", "predictions.json",
    ]  # fmt: skip
    told = json.loads((out / "predictions.json").read_text())
    assert told["model"] == "femur:1"
    pixels, refused = told["pictures"]
    assert pixels["left_mm2"] == pytest.approx(pixels["left_px"] * 0.06)
    assert refused["problem"].startswith("unreadable: ")
    assert refused["mask"] is None
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert [row["source"] for row in rows] == [one["source"] for one in told["pictures"]]
    assert int(rows[0]["left_px"]) == pixels["left_px"]


def test_picture_never_replaces_the_mask_of_another_of_its_name(tmp_path: Path) -> None:
    for name, width in (("a.nii", 48), ("sub/a.nii", 50)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(nifti(grey_hw(1, width=width).T))
    ticks: list[None] = []
    out = tmp_path / "out"
    inputs = find_inputs([tmp_path / "a.nii", tmp_path / "sub"], out)
    first, second = predict(served(), inputs, out, lambda: ticks.append(None))
    assert (first.problem, second.mask) == (None, None)
    assert second.problem == f"duplicate_name: {tmp_path / 'a.nii'} has this name too"
    assert nib.Nifti1Image.from_filename(out / "a_mask.nii.gz").shape == (48, 40)
    assert len(ticks) == 2


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti(grey_hw(1).T))
    (tmp_path / "out").touch()
    with pytest.raises(FemurError, match="Expected to write into"):
        predict(served(), find_inputs([tmp_path / "a.nii"], OUT), tmp_path / "out")


def test_overlay_is_drawn_on_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    Image.fromarray(grey_hw(1)).save(tmp_path / "a.png")
    predict(served(), find_inputs([tmp_path], tmp_path / "out"), tmp_path / "out")
    drawn = np.asarray(Image.open(tmp_path / "out/a_overlay.png"))
    assert (drawn[0, 0] == grey_hw(1)[0, 0]).all()
