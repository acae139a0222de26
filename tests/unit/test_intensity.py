"""Grey values: what is 0 to 255 stays, and everything else is windowed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from femur_tasks.dataset.intensity import class_numbers, luminance, to_grey
from femur_tasks.dataset.problems import Faulty

THOUSAND = np.arange(1000).reshape(20, 50)  # its 0.5th percentile is the fifth value, 4; its 99.5th is 994


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[0, 255]], np.uint8), [[0, 255]]),
        (np.array([[3, 200]], np.int32), [[3, 200]]),
        (np.array([[0, 1]], np.uint16), [[0, 1]]),
        (np.array([[0.4, 1.6, 254.5]]), [[0, 2, 254]]),
        (np.array([[7.0, 7.0]]), [[7, 7]]),
    ],
    ids=["bytes", "whole numbers", "dark whole numbers", "floats", "constant"],
)
def test_eight_bits_are_kept(values: np.ndarray, grey: list[list[int]]) -> None:
    found, window = to_grey(values)
    assert window is None
    assert found.dtype == np.uint8
    assert found.tolist() == grey


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_more_than_eight_bits_are_windowed_by_their_percentiles(dtype: type) -> None:
    found, window = to_grey(THOUSAND.astype(dtype))
    assert window == (4, 994)
    assert found.ravel()[[0, 4, 5, 499, 994, 999]].tolist() == [0, 0, 0, 128, 255, 255]  # 255 * 495 / 990 = 127.5


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (THOUSAND - 500, (-496, 494)),
        (THOUSAND / 1000, (0.004, 0.994)),
        (THOUSAND * 1_000_000, (4_000_000, 994_000_000)),
        (np.int64([[-(2**62), 2**62]]), (-(2.0**62), 2.0**62)),
        (np.where(THOUSAND == 999, 4000, 100), (100, 4000)),
    ],
    ids=["negative", "floats of at most 1", "32 bits", "64 bits", "one bright pixel on an even ground"],
)
def test_window_is_told(values: np.ndarray, window: tuple[float, float]) -> None:
    found, told = to_grey(values)
    assert told == window
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("value", [0.5, -3, 4000.0, 2**40], ids=str)
@pytest.mark.filterwarnings("error")
def test_constant_picture_is_divided_by_nothing(value: float) -> None:
    found, window = to_grey(np.full((3, 4), value))
    assert window == (value, value)
    assert not found.any()


def test_order_of_grey_values_is_kept() -> None:
    values = np.random.default_rng(2).normal(2000, 500, (50, 60))
    found = to_grey(values)[0].ravel()[np.argsort(values.ravel())]
    assert (np.diff(found.astype(int)) >= 0).all()


def test_sample_of_a_large_picture_is_the_same_every_time_and_close() -> None:
    values = np.random.default_rng(2).normal(0, 1, (3000, 2000))
    window = to_grey(values)[1]
    assert window == to_grey(values.copy())[1]
    assert window == pytest.approx((-2.576, 2.576), abs=0.03)


def test_luminance_is_that_of_pillow() -> None:
    colour = np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(luminance(colour), np.asarray(Image.fromarray(colour).convert("L")))


def test_luminance_of_sixteen_bits_does_not_overflow() -> None:
    assert luminance(np.array([[[65535] * 3, [65535, 0, 0]]], np.uint16)).tolist() == [[65535, 19595]]


def test_mask_in_colours_has_no_class_numbers() -> None:
    mask = np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2, 1), 3, axis=2)
    assert class_numbers(mask).tolist() == [[0, 1], [2, 3]]
    mask[1, 1, 2] = 0
    with pytest.raises(Faulty) as refused:
        class_numbers(mask)
    assert refused.value.code == "mask_values"
