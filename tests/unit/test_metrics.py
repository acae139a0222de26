"""Per-case metrics: known squares, medpy's definition by brute force, and the patient's two femurs apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from femur_tasks.errors import FemurError
from femur_tasks.evaluation import metrics
from femur_tasks.evaluation.metrics import case_metrics, mask_metrics, side_metrics
from femur_tasks.evaluation.sides import split_picture

Mask = NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]  # first row, last row, first column, last column

HEIGHT, WIDTH = 40, 100
RIGHT_FEMUR: Rectangle = (20, 29, 10, 24)  # the patient's right lies at the picture's left
LEFT_FEMUR: Rectangle = (20, 29, 75, 89)
BRIDGE: Rectangle = (24, 25, 25, 74)


def _mask(*rectangles: Rectangle, shape_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> Mask:
    mask = np.zeros(shape_hw, dtype=bool)
    for top, bottom, left, right in rectangles:
        mask[top : bottom + 1, left : right + 1] = True
    return mask


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("truth", "predicted", "dice", "iou", "hd95_px", "assd_px"),
    [
        # every pixel is surface; distances 1 1 0 0 both ways; the 95th percentile of 0 0 0 0 1 1 1 1 is 1
        pytest.param((2, 3, 2, 3), (2, 3, 3, 4), 1 / 2, 1 / 3, 1.0, 0.5, id="2x2 shifted by one column"),
        # distances 0 one way, 0 1 2 3 the other: pooled mean 6/5, and rank 3.8 of 0 0 1 2 3 is 2.8
        pytest.param((0, 0, 0, 0), (0, 0, 0, 3), 2 / 5, 1 / 4, 2.8, 1.2, id="one pixel in a row of four"),
        # ring of 16 round a ring of 8: four corners at sqrt 2, 20 distances of 1; rank 21.85 of 24 is sqrt 2
        pytest.param(
            (2, 6, 2, 6),
            (3, 5, 3, 5),
            18 / 34,
            9 / 25,
            math.sqrt(2),
            (20 + 4 * math.sqrt(2)) / 24,
            id="3x3 in the middle of 5x5",
        ),
        pytest.param((0, 0, 0, 0), (3, 3, 4, 4), 0.0, 0.0, 5.0, 5.0, id="two pixels 3 down and 4 across"),
        pytest.param((1, 4, 2, 7), (1, 4, 2, 7), 1.0, 1.0, 0.0, 0.0, id="equal"),
    ],
)
def test_known_masks_have_the_values_worked_out_by_hand(
    truth: Rectangle, predicted: Rectangle, dice: float, iou: float, hd95_px: float, assd_px: float
) -> None:
    found = mask_metrics(_mask(truth, shape_hw=(10, 10)), _mask(predicted, shape_hw=(10, 10)), None)
    assert found.dice == pytest.approx(dice)
    assert found.iou == pytest.approx(iou)
    assert found.hd95_px == pytest.approx(hd95_px)
    assert found.assd_px == pytest.approx(assd_px)
    assert found.flag is None


def test_hole_has_a_surface_of_its_own() -> None:
    whole = _mask((1, 7, 1, 7), shape_hw=(9, 9))
    holed = whole & ~_mask((4, 4, 4, 4), shape_hw=(9, 9))
    # outer rings of 24 agree; the four pixels round the hole lie 2 off the outer ring
    found = mask_metrics(whole, holed, None)
    assert found.assd_px == pytest.approx(4 * 2 / (24 + 24 + 4))


def test_pixels_at_the_pictures_edge_are_surface() -> None:
    truth = np.ones((3, 3), dtype=bool)
    predicted = _mask((1, 1, 1, 1), shape_hw=(3, 3))
    # the eight pixels round the middle lie 1 or sqrt 2 off it, the middle lies 1 off them
    assert mask_metrics(truth, predicted, None).assd_px == pytest.approx((5 + 4 * math.sqrt(2)) / 9)


def test_percentages_are_of_the_pictures_height_not_of_its_width() -> None:
    shape_hw = (10, 40)
    found = mask_metrics(_mask((0, 0, 0, 0), shape_hw=shape_hw), _mask((3, 3, 4, 4), shape_hw=shape_hw), None)
    assert (found.hd95_pct, found.assd_pct) == (50.0, 50.0)


@pytest.mark.parametrize(
    ("spacing_mm", "expected_mm"),
    [
        pytest.param(None, None, id="unknown"),
        pytest.param((0.2, 0.2), 1.0, id="isotropic"),
        pytest.param((2.0, 0.5), math.sqrt(6**2 + 2**2), id="rows 2 mm, columns half a mm"),
    ],
)
def test_millimetres_follow_the_spacing_of_rows_then_columns(
    spacing_mm: tuple[float, float] | None, expected_mm: float | None
) -> None:
    found = mask_metrics(_mask((0, 0, 0, 0), shape_hw=(10, 10)), _mask((3, 3, 4, 4), shape_hw=(10, 10)), spacing_mm)
    expected = None if expected_mm is None else pytest.approx(expected_mm)
    assert found.hd95_mm == expected
    assert found.assd_mm == expected
    assert found.hd95_px == 5.0


def test_areas_are_counted_apart() -> None:
    found = mask_metrics(_mask((0, 1, 0, 2)), _mask((0, 0, 0, 4)), None)
    assert (found.area_truth_px, found.area_predicted_px) == (6, 5)


@pytest.mark.parametrize(
    ("truth", "predicted", "score", "flag"),
    [
        pytest.param([], [], 1.0, "both_empty", id="both"),
        pytest.param([], [RIGHT_FEMUR], 0.0, "truth_empty", id="truth"),
        pytest.param([RIGHT_FEMUR], [], 0.0, "prediction_empty", id="prediction"),
    ],
)
def test_empty_mask_is_flagged_and_has_no_distance(
    truth: list[Rectangle], predicted: list[Rectangle], score: float, flag: str
) -> None:
    found = mask_metrics(_mask(*truth), _mask(*predicted), (0.1, 0.1))
    assert (found.dice, found.iou, found.flag) == (score, score, flag)
    distances = (found.hd95_px, found.assd_px, found.hd95_pct, found.assd_pct, found.hd95_mm, found.assd_mm)
    assert distances == (None,) * 6


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32], ids=str)
def test_zeros_and_ones_of_any_type_equal_bool(dtype: type[np.generic]) -> None:
    truth, predicted = _mask((2, 6, 2, 6)), _mask((3, 7, 2, 6))
    assert mask_metrics(truth.astype(dtype), predicted.astype(dtype), None) == mask_metrics(truth, predicted, None)


_GOOD = np.zeros((4, 5), dtype=np.uint8)


@pytest.mark.parametrize(
    ("truth", "predicted", "spacing_mm", "message"),
    [
        pytest.param(_GOOD, np.zeros((5, 4), np.uint8), None, "one shape", id="transposed"),
        pytest.param(_GOOD[None], _GOOD[None], None, r"\(height, width\)", id="batch axis"),
        pytest.param(np.zeros((0, 5)), np.zeros((0, 5)), None, r"\(height, width\)", id="no pixel"),
        pytest.param(_GOOD, _GOOD + 255, None, "zeros and ones", id="0 and 255"),
        pytest.param(_GOOD, np.full((4, 5), 0.7), None, "zeros and ones", id="probabilities"),
        pytest.param(np.full((4, 5), np.nan), _GOOD, None, "zeros and ones", id="NaN"),
        pytest.param(_GOOD, _GOOD, (0.1, 0.0), "above 0 mm", id="spacing of 0"),
        pytest.param(_GOOD, _GOOD, (math.nan, 0.1), "above 0 mm", id="spacing of NaN"),
        pytest.param(_GOOD, _GOOD, (1.0, 1.0, 1.0), "two spacings", id="three spacings"),
    ],
)
@pytest.mark.parametrize("measure", [mask_metrics, side_metrics], ids=["mask", "side"])
def test_unusable_arguments_are_refused(
    measure: Any, truth: NDArray[Any], predicted: NDArray[Any], spacing_mm: Any, message: str
) -> None:
    with pytest.raises(FemurError, match=message):
        measure(truth, predicted, spacing_mm)


# ---------------------------------------------------------------- medpy's definition, O(n^2)


def _brute_surface(mask: Mask) -> list[tuple[int, int]]:
    height, width = mask.shape
    surface = []
    for row, column in zip(*np.nonzero(mask), strict=True):
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        if not all(0 <= r < height and 0 <= c < width and mask[r, c] for r, c in around):
            surface.append((int(row), int(column)))
    return surface


def _brute_distances(truth: Mask, predicted: Mask, spacing_mm: tuple[float, float]) -> tuple[float, float]:
    a, b = _brute_surface(truth), _brute_surface(predicted)

    def nearest(of: list[tuple[int, int]], to: list[tuple[int, int]]) -> list[float]:
        return [min(math.hypot((r - s) * spacing_mm[0], (c - d) * spacing_mm[1]) for s, d in to) for r, c in of]

    pooled = sorted(nearest(a, b) + nearest(b, a))
    rank = 0.95 * (len(pooled) - 1)
    below, above = pooled[math.floor(rank)], pooled[math.ceil(rank)]
    return below + (above - below) * (rank - math.floor(rank)), sum(pooled) / len(pooled)


def _blob(seed: int, shape_hw: tuple[int, int] = (32, 27)) -> Mask:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape_hw), 2.5)
    return np.asarray(noise > np.quantile(noise, 0.6))


@pytest.mark.parametrize("points", [0, 100_000], ids=["distance transform", "tree"])
@pytest.mark.parametrize("seed", range(6))
def test_random_blobs_agree_with_a_brute_force_medpy(seed: int, points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_TREE_POINTS", points)
    truth, predicted, spacing_mm = _blob(seed), _blob(seed + 100), (0.3, 0.7)
    found = mask_metrics(truth, predicted, spacing_mm)
    assert (found.hd95_px, found.assd_px) == pytest.approx(_brute_distances(truth, predicted, (1.0, 1.0)))
    assert (found.hd95_mm, found.assd_mm) == pytest.approx(_brute_distances(truth, predicted, spacing_mm))


def test_tree_and_distance_transform_give_the_same_pixels_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = _blob(1, (200, 180)), _blob(2, (200, 180))
    by_tree = mask_metrics(truth, predicted, None)
    monkeypatch.setattr(metrics, "_TREE_POINTS", 0)
    assert mask_metrics(truth, predicted, None) == by_tree


# ---------------------------------------------------------------- properties

_pictures = hnp.arrays(np.bool_, (9, 11))
_properties = settings(max_examples=40, deadline=None)


@_properties
@given(_pictures, _pictures)
def test_overlap_and_distances_do_not_depend_on_which_mask_is_the_truth(a: Mask, b: Mask) -> None:
    one, other = mask_metrics(a, b, None), mask_metrics(b, a, None)
    assert (one.dice, one.iou, one.hd95_px) == (other.dice, other.iou, other.hd95_px)
    assert one.assd_px == pytest.approx(other.assd_px)


@_properties
@given(_pictures, _pictures, st.booleans())
def test_dice_of_one_means_equal_masks(a: Mask, b: Mask, same: bool) -> None:
    b = a.copy() if same else b
    assert (mask_metrics(a, b, None).dice == 1) == np.array_equal(a, b)


@_properties
@given(_pictures, _pictures)
def test_dice_and_iou_tell_the_same_story(a: Mask, b: Mask) -> None:
    found = mask_metrics(a, b, None)
    assert 0 <= found.iou <= found.dice <= 1
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))


@_properties
@given(_pictures, _pictures, st.integers(0, 6), st.integers(0, 6))
def test_moving_both_masks_together_changes_nothing(a: Mask, b: Mask, down: int, across: int) -> None:
    assume(a.any() and b.any())

    def moved(mask: Mask, down: int, across: int) -> Mask:
        # a margin of one keeps the picture's edge away, so that only the place differs
        return np.pad(mask, ((1 + down, 7 - down), (1 + across, 7 - across)))

    spacing_mm = (0.5, 0.25)
    here = mask_metrics(moved(a, 0, 0), moved(b, 0, 0), spacing_mm)
    assert mask_metrics(moved(a, down, across), moved(b, down, across), spacing_mm) == here


# ---------------------------------------------------------------- left and right


@pytest.mark.parametrize(
    ("as_hung", "left", "right"),
    [
        pytest.param(True, 1.0, 0.0, id="the picture's left is the patient's right"),
        pytest.param(False, 0.0, 1.0, id="the header says otherwise"),
    ],
)
def test_sides_are_the_patients(as_hung: bool, left: float, right: float) -> None:
    truth, predicted = _mask(LEFT_FEMUR, RIGHT_FEMUR), _mask(LEFT_FEMUR)
    found = side_metrics(truth, predicted, None, picture_right_is_patient_left=as_hung)
    assert found.left is not None
    assert found.right is not None
    assert (found.left.dice, found.right.dice) == (left, right)


@pytest.mark.parametrize(
    ("rectangles", "left", "right"),
    [
        pytest.param([], None, None, id="empty"),
        pytest.param([LEFT_FEMUR], [LEFT_FEMUR], None, id="left femur only"),
        pytest.param([RIGHT_FEMUR], None, [RIGHT_FEMUR], id="right femur only"),
        pytest.param([(20, 29, 35, 55)], None, [(20, 29, 35, 55)], id="one femur over the midline is not cut"),
        pytest.param(
            [RIGHT_FEMUR, LEFT_FEMUR, BRIDGE],
            [LEFT_FEMUR, (24, 25, 50, 74)],
            [RIGHT_FEMUR, (24, 25, 25, 49)],
            id="merged femurs are cut at the midline",
        ),
        pytest.param([(20, 29, 2, 16), (20, 29, 33, 47)], [(20, 29, 33, 47)], [(20, 29, 2, 16)], id="both in one half"),
        pytest.param(
            [RIGHT_FEMUR, LEFT_FEMUR, (5, 5, 40, 41), (5, 5, 55, 56)],
            [LEFT_FEMUR, (5, 5, 55, 56)],
            [RIGHT_FEMUR, (5, 5, 40, 41)],
            id="fragments go to the nearer femur",
        ),
        pytest.param(
            [RIGHT_FEMUR, (31, 36, 10, 24), (20, 22, 80, 89)],
            [(20, 22, 80, 89)],
            [RIGHT_FEMUR, (31, 36, 10, 24)],
            id="a broken femur is one side, though the other is its smaller part's size or less",
        ),
        pytest.param(
            [RIGHT_FEMUR, (31, 32, 12, 13), (20, 20, 80, 89)],
            None,
            [RIGHT_FEMUR, (31, 32, 12, 13)],
            id="a far speck is no femur",
        ),
    ],
)
def test_femurs_are_told_apart(
    rectangles: list[Rectangle], left: list[Rectangle] | None, right: list[Rectangle] | None
) -> None:
    picture_left, picture_right = split_picture(_mask(*rectangles))
    for found, expected in ((picture_right, left), (picture_left, right)):
        if expected is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found, _mask(*expected))


@_properties
@given(hnp.arrays(np.bool_, (8, 16)))
def test_sides_never_share_a_pixel_nor_add_one(mask: Mask) -> None:
    left, right = split_picture(mask)
    if left is not None and right is not None:
        assert not (left & right).any()
        np.testing.assert_array_equal(left | right, mask)
    for side in (left, right):
        assert side is None or (side.any() and not (side & ~mask).any())


@pytest.mark.parametrize(
    ("rectangles", "sides"),
    [
        pytest.param([LEFT_FEMUR, RIGHT_FEMUR], "both", id="two femurs"),
        pytest.param([LEFT_FEMUR], "left", id="left femur"),
        pytest.param([RIGHT_FEMUR], "right", id="right femur"),
        pytest.param([LEFT_FEMUR, RIGHT_FEMUR, BRIDGE], "both", id="merged femurs"),
        pytest.param([(20, 29, 45, 60)], "left", id="one femur over the midline"),
        pytest.param([(0, 9, 5, 45), (20, 29, 40, 90)], "both", id="femurs that overlap in columns"),
        pytest.param([], "", id="no femur"),
    ],
)
def test_perfect_prediction_is_perfect_on_every_side_the_truth_has(rectangles: list[Rectangle], sides: str) -> None:
    truth = _mask(*rectangles)
    found = side_metrics(truth, truth.copy(), None)
    for name, side in (("left", found.left), ("right", found.right)):
        if sides in (name, "both"):
            assert side is not None
            assert (side.dice, side.hd95_px, side.flag) == (1.0, 0.0, None)
        else:
            assert side is None


def test_missed_femur_scores_zero_and_is_not_null() -> None:
    found = side_metrics(_mask(LEFT_FEMUR, RIGHT_FEMUR), _mask(RIGHT_FEMUR), None)
    assert found.left is not None
    assert found.right is not None
    assert (found.left.dice, found.left.hd95_px, found.left.flag) == (0.0, None, "prediction_empty")
    assert found.right.dice == 1.0


def test_empty_prediction_scores_zero_on_both_sides() -> None:
    found = side_metrics(_mask(LEFT_FEMUR, RIGHT_FEMUR), _mask(), None)
    assert [side and side.flag for side in (found.left, found.right)] == ["prediction_empty"] * 2


def test_large_false_blob_costs_only_the_side_it_lies_on() -> None:
    blob = (0, 15, 52, 95)  # larger than either femur, so the prediction's own two largest components would mislead
    found = side_metrics(_mask(LEFT_FEMUR, RIGHT_FEMUR), _mask(LEFT_FEMUR, RIGHT_FEMUR, blob), None)
    assert found.left is not None
    assert found.right is not None
    assert found.right.dice == 1.0
    assert found.left.area_predicted_px == 150 + 16 * 44
    assert found.left.dice == pytest.approx(2 * 150 / (150 + 150 + 16 * 44))


def test_blob_in_place_of_a_missed_femur_scores_zero_without_a_flag() -> None:
    found = side_metrics(_mask(LEFT_FEMUR, RIGHT_FEMUR), _mask(RIGHT_FEMUR, (2, 4, 80, 84)), None)
    assert found.left is not None
    assert (found.left.dice, found.left.flag) == (0.0, None)
    assert found.left.hd95_px is not None


def test_merged_prediction_is_cut_midway_between_the_true_femurs() -> None:
    # the gap spans columns 25 to 64, so the cut lies left of column 45: 20 bridge columns of two rows on either side
    left_femur: Rectangle = (20, 29, 65, 79)
    truth = _mask(RIGHT_FEMUR, left_femur)
    found = side_metrics(truth, _mask(RIGHT_FEMUR, left_femur, (24, 25, 25, 64)), None)
    assert found.left is not None
    assert found.right is not None
    assert (found.left.area_predicted_px, found.right.area_predicted_px) == (190, 190)
    assert found.left.dice == found.right.dice == pytest.approx(300 / 340)


def test_femur_predicted_where_the_truth_has_none_leaves_that_side_null() -> None:
    found = side_metrics(_mask(RIGHT_FEMUR), _mask(RIGHT_FEMUR, LEFT_FEMUR), None)
    assert found.left is None
    assert found.right is not None
    assert found.right.dice == 1.0


def test_overshoot_over_the_midline_counts_for_a_lone_femur_that_reaches_it() -> None:
    # the femur ends at column 51, an eighth of 100 columns beyond is column 64: 65 and on do not count
    truth, predicted = _mask((20, 29, 30, 51)), _mask((20, 29, 30, 70))
    found = side_metrics(truth, predicted, None)
    assert found.left is None
    assert found.right is not None
    assert found.right.area_predicted_px == 10 * (65 - 30)


def test_truth_without_a_femur_has_no_side() -> None:
    found = side_metrics(_mask(), _mask(LEFT_FEMUR), None)
    assert (found.left, found.right) == (None, None)


def test_mirroring_both_masks_swaps_the_sides() -> None:
    truth, predicted = _mask(LEFT_FEMUR, RIGHT_FEMUR), _mask((18, 27, 10, 24), (20, 29, 70, 89))
    here = side_metrics(truth, predicted, (0.5, 0.25))
    mirrored = side_metrics(truth[:, ::-1], predicted[:, ::-1], (0.5, 0.25))
    assert (mirrored.left, mirrored.right) == (here.right, here.left)
    flipped = side_metrics(truth, predicted, (0.5, 0.25), picture_right_is_patient_left=False)
    assert (flipped.left, flipped.right) == (here.right, here.left)


# ---------------------------------------------------------------- a case


def test_case_keeps_full_size_and_training_size_apart() -> None:
    truth, predicted = _mask(LEFT_FEMUR, RIGHT_FEMUR), _mask(RIGHT_FEMUR)
    small_truth = _mask((2, 3, 2, 3), shape_hw=(8, 8))
    small_predicted = _mask((2, 3, 3, 4), shape_hw=(8, 8))
    found = case_metrics(truth, predicted, small_truth, small_predicted, None)
    assert found.dice_training_size == 0.5
    assert found.whole == mask_metrics(truth, predicted, None)
    assert found.whole.dice == pytest.approx(300 / 450)
    sides = side_metrics(truth, predicted, None)
    assert (found.left, found.right) == (sides.left, sides.right)


def test_case_at_the_reference_size_is_exact() -> None:
    # both femurs 10 rows too low at 2860 rows: 10/2860 of the height, and 700 x 400 px less 10 rows in common
    shape_hw = (2860, 2874)
    truth = _mask((1500, 2199, 300, 699), (1500, 2199, 2200, 2599), shape_hw=shape_hw)
    predicted = np.roll(truth, 10, axis=0)
    small = np.ones((4, 4), dtype=bool)
    found = case_metrics(truth, predicted, small, small, (0.14, 0.14))
    assert found.whole.dice == pytest.approx(690 / 700)
    assert found.whole.hd95_px == 10.0
    assert found.whole.hd95_pct == pytest.approx(1000 / 2860)
    assert found.whole.hd95_mm == pytest.approx(1.4)
    assert found.left == found.right
    assert found.left is not None
    assert found.left.dice == pytest.approx(690 / 700)


def test_implementation_has_a_name_and_a_version() -> None:
    assert metrics.IMPLEMENTATION == "femur-metrics/3 scipy"
