"""Grey values: colour as luminance, and any range of values as 0 to 255."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from femur_tasks.dataset.problems import Faulty

if TYPE_CHECKING:  # the pictures import this module
    from femur_tasks.dataset.picture import Array

_LOW, _HIGH = 0.005, 0.995
_BINS = 1 << 16
_SAMPLE = 1 << 20
_ROWS = 256


def to_grey(pixels_hw: Array) -> tuple[Array, tuple[float, float] | None]:
    """Grey values 0 to 255 as uint8, and the window by which they were brought there.

    Values that are 0 to 255 already are rounded and kept, and the window is None. Whatever lies beyond 8 bits
    (negative, above 255, or floats of at most 1) is mapped linearly, its 0.5th percentile to 0 and its 99.5th to 255;
    where the two are one value, the lowest and the highest are. A constant picture beyond 8 bits becomes 0.

    Args:
        pixels_hw: any real dtype, finite.
    """
    if pixels_hw.dtype == np.uint8:
        return np.ascontiguousarray(pixels_hw), None
    low, high = float(pixels_hw.min()), float(pixels_hw.max())
    if low >= 0 and high <= 255 and (high > 1 or pixels_hw.dtype.kind != "f"):
        return np.ascontiguousarray(np.rint(pixels_hw).astype(np.uint8)), None
    window = _percentiles(pixels_hw, low, high)
    if window[0] == window[1]:
        window = (low, high)
    if _few_levels(pixels_hw, low, high):
        levels = _windowed(np.arange(low, high + 1), window)
        return levels[np.subtract(pixels_hw, int(low), dtype=np.int64)], window
    return _windowed(pixels_hw, window), window


def _few_levels(pixels_hw: Array, low: float, high: float) -> bool:
    return pixels_hw.dtype.kind in "biu" and high - low < _BINS


def _percentiles(pixels_hw: Array, low: float, high: float) -> tuple[float, float]:
    """The least values that 0.5 and 99.5 per cent of the pixels do not exceed.

    They are exact for whole numbers of 16 bits; else they are those of every k-th pixel of every k-th row, so that
    a million are looked at, the same ones every time.
    """
    if _few_levels(pixels_hw, low, high):
        counts = np.bincount(np.subtract(pixels_hw, int(low), dtype=np.int64).ravel()).cumsum()
        first, last = np.searchsorted(counts, [_LOW * counts[-1], _HIGH * counts[-1]])
        return low + int(first), low + int(last)
    step = int(np.ceil(np.sqrt(pixels_hw.size / _SAMPLE)))
    sample = pixels_hw[::step, ::step].astype(np.float64)
    first, last = np.quantile(sample, [_LOW, _HIGH], method="inverted_cdf")
    return float(first), float(last)


def _windowed(values: Array, window: tuple[float, float]) -> Array:
    low, high = window
    found = np.zeros(values.shape, np.uint8)
    # in blocks of rows: eight bytes a pixel of a large picture are a third of a gigabyte
    for start in range(0, len(values) if low != high else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        shares = (np.clip(values[rows], low, high).astype(np.float64) - low) / (high - low)
        found[rows] = np.rint(255 * shares)
    return found


def luminance(colour_hwc: Array) -> Array:
    """Grey of red, green and blue by ITU-R 601, in whole numbers, the same as Pillow's `L`; a fourth channel is left.

    Args:
        colour_hwc: (..., 3 or 4) uint8 or uint16; the result has its dtype.
    """
    red, green, blue = (colour_hwc[..., channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(colour_hwc.dtype)


def class_numbers(colour_hwc: Array) -> Array:
    """The channel of a mask that was saved in colour, where all three are one.

    Raises:
        Faulty: mask_values, where they differ: a colour is no class number.
    """
    first = colour_hwc[..., 0]
    if not all(np.array_equal(first, colour_hwc[..., channel]) for channel in (1, 2)):
        raise Faulty("mask_values", "a mask in colours", "class numbers, in one channel or the same in all three")
    return first
