"""The synthetic phantom: repeatable, in the reference layout, right side up, and too varied for a mean mask."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from femur_tasks.errors import FemurError
from femur_tasks.phantom import LABELS, PhantomCase, make_case, write_dataset
from femur_tasks.phantom.labels import femur_mask
from femur_tasks.phantom.lettering import Lettering
from femur_tasks.phantom.scene import random_scene

SIZE = 128


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.nii.gz")}


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [make_case(index, seed=5, size=SIZE) for index in range(10)]


def test_same_arguments_give_the_same_case(cases: list[PhantomCase]) -> None:
    again = make_case(3, seed=5, size=SIZE)
    np.testing.assert_array_equal(again.image_hw, cases[3].image_hw)
    np.testing.assert_array_equal(again.labels_hw, cases[3].labels_hw)
    assert again.spacing_mm == cases[3].spacing_mm


@pytest.mark.parametrize(("index", "seed"), [(4, 5), (3, 6)], ids=["another index", "another seed"])
def test_other_arguments_give_another_case(cases: list[PhantomCase], index: int, seed: int) -> None:
    other = make_case(index, seed, SIZE)
    assert not np.array_equal(other.image_hw, cases[3].image_hw)
    assert not np.array_equal(other.labels_hw, cases[3].labels_hw)


def test_splits_repeat_every_five_cases(cases: list[PhantomCase]) -> None:
    assert [case.split for case in cases] == ["train", "train", "train", "valid", "test"] * 2
    assert [case.case_id for case in cases[:2]] == ["SYN_0000", "SYN_0001"]


def test_arrays_are_uint8_and_labels_are_known(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert case.image_hw.shape == case.labels_hw.shape == (SIZE, SIZE)
        assert case.image_hw.dtype == case.labels_hw.dtype == np.uint8
        assert set(np.unique(case.labels_hw)) == set(LABELS.values())


def test_another_size_shows_the_same_anatomy() -> None:
    small, large = make_case(1, 5, SIZE), make_case(1, 5, 2 * SIZE)
    shrunk = large.labels_hw[::2, ::2] == LABELS["femur"]
    femur = small.labels_hw == LABELS["femur"]
    assert 2 * (shrunk & femur).sum() / (shrunk.sum() + femur.sum()) > 0.96
    halved = large.image_hw.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
    assert np.corrcoef(halved.ravel(), small.image_hw.ravel())[0, 1] > 0.99
    assert small.spacing_mm[0] == pytest.approx(2 * large.spacing_mm[0])


def test_both_femurs_are_whole_and_one_lies_in_each_half(cases: list[PhantomCase]) -> None:
    for case in cases:
        femur = case.labels_hw == LABELS["femur"]
        components, count = ndimage.label(femur)
        assert count == 2
        centres = sorted(x for _, x in ndimage.center_of_mass(femur, components, [1, 2]))
        assert centres[0] < SIZE / 2 < centres[1]
        assert min(ndimage.sum_labels(femur, components, [1, 2])) > 0.01 * SIZE**2
        border = np.concatenate([femur[0], femur[-1], femur[:, 0], femur[:, -1]])
        assert not border.any()


def test_femur_edges_show_in_the_image() -> None:
    # the cortex of the shaft is brighter than the muscle beside it, and the mask's edge is where that happens
    inside, outside = [], []
    for index in range(4):
        case = make_case(index, 5, 256)
        femur = case.labels_hw == LABELS["femur"]
        rows = np.zeros_like(femur)
        bottom = np.flatnonzero(femur.any(axis=1))[-1]
        rows[bottom - 22 : bottom - 8] = True
        inside.append(case.image_hw[rows & femur & ~ndimage.binary_erosion(femur, iterations=4)].mean())
        outside.append(case.image_hw[rows & ~femur & ndimage.binary_dilation(femur, iterations=4)].mean())
    assert np.all(np.subtract(inside, outside) > 12)


def _best_match(picture: np.ndarray, letter: np.ndarray) -> float:
    """Highest normalised correlation of the letter with any place in the picture."""
    windows = np.lib.stride_tricks.sliding_window_view(picture.astype(np.float64), letter.shape)
    centred = windows - windows.mean(axis=(2, 3), keepdims=True)
    pattern = letter - letter.mean()
    norm = np.sqrt((centred**2).sum(axis=(2, 3)) * (pattern**2).sum())
    return float(((centred * pattern).sum(axis=(2, 3)) / np.maximum(norm, 1e-9)).max())


def test_r_marker_stands_upright_on_the_left_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    # where it stands is a draw: fix it, so that the letter to look for has a known height
    def fixed(femur_hw: np.ndarray, rng: np.random.Generator) -> Lettering:
        return Lettering("R", 0.03, 0.75, 0.06, 245.0)

    monkeypatch.setattr("femur_tasks.phantom.case.random_marker", fixed)
    corner = make_case(0, 5, 256).image_hw[180:225, :40]
    canvas = Image.new("L", (80, 80), 0)
    font = ImageFont.load_default(size=0.06 * 512 * 1.35)
    ImageDraw.Draw(canvas).text((40, 40), "R", fill=255, font=font, anchor="mm", stroke_width=1)
    letter = np.asarray(canvas.reduce(2), np.float64)[10:31, 11:30]
    upright, mirrored, flipped = (_best_match(corner, shape) for shape in (letter, letter[:, ::-1], letter[::-1]))
    assert upright > 0.85
    assert upright > mirrored + 0.1
    assert upright > flipped + 0.1


def test_r_marker_is_bright_in_the_left_third(cases: list[PhantomCase], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("femur_tasks.phantom.case.burn_in", lambda image, letterings: image)
    for index in (0, 1, 2):
        difference = cases[index].image_hw.astype(int) - make_case(index, 5, SIZE).image_hw
        columns = np.nonzero(difference[6:] > 60)[1]
        assert columns.size > 0
        assert columns.max() < SIZE / 3, "only SYNTHETIC in the first rows is further right"


def test_written_file_is_the_transposed_picture_and_says_synthetic(tmp_path: Path) -> None:
    write_dataset(tmp_path, cases=5, seed=5, size=64)
    case = make_case(4, 5, 64)
    for folder, expected in (("imgs", case.image_hw), ("targets", case.labels_hw)):
        image = nib.load(tmp_path / "test" / folder / "SYN_0004.nii.gz")
        stored = np.asanyarray(image.dataobj)
        assert stored.dtype == np.uint8
        np.testing.assert_array_equal(stored.T, expected)
        assert image.header.get_zooms() == pytest.approx((case.spacing_mm[1], case.spacing_mm[0]))
        assert image.header["descrip"].item().decode() == "SYNTHETIC phantom, not a patient"
    raw = (tmp_path / "test" / "imgs" / "SYN_0004.nii.gz").read_bytes()
    assert raw[4:8] == bytes(4), "gzip's time is 0, else the bytes would not repeat"
    assert gzip.decompress(raw)[344:347] == b"n+1"


def test_larger_dataset_contains_the_smaller_one_byte_for_byte(tmp_path: Path) -> None:
    done: list[None] = []
    write_dataset(tmp_path / "five", cases=5, seed=5, size=64)
    # ten are enough for a process pool, five are written by this process
    write_dataset(tmp_path / "ten", cases=10, seed=5, size=64, on_case=lambda: done.append(None))
    five, ten = _files(tmp_path / "five"), _files(tmp_path / "ten")
    assert len(five) == 10
    assert len(ten) == 20
    assert len(done) == 10
    assert five == {name: ten[name] for name in five}
    assert sorted(name.split("/")[0] for name in five) == ["test"] * 2 + ["train"] * 6 + ["valid"] * 2


def test_mean_mask_of_the_training_cases_is_a_poor_segmentation() -> None:
    masks = []
    for index in range(100):
        anatomy = np.random.default_rng(np.random.SeedSequence([0, index]).spawn(4)[0])
        scene = random_scene(anatomy)
        masks.append(femur_mask(scene, scene.plate(SIZE)))
    femurs = np.stack(masks)
    split = np.arange(100) % 5
    mean_mask = femurs[split < 3].mean(axis=0) > 0.5
    dice = [2 * (mask & mean_mask).sum() / (mask.sum() + mean_mask.sum()) for mask in femurs[split == 4]]
    assert 0.35 < float(np.mean(dice)) < 0.62


@pytest.mark.parametrize(
    ("index", "seed", "size"), [(-1, 0, 64), (0, -1, 64), (0, 0, 16)], ids=["index", "seed", "size"]
)
def test_arguments_out_of_range_are_refused(index: int, seed: int, size: int) -> None:
    with pytest.raises(FemurError, match="Expected index >= 0"):
        make_case(index, seed, size)


def test_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FemurError, match="Expected 1 case or more"):
        write_dataset(tmp_path, cases=0, seed=0)
