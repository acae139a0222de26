"""Likeness: whether a picture with its mask looks like those that a model was trained on.

What the hips look like in the frame of the two femoral heads is compared with the training cases' hips. A network draws
a femur into anything; around one that is none, nothing lies where it lies around a hip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from femur_tasks.dataset.alignment import coarse
from femur_tasks.dataset.fingerprint import SIDE, fingerprint
from femur_tasks.dataset.picture import Array

NAME: Final = "hips-16-2"
"""Stored with what was learned; another frame or measure gets another name."""
LEVEL: Final = 0.01
"""Share of pictures like the training cases that are called unlike."""
MIN_CASES: Final = 5
NEAREST: Final = 3
# Wider than the fingerprint's frame, and a little below the heads: acetabula, pubis and ischium tell an adult's pelvis.
_HALF, _ABOVE = 1.0, -0.1
_WIDTH: Final = SIDE // 4
_LEAST_SD: Final = 0.02


@dataclass(frozen=True)
class Likeness:
    """What the training cases look like.

    Attributes:
        hips_nd: (n, d) `hips` of the cases, or (0, d).
        limit: the least score of a picture like them; None where they are fewer than `MIN_CASES`.
    """

    hips_nd: NDArray[np.float32]
    limit: float | None

    def score(self, found: NDArray[np.float32]) -> float | None:
        """How alike a picture's `hips` are to the nearest training cases; None where there is no limit to compare."""
        return _scores(found[None], self.hips_nd)[0] if self.limit is not None else None

    def is_unlike(self, score: float | None) -> bool:
        """Whether a score lies below the limit; never where nothing can be said."""
        return score is not None and self.limit is not None and score < self.limit


def hips(image_hw: Array, mask_hw: Array) -> NDArray[np.float32]:
    """The hips in the frame of the femoral heads, 16 x 16 of local contrast, flat and of unit length.

    Args:
        image_hw, mask_hw: uint8 and bool of one size; the mask has a femur.
    """
    return np.asarray(coarse(fingerprint(image_hw, mask_hw, _HALF, _ABOVE)[None])[0], np.float32)


def learned(hips_nd: NDArray[np.float32]) -> Likeness:
    """Learn the limit from the training cases, each compared with the others.

    The limit is the lower end of the one-sided prediction interval for one more picture at `LEVEL`, where scores are
    normal: mean - t sd sqrt(1 + 1/n) with Student's t of n - 1 degrees of freedom.

    Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", for the score.
    """
    count = len(hips_nd)
    if count < MIN_CASES:
        return Likeness(hips_nd, None)
    scores = _scores(hips_nd, hips_nd, are_own=True)
    sd = max(float(np.std(scores, ddof=1)), _LEAST_SD)
    quantile = float(stats.t.ppf(LEVEL, count - 1))
    return Likeness(hips_nd, float(np.mean(scores)) + quantile * sd * math.sqrt(1 + 1 / count))


def _scores(found_md: NDArray[np.float32], known_nd: NDArray[np.float32], are_own: bool = False) -> list[float]:
    """Fisher's z of the mean correlation with the nearest cases, each as it is or mirrored, as fits better.

    Args:
        are_own: both are the same cases, and none is its own neighbour.
    """
    flipped = known_nd.reshape(-1, _WIDTH, _WIDTH)[:, :, ::-1].reshape(known_nd.shape)
    alike = np.maximum(found_md @ known_nd.T, found_md @ flipped.T)
    if are_own:
        np.fill_diagonal(alike, -np.inf)
    nearest = np.sort(alike, axis=1)[:, -NEAREST:].mean(axis=1)
    return [float(z) for z in np.arctanh(np.clip(nearest, -0.999, 0.999))]
