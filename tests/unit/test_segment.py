"""One picture to its mask: geometry of every format, areas of the patient's sides, flags, and what is refused."""

from __future__ import annotations

import gzip
import io
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from femur_tasks.dataset.likeness import Likeness, learned
from femur_tasks.serving.segment import Refused, Segmented, read_bytes, segment
from tests.radiographs import Array, grey_hw, nifti
from tests.served import SIZE, lone_femur, served, two_femurs
from tests.unit.test_dicom import dataset, written

GREY = grey_hw(1, SIZE, SIZE)
LEFT_OF_PICTURE, RIGHT_OF_PICTURE = 14 * 6, 10 * 6


def encoded(kind: str, pixels: Array = GREY) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def segmented(data: bytes, **how: Any) -> Segmented:
    return segment(served(**how), read_bytes(data))


def flags_of(probability: Array) -> tuple[str, ...]:
    return segmented(encoded("PNG"), probability=lambda _: probability).findings.flags


def test_mask_of_a_nifti_has_its_header() -> None:
    data = gzip.compress(nifti(grey_hw(1, 40, 48).T, "mm", (0.2, 0.3)))
    found = segmented(data)
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(found.mask_file))
    original = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    assert found.suffix == "_mask.nii.gz"
    assert mask.header.get_zooms() == original.header.get_zooms()
    np.testing.assert_array_equal(mask.affine, original.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, found.mask_hw)
    assert np.asarray(mask.dataobj).T[30, 9] == 1, "never transposed"
    assert np.asarray(mask.dataobj).T[9, 30] == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "DICOM"])
def test_mask_of_any_other_picture_is_a_png_of_its_size(kind: str) -> None:
    pixels = grey_hw(1, 40, 48)
    found = segmented(written(dataset(pixels)) if kind == "DICOM" else encoded(kind, pixels))
    mask = np.asarray(Image.open(io.BytesIO(found.mask_file)))
    assert found.suffix == "_mask.png"
    assert mask.shape == (40, 48)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask > 0, found.mask_hw)


def test_areas_are_of_the_patients_sides() -> None:
    found = segmented(nifti(GREY.T, "mm", (0.5, 0.4))).findings
    assert (found.right_px, found.left_px) == (LEFT_OF_PICTURE, RIGHT_OF_PICTURE)
    assert (found.right_mm2, found.left_mm2) == (pytest.approx(84 * 0.2), pytest.approx(60 * 0.2))


def test_mirrored_header_swaps_the_sides_and_no_spacing_gives_no_square_millimetres() -> None:
    found = segmented(written(dataset(GREY, PatientOrientation=["R", "F"]))).findings
    assert (found.left_px, found.right_px) == (LEFT_OF_PICTURE, RIGHT_OF_PICTURE)
    assert (found.left_mm2, found.right_mm2) == (None, None)


def test_one_femur_is_flagged_and_the_other_side_has_no_area() -> None:
    found = segmented(encoded("PNG"), probability=lone_femur).findings
    assert "one_femur" in found.flags
    assert (found.right_px, found.left_px) == (LEFT_OF_PICTURE, None)


@pytest.mark.parametrize("reach", [np.s_[:14, 5], np.s_[-10:, 5], np.s_[20, :8], np.s_[20, -8:]])
def test_femur_at_the_edge_of_the_picture_is_flagged(reach: Any) -> None:
    probability = two_femurs(GREY)
    assert "cut_by_frame" not in flags_of(probability)
    probability[reach] = 1
    assert "cut_by_frame" in flags_of(probability)


def test_shapes_that_are_no_two_femurs_are_flagged() -> None:
    three = two_femurs(GREY)
    three[2:6, 13:19] = 1
    found = segmented(encoded("PNG"), probability=lambda _: three)
    assert "many_parts" in found.findings.flags
    assert not found.mask_hw[2:6, 13:19].any(), "what lies away from both femurs is none"
    large = np.zeros_like(three)
    large[2:-2, 2:-2] = 1
    assert "femur_area" in flags_of(large)


def test_picture_unlike_the_training_cases_is_flagged() -> None:
    limits = Likeness(np.eye(256, dtype=np.float32), 0.9), Likeness(np.eye(256, dtype=np.float32), -0.9)
    assert ["unlike_training" in segmented(encoded("PNG"), likeness=known).findings.flags for known in limits] == [
        True,
        False,
    ]


def test_likeness_is_not_judged_by_few_training_cases() -> None:
    found = segmented(encoded("PNG"), likeness=learned(np.eye(4, 256, dtype=np.float32))).findings
    assert found.likeness is None
    assert "unlike_training" not in found.flags


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable"),
        (nifti(np.full((9, 9), 5, np.uint8)), "constant_image"),
        (nifti(np.ones((4, 4, 4))), "wrong_shape"),
        (nifti(np.full((9, 9), np.nan, np.float32)), "not_finite"),
        (encoded("PNG")[:60], "unreadable"),
    ],
    ids=["empty", "constant", "volume", "NaN", "breaks off"],
)
def test_picture_that_cannot_be_used_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        segmented(data)
    assert refused.value.code == code


def test_picture_without_a_femur_is_refused() -> None:
    with pytest.raises(Refused, match="sees no femur") as refused:
        segmented(encoded("PNG"), probability=lambda _: np.zeros((SIZE, SIZE), np.float32))
    assert refused.value.code == "no_femur"
