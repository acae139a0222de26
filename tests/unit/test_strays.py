"""What is left out of a mask: parts that lie away from both femurs, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from femur_tasks.dataset.resize import enlarge_probability
from femur_tasks.evaluation.strays import THRESHOLD, without_strays

LEFT, RIGHT = np.s_[30:70, 10:25], np.s_[30:70, 75:90]
"""Two femurs of 40 x 15 pixels in a picture of 100 x 100: its twentieth is 5 pixels."""


def probability(*parts: Any) -> NDArray[np.float32]:
    found = np.full((100, 100), 0.1, np.float32)
    for part in parts:
        found[part] = 0.9
    return found


@pytest.mark.parametrize(
    ("part", "goes"),
    [
        (np.s_[30:60, 47:52], True),
        (np.s_[5:6, 5:6], True),
        (np.s_[30:49, 30:45], True),  # 6 pixels from the femur's last column
        (np.s_[30:49, 29:44], False),  # 5 pixels
        (np.s_[10:28, 10:25], False),
        ((np.arange(70, 90), np.arange(25, 45)), False),
    ],
    ids=["on the spine", "speck in a corner", "just too far", "just near enough", "broken off", "corner to corner"],
)
def test_only_what_lies_away_from_both_femurs_goes(part: Any, goes: bool) -> None:
    whole = probability(LEFT, RIGHT, part)
    found = without_strays(whole)
    expected = whole.copy()
    if goes:
        expected[part] = 0
    np.testing.assert_array_equal(found, expected)


def test_lone_femur_keeps_everything_for_its_scale_is_not_known() -> None:
    alone = probability(LEFT, np.s_[50:53, 40:43])
    np.testing.assert_array_equal(without_strays(alone), alone)


@pytest.mark.parametrize("rows", [19, 20, 40, 60])
def test_part_of_half_the_smaller_femurs_area_may_be_a_femur_itself(rows: int) -> None:
    """The right femur is cut to 40 x 10 pixels; the part between the two is ten pixels wide."""
    large = probability(LEFT, np.s_[30:70, 75:85], np.s_[10 : 10 + rows, 45:55])
    expected = probability(LEFT, np.s_[30:70, 75:85]) if rows < 20 else large
    np.testing.assert_array_equal(without_strays(large) > THRESHOLD, expected > THRESHOLD)


def test_femurs_that_grew_together_stay_whole() -> None:
    merged = probability(LEFT, RIGHT, np.s_[50:52, 10:90])
    np.testing.assert_array_equal(without_strays(merged), merged)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_even_pictures_stay_as_they_are(level: float) -> None:
    even = np.full((20, 20), level, np.float32)
    np.testing.assert_array_equal(without_strays(even), even)


def test_enlarged_nothing_is_left_of_a_stray_and_the_rest_is_as_it_was() -> None:
    stray = np.s_[30:60, 48:53]
    with_one, without = probability(LEFT, RIGHT, stray), probability(LEFT, RIGHT)
    found = enlarge_probability(without_strays(with_one), 730, 510) > THRESHOLD
    np.testing.assert_array_equal(found, enlarge_probability(without, 730, 510) > THRESHOLD)


@pytest.mark.parametrize("seed", range(20))
def test_what_stays_never_changes_and_what_goes_is_zero(seed: int) -> None:
    random = np.random.default_rng(seed)
    noisy = random.random((64, 64), np.float32) ** 2
    found = without_strays(noisy)
    assert set(found[found != noisy]) <= {0}
    assert not ((noisy <= THRESHOLD) & (found != noisy)).any()
