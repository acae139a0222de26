"""Checks: what the pixels of a case show is said, and nothing is said of a case that is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from femur_tasks.dataset.checks import edge_agreement, problems_of_mask, problems_of_pixels
from femur_tasks.dataset.pictures import read_labels, read_picture
from tests.radiographs import Array

FEMURS = (np.s_[30:90, 5:25], np.s_[30:90, 70:95])
"""A left and a right femur in 100 x 100: 1200 and 1500 px, 27 per cent; the right one is wider."""


def mask_of(*parts: tuple[slice, slice]) -> Array:
    mask = np.zeros((100, 100), bool)
    for part in parts:
        mask[part] = True
    return mask


def picture_of(mask: Array) -> Array:
    """Bone at 200 on soft tissue at 80."""
    return np.where(mask, 200, 80).astype(np.uint8)


def found(image: Array, mask: Array, area_pct: float | None = None) -> list[str]:
    area_pct = 100 * float(mask.mean()) if area_pct is None else area_pct
    return [problem.code for problem in problems_of_mask("A", image, mask, area_pct)]


BOTH = mask_of(*FEMURS)


def test_bright_femur_on_each_side_is_right() -> None:
    assert found(picture_of(BOTH), BOTH) == []


@pytest.mark.parametrize(
    ("area_pct", "codes"),
    [(0.5, []), (30.0, []), (0.4999, ["femur_area"]), (30.0001, ["femur_area"]), (1e-9, ["femur_area"])],
    ids=["least", "most", "too little", "too much", "next to nothing"],
)
def test_area_is_right_up_to_its_bounds(area_pct: float, codes: list[str]) -> None:
    assert found(picture_of(BOTH), BOTH, area_pct) == codes


def test_area_is_said_with_its_bounds() -> None:
    (problem,) = problems_of_mask("A", picture_of(BOTH), BOTH, 31.234)
    assert (problem.case_id, problem.found) == ("A", "femur on 31.23 per cent of the picture")
    assert problem.expected == "0.5 to 30 per cent of the picture"


def test_empty_mask_is_the_only_problem_of_its_case() -> None:
    nothing = np.zeros_like(BOTH)
    (problem,) = problems_of_mask("A", picture_of(BOTH), nothing, 0.0)
    assert (problem.code, problem.is_error) == ("empty_mask", True)


def test_femur_that_vanishes_in_the_small_copy_is_an_area_and_not_empty() -> None:
    assert found(picture_of(BOTH), np.zeros_like(BOTH), 0.001) == ["femur_area"]


@pytest.mark.parametrize(("which", "side"), [(0, "left"), (1, "right")], ids=["left", "right"])
def test_one_femur_is_a_warning_that_names_the_side_of_the_picture(which: int, side: str) -> None:
    mask = mask_of(FEMURS[which])
    (problem,) = problems_of_mask("A", picture_of(mask), mask, 12.0)
    assert (problem.code, problem.found) == ("one_femur", f"a femur on the picture's {side} alone")
    assert not problem.is_error


@pytest.mark.parametrize(
    ("part", "codes"),
    [
        (np.s_[2:12, 40:55], ["many_parts"]),  # 150 px, a tenth of the larger femur
        (np.s_[2:12, 40:54], []),  # 140 px: a speck
    ],
    ids=["a tenth", "less"],
)
def test_third_part_counts_from_a_tenth_of_the_largest(part: tuple[slice, slice], codes: list[str]) -> None:
    mask = mask_of(*FEMURS, part)
    assert found(picture_of(mask), mask) == codes


def test_parts_that_touch_at_a_corner_are_one() -> None:
    mask = mask_of(np.s_[30:60, 5:25], np.s_[60:90, 25:40], FEMURS[1])
    assert found(picture_of(mask), mask) == []


def test_dark_bone_is_inverted() -> None:
    (problem,) = problems_of_mask("A", 255 - picture_of(BOTH), BOTH, 27.0)
    assert (problem.code, problem.is_error) == ("inverted", False)
    assert problem.found == "bone darker than what surrounds it (edges agree by -1.00)"


def test_mask_that_fits_when_mirrored_is_mirrored() -> None:
    mask = mask_of(FEMURS[0], np.s_[20:70, 60:80])
    (problem,) = problems_of_mask("A", picture_of(mask), mask[:, ::-1], 22.0)
    assert (problem.code, problem.is_error) == ("mirrored", False)
    assert problem.found.endswith("by 1.00 with the mask mirrored")


def test_symmetric_mask_is_never_mirrored() -> None:
    mask = BOTH | BOTH[:, ::-1]
    assert found(picture_of(mask), mask) == []


@pytest.mark.parametrize(
    "grey",
    [np.full((100, 100), 90), np.random.default_rng(0).integers(0, 256, (100, 100))],
    ids=["even", "noise"],
)
def test_picture_without_edges_of_bone_says_nothing(grey: Array) -> None:
    assert found(grey.astype(np.uint8), BOTH) == []


def test_edges_agree_by_the_cosine_between_slope_and_inward_normal() -> None:
    half = np.zeros((40, 40), bool)
    half[:, 20:] = True
    grey = np.where(half, 200, 80).astype(np.uint8)
    assert edge_agreement(grey, half) == pytest.approx(1, abs=1e-3)
    assert edge_agreement(255 - grey, half) == pytest.approx(-1, abs=1e-3)
    assert edge_agreement(grey.T, half) == pytest.approx(0, abs=0.01), "slopes at right angles"
    assert edge_agreement(np.full_like(grey, 7), half) == 0


@pytest.mark.parametrize(
    ("pixels", "codes"),
    [
        (np.array([[1.0, np.nan, np.inf]]), ["not_finite"]),
        (np.array([[-np.inf, 1.0]]), ["not_finite"]),
        (np.array([[7, 7]], np.uint8), ["constant_image"]),
        (np.array([[7, 7]], np.uint16), ["constant_image"]),
        (np.array([[7, 8]], np.uint8), []),
        (np.array([[0.0, 1e-9]]), []),
    ],
    ids=["nan and inf", "minus inf", "constant", "constant 16 bits", "two values", "two floats"],
)
def test_picture_that_shows_nothing_is_refused(pixels: Array, codes: list[str]) -> None:
    assert [problem.code for problem in problems_of_pixels("A", pixels)] == codes


def test_pixels_that_are_no_numbers_are_counted() -> None:
    (problem,) = problems_of_pixels("A", np.array([[1.0, np.nan, np.inf]]))
    assert problem.found == "image: 2 NaN or Inf pixels"


# ---- real cases


@pytest.fixture(scope="module")
def real_cases(shared_data: Path) -> list[tuple[Array, Array]]:
    """Picture and femur of the eleven real radiographs, 256 x 256."""
    images = sorted((shared_data / "real_dev11").glob("*/imgs/*"))
    masks = [path.parents[1] / "targets" / path.name for path in images]
    return [
        (read_picture(image).pixels_hw.astype(np.uint8), read_labels(mask).pixels_hw == 1)
        for image, mask in zip(images, masks, strict=True)
    ]


def test_nothing_is_said_of_real_cases(real_cases: list[tuple[Array, Array]]) -> None:
    assert [found(image, mask) for image, mask in real_cases] == [[]] * 11


def test_every_real_picture_is_found_when_inverted(real_cases: list[tuple[Array, Array]]) -> None:
    assert [found(255 - image, mask) for image, mask in real_cases] == [["inverted"]] * 11


def test_nearly_every_real_mask_is_found_when_mirrored(real_cases: list[tuple[Array, Array]]) -> None:
    said = [found(image, mask[:, ::-1]) for image, mask in real_cases]
    assert said.count(["mirrored"]) >= 10
    assert [codes for codes in said if codes != ["mirrored"]] in ([], [[]]), "and nothing else of any"
