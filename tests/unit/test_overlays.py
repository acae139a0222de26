"""Overlays: the right colour at the right pixel, never mirrored, legible when shrunk."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from femur_tasks.errors import FemurError
from femur_tasks.evaluation.overlays import PREDICTION_RGB, TRUTH_RGB, contact_sheet, overlay, png_bytes

Rgb = NDArray[np.uint8]


def _square(top: int, left: int, side: int, shape_hw: tuple[int, int] = (40, 60)) -> NDArray[np.bool_]:
    mask = np.zeros(shape_hw, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def _grey(value: int = 100, shape_hw: tuple[int, int] = (40, 60)) -> Rgb:
    return np.full(shape_hw, value, dtype=np.uint8)


def _at(picture: Rgb, row: int, column: int) -> tuple[int, ...]:
    return tuple(int(value) for value in picture[row, column])


def _mixed(grey: int, colour: tuple[int, int, int], share: float) -> tuple[int, ...]:
    return tuple(round(grey * (1 - share) + channel * share) for channel in colour)


def test_prediction_alone_is_a_faint_orange_fill_with_an_orange_outline() -> None:
    picture = overlay(_grey(), _square(10, 5, 10))
    assert picture.shape == (40, 60, 3)
    assert picture.dtype == np.uint8
    assert _at(picture, 10, 5) == PREDICTION_RGB
    assert _at(picture, 15, 10) == _mixed(100, PREDICTION_RGB, 0.15)
    assert _at(picture, 15, 40) == (100, 100, 100)


def test_pixels_of_only_one_mask_take_that_masks_colour() -> None:
    # prediction columns 5 to 14, truth columns 10 to 19
    picture = overlay(_grey(), _square(10, 5, 10), _square(10, 10, 10))
    assert _at(picture, 15, 7) == _mixed(100, PREDICTION_RGB, 0.55)
    assert _at(picture, 15, 12) == _mixed(100, PREDICTION_RGB, 0.15)
    assert _at(picture, 15, 17) == _mixed(100, TRUTH_RGB, 0.55)


def test_truths_outline_lies_over_the_predictions() -> None:
    picture = overlay(_grey(), _square(10, 5, 10), _square(10, 5, 10))
    assert _at(picture, 10, 5) == TRUTH_RGB
    assert _at(picture, 15, 10) == _mixed(100, PREDICTION_RGB, 0.15)


@pytest.mark.parametrize("truth", [None, _square(30, 50, 10)], ids=["no truth", "truth"])
def test_outside_the_masks_the_radiograph_is_untouched_and_not_mirrored(truth: NDArray[np.bool_] | None) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    predicted = _square(0, 0, 5)
    before = image.copy()
    picture = overlay(image, predicted, truth)
    outside = ~predicted if truth is None else ~(predicted | truth)
    for channel in range(3):
        np.testing.assert_array_equal(picture[:, :, channel][outside], image[outside])
    np.testing.assert_array_equal(image, before)
    assert _at(picture, 0, 0) == PREDICTION_RGB


def test_empty_masks_leave_a_grey_picture() -> None:
    empty = np.zeros((40, 60), dtype=bool)
    np.testing.assert_array_equal(overlay(_grey(), empty, empty), np.full((40, 60, 3), 100, np.uint8))


def test_integer_masks_draw_as_bool_masks_do() -> None:
    predicted, truth = _square(10, 5, 10), _square(10, 10, 10)
    as_integers = overlay(_grey(), predicted.astype(np.uint8), truth.astype(np.uint8))
    np.testing.assert_array_equal(as_integers, overlay(_grey(), predicted, truth))


def test_outline_of_a_large_picture_grows_so_that_it_survives_shrinking() -> None:
    shape_hw = (1024, 1024)
    picture = overlay(_grey(0, shape_hw), _square(400, 400, 200, shape_hw))
    assert [_at(picture, 500, column) == PREDICTION_RGB for column in (399, 400, 403, 404)] == [
        False,
        True,
        True,
        False,
    ]
    small = np.asarray(contact_sheet([picture], [""], 1))
    strongest = small[:, :, 0].astype(int) - small[:, :, 2]  # orange has much red and no blue
    assert ((strongest > 180).sum(axis=1) > 0).any()


@pytest.mark.parametrize(
    ("image", "predicted", "truth", "message"),
    [
        pytest.param(_grey().astype(float), _square(0, 0, 5), None, "uint8", id="float image"),
        pytest.param(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), None, r"\(height, width\)", id="colour image"),
        pytest.param(_grey(), _square(0, 0, 5).T, None, "prediction of the image's shape", id="transposed prediction"),
        pytest.param(_grey(), _square(0, 0, 5), _square(0, 0, 5).T, "truth of the image's shape", id="truth"),
        pytest.param(_grey(), _square(0, 0, 5) * np.uint8(255), None, "zeros and ones", id="0 and 255"),
    ],
)
def test_unusable_pictures_are_refused(
    image: Rgb, predicted: NDArray[Any], truth: NDArray[Any] | None, message: str
) -> None:
    with pytest.raises(FemurError, match=message):
        overlay(image, predicted, truth)


def _colours(count: int) -> list[Rgb]:
    return [np.full((20, 20, 3), (10 * index, 200, 90), dtype=np.uint8) for index in range(1, count + 1)]


def test_panels_run_row_by_row() -> None:
    sheet = contact_sheet(_colours(5), ["a", "b", "c", "d", "e"], columns=2, panel_px=64)
    pixels = np.asarray(sheet)
    places = {}
    for index in range(1, 6):
        rows, columns = np.nonzero((pixels == (10 * index, 200, 90)).all(axis=2))
        assert (rows.size, int(np.ptp(rows)), int(np.ptp(columns))) == (64 * 64, 63, 63)
        places[index] = (int(rows.min()), int(columns.min()))
    assert places[1][0] == places[2][0] < places[3][0] == places[4][0] < places[5][0]
    assert places[1][1] == places[3][1] == places[5][1] < places[2][1] == places[4][1]


def test_fewer_panels_than_columns_leave_no_empty_column() -> None:
    assert contact_sheet(_colours(2), ["", ""], columns=5).size == contact_sheet(_colours(2), ["", ""], columns=2).size


@pytest.mark.parametrize("shape_hw", [(30, 60), (60, 30)], ids=["wide", "tall"])
def test_proportions_are_kept(shape_hw: tuple[int, int]) -> None:
    sheet = np.asarray(contact_sheet([np.full((*shape_hw, 3), (9, 200, 90), np.uint8)], [""], 1, panel_px=64))
    rows, columns = np.nonzero((sheet == (9, 200, 90)).all(axis=2))
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    assert (height, width) == ((32, 64) if shape_hw == (30, 60) else (64, 32))


def test_sheet_is_not_mirrored() -> None:
    panel = np.zeros((32, 32), dtype=np.uint8)
    panel[:8, :8] = 255
    sheet = np.asarray(contact_sheet([panel], [""], 1, panel_px=32).convert("L"))
    inside = sheet[4:36, 4:36]
    assert inside[2, 2] == 255
    assert inside[2, -3] == inside[-3, 2] == 0


def _ink(caption: str, columns: int = 2) -> NDArray[np.bool_]:
    """Where the caption of the first of two panels left ink on the sheet."""
    black = np.zeros((8, 8), dtype=np.uint8)
    other = np.full((8, 8, 3), 255, dtype=np.uint8)
    sheet = np.asarray(contact_sheet([black, other], [caption, ""], columns, panel_px=128).convert("L"))
    return np.asarray(sheet[4 + 128 :] < 128)


def test_caption_is_drawn_below_its_panel() -> None:
    assert not _ink("").any()
    assert _ink("case 17").any()


def test_long_caption_stays_under_its_panel_and_takes_two_lines() -> None:
    one, two = _ink("case"), _ink("REAL_14, Dice 0.902, HD95 1.4 % of the height and " + "so on " * 20)
    assert two.shape[0] > one.shape[0]
    assert two[:, : 4 + 128].any()
    assert not two[:, 4 + 128 :].any()


def test_caption_without_a_space_is_cut() -> None:
    ink = _ink("x" * 300)
    assert ink.any()
    assert not ink[:, 4 + 128 :].any()


@pytest.mark.parametrize(
    ("panels", "captions", "columns", "panel_px", "message"),
    [
        pytest.param([], [], 2, 64, "one or more panels", id="no panel"),
        pytest.param(_colours(2), ["a"], 2, 64, "2 panels, 1 captions", id="a caption short"),
        pytest.param(_colours(1), ["a"], 0, 64, "at least 1 column", id="no column"),
        pytest.param(_colours(1), ["a"], 1, 8, "16 px", id="tiny panels"),
        pytest.param([np.zeros((4, 4), bool)], ["a"], 1, 64, "uint8", id="a mask"),
        pytest.param([np.zeros((4, 4, 4), np.uint8)], ["a"], 1, 64, r"\(height, width, 3\)", id="four channels"),
    ],
)
def test_unusable_sheets_are_refused(
    panels: list[Rgb], captions: list[str], columns: int, panel_px: int, message: str
) -> None:
    with pytest.raises(FemurError, match=message):
        contact_sheet(panels, captions, columns, panel_px)


def test_png_reads_back_to_the_same_pixels() -> None:
    picture = overlay(_grey(), _square(10, 5, 10), _square(10, 10, 10))
    data = png_bytes(picture)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
    assert png_bytes(Image.fromarray(picture)) == data


def test_png_of_something_else_is_refused() -> None:
    with pytest.raises(FemurError, match="uint8"):
        png_bytes(np.zeros((4, 4), dtype=np.float64))
