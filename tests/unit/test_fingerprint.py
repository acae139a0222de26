"""Fingerprint: it stays with the hips whatever is done to the picture around them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from femur_tasks.dataset.fingerprint import SIDE, fingerprint
from femur_tasks.phantom import LABELS, make_case

Array = np.ndarray


def case(index: int, size: int = 128) -> tuple[Array, Array]:
    made = make_case(index, 3, size)
    return made.image_hw, made.labels_hw == LABELS["femur"]


IMAGE, FEMUR = case(0)


def likeness(first: Array, second: Array) -> float:
    """Plain correlation, without any search for the best fit."""
    return float(np.corrcoef(first.astype(float), second.astype(float))[0, 1])


def test_is_eight_kilobytes_and_the_same_in_another_process() -> None:
    found = fingerprint(IMAGE, FEMUR)
    assert found.shape == (SIDE * SIDE,)
    assert found.nbytes == 8192
    tell = (
        "import hashlib; from tests.unit.test_fingerprint import *; "
        "print(hashlib.sha256(fingerprint(IMAGE, FEMUR).tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True).stdout  # noqa: S603
    assert told.strip() == hashlib.sha256(found.tobytes()).hexdigest()


def test_picture_and_mask_are_left_as_they_were() -> None:
    image, femur = IMAGE.copy(), FEMUR.copy()
    fingerprint(image, femur)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(femur, FEMUR)


def test_crop_beside_the_femurs_changes_nothing() -> None:
    rows, columns = (np.flatnonzero(FEMUR.any(axis=axis)) for axis in (1, 0))
    kept = np.s_[8 : rows[-1] + 3, columns[0] - 2 : columns[-1] + 3]
    whole, part = fingerprint(IMAGE, FEMUR), fingerprint(IMAGE[kept], FEMUR[kept])
    seen = part != 0
    assert seen.mean() > 0.6
    assert likeness(whole[seen], part[seen]) > 0.95


@pytest.mark.parametrize("degrees", [-3, 3])
def test_small_turn_changes_nothing(degrees: int) -> None:
    image, femur = (
        np.asarray(Image.fromarray(a).rotate(degrees, Image.Resampling.BILINEAR))
        for a in (IMAGE, FEMUR * np.uint8(255))
    )
    assert likeness(fingerprint(IMAGE, FEMUR), fingerprint(image, femur > 127)) > 0.95


def test_contrast_is_the_same_everywhere() -> None:
    faint = IMAGE.copy()
    faint[:, :64] = 100 + IMAGE[:, :64] // 4
    left, right = np.split(fingerprint(faint, FEMUR).reshape(SIDE, SIDE).astype(float), 2, axis=1)
    assert left.std() == pytest.approx(right.std(), rel=0.35)


def test_size_of_the_picture_changes_nothing() -> None:
    assert likeness(fingerprint(*case(0, 128)), fingerprint(*case(0, 512))) > 0.6
    image, femur = (np.kron(a, np.ones((6, 6), a.dtype)) for a in (IMAGE, FEMUR))  # 768, which is shrunk
    assert likeness(fingerprint(IMAGE, FEMUR), fingerprint(image, femur)) > 0.9


@pytest.mark.parametrize("steps", [-2, 2], ids=["thinner", "thicker"])
def test_mask_drawn_thinner_or_thicker_changes_nothing(steps: int) -> None:
    morph = ndimage.binary_dilation if steps > 0 else ndimage.binary_erosion
    drawn = morph(FEMUR, iterations=abs(steps))
    assert likeness(fingerprint(IMAGE, FEMUR), fingerprint(IMAGE, drawn)) > 0.7


def test_shaft_that_was_cut_higher_changes_nothing() -> None:
    drawn = FEMUR.copy()
    drawn[np.flatnonzero(FEMUR.any(axis=1))[-1] - 8 :] = False
    assert likeness(fingerprint(IMAGE, FEMUR), fingerprint(IMAGE, drawn)) > 0.8


def test_specks_of_another_annotation_do_not_move_the_frame() -> None:
    drawn = FEMUR.copy()
    drawn[3:5, 40:90:3] = True
    np.testing.assert_array_equal(fingerprint(IMAGE, FEMUR), fingerprint(IMAGE, drawn))


def test_tone_changes_little_and_inversion_the_sign() -> None:
    darker = ((IMAGE / 255) ** 1.5 * 230).round().astype(np.uint8)
    assert likeness(fingerprint(IMAGE, FEMUR), fingerprint(darker, FEMUR)) > 0.9
    assert likeness(fingerprint(IMAGE, FEMUR), fingerprint(255 - IMAGE, FEMUR)) < -0.99


@pytest.mark.parametrize("keep", ["left", "right"])
def test_lone_femur_shows_the_hips_too(keep: str) -> None:
    middle = FEMUR.shape[1] // 2
    lone = FEMUR.copy()
    lone[:, middle:] &= keep == "right"
    lone[:, :middle] &= keep == "left"
    found = fingerprint(IMAGE, lone)
    # by a mirrored picture the side that is kept is the other one, and the fingerprint its mirror image
    mirrored = fingerprint(IMAGE[:, ::-1], lone[:, ::-1]).reshape(SIDE, SIDE)[:, ::-1]
    assert likeness(found, mirrored.ravel()) > 0.999
    assert not np.array_equal(found, fingerprint(IMAGE, FEMUR))


@pytest.mark.parametrize("shape", [(128, 128), (96, 128), (1, 1), (3, 900)], ids=str)
def test_empty_mask_takes_the_whole_picture(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = fingerprint(picture, np.zeros(shape, bool))
    assert np.isfinite(found).all()
    seen = (found.reshape(SIDE, SIDE) != 0).any(axis=1).mean()
    assert seen == pytest.approx(min(1, shape[0] / shape[1]), abs=0.05)


def test_black_picture_shows_nothing() -> None:
    assert not fingerprint(np.zeros_like(IMAGE), FEMUR).any()


def test_reference_picture_in_two_sizes_is_one(shared_data: Path) -> None:
    found = {}
    for path in sorted(shared_data.glob("real_*1*/**/imgs/*.nii.gz")):
        files = path, path.parents[1] / "targets" / path.name
        image, labels = (np.asarray(nib.Nifti1Image.from_filename(file).dataobj).T for file in files)
        found[path.name.partition(".")[0]] = fingerprint(image, labels == 1)
    large = found.pop("HIP_0411")
    likes = {name: likeness(large, small) for name, small in found.items()}
    assert max(likes, key=lambda name: likes[name]) == "REAL_10"
    assert len(likes) == 11
    assert sorted(likes.values())[-1] > 0.8 > 0.5 > sorted(likes.values())[-2]
