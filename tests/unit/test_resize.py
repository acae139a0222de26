"""Resizing: pictures by area, masks by coverage, probabilities back to the original size."""

from __future__ import annotations

import numpy as np
import pytest

from femur_tasks.dataset.resize import enlarge_probability, shrink_image, shrink_mask


def test_picture_is_the_mean_of_the_area() -> None:
    picture = np.array([[0, 2, 10, 10], [4, 6, 10, 10], [0, 0, 1, 2], [0, 100, 3, 4]], np.uint8)
    # means 3, 10, 25 and 2.5; Pillow rounds half up
    assert shrink_image(picture, 2).tolist() == [[3, 10], [25, 3]]
    assert shrink_image(picture, 2).dtype == np.uint8


def test_mask_is_femur_where_half_of_it_was() -> None:
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0, 1, 0]], bool)
    # coverage 1/4, 2/4, 3/4, 2/4
    assert shrink_mask(mask, 2).tolist() == [[0, 1], [1, 1]]
    assert shrink_mask(mask, 2).dtype == np.uint8


@pytest.mark.parametrize("edge", [6, 10, 12, 14])
def test_half_is_half_in_every_ratio(edge: int) -> None:
    for seed in range(30):
        pixels = np.random.default_rng(seed).permutation(edge * edge)
        assert shrink_mask((pixels < edge * edge // 2).reshape(edge, edge), 1).item() == 1
        assert shrink_mask((pixels < edge * edge // 2 - 1).reshape(edge, edge), 1).item() == 0


def test_aspect_is_not_kept() -> None:
    wide = np.repeat(np.array([[0, 200]], np.uint8), [6, 6], axis=1).repeat(4, axis=0)
    assert shrink_image(wide, 2).tolist() == [[0, 200], [0, 200]]


def test_nothing_is_mirrored_or_turned() -> None:
    picture = np.zeros((64, 96), np.uint8)
    picture[:32, :48] = 200
    assert shrink_image(picture, 32)[:16, :16].min() == 200
    assert shrink_image(picture, 32).sum() == 200 * 16 * 16
    assert shrink_mask(picture > 0, 32)[:16, :16].all()
    assert shrink_mask(picture > 0, 32).sum() == 16 * 16


def test_picture_of_the_right_size_is_left_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    np.testing.assert_array_equal(shrink_image(picture, 32), picture)
    np.testing.assert_array_equal(shrink_mask(picture > 99, 32), picture > 99)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16)], ids=["smaller", "lower", "narrower"])
def test_small_pictures_grow(shape: tuple[int, int]) -> None:
    half = np.zeros(shape, bool)
    half[:, : shape[1] // 2] = True
    assert shrink_mask(half, 32).tolist() == [[1] * 16 + [0] * 16] * 32
    assert shrink_image(half.astype(np.uint8) * 100, 32).shape == (32, 32)


def test_probability_goes_back_to_the_original_size() -> None:
    probability = np.zeros((32, 32), np.float32)
    probability[:16] = 1
    back = enlarge_probability(probability, 64, 40)
    assert back.shape == (64, 40)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back > 0.5, np.arange(64)[:, None] < np.full((1, 40), 32))
    assert back.min() >= 0
    assert back.max() <= 1
